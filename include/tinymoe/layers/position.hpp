#pragma once
/// @file
/// Rotary positions (Su et al. 2021), rotate-half: the pair (x_i, x_{i+d/2}) of each head is rotated by the angle
/// position · θ^(−2i/d). With PartialRope the first r numbers are rotated as a head of d = r, and the others stay.
///
///     y_i       = x_i cos − x_{i+d/2} sin
///     y_{i+d/2} = x_{i+d/2} cos + x_i sin          backward: the same with −sin
///
/// Learned positions are rows of a table that the embedding adds (embedding.hpp).

#include <cmath>
#include <cstdint>

#include "tinymoe/core/memory.hpp"
#include "tinymoe/core/options.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/layers/pass.hpp"
#include "tinymoe/layers/settings.hpp"

namespace tinymoe::inline v0_1 {

namespace setting {
/// θ, the base of the rotary angles (Su et al. 2021).
inline constexpr Setting rope_theta{.name = "rope_theta",
                                    .initial = 10000,
                                    .range = SettingRange::positive,
                                    .about = "base of the rotary angles",
                                    .hub = "rope_theta",
                                    .use = SettingUse::always};
}  // namespace setting

/// Rotary positions in attention; the default.
struct Rope {
  using Place = place::Position;
  static constexpr bool rotary = true, learned = false;
  /// The numbers of a head that are rotated, its first.
  static constexpr Index rotated(Index head_dim) { return head_dim; }
};
/// Rotary positions in the first Numerator/Denominator of each head alone (Black et al. 2022, GPT-NeoX; the
/// partial_rotary_factor of GLM-4-MoE): number i is paired with i + r/2, where r numbers are rotated.
template <Index Numerator, Index Denominator>
struct PartialRope {
  using Place = place::Position;
  static_assert(0 < Numerator && Numerator <= Denominator,
                "tinymoe::PartialRope: the part must be above 0 and at most the whole head");
  static constexpr bool rotary = true, learned = false;
  static constexpr double part = static_cast<double>(Numerator) / static_cast<double>(Denominator);
  static constexpr Index rotated(Index head_dim) { return head_dim * Numerator / Denominator; }
};
/// A learned vector for each position, added to the embedding.
struct Learned {
  using Place = place::Position;
  static constexpr bool rotary = false, learned = true;
};
/// No positions in this attention.
struct NoPosition {
  using Place = place::Position;
  static constexpr bool rotary = false, learned = false;
};

/// The position of row n = b·T + t in its sequence.
struct RowPositions {
  View<const std::int32_t> firsts;  // (1, B): of each sequence; empty: `first` for all
  Index first = 0, time = 1;

  RowPositions() = default;
  explicit RowPositions(const Pass& pass) : firsts(pass.positions), first(pass.first_position), time(pass.time) {}
  TINYMOE_EVERYWHERE Index operator()(Index n) const {
    return (firsts.empty() ? first : static_cast<Index>(firsts.data[n / time])) + n % time;
  }
};

namespace kernels {

/// Rotates one pair by an angle: low = low cos − high sin, high = high cos + low sin.
template <class T, class M>
TINYMOE_EVERYWHERE TINYMOE_INLINE void turn_pair(T& low, T& high, M cosine, M sine) {
  const M a = M(low), b = M(high);
  low = T(a * cosine - b * sine);
  high = T(b * cosine + a * sine);
}

/// The angle by which position p rotates pair i of d/2: p · θ^(−2i/d).
struct RopeAngle {
  double log_theta, inverse;
  Index half;  // pairs of a head
  TINYMOE_EVERYWHERE RopeAngle(double theta, Index pairs)
      : log_theta(std::log(theta)), inverse(1.0 / static_cast<double>(pairs)), half(pairs) {}
  TINYMOE_EVERYWHERE double operator()(Index position, Index i) const {
    return static_cast<double>(position) * std::exp(-log_theta * static_cast<double>(i) * inverse);
  }

  /// The angle's cosine and sine. On a GPU the angle is reduced to −π … π in double, and its sine and cosine are
  /// computed in float32: in double they would take longer there than the rest of the kernel.
  template <class M>
  TINYMOE_EVERYWHERE void turn(Index position, Index i, M& cosine, M& sine) const {
    const double angle = (*this)(position, i);
#if defined(__CUDA_ARCH__)
    const double circles = std::floor(angle * 0.15915494309189535 + 0.5);
    const auto rest = static_cast<float>(angle - circles * 6.283185307179586);
    cosine = M(::cosf(rest)), sine = M(::sinf(rest));
#else
    cosine = M(std::cos(angle)), sine = M(std::sin(angle));
#endif
  }
};

/// Row t of the table: the cosines, then the sines, of position first + t, or of row t of a pass whose sequences begin
/// at positions of their own.
template <class M>
struct FillRopeTable {
  static constexpr bool compiled_once = true;
  View<M> table;  // (T, r), or (N, r): r numbers of a head are rotated
  Index first;
  double theta;
  RowPositions own = {};
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index t) const {
    M* row = table.row(t);
    const Index half = table.cols / 2, position = own.firsts.empty() ? first + t : own(t);
    const RopeAngle angle(theta, half);
    group.each(half, [=](Index i) { angle.turn(position, i, row[i], row[half + i]); });
  }
};

/// Rotates every head of row n in place, by the table's row n modulo its rows; `direction` −1 rotates back.
template <class T, class M>
struct Rotate {
  View<T> x;            // (N, heads·d)
  View<const M> table;  // (T, r), or (N, r): the first r numbers of a head are rotated
  Index head_dim;
  M direction;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index n) const {
    const Index half = table.cols / 2;
    const M* cosine = table.row(n % table.rows);
    const M* sine = cosine + half;
    const auto turn = [sign = direction](T& low, T& high, M c, M s) { turn_pair(low, high, c, sign * s); };
    for (Index head = 0; head < x.cols / head_dim; ++head) {
      T* low = x.row(n) + head * head_dim;
      T* high = low + half;
      group.each(half, turn, low, high, cosine, sine);
    }
  }
};

}  // namespace kernels

/// The table of a pass, computed again only when its positions change: a row for each position of a sequence, or for
/// each row of the pass where sequences begin at positions of their own.
template <class M>
struct RopeTable {
  View<M> table;  // (T, r), or (N, r)
  Index first = 0, filled = 0;
  double theta = 0;

  void plan(Plan& plan, const Pass& pass, Index rotated) {
    table = plan.persist<M>(pass.positions.empty() ? pass.time : pass.rows(), rotated);
    filled = 0;
  }

  /// The rows of the pass's positions.
  template <class B>
  View<const M> at(B& backend, const Pass& pass) {
    const bool apart = !pass.positions.empty();
    const auto rows = table.middle_rows(0, apart ? pass.rows() : pass.time);
    const double wanted = pass.settings[setting::rope_theta];
    if (apart || first != pass.first_position || filled < pass.time || theta != wanted) {
      backend.launch(rows.rows, kernels::FillRopeTable<M>{rows, pass.first_position, wanted, RowPositions(pass)});
      first = pass.first_position;
      filled = apart ? 0 : pass.time;  // the host cannot see whether positions on the device change
      theta = wanted;
    }
    return rows;
  }
};

}  // namespace tinymoe::inline v0_1
