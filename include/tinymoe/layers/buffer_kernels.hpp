#pragma once
/// @file
/// Kernels over a model's whole buffer: initialisation, and the copy in another number type.

#include <cmath>
#include <cstdint>

#include "tinymoe/backend/group.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/random.hpp"
#include "tinymoe/core/tensor.hpp"

namespace tinymoe::inline v0_1 {

namespace kernels {

/// One chunk of a tensor, standard normal times `deviation`; element i of the buffer is a pure function of (seed, i).
template <class T>
struct InitialNormal {
  static constexpr bool compiled_once = true;
  static constexpr bool long_rows = true;
  static constexpr Index chunk = 4096;
  T* data;
  Index offset, size;  // of the tensor in the buffer
  double deviation;
  RandomStream stream;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index part) const {
    const Index first = part * chunk, count = size - first < chunk ? size - first : chunk;
    T* to = data + first;
    const auto base = static_cast<std::uint64_t>(offset + first) / 2;  // tensors and chunks start at even elements
    const double scale = deviation;
    const RandomStream numbers = stream;
    group.each((count + 1) / 2, [=](Index i) {
      const auto words = detail::random_words(numbers, base + static_cast<std::uint64_t>(i));
      const double radius = scale * std::sqrt(-2.0 * std::log((words[0] + 1.0) * 0x1p-32));
      const double angle = words[1] * (0x1p-32 * 6.283185307179586);
      to[2 * i] = T(static_cast<float>(radius * std::cos(angle)));
      if (2 * i + 1 < count) to[2 * i + 1] = T(static_cast<float>(radius * std::sin(angle)));
    });
  }
};

/// One chunk: to = from, in another number type.
template <class From, class To>
struct Convert {
  static constexpr bool long_rows = true;
  static constexpr Index chunk = 4096;
  View<const From> from;  // (1, n)
  View<To> to;            // (1, n)
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index part) const {
    const Index first = part * chunk, count = from.cols - first < chunk ? from.cols - first : chunk;
    const auto convert = [](To& out, From in) { out = To(in); };
    group.each(count, convert, write_only(to.data + first), from.data + first);
  }
};

/// One chunk: data[i] = value.
template <class T>
struct Fill {
  static constexpr bool long_rows = true;
  static constexpr Index chunk = 4096;
  T* data;
  Index size;
  T value;
  template <class Group>
  TINYMOE_EVERYWHERE void operator()(Group group, Index part) const {
    const Index first = part * chunk, count = size - first < chunk ? size - first : chunk;
    const auto fill = [filled = value](T& to) { to = filled; };
    group.each(count, fill, write_only(data + first));
  }
};

/// The chunks of `n` elements, each a kernel row.
template <class Kernel>
constexpr Index chunk_count(Index n) {
  return (n + Kernel::chunk - 1) / Kernel::chunk;
}

}  // namespace kernels

}  // namespace tinymoe::inline v0_1
