#pragma once
/// @file
/// Dense models in the format of llama2.c (Karpathy 2023), "legacy" or version 0:
///
///     seven i32: width, hidden, layers, heads, key-value heads, vocabulary (negative: the head is not tied), context
///     f32: embeddings | of all layers: attention norms, q, k, v, o, network norms, w1, w2, w3 | last norm |
///          two RoPE tables (context, d/2), which are not read | the head, if it is not tied
///
/// Matrices are [out, in]. llama2.c rotates the pairs (x_2i, x_2i+1), so the rows of q and k are put in the order of
/// rotate-half: row i of a head's first half is row 2i, of its second half row 2i + 1.

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <initializer_list>
#include <map>
#include <span>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/checkpoint/checkpoint.hpp"
#include "tinymoe/core/error.hpp"
#include "tinymoe/core/options.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/files/mapped_file.hpp"
#include "tinymoe/files/stored_type.hpp"
#include "tinymoe/layers/activation_functions.hpp"
#include "tinymoe/layers/attention.hpp"
#include "tinymoe/layers/expert.hpp"
#include "tinymoe/layers/model.hpp"
#include "tinymoe/layers/norm.hpp"
#include "tinymoe/layers/position.hpp"

namespace tinymoe::inline v0_1 {

/// What a model.bin says about its model.
struct Llama2cHeader {
  Index width = 0, hidden = 0, layers = 0, heads = 0, kv_heads = 0, vocab = 0, context = 0;
  bool tied = true;

  friend bool operator==(const Llama2cHeader&, const Llama2cHeader&) = default;

