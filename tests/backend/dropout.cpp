#include "tinymoe/backend/dropout.hpp"

#include <vector>

#include "support/catch.hpp"

namespace tinymoe_test::dropout {

using namespace tinymoe;

TEST_CASE("dropout's factor of one element is the one that its row has", "[dropout]") {
  const Dropout dropout{RandomStream(Seed{3}, 7, RandomSite::in_layers(2), 2), 11, 0.3};
  bool same = true;
  Index zeros = 0, elements = 0;
  for (const Index width : {1, 3, 4, 5, 64, 67}) {
    for (Index row = 0; row < 20; ++row) {
      std::vector<float> factors(static_cast<std::size_t>(width), -1);
      const Index first = row % width, last = width - row % 2 * (width > first + 1 ? 1 : 0);
      float* to = factors.data();
      dropout.each<float>(SerialGroup{}, row, width, first, last, [=](Index i, float factor) { to[i] = factor; });
      for (Index i = 0; i < width; ++i) {
        const float factor = dropout.factor<float>(row, width, i), found = factors[static_cast<std::size_t>(i)];
        same = same && found == (i < first || i >= last ? -1 : factor);
        zeros += factor == 0, ++elements;
        if (factor != 0) REQUIRE(factor == Approx(1 / 0.7));
      }
    }
  }
  CHECK(same);
  CHECK(double(zeros) / double(elements) == Approx(0.3).margin(0.03));
}

TEST_CASE("dropout's rows have draws of their own", "[dropout]") {
  // Of a width that is no multiple of four the last draw of a row is not the first of the next.
  const Dropout dropout{RandomStream(Seed{3}, 7, RandomSite::in_layers(2), 2), 0, 0.5};
  for (const Index width : {1, 2, 3, 5, 6, 7, 258}) {
    Index same = 0, all = 0;
    for (Index row = 0; row < 50; ++row) {
      for (Index i = width / 4 * 4; i < width; ++i) {
        same += dropout.factor<float>(row, width, i) == dropout.factor<float>(row + 1, width, i % 4), ++all;
      }
    }
    INFO(width << ": " << same << " of " << all);
    CHECK(same < all);
  }
}

}  // namespace tinymoe_test::dropout
