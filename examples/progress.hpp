#pragma once
// The progress of training and of other long work.

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <string>
#include <string_view>
#include <tinymoe/core/platform.hpp>
#include <tinymoe/train/observer.hpp>
#include <utility>
#include <vector>

#include <unistd.h>

#include "live_view.hpp"
#include "programs/interruption.hpp"

namespace examples {

using tinymoe::Index;

/// 75 as "1:15".
inline std::string clock_time(double seconds) {
  char text[32];
  const auto whole = static_cast<long>(seconds + 0.5);
  std::snprintf(text, sizeof text, "%ld:%02ld", whole / 60, whole % 60);
  return text;
}

/// How far work is that takes some seconds: on a terminal one line that is overwritten, elsewhere nothing. Work that
/// ends at once shows nothing either.
class Percent {
 public:
  /// `out`: the standard error where the standard output is another program's.
  explicit Percent(std::FILE* out = stdout) : out_(out), terminal_(is_terminal(::fileno(out))) {}
  Percent(const Percent&) = delete;
  ~Percent() { end(); }

  /// `done`: a share.
  void show(const std::string& what, double done) {
    if (is_due()) print(what, 100 * done, "%");
  }
  /// Where the end is not known.
  void show_bytes(const std::string& what, std::size_t bytes) {
    if (is_due()) print(what, 1e-6 * static_cast<double>(bytes), "MB");
  }
  /// Clears the line, so that others can follow; the work goes on.
  void clear() {
    if (open_) std::fprintf(out_, "\r\033[K");
    open_ = false;
  }
  /// The same, and the work is over.
  void end() {
    clear();
    begun_ = false;
  }

 private:
  using Clock = std::chrono::steady_clock;

  bool is_due() {
    if (!terminal_) return false;
    const auto now = Clock::now();
    if (!begun_) begun_ = true, next_ = now + std::chrono::milliseconds(300);
    if (now < next_) return false;
    next_ = now + std::chrono::milliseconds(100);
    return true;
  }
  void print(const std::string& what, double number, const char* unit) {
    char share[48];
    std::snprintf(share, sizeof share, ": %.0f %s", number, unit);
    // The last column stays free: a line that fills it may wrap.
    const std::size_t room = LiveLines::size(::fileno(out_)).first - 1, taken = std::string_view(share).size();
    std::fprintf(out_, "\r%s%s\033[K", clipped(what, room > taken ? room - taken : 0).c_str(), share);
    if (out_ == stdout) programs::flush_progress();
    open_ = true;
  }

  std::FILE* out_;
  bool terminal_, open_ = false, begun_ = false;
  Clock::time_point next_ = {};
};

/// On a terminal a view that is drawn over itself: curve of the loss, experts' loads, speed, memory, time left; one
/// line where the terminal is small or shows no UTF-8. Elsewhere a new line every ten seconds.
class Progress : public tinymoe::Observer {
 public:
  ~Progress() override { end(); }  // so that an error message starts a new line

  void on_step(const tinymoe::StepReport& at, const tinymoe::ExpertLoads& loads) override {
    if (at.skipped) return show_skipped(at);
    smooth_ = smooth_ == 0 ? at.loss : 0.95 * smooth_ + 0.05 * at.loss;
    speed_ = speed_ == 0 ? at.tokens_per_second : 0.95 * speed_ + 0.05 * at.tokens_per_second;
    curve_.add(at.loss);
    if (at.fraction < 1 && at.seconds < next_) return;
    next_ = at.seconds + (terminal_ ? 0.2 : 10);
    const double left = at.fraction > 0 && at.fraction < 1 ? at.seconds / at.fraction - at.seconds : 0;
    char step[80], speed[40];
    std::snprintf(step, sizeof step, "step %td  loss %.3f", at.step, smooth_);
    std::snprintf(speed, sizeof speed, "  %.0f tokens/s", speed_);
    const auto [columns, rows] = LiveLines::size();
    std::vector<std::string> parts = {step, "  " + clock_time(left) + " left", speed};
    for (std::string& part : usage(at.load_variation, loads)) parts.push_back(std::move(part));
    // The last column stays free: a line that fills it may wrap.
    last_ = fitting(parts, terminal_ ? columns - 1 : std::string::npos);
    if (view_ && columns >= 60 && rows >= 12) {
      std::fputs(live_.draw(lines(at, loads), columns).c_str(), stdout);
    } else {
      std::printf("%s%s%s", terminal_ ? "\r" : "", last_.c_str(), terminal_ ? "\033[K" : "\n");
      open_ = terminal_;
    }
    programs::flush_progress();
  }

