#pragma once
/// @file
/// The model of a tokenizer.json, of whichever type: how a piece of text becomes tokens.

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/files/json_value.hpp"
#include "tinymoe/text/merge_table.hpp"
#include "tinymoe/text/pipeline/bpe_model.hpp"
#include "tinymoe/text/pipeline/unigram_model.hpp"
#include "tinymoe/text/tokenizer_json.hpp"

namespace tinymoe::inline v0_1::detail {

class TokenizerModel {
 public:
  /// What encoding needs, for one thread.
  struct Scratch {
    PieceMerger merger;
    std::vector<Token> tokens;
    UnigramModel::Scratch unigram;
  };

  /// Throws FileError that names `file`, for another type of model, too.
  [[gnu::cold]] TokenizerModel(const Json& model, const std::string& file) : model_(read(model, file)) {}

  /// All tokens, in the order of the file.
  const std::vector<NamedToken>& tokens() const {
    return std::visit(
        [](const auto& model) -> const auto& { return model.tokens(); }, model_);
  }
  std::optional<Token> find(std::string_view name) const {
    return std::visit([&](const auto& model) { return model.find(name); }, model_);
  }
  /// Appends the tokens of a piece. Throws TextError for what is unknown where the file has no token for that.
  void encode(std::string_view piece, Scratch& scratch, std::vector<Token>& tokens) const {
    if (const auto* bpe = std::get_if<BpeModel>(&model_)) {
      bpe->encode(piece, scratch.merger, scratch.tokens, tokens);
    } else {
      std::get<UnigramModel>(model_).encode(piece, scratch.unigram, tokens);
    }
  }
  /// The same with dropout of merges: `BpeModel::encode`.
  template <class Drops>
  void encode(std::string_view piece, Scratch& scratch, std::vector<Token>& tokens, Drops&& drops) const {
    std::get<BpeModel>(model_).encode(piece, scratch.merger, scratch.tokens, tokens, drops);
  }
  bool has_merges() const { return std::holds_alternative<BpeModel>(model_); }

 private:
  using Either = std::variant<BpeModel, UnigramModel>;

  [[gnu::cold]] static Either read(const Json& model, const std::string& file) {
    const auto type = json_field_or<std::string>(model, "type", file, "BPE");
    if (type == "BPE") return Either(std::in_place_type<BpeModel>, model, file);
    if (type == "Unigram") return Either(std::in_place_type<UnigramModel>, model, file);
    fail<FileError>(file, ": expected a model of the type BPE or Unigram, found ", in_quotes(type),
                    "; convert the tokenizer to one of them or train a new one");
  }

  Either model_;
};

}  // namespace tinymoe::inline v0_1::detail
