#include "tinymoe/core/threads.hpp"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <thread>

#include "support/catch.hpp"
#include "support/data.hpp"

#ifdef __linux__
#include <sched.h>
#endif

namespace tinymoe_test::threads {

using namespace tinymoe;

TEST_CASE("OMP_NUM_THREADS says how many threads there are by default, and the cores if it says nothing", "[threads]") {
  const char* const set = std::getenv("OMP_NUM_THREADS");
  const std::string before = set ? set : "";
  const int cores = detail::available_cores();
  CHECK(cores >= 1);
  const auto with = [](const char* text) {
    ::setenv("OMP_NUM_THREADS", text, 1);
    return detail::default_threads();
  };
  CHECK(with("1") == 1);
  CHECK(with(" 3 ") == 3);
  CHECK(with("5,2") == 5);  // those of nested regions come after a comma
  for (const char* none : {"", "0", "-1", "odd"}) CHECK(with(none) == cores);
  for (const char* far : {"100000", "99999999999999999999"}) CHECK(with(far) == std::max(256, cores));
  ::unsetenv("OMP_NUM_THREADS");
  CHECK(detail::default_threads() == cores);
  if (set) ::setenv("OMP_NUM_THREADS", before.c_str(), 1);
}

#ifdef __linux__
TEST_CASE("the cores are those that a thread may run on", "[threads]") {
  int cores = 0;
  std::thread([&] {
    cpu_set_t all, one;
    if (::sched_getaffinity(0, sizeof all, &all) != 0) return;
    CPU_ZERO(&one);
    int core = 0;
    while (!CPU_ISSET(core, &all)) ++core;
    CPU_SET(core, &one);
    if (::sched_setaffinity(0, sizeof one, &one) == 0) cores = detail::available_cores();
  }).join();
  CHECK(cores == 1);
}
#endif

TEST_CASE("a control group grants no more cores than its quota of time", "[threads]") {
  const TemporaryFolder system;
  const auto file = [&](const std::string& name, const std::string& text) {
    std::filesystem::create_directories((system / name).parent_path());
    std::ofstream(system / name) << text;
  };
  const auto found = [&] { return detail::granted_cores(system.path().string()); };
  constexpr std::size_t none = std::numeric_limits<std::size_t>::max();
  CHECK(found() == none);
  SECTION("of version 2") {
    file("proc/self/cgroup", "0::/jobs/run\n");
    file("sys/fs/cgroup/jobs/run/cpu.max", "max 100000\n");
    CHECK(found() == none);
    file("sys/fs/cgroup/jobs/cpu.max", "350000 100000\n");
    CHECK(found() == 4);
    file("sys/fs/cgroup/cpu.max", "200000 100000\n");
    CHECK(found() == 2);
    file("sys/fs/cgroup/jobs/run/cpu.max", "1000 100000\n");
    CHECK(found() == 1);
    CHECK(detail::available_cores(system.path().string()) == 1);
    for (const char* odd : {"", "100000", "100000 0\n", "odd\n"}) {
      file("sys/fs/cgroup/jobs/run/cpu.max", odd);
      CHECK(found() == 2);
    }
  }
  SECTION("of version 1") {
    file("proc/self/cgroup", "4:cpu,cpuacct:/jobs\n0::/\n");
    file("sys/fs/cgroup/cpu/jobs/cpu.cfs_quota_us", "-1\n");
    file("sys/fs/cgroup/cpu/jobs/cpu.cfs_period_us", "100000\n");
    CHECK(found() == none);
    file("sys/fs/cgroup/cpu/jobs/cpu.cfs_quota_us", "150000\n");
    CHECK(found() == 2);
    CHECK(detail::available_cores(system.path().string()) <= 2);
  }
}

}  // namespace tinymoe_test::threads