  void on_evaluation_progress(const tinymoe::StepReport& /*last*/, Index done, Index all) override {
    if (std::exchange(open_, false)) std::printf("\n");
    percent_.show("validation", static_cast<double>(done) / static_cast<double>(all));
  }

  void on_evaluation(const tinymoe::StepReport& at, const tinymoe::EvaluationReport& evaluation) override {
    end();
    std::printf("validation after step %td: loss %.4f, %.4f bits per byte", at.step, evaluation.loss,
                evaluation.bits_per_byte);
    for (const std::string& part : usage(evaluation.load_variation(), evaluation.loads))
      std::printf("%s", part.c_str());
    std::printf("\n");
    programs::flush_progress();
  }

  void on_end(const tinymoe::StepReport& /*last*/, const tinymoe::EndReport& /*end*/) override { end(); }

 private:
  /// Ends the view or the line, so that others can follow; of the view one line stays.
  void end() {
    percent_.end();
    if (const std::string text = live_.erase(); !text.empty()) std::printf("%s%s\n", text.c_str(), last_.c_str());
    if (open_) std::printf("\n");
    open_ = false;
  }

  /// The view.
  std::vector<std::string> lines(const tinymoe::StepReport& at, const tinymoe::ExpertLoads& loads) const {
    std::vector<std::string> view = {last_, "  loss   " + curve_.draw(48)};
    char text[160];
    const auto done = static_cast<std::size_t>(std::clamp(at.fraction, 0.0, 1.0) * 48);
    std::string bar;
    for (std::size_t i = 0; i < 48; ++i) bar += i < done ? "█" : "░";
    std::snprintf(text, sizeof text, " %.0f %%", 100 * at.fraction);
    view.push_back("  done   " + bar + text);
    constexpr std::size_t most = 4;  // mixtures
    for (std::size_t m = 0; m < std::min(loads.size(), most); ++m) {
      view.push_back("  " + std::string(m == 0 ? "loads " : "      ") + " " + load_bars(loads[m], 64) + "  mixture " +
                     std::to_string(m + 1) + (m + 1 == most && loads.size() > most ? ", and more" : ""));
    }
    constexpr double mebibyte = 1 << 20;
    std::snprintf(text, sizeof text, "  memory %.0f MiB of gradients and optimizer, %.0f MiB of activations",
                  static_cast<double>(at.state_bytes) / mebibyte, static_cast<double>(at.activation_bytes) / mebibyte);
    view.emplace_back(text);
    return view;
  }

  /// A line for a skipped step: a good run has some at its beginning, and later one in thousands of steps.
  void show_skipped(const tinymoe::StepReport& at) {
    end();
    std::printf("step %td is tried again: its gradients were too large for float16; the loss is now scaled by %.0f\n",
                at.step + 1, at.loss_scale / 2);
    programs::flush_progress();
  }

  /// How evenly experts are used: the deviation of their loads, and the min and max load over all mixtures as shares of
  /// an even load, in two parts of a line. Nothing for a model without experts.
  static std::vector<std::string> usage(double variation, const tinymoe::ExpertLoads& loads) {
    if (loads.empty()) return {};
    double least = 1e9, most = 0;
    for (const auto& mixture : loads) {
      double total = 0;
      for (const Index load : mixture) total += static_cast<double>(load);
      for (const Index load : mixture) {
        const double share = total > 0 ? static_cast<double>(load) / total * static_cast<double>(mixture.size()) : 0;
        least = std::min(least, share), most = std::max(most, share);
      }
    }
    char deviation[48], range[64];
    std::snprintf(deviation, sizeof deviation, "  expert load +-%.0f %%", 100 * variation);
    std::snprintf(range, sizeof range, " (%.2f to %.2f of even)", least, most);
    return {deviation, range};
  }

  bool terminal_ = is_terminal(STDOUT_FILENO), view_ = terminal_ && shows_utf8(), open_ = false;
  Sparkline curve_;
  LiveLines live_;
  Percent percent_;
  std::string last_;  // the line without a view
  double smooth_ = 0, speed_ = 0, next_ = 0;
};

}  // namespace examples
