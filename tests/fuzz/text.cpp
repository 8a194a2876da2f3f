// Harnesses of tokenizers: of each kind and their files; and against plain ones.

#include <cstdio>
#include <map>
#include <optional>
#include <utility>

#include "fuzz/harness.hpp"
#include "fuzz/tokenizers.hpp"
#include "tinymoe/core/utf8.hpp"
#include "tinymoe/files/json.hpp"
#include "tinymoe/text/bpe_trainer.hpp"
#include "tinymoe/text/pipeline/pipeline.hpp"
#include "tinymoe/text/sentencepiece/export.hpp"
#include "tinymoe/text/story_files.hpp"
#include "tinymoe/text/tokenizer.hpp"

namespace tinymoe_fuzz {

namespace texts {

using tinymoe::detail::TokenizerParts;

// Tokenizers that were read

void tokenizer_json(std::string_view input) {
  accepts([&] { use_and_save(Tokenizer::load(write_scratch("tokenizer.json", input))); });
}

std::string saved(const Tokenizer& tokenizer) {
  const auto path = scratch() / (std::string("seed.") + tokenizer.file_name());
  tokenizer.save(path);
  return read_file(path);
}

void tokenizer_json_seeds(const TakeSeed& take) {
  take(saved(small_byte_level()));
  for (const char* pre :
       {"null", "{\"type\":\"Whitespace\"}", "{\"type\":\"Digits\",\"individual_digits\":true}",
        "{\"type\":\"Metaspace\"}", "{\"type\":\"Punctuation\",\"behavior\":\"Isolated\"}",
        "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\p{L}+|[^\\\\s\\\\d]"
        "\"},"
        "\"behavior\":\"MergedWithNext\",\"invert\":false},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
        "\"trim_offsets\":true,\"use_regex\":true}]}"}) {
    take(std::string(
             "{\"added_tokens\":[{\"id\":0,\"content\":\"<s>\",\"special\":true,\"normalized\":false},"
             "{\"id\":6,\"content\":\"lol\",\"special\":false}],"
             "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFKC\"},{\"type\":\"Lowercase\"},"
             "{\"type\":\"Replace\",\"pattern\":{\"String\":\"x\"},\"content\":\"yy\"},{\"type\":\"StripAccents\"}]},"
             "\"pre_tokenizer\":") +
         pre +
         ",\"post_processor\":null,\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"ByteFallback\"},"
         "{\"type\":\"Fuse\"}]},\"model\":{\"type\":\"BPE\",\"unk_token\":\"<s>\",\"vocab\":{\"<s>\":0,\"a\":1,\"b\":2,"
         "\"ab\":3,\"\\u00e9\":4,\"\\u2581\":5},\"merges\":[[\"a\",\"b\"]]}}");
  }
  take(
      "{\"normalizer\":{\"type\":\"Prepend\",\"prepend\":\"\\u2581\"},\"pre_tokenizer\":null,\"decoder\":null,"
      "\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"<unk>\",0.0],[\"\\u2581\",-1.5],[\"a\",-2.0],"
      "[\"ab\",-2.5],[\"b\",-3.0]],\"byte_fallback\":false}}");
}

void sentencepiece(std::string_view input) {
  accepts([&] {
    const auto tokenizer = Tokenizer::load(write_scratch("tokenizer.model", input));
    use_and_save(tokenizer);
    const HubTokenizer other = tokenizer.hub_tokenizer();
    if (!other.reason) accepts([&] { use(Tokenizer::load(write_scratch("tokenizer.json", other.text))); });
    std::filesystem::remove(scratch() / "tokenizer.json");
  });
}

void sentencepiece_seeds(const TakeSeed& take) {
  const Json cases = read_json(std::string(TINYMOE_SOURCE_DIR) + "/tests/text/sentencepiece_cases.json");
  for (const Json& model : cases["models"].items()) {
    const std::string bytes = tinymoe::detail::from_base64(model["model"].string()).value();
    if (bytes.size() <= 6000) take(bytes);  // what a fuzzer can change in a useful time
  }
}

// llama2.c's tokenizer

struct Piece {
  std::string name;
  float score = 0;
};

std::string llama2c_bin(const std::vector<Piece>& pieces, std::int32_t longest = 16) {
  std::string bytes = bytes_of(longest);
  for (const auto& [name, score] : pieces) {
    bytes += bytes_of(score) + bytes_of(static_cast<std::int32_t>(name.size())) + name;
  }
  return bytes;
}

std::vector<Piece> llama2c_bytes() {
  std::vector<Piece> pieces = {{"<unk>"}, {"\n<s>\n"}, {"\n</s>\n"}};
  for (int byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", byte);
    pieces.push_back({name});
  }
  return pieces;
}

void llama2c_tokenizer(std::string_view input) {
  accepts([&] {
    const auto tokenizer = Tokenizer::load_llama2c(write_scratch("tokenizer.bin", input));
    use(tokenizer);
    const auto path = scratch() / "saved.tokenizer.json";
    if (!accepts([&] { tokenizer.save(path); })) return;
    const auto again = Tokenizer::load(path);
    expect(again == tokenizer, "a saved tokenizer of llama2.c is another one");
  });
}

void llama2c_tokenizer_seeds(const TakeSeed& take) {
  std::vector<Piece> pieces = llama2c_bytes();
  float score = 0;
  for (const char* piece : {" ", "a", "b", "ab", " a", "\xc3\xa9", "aa"}) pieces.push_back({piece, --score});
  take(llama2c_bin(pieces));
  take(llama2c_bin({{"<unk>"}, {"<s>"}, {"</s>"}, {" ", -1}, {"a", -2}, {"aa", -2}, {"aaa", 1}}));
}

/// GPT-2's vocab.json and merges.txt, with a zero between.
void gpt2_files(std::string_view input) {
  const std::size_t zero = std::min(input.find('\0'), input.size());
  const auto vocab = write_scratch("vocab.json", input.substr(0, zero));
  const auto merges = write_scratch("merges.txt", input.substr(std::min(zero + 1, input.size())));
  accepts([&] { use_and_save(Tokenizer::load_gpt2(vocab, merges)); });
}

void gpt2_files_seeds(const TakeSeed& take) {
  const Json root = parse_json(saved(small_byte_level()), "seed");
  std::string merges = "#version: 0.2\n";
  for (const Json& merge : root["model"]["merges"].items()) {
    merges += merge.is_string() ? merge.string() : merge.items()[0].string() + " " + merge.items()[1].string();
    merges += '\n';
  }
  Json vocab = root["model"]["vocab"];
  if (!vocab.contains("<|endoftext|>")) vocab["<|endoftext|>"] = vocab.size();
  take(vocab.dump() + std::string(1, '\0') + merges);
}

// Tokenizers against plain ones

/// Byte-pair encoding by its definition: of all neighbours the merge that came first, the leftmost of these.
template <class RankOf>
void merge_plainly(Tokens& tokens, RankOf&& rank_of) {
  for (;;) {
    std::optional<std::pair<std::uint32_t, Token>> best;  // rank, result
    std::size_t at = 0;
    for (std::size_t i = 0; i + 1 < tokens.size(); ++i) {
      const auto merge = rank_of(tokens[i], tokens[i + 1]);
      if (merge && (!best || merge->first < best->first)) best = merge, at = i;
    }
    if (!best) return;
    tokens[at] = best->second;
    tokens.erase(tokens.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
}

/// A vocabulary of merges that the input chooses, and a text.
void byte_level_bpe(std::string_view input) {
  Bytes bytes(input);
  TokenizerParts parts = byte_parts();
  std::map<std::string, Token> numbers;
  const auto number = [&](const std::string& name) { numbers.emplace(name, static_cast<Token>(numbers.size())); };
  for (const auto& entry : parts.vocabulary) number(entry.bytes);
  std::map<std::pair<Token, Token>, std::pair<std::uint32_t, Token>> ranks;
  for (std::size_t count = bytes.below(24); count > 0; --count) {
    const auto part = [&] {
      const std::size_t letter = bytes.below(256);
      // Half of them are earlier merges, so that merges are of merges.
      if (letter < 128 || parts.merges.empty()) return numbers.at(std::string(1, static_cast<char>(letter)));
      return static_cast<Token>(256 + letter % parts.merges.size());
    };
    const Token left = part(), right = part();
    const std::string name = parts.vocabulary[static_cast<std::size_t>(left)].bytes +
                             parts.vocabulary[static_cast<std::size_t>(right)].bytes;
    if (numbers.contains(name) || name.size() > 64) continue;
    const auto rank = static_cast<std::uint32_t>(parts.merges.size());
    ranks[{left, right}] = {rank, static_cast<Token>(parts.vocabulary.size())};
    parts.merges.push_back({left, right});
    number(name);
    parts.vocabulary.push_back({name, false});
  }
  parts.vocabulary.push_back({"<|endoftext|>", true});
  const std::string text(bytes.rest());
  const Tokenizer tokenizer{ByteLevelBpe(parts)};

  const Tokens tokens = tokenizer.encode(text);
  expect(tokenizer.decode(tokens) == text, "a text comes back as another one");
  Tokens plain;
  std::size_t covered = 0;
  tinymoe::detail::for_each_piece(text, [&](std::string_view piece) {
    Tokens part;
    for (const char byte : piece) part.push_back(numbers.at(std::string(1, byte)));
    merge_plainly(part, [&](Token a, Token b) {
      const auto found = ranks.find({a, b});
      return found != ranks.end() ? std::optional(found->second) : std::nullopt;
    });
    plain.insert(plain.end(), part.begin(), part.end());
    covered += piece.size();
  });
  expect(covered == text.size(), "pieces do not make the text");
  expect(tokens == plain, "a text has other tokens than by plain merging");
  Encoder encoder(tokenizer);
  Tokens twice;
  for (int i = 0; i < 2; ++i) encoder.encode(text, twice);
  expect(
      twice.size() == 2 * tokens.size() && std::equal(tokens.begin(), tokens.end(), twice.begin() + std::ssize(tokens)),
      "a text that was encoded before has other tokens");

  // The reader of other kinds takes the same file, and must encode the same.
  if (find_invalid_utf8(text) != std::string_view::npos) return;
  const std::string file = saved(tokenizer);
  const auto kind = tinymoe::detail::other_tokenizer_reader(parse_json(file, "saved"), file, "saved");
  Tokens other;
  kind->encoder()->encode(text, other);
  expect(other == tokens, "a tokenizer.json has other tokens as a pipeline");
  expect(kind->decode(other) == text, "a pipeline decodes to another text");
}

void byte_level_bpe_seeds(const TakeSeed& take) {
  take("\x05ththe \x80\x81 athe other the \xc3\xa9t's 123  x");
  take(std::string("\x03") +
       "aa\x80\x80\x81"
       "aaaaaaaaaaaaaaaaaa aaaaaaa");
  take("");
}

/// What llama2.c's `encode` does, literally: by the text of neighbours.
Tokens encode_as_llama2c(const std::vector<Piece>& pieces, std::string_view text) {
  const auto find = [&](std::string_view name) -> std::optional<Token> {
    for (std::size_t id = 259; id < pieces.size(); ++id) {
      if (pieces[id].name == name) return static_cast<Token>(id);
    }
    return std::nullopt;
  };
  Tokens tokens;
  const auto add = [&](std::string_view character) {
    if (const auto id = find(character == "\xe2\x96\x81" ? " " : character)) return tokens.push_back(*id);
    for (const char byte : character == "\xe2\x96\x81" ? std::string_view(" ") : character) {
      tokens.push_back(static_cast<unsigned char>(byte) + 3);
    }
  };
  if (!text.empty()) add(" ");
  for (std::size_t at = 0, end = 0; at < text.size(); at = end) {
    for (end = at + 1; end < text.size() && end - at < 4 && (text[end] & 0xc0) == 0x80;) ++end;
    add(text.substr(at, end - at));
  }
  for (;;) {
    float best_score = -1e10f;
    std::optional<Token> best;
    std::size_t best_at = 0;
    for (std::size_t i = 0; i + 1 < tokens.size(); ++i) {
      const auto name = [&](std::size_t at) -> std::string_view {
        return tokens[at] < 259 ? std::string_view() : pieces[static_cast<std::size_t>(tokens[at])].name;
      };
      if (name(i).empty() || name(i + 1).empty()) continue;  // bytes are not merged
      const auto id = find(std::string(name(i)).append(name(i + 1)));
      if (!id || !(pieces[static_cast<std::size_t>(*id)].score > best_score)) continue;
      best_score = pieces[static_cast<std::size_t>(*id)].score, best = id, best_at = i;
    }
    if (!best) return tokens;
    tokens[best_at] = *best;
    tokens.erase(tokens.begin() + static_cast<std::ptrdiff_t>(best_at) + 1);
  }
}

void llama2c_bpe(std::string_view input) {
  Bytes bytes(input);
  std::vector<Piece> pieces = llama2c_bytes();
  if (bytes.below(4) > 0) pieces.push_back({" ", -1});
  for (std::size_t count = bytes.below(24); count > 0; --count) {
    const std::string name(bytes.text(1 + bytes.below(4)));
    if (!name.empty()) pieces.push_back({name, static_cast<float>(bytes.take<std::int8_t>())});
  }
  const std::string_view text = bytes.rest();
  const auto tokenizer = Tokenizer::load_llama2c(write_scratch("tokenizer.bin", llama2c_bin(pieces)));
  const Tokens tokens = tokenizer.encode(text);
  expect(tokens == encode_as_llama2c(pieces, text), "a text has other tokens than llama2.c's");
  std::string expected;
  for (std::size_t at = 0, end = 0; at < text.size(); at = end) {
    for (end = at + 1; end < text.size() && end - at < 4 && (text[end] & 0xc0) == 0x80;) ++end;
    const auto character = text.substr(at, end - at);
    expected += character == "\xe2\x96\x81" ? std::string_view(" ") : character;
  }
  expect(tokenizer.decode(tokens) == expected, "a text comes back as another one");
}

void llama2c_bpe_seeds(const TakeSeed& take) {
  take(
      std::string("\x01\x05\x00"
                  "a\xff\x00"
                  "b\xfe\x01"
                  "ab\xfd\x01 a\xfc\x02"
                  "\xe2\x96\x81\x05"
                  "ab a b\xe2\x96\x81"
                  "aab \xff\xc3\xa9",
                  38));
  take("");
}

/// A tokenizer that is learnt from a text gives it back.
void learnt_bpe(std::string_view input) {
  Bytes bytes(input);
  const std::size_t more = bytes.below(64);
  const std::string_view text = bytes.rest();
  accepts([&] {
    const Tokenizer tokenizer = train_tokenizer(StoryList{text}, {.vocabulary = static_cast<Index>(257 + more)});
    expect(tokenizer.decode(tokenizer.encode(text)) == text, "a text comes back as another one");
    use_and_save(tokenizer);
  });
}

void learnt_bpe_seeds(const TakeSeed& take) {
  take("\x10the cat sat on the mat the end \xc3\xa9\xc3\xa9\xc3\xa9");
  take(
      "\x20"
      "aaaaaaaaaaaaaaaaaaaaaaaa");
}

constexpr Harness harnesses[] = {
    {"tokenizer_json", tokenizer_json, tokenizer_json_seeds, 1 << 16, 4 * json_memory_factor, "tokenizer_json",
     2 << 20},  // a table of merges that a small file may fill
    {"sentencepiece", sentencepiece, sentencepiece_seeds, 1 << 13, 4 * json_memory_factor},
    {"llama2c_tokenizer", llama2c_tokenizer, llama2c_tokenizer_seeds, 1 << 13, 4 * json_memory_factor},
    {"gpt2_files", gpt2_files, gpt2_files_seeds, 1 << 13, 4 * json_memory_factor, "tokenizer_json"},
    {"byte_level_bpe", byte_level_bpe, byte_level_bpe_seeds, 1 << 9, json_memory_factor},
    {"llama2c_bpe", llama2c_bpe, llama2c_bpe_seeds, 1 << 9, json_memory_factor},
    {"learnt_bpe", learnt_bpe, learnt_bpe_seeds, 1 << 9, json_memory_factor},
};

}  // namespace texts

std::span<const Harness> text_harnesses() { return texts::harnesses; }

}  // namespace tinymoe_fuzz
