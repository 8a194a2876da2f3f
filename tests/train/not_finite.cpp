// A step that fails for a number that is not finite names the first operation in which there was one.

#include "support/catch.hpp"
#include "tinymoe/checkpoint/checkpoint.hpp"
#include "tinymoe/train/trainer.hpp"
#include "train/tiny.hpp"

namespace tinymoe_test::not_finite {

namespace {

/// A norm whose backward writes a NaN into the gradient of its gain.
struct BrokenNorm : RmsNorm {
  template <Index D>
  struct Layer : RmsNorm::Layer<D> {
    using Base = RmsNorm::Layer<D>;
    template <Backend B, class W, class T = typename B::Scalar, class M = typename B::Master>
    static void backward(B& backend, const Pass& pass, const typename Base::template Parameters<W>& p, Input<B> dy,
                         Output<B> dx, typename Base::template Saved<T, M>& saved,
                         typename Base::template Parameters<M>& gradients) {
      Base::backward(backend, pass, p, dy, dx, saved, gradients);
      gradients.weight.data[3] = std::numeric_limits<M>::quiet_NaN();
    }
    template <Backend B, class W, class T = typename B::Scalar, class M = typename B::Master>
    static void backward_and_add(B& backend, const Pass& pass, const typename Base::template Parameters<W>& p,
                                 Input<B> dy, Input<B> beside, Output<B> dx, typename Base::template Saved<T, M>& saved,
                                 typename Base::template Parameters<M>& gradients) {
      Base::backward_and_add(backend, pass, p, dy, beside, dx, saved, gradients);
      gradients.weight.data[3] = std::numeric_limits<M>::quiet_NaN();
    }
  };
};

/// What a step says that fails.
template <class TrainerType>
std::string refusal(TrainerType& trainer, bool recompute = false) {
  const auto inputs = random_tokens(32, 260), targets = random_tokens(32, 260, 2);
  try {
    trainer.train_step(inputs, targets, 1, 16, {.recompute = recompute});
  } catch (const TrainingError& error) {
    std::string said = error.what();
    if (const auto sign = said.find("-nan"); sign != said.npos) said.erase(sign, 1);  // it means nothing
    return said;
  }
  return "";
}

/// The operation that reads a tensor first.
std::string operation_of(const std::string& tensor) {
  const auto has = [&](const char* part) { return tensor.find(part) != tensor.npos; };
  if (has("embed_tokens")) return "the embedding";
  if (has("lm_head")) return "the head or the cross-entropy";
  if (!has("layers")) return "the last norm";
  const std::string layer = " of model.layers." + std::string(has("layers.0") ? "0" : "1");
  if (has("input_layernorm")) return "the norm before the attention" + layer;
  if (has("self_attn")) return "the attention" + layer;
  if (has("post_attention_layernorm")) return "the norm before the router" + layer;
  return (has("gate.weight") ? "the router" : "the experts") + layer;
}

}  // namespace

TEST_CASE("A loss that is not finite names the first operation in which there was such a number", "[trainer]") {
  Cpu backend(1);
  Model<Tiny, Cpu> model(backend, Seed{5});
  Trainer trainer(model, AdamW{});
  const auto good = weights_of(model);
  for (const bool recompute : {false, true}) {
    for (const auto& tensor : detail::disk_tensors<Model<Tiny, Cpu>::Weights>()) {
      INFO(tensor.name);
      auto spoilt = good;
      for (Index i = 0; i < tensor.size; ++i) {  // some rows of an embedding are of no token
        spoilt[static_cast<std::size_t>(tensor.offset + i)] = std::numeric_limits<float>::quiet_NaN();
      }
      set_weights(model, spoilt);
      CHECK(refusal(trainer, recompute) ==
            "step 1: the loss is nan, first in " + operation_of(tensor.name) + "; a lower learning rate may help");
      CHECK(trainer.step() == 0);
    }
  }
  // The search leaves nothing behind: the step is that of a trainer that never failed.
  set_weights(model, good);
  CHECK(refusal(trainer).empty());
  Model<Tiny, Cpu> other(backend, Seed{5});
  Trainer untouched(other, AdamW{});
  CHECK(refusal(untouched).empty());
  CHECK(same_bits(weights_of(model), weights_of(other)));
}

TEST_CASE("A validation loss that is not finite names the first operation, too", "[trainer]") {
  Cpu backend(1);
  Model<Tiny, Cpu> model(backend, Seed{5});
  Trainer trainer(model, AdamW{});
  const auto good = weights_of(model);
  for (const auto& tensor : detail::disk_tensors<Model<Tiny, Cpu>::Weights>()) {
    if (tensor.name.find("experts") != tensor.name.npos) continue;  // one of them may have no token
    INFO(tensor.name);
    auto spoilt = good;
    for (Index i = 0; i < tensor.size; ++i) {
      spoilt[static_cast<std::size_t>(tensor.offset + i)] = std::numeric_limits<float>::infinity();
    }
    set_weights(model, spoilt);
    const std::string place = "first in " + operation_of(tensor.name);
    check_message<TrainingError>([&] { trainer.evaluate(tiny_data(), 2, 16); }, "step 0: the validation loss is",
                                 place);
    check_message<TrainingError>([&] { evaluate(model, tiny_data(), 2, 16); }, "the validation loss is", place);
  }
  // Of the average, which is what is evaluated; the weights come back.
  set_weights(model, good);
  const double loss = trainer.evaluate(tiny_data(), 2, 16).loss;
  auto spoilt = good;
  std::fill(spoilt.begin(), spoilt.end(), std::numeric_limits<float>::quiet_NaN());
  set_weights(model, spoilt);
  trainer.average(0.5);
  set_weights(model, good);
  check_message<TrainingError>([&] { trainer.evaluate(tiny_data(), 2, 16); }, "validation loss is", "the embedding");
  CHECK(same_bits(weights_of(model), good));
  trainer.average(0);
  CHECK(trainer.evaluate(tiny_data(), 2, 16).loss == loss);
}

TEST_CASE("A gradient that is not finite is named by its tensor", "[trainer]") {
  Cpu backend(1);
  Model<TinyOf<260, 24, BrokenNorm>, Cpu> model(backend, Seed{5});
  Trainer trainer(model, AdamW{});
  CHECK(
      refusal(trainer) ==
      "step 1: the gradients' norm is nan, first in the gradient of model.norm.weight; a lower learning rate may help");
}

TEST_CASE("Gradients whose squares overflow are told as such", "[trainer]") {
  Cpu backend(1);
  Model<Tiny, Cpu> model(backend, Seed{5});
  auto weights = weights_of(model);
  // The head sees numbers of 1e-25, so the gradient of the gain before it is finite and its square is not.
  for (const auto& tensor : detail::disk_tensors<Model<Tiny, Cpu>::Weights>()) {
    const float factor = tensor.name == "model.norm.weight" ? 1e-25f : tensor.name == "lm_head.weight" ? 1e25f : 1.0f;
    for (Index i = 0; i < tensor.size; ++i) weights[static_cast<std::size_t>(tensor.offset + i)] *= factor;
  }
  set_weights(model, weights);
  Trainer trainer(model, AdamW{});
  CHECK(refusal(trainer) ==
        "step 1: the gradients' norm is inf, first in the sum of the gradients' squares; a lower "
        "learning rate may help");
}

TEST_CASE("A learning rate of 0 changes no weight", "[trainer]") {
  Cpu backend(1);
  Model<Tiny, Cpu> model(backend, Seed{5});
  Trainer trainer(model, AdamW{.lr = 1e-3}, [](const Progress&) { return 0.0; });
  const auto before = weights_of(model);
  CHECK(refusal(trainer).empty());
  CHECK(trainer.step() == 1);
  CHECK(same_bits(weights_of(model), before));
}

}  // namespace tinymoe_test::not_finite
