#pragma once
/// @file
/// Which rank of several owns which parameters: whose optimizer state it keeps, and whose step it takes.

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

#include "tinymoe/core/platform.hpp"
#include "tinymoe/layers/parameters.hpp"
#include "tinymoe/train/optimizer_step.hpp"

namespace tinymoe::inline v0_1::detail {

/// A buffer of weights, cut into a share for each rank; the shares lie one behind the other. A matrix of a block is
/// never cut, since an optimizer may look at all of it; other tensors are, where one chunk ends and the next begins.
struct ParameterShares {
  std::vector<Index> firsts;        // of the elements: rank r owns those from firsts[r] to firsts[r + 1]
  std::vector<Index> first_chunks;  // the same of the chunks
};

/// Shares with about as many trained elements each. `chunks` are those of `tensors`, in order; `size` is the buffer's.
[[gnu::cold]] inline ParameterShares parameter_shares(std::span<const Segment> tensors, std::span<const Chunk> chunks,
                                                      Index size, Index ranks) {
  Index trained = 0;
  for (const Chunk& chunk : chunks) trained += chunk.size;
  ParameterShares shares{.firsts = {0}, .first_chunks = {0}};
  Index before = 0, chunk = 0;  // trained elements and chunks before the next piece, which is not cut
  const auto add_piece = [&](Index count) {
    Index elements = 0;
    for (Index i = chunk; i < chunk + count; ++i) elements += chunks[static_cast<std::size_t>(i)].size;
    // A share ends before this piece if that is nearer to where it should end than after the piece.
    while (std::ssize(shares.firsts) < ranks) {
      const Index wanted = trained * std::ssize(shares.firsts) / ranks;
      if (2 * wanted >= 2 * before + elements) break;
      shares.firsts.push_back(chunk == 0 ? 0 : chunks[static_cast<std::size_t>(chunk)].offset);
      shares.first_chunks.push_back(chunk);
    }
    before += elements, chunk += count;
  };
  for (const Segment& tensor : tensors) {
    const Index count = chunk_count(tensor);
    if (is_block_matrix(tensor)) {
      add_piece(count);
    } else {
      for (Index i = 0; i < count; ++i) add_piece(1);
    }
  }
  shares.firsts.resize(static_cast<std::size_t>(ranks + 1), size);
  shares.first_chunks.resize(static_cast<std::size_t>(ranks + 1), std::ssize(chunks));
  return shares;
}

/// The tensors of the chunks from `first_chunk` to `last_chunk`, or the parts of them that these are, with offsets from
/// `first`. A part of a tensor has whole rows, or is one row.
[[gnu::cold]] inline std::vector<Segment> tensors_of_share(std::span<const Segment> tensors, Index first,
                                                           Index first_chunk, Index last_chunk) {
  std::vector<Segment> own;
  Index chunk = 0;
  for (Segment tensor : tensors) {
    const Index count = chunk_count(tensor), from = std::max(first_chunk - chunk, Index{0}),
                to = std::min(last_chunk - chunk, count);
    chunk += count;
    if (from >= to) continue;
    const Index begin = from * chunk_size(tensor), end = std::min(to * chunk_size(tensor), tensor.size());
    if (end - begin < tensor.size()) {
      const bool rows = begin % tensor.cols == 0 && end % tensor.cols == 0;
      tensor.rows = rows ? (end - begin) / tensor.cols : 1;
      tensor.cols = rows ? tensor.cols : end - begin;
    }
    tensor.offset += begin - first;
    own.push_back(tensor);
  }
  return own;
}

}  // namespace tinymoe::inline v0_1::detail
