#pragma once
/// @file
/// A communicator that is chosen at run time, for programs that run with one process or with many.

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <utility>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/train/communicator.hpp"

namespace tinymoe::inline v0_1 {

/// Any communicator for one backend, chosen at run time; a default one is `Alone`. A program that runs with one process
/// or with many then compiles one Trainer for each architecture.
template <class B>
class AnyCommunicator {
  using Row = View<typename B::Master>;
  using Firsts = std::span<const Index>;
  using Numbers = std::span<const std::int32_t>;

 public:
  AnyCommunicator() = default;
  template <class C>
  requires(!std::same_as<C, AnyCommunicator> && requires(C & c) { c.rank(); } && Communicator<C, B>)
      AnyCommunicator(C communicator)  // NOLINT: implicit, as every communicator is one
      : rank_(communicator.rank()), size_(communicator.size()) {
    auto shared = std::make_shared<C>(std::move(communicator));
    reduce_scatter_ = [shared](B& backend, Row row, Firsts firsts) { shared->reduce_scatter(backend, row, firsts); };
    all_gather_ = [shared](B& backend, Row row, Firsts firsts) { shared->all_gather(backend, row, firsts); };
    if constexpr (OverlappingCommunicator<C, B>) {
      start_ = [shared](B& backend, Row row, Firsts firsts) { shared->start_reduce_scatter(backend, row, firsts); };
      finish_ = [shared](B& backend) { shared->finish(backend); };
      overlaps_ = [shared](const B& backend) { return shared->overlaps(backend); };
    }
    sum_ = [shared](std::span<double> numbers) { shared->sum(numbers); };
    if constexpr (GroupingCommunicator<C, B>) {
      group_ = [shared](Index color) { return AnyCommunicator(shared->group(color)); };
      exchange_numbers_ = [shared](Numbers send, std::span<std::int32_t> receive) {
        shared->exchange_numbers(send, receive);
      };
      start_exchange_ = [shared](B& backend, const void* from, Firsts send, void* to, Firsts receive,
                                 std::size_t bytes) {
        shared->start_exchange(backend, from, send, to, receive, bytes);
      };
      finish_exchange_ = [shared](B& backend) { shared->finish_exchange(backend); };
    }
    if constexpr (TellsWhyItLeaves<C>) leave_ = [shared](std::string_view sentence) { shared->leave(sentence); };
  }

  Index rank() const { return rank_; }
  Index size() const { return size_; }
  void reduce_scatter(B& backend, Row row, Firsts firsts) {
    if (reduce_scatter_) reduce_scatter_(backend, row, firsts);
  }
  void all_gather(B& backend, Row row, Firsts firsts) {
    if (all_gather_) all_gather_(backend, row, firsts);
  }
  bool overlaps(const B& backend) const { return overlaps_ && overlaps_(backend); }
  void start_reduce_scatter(B& backend, Row row, Firsts firsts) {
    if (start_) start_(backend, row, firsts);
  }
  void finish(B& backend) {
    if (finish_) finish_(backend);
  }
  void sum(std::span<double> numbers) {
    if (sum_) sum_(numbers);
  }
  /// Whether it can: whether the communicator that it stands for is a GroupingCommunicator.
  bool can_group() const { return static_cast<bool>(group_); }
  AnyCommunicator group(Index color) { return group_(color); }
  void exchange_numbers(Numbers send, std::span<std::int32_t> receive) { exchange_numbers_(send, receive); }
  void start_exchange(B& backend, const void* from, Firsts send, void* to, Firsts receive, std::size_t row_bytes) {
    start_exchange_(backend, from, send, to, receive, row_bytes);
  }
  void finish_exchange(B& backend) { finish_exchange_(backend); }
  void leave(std::string_view sentence) {
    if (leave_) leave_(sentence);
  }

 private:
  Index rank_ = 0, size_ = 1;
  std::function<void(B&, Row, Firsts)> reduce_scatter_, all_gather_, start_;
  std::function<void(B&)> finish_;
  std::function<bool(const B&)> overlaps_;
  std::function<void(std::span<double>)> sum_;
  std::function<AnyCommunicator(Index)> group_;
  std::function<void(Numbers, std::span<std::int32_t>)> exchange_numbers_;
  std::function<void(B&, const void*, Firsts, void*, Firsts, std::size_t)> start_exchange_;
  std::function<void(B&)> finish_exchange_;
  std::function<void(std::string_view)> leave_;
};
static_assert(OverlappingCommunicator<AnyCommunicator<detail::DeclaredBackend>> &&
              GroupingCommunicator<AnyCommunicator<detail::DeclaredBackend>>);

}  // namespace tinymoe::inline v0_1
