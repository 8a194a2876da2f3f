#pragma once
/// @file
/// Which rank of several owns which parameters: whose optimizer state it keeps, and whose step it takes.
///
/// The buffer of weights is cut into buckets, whose gradients become ready one after the other in backward: the last
/// norm and the head first, then the layers from the last to the first, then the embedding and what is left. Each
/// bucket has a share for each rank. So the sum of one can be on its way while backward works on the next.

#include <algorithm>
#include <cstddef>
#include <span>
#include <string_view>
#include <vector>

#include "tinymoe/core/platform.hpp"
#include "tinymoe/layers/parameters.hpp"
#include "tinymoe/train/optimizer_step.hpp"

namespace tinymoe::inline v0_1::detail {

/// A run of whole chunks, and the elements from its first to the next run's.
struct ParameterRun {
  Index first = 0, last = 0;              // elements of the buffer
  Index first_chunk = 0, last_chunk = 0;  // of all chunks
};

/// Part of a buffer of weights, cut into a share for each rank; the shares lie one behind the other. A matrix of a
/// block is never cut, since an optimizer may look at all of it; other tensors are, where one chunk ends and the next
/// begins.
struct Bucket {
  Index layer = -1;                 // its gradients are there after backward of this layer; −1: after all of it
  ParameterRun all = {};            // of the bucket
  std::vector<Index> firsts;        // rank r owns the elements from all.first + firsts[r] to all.first + firsts[r + 1]
  std::vector<Index> first_chunks;  // the same of the chunks, of which `all` has the first

  ParameterRun share(Index rank) const {
    const auto r = static_cast<std::size_t>(rank);
    return {all.first + firsts[r], all.first + firsts[r + 1], first_chunks[r], first_chunks[r + 1]};
  }
};

/// The layer that a tensor is part of; −1: it is in none.
constexpr Index layer_of(const Path& path) {
  for (const Path* at = &path; at != nullptr; at = at->parent) {
    if (at->name == "layers") return at->number;
  }
  return -1;
}

/// The layer of each tensor of `P` as they are named on disk, in order; −1 before the layers, and their number behind
/// them.
template <class P>
[[gnu::cold]] std::vector<Index> layers_of_segments() {
  std::vector<Index> layers;
  Index last = -1;
  for_each_segment<P>([&](const ParameterInfo& info, std::string_view, const Segment&) {
    const Index layer = layer_of(info.path);
    layers.push_back(layer >= 0 ? layer : last < 0 ? Index{-1} : last + 1);
    if (layer >= 0) last = layer;
  });
  return layers;
}

/// The buckets of a buffer of `size` elements, in its order, each cut into shares such that all ranks own about as many
/// trained elements of all of them. `chunks` are those of `tensors`, in order; `layers` has the layer of each tensor.
/// Layers share a bucket up to `least` elements, so that a message is not too small for its latency.
[[gnu::cold]] inline std::vector<Bucket> parameter_buckets(std::span<const Segment> tensors,
                                                           std::span<const Index> layers, std::span<const Chunk> chunks,
                                                           Index size, Index ranks, Index least = Index{1} << 18) {
  std::vector<Bucket> buckets;
  std::vector<Index> owned(static_cast<std::size_t>(ranks));  // trained elements of each rank in the buckets so far
  Index trained = 0;                                          // of all
  const auto cut = [&](std::size_t first, std::size_t last, Index chunk) {
    Bucket bucket{.layer = layers[first],
                  .all = {tensors[first].offset, last < tensors.size() ? tensors[last].offset : size, chunk, chunk},
                  .firsts = {},
                  .first_chunks = {}};
    struct Piece {
      Index chunk, elements;
    };
    std::vector<Piece> pieces;  // which are not cut
    Index elements = 0;
    for (std::size_t t = first; t < last; ++t) {
      const Index count = chunk_count(tensors[t]), step = is_block_matrix(tensors[t]) ? count : 1;
      for (Index i = 0; i < count; i += step, chunk += step) {
        Piece piece{chunk, 0};
        for (Index c = chunk; c < chunk + step; ++c) piece.elements += chunks[static_cast<std::size_t>(c)].size;
        elements += piece.elements;
        pieces.push_back(piece);
      }
    }
    bucket.all.last_chunk = chunk;
    trained += elements;
    // What each rank lacks of its part of all so far; together they lack as much as the bucket has, or more where
    // another rank has too much.
    std::vector<double> lacks;
    double all_lack = 0;
    for (const Index has : owned) {
      lacks.push_back(
          std::max(0.0, static_cast<double>(trained) / static_cast<double>(ranks) - static_cast<double>(has)));
      all_lack += lacks.back();
    }
    const double each = all_lack > 0 ? static_cast<double>(elements) / all_lack : 0;
    std::size_t piece = 0;
    double wanted = 0, before = 0;
    for (std::size_t r = 0; r < owned.size(); ++r) {
      const bool rest = piece == pieces.size();
      bucket.firsts.push_back(piece == 0 ? 0
                              : rest     ? bucket.all.last - bucket.all.first
                                     : chunks[static_cast<std::size_t>(pieces[piece].chunk)].offset - bucket.all.first);
      bucket.first_chunks.push_back(rest ? bucket.all.last_chunk : pieces[piece].chunk);
      wanted += lacks[r] * each;
      // A share ends before a piece if that is nearer to where it should end than after the piece.
      while (piece < pieces.size() &&
             (r + 1 == owned.size() || 2 * wanted >= 2 * before + static_cast<double>(pieces[piece].elements))) {
        owned[r] += pieces[piece].elements, before += static_cast<double>(pieces[piece].elements);
        ++piece;
      }
    }
    bucket.firsts.push_back(bucket.all.last - bucket.all.first);
    bucket.first_chunks.push_back(bucket.all.last_chunk);
    buckets.push_back(std::move(bucket));
  };
  Index chunk = 0, next_chunk = 0;
  for (std::size_t first = 0, at = 0; at < tensors.size(); ++at) {
    next_chunk += chunk_count(tensors[at]);
    const bool last = at + 1 == tensors.size();
    const bool new_layer = !last && layers[at + 1] != layers[at];
    const bool enough =
        !last && tensors[at + 1].offset - tensors[first].offset >= least && size - tensors[at + 1].offset >= least;
    if (last || (new_layer && (layers[at] < 0 || enough))) {
      cut(first, at + 1, chunk);
      first = at + 1, chunk = next_chunk;
    }
  }
  return buckets;
}

/// The tensors of the chunks of a run, or the parts of them that these are. A part of a tensor has whole rows, or is
/// one row.
[[gnu::cold]] inline std::vector<Segment> tensors_of_run(std::span<const Segment> tensors, const ParameterRun& run) {
  std::vector<Segment> own;
  Index chunk = 0;
  for (Segment tensor : tensors) {
    const Index count = chunk_count(tensor), from = std::max(run.first_chunk - chunk, Index{0}),
                to = std::min(run.last_chunk - chunk, count);
    chunk += count;
    if (from >= to) continue;
    const Index begin = from * chunk_size(tensor), end = std::min(to * chunk_size(tensor), tensor.size());
    if (end - begin < tensor.size()) {
      const bool rows = begin % tensor.cols == 0 && end % tensor.cols == 0;
      tensor.rows = rows ? (end - begin) / tensor.cols : 1;
      tensor.cols = rows ? tensor.cols : end - begin;
    }
    tensor.offset += begin;
    own.push_back(tensor);
  }
  return own;
}

}  // namespace tinymoe::inline v0_1::detail
