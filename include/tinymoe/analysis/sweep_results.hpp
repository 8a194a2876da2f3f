#pragma once
/// @file
/// The results of a sweep: a CSV with a row for each run, read back, and what several runs of a variant say together.

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <ios>
#include <iterator>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/number_text.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/files/json_writer.hpp"

namespace tinymoe::inline v0_1 {

/// What all runs of a sweep have in common, without which their results say nothing of each other.
struct SweepBudget {
  Index batch = 0, warmup = 0, steps = 0;  // steps: 0 if the time is the limit
  double minutes = 0;                      // 0: no limit
  std::string precision = {};
  std::uint64_t data = 0;  // fingerprint of the training and validation tokens
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

namespace detail {

inline constexpr std::string_view sweep_columns[] = {
    "variant", "parameters", "active", "flops_per_token", "tokens_per_second", "steps", "tokens", "validation_loss",
    "validation_bits_per_byte", "load_variation",
    // From here on an older file may end.
    "learning_rate", "seed", "seconds", "batch", "warmup", "step_limit", "minute_limit", "precision", "data"};
inline constexpr std::size_t first_sweep_columns = 10;

[[gnu::cold]] inline std::vector<std::string> split_row(std::string_view line) {
  if (line.ends_with('\r')) line.remove_suffix(1);
  std::vector<std::string> fields;
  for (std::size_t at = 0; at <= line.size();) {
    const std::size_t comma = std::min(line.find(',', at), line.size());
    fields.emplace_back(line.substr(at, comma - at));
    at = comma + 1;
  }
  return fields;
}

}  // namespace detail

/// The first line of a sweep's CSV.
[[gnu::cold]] inline std::string sweep_header() {
  std::string line;
  for (const std::string_view column : detail::sweep_columns) {
    if (!line.empty()) line += ',';
    line += column;
  }
  return line + '\n';
}

/// A run's line. Its learning rate and its limits are read back as they are.
[[gnu::cold]] inline std::string sweep_row(const SweepRun& run) {
  using detail::fixed_text;
  const auto exact = [](double number) {
    std::string text;
    detail::append_json(text, number);
    return text;
  };
  std::string line = run.variant;
  for (const std::string& field :
       {std::to_string(run.parameters), std::to_string(run.active), std::to_string(run.flops_forward),
        fixed_text(run.tokens_per_second, 1), std::to_string(run.steps), std::to_string(run.tokens),
        fixed_text(run.loss, 6), fixed_text(run.bits_per_byte, 6), fixed_text(run.load_variation, 4),
        exact(run.learning_rate), std::to_string(run.seed), fixed_text(run.seconds, 1),
        std::to_string(run.budget.batch), std::to_string(run.budget.warmup), std::to_string(run.budget.steps),
        exact(run.budget.minutes), run.budget.precision, std::to_string(run.budget.data)}) {
    line += ',' + field;
  }
  return line + '\n';
}

/// The runs of a sweep's CSV, older ones without learning rates and seeds too; none of a sweep that was interrupted in
/// its first run. A row that was cut is left out. Throws FileError for a file that `sweep` did not write.
[[gnu::cold]] inline std::vector<SweepRun> read_sweep(const std::filesystem::path& csv) {
  std::ifstream file(csv, std::ios::binary);
  if (!file) fail<FileError>(csv, ": cannot be opened; a sweep's results are the CSV that sweep writes");
  std::string line;
  std::getline(file, line);
  const std::vector<std::string> columns = detail::split_row(line);
  const std::size_t known = columns.size();
  if (known < detail::first_sweep_columns || known > std::size(detail::sweep_columns) ||
      !std::equal(columns.begin(), columns.end(), detail::sweep_columns)) {
    fail<FileError>(csv, ": expected results that begin with \"variant,parameters,active\", as sweep writes them");
  }
  std::vector<SweepRun> runs;
  while (std::getline(file, line)) {
    const std::vector<std::string> fields = detail::split_row(line);
    if (fields.size() != known || file.eof()) continue;
    std::size_t at = 1;
    bool good = true;
    const auto take = [&]<class T>(T& to) {
      if (at >= known) return;
      const std::string& field = fields[at++];
      const auto [end, reason] = std::from_chars(field.data(), field.data() + field.size(), to);
      // Counts are averaged as doubles, seeds and fingerprints are not.
      const double most = std::is_same_v<T, Index> ? 0x1p53 : 0x1p64;
      good = good && reason == std::errc() && end == field.data() + field.size() && to >= T{} &&
             static_cast<double>(to) <= most;
    };
    SweepRun run{.variant = fields[0]};
    take(run.parameters), take(run.active), take(run.flops_forward), take(run.tokens_per_second), take(run.steps);
    take(run.tokens), take(run.loss), take(run.bits_per_byte), take(run.load_variation), take(run.learning_rate);
    take(run.seed), take(run.seconds), take(run.budget.batch), take(run.budget.warmup), take(run.budget.steps);
    take(run.budget.minutes);
    if (at < known) run.budget.precision = fields[at++];
    take(run.budget.data);
    if (!good) continue;
    if (run.seconds == 0 && run.tokens_per_second > 0) {
      const double seconds = static_cast<double>(run.tokens) / run.tokens_per_second;
      if (seconds <= 0x1p53) run.seconds = seconds;
    }
    runs.push_back(std::move(run));
  }
  if (file.bad()) fail<FileError>(csv, ": cannot be read to its end");
  return runs;
}

/// The mean of each variant with each learning rate, in the order in which they first stand.
[[gnu::cold]] inline std::vector<SweepResult> sweep_results(const std::vector<SweepRun>& runs) {
  std::vector<SweepResult> results;
  for (const SweepRun& run : runs) {
    const auto same = [&](const SweepResult& one) {
      return one.mean.variant == run.variant && one.mean.learning_rate == run.learning_rate;
    };
    if (std::any_of(results.begin(), results.end(), same)) continue;
    SweepResult result{.mean = run, .runs = 0};
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
    text += "}";
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
