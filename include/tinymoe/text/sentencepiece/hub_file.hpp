#pragma once
/// @file
/// The tokenizer.json of a sentencepiece model, for programs that read no other file, where one encodes the same.
///
/// Both merge the piece of the best score first. Among merges into one piece, or into pieces of one score,
/// sentencepiece takes the leftmost; a tokenizer.json has an order of pairs. So texts in which two such merges meet are
/// encoded both ways, and a model is refused where that differs.

#include <algorithm>
#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/utf8.hpp"
#include "tinymoe/files/json.hpp"
#include "tinymoe/files/json_parser.hpp"
#include "tinymoe/files/json_value.hpp"
#include "tinymoe/text/llama2c/tokenizer_file.hpp"
#include "tinymoe/text/llama2c/tokenizer_json.hpp"
#include "tinymoe/text/merge_table.hpp"
#include "tinymoe/text/piece_table.hpp"
#include "tinymoe/text/pipeline/bpe_model.hpp"
#include "tinymoe/text/sentencepiece/model_file.hpp"
#include "tinymoe/text/tokenizer_json.hpp"
#include "tinymoe/text/tokenizer_kind.hpp"

namespace tinymoe::inline v0_1::detail {

class SentencePieceHubFile {
 public:
  [[gnu::cold]] explicit SentencePieceHubFile(const SentencePieceModel& model) : model_(&model) {
    refuse_options();
    if (!reason_) {
      for (const ScoredPiece& piece : model.pieces) read(piece);
    }
    if (!reason_) find_merges();
  }

  /// `encode(text)` gives the model's tokens.
  template <class Encode>
  [[gnu::cold]] HubTokenizer made(const Encode& encode) {
    if (!reason_) {
      const Json file = json();
      const BpeModel bpe(file["model"], "tokenizer.json");
      for (const std::string& probe : probes_) {
        if (!reason_ && encode(probe) != merged(bpe, probe)) {
          refuse("two merges of one score meet in " + in_quotes(probe));
        }
      }
      std::string text = file.dump(2) + "\n";
      // Tokens around a text are added to it.
      if (text.size() > tokenizer_size_limit - (std::size_t{1} << 16)) refuse("it would be too large a file");
      if (!reason_) return {std::move(text)};
    }
    return {{},
            "transformers cannot read this tokenizer: no tokenizer.json encodes as the sentencepiece model, because " +
                *reason_};
  }

 private:
  using Type = ScoredPiece::Type;
  /// Bytes of a piece, and of all texts that are encoded both ways: more would take long at each save.
  static constexpr std::size_t longest = 256, most_probed = std::size_t{1} << 20;

  struct Cut {
    std::size_t piece, left;  // bytes of the left half
  };

  void refuse(std::string reason) {
    if (!reason_) reason_ = std::move(reason);
  }

  void refuse_options() {
    const SentencePieceSpaces& spaces = model_->normalizer;
    if (!model_->is_bpe) return refuse("tokenizers adds the scores of a unigram model in another precision");
    if (!spaces.map.empty() || !model_->denormalizer.map.empty()) return refuse("it changes characters by a map");
    if (spaces.removes_extra) return refuse("it leaves out extra spaces");
    if (!spaces.escapes || spaces.as_suffix) return refuse("it treats spaces in an unusual way");
    if (!model_->byte_fallback) return refuse("it has no bytes for unknown characters");
  }

  static bool is_one_character(std::string_view text) { return decode_utf8(text, 0).length == text.size(); }

  void read(const ScoredPiece& piece) {
    if (piece.type == Type::user_defined) return refuse("it has symbols that are looked for in text");
    if (piece.type == Type::unused) return refuse("it has unused pieces");
    if (piece.is_ordinary()) {
      ordinary_.insert(piece.text);
      if (piece.text.size() > longest) refuse("it has pieces of more than 256 bytes");
    } else if (is_one_character(piece.text)) {
      refuse("it has a control symbol of one character");
    }
  }

