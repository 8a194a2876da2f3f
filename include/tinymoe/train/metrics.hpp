#pragma once
/// @file
/// What training tells: a report for each step and each evaluation, and a CSV of them that any tool reads.

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/files/atomic.hpp"

namespace tinymoe::inline v0_1 {

/// One optimizer step.
struct StepReport {
  Index step = 0;             // steps done, this one included
  Index tokens = 0;           // trained on since the run began
  double loss = 0;            // cross-entropy, nats per scored token
  double balance_loss = 0;    // mean over the mixtures; when even 1, of CvBalance 0
  double z_loss = 0;          // mean over the mixtures
  double load_variation = 0;  // coefficient of variation of the experts' loads in the step, mean over the mixtures
  double gradient_norm = 0;   // before clipping
  double learning_rate = 0;
  double seconds = 0;            // of training since the run began
  double tokens_per_second = 0;  // of this step
  double fraction = 0;           // of the budget that is spent
  double loss_scale = 1;         // float16: what the loss was multiplied by
  bool skipped = false;          // float16: the gradients were not finite, and the step was not taken
};

/// A pass over a whole data set, without gradients.
struct EvaluationReport {
  double loss = 0;                        // nats per scored token
  double bits_per_byte = 0;               // of the data's text; 0 where the data does not know its text
  Index tokens = 0;                       // scored
  std::vector<std::vector<Index>> loads;  // for each mixture, the pairs that each expert got

  /// The mean over the mixtures of the coefficient of variation (deviation / mean) of the loads.
  double load_variation() const { return load_variation_of(loads); }

  static double load_variation_of(const std::vector<std::vector<Index>>& loads) {
    double total = 0;
    for (const auto& layer : loads) total += coefficient_of_variation(layer);
    return loads.empty() ? 0 : total / static_cast<double>(loads.size());
  }

  static double coefficient_of_variation(const std::vector<Index>& loads) {
    double sum = 0, squares = 0;
    for (const Index load : loads) sum += static_cast<double>(load);
    if (loads.empty() || sum == 0) return 0;
    const double mean = sum / static_cast<double>(loads.size());
    for (const Index load : loads) squares += (static_cast<double>(load) - mean) * (static_cast<double>(load) - mean);
    return std::sqrt(squares / static_cast<double>(loads.size())) / mean;
  }
};

/// A CSV with a row for each step and each evaluation; each row is flushed as it is written.
class MetricsFile {
 public:
  static constexpr const char* header =
      "step,tokens,seconds,loss,learning_rate,gradient_norm,tokens_per_second,balance_loss,z_loss,load_variation,"
      "validation_loss,validation_bits_per_byte";

  /// Starts a new file, or goes on with one from a run resumed at `resumed_step`: rows after that step, which will be
  /// computed again, are dropped, and so is a last row that a killed run cut. The old file stays until the new one is
  /// whole. Throws FileError if it cannot be written, or if a file that is no such CSV has its name.
  MetricsFile(const std::filesystem::path& path, Index resumed_step) : path_(path) {
    std::error_code ignored;
    if (path.has_parent_path()) std::filesystem::create_directories(path.parent_path(), ignored);
    const std::string kept = rows_up_to(resumed_step);
    write_file_atomically(path, [&](FileWriter& file) { file.write(kept); });
    file_.open(path, std::ios::app);
    check();
  }

  void write(const StepReport& at) {
    char row[320];
    std::snprintf(row, sizeof row, "%td,%td,%.3f,%.6f,%.6g,%.5g,%.1f,%.5f,%.5f,%.4f,,\n", at.step, at.tokens,
                  at.seconds, at.loss, at.learning_rate, at.gradient_norm, at.tokens_per_second, at.balance_loss,
                  at.z_loss, at.load_variation);
    file_ << row << std::flush;
    check();
  }

  void write(const StepReport& at, const EvaluationReport& evaluation) {
    char row[320];
    std::snprintf(row, sizeof row, "%td,%td,%.3f,,,,,,,%.4f,%.6f,%.5f\n", at.step, at.tokens, at.seconds,
                  evaluation.load_variation(), evaluation.loss, evaluation.bits_per_byte);
    file_ << row << std::flush;
    check();
  }

 private:
  /// The header, and the rows of the old file that stay.
  std::string rows_up_to(Index step) const {
    std::string kept = std::string(header) + "\n";
    std::error_code ignored;
    if (!std::filesystem::exists(path_, ignored)) return kept;
    std::ifstream old(path_);
    std::string line;
    std::getline(old, line);
    const bool cut = old.eof() && std::string_view(header).starts_with(line);  // by a kill; or the file is empty
    if (line != header && !cut) {
      fail<FileError>(path_.string(),
                      ": expected metrics that begin with \"step,tokens,seconds\", or no file, and will ",
                      "not replace another one");
    }
    while (step > 0 && std::getline(old, line) && !old.eof()) {
      if (std::strtoll(line.c_str(), nullptr, 10) <= step) kept += line + "\n";
    }
    return kept;
  }

  void check() {
    if (!file_) fail<FileError>(path_.string(), ": the metrics cannot be written");
  }

  std::filesystem::path path_;
  std::ofstream file_;
};

}  // namespace tinymoe::inline v0_1
