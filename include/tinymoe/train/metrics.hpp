#pragma once
/// @file
/// The metrics of a run as a CSV file.

#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <ios>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "tinymoe/checkpoint/training_state.hpp"
#include "tinymoe/core/error.hpp"
#include "tinymoe/core/number_text.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/files/appended_file.hpp"
#include "tinymoe/files/atomic.hpp"
#include "tinymoe/files/paths.hpp"
#include "tinymoe/files/write_lock.hpp"
#include "tinymoe/train/observer.hpp"
#include "tinymoe/train/reports.hpp"

namespace tinymoe::inline v0_1 {

/// A CSV file with a row for each step (not for skipped ones) and each evaluation. Each row is flushed at once. Another
/// run cannot write to the file meanwhile.
class MetricsFile : public Observer {
 public:
  static constexpr const char* header =
      "step,tokens,seconds,loss,learning_rate,gradient_norm,tokens_per_second,balance_loss,z_loss,load_variation,"
      "validation_loss,validation_bits_per_byte";

  /// Starts a new file, or continues the file of a run resumed at `resumed_step`. Rows after that step are dropped,
  /// because the steps run again; so are rows that a killed run cut, and of two rows of one step or of one evaluation
  /// the earlier. Line ends may be CRLF; lines that are no rows stay with the row above. A new evaluation of
  /// `resumed_step` replaces the row of the old one. The old file is replaced atomically.
  /// Throws FileError if the file cannot be written, or if `path` is a file that this class did not write.
  MetricsFile(const std::filesystem::path& path, Index resumed_step)
      : MetricsFile(path, rows_up_to(path, resumed_step), resumed_step) {}

  /// The same for a run in this state. Throws FileError, too, if the file is that of another run: its row of the last
  /// step has other tokens or another time.
  [[gnu::cold]] MetricsFile(const std::filesystem::path& path, const TrainingState& run)
      : MetricsFile(path, expect_rows_of(run, path, rows_up_to(path, run.step)), run.step) {}

  /// Throws FileError if the row cannot be written.
  void on_step(const StepReport& at, const ExpertLoads& /*loads*/) override {
    if (at.skipped) return;
    using detail::fixed_text, detail::general_text;
    replaced_.reset();
    append({at.step, at.tokens, fixed_text(at.seconds, 3), fixed_text(at.loss, 6), general_text(at.learning_rate, 6),
            general_text(at.gradient_norm, 5), fixed_text(at.tokens_per_second, 1), fixed_text(at.balance_loss, 5),
            fixed_text(at.z_loss, 5), fixed_text(at.load_variation, 4), "", ""});
  }

  /// Throws FileError if the row cannot be written.
  [[gnu::cold]] void on_evaluation(const StepReport& at, const EvaluationReport& evaluation) override {
    using detail::fixed_text;
    if (const auto old = std::exchange(replaced_, {}); old && old->step == at.step) {
      std::error_code reason;
      std::filesystem::resize_file(path_, old->offset, reason);
      if (reason) fail<FileError>(path_.string(), ": cannot be written: ", reason.message());
    }
    append({at.step, at.tokens, fixed_text(at.seconds, 3), "", "", "", "", "", "",
            fixed_text(evaluation.load_variation(), 4), fixed_text(evaluation.loss, 6),
            fixed_text(evaluation.bits_per_byte, 5)});
  }

 private:
  /// A row of a step or of an evaluation, and what stands between it and the next one.
  struct Row {
    Index step = 0;
    bool evaluation = false;
    std::string text = {};
  };
  struct OldEvaluation {
    Index step = 0;
    std::uintmax_t offset = 0;  // of its row, the last one, in the file
  };

  [[gnu::cold]] MetricsFile(const std::filesystem::path& path, const std::vector<Row>& kept, Index resumed_step)
      : path_(std::filesystem::absolute(path)), lock_(lock_file(path)) {
    write_file_atomically(path, [&](FileWriter& file) {
      for (const Row& row : kept) {
        if (row.evaluation && row.step == resumed_step) replaced_ = {row.step, file.size()};
        file.write(row.text);
      }
    });
    file_.emplace(path_);
  }

  [[noreturn]] static void fail_to_read(const std::filesystem::path& path) {
    fail<FileError>(path.string(), ": cannot be read to its end; give another file for this run's metrics");
  }

