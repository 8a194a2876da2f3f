#pragma once
/// @file
/// What each expert is worth: the validation loss without it, and of models with fewer experts or a smaller K. The same
/// model measures all of that, with some of its experts left out (layers/expert_limits.hpp). Opt-in: model.hpp does not
/// include it.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <span>
#include <tuple>
#include <utility>
#include <vector>

#include "tinymoe/analysis/count.hpp"
#include "tinymoe/analysis/expert_findings.hpp"
#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/layers/expert_limits.hpp"
#include "tinymoe/layers/parameters.hpp"
#include "tinymoe/text/evaluation_windows.hpp"
#include "tinymoe/text/token_data.hpp"
#include "tinymoe/train/communicator.hpp"
#include "tinymoe/train/evaluation.hpp"
#include "tinymoe/train/passes.hpp"
#include "tinymoe/train/token_slots.hpp"

namespace tinymoe::inline v0_1 {

/// What `measure_experts` measures. A model of L mixtures of E experts takes 1 + L·E + E + K evaluations with all.
struct WorthOptions {
  Index batch = 16, time = 0;  // of the windows; time 0: the context
  bool experts = true;         // the loss without each expert
  bool curves = true;          // with fewer experts, and with a smaller K; needs that of each expert
  std::function<void(Index done, Index all)> on_progress = {};  // evaluations
};

/// The experts that leave so that each mixture keeps `kept`, where it has more: the least worthy, of equal ones the
/// higher number. `worths` has all experts of the model.
[[gnu::cold]] inline std::vector<LayerExpert> least_worthy(std::span<const ExpertWorth> worths, Index kept) {
  std::vector<ExpertWorth> order(worths.begin(), worths.end());
  std::sort(order.begin(), order.end(), [](const ExpertWorth& a, const ExpertWorth& b) {
    return std::tuple(a.layer, a.worth, -a.expert) < std::tuple(b.layer, b.worth, -b.expert);
  });
  std::vector<LayerExpert> leave;
  for (auto first = order.begin(); first != order.end();) {
    const auto last = std::find_if(first, order.end(), [&](const ExpertWorth& w) { return w.layer != first->layer; });
    for (Index left = last - first; left > kept; --left, ++first) leave.push_back({first->layer, first->expert});
    first = last;
  }
  return leave;
}

namespace detail {

/// Parameters of an architecture whose mixtures keep `fewer.experts` and give a token `fewer.choices`, where they have
/// more.
template <class Arch>
[[gnu::cold]] void count_fewer(FewerExperts& fewer) {
  fewer.total = fewer.active = 0;
  Index routers = 0;  // of a router whose experts come next
  Arch::template Parameters<float>::for_each(Path{}, [&](const ParameterInfo& info) {
    const Index size = info.size();
    if (info.part == Part::router && info.path.name == "gate") {  // and not a shared expert's gate
      routers += size;
      return;
    }
    const Path* expert = &info.path;  // the part of the name that numbers experts
    while (expert != nullptr && expert->of == 1) expert = expert->parent;
    const Index all = expert == nullptr ? 1 : expert->of, kept = std::min(fewer.experts, all);
    fewer.total += routers * kept / all, fewer.active += routers * kept / all, routers = 0;
    if (expert == nullptr) {
      fewer.total += size, fewer.active += info.active_of(size);
    } else {
      if (expert->number < kept) fewer.total += size;
      if (expert->number < std::min({kept, fewer.choices, expert->active})) fewer.active += size;
    }
  });
}

/// Sets a model's limits, and its own again at the end.
template <class ModelType>
class LimitsFor {
 public:
  explicit LimitsFor(ModelType& model) : model_(&model), own_(model.expert_limits()) {}
  LimitsFor(const LimitsFor&) = delete;
  ~LimitsFor() {
    try {
      model_->limit_experts(own_);
    } catch (...) {  // without memory for its limits, the model keeps the last ones
    }
  }

