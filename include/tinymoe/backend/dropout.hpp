#pragma once
/// @file
/// Dropout (Srivastava et al. 2014) whose mask is computed, never stored: an element's factor, 0 or 1 / (1 − rate), is
/// a pure function of (stream, row, column), so that backward makes the same one again, on every backend.

#include <cstddef>
#include <cstdint>

#include "tinymoe/backend/group.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/random.hpp"

namespace tinymoe::inline v0_1 {

/// The mask of one use of dropout in one pass.
struct Dropout {
  RandomStream stream = {};
  std::uint64_t first_row = 0;  // micro-batches of a step take rows one after another
  double rate = 0;              // share of zeros; 0: no dropout

  TINYMOE_EVERYWHERE bool active() const { return rate > 0; }

  /// Turns a random word into a factor.
  template <class M>
  struct Factors {
    std::uint32_t threshold;
    M kept;
    TINYMOE_EVERYWHERE explicit Factors(double rate)
        : threshold(static_cast<std::uint32_t>(rate * 0x1p32)), kept(M(1.0 / (1.0 - rate))) {}
    TINYMOE_EVERYWHERE TINYMOE_INLINE M operator()(std::uint32_t word) const { return word < threshold ? M(0) : kept; }
  };

  /// The factor of element i in a row of up to `width` elements.
  template <class M>
  TINYMOE_EVERYWHERE TINYMOE_INLINE M factor(Index row, Index width, Index i) const {
    return factor(row, width, i, Factors<M>(rate));
  }
  /// The same for loops, with `factors` made once from this rate.
  template <class M>
  TINYMOE_EVERYWHERE TINYMOE_INLINE M factor(Index row, Index width, Index i, const Factors<M>& factors) const {
    const auto words = detail::random_words(stream, first_quad(row, width) + static_cast<std::uint64_t>(i / 4));
    const Index j = i % 4;  // chosen without an index: words stay in registers
    const std::uint32_t word = j < 2 ? (j == 0 ? words[0] : words[1]) : (j == 2 ? words[2] : words[3]);
    return factors(word);
  }

  /// f(i, factor of element i) for first ≤ i < last in a row of up to `width` elements. One draw of Philox serves four
  /// neighbours.
  template <class M, class Group, class F>
  TINYMOE_EVERYWHERE TINYMOE_INLINE void each(Group group, Index row, Index width, Index first, Index last,
                                              F&& f) const {
    const std::uint64_t base = first_quad(row, width);
    const Factors<M> factors(rate);
    const RandomStream numbers = stream;
    const Index low = first / 4, count = (last + 3) / 4 - low;
    group.each(count, [=](Index quad) {
      const auto words = detail::random_words(numbers, base + static_cast<std::uint64_t>(low + quad));
      for (Index j = 0; j < 4; ++j) {
        const Index i = 4 * (low + quad) + j;
        if (i >= first && i < last) f(i, factors(words[static_cast<std::size_t>(j)]));
      }
    });
  }

 private:
  /// The number of a row's first draw in the stream.
  TINYMOE_EVERYWHERE std::uint64_t first_quad(Index row, Index width) const {
    return (first_row + static_cast<std::uint64_t>(row)) * (static_cast<std::uint64_t>(width + 3) / 4);
  }
};

}  // namespace tinymoe::inline v0_1
