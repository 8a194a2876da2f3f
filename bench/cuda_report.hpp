#pragma once
/// @file
/// The output of bench_cuda: tables in Markdown, and the same figures as JSON. The JSON file is rewritten after each
/// part, so that a failure loses nothing. Also the table of required figures, from such files.

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "roofline.hpp"
#include "support.hpp"
#include "tinymoe/files/atomic.hpp"
#include "tinymoe/files/json.hpp"

namespace bench {

/// The limits that shares refer to, measured in the same run; 0: not measured.
struct CudaLimits {
  double copy = 0;                        // bytes a second, read and written
  std::map<std::string, double> product;  // operations a second of a large product, by the name of the type
};

class CudaReport {
 public:
  /// Throws FileError if the file cannot be written, as each part does.
  explicit CudaReport(std::filesystem::path file) : file_(std::move(file)) {
    if (!file_.empty()) tinymoe::expect_writable(file_);
  }

  template <class Value>
  void set(const std::string& key, const Value& value) {
    json_[key] = value;
    write();
  }

  /// One row of the table of figures, kept under `key`.
  void figure(const std::string& key, const std::string& text, double measured, const char* unit, double limit = 0,
              int decimals = 1) {
    head_of_figures();
    print_row(text, measured, unit, limit, decimals);
    keep(key, text, measured, unit, limit);
  }
  /// The same for a duration.
  void time(const std::string& key, const std::string& text, double measured, const char* unit, double limit = 0,
            int decimals = 2) {
    head_of_figures();
    print_time_row(text, measured, unit, limit, decimals);
    keep(key, text, measured, unit, limit);
  }

  /// Each operation of a step, or of a token, against its limit, and their sum against the measured total.
  void operations(const std::string& key, const std::string& title, const std::vector<Operation>& operations,
                  double steps, double step_milliseconds, double copy, double product) {
    start_table(title);
    const auto rows = roofline(operations, steps, copy, product);
    print_roofline(rows, step_milliseconds);
    const RooflineTotal total(rows);
    tinymoe::Json kept = tinymoe::Json::array();
    for (const RooflineRow& each : rows) {
      kept.push_back({{"operation", each.operation},
                      {"calls", each.calls},
                      {"milliseconds", each.milliseconds},
                      {"bytes", each.bytes},
                      {"flops", each.products},
                      {"limit_milliseconds", each.limit}});
    }
    json_["operations"][key] = {{"rows", kept},
                                {"sum_milliseconds", total.milliseconds},
                                {"step_milliseconds", step_milliseconds},
                                {"limit_milliseconds", total.limit},
                                {"calls", total.calls}};
    write();
  }

  /// Ends the table of figures, for another one that the caller prints.
  void start_table(const std::string& title) {
    std::printf("\n%s\n\n", title.c_str());
    in_figures_ = false;
  }

  void append(const std::string& key, tinymoe::Json value) {
    json_[key].push_back(std::move(value));
    write();
  }

  /// A part that could not be measured, and why.
  void left_out(const std::string& part, const std::string& why) {
    start_table("left out: " + part + ": " + why);
    std::fflush(stdout);
    append("left_out", {{"part", part}, {"why", why}});
  }
  /// Whether nothing was left out.
  bool whole() const { return !json_.contains("left_out"); }

 private:
  void head_of_figures() {
    if (!in_figures_) std::printf("\n| figure | measured | limit | share |\n|---|---|---|---|\n");
    in_figures_ = true;
  }
  void keep(const std::string& key, const std::string& text, double measured, const char* unit, double limit) {
    json_["figures"][key] = {{"figure", text}, {"measured", measured}, {"unit", unit}};
    if (limit > 0) json_["figures"][key]["limit"] = limit;
    write();
  }
  void write() const {
    if (file_.empty()) return;
    tinymoe::write_file_atomically(file_, [&](tinymoe::FileWriter& file) { file.write(json_.dump(2) + "\n"); });
  }

  std::filesystem::path file_;
  tinymoe::Json json_;
  bool in_figures_ = false;
};

/// The figures of a file that this program or peer_torch.py wrote.
class Figures {
 public:
  explicit Figures(const std::filesystem::path& file) {
    if (std::filesystem::exists(file)) json_ = tinymoe::read_json(file);
  }
  std::optional<double> operator[](const std::string& key) const {
    const tinymoe::Json& measured = json_["figures"][key]["measured"];
    if (!measured.is_number()) return {};
    return measured.number();
  }

 private:
  tinymoe::Json json_;
};

/// The required, aimed and measured figures, from the files of both programs.
inline void print_targets(const std::filesystem::path& ours, const std::filesystem::path& peer) {
  const Figures own(ours), theirs(peer);
  const auto ratio = [](std::optional<double> a, std::optional<double> b) -> std::optional<double> {
    if (!a || !b || *b == 0) return {};
    return *a / *b;
  };
  const auto row = [](const char* figure, double required, double aim, const char* unit, std::optional<double> reached,
                      int decimals = 0) {
    std::printf("| %s | %.*f %s | %.*f %s |", figure, decimals, required, unit, decimals, aim, unit);
    if (!reached) {
      std::printf(" not measured | |\n");
      return;
    }
    const char* verdict = *reached >= aim ? "aim reached" : (*reached >= required ? "reached" : "not reached");
    std::printf(" %.*f %s | %s |\n", std::max(decimals, 1), *reached, unit, verdict);
  };
  std::printf("| figure | required | aim | measured | |\n|---|---|---|---|---|\n");
  const auto train = own["train_bfloat16"];
  row("training, bfloat16, 65,536 tokens a step", 600e3, 950e3, "tok/s", train);
  row("the same against PyTorch, expert by expert, eager", 4, 8, "times", ratio(train, theirs["train_eager"]), 1);
  row("the same against PyTorch, grouped, compiled", 1, 1.5, "times", ratio(train, theirs["train_grouped_compiled"]),
      1);
  row("decode, bfloat16, one stream", 3000, 5000, "tok/s", own["decode_1"]);
  row("AdamW, share of the copy bandwidth", 80, 90, "%", own["adamw_share"]);
}

}  // namespace bench
