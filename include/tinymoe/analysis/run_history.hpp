#pragma once
/// @file
/// What the logs of a run say of it, read back: its metrics (CSV) and, where it wrote them, its JSON lines.
/// Over 300 lines: two formats of one history, which are read alike.

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <ios>
#include <iterator>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "tinymoe/checkpoint/training_state.hpp"
#include "tinymoe/core/error.hpp"
#include "tinymoe/core/number_text.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/files/json_parser.hpp"
#include "tinymoe/files/json_value.hpp"
#include "tinymoe/train/metrics.hpp"
#include "tinymoe/train/reports.hpp"

namespace tinymoe::inline v0_1 {

/// The loads of a run's experts over its steps, in equal parts of the steps: sums, so that a long run takes no more
/// memory than a short one.
class LoadHistory {
 public:
  static constexpr std::size_t most_parts = 160;

  /// Neighbouring steps, whose loads are added up.
  struct Part {
    Index first_step = 0, last_step = 0, steps = 0;
    ExpertLoads loads = {};  // summed over its steps
  };

  /// Adds a step. Steps come in order; one with other mixtures than the first is left out.
  [[gnu::cold]] void add(Index step, const ExpertLoads& loads) {
    if (loads.empty() || (!parts_.empty() && !same_shape(parts_.front().loads, loads))) return;
    if (parts_.empty() || parts_.back().steps >= steps_of_part_) {
      if (parts_.size() == most_parts) halve();
      if (parts_.empty() || parts_.back().steps >= steps_of_part_) {
        parts_.push_back({.first_step = step, .last_step = step, .steps = 1, .loads = loads});
        return;
      }
    }
    join(parts_.back(), {.first_step = step, .last_step = step, .steps = 1, .loads = loads});
  }

  /// The parts, in order.
  const std::vector<Part>& parts() const { return parts_; }

 private:
  static bool same_shape(const ExpertLoads& one, const ExpertLoads& other) {
    if (one.size() != other.size()) return false;
    for (std::size_t m = 0; m < one.size(); ++m) {
      if (one[m].size() != other[m].size()) return false;
    }
    return true;
  }
  static void join(Part& part, const Part& next) {
    part.last_step = next.last_step, part.steps += next.steps;
    for (std::size_t m = 0; m < part.loads.size(); ++m) {
      for (std::size_t e = 0; e < part.loads[m].size(); ++e) part.loads[m][e] += next.loads[m][e];
    }
  }
  void halve() {
    for (std::size_t i = 0; i < most_parts / 2; ++i) {
      if (i > 0) parts_[i] = std::move(parts_[2 * i]);
      join(parts_[i], parts_[2 * i + 1]);
    }
    parts_.resize(most_parts / 2);
    steps_of_part_ *= 2;
  }

  std::vector<Part> parts_;
  Index steps_of_part_ = 1;
};

/// A run as its logs have it.
struct RunHistory {
  /// A step of training; `seconds` are those of training so far.
  struct Step {
    Index step = 0, tokens = 0;
    double seconds = 0, loss = 0, learning_rate = 0, gradient_norm = 0, tokens_per_second = 0, balance_loss = 0,
           z_loss = 0, load_variation = 0;
  };
  /// An evaluation behind a step.
  struct Evaluation {
    Index step = 0, tokens = 0;
    double seconds = 0, loss = 0, bits_per_byte = 0, load_variation = 0;
  };
  /// What the model wrote at an evaluation.
  struct Story {
    Index step = 0;
    std::string text = {};
  };

  /// What a run takes beside its weights, in bytes: gradients and optimizer, and activations. It has the first and the
  /// last step of each time in which both stay the same.
  struct Memory {
    Index step = 0, tokens = 0;
    double seconds = 0;
    std::size_t state = 0, activations = 0;
  };

