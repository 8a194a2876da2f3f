#pragma once
/// @file
/// The log of a run as JSON lines: one object for each thing that happens. Include it yourself: model.hpp does not.

#include <cmath>
#include <filesystem>
#include <fstream>
#include <ios>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/files/appended_file.hpp"
#include "tinymoe/files/atomic.hpp"
#include "tinymoe/files/json_parser.hpp"
#include "tinymoe/files/json_value.hpp"
#include "tinymoe/files/write_lock.hpp"
#include "tinymoe/train/observer.hpp"
#include "tinymoe/train/reports.hpp"

namespace tinymoe::inline v0_1 {

/// A file with a line for each step, evaluation and checkpoint and for the end of a run. Each has an "event" and the
/// "step", and the members of the report by their names; a number that is not finite is null. Each line is written at
/// once. Another run cannot write to the file meanwhile.
class JsonLines : public Observer {
 public:
  /// Starts a new file, or continues that of a run resumed at `resumed_step`: lines after that step are dropped,
  /// because the steps run again, and so is a line that a killed run cut, and the end. `start`: what the first line, of
  /// the event "start", says beside it. The old file is replaced atomically. Throws FileError if the file cannot be
  /// written, or if it is there and has other lines.
  [[gnu::cold]] JsonLines(const std::filesystem::path& path, Index resumed_step, Json start = Json::object())
      : path_(std::filesystem::absolute(path)), lock_(lock_file(path)) {
    const std::vector<std::string> kept = lines_up_to(path, resumed_step);
    write_file_atomically(path, [&](FileWriter& file) {
      for (const std::string& line : kept) {
        file.write(line);
        file.write("\n");
      }
    });
    file_.emplace(path_);
    append("start", resumed_step, std::move(start));
  }

  /// Throws FileError if the line cannot be written, as the others do.
  [[gnu::cold]] void on_step(const StepReport& at, const ExpertLoads& loads) override {
    append("step", at.step,
           {{"tokens", at.tokens},
            {"seconds", at.seconds},
            {"loss", finite(at.loss)},
            {"balance_loss", finite(at.balance_loss)},
            {"z_loss", finite(at.z_loss)},
            {"load_variation", finite(at.load_variation)},
            {"gradient_norm", finite(at.gradient_norm)},
            {"learning_rate", at.learning_rate},
            {"tokens_per_second", finite(at.tokens_per_second)},
            {"fraction", at.fraction},
            {"loss_scale", at.loss_scale},
            {"skipped", at.skipped},
            {"state_bytes", at.state_bytes},
            {"activation_bytes", at.activation_bytes},
            {"loads", loads_of(loads)}});
  }
  [[gnu::cold]] void on_evaluation(const StepReport& at, const EvaluationReport& evaluation) override {
    append("evaluation", at.step,
           {{"tokens", at.tokens},
            {"seconds", at.seconds},
            {"loss", finite(evaluation.loss)},
            {"bits_per_byte", finite(evaluation.bits_per_byte)},
            {"scored", evaluation.tokens},
            {"load_variation", finite(evaluation.load_variation())},
            {"loads", loads_of(evaluation.loads)}});
  }
  [[gnu::cold]] void on_checkpoint(const StepReport& at, const CheckpointReport& checkpoint) override {
    constexpr const char* kinds[] = {"latest", "best", "best_weights"};
    append("checkpoint", at.step,
           {{"kind", kinds[static_cast<int>(checkpoint.kind)]},
            {"path", checkpoint.path.string()},
            {"seconds", checkpoint.seconds}});
  }
  [[gnu::cold]] void on_end(const StepReport& last, const EndReport& end) override {
    constexpr const char* ways[] = {"budget", "stopped", "error"};
    append("end", last.step,
           {{"tokens", last.tokens},
            {"seconds", last.seconds},
            {"how", ways[static_cast<int>(end.how)]},
            {"message", end.message}});
  }

 private:
  static Json finite(double number) { return std::isfinite(number) ? Json(number) : Json(); }
  static Json loads_of(const ExpertLoads& loads) {
    Json all = Json::array();
    for (const auto& mixture : loads) {
      Json one = Json::array();
      for (const Index load : mixture) one.push_back(load);
      all.push_back(std::move(one));
    }
    return all;
  }

  /// The lines of a file that a resumed run keeps.
  [[gnu::cold]] static std::vector<std::string> lines_up_to(const std::filesystem::path& path, Index resumed_step) {
    std::vector<std::string> kept;
    std::error_code ignored;
    if (!std::filesystem::exists(path, ignored)) return kept;
    std::ifstream old(path, std::ios::binary);
    std::string line;
    for (Index number = 1; std::getline(old, line); ++number) {
      const bool cut = old.eof();
      Json event;
      try {
        event = parse_json(line, path.string());
      } catch (const Error&) {
        if (cut) break;
      }
      const std::optional<Index> step = event.is_object() ? event["step"].whole<Index>() : std::nullopt;
      if (!step || !event["event"].is_string()) {
        fail<FileError>(path.string(), ": line ", number,
                        " is no event of a run; give another file for this run's log");
      }
      if (*step <= resumed_step && resumed_step > 0 && event["event"] != "end") kept.push_back(std::move(line));
    }
    return kept;
  }

  void append(const char* event, Index step, Json members) {
    Json line = {{"event", event}, {"step", step}};
    for (auto& [name, value] : members.members()) line[name] = value;
    file_->append(line.dump() + "\n");
  }

  std::filesystem::path path_;  // absolute: the program may change its folder
  WriteLock lock_;
  std::optional<detail::AppendedFile> file_;
};

}  // namespace tinymoe::inline v0_1
