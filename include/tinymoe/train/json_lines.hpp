#pragma once
/// @file
/// The log of a run as JSON lines: one object for each thing that happens. Include it yourself: model.hpp does not.

#include <cmath>
#include <filesystem>
#include <fstream>
#include <ios>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/utf8.hpp"
#include "tinymoe/files/appended_file.hpp"
#include "tinymoe/files/atomic.hpp"
#include "tinymoe/files/json_parser.hpp"
#include "tinymoe/files/json_value.hpp"
#include "tinymoe/files/paths.hpp"
#include "tinymoe/files/write_lock.hpp"
#include "tinymoe/train/observer.hpp"
#include "tinymoe/train/reports.hpp"

namespace tinymoe::inline v0_1 {

/// What happens in a run as lines of JSON, one object each: for a file, or for another program.
class JsonEvents : public Observer {
 public:
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
  /// What the model wrote after that step: the event "story".
  [[gnu::cold]] void story(Index step, std::string_view text) {
    append("story", step, {{"text", detail::with_replacements(text)}});
  }
  [[gnu::cold]] void on_checkpoint(const StepReport& at, const CheckpointReport& checkpoint) override {
    constexpr const char* kinds[] = {"latest", "best", "best_weights"};
    append("checkpoint", at.step,
           {{"kind", kinds[static_cast<int>(checkpoint.kind)]},
            {"path", detail::with_replacements(checkpoint.path.string())},
            {"seconds", checkpoint.seconds}});
  }
  [[gnu::cold]] void on_end(const StepReport& last, const EndReport& end) override {
    constexpr const char* ways[] = {"budget", "stopped", "error"};
    append("end", last.step,
           {{"tokens", last.tokens},
            {"seconds", last.seconds},
            {"how", ways[static_cast<int>(end.how)]},
            {"message", detail::with_replacements(end.message)}});
  }

 protected:
  /// Writes a line, its end included.
  virtual void write(const std::string& line) = 0;

  static std::string line(const char* event, Index step, Json members) {
    Json line = {{"event", event}, {"step", step}};
    for (auto& [name, value] : members.members()) line[name] = value;
    return line.dump() + "\n";
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
  void append(const char* event, Index step, Json members) { write(line(event, step, std::move(members))); }
};

/// A file with a line for each step, evaluation and checkpoint and for the end of a run. Each has an "event" and the
/// "step", and the members of the report by their names; a number that is not finite is null. Each line is written at
/// once. Another run cannot write to the file meanwhile.
class JsonLines : public JsonEvents {
 public:
  /// Starts a new file, or continues that of a run resumed at `resumed_step`: lines after that step are dropped,
  /// because the steps run again, and so is a line that a killed run cut, and the end. `start`: what the first line, of
  /// the event "start", says beside it. The old file is replaced atomically. Throws FileError if the file cannot be
  /// written, or if it is there and has other lines.
  [[gnu::cold]] JsonLines(const std::filesystem::path& path, Index resumed_step, Json start = Json::object())
      : path_(std::filesystem::absolute(path)),
        lock_(lock_file(path)),
        resumed_step_(resumed_step),
        kept_(lines_up_to(path, resumed_step)) {
    kept_.push_back(line("start", resumed_step, std::move(start)));
    begin();
  }

  /// Throws FileError if the line cannot be written, as the others do.
  [[gnu::cold]] void on_evaluation(const StepReport& at, const EvaluationReport& evaluation) override {
    if (at.step == resumed_step_ &&
        std::erase_if(kept_, [&](const std::string& text) { return is_evaluation_of(at.step, text); }) > 0) {
      begin();  // it replaces that one, and its story
    }
    JsonEvents::on_evaluation(at, evaluation);
  }

 private:
  /// The lines of a file that a resumed run keeps.
  [[gnu::cold]] static std::vector<std::string> lines_up_to(const std::filesystem::path& path, Index resumed_step) {
    std::vector<std::string> kept;
    if (!detail::is_there(path)) return kept;
    std::ifstream old(path, std::ios::binary);
    if (!old) fail<FileError>(path.string(), ": cannot be read; give another file for this run's log");
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
      if (*step <= resumed_step && resumed_step > 0 && event["event"] != "end") kept.push_back(std::move(line) + "\n");
    }
    if (old.bad()) fail<FileError>(path.string(), ": cannot be read to its end; give another file for this run's log");
    return kept;
  }

  static bool is_evaluation_of(Index step, const std::string& text) {
    const Json event = parse_json(text, "a line");
    return (event["event"] == "evaluation" || event["event"] == "story") && event["step"] == step;
  }

  /// Writes the file anew with the lines that it began with.
  void begin() {
    write_file_atomically(path_, [&](FileWriter& file) {
      for (const std::string& text : kept_) file.write(text);
    });
    file_.emplace(path_);
  }

  void write(const std::string& text) override {
    kept_.clear();
    file_->append(text);
  }

  std::filesystem::path path_;  // absolute: the program may change its folder
  WriteLock lock_;
  Index resumed_step_;
  std::vector<std::string> kept_;  // what the file began with, until more happens
  std::optional<detail::AppendedFile> file_;
};

}  // namespace tinymoe::inline v0_1