  /// The header, as a first row of step −1, and the rows of an old file up to `step`, by steps.
  [[gnu::cold]] static std::vector<Row> rows_up_to(const std::filesystem::path& path, Index step) {
    std::vector<Row> rows = {{.step = -1, .text = std::string(header) + "\n"}};
    if (!detail::is_there(path)) return rows;
    std::ifstream old(path, std::ios::binary);
    if (!old) fail<FileError>(path.string(), ": cannot be read; give another file for this run's metrics");
    std::string line;
    std::getline(old, line);
    if (old.bad()) fail_to_read(path);
    const bool cut = old.eof() && std::string_view(header).starts_with(line);  // empty, or cut by a kill
    if (line.starts_with("\xef\xbb\xbf")) line.erase(0, 3);                    // a spreadsheet writes that, and CRLF
    if (line.ends_with('\r')) line.pop_back();
    if (line != header && !cut) {
      fail<FileError>(path.string(),
                      ": expected metrics that begin with \"step,tokens,seconds\", or no file, and will ",
                      "not replace another one");
    }
    Row* last = &rows.front();  // that was read; null where it is dropped
    while (step > 0 && std::getline(old, line)) {
      const bool ended = !old.eof();
      if (line.ends_with('\r')) line.pop_back();
      if (line.empty()) continue;
      const bool numbered = line[0] >= '0' && line[0] <= '9';
      if (!numbered) {
        if (last != nullptr) last->text += line + "\n";
      } else if (is_whole(line, ended)) {
        Index number = std::numeric_limits<Index>::max();  // where it does not fit: after all steps
        std::from_chars(line.data(), line.data() + line.size(), number);
        last = number > step ? nullptr : put(rows, {number, !line.ends_with(",,"), line + "\n"});
      }
    }
    if (old.bad()) fail_to_read(path);
    return rows;
  }

  /// Puts a row in its place, instead of an earlier one of the same step or evaluation. A loop, not an algorithm of the
  /// library's, which every program would compile.
  [[gnu::cold]] static Row* put(std::vector<Row>& rows, Row row) {
    std::size_t place = rows.size();
    const auto is_before = [](const Row& one, const Row& other) {
      return one.step != other.step ? one.step < other.step : !one.evaluation && other.evaluation;
    };
    while (is_before(row, rows[place - 1])) --place;  // the header is before all
    Row& before = rows[place - 1];
    if (!is_before(before, row)) {
      before.text = std::move(row.text);
      return &before;
    }
    rows.insert(rows.begin() + static_cast<std::ptrdiff_t>(place), std::move(row));
    return &rows[place];
  }

  /// Whether a row is as it was written. Without an end of line a killed run may have cut it, but not where the two
  /// empty fields of a step or the five decimals of an evaluation stand.
  [[gnu::cold]] static bool is_whole(std::string_view row, bool ended) {
    int commas = 0;
    for (const char c : row) commas += c == ',';
    if (commas != 11) return false;
    return ended || row.ends_with(",,") || (row.size() > 6 && row[row.size() - 6] == '.');
  }

  [[gnu::cold]] static std::vector<Row> expect_rows_of(const TrainingState& run, const std::filesystem::path& path,
                                                       std::vector<Row> rows) {
    for (const Row& row : rows) {
      if (run.step == 0 || row.step != run.step || row.evaluation) continue;
      const char *begin = row.text.data() + row.text.find(',') + 1, *end = row.text.data() + row.text.size();
      Index tokens = 0;
      double seconds = 0;
      const char* comma = std::from_chars(begin, end, tokens).ptr;
      if (*comma == ',') std::from_chars(comma + 1, end, seconds);
      if (tokens == run.tokens && std::abs(seconds - run.seconds) < 0.002) continue;
      fail<FileError>(path.string(), ": holds the metrics of another run, with ", tokens, " tokens in ", seconds,
                      " seconds at step ", run.step, " instead of ", run.tokens, " in ", run.seconds,
                      "; give another file for this run's metrics, or remove that one");
    }
    return rows;
  }

  /// A row of these fields.
  void append(std::initializer_list<detail::SentencePiece> fields) {
    row_.clear();
    for (const detail::SentencePiece& field : fields) {
      if (!row_.empty()) row_ += ',';
      field.append_to(row_);
    }
    row_ += '\n';
    file_->append(row_);
  }

  std::filesystem::path path_;  // absolute: the program may change its folder
  WriteLock lock_;
  std::optional<detail::AppendedFile> file_;
  std::string row_ = std::string(512, ' ');  // longer than a row, so that a step allocates nothing
  std::optional<OldEvaluation> replaced_;    // until the first new row
};

}  // namespace tinymoe::inline v0_1
