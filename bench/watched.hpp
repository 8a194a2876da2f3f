#pragma once
/// @file
/// A backend that forwards every call to the one inside and, if asked, times each operation. The table of operations
/// therefore has the shapes and numbers of a real step, and follows every change of the model.
///
/// On a host, an operation is timed as it runs in the step, once, with the caches as the operation before left them. A
/// device with a clock of its own runs it several times between two events.

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "programs/measure.hpp"
#include "work.hpp"

namespace bench {

/// One kind of operation, over all its calls.
struct Operation {
  Work work;  // of one call
  Index calls = 0;
  std::vector<double> milliseconds;  // of one call each
};

/// The names of a model's products, by the matrices, rows and columns of their weights.
using ProductNames = std::map<std::array<Index, 3>, std::string>;

template <class Arch>
ProductNames names_of_products() {
  using Block = typename Arch::template BlockLayer<0>;
  using Attention = typename Block::AttentionLayer;
  using Network = typename Block::NetworkLayer;
  using One = typename Network::Experts::template One<float>;
  using Gate = typename Network::Gate::template Parameters<float>;
  using Mixture = typename std::tuple_element_t<0, typename Arch::Groups>::Block::Network;
  constexpr Index width = Arch::width, experts = Mixture::experts;
  return {{{1, Attention::qkv_width, width}, "qkv product,"},
          {{1, width, Attention::query_width}, "attention output product,"},
          {{1, decltype(Gate::weight)::rows, width}, "router product,"},
          {{experts, decltype(One::input)::rows, width}, "expert input bank,"},
          {{experts, width, decltype(One::output)::cols}, "expert output bank,"},
          {{1, Arch::vocab, width}, "head product,"}};
}

enum class Watch {
  nothing,
  operations,  // each operation is timed
  replays      // a recorded graph is timed as a whole
};

/// A backend of a device that says how many milliseconds it took for the work that a function enqueues.
template <class B>
concept DeviceClock = requires(B& backend, void (&work)()) {
  { backend.milliseconds(work) } -> std::same_as<double>;
};

/// Watches what every backend must do. For optional capabilities, derive from it (cuda_watched.hpp).
template <class B>
class Watched {
 public:
  using Scalar = typename B::Scalar;
  using Master = typename B::Master;

  explicit Watched(B& backend) : backend_(&backend) {}

  /// Forgets what was watched. `parameters`: of the model that is watched.
  void watch(Watch what, double parameters = 0, ProductNames names = {}) {
    what_ = what, parameters_ = parameters, names_ = std::move(names);
    operations_.clear(), replays_.clear();
    kept_ = {};
  }
  const std::vector<Operation>& operations() const { return operations_; }
  /// Milliseconds of each replay.
  const std::vector<double>& replays() const { return replays_; }
  B& backend() const { return *backend_; }

  const char* name() const { return backend_->name(); }
  tinymoe::Memory allocate(std::size_t bytes) { return backend_->allocate(bytes); }
  void copy_to_device(void* to, const void* from, std::size_t bytes) { backend_->copy_to_device(to, from, bytes); }
  void copy_to_host(void* to, const void* from, std::size_t bytes) { backend_->copy_to_host(to, from, bytes); }
  void zero(void* to, std::size_t bytes) {
    run([&] { return Work{"zero", double(bytes)}; }, [&] { backend_->zero(to, bytes); });
  }

  template <tinymoe::RowKernel Kernel>
  void launch(Index rows, const Kernel& kernel) {
    const auto work = [&] {
      if constexpr (requires { work_of(kernel, rows, parameters_); }) {
        return work_of(kernel, rows, parameters_);
      } else {
        return work_of(kernel, rows);
      }
    };
    run(
        work, [&] { backend_->launch(rows, kernel); }, changed_by<Scalar>(kernel));
  }

  void matmul(View<const Scalar> x, View<const Scalar> w, View<const Scalar> bias, View<Scalar> y) {
    run([&] { return product(name_of(w) + " forward", bytes_of(x) + bytes_of(w) + bytes_of(y), x, y.cols); },
        [&] { backend_->matmul(x, w, bias, y); });
  }
  void matmul_input(View<const Scalar> dy, View<const Scalar> w, View<Scalar> dx, tinymoe::Write write) {
    run([&] { return product(name_of(w) + " input", bytes_of(dy) + bytes_of(w) + bytes_of(dx), dy, dx.cols); },
        [&] { backend_->matmul_input(dy, w, dx, write); });
  }
  void matmul_weight(View<const Scalar> dy, View<const Scalar> x, View<Master> dw) {
    run([&] { return product(name_of(dw) + " weight", bytes_of(dy) + bytes_of(x) + 2 * bytes_of(dw), dy, x.cols); },
        [&] { backend_->matmul_weight(dy, x, dw); });
  }
  void grouped_matmul(View<const Scalar> x, Bank<const Scalar> w, Bank<const Scalar> bias,
                      const tinymoe::Dispatch& dispatch, View<Scalar> y) {
    run([&] { return product(name_of(w) + " forward", bytes_of(x) + bytes_met(w, x.rows) + bytes_of(y), x, y.cols); },
        [&] { backend_->grouped_matmul(x, w, bias, dispatch, y); });
  }
  void grouped_matmul_input(View<const Scalar> dy, Bank<const Scalar> w, const tinymoe::Dispatch& dispatch,
                            View<Scalar> dx) {
    run(
        [&] {
          return product(name_of(w) + " input", bytes_of(dy) + bytes_met(w, dy.rows) + bytes_of(dx), dy, dx.cols);
        },
        [&] { backend_->grouped_matmul_input(dy, w, dispatch, dx); });
  }
  void grouped_matmul_weight(View<const Scalar> dy, View<const Scalar> x, const tinymoe::Dispatch& dispatch,
                             Bank<Master> dw) {
    run(
        [&] {
          return product(name_of(dw) + " weight", bytes_of(dy) + bytes_of(x) + 2 * bytes_met(dw, dy.rows), dy, x.cols);
        },
        [&] { backend_->grouped_matmul_weight(dy, x, dispatch, dw); });
  }