  void find_merges() {
    const auto& pieces = model_->pieces;
    std::vector<std::size_t> order;
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      if (pieces[i].is_ordinary() && !is_one_character(pieces[i].text)) order.push_back(i);
    }
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return pieces[a].score > pieces[b].score; });
    std::vector<std::size_t> tied;  // pieces of one score
    for (const std::size_t i : order) {
      if (reason_) return;
      const std::string& piece = pieces[i].text;
      const std::size_t first = cuts_.size();
      for (std::size_t cut = decode_utf8(piece, 0).length; cut < piece.size(); cut += decode_utf8(piece, cut).length) {
        const std::string_view left = std::string_view(piece).substr(0, cut),
                               right = std::string_view(piece).substr(cut);
        if (!ordinary_.find(right.substr(0, decode_utf8(right, 0).length)) ||
            !ordinary_.find(left.substr(0, decode_utf8(left, 0).length))) {
          return refuse("the piece " + in_quotes(piece) + " has a character that is none");
        }
        if (ordinary_.find(left) && ordinary_.find(right)) cuts_.push_back({i, cut});
      }
      if (cuts_.size() == first) continue;  // nothing becomes it
      if (!tied.empty() && pieces[tied[0]].score != pieces[i].score) tied.clear();
      for (const std::size_t other : tied) {
        if (reason_) return;  // else a model of one score would take a time with the square of its pieces
        probe(piece + pieces[other].text), probe(pieces[other].text + piece);
        if (tied.size() == 1) probe_around(other, first);
      }
      tied.push_back(i);
      if (tied.size() > 1 || overlaps(first)) probe_around(i, first);
    }
    for (const auto& [character, count] : runs_) {
      std::string run;
      for (std::size_t i = 0; i < 2 * count + 3 && !reason_; ++i) probe(run += character);
    }
  }

  /// Whether two halves of the last piece are the same text between two others that both make it.
  bool overlaps(std::size_t first) const {
    for (std::size_t a = first; a < cuts_.size(); ++a) {
      const std::string_view piece = model_->pieces[cuts_[a].piece].text;
      for (std::size_t b = first; b < cuts_.size(); ++b) {
        if (a != b && piece.substr(cuts_[a].left) == piece.substr(0, cuts_[b].left)) return true;
      }
    }
    return false;
  }

  /// Texts in which a piece stands beside itself and its parts.
  void probe_around(std::size_t number, std::size_t first) {
    const std::string& piece = model_->pieces[number].text;
    std::string text = piece;
    for (int i = 0; i < 4; ++i) probe(text), text += piece;
    for (std::size_t i = first; i < cuts_.size(); ++i) {
      if (cuts_[i].piece != number) continue;
      const std::string left = piece.substr(0, cuts_[i].left), right = piece.substr(cuts_[i].left);
      for (const std::string& part : {left, right})
        probe(part + piece), probe(piece + part), probe(part + piece + part);
    }
    const std::string character = piece.substr(0, decode_utf8(piece, 0).length);
    if (replaced(piece, character, "").empty()) {
      std::size_t& count = runs_[character];
      count = std::max(count, piece.size() / character.size());
    }
  }

  void probe(const std::string& text) {
    if (reason_) return;
    probed_ += text.size();
    if (probed_ > most_probed) return refuse("too many of its pieces have one score, or could be merged in two orders");
    probes_.push_back(replaced(text, space_mark, " "));
  }

  std::vector<Token> merged(const BpeModel& bpe, const std::string& text) {
    std::vector<Token> tokens;
    bpe.encode((model_->normalizer.adds_dummy ? std::string(space_mark) : "") + replaced(text, " ", space_mark),
               merger_, scratch_, tokens);
    return tokens;
  }

  Json json() const {
    Json tokens = Json::object(), added = Json::array(), merges = Json::array(), unknown;
    for (std::size_t id = 0; id < model_->pieces.size(); ++id) {
      const ScoredPiece& piece = model_->pieces[id];
      tokens.append(piece.text, id);
      if (piece.type == Type::unknown) unknown = piece.text;
      if (piece.type != Type::unknown && piece.type != Type::control) continue;
      added.push_back({{"id", id},
                       {"content", piece.text},
                       {"single_word", false},
                       {"lstrip", false},
                       {"rstrip", false},
                       {"normalized", false},
                       {"special", true}});
    }
    for (const auto& [piece, left] : cuts_) {
      const std::string& text = model_->pieces[piece].text;
      merges.push_back({text.substr(0, left), text.substr(left)});
    }
    Json file = llama2c_frame();
    file["added_tokens"] = std::move(added);
    file["post_processor"] = nullptr;
    Json& model = file["model"];
    model.erase("tied_merges");
    model[made_of_model] = true;
    model["unk_token"] = std::move(unknown);
    model["byte_fallback"] = true;
    model["vocab"] = std::move(tokens);
    model["merges"] = std::move(merges);
    file["normalizer"] = llama2c_normalizer();
    if (model_->normalizer.adds_dummy) return file;
    file["normalizer"] = Json(file["normalizer"]["normalizers"].items()[1]);
    Json decoders = Json::array();
    for (std::size_t i = 0; i < 3; ++i) decoders.push_back(file["decoder"]["decoders"].items()[i]);
    file["decoder"]["decoders"] = std::move(decoders);
    return file;
  }

  const SentencePieceModel* model_;
  std::optional<std::string> reason_;
  PieceTable ordinary_;
  std::vector<Cut> cuts_;
  std::vector<std::string> probes_;
  std::map<std::string, std::size_t> runs_;  // the most characters of a piece that is one of them repeated
  std::size_t probed_ = 0;                   // bytes
  PieceMerger merger_;
  std::vector<Token> scratch_;
};

}  // namespace tinymoe::inline v0_1::detail
