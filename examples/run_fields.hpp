#pragma once
// The options that a resumed run of `train` keeps. Each is named once, in for_each_field. Its option on the command
// line and its place in a checkpoint's trainer.json follow from that.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <tinymoe/checkpoint/training_state_json.hpp>
#include <tinymoe/core/error.hpp>
#include <tinymoe/core/number_text.hpp>
#include <tinymoe/files/json.hpp>
#include <tinymoe/text/batching.hpp>
#include <type_traits>
#include <vector>

#include "programs/numbers.hpp"
#include "recipes.hpp"

namespace examples {

/// A field whose value is one of several names.
template <class Kind>
struct Choice {
  Kind& kind;
  std::span<const std::string_view> names;

  std::string name() const { return std::string(names[static_cast<std::size_t>(kind)]); }
  /// Sets the field to the kind of this name; false if there is none.
  bool take(std::string_view name) const {
    const auto found = std::find(names.begin(), names.end(), name);
    if (found != names.end()) kind = static_cast<Kind>(found - names.begin());
    return found != names.end();
  }
};
template <class Kind, std::size_t n>
Choice(Kind&, const std::array<std::string_view, n>&) -> Choice<Kind>;

/// f(pair, left, right) for each pair of a text, "norm=4,table=6"; `right` is empty in a pair without "=".
template <class F>
void for_each_pair(std::string_view text, F&& f) {
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t comma = std::min(text.find(',', at), text.size());
    const std::string_view pair = text.substr(at, comma - at);
    const std::size_t sign = std::min(pair.find('='), pair.size());
    f(pair, pair.substr(0, sign), pair.substr(std::min(sign + 1, pair.size())));
    at = comma + 1;
  }
}

/// Sets the factor of each part that a text names, "norm=4,table=6"; "none": all are 1. Throws OptionError that begins
/// with `name`.
inline void take_text(const std::string& name, std::string_view text, tinymoe::PartFactors& factors) {
  factors = {};
  if (text == "none") return;
  constexpr auto& parts = tinymoe::detail::part_names;
  for_each_pair(text, [&](std::string_view pair, std::string_view part, std::string_view factor) {
    const auto found = std::find(parts.begin(), parts.end(), part);
    if (pair.size() == part.size() || found == parts.end()) {
      std::string known;
      for (const std::string_view one : parts) known.append(known.empty() ? "" : ", ").append(one);
      tinymoe::fail<tinymoe::OptionError>(name, " takes parts with a factor, \"norm=4,table=6\", or none, found \"",
                                          pair, "\"; the parts are ", known);
    }
    programs::take_number(name + ", " + std::string(part), factor,
                          factors[static_cast<tinymoe::Part>(found - parts.begin())], programs::range::from_0);
  });
}

/// Sets the stages that a text names, "64=0.1,128=0.4"; "none": there are none. Throws OptionError that begins with
/// `name`.
inline void take_text(const std::string& name, std::string_view text, tinymoe::SequenceGrowth& growth) {
  growth = {};
  if (text == "none") return;
  std::size_t count = 0;
  for_each_pair(text, [&](std::string_view pair, std::string_view time, std::string_view until) {
    if (pair.size() == time.size() || count == growth.stages.size()) {
      tinymoe::fail<tinymoe::OptionError>(name, " takes at most ", growth.stages.size(),
                                          " lengths with a share of the run, \"64=0.1,128=0.4\", or none, found \"",
                                          text, "\"");
    }
    auto& stage = growth.stages[count++];
    programs::take_number(name + ", length", time, stage.time, programs::range::whole(1, 1 << 24));
    programs::take_number(name + ", share", until, stage.until, programs::range::from_0_to_1);
  });
}

/// The text that `take_text` reads, of the factors that are not 1.
inline std::string text_of(const tinymoe::PartFactors& factors) {
  std::string text;
  for (std::size_t part = 0; part < tinymoe::detail::part_names.size(); ++part) {
    const double factor = factors[static_cast<tinymoe::Part>(part)];
    if (factor == 1) continue;
    text.append(text.empty() ? "" : ",").append(tinymoe::detail::part_names[part]).append("=");
    text.append(tinymoe::detail::shortest_text(factor));
  }
  return text;
}
inline std::string text_of(const tinymoe::SequenceGrowth& growth) { return growth.text(); }

