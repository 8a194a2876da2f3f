#pragma once
/// @file
/// A run for TensorBoard, and for what reads its files, such as Weights & Biases. Include it yourself: model.hpp does
/// not.

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>

#include "tinymoe/core/platform.hpp"
#include "tinymoe/files/event_file.hpp"
#include "tinymoe/files/json_value.hpp"
#include "tinymoe/train/observer.hpp"
#include "tinymoe/train/reports.hpp"

namespace tinymoe::inline v0_1 {

/// Writes an event file into a folder. Each step has the curves of its StepReport under `train/` and `speed/`, each
/// evaluation those under `validation/` and, for each mixture, a histogram of the tokens that each expert took.
///
///     TensorBoard log("runs/story-events", trainer.step(), {{"lr", 3e-3}});
///     trainer.fit(data, {.minutes = 5, .observers = {&log}});
class TensorBoard : public Observer {
 public:
  /// Of a run that begins, or goes on, behind step `resumed_step`. What earlier files of the folder have beyond it is
  /// done again, so readers drop it: all of it, where the run is a new one. `hyperparameters`: an object. Throws
  /// FileError if the file cannot be made.
  [[gnu::cold]] explicit TensorBoard(const std::filesystem::path& folder, Index resumed_step = 0,
                                     const Json& hyperparameters = {})
      : file_(folder) {
    // In a folder's first file, too: one of TensorBoard's readers takes the first such mark for the beginning.
    file_.restart_at(resumed_step > 0 ? resumed_step + 1 : 0);
    if (hyperparameters.is_object()) file_.hyperparameters(hyperparameters);
  }

  /// The file, for curves, histograms and texts of one's own.
  EventFile& file() { return file_; }

  /// Throws FileError if the file cannot be written, as the others do.
  [[gnu::cold]] void on_step(const StepReport& at, const ExpertLoads& loads) override {
    constexpr double mebibyte = 1 << 20;
    if (at.skipped) return;
    file_.scalar(at.step, "train/loss", at.loss);
    file_.scalar(at.step, "train/learning_rate", at.learning_rate);
    file_.scalar(at.step, "train/gradient_norm", at.gradient_norm);
    if (!loads.empty()) {
      file_.scalar(at.step, "train/balance_loss", at.balance_loss);
      file_.scalar(at.step, "train/z_loss", at.z_loss);
      file_.scalar(at.step, "train/load_variation", at.load_variation);
    }
    file_.scalar(at.step, "speed/tokens_per_second", at.tokens_per_second);
    file_.scalar(at.step, "speed/tokens", static_cast<double>(at.tokens));
    file_.scalar(at.step, "speed/seconds", at.seconds);
    file_.scalar(at.step, "speed/activations_MiB", static_cast<double>(at.activation_bytes) / mebibyte);
  }

  [[gnu::cold]] void on_evaluation(const StepReport& at, const EvaluationReport& evaluation) override {
    file_.scalar(at.step, "validation/loss", evaluation.loss);
    if (evaluation.bits_per_byte > 0) file_.scalar(at.step, "validation/bits_per_byte", evaluation.bits_per_byte);
    if (evaluation.loads.empty()) return;
    file_.scalar(at.step, "validation/load_variation", evaluation.load_variation());
    for (std::size_t mixture = 0; mixture < evaluation.loads.size(); ++mixture) {
      file_.histogram(at.step, "experts/mixture_" + std::to_string(mixture), evaluation.loads[mixture]);
    }
  }

  [[gnu::cold]] void on_end(const StepReport& /*last*/, const EndReport& end) override {
    file_.end(end.how != EndReport::How::error);
  }

 private:
  EventFile file_;
};

}  // namespace tinymoe::inline v0_1
