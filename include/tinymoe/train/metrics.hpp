#pragma once
/// @file
/// The metrics of a run as a CSV file.

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <ios>
#include <string>
#include <string_view>
#include <system_error>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/files/atomic.hpp"
#include "tinymoe/train/observer.hpp"
#include "tinymoe/train/reports.hpp"

namespace tinymoe::inline v0_1 {

/// A CSV file with a row for each step (not for skipped ones) and each evaluation. Each row is flushed at once.
class MetricsFile : public Observer {
 public:
  static constexpr const char* header =
      "step,tokens,seconds,loss,learning_rate,gradient_norm,tokens_per_second,balance_loss,z_loss,load_variation,"
      "validation_loss,validation_bits_per_byte";

  /// Starts a new file, or continues the file of a run resumed at `resumed_step`. Rows after that step are dropped,
  /// because the steps run again; so is an incomplete last row of a killed run. The old file is replaced atomically.
  /// Throws FileError if the file cannot be written, or if `path` is a file that this class did not write.
  MetricsFile(const std::filesystem::path& path, Index resumed_step) : path_(path) {
    std::error_code ignored;
    if (path.has_parent_path()) std::filesystem::create_directories(path.parent_path(), ignored);
    const std::string kept = rows_up_to(resumed_step);
    write_file_atomically(path, [&](FileWriter& file) { file.write(kept); });
    file_.open(path, std::ios::app);
    check();
  }

  /// Throws FileError if the row cannot be written.
  void on_step(const StepReport& at, const ExpertLoads& /*loads*/) override {
    if (at.skipped) return;
    char row[320];
    std::snprintf(row, sizeof row, "%td,%td,%.3f,%.6f,%.6g,%.5g,%.1f,%.5f,%.5f,%.4f,,\n", at.step, at.tokens,
                  at.seconds, at.loss, at.learning_rate, at.gradient_norm, at.tokens_per_second, at.balance_loss,
                  at.z_loss, at.load_variation);
    file_ << row << std::flush;
    check();
  }

  /// Throws FileError if the row cannot be written.
  void on_evaluation(const StepReport& at, const EvaluationReport& evaluation) override {
    char row[320];
    std::snprintf(row, sizeof row, "%td,%td,%.3f,,,,,,,%.4f,%.6f,%.5f\n", at.step, at.tokens, at.seconds,
                  evaluation.load_variation(), evaluation.loss, evaluation.bits_per_byte);
    file_ << row << std::flush;
    check();
  }

 private:
  /// The header, and the rows of the old file up to `step`.
  std::string rows_up_to(Index step) const {
    std::string kept = std::string(header) + "\n";
    std::error_code ignored;
    if (!std::filesystem::exists(path_, ignored)) return kept;
    std::ifstream old(path_);
    std::string line;
    std::getline(old, line);
    const bool cut =
        old.eof() && std::string_view(header).starts_with(line);  // the file is empty, or was cut by a kill
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
