// Harnesses of story files and token files.

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#ifdef TINYMOE_FUZZ_ZLIB
#include "tinymoe/files/gzip.hpp"
#endif
#include "fuzz/harness.hpp"
#include "fuzz/tokenizers.hpp"
#include "tinymoe/core/utf8.hpp"
#include "tinymoe/text/story_files.hpp"
#include "tinymoe/text/token_data.hpp"
#include "tinymoe/text/token_files.hpp"

namespace tinymoe_fuzz {

namespace stories {

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
    {"story_files", story_files, story_files_seeds, 1 << 9, json_memory_factor, "json", chunk_memory},
    {"token_file", token_file, token_file_seeds, 1 << 10, 16},
    {"token_files", token_files, token_files_seeds, 1 << 11, 16, "", chunk_memory},
};

}  // namespace stories

std::span<const Harness> stories_harnesses() { return stories::harnesses; }

}  // namespace tinymoe_fuzz
