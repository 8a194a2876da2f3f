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

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/layers/parameters.hpp"
#include "tinymoe/train/optimizer_step.hpp"

namespace tinymoe::inline v0_1::detail {

/// A run of whole chunks, and the elements from its first to the next run's.
struct ParameterRun {
  Index first = 0, last = 0;              // elements of the buffer
  Index first_chunk = 0, last_chunk = 0;  // of all chunks
};

/// Part of a buffer of weights, cut into a share for each rank that has it; the shares lie one behind the other. A
/// matrix of a block is never cut, since an optimizer may look at all of it; other tensors are, where one chunk ends
/// and the next begins.
struct Bucket {
  Index layer = -1;                 // its gradients are there after backward of this layer; −1: after all of it
  ParameterRun all = {};            // of the bucket
  Index part = -1;                  // of the experts, in expert parallelism: the ranks r with r mod G = part have it
  Index expert_parallel = 1;        // G; 1 where all ranks have it
  std::vector<Index> firsts;        // owner i has the elements from all.first + firsts[i] to all.first + firsts[i + 1]
  std::vector<Index> first_chunks;  // the same of the chunks, of which `all` has the first

  /// Where the shares of rank `rank` and of those behind it begin in the buffer.
  Index first_of(Index rank) const {
    const Index owner = part < 0 ? rank : rank <= part ? 0 : (rank - part - 1) / expert_parallel + 1;
    return all.first + firsts[static_cast<std::size_t>(owner)];
  }
  bool is_of(Index rank) const { return part < 0 || rank % expert_parallel == part; }
  ParameterRun share(Index rank) const {
    if (!is_of(rank)) return {all.first, all.first, all.first_chunk, all.first_chunk};
    const auto owner = static_cast<std::size_t>(rank / expert_parallel);
    return {all.first + firsts[owner], all.first + firsts[owner + 1], first_chunks[owner], first_chunks[owner + 1]};
  }
};

/// All of a buffer, which one rank has.
inline Bucket whole_bucket(Index size, Index chunks) {
  return {.all = {0, size, 0, chunks}, .firsts = {0, size}, .first_chunks = {0, chunks}};
}

/// The layer that a tensor is part of; −1: it is in none.
constexpr Index layer_of(const Path& path) {
  for (const Path* at = &path; at != nullptr; at = at->parent) {
    if (at->name == "layers") return at->number;
  }
  return -1;
}

/// The expert that a tensor is part of, and how many its bank has; −1: it is of none.
struct ExpertNumber {
  Index number = -1, of = 1;
};
constexpr ExpertNumber expert_of(const Path& path) {
  for (const Path* at = &path; at != nullptr; at = at->parent) {
    if (at->name == "experts") return {at->number, at->of};
  }
  return {};
}

/// Where a tensor is in backward and in expert parallelism.
struct TensorPlace {
  Index layer = -1;  // −1 before the layers, and their number behind them
  Index part = -1;   // of the experts, from 0 to G − 1; −1: all ranks have it
};

/// The places of the tensors of `P` as they are named on disk, in order, where groups of `expert_parallel` ranks share
/// the experts. Throws OptionError for a number of experts that cannot be shared.
template <class P>
[[gnu::cold]] std::vector<TensorPlace> places_of_segments(Index expert_parallel = 1) {
  std::vector<TensorPlace> all;
  Index last = -1;
  for_each_segment<P>([&](const ParameterInfo& info, std::string_view, const Segment& segment) {
    const Index layer = layer_of(info.path);
    TensorPlace& place = all.emplace_back();
    place.layer = layer >= 0 ? layer : last < 0 ? Index{-1} : last + 1;
    if (layer >= 0) last = layer;
    const ExpertNumber expert = expert_of(info.path);
    if (expert_parallel == 1 || segment.part != Part::expert || expert.number < 0) return;
    if (expert.of % expert_parallel != 0) {
      fail<OptionError>("expert parallelism: ", expert_parallel, " processes cannot share the ", expert.of,
                        " experts of a layer; give a number that divides them");
    }
    place.part = expert.number / (expert.of / expert_parallel);
  });
  return all;
}

/// The buckets of a buffer of `size` elements, in its order, each cut into shares such that all ranks own about as many
/// trained elements of all of them. `chunks` are those of `tensors`, in order, and `of_tensors` their places. Layers
/// share a bucket up to `least` elements, so that a message is not too small for its latency. Each part of the experts
/// has buckets of its own, which only the ranks that have it share: in groups of `expert_parallel`.
[[gnu::cold]] inline std::vector<Bucket> parameter_buckets(std::span<const Segment> tensors,
                                                           std::span<const TensorPlace> of_tensors,
                                                           std::span<const Chunk> chunks, Index size, Index ranks,
                                                           Index expert_parallel = 1, Index least = Index{1} << 18) {
  std::vector<Bucket> buckets;
  std::vector<Index> owned(static_cast<std::size_t>(ranks));  // trained elements of each rank in the buckets so far
  Index trained = 0;                                          // of all
  const auto cut = [&](std::size_t first, std::size_t last, Index chunk) {
    const Index part = of_tensors[first].part;
    Bucket bucket{.layer = of_tensors[first].layer,
                  .all = {tensors[first].offset, last < tensors.size() ? tensors[last].offset : size, chunk, chunk},
                  .part = part,
                  .expert_parallel = part < 0 ? 1 : expert_parallel,
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
    // What each owner lacks of its part of all so far; together they lack as much as the bucket has, or more where
    // another has too much.
    std::vector<double> lacks;
    double all_lack = 0;
    for (Index rank = std::max(part, Index{0}); rank < ranks; rank += bucket.expert_parallel) {
      const double has = static_cast<double>(owned[static_cast<std::size_t>(rank)]);
      lacks.push_back(std::max(0.0, static_cast<double>(trained) / static_cast<double>(ranks) - has));
      all_lack += lacks.back();
    }
    const auto count = static_cast<double>(lacks.size());
    std::size_t piece = 0;
    double wanted = 0, before = 0;
    for (std::size_t i = 0; i < lacks.size(); ++i) {
      const bool rest = piece == pieces.size();
      bucket.firsts.push_back(piece == 0 ? 0
                              : rest     ? bucket.all.last - bucket.all.first
                                     : chunks[static_cast<std::size_t>(pieces[piece].chunk)].offset - bucket.all.first);
      bucket.first_chunks.push_back(rest ? bucket.all.last_chunk : pieces[piece].chunk);
      wanted += static_cast<double>(elements) * (all_lack > 0 ? lacks[i] / all_lack : 1 / count);
      Index& has =
          owned[static_cast<std::size_t>(std::max(part, Index{0}) + static_cast<Index>(i) * bucket.expert_parallel)];
      // A share ends before a piece if that is nearer to where it should end than after the piece.
      while (piece < pieces.size() &&
             (i + 1 == lacks.size() || 2 * wanted >= 2 * before + static_cast<double>(pieces[piece].elements))) {
        has += pieces[piece].elements, before += static_cast<double>(pieces[piece].elements);
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
    const bool new_layer = !last && of_tensors[at + 1].layer != of_tensors[at].layer;
    const bool new_part = !last && of_tensors[at + 1].part != of_tensors[at].part;
    const bool enough =
        !last && tensors[at + 1].offset - tensors[first].offset >= least && size - tensors[at + 1].offset >= least;
    if (last || new_part || (new_layer && (of_tensors[at].layer < 0 || enough))) {
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
