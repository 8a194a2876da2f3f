#pragma once
/// @file
/// How an operation's results are cut into tasks. The cut depends on sizes and on the number of threads, a result's
/// bits on neither.

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <vector>

#include "tinymoe/backend/dispatch.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/cpu/few_rows.hpp"
#include "tinymoe/cpu/team.hpp"

namespace tinymoe::inline v0_1::detail::cpu {

/// A block of one expert's result.
struct Task {
  Index expert, row, rows, col, cols;
};

/// The block of c.
template <class T>
View<T> block(View<T> c, const Task& at) {
  return c.middle_rows(at.row, at.rows).middle_cols(at.col, at.cols);
}

/// f(expert, its first row, rows) for each expert that has rows.
template <class F>
void for_each_expert(const Dispatch& dispatch, F f) {
  const ExpertRows rows = dispatch.expert_rows();
  for (Index e = 0; e < dispatch.experts(); ++e) {
    if (rows.first(e) < rows.end(e)) f(e, rows.first(e), rows.end(e) - rows.first(e));
  }
}

/// A task's most rows and columns, the least if threads would have none otherwise, and what they are multiples of.
struct TaskSizes {
  Index rows, cols, least_rows, least_cols, row_unit, col_unit;
};

/// The tasks of an operation.
class Tasks {
 public:
  explicit Tasks(int threads) : threads_(threads) { tasks_.reserve(1024); }

  void clear() { tasks_.clear(); }
  bool empty() const { return tasks_.empty(); }

  /// An expert's whole result in tasks as large as their sizes allow, or smaller ones, so that each thread has some.
  /// `all` rows have the experts together. A task of m rows and n columns packs m + n lines for m · n sums: the longer
  /// side is halved, and small tasks only until each thread has two.
  void cut(TaskSizes most, Index all, const Task& whole) {
    constexpr Index small = 128 * 256;  // sums
    const Index rows = whole.rows, cols = whole.cols;
    const auto enough = [&] {
      const Index each = std::min(most.rows, all) * std::min(most.cols, cols) > small ? 4 : 2;
      return threads_ == 1 || pieces(all, most.rows) * pieces(cols, most.cols) >= each * threads_;
    };
    while (!enough() && (most.cols > most.least_cols || most.rows > most.least_rows)) {
      const bool wider = std::min(most.cols, cols) >= std::min(most.rows, all) || most.rows <= most.least_rows;
      (wider && most.cols > most.least_cols ? most.cols : most.rows) /= 2;
    }
    const Index height = even(rows, most.rows, most.row_unit), width = even(cols, most.cols, most.col_unit);
    for (Index c = 0; c < cols; c += width) {
      for (Index r = 0; r < rows; r += height) {
        tasks_.push_back({whole.expert, whole.row + r, std::min(height, rows - r), c, std::min(width, cols - c)});
      }
    }
  }

  /// Few rows: shares of the outputs, each with enough weights to be worth a thread's while.
  void cut_outputs(const Task& whole, Index depth) {
    constexpr Index worth = 16384;  // weights
    const Index most = std::max<Index>(1, std::min(2 * Index{threads_}, whole.cols * depth / worth));
    const Index width = even(whole.cols, pieces(whole.cols, most), one_row_outputs);
    for (Index c = 0; c < whole.cols; c += width) {
      tasks_.push_back({whole.expert, whole.row, whole.rows, c, std::min(width, whole.cols - c)});
    }
  }

  /// f(task, thread) for each.
  template <class F>
  void run(const Team& team, const F& f) const {
    team.run(std::ssize(tasks_), [&](Index task, Index thread) { f(tasks_[static_cast<std::size_t>(task)], thread); });
  }

 private:
  static Index pieces(Index size, Index most) { return (size + most - 1) / most; }
  /// The size of equal pieces of at most `most`, in whole units.
  static Index even(Index size, Index most, Index unit) {
    const Index count = pieces(size, most), each = pieces(size, count);
    return pieces(each, unit) * unit;
  }

  Index threads_;
  std::vector<Task> tasks_;
};

}  // namespace tinymoe::inline v0_1::detail::cpu