  /// The type of an architecture that can load the file, as source text.
  std::string type() const {
    return detail::sentence_of({"Transformer<Vocab<", vocab, ">, Context<", context, ">, Width<", width, ">, ",
                                tied ? "TiedHead" : "UntiedHead", ", Layers<", layers,
                                ", DenseBlock<RmsNorm, Attention<Heads<", heads, ">, KvHeads<", kv_heads,
                                ">, Rope>, Expert<SwiGlu, Hidden<", hidden, ">>>>>"});
  }
};

namespace detail {

template <class A>
inline constexpr bool is_llama2c_attention = false;
template <class... O>
inline constexpr bool is_llama2c_attention<Attention<O...>> =
    KnownPlaces<place::Heads, place::KvHeads, place::HeadDim, place::Position, place::Bias>::know_all<O...>&&
        std::is_same_v<typename Attention<O...>::Position, Rope> &&
    !Attention<O...>::both_biases;
template <class X>
inline constexpr bool is_llama2c_expert = false;
template <class... O>
inline constexpr bool is_llama2c_expert<Expert<O...>> =
    KnownPlaces<place::Activation, place::Hidden, place::Bias>::know_all<O...>&&
        std::is_same_v<typename Expert<O...>::Activation, SwiGlu> &&
    !Expert<O...>::has_bias;
template <class Arch>
inline constexpr bool is_llama2c_stack =
    !Arch::head_bias && Arch::bigrams == 0 && !Arch::per_layer_embeddings &&
    std::tuple_size_v<typename Arch::Groups> == 1;

}  // namespace detail

/// The header of a file that `Arch` can be loaded from; an architecture that llama2.c does not have is a compile error.
template <class Arch>
constexpr Llama2cHeader llama2c_header_of() {
  static_assert(
      detail::is_llama2c_stack<Arch>,
      "tinymoe::load_llama2c: llama2.c has Transformer<Vocab, Context, Width, TiedHead or UntiedHead, and one "
      "group of Layers>, without a bias on the head, Bigrams or PerLayerEmbeddings");
  using Block = typename std::tuple_element_t<0, typename Arch::Groups>::Block;
  static_assert(
      !Block::is_mixture,
      "tinymoe::load_llama2c: llama2.c has no experts; load it into a model of DenseBlock, then upcycle that");
  static_assert(std::is_same_v<typename Block::Norm, RmsNorm> && std::is_same_v<typename Arch::FinalNormType, RmsNorm>,
                "tinymoe::load_llama2c: llama2.c has no norm but RmsNorm");
  static_assert(detail::is_llama2c_attention<typename Block::AttentionType>,
                "tinymoe::load_llama2c: llama2.c's attention has Heads, KvHeads and Rope; no biases and no window");
  static_assert(detail::is_llama2c_expert<typename Block::Expert>,
                "tinymoe::load_llama2c: llama2.c's network is Expert<SwiGlu, Hidden<F>>, without biases");
  using A = typename Block::AttentionType;
  static_assert(A::template Layer<Arch::width>::query_width == Arch::width,
                "tinymoe::load_llama2c: llama2.c's heads are together as wide as the model");
  return {Arch::width, Block::Expert::hidden, Arch::layers,  A::heads,
          A::kv_heads, Arch::vocab,           Arch::context, Arch::tied};
}

namespace detail {

/// Where a tensor lies in a model.bin.
struct Llama2cPlace {
  std::uint64_t offset = 0;  // numbers
  Index rows = 0, cols = 0;
  Index interleaved = 0;  // rows of a head whose order changes; 0 if none does
};

/// How many numbers a file with this header has; the maximum of the type if they are more.
inline std::uint64_t llama2c_numbers(const Llama2cHeader& h) {
  std::uint64_t total = 0;
  const auto add = [&](std::initializer_list<Index> extents) {
    std::uint64_t product = 1;
    bool over = false;
    for (const Index extent : extents) over |= __builtin_mul_overflow(product, std::uint64_t(extent), &product);
    if (over || __builtin_add_overflow(total, product, &total)) total = std::uint64_t(-1);
  };
  const Index key_width = h.width / h.heads * h.kv_heads, half = h.width / h.heads / 2;
  add({h.vocab, h.width, h.tied ? 1 : 2});
  add({h.layers, 2 * h.width});
  add({h.layers, 2 * (h.width + key_width), h.width});
  add({h.layers, 3 * h.hidden, h.width});
  add({h.width});
  add({h.context, 2 * half});
  return total;
}

/// The places of all tensors, by their names on the hub, for a header that fits its file.
inline std::map<std::string, Llama2cPlace> llama2c_places(const Llama2cHeader& h) {
  std::map<std::string, Llama2cPlace> of_names;
  std::uint64_t offset = 0;
  const auto place = [&](const std::string& name, Index rows, Index cols, Index interleaved = 0) {
    of_names[name] = {offset, rows, cols, interleaved};
    offset += static_cast<std::uint64_t>(rows * cols);
  };
  const auto each_layer = [&](const char* name, Index rows, Index cols, Index interleaved = 0) {
    for (Index i = 0; i < h.layers; ++i) {
      place("model.layers." + std::to_string(i) + "." + name, rows, cols, interleaved);
    }
  };
  const Index head_dim = h.width / h.heads, key_width = head_dim * h.kv_heads;
  place("model.embed_tokens.weight", h.vocab, h.width);
  each_layer("input_layernorm.weight", 1, h.width);
  each_layer("self_attn.q_proj.weight", h.width, h.width, head_dim);
  each_layer("self_attn.k_proj.weight", key_width, h.width, head_dim);
  each_layer("self_attn.v_proj.weight", key_width, h.width);
  each_layer("self_attn.o_proj.weight", h.width, h.width);
  each_layer("post_attention_layernorm.weight", 1, h.width);
  each_layer("mlp.gate_proj.weight", h.hidden, h.width);
  each_layer("mlp.down_proj.weight", h.width, h.hidden);
  each_layer("mlp.up_proj.weight", h.hidden, h.width);
  place("model.norm.weight", 1, h.width);
  place("rotations", h.context, head_dim);
  if (!h.tied) place("lm_head.weight", h.vocab, h.width);
  return of_names;
}

/// The header of a mapped model.bin. Throws FileError unless it makes sense and the file has exactly its size.
inline Llama2cHeader read_llama2c_header(const MappedFile& file) {
  const std::string name = file.path().string();
  std::array<std::int32_t, 7> words{};
  if (file.size() < sizeof words) {
    fail<FileError>(name, ": expected a model of llama2.c, found ", file.size(), " bytes");
  }
  std::memcpy(words.data(), file.bytes().data(), sizeof words);
  if (words[0] == 0x616b3432) {  // "ak42"
    fail<FileError>(name, ": expected llama2.c's format of version 0, found version ", words[1],
                    "; export the model again with --version 0");
  }
  const std::array<const char*, 7> fields = {"width",           "hidden",     "layers", "heads",
                                             "key-value heads", "vocabulary", "context"};
  for (std::size_t i = 0; i < words.size(); ++i) {
    const bool vocabulary = i == 5;
    if (words[i] > 0 || (vocabulary && words[i] != 0 && words[i] != INT32_MIN)) continue;
    fail<FileError>(name, ": expected a model of llama2.c, found a ", fields[i], " of ", words[i]);
  }
  const Llama2cHeader header = {words[0], words[1],           words[2], words[3],
                                words[4], std::abs(words[5]), words[6], words[5] > 0};
  if (header.width % header.heads != 0 || header.width / header.heads % 2 != 0 || header.heads % header.kv_heads != 0) {
    fail<FileError>(name, ": ", header.heads, " heads and ", header.kv_heads, " key-value heads do not fit a width of ",
                    header.width, ": a head's width must be even, and heads a multiple of key-value heads");
  }
  const std::uint64_t expected = llama2c_numbers(header), found = (file.size() - sizeof words) / sizeof(float);
  if (expected != found || file.size() % sizeof(float) != 0) {
    fail<FileError>(name, ": the header of ", header.type(), " asks for ", expected, " numbers after it; the file has ",
                    file.size(), " bytes, which is ", found);
  }
  return header;
}

}  // namespace detail

/// Reads the header of a model.bin. Throws FileError that names the file if it is missing, cut, longer than its header
/// says, or no model of llama2.c.
inline Llama2cHeader llama2c_header(const std::filesystem::path& model_bin) {
  return detail::read_llama2c_header(MappedFile(model_bin));
}

/// Replaces a dense model's weights by those of llama2.c's model.bin, and its norms' epsilon and rotary θ by
/// llama2.c's; the tokenizer says which tokens are special. Throws FileError for a file that is missing, cut, corrupt
/// or not finite, MismatchError that names each field of the header that differs, and the type that would fit; the
/// model is unchanged then.
template <class Arch, Backend B, class W>
void load_llama2c(const std::filesystem::path& model_bin, Model<Arch, B, W>& model) {
  using M = typename B::Master;
  constexpr Llama2cHeader expected = llama2c_header_of<Arch>();
  const MappedFile file(model_bin);
  const Llama2cHeader found = detail::read_llama2c_header(file);
  if (found != expected) {
    std::string differences;
    const auto compare = [&](const char* field, auto is, auto should) {
      if (is != should) differences += detail::sentence_of({field, " ", is, " where the type has ", should, "; "});
    };
    compare("width", found.width, expected.width);
    compare("hidden", found.hidden, expected.hidden);
    compare("layers", found.layers, expected.layers);
    compare("heads", found.heads, expected.heads);
    compare("key-value heads", found.kv_heads, expected.kv_heads);
    compare("vocabulary", found.vocab, expected.vocab);
    compare("context", found.context, expected.context);
    compare("a tied head", found.tied ? "yes" : "no", expected.tied ? "yes" : "no");
    fail<MismatchError>(model_bin.string(), ": has ", differences, "it is a ", found.type());
  }

  const auto places = detail::llama2c_places(found);
  const std::byte* numbers = file.bytes().data() + 7 * sizeof(std::int32_t);
  std::vector<float> read;
  std::vector<M> values;
  const auto tensors = detail::disk_tensors<typename Model<Arch, B, W>::Weights>();
  const auto each = [&](Index first, Index last, auto&& f) {
    for (const auto& tensor : tensors) {
      if (tensor.offset < first || tensor.offset >= last) continue;
      const auto place = places.find(tensor.name);
      if (place == places.end() || place->second.rows * place->second.cols != tensor.size) {
        fail<MismatchError>("llama2.c's format has no tensor ", tensor.name, " of ", tensor.size, " numbers");
      }
      read.resize(static_cast<std::size_t>(tensor.size));
      std::memcpy(read.data(), numbers + place->second.offset * sizeof(float), read.size() * sizeof(float));
      f(tensor, place->second);
    }
  };
  each(0, Model<Arch, B, W>::size, [&](const detail::DiskTensor& tensor, const detail::Llama2cPlace&) {
    const std::size_t at = detail::first_not_finite(std::span<const float>(read));
    if (at != read.size()) {
      fail<FileError>(model_bin.string(), ": tensor ", tensor.name, ": number ", at, " is ", read[at],
                      ", expected a finite weight");
    }
  });
  model.replace([&](View<M> to, Index first) {
    each(first, first + to.size(), [&](const detail::DiskTensor& tensor, const detail::Llama2cPlace& place) {
      values.resize(read.size());
      for (Index row = 0; row < place.rows; ++row) {
        Index from = row;
        if (const Index d = place.interleaved; d > 0) {
          const Index i = row % d;
          from = row - i + (i < d / 2 ? 2 * i : 2 * (i - d / 2) + 1);
        }
        for (Index col = 0; col < place.cols; ++col) {
          values[static_cast<std::size_t>(row * place.cols + col)] =
              static_cast<M>(read[static_cast<std::size_t>(from * place.cols + col)]);
        }
      }
      model.backend().copy_to_device(to.data + (tensor.offset - first), values.data(), values.size() * sizeof(M));
    });
  });
  model.special_tokens() = {};
  model.settings().set(setting::norm_epsilon = 1e-5);
  model.settings().set(setting::rope_theta = 10000);
}

}  // namespace tinymoe::inline v0_1
