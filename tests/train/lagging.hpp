#pragma once
// A backend on which nothing happens before the host asks for a result, as on a GPU whose host is far ahead.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "tinymoe/backend/cpu.hpp"

namespace tinymoe_test {

using namespace tinymoe;

/// Cpu with one thread. Its operations wait in a queue until a copy from or to the device. `log` records the transfers:
/// 'u' is an upload, 'd' a copy that waits, 'r' a read-back.
class Lagging {
 public:
  using Scalar = float;
  using Master = float;
  using X = View<const float>;
  using Y = View<float>;
  static constexpr const char* name() { return "lagging"; }

  std::string log;

  /// Never freed: what waits may still use it.
  Memory allocate(std::size_t bytes) {
    if (bytes == 0) return {};
    held_.push_back(cpu_.allocate(bytes));
    return {held_.back().bytes(), bytes, [](void*, std::size_t) {}};
  }
  void copy_to_device(void* to, const void* from, std::size_t bytes) {
    log += 'd';
    catch_up();
    cpu_.copy_to_device(to, from, bytes);
  }
  void copy_to_host(void* to, const void* from, std::size_t bytes) {
    log += 'r';
    catch_up();
    cpu_.copy_to_host(to, from, bytes);
  }
  void upload(void* to, const void* from, std::size_t bytes) {
    log += 'u';
    const auto* first = static_cast<const std::byte*>(from);
    later([to, kept = std::vector<std::byte>(first, first + bytes)] { std::memcpy(to, kept.data(), kept.size()); });
  }
  void zero(void* to, std::size_t bytes) {
    later([=, this] { cpu_.zero(to, bytes); });
  }
  template <RowKernel Kernel>
  void launch(Index rows, const Kernel& kernel) {
    later([=, this] { cpu_.launch(rows, kernel); });
  }
  void matmul(X x, X w, X bias, Y y) {
    later([=, this] { cpu_.matmul(x, w, bias, y); });
  }
  void matmul_input(X dy, X w, Y dx, Write write) {
    later([=, this] { cpu_.matmul_input(dy, w, dx, write); });
  }
  void matmul_weight(X dy, X x, Y dw) {
    later([=, this] { cpu_.matmul_weight(dy, x, dw); });
  }
  void grouped_matmul(X x, Bank<const float> w, Bank<const float> bias, const Dispatch& dispatch, Y y) {
    later([=, this] { cpu_.grouped_matmul(x, w, bias, dispatch, y); });
  }
  void grouped_matmul_input(X dy, Bank<const float> w, const Dispatch& dispatch, Y dx) {
    later([=, this] { cpu_.grouped_matmul_input(dy, w, dispatch, dx); });
  }
  void grouped_matmul_weight(X dy, X x, const Dispatch& dispatch, Bank<float> dw) {
    later([=, this] { cpu_.grouped_matmul_weight(dy, x, dispatch, dw); });
  }
  void sort_by_expert(View<const std::int32_t> selected, Dispatch& dispatch) {
    dispatch.rows = dispatch.size();
    later([this, selected, copy = dispatch]() mutable { cpu_.sort_by_expert(selected, copy); });
  }
  Index attention_scratch(const AttentionShape& shape) const { return cpu_.attention_scratch(shape); }
  void attention_forward(const AttentionShape& shape, X q, X k, X v, Y y, Y log_sum, Y scratch) {
    later([=, this] { cpu_.attention_forward(shape, q, k, v, y, log_sum, scratch); });
  }
  void attention_backward(const AttentionShape& shape, X q, X k, X v, X y, X log_sum, X dy, Y dq, Y dk, Y dv,
                          Y scratch) {
    later([=, this] { cpu_.attention_backward(shape, q, k, v, y, log_sum, dy, dq, dk, dv, scratch); });
  }

 private:
  template <class F>
  void later(F f) {
    waiting_.push_back(std::move(f));
  }
  void catch_up() {
    for (; !waiting_.empty(); waiting_.pop_front()) waiting_.front()();
  }

  Cpu cpu_{1};
  std::deque<std::function<void()>> waiting_;
  std::vector<Memory> held_;
};
static_assert(Backend<Lagging> && UploadingBackend<Lagging>);

}  // namespace tinymoe_test
