#include "tinymoe/core/memory.hpp"

#include <cstdint>
#include <utility>
#include <vector>

#include "support/catch.hpp"

namespace tinymoe_test::memory {

using namespace tinymoe;

namespace {

int freed = 0;
std::size_t freed_bytes = 0;

Memory counted(void* address, std::size_t bytes) {
  return {address, bytes, [](void*, std::size_t size) { ++freed, freed_bytes += size; }};
}

/// What a layer might plan: kept tensors, and scratch in frames that share it.
struct Example {
  View<float> kept, also_kept, outer, first, second, last, persistent;

  void plan(Plan& plan) {
    kept = plan.keep<float>(3, 5);  // 60 bytes: one line
    persistent = plan.persist<float>(1, 1);
    const Plan::Frame frame(plan);
    outer = plan.scratch<float>(1, 16);  // 64 bytes
    {
      const Plan::Frame inner(plan);
      first = plan.scratch<float>(1, 40);  // 160, rounded to 192
    }
    {
      const Plan::Frame inner(plan);
      second = plan.scratch<float>(1, 17);  // 128 after rounding
      also_kept = plan.keep<float>(1, 17);
    }
    last = plan.scratch<float>(1, 1);
  }
};

struct Block {
  alignas(64) std::byte bytes[8192];
};

}  // namespace

TEST_CASE("sizes round up to lines", "[memory]") {
  STATIC_REQUIRE(detail::round_up(0, 64) == 0);
  STATIC_REQUIRE(detail::round_up(1, 64) == 64);
  STATIC_REQUIRE(detail::round_up(64, 64) == 64);
  STATIC_REQUIRE(detail::round_up(65, 64) == 128);
}

TEST_CASE("a plan for training keeps what backward reads and shares scratch", "[memory]") {
  Example example;
  Plan measure(Plan::Purpose::training);
  example.plan(measure);
  CHECK(example.kept.empty());  // measured only
  CHECK(example.kept.rows == 3);
  CHECK(measure.bytes() == 256 + 64 + 192);  // kept and persistent, the outer frame's line, the larger inner frame

  Block block;
  Plan place(Plan::Purpose::training, block.bytes, measure);
  example.plan(place);
  CHECK(place.bytes() == measure.bytes());
  const auto at = [&](const View<float>& view) { return reinterpret_cast<std::byte*>(view.data) - block.bytes; };
  CHECK(at(example.persistent) == 0);
  CHECK(at(example.kept) == 64);
  CHECK(at(example.also_kept) == 128);  // taken inside of a frame, and stays all the same
  CHECK(at(example.outer) == 256);
  CHECK(at(example.first) == 320);
  CHECK(at(example.second) == 320);  // the frames share
  CHECK(at(example.last) == 320);
  CHECK(example.kept.rows == 3);
  CHECK(example.kept.cols == 5);
}

TEST_CASE("a plan for inference keeps nothing but what persists", "[memory]") {
  Example example;
  Plan measure(Plan::Purpose::inference);
  example.plan(measure);
  CHECK(measure.purpose() == Plan::Purpose::inference);
  CHECK(measure.bytes() == 64 + 64 + 64 + 128 + 128);  // kept, outer, second and also_kept are scratch now
  Block block;
  Plan place(Plan::Purpose::inference, block.bytes, measure);
  example.plan(place);
  const auto at = [&](const View<float>& view) { return reinterpret_cast<std::byte*>(view.data) - block.bytes; };
  CHECK(at(example.persistent) == 0);
  CHECK(at(example.kept) == 64);
  CHECK(at(example.outer) == 128);
  CHECK(at(example.second) == 192);
  CHECK(at(example.also_kept) == 320);
  CHECK(at(example.last) == 192);
}

TEST_CASE("every planned tensor begins on a line and holds no other's elements", "[memory]") {
  Block block;
  std::vector<std::pair<std::byte*, std::byte*>> ranges;
  const auto take = [&](Plan& plan, auto add) {
    for (const Index n : {1, 3, 16, 17, 31}) {
      add(plan.keep<float>(n, 1));
      add(plan.keep<double>(1, n));
      add(plan.persist<std::int8_t>(n, n));
      add(plan.scratch<float>(1, n));
    }
  };
  Plan measure(Plan::Purpose::training);
  take(measure, [](auto view) { CHECK(view.empty()); });
  REQUIRE(measure.bytes() <= sizeof(Block));
  Plan plan(Plan::Purpose::training, block.bytes, measure);
  take(plan, [&](auto view) {
    CHECK(reinterpret_cast<std::uintptr_t>(view.data) % memory_alignment == 0);
    auto* first = reinterpret_cast<std::byte*>(view.data);
    ranges.emplace_back(first, first + static_cast<std::size_t>(view.size()) * sizeof(*view.data));
  });
  std::sort(ranges.begin(), ranges.end());
  for (std::size_t i = 1; i < ranges.size(); ++i) CHECK(ranges[i - 1].second <= ranges[i].first);
  CHECK(ranges.back().second <= block.bytes + measure.bytes());
}

TEST_CASE("overlays share what they keep, and nothing else", "[memory]") {
  View<float> before, first, second, after, persistent;
  const auto walk = [&](Plan& plan) {
    before = plan.keep<float>(1, 16);
    {
      const Plan::Overlay overlay(plan);
      first = plan.keep<float>(1, 16);
      persistent = plan.persist<float>(1, 16);
    }
    {
      const Plan::Overlay overlay(plan);
      second = plan.keep<float>(1, 48);
    }
    after = plan.keep<float>(1, 16);
  };
  Plan measure(Plan::Purpose::training);
  walk(measure);
  CHECK(measure.bytes() == 64 + 64 + 192);  // persistent, before, and the larger overlay, whose room `after` takes
  Block block;
  Plan place(Plan::Purpose::training, block.bytes, measure);
  walk(place);
  CHECK(first.data == second.data);
  CHECK(before.data + 16 == first.data);
  CHECK(persistent.data + 16 == before.data);
}

TEST_CASE("a plan of nothing needs nothing", "[memory]") {
  Plan plan(Plan::Purpose::training);
  CHECK(plan.keep<float>(0, 5).size() == 0);
  CHECK(plan.bytes() == 0);
}

TEST_CASE("memory is freed once, by the function that came with it", "[memory]") {
  int word = 0;
  freed = 0, freed_bytes = 0;
  {
    Memory first = counted(&word, 4);
    CHECK(first.as<std::int16_t>().cols == 2);
    CHECK(first.as<int>().data == &word);
    CHECK(first.size() == 4);
    Memory second(std::move(first));
    CHECK(first.bytes() == nullptr);
    CHECK(first.size() == 0);
    CHECK(freed == 0);
    Memory third;
    third = std::move(second);
    CHECK(third.as<int>().data == &word);
    CHECK(freed == 0);
    third = counted(&word, 8);  // the old block goes
    CHECK(freed == 1);
    CHECK(freed_bytes == 4);
    third = Memory();
    CHECK(freed == 2);
    CHECK(freed_bytes == 12);
  }
  CHECK(freed == 2);  // nothing is left to free
  { const Memory last = counted(&word, 4); }
  CHECK(freed == 3);
}

TEST_CASE("a PerRow gives as many of the first rows as the caller asks for", "[memory]") {
  float numbers[12] = {};
  const PerRow<float> planned = View<float>(numbers, 4, 3);
  CHECK(planned(4).data == numbers);
  CHECK(planned(4).rows == 4);
  CHECK(planned(2).rows == 2);
  CHECK(planned(2).cols == 3);
  CHECK(planned(2).stride == 3);
  CHECK(planned(0).size() == 0);
  CHECK(PerRow<float>()(5).empty());  // an inference plan left it out
}

}  // namespace tinymoe_test::memory
