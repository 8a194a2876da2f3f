#include "tinymoe/backend/cpu.hpp"

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "files/bytes.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"
#include "support/sanitizers.hpp"

namespace tinymoe_test::cpu {

using namespace tinymoe;

namespace {

/// Counts the visits of each row.
struct Visit {
  std::atomic<int>* visits;
  template <class Group>
  void operator()(Group group, Index row) const {
    group.once([&] { ++visits[row]; });
  }
};

}  // namespace

TEST_CASE("launch visits each row once, with any number of threads", "[cpu]") {
  for (const int threads : {1, 2, 3, 7}) {
    const Cpu backend(threads);
    for (const Index rows : {0, 1, 2, 5, 64, 1001}) {
      std::vector<std::atomic<int>> visits(static_cast<std::size_t>(rows) + 1);
      backend.launch(rows, Visit{visits.data()});
      bool once = visits[static_cast<std::size_t>(rows)] == 0;
      for (Index row = 0; row < rows; ++row) once = once && visits[static_cast<std::size_t>(row)] == 1;
      CHECK(once);
    }
  }
}

TEST_CASE("a Cpu has the threads that it was given, or at least one", "[cpu]") {
  CHECK(Cpu().threads() >= 1);
  CHECK(Cpu(3).threads() == 3);
}

/// One of a set that this machine need not have; none of its products is run.
template <class B>
struct Named : B {
  explicit Named(CpuInstructions set) : B(1, set) {}
};
template <class B>
std::string name_by(CpuInstructions set) {
  return Named<B>(set).name();
}

TEST_CASE("a Cpu says which instructions it uses", "[cpu]") {
  using enum CpuInstructions;
  using detail::cpu::compiled_for;
  CHECK(Cpu(CpuOptions{.instructions = baseline}).instructions() == baseline);
  CHECK(Cpu().instructions() == detail::cpu::chosen({}));
  const std::string rows = std::string(", row kernels ") + detail::cpu::name_of(compiled_for);
  const auto of_rows = [&](CpuInstructions set) { return compiled_for > set ? rows : ""; };
  CHECK(name_by<Cpu>(baseline) == "cpu, baseline" + of_rows(baseline));
  CHECK(name_by<CpuBfloat16>(baseline) == "cpu, baseline" + of_rows(baseline));
  if (!detail::cpu::usable(avx512)) return;  // else row kernels may run by less
  CHECK(name_by<Cpu>(avx2) == "cpu, AVX2" + of_rows(avx2));
  if (detail::cpu::set_of_rows(avx512) != avx512) return;
  CHECK(name_by<Cpu>(avx512) == "cpu, AVX-512");
  CHECK(name_by<Cpu>(vnni) == "cpu, AVX-512 VNNI");
  CHECK(name_by<Cpu>(amx) == "cpu, AVX-512 VNNI");      // float32 has no tiles
  CHECK(name_by<CpuBfloat16>(vnni) == "cpu, AVX-512");  // bfloat16 has no integer weights
#ifdef TINYMOE_AMX
  CHECK(name_by<CpuBfloat16>(amx) == "cpu, AMX");
#endif
}

TEST_CASE("row kernels by other instructions than the products stand in the name", "[cpu]") {
  using detail::cpu::cpu_name_of;
  CHECK(cpu_name_of(CpuInstructions::baseline, CpuInstructions::avx512) == "cpu, baseline, row kernels AVX-512");
  CHECK(cpu_name_of(CpuInstructions::amx, CpuInstructions::avx2) == "cpu, AMX, row kernels AVX2");
}

TEST_CASE("attention to a cache takes as scratch what a thread's logits are", "[cpu]") {
  const AttentionShape shape{.batch = 1, .time = 2048, .heads = 8, .kv_heads = 2, .head_dim = 64};
  const Index logits = 3 * 64 * 2048, rest = static_cast<Index>(memory_alignment / sizeof(float));
  const CpuOptions options{.threads = 3, .instructions = CpuInstructions::baseline};  // AMX takes more
  CHECK(Cpu(options).cache_attention_scratch(shape) == logits + rest);
  CHECK(CpuBfloat16(options).cache_attention_scratch(shape) == logits + 3 * 64 * 64 + rest);
}

TEST_CASE("a group on the CPU has one lane, sums and finds the maximum", "[cpu]") {
  constexpr SerialGroup group;
  STATIC_REQUIRE(SerialGroup::rank() == 0);
  STATIC_REQUIRE(SerialGroup::size() == 1);
  std::vector<int> seen(37, 0);
  group.each(37, [&](Index i) { ++seen[static_cast<std::size_t>(i)]; });
  CHECK(seen == std::vector<int>(37, 1));
  CHECK(group.sum(0, [](Index) { return 1.0; }) == 0.0);
  CHECK(group.sum(101, [](Index i) { return double(i); }) == 5050.0);
  CHECK(group.sum(3, [](Index i) { return std::complex<double>(double(i), 1); }) == std::complex<double>(3, 3));
  CHECK(group.max(101, [](Index i) { return i == 57 ? -1.0f : -2.0f - float(i); }) == -1.0f);
  CHECK(group.max(1, [](Index) { return -7.0; }) == -7.0);
  // By real part: an imaginary step does not change the maximum.
  CHECK(group.max(2, [](Index i) { return std::complex<double>(double(i), 9 - 9 * double(i)); }) == 1.0);
}

TEST_CASE("Memory that the machine does not have is refused before it is used", "[cpu]") {
  const Cpu device(1);
  const std::size_t available = detail::host_memory();
  REQUIRE(available > std::size_t{64} << 20);
  if (available > std::size_t{1} << 50) skip("the system does not tell its memory");
  const auto message = [&](std::size_t bytes) -> std::string {
    try {
      const Memory memory = device.allocate(bytes);
    } catch (const DeviceError& error) {
      return error.what();
    }
    return "";
  };
  CHECK(message(available + 1).find("MiB in all") != std::string::npos);
#if defined(__GLIBC__) && !TINYMOE_TEST_SANITIZED  // whose malloc tells nothing
  {
    const std::unique_ptr<char, void (*)(void*)> heap(static_cast<char*>(std::malloc(available / 2)), std::free);
    REQUIRE(heap != nullptr);  // promised, not used
    CHECK(message(available / 4 * 3).find("MiB are in use") != std::string::npos);
  }
  CHECK(message(available / 4 * 3).empty());
#endif
  const Memory most = device.allocate(available / 4 * 3);  // promised, not used
  CHECK(message(available / 2).find("MiB are in use") != std::string::npos);
  CHECK(message(std::size_t{1} << 60).find("out of memory") != std::string::npos);
  if (!MemoryLimit::works) return;
  // A limit of this process is the cause, not the machine's memory.
  const MemoryLimit limit(std::size_t{16} << 20);
  const std::string limited = message(std::size_t{48} << 20);
  INFO(limited);
  CHECK(limited.find("this process is limited to") != std::string::npos);
  CHECK(limited.find("ulimit -v") != std::string::npos);
  CHECK(limited.find("in all") == std::string::npos);
}

TEST_CASE("A control group's memory is the least of its own and of those around it", "[cpu]") {
  const TemporaryFolder system;
  const auto file = [&](const std::string& name, const std::string& text) {
    std::filesystem::create_directories((system / name).parent_path());
    std::ofstream(system / name) << text;
  };
  const auto found = [&] { return detail::host_memory(system.path().string()) >> 10; };
  CHECK(found() == std::numeric_limits<std::size_t>::max() >> 10);
  file("proc/meminfo", "MemTotal:        8000 kB\nMemFree: 1 kB\nSwapTotal:       1000 kB\n");
  CHECK(found() == 9000);
  SECTION("of version 2") {
    file("proc/self/cgroup", "0::/jobs/run\n");
    file("sys/fs/cgroup/jobs/run/memory.max", "max\n");
    CHECK(found() == 9000);
    file("sys/fs/cgroup/jobs/memory.max", std::to_string(3000 << 10));
    CHECK(found() == 4000);  // with the swap
    file("sys/fs/cgroup/jobs/memory.swap.max", "0\n");
    CHECK(found() == 3000);
    file("sys/fs/cgroup/memory.max", std::to_string(1500 << 10));
    CHECK(found() == 2500);
  }
  SECTION("of version 1") {
    file("proc/self/cgroup", "7:pids:/\n4:memory:/jobs\n0::/\n");
    file("sys/fs/cgroup/memory/jobs/memory.limit_in_bytes", std::to_string(3000 << 10));
    CHECK(found() == 4000);
    file("sys/fs/cgroup/memory/jobs/memory.memsw.limit_in_bytes", std::to_string(3100 << 10));
    CHECK(found() == 3100);
    file("proc/self/cgroup", "7:memory_like:/\n4:cpuset,memory,pids:/jobs\n0::/\n");  // mounted together
    CHECK(found() == 3100);
  }
}

}  // namespace tinymoe_test::cpu
