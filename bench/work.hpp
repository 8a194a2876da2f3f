#pragma once
/// @file
/// The minimal work of each operation of a model: the bytes that it reads and writes, each counted once, and the
/// multiply-adds of its products, two operations each. A kernel that reads a byte twice gets no credit for the second
/// time. Data that stays in a cache between two operations counts as read.

#include <cxxabi.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <typeinfo>

#include "tinymoe/layers/activations.hpp"
#include "tinymoe/layers/model.hpp"
#include "tinymoe/train/adamw.hpp"
#include "tinymoe/train/tally.hpp"

namespace bench {

using tinymoe::Bank, tinymoe::Index, tinymoe::View;
namespace kernels = tinymoe::kernels;

struct Work {
  std::string name;
  double bytes = 0, operations = 0;  // 0: not counted
};

template <class T>
double bytes_of(View<T> view) {
  return double(view.size()) * sizeof(T);
}
template <class T>
double bytes_of(Bank<T> bank) {
  return double(bank.count * bank.rows * bank.cols) * sizeof(T);
}

/// Bytes of a bank's matrices that `rows` rows use at most.
template <class T>
double bytes_met(Bank<T> bank, Index rows) {
  return bytes_of(bank) * std::min(1.0, double(rows) / double(bank.count));
}

/// A kernel without an overload below: only its name.
template <class Kernel>
Work work_of(const Kernel&, Index) {
  char* name = abi::__cxa_demangle(typeid(Kernel).name(), nullptr, nullptr, nullptr);
  std::string text = name == nullptr ? "?" : name;
  std::free(name);
  text.resize(std::min(text.size(), text.find('<')));
  return {text.substr(text.rfind(':') + 1)};
}

template <class T>
Work work_of(const kernels::EmbeddingForward<T>& k, Index) {
  return {"embedding forward", 2 * bytes_of(k.x) + bytes_of(k.tokens)};
}
template <class T, class M>
Work work_of(const kernels::EmbeddingBackward<T, M>& k, Index vocabulary) {
  const double rows = double(std::min(vocabulary, k.dx.rows));  // of the table, at most
  return {"embedding backward",
          bytes_of(k.dx) + bytes_of(k.rows) + bytes_of(k.offsets) + 2 * rows * double(k.dweight.cols) * sizeof(M)};
}
template <class T, class M>
Work work_of(const kernels::NormForward<T, M>& k, Index) {
  return {"norm forward", bytes_of(k.x) + bytes_of(k.y) + bytes_of(k.inverse)};
}
template <class T, class M>
Work work_of(const kernels::AddNormForward<T, M>& k, Index) {
  return {"add and norm forward", bytes_of(k.residual) + 2 * bytes_of(k.sum) + bytes_of(k.norm.y)};
}
template <class T, class M>
Work work_of(const kernels::NormBackward<T, M>& k, Index) {
  return {
      k.beside.empty() ? "norm backward" : "norm backward and add",
      bytes_of(k.x) + bytes_of(k.dy) + bytes_of(k.beside) + bytes_of(k.dx) + bytes_of(k.inverse) + bytes_of(k.partial)};
}
template <class M>
Work work_of(const kernels::ColumnTotals<M>& k, Index) {
  return {"totals of columns", bytes_of(k.partial)};
}
template <class T, class M>
Work work_of(const kernels::Rotate<T, M>& k, Index) {
  return {k.direction > M(0) ? "rotate forward" : "rotate backward", 2 * bytes_of(k.x) + bytes_of(k.table)};
}
template <class T, class M>
Work work_of(const kernels::RotateIntoCache<T, M>& k, Index) {
  return {"rotate into the cache", 2 * bytes_of(k.turned) + bytes_of(k.store.value)};
}
/// Not counted: only the device knows the number of keys.
template <class T, class M>
Work work_of(const kernels::CachedAttention<T, M>&, Index) {
  return {"attention to the cache"};
}
template <class T, class M>
Work work_of(const kernels::RouterForward<T, M>& k, Index) {
  return {"router forward", bytes_of(k.row.logits) + bytes_of(k.log_sum) + bytes_of(k.routing.probability) +
                                bytes_of(k.routing.gate) + bytes_of(k.routing.selected)};
}
template <class T, class M>
Work work_of(const kernels::RouterBackward<T, M>& k, Index) {
  return {"router backward", bytes_of(k.routing.probability) + 2 * bytes_of(k.routing.gate) +
                                 bytes_of(k.routing.selected) + bytes_of(k.log_sum) + bytes_of(k.dlogits)};
}
template <class M>
Work work_of(const kernels::BalanceTotals<M>& k, Index) {
  return {"balance totals", bytes_of(k.routing.probability)};
}
template <class M>
Work work_of(const kernels::BalanceLosses<M>& k, Index) {
  return {"balance losses", bytes_of(k.log_sum)};
}
template <class T>
Work work_of(const kernels::Gather<T>& k, Index) {
  return {"gather", bytes_of(k.x) + bytes_of(k.slots) + bytes_of(k.sorted)};
}
template <class T>
Work work_of(const kernels::GatherBackward<T>& k, Index) {
  return {"gather backward", bytes_of(k.dsorted) + bytes_of(k.slots) + 2 * bytes_of(k.dx)};
}
template <class T, class M>
Work work_of(const kernels::Combine<T, M>& k, Index) {
  return {"combine forward",
          bytes_of(k.sorted) + bytes_of(k.slots) + bytes_of(k.gate) + bytes_of(k.residual) + bytes_of(k.y)};
}
template <class T, class M>
Work work_of(const kernels::CombineBackward<T, M>& k, Index) {
  return {"combine backward",
          bytes_of(k.dy) + 2 * bytes_of(k.sorted) + bytes_of(k.slots) + bytes_of(k.gate) + bytes_of(k.dgate)};
}
template <class Activation, class T>
Work work_of(const kernels::ActivationForward<Activation, T>& k, Index) {
  return {"activation forward", bytes_of(k.hidden) + bytes_of(k.activated)};
}
template <class Activation, class T>
Work work_of(const kernels::ActivationBackward<Activation, T>& k, Index) {
  return {"activation backward", bytes_of(k.hidden) + bytes_of(k.dactivated) + bytes_of(k.dhidden)};
}
template <class Activation, class T, class M>
Work work_of(const kernels::FewExpertInputs<Activation, T, M>& k, Index) {
  return {"expert inputs, gathered and activated",
          bytes_of(k.x) + bytes_met(k.weight, k.activated.rows) + bytes_of(k.activated),
          2 * double(k.activated.rows) * double(k.weight.rows * k.weight.cols)};
}
template <class T, class M>
Work work_of(const kernels::FewExpertOutputs<T, M>& k, Index) {
  return {"expert outputs, combined",
          bytes_of(k.activated) + bytes_met(k.weight, k.activated.rows) + bytes_of(k.residual) + bytes_of(k.y),
          2 * double(k.activated.rows) * double(k.weight.rows * k.weight.cols)};
}
template <class T>
Work work_of(const kernels::Add<T>& k, Index) {
  return {"add", bytes_of(k.x) + 2 * bytes_of(k.y)};
}
template <class T>
Work work_of(const kernels::Sum<T>& k, Index) {
  return {"sum", bytes_of(k.x) + bytes_of(k.y) + bytes_of(k.out)};
}
template <class T, class M>
Work work_of(const kernels::CrossEntropy<T, M>& k, Index) {
  const bool gradient = k.scale != M(0);
  return {gradient ? "cross-entropy and its gradient" : "cross-entropy", (gradient ? 2 : 1) * bytes_of(k.logits)};
}
template <class M>
Work work_of(const kernels::AddResults<M>& k, Index) {
  return {"add results", bytes_of(k.losses)};
}
/// `parameters`: of the model, because the host cannot read the chunks on the device.
template <class M>
Work work_of(const kernels::SquaredSum<M>&, Index, double parameters) {
  return {"squared sums", parameters * sizeof(M)};
}
template <class T, class M>
Work work_of(const kernels::AdamWStep<T, M>& k, Index, double parameters) {
  return {"AdamW", parameters * (8 * sizeof(M) + (k.copy == nullptr ? 0 : sizeof(T)))};
}

/// The array that a kernel reads and overwrites, so that a second run would work on other numbers; empty if there is
/// none. Gradients that a kernel adds to do not count.
template <class T, class Kernel>
View<T> changed_by(const Kernel&) {
  return {};
}
template <class T>
View<T> changed_by(const kernels::Add<T>& k) {
  return k.y;
}
template <class T>
View<T> changed_by(const kernels::Sum<T>& k) {
  return k.out;
}
template <class T>
View<T> changed_by(const kernels::AddNormForward<T, float>& k) {
  return k.sum;
}
template <class T>
View<T> changed_by(const kernels::GatherBackward<T>& k) {
  return k.dx;
}
template <class T>
View<T> changed_by(const kernels::NormBackward<T, float>& k) {
  return k.dx;
}
template <class T>
View<T> changed_by(const kernels::CrossEntropy<T, float>& k) {
  return k.logits;
}
template <class T>
View<T> changed_by(const kernels::Rotate<T, float>& k) {
  return k.x;
}

/// Operations of one product over the visible pairs of queries and keys. Attention computes two such products forward
/// and five backward, where it recomputes the probabilities.
inline double attention_product(const tinymoe::AttentionShape& shape) {
  double pairs = 0;
  for (Index t = 0; t < shape.time; ++t) pairs += double(t + 1 - shape.first_key(t));
  return 2 * pairs * double(shape.batch * shape.heads * shape.head_dim);
}

}  // namespace bench
