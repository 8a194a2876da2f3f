#include "tinymoe/core/worker.hpp"

#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "support/catch.hpp"

namespace tinymoe_test::worker {

using tinymoe::detail::Worker;

TEST_CASE("A worker does what it is given in order, beside the thread that gives it", "[worker]") {
  Worker worker;
  worker.finish();
  std::vector<int> done;
  std::thread::id thread;
  bool here = false;
  for (int round = 0; round < 100; ++round) {
    for (int i = 0; i < 3; ++i) {
      worker.give([&, i] {
        done.push_back(3 * round + i);
        thread = std::this_thread::get_id();
        here = worker.here();
      });
    }
    worker.finish();
    CHECK(here);
    CHECK_FALSE(worker.here());
  }
  REQUIRE(done.size() == 300);
  for (int i = 0; i < 300; ++i) CHECK(done[static_cast<std::size_t>(i)] == i);
  CHECK(thread != std::this_thread::get_id());
}

TEST_CASE("A worker tells what its work throws, once, and leaves what was given after it", "[worker]") {
  Worker worker;
  std::string done;
  worker.give([&] { done += 'a'; });
  worker.give([] { throw std::runtime_error("b"); });
  worker.give([&] { done += 'c'; });
  CHECK_THROWS_WITH(worker.finish(), "b");
  CHECK(done == "a");
  worker.finish();
  worker.give([&] { done += 'd'; });
  worker.finish();
  CHECK(done == "ad");
}

TEST_CASE("A worker that has nothing to do, or ends with work left, does not keep the program", "[worker]") {
  { const Worker idle; }
  std::string done;
  {
    Worker worker;
    worker.give([&] { done += 'a'; });
  }
  CHECK(done.size() <= 1);  // it may have begun
}

}  // namespace tinymoe_test::worker