  std::vector<Step> steps = {};
  std::vector<Evaluation> evaluations = {};
  // Of the JSON lines, empty or 0 without them.
  std::vector<Story> stories = {};
  std::vector<Memory> memory = {};      // of the steps
  LoadHistory loads = {};               // of the steps
  ExpertLoads validation_loads = {};    // of the last evaluation
  std::vector<std::string> notes = {};  // what a reader should know: a line that was cut, for example
};

namespace detail {

/// Whether a number of seconds is one that a run may have taken.
[[gnu::cold]] inline bool is_time(double seconds) { return seconds >= 0 && seconds <= 0x1p53; }

/// The fields of a row as numbers; one that is empty is NaN. Nothing unless there are exactly 12.
[[gnu::cold]] inline std::optional<std::vector<double>> metrics_row(std::string_view line) {
  std::vector<double> fields;
  for (std::size_t at = 0; at <= line.size();) {
    const std::size_t comma = std::min(line.find(',', at), line.size());
    const std::string_view field = line.substr(at, comma - at);
    double number = std::numeric_limits<double>::quiet_NaN();
    const auto [end, reason] = std::from_chars(field.data(), field.data() + field.size(), number);
    if (!field.empty() && (reason != std::errc() || end != field.data() + field.size())) return std::nullopt;
    fields.push_back(number);
    at = comma + 1;
  }
  const auto whole = [](double number) { return number >= 0 && number <= 0x1p53 && number == std::floor(number); };
  if (fields.size() != 12 || !whole(fields[0]) || !whole(fields[1]) || !is_time(fields[2])) return std::nullopt;
  return fields;
}

/// Throws MismatchError if a log's last step up to a checkpoint's is not a step of the run that made the checkpoint.
[[gnu::cold]] inline void expect_log_of(const TrainingState& run, const std::string& file, Index step, Index tokens,
                                        double seconds) {
  if (step != run.step || (tokens == run.tokens && std::abs(seconds - run.seconds) < 0.002)) return;
  fail<MismatchError>(file, ": is the log of another run, with ", tokens, " tokens in ", seconds, " seconds at step ",
                      step, " where the checkpoint has ", run.tokens, " in ", run.seconds, "; give this run's log");
}

/// Throws FileError where a disk has failed before the end of a file.
inline void expect_read(const std::ifstream& file, const std::filesystem::path& path) {
  if (file.bad()) fail<FileError>(path, ": cannot be read to its end");
}

[[gnu::cold]] inline void read_metrics(const std::filesystem::path& path, const TrainingState* run,
                                       RunHistory& history) {
  std::ifstream file(path, std::ios::binary);
  if (!file) fail<FileError>(path, ": cannot be opened; a run's metrics are the CSV that train writes beside OUT");
  std::string line;
  std::getline(file, line);
  if (line.starts_with("\xef\xbb\xbf")) line.erase(0, 3);  // a spreadsheet writes that, and CRLF
  if (line.ends_with('\r')) line.pop_back();
  if (line != MetricsFile::header) {
    fail<FileError>(path, ": expected metrics that begin with \"step,tokens,seconds\", as train writes them");
  }
  Index dropped = 0;
  while (std::getline(file, line)) {
    if (line.ends_with('\r')) line.pop_back();
    if (line.empty()) continue;
    const auto row = metrics_row(line);
    const bool ended = !file.eof() || line.ends_with(",,");  // else a killed run may have cut it within a number
    if (!row || !ended) {
      ++dropped;
      continue;
    }
    const auto& f = *row;
    const auto step = static_cast<Index>(f[0]), tokens = static_cast<Index>(f[1]);
    if (run != nullptr) expect_log_of(*run, path.string(), step, tokens, f[2]);
    if (std::isnan(f[10])) {
      history.steps.push_back({step, tokens, f[2], f[3], f[4], f[5], f[6], f[7], f[8], f[9]});
    } else {
      history.evaluations.push_back({step, tokens, f[2], f[10], f[11], f[9]});
    }
  }
  expect_read(file, path);
  if (dropped > 0) {
    history.notes.push_back(sentence_of({path.filename().string(), ": ", dropped,
                                         dropped == 1 ? " line is" : " lines are", " cut or no row, and left out"}));
  }
}

/// A log's loads: whole numbers from 0, else nothing.
[[gnu::cold]] inline ExpertLoads loads_in(const Json& event) {
  ExpertLoads loads;
  const Json& all = event["loads"];
  if (!all.is_array()) return {};
  for (const Json& mixture : all.items()) {
    if (!mixture.is_array()) return {};
    auto& row = loads.emplace_back();
    for (const Json& load : mixture.items()) {
      const auto number = load.whole<Index>();
      if (!number || *number < 0 || *number > (Index{1} << 40)) return {};
      row.push_back(*number);
    }
  }
  return loads;
}

/// Adds a step's memory. Of steps with the same one, the first and the last are kept.
[[gnu::cold]] inline void add_memory(std::vector<RunHistory::Memory>& all, const RunHistory::Memory& next) {
  const auto same = [&](const auto& one) { return one.state == next.state && one.activations == next.activations; };
  if (all.size() >= 2 && same(all.back()) && same(all[all.size() - 2])) all.pop_back();
  all.push_back(next);
}

[[gnu::cold]] inline void read_json_lines(const std::filesystem::path& path, const TrainingState* run,
                                          RunHistory& history) {
  std::ifstream file(path, std::ios::binary);
  if (!file) fail<FileError>(path, ": cannot be opened; train --json-lines writes such a log");
  std::string line;
  Index dropped = 0, kept = 0;
  while (std::getline(file, line)) {
    Json parsed;
    try {
      parsed = parse_json(line, path.string());
    } catch (const Error&) {
      ++dropped;
      continue;
    }
    const Json& event = parsed;  // so that [] adds nothing, which would move what is referred to
    const Json& name = event["event"];
    const auto step = event["step"].whole<Index>();
    if (!name.is_string() || !step || *step < 0 || *step > (Index{1} << 53)) {
      ++dropped;
      continue;
    }
    ++kept;
    const bool is_step = name.string() == "step";
    if (is_step || name.string() == "evaluation") {
      const auto tokens = event["tokens"].whole<Index>();
      const Json& seconds = event["seconds"];
      const bool timed = seconds.is_number() && is_time(seconds.number());
      const bool skipped = event["skipped"].is_boolean() && event["skipped"].boolean();
      if (run != nullptr && tokens && timed && !skipped) {
        expect_log_of(*run, path.string(), *step, *tokens, seconds.number());
      }
      ExpertLoads loads = loads_in(event);
      if (is_step) {
        if (!skipped) history.loads.add(*step, loads);
        const auto bytes = [&](const char* key) {
          return static_cast<std::size_t>(std::max<Index>(0, event[key].whole<Index>().value_or(0)));
        };
        const std::size_t state = bytes("state_bytes");
        if (!skipped && tokens && timed && state > 0) {
          add_memory(history.memory, {*step, *tokens, seconds.number(), state, bytes("activation_bytes")});
        }
      } else {
        history.validation_loads = std::move(loads);
      }
    } else if (name.string() == "story" && event["text"].is_string()) {
      history.stories.push_back({*step, event["text"].string()});
    }
  }
  expect_read(file, path);
  if (kept == 0) fail<FileError>(path, ": has no event of a run; train --json-lines writes such a log");
  if (dropped > 0) {
    history.notes.push_back(sentence_of({path.filename().string(), ": ", dropped,
                                         dropped == 1 ? " line is" : " lines are", " cut or no event, and left out"}));
  }
}

/// The loads of the last evaluation as `train` writes them beside the metrics. A file that is cut or is none gives
/// none.
[[gnu::cold]] inline ExpertLoads read_loads(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::string line;
  ExpertLoads loads;
  std::getline(file, line);
  if (line != "mixture,expert,pairs,share_of_even") return loads;
  while (std::getline(file, line)) {
    Index numbers[3] = {};
    const char *at = line.data(), *end = at + line.size();
    for (Index& number : numbers) {
      const auto [next, reason] = std::from_chars(at, end, number);
      if (reason != std::errc() || next == end || *next != ',') return {};
      at = next + 1;
    }
    const auto [mixture, expert, pairs] = numbers;
    if (mixture == std::ssize(loads) + 1) loads.emplace_back();
    if (mixture < 1 || mixture != std::ssize(loads) || expert != std::ssize(loads.back()) || pairs < 0) return {};
    loads.back().push_back(pairs);
  }
  expect_read(file, path);
  return loads;
}

}  // namespace detail

/// Reads a run's metrics and its JSON lines, each unless its path is empty. Rows that a killed run cut are left out,
/// with a note. `run`: the state of the run's checkpoint, if there is one. Throws FileError for a file that is no such
/// log, MismatchError for another run's: its row of the checkpoint's step has other tokens or another time.
[[gnu::cold]] inline RunHistory read_run_history(const std::filesystem::path& metrics,
                                                 const std::filesystem::path& json_lines = {},
                                                 const TrainingState* run = nullptr) {
  RunHistory history;
  if (!metrics.empty()) detail::read_metrics(metrics, run, history);
  if (!json_lines.empty()) detail::read_json_lines(json_lines, run, history);
  return history;
}

}  // namespace tinymoe::inline v0_1
