#include "tinymoe/layers/transformer.hpp"

#include <set>

#include "layers/model_trial.hpp"

namespace tinymoe_test::transformer {

namespace {

using DenseLayer = DenseBlock<LayerNorm, Attention<Heads<2>, Bias, Learned>, Expert<Gelu, Hidden<7>, Bias>>;
using SparseLayer = MoEBlock<RmsNorm, Attention<Heads<4>, KvHeads<2>, HeadDim<6>, Rope, SlidingWindow<3>>, Router<3, 2>,
                             Expert<SwiGlu, Hidden<5>>>;
/// All kinds of layers in one model.
using Mixed =
    Transformer<Vocab<11>, Context<16>, Width<8>, Layers<1, DenseLayer>, Layers<2, SparseLayer>, HeadBias, Bigrams<13>,
                PerLayerEmbeddings>;

constexpr Index V = 11;
using SmallLayer = DenseBlock<RmsNorm, Attention<Heads<2>>, Expert<Relu, Hidden<3>>>;
using Tied = Transformer<Vocab<V>, Context<8>, Width<8>, Layers<1, SmallLayer>, TiedHead>;
using Untied = Transformer<Vocab<V>, Context<8>, Width<8>, Layers<1, SmallLayer>>;

const Pass two_sequences{.batch = 2,
                         .time = 7,
                         .settings = {setting::balance_weight = 0.3, setting::z_weight = 0.2},
                         .router_loss_scale = 0.5};

template <class B>
using Trial_ = ModelTrial<Mixed, B>;
using Double = Trial_<Reference<double>>;

}  // namespace

TEST_CASE("the whole model has the gradients of complex steps", "[transformer][gradient]") {
  Reference<double> real;
  Double trial(real, two_sequences);
  trial.g.fill(before);
  const double loss = trial.loss();
  trial.backward();
  const auto once = trial.g.read();
  Reference<Complex> stepped_backend;
  Trial_<Reference<Complex>> stepped(stepped_backend, two_sequences);
  const auto stepped_loss = [&] { return stepped.loss(); };
  CHECK(stepped.loss().real() == Approx(loss).epsilon(1e-13));
  auto gradient = once;
  for (double& value : gradient) value -= before;
  Index offset = 0;
  Mixed::Parameters<double>::for_each(Path{}, [&](const ParameterInfo& info) {
    const std::string name = full_name(info);
    check_true(name + " has a gradient",
               check_slopes(name, stepped.model.buffer(), offset, info.size(), gradient, stepped_loss) > 1e-6);
    offset += aligned_size(info.size());
  });

  trial.forward();
  trial.backward();  // once more: everything is added
  auto twice = gradient;
  for (double& value : twice) value = before + 2 * value;
  CHECK(absolute_error(trial.g.read(), twice) < 1e-13);
}

TEST_CASE("the model's loss is that of its logits", "[transformer]") {
  Reference<double> backend;
  Double trial(backend, two_sequences);
  trial.pass.settings.set(setting::balance_weight = 0).set(setting::z_weight = 0);
  const double loss = trial.loss();
  const auto logits = trial.logits();
  double total = 0;
  for (Index n = 0; n < trial.pass.rows(); ++n) {
    const Token target = trial.targets[static_cast<std::size_t>(n)];
    if (target < 0) continue;
    double sum = 0;
    const auto row = rows_of(logits, V, n, 1);
    for (const double logit : row) sum += std::exp(logit);
    total += std::log(sum) - row[static_cast<std::size_t>(target)];
  }
  CHECK(loss == Approx(total * trial.scale).epsilon(1e-13));
}

TEST_CASE("a later token changes no earlier logit, nor those of another sequence", "[transformer]") {
  const auto check = [](auto&& trial, double tolerance) {
    const Index time = trial.pass.time;
    trial.forward();
    const auto before = trial.logits();
    for (const Index t : {Index{0}, Index{1}, time / 2, time - 1}) {
      auto& token = trial.tokens[static_cast<std::size_t>(t)];
      const Token kept = token;
      token = (token + 3) % V;
      trial.forward();
      const auto after = trial.logits();
      INFO("token " << t << " of " << time);
      CHECK(absolute_error(rows_of(after, V, 0, t), rows_of(before, V, 0, t)) <= tolerance);
      CHECK(absolute_error(rows_of(after, V, t, 1), rows_of(before, V, t, 1)) > 1e-4);
      CHECK(absolute_error(rows_of(after, V, time, time), rows_of(before, V, time, time)) <= tolerance);
      token = kept;
    }
  };
  Reference<double> oracle;
  Cpu one(1), two(2);
  check(Double(oracle, {.batch = 2, .time = 7}), 0);
  check(ModelTrial<Tied, Cpu>(two, {.batch = 2, .time = 37}), 0);
  // Where another token chooses another expert, rows move within the CPU's products and are rounded differently.
  check(Trial_<Cpu>(one, {.batch = 2, .time = 7}), 1e-5);
  check(Trial_<Cpu>(two, {.batch = 2, .time = 16}), 1e-5);
}

TEST_CASE("a token reaches as far as the windows of all layers", "[transformer]") {
  // Two layers of window 3 after one that sees everything: all later tokens see token 0, through the first layer.
  Reference<double> backend;
  Double trial(backend, {.time = 12});
  trial.forward();
  const auto first = trial.logits();
  trial.tokens[0] = (trial.tokens[0] + 1) % V;
  trial.forward();
  CHECK(absolute_error(rows_of(trial.logits(), V, 11, 1), rows_of(first, V, 11, 1)) > 1e-9);
}

TEST_CASE("a sequence's logits do not depend on the rest of the batch", "[transformer]") {
  const auto check = [](auto&& backend, double tolerance) {
    using Trial = Trial_<std::remove_cvref_t<decltype(backend)>>;
    Trial both(backend, {.batch = 3, .time = 9}), alone(backend, {.time = 9});
    both.forward();
    const auto all = both.logits();
    for (Index b = 0; b < 3; ++b) {
      std::copy_n(both.tokens.begin() + b * 9, 9, alone.tokens.begin());
      alone.forward();
      CHECK(absolute_error(alone.logits(), rows_of(all, V, b * 9, 9)) < tolerance);
    }
  };
  check(Reference<double>(), 1e-12);
  check(Cpu(2), 1e-5);
}

TEST_CASE("the model on the CPU agrees with the oracle and repeats itself", "[transformer][cpu]") {
  Reference<double> oracle;
  const Pass pass{.batch = 3, .time = 13, .settings = two_sequences.settings};
  Double expected(oracle, pass);
  const double loss = expected.loss();
  expected.backward();
  for (const int threads : {1, 2, 3}) {
    Cpu backend(threads);
    Trial_<Cpu> trial(backend, pass);
    CHECK(relative_error(std::vector<double>(trial.model.buffer().data, trial.model.buffer().data + trial.size),
                         std::vector<double>(expected.model.buffer().data, expected.model.buffer().data + trial.size)) <
          1e-7);
    CHECK(double(trial.loss()) == Approx(loss).epsilon(1e-5));
    trial.backward();
    CHECK(relative_error(trial.g.read(), expected.g.read()) < 1e-5);
    const auto g = trial.g.read();
    trial.g.fill(0);
    trial.forward();
    trial.backward();
    CHECK(same_bits(trial.g.read(), g));
  }
}

TEST_CASE("activations planned for a larger pass serve a smaller one", "[transformer]") {
  const auto check = [](auto&& backend, double tolerance) {
    using Trial = Trial_<std::remove_cvref_t<decltype(backend)>>;
    const Pass large{.batch = 3, .time = 16, .settings = two_sequences.settings};
    Trial fitting(backend, two_sequences), roomy(backend, two_sequences, &large);
    // What a larger pass leaves behind must not be read.
    roomy.pass = large;
    const auto tokens = roomy.tokens, targets = roomy.targets;
    roomy.tokens = random_tokens(large.rows(), V, 3);
    roomy.targets = random_tokens(large.rows(), V, 4);
    roomy.forward(), roomy.backward();
    roomy.pass = two_sequences;
    roomy.tokens = tokens, roomy.targets = targets;
    roomy.g.fill(0);
    const auto expected = double(real_part(fitting.loss()));
    CHECK(double(real_part(roomy.loss())) == Approx(expected).epsilon(tolerance));
    fitting.backward(), roomy.backward();
    CHECK(relative_error(roomy.g.read(), fitting.g.read()) < tolerance);
  };
  check(Reference<double>(), 1e-12);
  check(Cpu(2), 1e-5);
}

TEST_CASE("a tied head's gradient is the sum of its two uses", "[transformer]") {
  Reference<double> backend;
  ModelTrial<Tied, Reference<double>> tied(backend, {.batch = 2, .time = 5});
  ModelTrial<Untied, Reference<double>> untied(backend, {.batch = 2, .time = 5});
  const Index head = untied.size - aligned_size(V * 8);
  REQUIRE(tied.size == head);
  std::copy_n(tied.model.buffer().data, head, untied.model.buffer().data);
  std::copy_n(tied.model.buffer().data, V * 8, untied.model.buffer().data + head);
  CHECK(tied.loss() == Approx(untied.loss()).epsilon(1e-14));
  CHECK(same_bits(tied.logits(), untied.logits()));
  tied.backward();
  untied.backward();
  auto expected = untied.g.read();
  for (Index i = 0; i < V * 8; ++i)
    expected[static_cast<std::size_t>(i)] += expected[static_cast<std::size_t>(head + i)];
  expected.resize(static_cast<std::size_t>(head));
  CHECK(absolute_error(tied.g.read(), expected) < 1e-14);
  CHECK(tensor_names<Tied::Parameters<double>>().back() == "model.norm.weight");
  CHECK(tensor_names<Untied::Parameters<double>>().back() == "lm_head.weight");
}

TEST_CASE("parameters have the hub's names, in the order of the data's flow", "[transformer]") {
  std::vector<std::string> expected{"model.embed_tokens.weight", "model.embed_positions.weight",
                                    "model.embed_bigrams.weight", "model.embed_layers.1.weight",
                                    "model.embed_layers.2.weight"};
  const std::string qkv = "self_attn.q_proj.weight+k_proj.weight+v_proj.weight";
  for (const auto& name : std::vector<std::string>{
           "input_layernorm.weight", "input_layernorm.bias", qkv, "self_attn.o_proj.weight",
           "self_attn.q_proj.bias+k_proj.bias+v_proj.bias", "self_attn.o_proj.bias", "post_attention_layernorm.weight",
           "post_attention_layernorm.bias", "mlp.up_proj.weight", "mlp.down_proj.weight", "mlp.up_proj.bias",
           "mlp.down_proj.bias"}) {
    expected.push_back("model.layers.0." + name);
  }
  for (const std::string layer : {"model.layers.1.", "model.layers.2."}) {
    for (const auto& name :
         {std::string("input_layernorm.weight"), qkv, std::string("self_attn.o_proj.weight"),
          std::string("post_attention_layernorm.weight"), std::string("block_sparse_moe.gate.weight")}) {
      expected.push_back(layer + name);
    }
    for (const char expert : {'0', '1', '2'}) {
      const std::string path = layer + "block_sparse_moe.experts." + expert + ".";
      expected.push_back(path + "w1.weight+w3.weight");
      expected.push_back(path + "w2.weight");
    }
  }
  for (const auto* name : {"model.norm.weight", "lm_head.weight", "lm_head.bias"}) expected.emplace_back(name);
  CHECK(tensor_names<Mixed::Parameters<double>>() == expected);
}

TEST_CASE("parameters lie one after another, each aligned, at places known when compiling", "[transformer]") {
  using P = Mixed::Parameters<float>;
  constexpr auto places = segments<P>();
  STATIC_REQUIRE(places[0].offset == 0);
  STATIC_REQUIRE(places[0].size() == 11 * 8);
  STATIC_REQUIRE(places[0].cols == 8);
  STATIC_REQUIRE(places[0].part == Part::embedding);
  STATIC_REQUIRE(places[1].offset == 96);  // 88, rounded up to 16
  Index end = 0;
  for (const auto& place : places) {
    // Rows of a stacked tensor follow at once, the next tensor at a multiple of the alignment.
    CHECK((place.offset == end || place.offset == aligned_size(end)));
    end = place.offset + place.size();
  }
  CHECK(aligned_size(end) == buffer_size<P>());
  P p;
  std::vector<float> buffer(static_cast<std::size_t>(buffer_size<P>()));
  bind_parameters(p, buffer.data());
  CHECK(p.embedding.position.data == buffer.data() + 96);
  CHECK(p.bias.data == buffer.data() + places.back().offset);
  CHECK_FALSE(places.back().decay);  // a bias does not decay, the head before it does
  CHECK(places[places.size() - 2].decay);
}

TEST_CASE("weights start the same on every backend, and each seed otherwise", "[transformer]") {
  Reference<double> oracle;
  Cpu backend(2);
  const Model<Mixed, Reference<double>> expected(oracle, Seed{3});
  const Model<Mixed, Cpu> model(backend, Seed{3}), other(backend, Seed{4});
  const auto view = model.buffer();
  bool same = true;
  Index differ = 0;
  for (Index i = 0; i < view.cols; ++i) {
    same = same && double(view.data[i]) == expected.buffer().data[i];
    differ += view.data[i] != other.buffer().data[i];
  }
  CHECK(same);
  CHECK(differ > view.cols / 2);
}

TEST_CASE("weights start with the documented deviations", "[transformer]") {
  using Block =
      MoEBlock<LayerNorm, Attention<Heads<4>, KvHeads<1>, Learned, Bias>, Router<4, 2>, Expert<Relu, Hidden<96>, Bias>>;
  using Wide = Transformer<Vocab<300>, Context<100>, Width<32>, Layers<3, Block>, HeadBias>;
  Cpu backend(1);
  const Model<Wide, Cpu> model(backend, Seed{6});
  Index offset = 0;
  std::set<float> distinct;
  Index drawn = 0;
  Wide::Parameters<float>::for_each(Path{}, [&](const ParameterInfo& info) {
    const std::string name = full_name(info);
    const float* w = model.buffer().data + offset;
    const auto n = static_cast<double>(info.size());
    offset += aligned_size(info.size());
    const auto ends_in = [&](const std::string& end) { return name.size() >= end.size() && name.ends_with(end); };
    double mean = 0, square = 0;
    for (Index i = 0; i < info.size(); ++i) mean += w[i] / n, square += double(w[i]) * w[i] / n;
    if (ends_in("bias")) return check_true(name + " is zero", square == 0);
    if (name.find("norm") != std::string::npos) return check_true(name + " is one", square == 1 && mean == 1);
    double deviation = 1 / std::sqrt(double(info.cols));
    if (ends_in("o_proj.weight") || ends_in("w2.weight")) deviation /= std::sqrt(6.0);  // 2 · 3 layers
    check_small(name + ": deviation", std::abs(std::sqrt(square) / deviation - 1), 5 / std::sqrt(2 * n));
    check_small(name + ": mean", std::abs(mean) / deviation, 5 / std::sqrt(n));
    distinct.insert(w, w + info.size());
    drawn += info.size();
  });
  CHECK(std::ssize(distinct) > drawn * 99 / 100);  // no numbers are used twice
}

TEST_CASE("a model has the sizes that its options give", "[transformer]") {
  STATIC_REQUIRE(Mixed::layers == 3);
  STATIC_REQUIRE(Mixed::learned_positions);
  STATIC_REQUIRE(std::is_same_v<Mixed::FinalNormType, RmsNorm>);  // that of the last block
  STATIC_REQUIRE(
      std::is_same_v<
          Transformer<Vocab<3>, Context<2>, Width<8>, Layers<1, SparseLayer>, FinalNorm<LayerNorm>>::FinalNormType,
          LayerNorm>);
  std::vector<std::array<Index, 3>> visited;
  Mixed::for_each_layer([&](auto group, Index i, Index number) { visited.push_back({Index{group}, i, number}); });
  CHECK(visited == std::vector<std::array<Index, 3>>{{0, 0, 0}, {1, 0, 1}, {1, 1, 2}});
}

}  // namespace tinymoe_test::transformer
