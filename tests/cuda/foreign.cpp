// A user's own row kernel on a CUDA device, with a warp for each row, with a block, and with neither full.

#include "cuda/foreign.hpp"

#include "backend/backends.hpp"

using namespace tinymoe_test;

TEMPLATE_TEST_CASE("a kernel of one's own runs on a Cuda", "[cuda]", Cuda, CudaBfloat16) {
  if (!Cuda::available()) skip("no GPU can be used here");
  using T = typename TestType::Scalar;
  TestType device;
  Numbers numbers(20);
  for (const auto& [n, c] : {std::pair<Index, Index>{1, 1}, {3, 700}, {5, 33}, {8000, 5}}) {
    INFO("rows " << n << ", columns " << c);
    const auto x = numbers.take(n * c);
    std::vector<double> y, mean;
    for (Index row = 0; row < n; ++row) {
      double total = 0;
      for (Index i = 0; i < c; ++i) total += x[static_cast<std::size_t>(row * c + i)];
      mean.push_back(total / double(c));
      for (Index i = 0; i < c; ++i) y.push_back(std::pow(x[static_cast<std::size_t>(row * c + i)], 2) - mean.back());
    }
    Guarded<TestType, T> from(device, n, c, 3), to(device, n, c, 3);
    Guarded<TestType, float> centre(device, 1, n);
    from.write(x);
    check_output(to, {}, y, [&] { device.launch(n, foreign::SquareLessMean<T>{from, to, centre}); });
    check_close("means", centre.read(), mean, 1e-5);
    check_holds("guards are untouched", centre.intact());
  }
}
