#include "tinymoe/core/weights.hpp"

#include <array>
#include <numeric>

#include "support/catch.hpp"

namespace tinymoe_test::tensor {

using namespace tinymoe;

TEST_CASE("a view finds its elements, row by row", "[tensor]") {
  std::array<int, 12> data{};
  std::iota(data.begin(), data.end(), 0);
  const View<int> view(data.data(), 3, 4);
  CHECK(view.stride == 4);
  CHECK(view.size() == 12);
  CHECK(view.contiguous());
  CHECK(view(0, 0) == 0);
  CHECK(view(1, 2) == 6);
  CHECK(view.row(2) == data.data() + 8);
  view(2, 3) = 99;
  CHECK(data[11] == 99);
}

TEST_CASE("a view's rows may lie apart", "[tensor]") {
  std::array<int, 12> data{};
  std::iota(data.begin(), data.end(), 0);
  const View<int> view(data.data(), 3, 2, 4);
  CHECK(view(2, 1) == 9);
  CHECK(view.size() == 6);
  CHECK_FALSE(view.contiguous());
  CHECK(View<int>(data.data(), 1, 2, 4).contiguous());  // one row always is
  CHECK(View<int>(data.data(), 0, 2, 4).contiguous());
}

TEST_CASE("parts of a view are views of the same elements", "[tensor]") {
  std::array<int, 20> data{};
  std::iota(data.begin(), data.end(), 0);
  const View<int> view(data.data(), 4, 5);
  const auto rows = view.middle_rows(1, 2);
  CHECK(rows.rows == 2);
  CHECK(rows.cols == 5);
  CHECK(rows(1, 4) == 14);
  const auto cols = view.middle_cols(2, 3);
  CHECK(cols.cols == 3);
  CHECK(cols.stride == 5);
  CHECK(cols(3, 0) == 17);
  const auto both = rows.middle_cols(1, 2).middle_rows(1, 1);
  CHECK(both.size() == 2);
  CHECK(both(0, 1) == 12);
  CHECK(view.middle_rows(4, 0).size() == 0);
  CHECK(view.middle_cols(0, 0).size() == 0);
}

TEST_CASE("a view converts to one of const elements, and not back", "[tensor]") {
  STATIC_REQUIRE(std::is_convertible_v<View<int>, View<const int>>);
  STATIC_REQUIRE_FALSE(std::is_convertible_v<View<const int>, View<int>>);
  STATIC_REQUIRE(std::is_convertible_v<Tensor<int, 2, 3>, View<const int>>);
  STATIC_REQUIRE_FALSE(std::is_convertible_v<Tensor<const int, 2, 3>, View<int>>);
  std::array<int, 6> data{1, 2, 3, 4, 5, 6};
  const View<const int> read = View<int>(data.data(), 2, 2, 3);
  CHECK(read.stride == 3);
  CHECK(read(1, 1) == 5);
}

TEST_CASE("a view of nothing is empty", "[tensor]") {
  CHECK(View<int>().empty());
  CHECK(View<int>().size() == 0);
  int one = 1;
  CHECK_FALSE(View<int>(&one, 1, 1).empty());
  const View<const int> none = NoTensor{};
  CHECK(none.empty());
  STATIC_REQUIRE(NoTensor::size() == 0);
  CHECK(Bank<int>{}.empty());
}

TEST_CASE("a tensor has its shape in its type", "[tensor]") {
  STATIC_REQUIRE(Tensor<float, 3, 4>::rows == 3);
  STATIC_REQUIRE(Tensor<float, 3, 4>::cols == 4);
  STATIC_REQUIRE(Tensor<float, 3, 4>::size() == 12);
  std::array<float, 12> data{};
  data[7] = 2.5f;
  const Tensor<float, 3, 4> tensor{data.data()};
  CHECK(tensor.view()(1, 3) == 2.5f);
  const View<const float> read = tensor;
  CHECK(read.rows == 3);
  CHECK(read(1, 3) == 2.5f);
}

TEST_CASE("a bank steps from expert to expert", "[tensor]") {
  std::array<int, 24> data{};
  std::iota(data.begin(), data.end(), 0);
  const Bank<int> bank{data.data(), 3, 2, 3, 8};  // two elements between the experts' tensors
  CHECK(bank[0](1, 2) == 5);
  CHECK(bank[2](0, 0) == 16);
  CHECK(bank[2](1, 2) == 21);
  CHECK(bank[1].rows == 2);
  CHECK(bank[1].cols == 3);
}

}  // namespace tinymoe_test::tensor
