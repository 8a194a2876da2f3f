#include "run_logs.hpp"

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <tinymoe/core/error.hpp>
#include <tinymoe/files/atomic.hpp>
#include <tinymoe/files/write_lock.hpp>
#include <tinymoe/train/json_lines.hpp>
#include <tinymoe/train/tensorboard.hpp>
#include <utility>

namespace examples {

using namespace tinymoe;

namespace {

/// JSON lines for another program, which reads them as they come.
class JsonOutput : public JsonEvents {
 public:
  JsonOutput(int descriptor, Index step, const Json& recipe) : descriptor_(descriptor) {
    write(line("start", step, {{"recipe", recipe}}));
  }

 private:
  void write(const std::string& text) override {
    std::span<const std::byte> bytes = std::as_bytes(std::span(text));
    const int reason = tinymoe::detail::write_all(descriptor_, bytes);
    // A reader who goes ends the run by the signal PIPE.
    if (reason != 0 && reason != EPIPE) {
      fail<FileError>("the standard output cannot be written: ", std::strerror(reason));
    }
  }

  int descriptor_;
};

/// The logs that there are, each with a story of each evaluation.
class StoryLogs : public Observer {
 public:
  StoryLogs(const LogPaths& paths, Index step, const Json& recipe, std::function<std::string()> story)
      : story_(std::move(story)) {
    if (!paths.json_lines.empty()) lines_.emplace(paths.json_lines, step, Json{{"recipe", recipe}});
    if (!paths.tensorboard.empty()) events_.emplace(paths.tensorboard, step, recipe);
    if (paths.json_output >= 0) output_.emplace(paths.json_output, step, recipe);
  }

  void on_step(const StepReport& at, const ExpertLoads& loads) override {
    for_each([&](Observer& log) { log.on_step(at, loads); });
  }
  void on_evaluation(const StepReport& last, const EvaluationReport& evaluation) override {
    for_each([&](Observer& log) { log.on_evaluation(last, evaluation); });
    const std::string text = story_();
    if (lines_) lines_->story(last.step, text);
    if (output_) output_->story(last.step, text);
    if (events_) events_->file().text(last.step, "story", text);
  }
  void on_checkpoint(const StepReport& last, const CheckpointReport& checkpoint) override {
    for_each([&](Observer& log) { log.on_checkpoint(last, checkpoint); });
  }
  void on_end(const StepReport& last, const EndReport& end) override {
    for_each([&](Observer& log) { log.on_end(last, end); });
  }

 private:
  template <class F>
  void for_each(F&& f) {
    if (lines_) f(*lines_);
    if (events_) f(*events_);
    if (output_) f(*output_);
  }

  std::function<std::string()> story_;
  std::optional<JsonLines> lines_;
  std::optional<TensorBoard> events_;
  std::optional<JsonOutput> output_;
};

}  // namespace

void LogPaths::check() const {
  if (!json_lines.empty()) expect_writable(json_lines);
  if (!tensorboard.empty()) expect_writable(tensorboard / "events.out.tfevents");
}

std::unique_ptr<Observer> open_logs(const LogPaths& paths, Index step, const Json& recipe,
                                    std::function<std::string()> story) {
  if (paths.json_lines.empty() && paths.tensorboard.empty() && paths.json_output < 0) return nullptr;
  return std::make_unique<StoryLogs>(paths, step, recipe, std::move(story));
}

}  // namespace examples
