#pragma once
/// @file
/// The results of a sweep, and what several runs of a variant say together.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include "tinymoe/core/platform.hpp"
#include "tinymoe/files/json_writer.hpp"

namespace tinymoe::inline v0_1 {

/// What all runs of a sweep have in common, without which their results say nothing of each other.
struct SweepBudget {
  Index batch = 0, warmup = 0, steps = 0;  // steps: 0 if the time is the limit
  double minutes = 0;                      // 0: no limit
  std::string precision = {};
  std::uint64_t data = 0;    // fingerprint of the training and validation tokens
  std::uint64_t recipe = 0;  // fingerprint of how the variant is trained, but for what has a column
};

/// A validation of a run.
struct SweepPoint {
  Index step = 0, tokens = 0;
  double seconds = 0;  // of training
  double loss = 0, bits_per_byte = 0;
};

/// One run: a variant that was trained with one learning rate and one seed. What a file does not tell is 0.
struct SweepRun {
  std::string variant = {};
  Index parameters = 0, active = 0, flops_forward = 0;  // FLOPs of a token, forward
  double tokens_per_second = 0;
  Index steps = 0, tokens = 0;
  double loss = 0, bits_per_byte = 0, load_variation = 0;  // of the last validation
  double learning_rate = 0;
  std::uint64_t seed = 0;
  double seconds = 0;
  SweepBudget budget = {};
  std::vector<SweepPoint> curve = {};  // all of its validations; the CSV's row leaves them out
};

/// The runs of a variant with one learning rate.
struct SweepResult {
  SweepRun mean = {};  // over the seeds; its own seed is the first run's
  Index runs = 1;
  double error = 0;  // the standard error of its bits per byte, or of its loss where those are unknown; 0 of one run
  Index learning_rates = 1;  // that the variant was tried with

  /// What results are ranked by.
  double value() const { return mean.bits_per_byte > 0 ? mean.bits_per_byte : mean.loss; }
};

/// The mean of each variant with each learning rate, in the order in which they first stand.
[[gnu::cold]] inline std::vector<SweepResult> sweep_results(const std::vector<SweepRun>& runs) {
  std::vector<SweepResult> results;
  for (const SweepRun& run : runs) {
    const auto same = [&](const SweepResult& one) {
      return one.mean.variant == run.variant && one.mean.learning_rate == run.learning_rate;
    };
    if (std::any_of(results.begin(), results.end(), same)) continue;
    SweepResult result{.mean = run, .runs = 0};
    result.mean.curve.clear();
    double sum = 0, loss = 0, bits = 0, speed = 0, seconds = 0, variation = 0, steps = 0, tokens = 0;
    std::vector<double> values;
    for (const SweepRun& each : runs) {
      if (each.variant != run.variant || each.learning_rate != run.learning_rate) continue;
      values.push_back(run.bits_per_byte > 0 ? each.bits_per_byte : each.loss);
      sum += values.back(), loss += each.loss, bits += each.bits_per_byte, speed += each.tokens_per_second;
      seconds += each.seconds, variation += each.load_variation;
      steps += static_cast<double>(each.steps), tokens += static_cast<double>(each.tokens);
      ++result.runs;
    }
    const double count = static_cast<double>(result.runs);
    SweepRun& mean = result.mean;
    mean.loss = loss / count, mean.bits_per_byte = bits / count, mean.tokens_per_second = speed / count;
    mean.seconds = seconds / count, mean.load_variation = variation / count;
    mean.steps = std::llround(steps / count), mean.tokens = std::llround(tokens / count);
    double squares = 0;
    for (const double value : values) squares += (value - sum / count) * (value - sum / count);
    if (result.runs > 1) result.error = std::sqrt(squares / (count - 1) / count);
    results.push_back(std::move(result));
  }
  for (SweepResult& result : results) {
    result.learning_rates = std::count_if(results.begin(), results.end(), [&](const SweepResult& other) {
      return other.mean.variant == result.mean.variant;
    });
  }
  return results;
}

/// Of each variant the result with the lowest mean, in the same order.
[[gnu::cold]] inline std::vector<SweepResult> best_of_variants(const std::vector<SweepResult>& results) {
  std::vector<SweepResult> best;
  for (const SweepResult& result : results) {
    const auto found = std::find_if(best.begin(), best.end(),
                                    [&](const SweepResult& one) { return one.mean.variant == result.mean.variant; });
    if (found == best.end()) {
      best.push_back(result);
    } else if (result.value() < found->value()) {
      *found = result;
    }
  }
  return best;
}

/// The runs, and the means of each variant and learning rate with their standard errors, as a JSON object.
[[gnu::cold]] inline std::string sweep_json(const std::vector<SweepRun>& runs) {
  std::string text = "{\n\"runs\": [";
  const auto number = [&](const char* name, auto value) {
    text += std::string(", \"") + name + "\": ";
    if constexpr (std::is_floating_point_v<decltype(value)>) {
      detail::append_json(text, value);
    } else {
      text += std::to_string(value);
    }
  };
  const auto add = [&](const SweepRun& run, bool first) {
    text += first ? "\n{\"variant\": " : ",\n{\"variant\": ";
    detail::append_json(text, run.variant);
    number("learning_rate", run.learning_rate), number("parameters", run.parameters), number("active", run.active);
    number("flops_per_token", run.flops_forward), number("tokens_per_second", run.tokens_per_second);
    number("steps", run.steps), number("tokens", run.tokens), number("seconds", run.seconds);
    number("validation_loss", run.loss), number("validation_bits_per_byte", run.bits_per_byte);
    number("load_variation", run.load_variation);
  };
  for (std::size_t i = 0; i < runs.size(); ++i) {
    add(runs[i], i == 0);
    number("seed", runs[i].seed), number("batch", runs[i].budget.batch), number("warmup", runs[i].budget.warmup);
    number("step_limit", runs[i].budget.steps), number("minute_limit", runs[i].budget.minutes);
    text += ", \"precision\": ";
    detail::append_json(text, runs[i].budget.precision);
    text += ", \"validations\": [";
    for (const SweepPoint& point : runs[i].curve) {
      text += &point == &runs[i].curve.front() ? "{\"step\": " : ", {\"step\": ";
      text += std::to_string(point.step);
      number("tokens", point.tokens), number("seconds", point.seconds), number("loss", point.loss);
      number("bits_per_byte", point.bits_per_byte);
      text += "}";
    }
    text += "]}";
  }
  text += "\n],\n\"means\": [";
  const std::vector<SweepResult> results = sweep_results(runs);
  for (std::size_t i = 0; i < results.size(); ++i) {
    add(results[i].mean, i == 0);
    number("runs", results[i].runs), number("standard_error", results[i].error);
    text += "}";
  }
  return text + "\n]\n}\n";
}

}  // namespace tinymoe::inline v0_1
