#pragma once
/// @file
/// Which experts a model may use when it evaluates or generates: all but some, or fewer for each token. No other type
/// is compiled for that, and a pass without limits does not look at any.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/memory.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/layers/pass.hpp"

namespace tinymoe::inline v0_1 {

/// An expert of a model: its layer's number in the model, its number in the layer.
struct LayerExpert {
  Index layer = 0, expert = 0;
  friend bool operator==(const LayerExpert&, const LayerExpert&) = default;
};

/// Experts that are left out, and the maximum number of experts of a token. The router then chooses as if it had the
/// others alone: their scores and gates are those that it would have without the rows of the experts that are left out.
struct ExpertLimits {
  Index choices = 0;                       // in each mixture; 0: as many as its router takes
  std::vector<LayerExpert> left_out = {};  // in any order

  friend bool operator==(const ExpertLimits&, const ExpertLimits&) = default;
};

namespace detail {

/// The mixture of each layer of a model: its number of experts, and whether its router can leave some out.
struct LimitedLayer {
  Index experts = 0;  // 0: a dense block
  bool limits = false;
};

/// Throws OptionError for limits that the layers cannot have.
[[gnu::cold]] inline void check_limits(const ExpertLimits& limits, const std::vector<LimitedLayer>& layers) {
  if (limits.choices < 0) fail<OptionError>("a token takes at least one expert, found a limit of ", limits.choices);
  std::vector<std::vector<bool>> gone;
  for (const auto& layer : layers) gone.emplace_back(static_cast<std::size_t>(layer.experts));
  for (const auto& [layer, expert] : limits.left_out) {
    if (layer < 0 || layer >= std::ssize(layers) || layers[static_cast<std::size_t>(layer)].experts == 0) {
      fail<OptionError>("layer ", layer, " has no experts to leave out; the model has ", layers.size(), " layers");
    }
    const auto at = static_cast<std::size_t>(layer);
    if (expert < 0 || expert >= layers[at].experts) {
      fail<OptionError>("layer ", layer, " has the experts 0 to ", layers[at].experts - 1, ", found ", expert);
    }
    gone[at][static_cast<std::size_t>(expert)] = true;
  }
  for (std::size_t i = 0; i < layers.size(); ++i) {
    if (layers[i].experts == 0) continue;
    bool all = true, some = limits.choices > 0;
    for (const bool left_out : gone[i]) all = all && left_out, some = some || left_out;
    if (all) fail<OptionError>("all experts of layer ", i, " are left out; leave one");
    if (some && !layers[i].limits) {
      fail<OptionError>("the router of layer ", i,
                        " is of a kind that cannot leave experts out; let it obey Pass::limit and say so by "
                        "`static constexpr bool limits_experts = true`");
    }
  }
}

/// Limits in a backend's memory, as passes get them.
class PlacedLimits {
 public:
  PlacedLimits() = default;

  /// Throws as `check_limits`, DeviceError without memory.
  template <class B>
  [[gnu::cold]] PlacedLimits(B& backend, const ExpertLimits& limits, const std::vector<LimitedLayer>& layers) {
    check_limits(limits, layers);
    if (limits == ExpertLimits()) return;
    std::size_t flags = 0, most = 0;
    for (const auto& layer : layers) {
      flags += round_up(static_cast<std::size_t>(layer.experts), memory_alignment);
      most = std::max(most, static_cast<std::size_t>(layer.experts));
    }
    constexpr std::size_t largest_number = 16;
    memory_ = backend.allocate(flags + most * largest_number);
    std::vector<std::uint8_t> host(flags);
    std::vector<std::size_t> places;
    std::size_t next = 0;
    for (const auto& layer : layers) {
      places.push_back(next);
      layers_.push_back({.choices = limits.choices, .kept = layer.experts, .scratch = memory_.bytes() + flags});
      next += round_up(static_cast<std::size_t>(layer.experts), memory_alignment);
    }
    for (const auto& [layer, expert] : limits.left_out) {
      const auto at = static_cast<std::size_t>(layer);
      std::uint8_t& flag = host[places[at] + static_cast<std::size_t>(expert)];
      if (flag == 0) --layers_[at].kept;
      flag = 1;
      const auto* first = reinterpret_cast<const std::uint8_t*>(memory_.bytes()) + places[at];
      layers_[at].left_out = {first, 1, layers[at].experts};
    }
    backend.copy_to_device(memory_.bytes(), host.data(), host.size());
  }

  /// For `Pass::limits`; null without limits.
  const ExpertLimit* by_layer() const { return layers_.empty() ? nullptr : layers_.data(); }

 private:
  Memory memory_;
  std::vector<ExpertLimit> layers_;
};

}  // namespace detail

}  // namespace tinymoe::inline v0_1
