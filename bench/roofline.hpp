#pragma once
/// @file
/// The operations of a step or of a token against their limits (Williams, Waterman and Patterson 2009): the larger of
/// the times that the machine needs for an operation's bytes and for its products.

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "programs/measure.hpp"
#include "watched.hpp"

namespace bench {

/// One kind of operation; times in milliseconds, bytes and products of one call.
struct RooflineRow {
  std::string operation;
  double calls = 0;  // in a step
  double milliseconds = 0, bytes = 0, products = 0, limit = 0;
  const char* bound = "";
  double all() const { return calls * milliseconds; }
};

/// The rows of what was watched in `steps` steps, the longest first. `memory` is in bytes a second, `products` in
/// operations a second; 0: not known.
inline std::vector<RooflineRow> roofline(const std::vector<Operation>& operations, double steps, double memory,
                                         double products) {
  std::vector<RooflineRow> rows;
  for (const Operation& each : operations) {
    const double by_bytes = memory > 0 ? 1e3 * each.work.bytes / memory : 0;
    const double by_products = products > 0 ? 1e3 * each.work.operations / products : 0;
    rows.push_back({each.work.name, double(each.calls) / steps, programs::median(each.milliseconds), each.work.bytes,
                    each.work.operations, std::max(by_bytes, by_products)});
    if (rows.back().limit > 0) rows.back().bound = by_products > by_bytes ? "products" : "memory";
  }
  std::stable_sort(rows.begin(), rows.end(), [](const auto& a, const auto& b) { return a.all() > b.all(); });
  return rows;
}

/// The totals of the rows.
struct RooflineTotal {
  double calls = 0, milliseconds = 0, limit = 0;

  explicit RooflineTotal(const std::vector<RooflineRow>& rows) {
    for (const RooflineRow& each : rows) {
      calls += each.calls, milliseconds += each.all(), limit += each.calls * each.limit;
    }
  }
};

/// The table, with the sum of all operations against `step_milliseconds`, the time of a step that is not watched.
inline void print_roofline(const std::vector<RooflineRow>& rows, double step_milliseconds) {
  const auto share = [](double limit, double found) { return found > 0 ? 100 * limit / found : 0.0; };
  std::printf(
      "| operation | calls | ms a call | ms of all | MB a call | GFLOP a call | limit, ms | bound by | share |\n");
  std::printf("|---|---|---|---|---|---|---|---|---|\n");
  for (const RooflineRow& each : rows) {
    std::printf("| %s | %.0f | %.4f | %.3f | %.2f | %.2f |", each.operation.c_str(), each.calls, each.milliseconds,
                each.all(), each.bytes / 1e6, each.products / 1e9);
    each.limit > 0
        ? std::printf(" %.4f | %s | %.0f %% |\n", each.limit, each.bound, share(each.limit, each.milliseconds))
        : std::printf(" | | |\n");
  }
  const RooflineTotal total(rows);
  std::printf("| all, one after another | %.0f | | %.3f | | | %.3f | | %.0f %% |\n", total.calls, total.milliseconds,
              total.limit, share(total.limit, total.milliseconds));
  std::printf("| the whole as it is | | | %.3f | | | %.3f | | %.0f %% |\n", step_milliseconds, total.limit,
              share(total.limit, step_milliseconds));
  std::fflush(stdout);
}

}  // namespace bench