/// Whether a field's value is a text of pairs.
template <class T>
inline constexpr bool is_pairs = std::is_same_v<T, tinymoe::PartFactors> || std::is_same_v<T, tinymoe::SequenceGrowth>;

inline constexpr const char *recommended = "Recommended by the preset", *of_run = "The run";
inline constexpr std::array<std::string_view, 2> batching_names = {"packed", "padded"};

/// f(group of options, option, value or Choice, what --help says, range of a number) for each field of a run's
/// Arguments.
template <class A, class F>
void for_each_field(A& a, F&& f) {
  auto& r = a.recipe;
  using namespace programs::range;
  const auto some = whole(1, 1 << 20), any = whole(0), beta = from_0_below_1;
  f(recommended, "--batch", r.batch, "sequences of a micro-batch", some);
  f(recommended, "--accumulation", r.accumulation,
    "gradient accumulation: micro-batches of a step, which several processes share; default: the preset's for each "
    "process",
    some);
  f(recommended, "--optimizer", Choice{r.optimizer, optimizer_names},
    "adamw, lion (a fifth of the rate, five times the decay) or muon", any);
  f(recommended, "--learning-rate", r.rate, "max learning rate", above_0);
  f(recommended, "--schedule", Choice{r.schedule, schedule_names},
    "learning rate over time: cosine, constant, onecycle, or wsd (warm-up, stable, decay)", any);
  f(recommended, "--warmup", r.warmup, "steps until the max rate; onecycle warms up over 30 % of the run", any);
  f(recommended, "--floor", r.floor, "last rate of cosine and wsd, as a share of the max", from_0_to_1);
  f(recommended, "--weight-decay", r.decay, "of matrices", from_0);
  f(recommended, "--beta1", r.beta1, "of AdamW or Lion", beta);
  f(recommended, "--beta2", r.beta2, "of AdamW or Lion", beta);
  f(recommended, "--muon-experts", r.muon_experts, "muon orthogonalises experts' matrices; else AdamW trains them",
    any);
  f(recommended, "--muon-feed-forward", r.muon_feed_forward,
    "muon orthogonalises dense networks' matrices; else AdamW trains them", any);
  f(recommended, "--muon-adamw-rate", r.muon_adamw_rate,
    "AdamW's rate for what muon leaves to it, as a multiple of the learning rate", from_0);
  f(recommended, "--rates", r.rates,
    "factors of the learning rate for parts of the model, \"norm=4,table=6\"; 1 for the others; none: all are 1", any);
  f(recommended, "--decays", r.decays, "the same for the weight decay", any);
  f(recommended, "--growth", r.growth,
    "lengths of sequences before the full one, each with the share of the run at which it ends, \"64=0.1,128=0.4\"; "
    "none: all are full; default: those of the preset that are shorter than --sequence; none with --from or padded",
    any);
  f(recommended, "--clip", r.clip, "max norm of the gradients; 0: none", from_0);
  f(recommended, "--recompute", r.recompute,
    "compute activations again in backward (gradient checkpointing): less memory, one more forward pass", any);

  f(of_run, "--sequence", a.time, "tokens of a sequence; default: the model's context", whole(1, 1 << 24));
  f(of_run, "--batching", Choice{a.batching, batching_names},
    "packed: rows cut from all stories in a row; padded: one story in each row", any);
  f(of_run, "--steps", a.steps, "steps to train in all", any);
  f(of_run, "--minutes", a.minutes, "minutes to train in all; default: 5, if no --steps are given", from_0);
  f(of_run, "--seed", a.seed, "of weights and data order", any);
  f(of_run, "--bpe-dropout", a.stories.dropout.rate,
    "probability that a merge is left out where the training stories become tokens, 0.1 for example; 0: none",
    from_0_to_1);
  f(of_run, "--average", a.average,
    "decay of a moving average of the weights, 0.999 for example, which is then evaluated and goes to "
    "OUT-best-weights; 0: none",
    from_0_below_1);
  f(of_run, "--evaluate-every", a.evaluate_every, "steps between evaluations; 0: not by steps", any);
  f(of_run, "--evaluate-minutes", a.evaluate_minutes, "minutes of training between evaluations; 0: not by time",
    from_0);
  f(of_run, "--checkpoint-every", a.checkpoint_every, "steps between checkpoints; 0: not by steps", any);
  f(of_run, "--checkpoint-minutes", a.checkpoint_minutes, "minutes between checkpoints; 0: not by time", from_0);
}

