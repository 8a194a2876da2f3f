#include "tinymoe/backend/cpu.hpp"

#include <atomic>
#include <vector>

#include "support/catch.hpp"

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
#ifdef _OPENMP
  CHECK(Cpu(3).threads() == 3);
#else
  CHECK(Cpu(3).threads() == 1);
#endif
  CHECK(std::string(Cpu::name()) == "cpu");
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

}  // namespace tinymoe_test::cpu
