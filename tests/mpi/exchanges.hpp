#pragma once
// What ranks send each other in a group, for every communicator: r sends s as many rows as `number_of_rows` says.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/memory.hpp"
#include "tinymoe/core/platform.hpp"

namespace tinymoe_test {

using namespace tinymoe;

inline void expect(bool good, const std::string& what) {
  if (!good) fail<TrainingError>("wrong: ", what);
}

inline Index number_of_rows(Index from, Index to) { return 3 * from + to * to; }

/// What a rank has for itself stays: where it would come to, a gap of two rows keeps its bytes.
template <class C, class B>
void exchange_rows(C& group, B& backend, Index row_bytes) {
  const auto value = [](Index from, Index to, Index byte) { return static_cast<char>(7 * from + 31 * to + byte); };
  const Index rank = group.rank();
  std::vector<Index> send, receive;
  std::vector<std::int32_t> numbers, others;
  std::string sent, expected, found;
  for (Index r = 0; r < group.size(); ++r) {
    const bool own = r == rank;
    send.push_back(number_of_rows(rank, r)), receive.push_back(own ? 2 : number_of_rows(r, rank));
    numbers.push_back(static_cast<std::int32_t>(send.back()));
    for (Index i = 0; i < send.back() * row_bytes; ++i) sent += value(rank, r, i);
    for (Index i = 0; i < receive.back() * row_bytes; ++i) expected += own ? '?' : value(r, rank, i);
  }
  others.resize(numbers.size());
  group.exchange_numbers(numbers, others);
  for (Index r = 0; r < group.size(); ++r) {
    expect(others[static_cast<std::size_t>(r)] == number_of_rows(r, rank), "numbers of rows");
  }
  found.assign(expected.size(), '?');
  const Memory from = backend.allocate(sent.size() + 1), to = backend.allocate(found.size() + 1);
  backend.copy_to_device(from.bytes(), sent.data(), sent.size());
  backend.copy_to_device(to.bytes(), found.data(), found.size());
  group.start_exchange(backend, from.bytes(), send, to.bytes(), receive, static_cast<std::size_t>(row_bytes));
  group.finish_exchange(backend);
  backend.copy_to_host(found.data(), to.bytes(), found.size());
  expect(found == expected, "rows of " + std::to_string(row_bytes) + " bytes");
}

}  // namespace tinymoe_test