/// Adds an option for each field. Fields of a preset's recipe have the preset's defaults.
template <class A>
void add_fields(CLI::App& app, A& a) {
  for_each_field(a, [&]<class T>(const char* group, const std::string& option, T&& value, const char* about,
                                 const programs::NumberRange& range) {
    CLI::Option* added = nullptr;
    if constexpr (requires { value.names; }) {
      added = app.add_option_function<std::string>(
          option, [value](const std::string& name) { value.take(name); }, about);
      added->check(CLI::IsMember(std::vector<std::string>(value.names.begin(), value.names.end())));
    } else if constexpr (is_pairs<std::remove_reference_t<T>>) {
      const auto take = [option, &value](const std::string& text) {
        try {
          take_text(option, text, value);
        } catch (const tinymoe::OptionError& error) {
          throw CLI::ValidationError(error.what());
        }
      };
      added = app.add_option_function<std::string>(option, take, about)
                  ->type_name(std::is_same_v<std::remove_reference_t<T>, tinymoe::PartFactors> ? "PART=FLOAT,…"
                                                                                               : "LENGTH=SHARE,…");
    } else if constexpr (std::is_same_v<std::remove_reference_t<T>, bool>) {
      added = app.add_flag(option + ",!--no-" + option.substr(2), value, about);
    } else {
      added = programs::add_number(app, option, value, about, range, group != recommended && value != 0);
    }
    added->group(group);
  });
}

/// The key of an option's field in trainer.json: "learning_rate" of "--learning-rate".
inline std::string key_of(std::string_view option) {
  std::string key(option.substr(2));
  std::replace(key.begin(), key.end(), '-', '_');
  return key;
}

/// All fields, as a checkpoint stores them. Batching is stored as "padded", true or false.
template <class A>
tinymoe::Json fields_to_json(const A& a) {
  tinymoe::Json json = tinymoe::Json::object();
  for_each_field(a, [&](const char*, const std::string& option, const auto& value, auto&&...) {
    if (option == "--batching") {
      json["padded"] = a.batching == tinymoe::Batching::padded;
    } else if constexpr (requires { value.names; }) {
      json[key_of(option)] = value.name();
    } else if constexpr (is_pairs<std::remove_cvref_t<decltype(value)>>) {
      json[key_of(option)] = text_of(value);
    } else {
      json[key_of(option)] = value;
    }
  });
  return json;
}

/// Reads the JSON of `fields_to_json`; missing fields stay as they are. Throws FileError with the name of `file` for a
/// value of the wrong type or outside its range.
template <class A>
void fields_from_json(const tinymoe::Json& json, const std::string& file, A& a) {
  for_each_field(a, [&]<class T>(const char*, const std::string& option, T&& value, const char*,
                                 const programs::NumberRange& range) {
    const std::string key = key_of(option);
    if (option == "--batching") {
      const bool padded = a.batching == tinymoe::Batching::padded;
      const bool found = tinymoe::json_field_or<bool>(json, "padded", file, padded);
      a.batching = found ? tinymoe::Batching::padded : tinymoe::Batching::packed;
    } else if constexpr (requires { value.names; }) {
      const auto name = tinymoe::json_field_or<std::string>(json, key, file, value.name());
      if (!value.take(name)) tinymoe::fail<tinymoe::FileError>(file, ": there is no ", key, " called ", name);
    } else if constexpr (is_pairs<std::remove_reference_t<T>>) {
      const auto text = tinymoe::json_field_or<std::string>(json, key, file, text_of(value));
      try {
        value = {};
        if (!text.empty()) take_text(key, text, value);
      } catch (const tinymoe::OptionError& error) {
        tinymoe::fail<tinymoe::FileError>(file, ": ", error.what());
      }
    } else if constexpr (std::is_same_v<std::remove_reference_t<T>, bool>) {
      value = tinymoe::json_field_or<bool>(json, key, file, value);
    } else if (!json[key].is_null() && !(json[key] == value)) {  // a default may be no value to give: a sequence of 0
      value = tinymoe::json_field<std::remove_reference_t<T>>(json, key, file, range);
    }
  });
}

}  // namespace examples
