// Harnesses of texts: tokenizers of each kind and their files, story files, token files; and tokenizers against plain
// ones.

#include <cstdio>
#include <map>
#include <optional>
#include <utility>

#ifdef TINYMOE_FUZZ_ZLIB
#include "tinymoe/files/gzip.hpp"
#endif
#include "fuzz/harness.hpp"
#include "fuzz/tokenizers.hpp"
#include "tinymoe/core/utf8.hpp"
#include "tinymoe/files/json.hpp"
#include "tinymoe/text/bpe_trainer.hpp"
#include "tinymoe/text/pipeline/pipeline.hpp"
#include "tinymoe/text/sentencepiece/export.hpp"
#include "tinymoe/text/story_files.hpp"
#include "tinymoe/text/token_data.hpp"
#include "tinymoe/text/token_files.hpp"
#include "tinymoe/text/tokenizer.hpp"

namespace tinymoe_fuzz {

using Tokens = std::vector<Token>;

namespace texts {

using tinymoe::detail::Merge;
using tinymoe::detail::TokenizerParts;

// Tokenizers that were read

constexpr std::string_view sample_texts[] = {"",
                                             "Once upon a time, there was 1 (one) cat.",
                                             "  two\n\n\tlines \r\n",
                                             "\xc3\xa9\xe4\xb8\xad\xf0\x9f\x91\x8b\xe2\x96\x81x e\xcc\x81",
                                             "<|endoftext|></s><s>",
                                             "\xff\xc3 \xed\xa0\x80"};

}  // namespace texts

void use(const Tokenizer& tokenizer) {
  const Index size = tokenizer.vocabulary_size();
  expect(size > 0, "a tokenizer without tokens");
  for (const Token token : {Token(0), static_cast<Token>(size - 1)}) static_cast<void>(tokenizer.bytes(token));
  for (const std::string_view text : texts::sample_texts) {
    Tokens tokens;
    const bool encoded = accepts([&] { tokens = tokenizer.encode(text); });
    if (!encoded) continue;
    for (const Token token : tokens) expect(token >= 0 && token < size, "a text has a token that is none");
    const std::string whole = tokenizer.decode(tokens);
    std::string pieces;
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      pieces += tokenizer.decode_after(std::span(tokens).first(i), std::span(tokens).subspan(i, 1));
    }
    expect(pieces == whole, "a text decoded token by token is another one");
  }
}

/// Saved and loaded again, it encodes the same.
void use_and_save(const Tokenizer& tokenizer) {
  use(tokenizer);
  const auto path = scratch() / (std::string("saved.") + tokenizer.file_name());
  if (!accepts([&] { tokenizer.save(path); })) return;
  const auto again = Tokenizer::load(path);
  expect(again.fingerprint() == tokenizer.fingerprint(), "a saved tokenizer is another one");
  for (const std::string_view text : texts::sample_texts) {
    Tokens one, other;
    const bool encoded = accepts([&] { one = tokenizer.encode(text); });
    expect(accepts([&] { other = again.encode(text); }) == encoded && one == other,
           "a saved tokenizer encodes otherwise");
  }
}

namespace texts {

void tokenizer_json(std::string_view input) {
  accepts([&] { use_and_save(Tokenizer::load(write_scratch("tokenizer.json", input))); });
}

TokenizerParts byte_parts() {
  TokenizerParts parts;
  for (const unsigned char byte : tinymoe::detail::byte_alphabet.in_order) {
    parts.vocabulary.push_back({std::string(1, static_cast<char>(byte)), false});
  }
  return parts;
}

}  // namespace texts

Tokenizer small_byte_level() {
  tinymoe::detail::TokenizerParts parts = texts::byte_parts();
  const auto find = [&](std::string_view bytes) {
    const auto found = std::find_if(parts.vocabulary.begin(), parts.vocabulary.end(),
                                    [&](const auto& entry) { return entry.bytes == bytes; });
    return static_cast<Token>(found - parts.vocabulary.begin());
  };
  for (const auto& [left, right] : {std::pair{"t", "h"}, {"th", "e"}, {" ", "the"}}) {
    parts.merges.push_back({find(left), find(right)});
    parts.vocabulary.push_back({std::string(left) + right, false});
  }
  parts.vocabulary.push_back({"<|endoftext|>", true});
  return Tokenizer(ByteLevelBpe(parts));
}

