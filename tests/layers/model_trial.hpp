#pragma once
// A whole model with random weights and tokens on one backend, its loss and its gradients.

#include "support/gradients.hpp"
#include "tinymoe/backend/cpu.hpp"
#include "tinymoe/layers/activations.hpp"
#include "tinymoe/layers/model.hpp"

namespace tinymoe_test {

/// Tokens that look random, the same on every machine.
inline std::vector<Token> random_tokens(Index count, Index vocab, std::uint64_t seed = 1) {
  std::vector<Token> tokens;
  for (Index i = 0; i < count; ++i) {
    const RandomStream stream(Seed{seed}, 0, RandomSite{1});
    tokens.push_back(static_cast<Token>(random_below(stream, static_cast<std::uint64_t>(i), std::uint64_t(vocab))));
  }
  return tokens;
}

/// loss = scale · Σ_n cross-entropy + the weighted router losses.
template <class Arch, class B>
class ModelTrial {
 public:
  using T = typename B::Scalar;
  using M = typename B::Master;
  using Gradients = typename Arch::template Parameters<M>;
  static constexpr Index size = buffer_size<Gradients>();

  /// Plans activations for `largest`, which is the pass unless given.
  [[gnu::noinline]] ModelTrial(B& backend, const Pass& pass, const Pass* largest = nullptr)
      : backend(backend),
        pass(pass),
        model(backend, Seed{5}),
        activations(backend, Plan::Purpose::training, largest != nullptr ? *largest : pass),
        g(backend, 1, size),
        tokens(random_tokens(pass.rows(), Arch::vocab)),
        targets(random_tokens(pass.rows(), Arch::vocab, 2)) {
    bind_parameters(gradients, g.view().data);
    targets[static_cast<std::size_t>(pass.rows() / 2)] = -1;
    scale = 1.0 / static_cast<double>(pass.rows() - 1);
    // Not the initial weights, where gains are one and biases zero.
    for (Index i = 0; i < size; ++i) {
      model.buffer().data[i] += T(static_cast<Compute<T>>(static_cast<float>(0.1 * normal_number(9, i))));
    }
  }

  View<const Token> ids() const { return {tokens.data(), 1, std::ssize(tokens)}; }
  View<const Token> scored() const { return {targets.data(), 1, std::ssize(targets)}; }
  [[gnu::noinline]] void forward() { Arch::forward(backend, pass, model.weights(), ids(), *activations); }
  [[gnu::noinline]] void backward() {
    Arch::loss_and_backward(backend, pass, model.weights(), ids(), scored(), scale, *activations, gradients);
  }
  [[gnu::noinline]] T loss() {
    forward();
    Arch::loss(backend, model.weights(), scored(), *activations);
    T total(0);
    for (Index n = 0; n < pass.rows(); ++n) total += activations->losses.data[n];
    total *= T(scale);
    Arch::for_each_block(*activations,
                         [&](auto, auto& block, Index) { total += T(weighted_router_losses(block, pass)); });
    return total;
  }
  /// The logits (N, V) of what forward left.
  [[gnu::noinline]] std::vector<double> logits() {
    DeviceMatrix<T, B> result(backend, pass.rows(), Arch::vocab);
    Arch::logits(backend, model.weights(), activations->normed(pass.rows()), result.view());
    return result.read();
  }

  B& backend;
  Pass pass;
  Model<Arch, B> model;
  Activations<Arch, B> activations;
  DeviceMatrix<M, B> g;
  Gradients gradients;
  std::vector<Token> tokens, targets;
  double scale;
};

/// Rows `first` … `first + count − 1` of logits with V columns.
inline std::vector<double> rows_of(const std::vector<double>& logits, Index vocab, Index first, Index count) {
  return {logits.begin() + first * vocab, logits.begin() + (first + count) * vocab};
}

}  // namespace tinymoe_test
