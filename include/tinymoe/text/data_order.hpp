#pragma once
/// @file
/// The order in which a run reads its data, and a hash of the data: what must be the same when a run is resumed.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <span>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/text/batching.hpp"
#include "tinymoe/text/fingerprint.hpp"
#include "tinymoe/text/sequence_growth.hpp"
#include "tinymoe/text/token_data.hpp"

namespace tinymoe::inline v0_1 {

/// What the batches of a run depend on. A run can be resumed only with the same.
struct DataOrder {
  std::uint64_t seed = 0;
  Index batch = 0, time = 0, accumulation = 0;
  Batching batching = Batching::packed;
  Index tokens = 0;               // of the data
  std::uint64_t fingerprint = 0;  // of the data's tokens
  SequenceGrowth growth = {};

  /// Throws MismatchError that names what differs, unless `found` is the same.
  void expect(const DataOrder& found) const {
    if (batch != found.batch || time != found.time || accumulation != found.accumulation || seed != found.seed) {
      fail<MismatchError>("the run to resume had batch ", batch, ", sequence ", time, ", accumulation ", accumulation,
                          " and seed ", seed, "; found ", found.batch, ", ", found.time, ", ", found.accumulation,
                          " and ", found.seed);
    }
    if (batching != found.batching) {
      fail<MismatchError>("the run to resume had ", name(batching), " batches; found ", name(found.batching));
    }
    if (growth != found.growth) {
      const auto text = [](const SequenceGrowth& one) { return one.empty() ? "none" : one.text(); };
      fail<MismatchError>("the run to resume had the growth of sequences ", text(growth), "; found ",
                          text(found.growth));
    }
    if (tokens != found.tokens) {
      fail<MismatchError>("the run to resume trained on data of ", tokens, " tokens; found ", found.tokens);
    }
    if (fingerprint != found.fingerprint) {
      fail<MismatchError>("the run to resume trained on other data of ", tokens, " tokens: fingerprint ", fingerprint,
                          "; found ", found.fingerprint);
    }
  }

  static const char* name(Batching batching) { return batching == Batching::packed ? "packed" : "padded"; }
};

/// A hash of all of a set's tokens; it reads them all, about 100 million a second.
/// Throws FileError if the data is corrupt.
inline std::uint64_t fingerprint(const TokenData& data) {
  detail::Fnv1a hash;
  hash.number(static_cast<std::uint64_t>(data.size()));
  std::vector<Token> block(static_cast<std::size_t>(std::min<Index>(data.size(), Index{1} << 16)));
  for (Index first = 0; first < data.size(); first += std::ssize(block)) {
    const auto count = static_cast<std::size_t>(std::min<Index>(std::ssize(block), data.size() - first));
    data.copy(first, std::span(block).first(count));
    for (std::size_t i = 0; i < count; i += 2) {  // two to a number
      const auto low = static_cast<std::uint32_t>(block[i]);
      const auto high = i + 1 < count ? static_cast<std::uint32_t>(block[i + 1]) : 0u;
      hash.number(std::uint64_t{high} << 32 | low);
    }
  }
  return hash.value();
}

}  // namespace tinymoe::inline v0_1
