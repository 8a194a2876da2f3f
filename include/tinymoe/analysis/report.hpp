#pragma once
/// @file
/// Counts as a printed table.

#include <cstddef>
#include <iomanip>
#include <iterator>
#include <ostream>
#include <string>
#include <string_view>

#include "tinymoe/analysis/count.hpp"
#include "tinymoe/core/bfloat16.hpp"
#include "tinymoe/core/number_text.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/layers/parameters.hpp"

namespace tinymoe::inline v0_1 {

namespace detail {

/// 1234567 as "1,234,567".
inline std::string grouped(Index number) {
  std::string digits = std::to_string(number);
  for (Index at = std::ssize(digits) - 3; at > (number < 0 ? 1 : 0); at -= 3) {
    digits.insert(static_cast<std::size_t>(at), 1, ',');
  }
  return digits;
}

inline std::string mebibytes(Index bytes) {
  return fixed_text(static_cast<double>(bytes) / 1048576.0, bytes < (Index{100} << 20) ? 1 : 0) + " MiB";
}

}  // namespace detail

/// Prints parameters by part, total and active, operations and bytes.
inline void print_count(std::ostream& out, const Count& counted) {
  const auto row = [&](std::string_view name, Index total, Index active) {
    out << "  " << std::left << std::setw(14) << name << std::right << std::setw(15) << detail::grouped(total)
        << std::setw(15) << detail::grouped(active) << '\n';
  };
  out << "  " << std::left << std::setw(14) << "parameters" << std::right << std::setw(15) << "total" << std::setw(15)
      << "active" << '\n';
  for (std::size_t part = 0; part < detail::part_names.size(); ++part) {
    if (counted.parts[part] > 0) row(detail::part_names[part], counted.parts[part], counted.active_parts[part]);
  }
  row("all", counted.total, counted.active);
  const auto fact = [&](std::string_view name, const std::string& value) {
    out << "  " << std::left << std::setw(28) << name << std::right << std::setw(16) << value << '\n';
  };
  fact("FLOPs a token, forward", detail::grouped(counted.flops_forward));
  fact("FLOPs a token, trained", detail::grouped(counted.flops_trained));
  fact("weights", detail::mebibytes(counted.weight_bytes));
  fact("training state", detail::mebibytes(counted.training_bytes));
  fact("training state, 16 bits", detail::mebibytes(counted.state_bytes<bfloat16>()));
  fact("KV cache of a sequence", detail::mebibytes(counted.kv_cache_bytes));
}

/// The same for an architecture.
template <class Arch>
void print_count(std::ostream& out) {
  print_count(out, count<Arch>());
}

}  // namespace tinymoe::inline v0_1