 private:
  ModelType* model_;
  ExpertLimits own_;
};

}  // namespace detail

/// The loss of a model over `data` without each of its experts, with fewer experts of each mixture, those of the lowest
/// worth left out, and with a smaller K; nothing is trained in between. Its own limits do not count, and are as they
/// were afterwards. Worth is measured for one expert at a time: experts that stand in for each other are each worth
/// little, so that the curve may fall behind the sum of worths. A model without mixtures has its loss alone.
///
/// Throws what `evaluate` throws, and OptionError for a router that cannot leave experts out.
template <class ModelType>
ExpertWorths measure_experts(ModelType& model, const TokenData& data, const WorthOptions& options = {}) {
  using Arch = typename ModelType::Architecture;
  const Index time = options.time == 0 ? Arch::context : options.time;
  detail::check_vocabulary<Arch>(data);
  const EvaluationWindows windows(data, options.batch, time);
  detail::Passes<ModelType> passes(model);
  passes.plan(options.batch, time, false);
  detail::TokenSlots<typename ModelType::BackendType> slots(model.backend(), options.batch * time);
  const detail::LimitsFor<ModelType> restored(model);

  std::vector<LayerExpert> experts;
  Index most = 0, choices = 0;  // of a mixture
  Arch::for_each_layer([&](auto group, Index, Index layer) {
    using Block = typename std::tuple_element_t<decltype(group)::value, typename Arch::Groups>::Block;
    if constexpr (Block::is_mixture) {
      for (Index e = 0; e < Block::Router::experts; ++e) experts.push_back({layer, e});
      most = std::max(most, Index{Block::Router::experts});
      choices = std::max(choices, detail::active_experts<typename Block::Router>());
    }
  });
  const bool ranks = options.experts || options.curves;
  const Index all = 1 + (ranks ? std::ssize(experts) : 0) + (options.curves ? most - 1 : 0);
  Index done = 0;
  Alone alone;
  const auto measure = [&](ExpertLimits limits) {
    model.limit_experts(limits);
    const EvaluationReport report = detail::evaluate(passes, slots, windows, data, alone);
    if (!std::isfinite(report.loss)) {
      fail<TrainingError>("the validation loss is ", report.loss,
                          detail::fault_of_evaluation(passes, slots, windows, alone));
    }
    if (options.on_progress) options.on_progress(++done, all);
    return report;
  };
  const auto fewer = [&](Index kept, Index of_token, const EvaluationReport& report) {
    FewerExperts point{
        .experts = kept, .choices = of_token, .loss = report.loss, .bits_per_byte = report.bits_per_byte};
    detail::count_fewer<Arch>(point);
    return point;
  };

  ExpertWorths worths;
  const EvaluationReport whole = measure({});
  worths.tokens = whole.tokens, worths.loss = whole.loss, worths.bits_per_byte = whole.bits_per_byte;
  if (experts.empty() || !ranks) return worths;
  for (const LayerExpert& expert : experts) {
    const bool alone_in_layer = std::count_if(experts.begin(), experts.end(), [&](const LayerExpert& other) {
                                  return other.layer == expert.layer;
                                }) == 1;
    const double loss = alone_in_layer ? INFINITY : measure({.left_out = {expert}}).loss;
    worths.experts.push_back({expert.layer, expert.expert, loss, loss - whole.loss});
  }
  if (!options.curves) return worths;
  worths.by_experts.push_back(fewer(most, choices, whole));
  for (Index kept = most - 1; kept >= choices; --kept) {
    worths.by_experts.push_back(fewer(kept, choices, measure({.left_out = least_worthy(worths.experts, kept)})));
  }
  worths.by_choices.push_back(fewer(most, choices, whole));
  for (Index k = choices - 1; k >= 1; --k) {
    worths.by_choices.push_back(fewer(most, k, measure({.choices = k})));
  }
  return worths;
}

}  // namespace tinymoe::inline v0_1
