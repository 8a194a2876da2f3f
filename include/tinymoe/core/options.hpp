#pragma once
/// @file
/// Named options: small types given to a layer in any order, each with a default.
///
/// An option names its place by a member type `Place`: `Heads<8>` and `Heads<4>` stand in the same place, so only one
/// of them may be given. A layer looks each place up with `option_t` and lists the places it knows in `KnownPlaces`.

#include <type_traits>

#include "tinymoe/core/platform.hpp"

namespace tinymoe::inline v0_1 {

namespace place {
struct Vocab;
struct Context;
struct Width;
struct Head;
struct HeadBias;
struct Bigrams;
struct PerLayerEmbeddings;
struct FinalNorm;
struct Layers;
struct Heads;
struct KvHeads;
struct HeadDim;
struct Position;
struct Window;
struct Bias;
struct QkvBias;
struct OutputBias;
struct Hidden;
struct Activation;
struct Shared;
struct QkNorm;
}  // namespace place

/// An option that is a whole number.
template <class P, Index N>
struct NumberOption {
  using Place = P;
  static constexpr Index value = N;
};

/// Biases on every matrix of a layer.
struct Bias {
  using Place = place::Bias;
  static constexpr bool value = true;
};
/// No biases; the default.
struct NoBias {
  using Place = place::Bias;
  static constexpr bool value = false;
};

namespace detail {

/// The default of an option that is either given or not.
struct NotGiven {
  static constexpr bool value = false;
};

template <class Option>
concept OptionType = requires {
  typename Option::Place;
};

template <class Place, class Option>
concept InPlace = OptionType<Option> && std::is_same_v<typename Option::Place, Place>;

template <class Place, class Default, class... Options>
struct FindOption {
  using Type = Default;
};
template <class Place, class Default, class First, class... Rest>
struct FindOption<Place, Default, First, Rest...> : FindOption<Place, Default, Rest...> {};
template <class Place, class Default, class First, class... Rest>
requires InPlace<Place, First>
struct FindOption<Place, Default, First, Rest...> {
  using Type = First;
};

template <class Option, class... Places>
consteval bool option_known() {
  if constexpr (OptionType<Option>) return (std::is_same_v<typename Option::Place, Places> || ...);
  return false;
}

template <class Place, class... Options>
consteval int times_given() {
  return (0 + ... + (InPlace<Place, Options> ? 1 : 0));
}

}  // namespace detail

/// The option given for a place, or the default.
template <class Place, class Default, class... Options>
using option_t = typename detail::FindOption<Place, Default, Options...>::Type;

/// The places a layer knows.
template <class... Places>
struct KnownPlaces {
  /// Whether every option stands in a known place.
  template <class... Options>
  static constexpr bool know_all = (detail::option_known<Options, Places...>() && ...);
  /// Whether no place is given twice.
  template <class... Options>
  static constexpr bool each_once = ((detail::times_given<Places, Options...>() <= 1) && ...);
};

}  // namespace tinymoe::inline v0_1
