#pragma once
/// @file
/// The door of pipeline/: in a program that includes this, `Tokenizer::load` reads any BPE or Unigram
/// tokenizer.json and sentencepiece's models, and so do all functions that call it. One include in one unit of the
/// program will do. It is not in model.hpp, since its tables and parts take a second to compile. Reading order:
///
///     unicode_data, unicode_properties   what the package tokenizers knows of Unicode
///     normal_forms                       NFC, NFD, NFKC, NFKD
///     character_set, expression_parser,
///     expression, known_expressions      regular expressions, and the usual ones by hand
///     graphemes, character_map           what the normalizer Precompiled needs
///     pieces, pattern, prefix_finder     a text on its way to tokens, and what it is cut at
///     metaspace, normalizer, added_tokens, pre_tokenizer,
///     bpe_model, best_path, unigram_model, model,
///     decoder                            the parts of a tokenizer.json
///     tokenizer                          all of them, as a kind of tokenizer
///     ../sentencepiece/                  the files and the algorithms of sentencepiece, as another kind

#include <memory>
#include <string>
#include <string_view>

#include "tinymoe/files/json_value.hpp"
#include "tinymoe/text/pipeline/tokenizer.hpp"
#include "tinymoe/text/sentencepiece/tokenizer.hpp"
#include "tinymoe/text/tokenizer.hpp"
#include "tinymoe/text/tokenizer_kind.hpp"

namespace tinymoe::inline v0_1::detail {

[[gnu::cold]] inline std::unique_ptr<const TokenizerKind> read_pipeline(const Json& root, std::string_view text,
                                                                        const std::string& file) {
  return std::make_unique<const PipelineTokenizer>(root, std::string(text), file);
}

[[gnu::cold]] inline std::unique_ptr<const TokenizerKind> read_sentencepiece(std::string_view bytes,
                                                                             const std::string& file) {
  return std::make_unique<const SentencePieceTokenizer>(std::string(bytes), file);
}

/// Makes `Tokenizer::load` use them, before `main`.
inline const bool pipeline_is_read = (other_tokenizer_reader = &read_pipeline, true);
inline const bool sentencepiece_is_read = (sentencepiece_reader = &read_sentencepiece, true);

}  // namespace tinymoe::inline v0_1::detail
