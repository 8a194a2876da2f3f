#pragma once
/// @file
/// The files of a sweep: a CSV with a row for each run, and another one with the validations on the way. Both are read
/// back.

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <ios>
#include <iterator>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "tinymoe/analysis/sweep_results.hpp"
#include "tinymoe/core/error.hpp"
#include "tinymoe/core/number_text.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/files/json_writer.hpp"
#include "tinymoe/files/paths.hpp"

namespace tinymoe::inline v0_1 {

namespace detail {

inline constexpr std::string_view sweep_columns[] = {
    "variant", "parameters", "active", "flops_per_token", "tokens_per_second", "steps", "tokens", "validation_loss",
    "validation_bits_per_byte", "load_variation",
    // From here on an older file may end.
    "learning_rate", "seed", "seconds", "batch", "warmup", "step_limit", "minute_limit", "precision", "data", "recipe"};
inline constexpr std::size_t first_sweep_columns = 10;

inline constexpr std::string_view sweep_curve_header =
    "variant,learning_rate,seed,step,tokens,seconds,validation_loss,validation_bits_per_byte";

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

/// Reads a field's number. False for one that is none, is below 0, or is too large: counts are averaged as doubles, so
/// they end at 2^53.
template <class T>
bool take_field(const std::string& field, T& to) {
  const auto [end, reason] = std::from_chars(field.data(), field.data() + field.size(), to);
  const double most = std::is_same_v<T, Index> ? 0x1p53 : 0x1p64;
  return reason == std::errc() && end == field.data() + field.size() && to >= T{} && static_cast<double>(to) <= most;
}

/// A number's text that is read back as it is.
[[gnu::cold]] inline std::string exact_text(double number) {
  std::string text;
  append_json(text, number);
  return text;
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
  std::string line = run.variant;
  for (const std::string& field :
       {std::to_string(run.parameters), std::to_string(run.active), std::to_string(run.flops_forward),
        fixed_text(run.tokens_per_second, 1), std::to_string(run.steps), std::to_string(run.tokens),
        fixed_text(run.loss, 6), fixed_text(run.bits_per_byte, 6), fixed_text(run.load_variation, 4),
        detail::exact_text(run.learning_rate), std::to_string(run.seed), fixed_text(run.seconds, 1),
        std::to_string(run.budget.batch), std::to_string(run.budget.warmup), std::to_string(run.budget.steps),
        detail::exact_text(run.budget.minutes), run.budget.precision, std::to_string(run.budget.data),
        std::to_string(run.budget.recipe)}) {
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
      good = detail::take_field(fields[at++], to) && good;
    };
    SweepRun run{.variant = fields[0]};
    take(run.parameters), take(run.active), take(run.flops_forward), take(run.tokens_per_second), take(run.steps);
    take(run.tokens), take(run.loss), take(run.bits_per_byte), take(run.load_variation), take(run.learning_rate);
    take(run.seed), take(run.seconds), take(run.budget.batch), take(run.budget.warmup), take(run.budget.steps);
    take(run.budget.minutes);
    if (at < known) run.budget.precision = fields[at++];
    take(run.budget.data), take(run.budget.recipe);
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

/// Where the validations of a sweep's runs are: beside its CSV.
[[gnu::cold]] inline std::filesystem::path sweep_curves_file(const std::filesystem::path& csv) {
  return std::filesystem::path(csv).replace_extension() += "-curves.csv";
}

/// The validations of all runs, as a CSV.
[[gnu::cold]] inline std::string sweep_curves(const std::vector<SweepRun>& runs) {
  using detail::fixed_text;
  std::string text = std::string(detail::sweep_curve_header) + '\n';
  for (const SweepRun& run : runs) {
    for (const SweepPoint& point : run.curve) {
      text += run.variant + ',' + detail::exact_text(run.learning_rate) + ',' + std::to_string(run.seed) + ',' +
              std::to_string(point.step) + ',' + std::to_string(point.tokens) + ',' + fixed_text(point.seconds, 1) +
              ',' + fixed_text(point.loss, 6) + ',' + fixed_text(point.bits_per_byte, 6) + '\n';
    }
  }
  return text;
}

/// Adds to the runs of a sweep's CSV the validations in the file beside it. Does nothing without that file, and leaves
/// out a row that was cut or that is of no run. Curves that the runs have are replaced. Throws FileError for a file
/// that `sweep` did not write.
[[gnu::cold]] inline void read_sweep_curves(const std::filesystem::path& csv, std::vector<SweepRun>& runs) {
  const std::filesystem::path path = sweep_curves_file(csv);
  if (!detail::is_there(path)) return;
  std::ifstream file(path, std::ios::binary);
  if (!file) fail<FileError>(path, ": cannot be opened");
  std::string line;
  std::getline(file, line);
  if (line.ends_with('\r')) line.pop_back();
  if (line != detail::sweep_curve_header)
    fail<FileError>(path, ": expected validations that begin with \"variant,learning_rate\", as sweep writes them");
  for (SweepRun& run : runs) run.curve.clear();
  while (std::getline(file, line)) {
    const std::vector<std::string> fields = detail::split_row(line);
    if (fields.size() != 8 || file.eof()) continue;
    SweepPoint point;
    double rate = 0;
    std::uint64_t seed = 0;
    using detail::take_field;
    if (!take_field(fields[1], rate) || !take_field(fields[2], seed) || !take_field(fields[3], point.step) ||
        !take_field(fields[4], point.tokens) || !take_field(fields[5], point.seconds) ||
        !take_field(fields[6], point.loss) || !take_field(fields[7], point.bits_per_byte)) {
      continue;
    }
    for (SweepRun& run : runs) {
      if (run.variant == fields[0] && run.learning_rate == rate && run.seed == seed) run.curve.push_back(point);
    }
  }
  if (file.bad()) fail<FileError>(path, ": cannot be read to its end");
}

}  // namespace tinymoe::inline v0_1
