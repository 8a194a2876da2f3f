#pragma once
/// @file
/// Memory that is planned once: a Plan walks the same code twice, first to measure, then to hand out addresses.

#include <algorithm>
#include <cassert>
#include <cstddef>
#include <utility>

#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"

namespace tinymoe::inline v0_1 {

/// Every tensor starts at a multiple of this many bytes: a cache line, and the widest vector of a CPU.
inline constexpr std::size_t memory_alignment = 64;

namespace detail {

constexpr std::size_t round_up(std::size_t size, std::size_t multiple) {
  return (size + multiple - 1) / multiple * multiple;
}

}  // namespace detail

/// A block of a backend's memory, freed by that backend when the object goes.
class Memory {
 public:
  using Free = void (*)(void* address, std::size_t bytes);

  Memory() = default;
  Memory(void* address, std::size_t bytes, Free free) : address_(address), bytes_(bytes), free_(free) {}
  Memory(Memory&& other) noexcept
      : address_(std::exchange(other.address_, nullptr)), bytes_(std::exchange(other.bytes_, 0)), free_(other.free_) {}
  Memory& operator=(Memory other) noexcept {
    std::swap(address_, other.address_);
    std::swap(bytes_, other.bytes_);
    std::swap(free_, other.free_);
    return *this;
  }
  Memory(const Memory&) = delete;
  ~Memory() {
    if (address_ != nullptr) free_(address_, bytes_);
  }

  /// The block as one row of `T`.
  template <class T>
  View<T> as() const {
    return {static_cast<T*>(address_), 1, static_cast<Index>(bytes_ / sizeof(T))};
  }
  std::byte* bytes() const { return static_cast<std::byte*>(address_); }
  std::size_t size() const { return bytes_; }

 private:
  void* address_ = nullptr;
  std::size_t bytes_ = 0;
  Free free_ = nullptr;
};

/// Memory planned for the largest pass, (max N, cols). A pass uses the first rows. The caller says how many, as in
/// `saved.hidden(x.rows)`, so that no layer can forget to set a row count.
template <class T>
class PerRow {
 public:
  constexpr PerRow() = default;
  constexpr PerRow(View<T> largest) : largest_(largest) {}

  /// Rows 0 … rows − 1; empty where nothing was planned.
  constexpr View<T> operator()(Index rows) const {
    return largest_.empty() ? View<T>() : largest_.middle_rows(0, rows);
  }

 private:
  View<T> largest_;
};

/// Hands out the activations of a pass from one block.
///
/// `keep` is for what backward reads: it stays until the end of the step. `scratch` lasts until the `Frame` around it
/// ends, so that layers, which never run at the same time, share it. `persist` lives as long as the block. A Plan
/// without a block only measures; the same calls against a block of `bytes()` then give the addresses. Inference has no
/// backward, so there `keep` is scratch.
class Plan {
 public:
  enum class Purpose { training, inference };

  explicit Plan(Purpose purpose) : purpose_(purpose) {}
  /// Binds to a block of `measured.bytes()`, where `measured` is the plan of the same calls.
  Plan(Purpose purpose, std::byte* block, const Plan& measured)
      : purpose_(purpose),
        persisted_at_(block),
        kept_at_(block + measured.persisted_),
        scratch_at_(kept_at_ + measured.kept_peak_) {}
  /// Binds to two blocks, of `measured.kept_bytes()` and of `measured.scratch_bytes()`, which others may use in turn.
  /// Nothing persists.
  Plan(Purpose purpose, std::byte* kept, std::byte* scratch)
      : purpose_(purpose), kept_at_(kept), scratch_at_(scratch) {}

  template <class T>
  View<T> keep(Index rows, Index cols) {
    if (purpose_ == Purpose::inference) return scratch<T>(rows, cols);
    const auto view = take<T>(kept_, kept_at_, rows, cols);
    kept_peak_ = std::max(kept_peak_, kept_);
    return view;
  }

  /// Memory that lives as long as the block, for either purpose: one pass leaves it for the next.
  template <class T>
  View<T> persist(Index rows, Index cols) {
    return take<T>(persisted_, persisted_at_, rows, cols);
  }

  template <class T>
  View<T> scratch(Index rows, Index cols) {
    const auto view = take<T>(scratch_, scratch_at_, rows, cols);
    scratch_peak_ = std::max(scratch_peak_, scratch_);
    return view;
  }

  /// Scratch taken while a frame lives is free again when it ends.
  class Frame {
   public:
    explicit Frame(Plan& plan) : plan_(plan), mark_(plan.scratch_) {}
    ~Frame() { plan_.scratch_ = mark_; }
    Frame(const Frame&) = delete;

   private:
    Plan& plan_;
    std::size_t mark_;
  };

  /// Memory kept while an overlay lives is free again when it ends. Blocks that recompute their activations in backward
  /// (activation checkpointing) share one place this way.
  class Overlay {
   public:
    explicit Overlay(Plan& plan) : plan_(plan), mark_(plan.kept_) {}
    ~Overlay() { plan_.kept_ = mark_; }
    Overlay(const Overlay&) = delete;

   private:
    Plan& plan_;
    std::size_t mark_;
  };

  std::size_t bytes() const { return persisted_ + kept_peak_ + scratch_peak_; }
  std::size_t kept_bytes() const { return kept_peak_; }
  std::size_t scratch_bytes() const { return scratch_peak_; }
  Purpose purpose() const { return purpose_; }

 private:
  template <class T>
  View<T> take(std::size_t& used, std::byte* block, Index rows, Index cols) {
    assert(rows >= 0 && cols >= 0);
    const auto elements = static_cast<std::size_t>(rows * cols);
    return {reinterpret_cast<T*>(take_bytes(used, block, elements * sizeof(T))), rows, cols};
  }
  [[gnu::noinline]] std::byte* take_bytes(std::size_t& used, std::byte* block, std::size_t bytes) const {
    const std::size_t offset = used;
    used += detail::round_up(bytes, memory_alignment);
    return block == nullptr ? nullptr : block + offset;
  }

  Purpose purpose_;
  std::byte *persisted_at_ = nullptr, *kept_at_ = nullptr, *scratch_at_ = nullptr;  // null: it only measures
  std::size_t persisted_ = 0, kept_ = 0, kept_peak_ = 0, scratch_ = 0, scratch_peak_ = 0;
};

}  // namespace tinymoe::inline v0_1
