#include "run_logs.hpp"

#include <tinymoe/files/write_lock.hpp>
#include <tinymoe/train/json_lines.hpp>
#include <tinymoe/train/tensorboard.hpp>
#include <utility>

namespace examples {

using namespace tinymoe;

namespace {

/// TensorBoard's log with a story of each evaluation.
class StoryLog : public TensorBoard {
 public:
  StoryLog(const LogPaths& paths, Index step, const Json& recipe, std::function<std::string()> story)
      : TensorBoard(paths.tensorboard, step, recipe), story_(std::move(story)) {}

  void on_evaluation(const StepReport& last, const EvaluationReport& evaluation) override {
    TensorBoard::on_evaluation(last, evaluation);
    file().text(last.step, "story", story_());
  }

 private:
  std::function<std::string()> story_;
};

}  // namespace

void LogPaths::check() const {
  if (!json_lines.empty()) expect_writable(json_lines);
  if (!tensorboard.empty()) expect_writable(tensorboard / "events.out.tfevents");
}

std::vector<std::unique_ptr<Observer>> open_logs(const LogPaths& paths, Index step, const Json& recipe,
                                                 std::function<std::string()> story) {
  std::vector<std::unique_ptr<Observer>> logs;
  if (!paths.json_lines.empty()) {
    logs.push_back(std::make_unique<JsonLines>(paths.json_lines, step, Json{{"recipe", recipe}}));
  }
  if (!paths.tensorboard.empty()) {
    logs.push_back(std::make_unique<StoryLog>(paths, step, recipe, std::move(story)));
  }
  return logs;
}

}  // namespace examples
