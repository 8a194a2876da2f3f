#pragma once
// One optimizer by itself: weights and gradients that look random, and no model.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "tinymoe/train/optimizer.hpp"
#include "train/tiny.hpp"

namespace tinymoe_test {

/// Weights, gradients and optimizer state with the layout of a tiny model on a backend.
template <class B, class O, class Arch = Tiny>
class OptimizerTrial {
 public:
  using M = typename B::Master;
  using P = typename Arch::template Parameters<M>;
  static constexpr Index size = buffer_size<P>();
  static constexpr auto tensors = segments<P>();

  OptimizerTrial(B& backend, O optimizer) : backend_(&backend), optimizer_(optimizer) {
    const auto chunks = detail::chunks_for<P>(optimizer);
    for (Index i = 0; i < 2 + optimizer.moments; ++i) {
      rows_.push_back(backend.allocate(static_cast<std::size_t>(size) * sizeof(M)));
    }
    chunks_ = backend.allocate(chunks.size() * sizeof(Chunk));
    backend.copy_to_device(chunks_.bytes(), chunks.data(), chunks.size() * sizeof(Chunk));
    clip_ = backend.allocate(2 * sizeof(M));
    scratch_ = backend.allocate(detail::optimizer_scratch(optimizer, backend, tensors));
    at_.weights = row(0), at_.gradients = row(1);
    for (Index i = 0; i < optimizer.moments; ++i) at_.moments.push_back(row(static_cast<std::size_t>(2 + i)));
    at_.chunks = {chunks_.template as<Chunk>().data, 1, std::ssize(chunks)};
    at_.clip = {clip_.template as<M>().data, 1, 2};
    at_.segments = tensors;
    at_.scratch = scratch_.bytes();
    write(0, random(0));
  }

  /// The values of the weights (0) or of the gradients of a step (from 1), the same on every backend; 0 between
  /// tensors.
  static std::vector<double> random(std::uint32_t step) {
    std::vector<double> values(static_cast<std::size_t>(size));
    for (const Segment& tensor : tensors) {
      for (Index i = tensor.offset; i < tensor.offset + tensor.size(); ++i) {
        values[static_cast<std::size_t>(i)] =
            random_uniform(RandomStream(Seed{77}, step, RandomSite{3}), static_cast<std::uint64_t>(i)) - 0.5f;
      }
    }
    return values;
  }

  /// One step on given gradients, multiplied by `clip`.
  void step(const std::vector<double>& gradients, double rate, double clip = 1) {
    write(1, gradients);
    const M factors[2] = {M(1), M(static_cast<float>(clip))};
    backend_->copy_to_device(clip_.bytes(), factors, sizeof factors);
    at_.rate = rate;
    optimizer_.step(*backend_, at_);
    ++at_.step;
  }

  std::vector<double> weights() const { return read(0); }
  std::vector<double> gradients() const { return read(1); }
  std::vector<double> moment(Index i) const { return read(static_cast<std::size_t>(2 + i)); }

 private:
  View<M> row(std::size_t i) const { return {rows_[i].template as<M>().data, 1, size}; }
  void write(std::size_t i, const std::vector<double>& values) {
    std::vector<M> host;
    for (const double value : values) host.push_back(M(static_cast<float>(value)));
    backend_->copy_to_device(rows_[i].bytes(), host.data(), host.size() * sizeof(M));
  }
  std::vector<double> read(std::size_t i) const {
    std::vector<M> host(static_cast<std::size_t>(size));
    backend_->copy_to_host(host.data(), rows_[i].bytes(), host.size() * sizeof(M));
    return {host.begin(), host.end()};
  }

  B* backend_;
  O optimizer_;
  std::vector<Memory> rows_;
  Memory chunks_, clip_, scratch_;
  OptimizerStep<B> at_;
};

/// The weights after a few steps whose gradients, rates and clips differ.
template <class Arch = Tiny, class B, class O>
std::vector<double> weights_after(B& backend, O optimizer, std::uint32_t steps) {
  OptimizerTrial<B, O, Arch> trial(backend, optimizer);
  for (std::uint32_t step = 1; step <= steps; ++step) {
    trial.step(trial.random(step), optimizer.lr / step, 1.0 / (1 << (step % 3)));
  }
  return trial.weights();
}

/// A tensor's name on disk, its shape and place, in order.
struct NamedTensor {
  std::string name;
  Index offset, rows, cols;
  bool is_vector;
  Part part;
};

template <class P>
std::vector<NamedTensor> named_tensors() {
  std::vector<NamedTensor> tensors;
  Index offset = 0;
  P::for_each(Path{}, [&](const ParameterInfo& info) {
    Index row = 0;
    for (const detail::NamedRows& rows : info.names) {
      if (rows.rows == 0) continue;
      tensors.push_back({info.path.text() + "." + std::string(rows.name), offset + row * info.cols, rows.rows,
                         info.cols, info.is_vector, info.part});
      row += rows.rows;
    }
    offset += aligned_size(info.size());
  });
  return tensors;
}

}  // namespace tinymoe_test