namespace texts {

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

// Story files

/// What a file's stories are when it is read in chunks of some size; `refused` where it was, behind the stories so far.
struct Stories {
  std::vector<std::string> texts;
  bool refused = false;
  friend bool operator==(const Stories&, const Stories&) = default;
};

Stories stories_of(const std::filesystem::path& path, std::size_t chunk, std::size_t longest) {
  StoryFileOptions options;
  options.text.chunk = chunk;
  options.text.longest_story = longest;
#ifdef TINYMOE_FUZZ_ZLIB
  options.gzip = open_gzip;
#endif
  Stories found;
  found.refused = !accepts([&] {
    const StoryFiles files(path, options);
    files.identity();
    files.for_each_story([&](std::string_view story) {
      expect(!story.empty() && find_invalid_utf8(story) == std::string_view::npos, "a story that is none");
      expect(story.size() <= std::max<std::size_t>(longest, 16), "a story is too long");
      expect(story.find("<|endoftext|>") == std::string_view::npos, "a story has a marker");
      found.texts.emplace_back(story);
    });
  });
  return found;
}

constexpr const char* story_names[] = {"a.txt", "a.jsonl", "a.json", "a.txt.gz", "a.json.gz", "a"};

void story_files(std::string_view input) {
  Bytes bytes(input);
  const std::string name = story_names[bytes.below(std::size(story_names))];
  const std::size_t choice = bytes.below(16), longest = choice % 2 == 0 ? 16 : 4096, chunk = 1 + choice / 2;
  const std::string_view content = bytes.rest();
  const auto path = write_scratch(name, content);
  const Stories whole = stories_of(path, std::size_t{1} << 16, longest);
  // Whether a text begins as JSON is decided by its first chunk.
  const std::size_t first = content.find_first_not_of(" \t\n\v\f\r");
  const bool may_be_json = first != std::string_view::npos && (content[first] == '{' || content[first] == '[');
  if (!name.ends_with("gz") && (name.ends_with(".json") || name.ends_with(".jsonl") || !may_be_json)) {
    // Where a text is not UTF-8 in the middle, smaller chunks may have passed a part of a story that is too long.
    const Stories parts = stories_of(path, chunk, longest);
    expect(parts.refused == whole.refused, "a file is refused in chunks of another size");
    if (!whole.refused) expect(parts == whole, "a file has other stories in chunks of another size");
  }
  std::filesystem::remove(path);
}

#ifdef TINYMOE_FUZZ_ZLIB
std::string gzipped(std::string_view text) {
  z_stream stream{};
  if (::deflateInit2(&stream, 9, Z_DEFLATED, MAX_WBITS + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK) throw std::bad_alloc();
  std::string packed(text.size() + 100, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = static_cast<uInt>(packed.size());
  ::deflate(&stream, Z_FINISH);
  packed.resize(packed.size() - stream.avail_out);
  ::deflateEnd(&stream);
  return packed;
}
#endif

void story_files_seeds(const TakeSeed& take) {
  const std::string text = "Once.<|endoftext|>\n Two of them, which is more than sixteen. <|endoftext|>caf\xc3\xa9";
  const std::string lines = "{\"text\":\"One\"}\n\n{\"text\":\"Tw\\u00e9<|endoftext|>o\",\"x\":[1]}\n";
  const std::string array = " [{\"story\":\"One\"},\n {\"story\":\"T[w]\\\"o\"}]\n";
  const auto seed = [&](std::size_t name, const std::string& content) {
    take(numbered(name, std::string(1, '\0') + content)), take(numbered(name, "\1" + content));
  };
  seed(0, text), seed(1, lines), seed(2, array), seed(5, "\xef\xbb\xbf" + text);
  seed(2, "\xef\xbb\xbf" + lines);
#ifdef TINYMOE_FUZZ_ZLIB
  seed(3, gzipped(text) + gzipped(text) + std::string(5, '\0')), seed(4, gzipped(array));
#endif
}

// Token files

void use_tokens(const TokenData& data, const Tokenizer& tokenizer) {
  Tokens tokens(static_cast<std::size_t>(data.size()));
  if (!accepts([&] { data.copy(0, tokens); })) return;
  for (const Token token : tokens) expect(token >= 0 && token < data.vocabulary_size(), "a token is none");
  accepts([&] {
    const TokenData half = data.stories_between(data.size() / 2, data.size() - data.size() / 2, tokenizer);
    expect(half.size() == data.size() - data.size() / 2 && half.stories() >= 0 && half.text_bytes() >= 0,
           "another half");
  });
}

/// tinymoe's own. The first byte says whether the fingerprint, the hash and the counts are made right.
void token_file(std::string_view input) {
  static const Tokenizer tokenizer = small_byte_level();
  Bytes bytes(input);
  const bool mend = bytes.below(4) != 0;
  std::string file(bytes.rest());
  using tinymoe::detail::TokenFileCounts;
  using tinymoe::detail::TokenFileHeader;
  if (mend && file.size() >= sizeof(TokenFileHeader) + sizeof(TokenFileCounts)) {
    const TokenFileHeader expected = tinymoe::detail::token_file_header(tokenizer, {});
    std::memcpy(file.data() + offsetof(TokenFileHeader, fingerprint), &expected.fingerprint,
                sizeof expected.fingerprint);
    tinymoe::detail::Xxh64 hash;
    hash.bytes(std::as_bytes(std::span(file)).first(file.size() - sizeof(std::uint64_t)));
    const std::uint64_t sum = hash.value();
    std::memcpy(file.data() + file.size() - sizeof sum, &sum, sizeof sum);
  }
  accepts([&] { use_tokens(TokenData::open(write_scratch("tokens.bin", file), tokenizer), tokenizer); });
}

void token_file_seeds(const TakeSeed& take) {
  const Tokenizer tokenizer = small_byte_level();
  const auto path = scratch() / "written.bin";
  TokenData::encode_to_file(StoryList{"the cat", "a", std::string(150, 'x')}, tokenizer, path, 1);
  take(numbered(1, read_file(path))), take(numbered(0, read_file(path)));
}

/// Those of other projects.
void token_files(std::string_view input) {
  static const Tokenizer tokenizer = small_byte_level();
  const auto path = write_scratch("imported.bin", input);
  accepts([&] {
    const TokenFiles files({path}, tokenizer);
    std::size_t tokens = 0;
    files.for_each_story([&](std::string_view story) {
      expect(!story.empty() && story.size() % sizeof(Token) == 0, "a story that is none");
      tokens += story.size() / sizeof(Token);
    });
    expect(tokens <= input.size() / 2, "more tokens than a file has");
    const auto kept = scratch() / "import.tokens";
    std::filesystem::remove(kept);
    use_tokens(TokenData::open_or_import(files, tokenizer, kept), tokenizer);
  });
}

void token_files_seeds(const TakeSeed& take) {
  std::string plain;
  for (const std::uint16_t token : {259, 1, 2, 259, 3, 259}) plain += bytes_of(token);
  take(plain);
  for (const bool long_tokens : {false, true}) {
    std::string bytes = bytes_of(std::int32_t{long_tokens ? 20240801 : 20240520}) +
                        bytes_of(std::int32_t{long_tokens ? 7 : 1}) + bytes_of(std::int32_t{4});
    bytes.resize(1024);
    for (const std::uint16_t token : {259, 1, 2, 3}) bytes += bytes_of(token) + std::string(long_tokens ? 2 : 0, '\0');
    take(bytes);
  }
}

constexpr Harness harnesses[] = {
    {"tokenizer_json", tokenizer_json, tokenizer_json_seeds, 1 << 16, 4 * json_memory_factor, "tokenizer_json"},
    {"sentencepiece", sentencepiece, sentencepiece_seeds, 1 << 13, 4 * json_memory_factor},
    {"llama2c_tokenizer", llama2c_tokenizer, llama2c_tokenizer_seeds, 1 << 13, 4 * json_memory_factor},
    {"gpt2_files", gpt2_files, gpt2_files_seeds, 1 << 13, 4 * json_memory_factor, "tokenizer_json"},
    {"byte_level_bpe", byte_level_bpe, byte_level_bpe_seeds, 1 << 9, json_memory_factor},
    {"llama2c_bpe", llama2c_bpe, llama2c_bpe_seeds, 1 << 9, json_memory_factor},
    {"learnt_bpe", learnt_bpe, learnt_bpe_seeds, 1 << 9, json_memory_factor},
    {"story_files", story_files, story_files_seeds, 1 << 10, json_memory_factor, "json"},
    {"token_file", token_file, token_file_seeds, 1 << 11, 16},
    {"token_files", token_files, token_files_seeds, 1 << 11, 16},
};

}  // namespace texts

std::span<const Harness> text_harnesses() { return texts::harnesses; }

}  // namespace tinymoe_fuzz