  void sort_by_expert(View<const std::int32_t> selected, tinymoe::Dispatch& dispatch) {
    run(
        [&] {
          const bool tokens = dispatch.choices() == 1 && dispatch.experts() > 256;
          return Work{
              tokens ? "sort by token" : "sort by expert",
              bytes_of(selected) + bytes_of(dispatch.slots) + bytes_of(dispatch.pairs) + bytes_of(dispatch.offsets)};
        },
        [&] { backend_->sort_by_expert(selected, dispatch); });
  }

  Index attention_scratch(const tinymoe::AttentionShape& shape) const { return backend_->attention_scratch(shape); }
  void attention_forward(const tinymoe::AttentionShape& shape, View<const Scalar> q, View<const Scalar> k,
                         View<const Scalar> v, View<Scalar> y, View<Master> log_sum, View<Scalar> scratch) {
    run(
        [&] {
          return Work{"attention forward", bytes_of(q) + bytes_of(k) + bytes_of(v) + bytes_of(y) + bytes_of(log_sum),
                      2 * attention_product(shape)};
        },
        [&] { backend_->attention_forward(shape, q, k, v, y, log_sum, scratch); });
  }
  void attention_backward(const tinymoe::AttentionShape& shape, View<const Scalar> q, View<const Scalar> k,
                          View<const Scalar> v, View<const Scalar> y, View<const Master> log_sum, View<const Scalar> dy,
                          View<Scalar> dq, View<Scalar> dk, View<Scalar> dv, View<Scalar> scratch) {
    run(
        [&] {
          return Work{"attention backward",
                      2 * (bytes_of(q) + bytes_of(k) + bytes_of(v)) + 2 * bytes_of(y) + bytes_of(log_sum),
                      5 * attention_product(shape)};
        },
        [&] { backend_->attention_backward(shape, q, k, v, y, log_sum, dy, dq, dk, dv, scratch); });
  }

 protected:
  static Work product(std::string name, double bytes, View<const Scalar> left, Index cols) {
    return {std::move(name), bytes, 2.0 * double(left.size()) * double(cols)};
  }
  std::string name_of(Index count, Index rows, Index cols) const {
    const auto found = names_.find({count, rows, cols});
    if (found != names_.end()) return found->second;
    return "product " + std::to_string(rows) + " x " + std::to_string(cols);
  }
  template <class T>
  std::string name_of(View<T> weight) const {
    return name_of(1, weight.rows, weight.cols);
  }
  template <class T>
  std::string name_of(Bank<T> weight) const {
    return name_of(weight.count, weight.rows, weight.cols);
  }
  /// Runs `f`; on a device several times if operations are watched. `changed` then has the values of a single run.
  template <class Describe, class F>
  void run(Describe&& describe, F&& f, View<Scalar> changed = {}) {
    if (what_ != Watch::operations) return f();
    double milliseconds = 0;
    if constexpr (DeviceClock<B>) {
      copy(changed, true);
      const double once = backend_->milliseconds(f);
      const int times = static_cast<int>(std::clamp(1.0 / std::max(once, 1e-3), 2.0, 30.0));
      milliseconds = backend_->milliseconds([&] {
        for (int i = 0; i < times; ++i) f();
      }) / times;
      copy(changed, false);
      if (!changed.empty()) f();
    } else {
      milliseconds = 1e3 * programs::seconds_of(f);
    }
    Work work = describe();
    auto entry = std::find_if(operations_.begin(), operations_.end(),
                              [&](const Operation& each) { return each.work.name == work.name; });
    if (entry == operations_.end()) entry = operations_.insert(entry, Operation{});
    entry->work = std::move(work);
    ++entry->calls;
    entry->milliseconds.push_back(milliseconds);
  }

  /// Saves `changed`, or restores it.
  void copy(View<Scalar> changed, bool away) {
    if (changed.empty()) return;
    const auto bytes = static_cast<std::size_t>(changed.size()) * sizeof(Scalar);
    if (kept_.size() < bytes) kept_ = backend_->allocate(bytes);
    const View<Scalar> kept(kept_.template as<Scalar>().data, changed.rows, changed.cols);
    backend_->launch(changed.rows, kernels::CopyRow<Scalar>{away ? changed : kept, away ? kept : changed});
  }

  B* backend_;
  Watch what_ = Watch::nothing;
  std::vector<double> replays_;

 private:
  double parameters_ = 0;
  ProductNames names_;
  std::vector<Operation> operations_;
  tinymoe::Memory kept_;
};

}  // namespace bench
