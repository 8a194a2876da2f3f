// A user's own row kernel on a CUDA device, with a warp for each row, with a block, and with neither full; and a user's
// own activation.

#include "cuda/foreign.hpp"

#include "backend/backends.hpp"
#include "tinymoe/sample/session.hpp"

using namespace tinymoe_test;

TEMPLATE_TEST_CASE("a user's kernel runs on a Cuda", "[cuda]", Cuda, CudaBfloat16) {
  if (!Cuda::available()) skip("no GPU can be used here");
  using T = typename TestType::Scalar;
  TestType device;
  Numbers numbers(20);
  for (const auto& shape : {std::pair<Index, Index>{1, 1}, {3, 700}, {5, 33}, {8000, 5}}) {
    const Index n = shape.first, c = shape.second;
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

TEST_CASE("a user's activation runs on a Cuda", "[cuda]") {
  if (!Cuda::available()) skip("no GPU can be used here");
  using Own = Transformer<
      Vocab<60>, Context<12>, Width<16>,
      Layers<1, MoEBlock<RmsNorm, Attention<Heads<2>>, Router<3, 2>, Expert<foreign::SquaredRelu, Hidden<24>, Bias>>>>;
  Reference<double> oracle;
  Cuda device;
  const Model<Own, Reference<double>> there(oracle, Seed{4});
  const Model<Own, Cuda> here(device, Seed{4});
  Session expected(there);
  Session found(here);
  const std::vector<Token> prompt = {3, 14, 15, 9, 26, 5, 35, 8, 9};  // more pairs than are decoded by fused kernels
  const auto near = [](auto a, auto b) {
    for (std::size_t i = 0; i < a.size(); ++i) CHECK(a[i] == Approx(b[i]).margin(1e-4));
  };
  near(found.feed(prompt), expected.feed(prompt));
  near(found.feed(std::span(prompt).first(1)), expected.feed(std::span(prompt).first(1)));
}
