#pragma once
/// @file
/// The tokens of passes on the backend: a double buffer, so that the next micro-batch uploads while a pass reads one.

#include <algorithm>
#include <array>
#include <cassert>
#include <cstddef>
#include <span>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/backend/capabilities.hpp"
#include "tinymoe/core/memory.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"

namespace tinymoe::inline v0_1 {

namespace detail {

/// The tokens of one pass, on the backend.
struct MicroBatch {
  View<const Token> inputs, targets;  // (1, N)
  Index pads = 0;                     // negative inputs
  Index slot = 0;                     // which of the two slots it is in
};

/// Two slots for micro-batches of N tokens on a backend. A micro-batch is identified by its step and its index in the
/// step: the same two numbers must mean the same tokens, unless `forget` was called between.
template <Backend B>
class TokenSlots {
 public:
  /// Allocates both slots. The backend must outlive them. Throws DeviceError without memory.
  TokenSlots(B& backend, Index size)
      : backend_(&backend),
        size_(size),
        memory_(backend.allocate(static_cast<std::size_t>(4 * size) * sizeof(Token))) {}

  Index size() const { return size_; }  // N

  /// Empties both slots.
  void forget() { held_ = {}, ahead_ = false; }

  /// Uploads a micro-batch to the slot that passes do not read now, after the backend's earlier work. It stays there
  /// until it is taken or another one is sent ahead.
  void send_ahead(Index step, Index micro_batch, std::span<const Token> inputs, std::span<const Token> targets) {
    send(1 - taken_, {step, micro_batch}, inputs, targets);
    ahead_ = true;
  }

  /// The micro-batch on the backend, valid until the next call. It is uploaded unless a slot has it already.
  MicroBatch take(Index step, Index micro_batch, std::span<const Token> inputs, std::span<const Token> targets) {
    const Key key{step, micro_batch};
    if (held_[slot(1 - taken_)] == key) {
      taken_ = 1 - taken_, ahead_ = false;
    } else if (held_[slot(taken_)] != key) {
      if (!ahead_) taken_ = 1 - taken_;
      send(taken_, key, inputs, targets);
    }
    const Index pads = std::ranges::count_if(inputs, [](Token token) { return token < 0; });
    return {row(0), row(1), pads, taken_};
  }

 private:
  struct Key {
    Index step = -1, micro_batch = -1;
    friend bool operator==(const Key&, const Key&) = default;
  };

  static std::size_t slot(Index i) { return static_cast<std::size_t>(i); }
  Token* begin_of(Index slot) const { return memory_.template as<Token>().data + 2 * slot * size_; }
  /// Inputs (0) and targets (1) of the slot that was taken last.
  View<const Token> row(Index i) const { return {begin_of(taken_) + i * size_, 1, size_}; }

  void send(Index to, Key key, std::span<const Token> inputs, std::span<const Token> targets) {
    assert(std::ssize(inputs) == size_ && std::ssize(targets) == size_);
    detail::upload(*backend_, begin_of(to), inputs.data(), inputs.size_bytes());
    detail::upload(*backend_, begin_of(to) + size_, targets.data(), targets.size_bytes());
    held_[slot(to)] = key;
  }

  B* backend_;
  Index size_;
  Memory memory_;  // inputs and targets of slot 0, then of slot 1
  std::array<Key, 2> held_;
  Index taken_ = 0;     // the slot that passes read
  bool ahead_ = false;  // whether the other slot holds a micro-batch that was sent ahead
};

}  // namespace detail

}  // namespace tinymoe::inline v0_1
