#include "tinymoe/text/corpus.hpp"

#if defined(TINYMOE_TEST_ZLIB)
#include "tinymoe/files/gzip.hpp"
#endif
#include <set>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/data.hpp"
#include "text/samples.hpp"
#include "tinymoe/text/selected_stories.hpp"
#include "tinymoe/text/story_files.hpp"

namespace tinymoe_test::corpus {

using namespace tinymoe;
using Stories = std::vector<std::string>;

namespace {

Stories stories_of(const std::string& text, CorpusOptions options = {}) {
  TemporaryFolder folder;
  write_bytes(folder / "stories.txt", text);
  Stories stories;
  TextCorpus(folder / "stories.txt", options).for_each_story([&](std::string_view story) {
    stories.emplace_back(story);
  });
  return stories;
}

Stories all_of(const auto& source) {
  Stories stories;
  source.for_each_story([&](std::string_view story) { stories.emplace_back(story); });
  return stories;
}

/// The stories of a file of this name and content.
Stories stories_in(const std::string& name, const std::string& content, StoryFileOptions options = {}) {
  TemporaryFolder folder;
  write_bytes(folder / name, content);
  return all_of(StoryFiles(folder / name, options));
}
/// What is said of it, from its name on.
std::string refusal_of(const std::string& name, const std::string& content, StoryFileOptions options = {}) {
  const auto message = message_if_any<Error>([&] { stories_in(name, content, options); });
  return message.substr(std::min(message.find(name), message.size()));
}

}  // namespace

TEST_CASE("Stories are split at the marker and trimmed", "[corpus]") {
  CHECK(stories_of("One.\n<|endoftext|>\nTwo.\n<|endoftext|>\n") == Stories{"One.", "Two."});
  CHECK(stories_of("One.<|endoftext|>Two.") == Stories{"One.", "Two."});
  CHECK(stories_of("One.\nStill one.\n\n<|endoftext|>\n\n  Two. \t") == Stories{"One.\nStill one.", "Two."});
  CHECK(stories_of("One.\r\nMore.\r\n<|endoftext|>\r\nTwo.\r\n") == Stories{"One.\r\nMore.", "Two."});
  CHECK(stories_of("") == Stories{});
  CHECK(stories_of(" \n\t") == Stories{});
  CHECK(stories_of("<|endoftext|>") == Stories{});
  CHECK(stories_of("<|endoftext|>\n<|endoftext|>\nOne.<|endoftext|><|endoftext|>") == Stories{"One."});
  CHECK(stories_of("no marker") == Stories{"no marker"});
  CHECK(stories_of("almost <|endoftext| > and <|endoftext") == Stories{"almost <|endoftext| > and <|endoftext"});
  CHECK(stories_of("<<|endoftext|>>") == Stories{"<", ">"});
  CHECK(stories_of("\xef\xbb\xbfOne.") == Stories{"One."});
  CHECK(stories_of(std::string("nul \0 inside", 12)) == Stories{std::string("nul \0 inside", 12)});
}

TEST_CASE("Chunks of any size give the same stories", "[corpus]") {
  const std::string text = "\xef\xbb\xbfOne é.\n<|endoftext|>\n<|endoftext|>Two 中 <|endof <|endoftext|>\nThree 👋.\n";
  const Stories expected = {"One é.", "Two 中 <|endof", "Three 👋."};
  for (std::size_t chunk = 1; chunk <= text.size() + 1; ++chunk) {
    CAPTURE(chunk);
    CHECK(stories_of(text, {.chunk = chunk}) == expected);
  }
}

TEST_CASE("A story beyond the limit comes in parts", "[corpus]") {
  const std::string words = "one two three four five six seven eight nine ten eleven twelve";
  for (const std::size_t chunk : {1, 7, 20, 1000}) {
    CAPTURE(chunk);
    CHECK(stories_of(words + "<|endoftext|>next", {.chunk = chunk, .longest_story = 24}) ==
          Stories{"one two three four five", "six seven eight nine", "ten eleven twelve", "next"});
    CHECK(stories_of(std::string(40, 'x'), {.chunk = chunk, .longest_story = 16}) ==
          Stories{std::string(16, 'x'), std::string(16, 'x'), std::string(8, 'x')});
    // Never within a character: 15 bytes of the 16 hold five whole ones.
    CHECK(stories_of("中中中中中中中", {.chunk = chunk, .longest_story = 16}) == Stories{"中中中中中", "中中"});
    CHECK(stories_of(std::string(400, ' ') + "x", {.chunk = chunk, .longest_story = 16}) == Stories{"x"});
  }
}

TEST_CASE("Text that is not UTF-8 is refused at its byte", "[corpus]") {
  TemporaryFolder folder;
  const auto path = folder / "latin1.txt";
  const auto message = [&](const std::string& text, CorpusOptions options = {}) {
    write_bytes(path, text);
    return message_if_any<FileError>([&] { TextCorpus(path, options).for_each_story([](std::string_view) {}); });
  };
  CHECK(message("caf\xe9 au lait") == path.string() + ": expected UTF-8 text, found another byte at offset 3");
  const std::string far = "\xef\xbb\xbf" + std::string(100, ' ') + "é<|endoftext|>\n\n  ok \xff";
  for (const std::size_t chunk : {1, 13, 64, 1000}) {
    CHECK(contains(message(far, {.chunk = chunk, .longest_story = 32}), "offset " + std::to_string(far.size() - 1)));
  }
  CHECK(contains(message("cut \xe4\xb8"), "offset 4"));
  CHECK(contains(message(std::string("\xff\xfeO\0n\0", 6)), "offset 0"));  // UTF-16
}

TEST_CASE("A file that is no text file is refused", "[corpus]") {
  TemporaryFolder folder;
  CHECK(contains(message_if_any<FileError>([&] { TextCorpus(folder / "absent.txt"); }), "absent.txt"));
  CHECK(contains(message_if_any<FileError>([&] { TextCorpus(folder.path()); }), "expected a text file"));
}

TEST_CASE("Lists and functions are sources of stories", "[corpus]") {
  const StoryList list = {"One.", "", "Three."};
  Stories stories;
  list.for_each_story([&](std::string_view story) { stories.emplace_back(story); });
  CHECK(stories == Stories{"One.", "", "Three."});
  CHECK(list.size() == 3);
  CHECK(list.bytes() == 10);

  stories.clear();
  GeneratedStories(3, [](Index i) { return "Story " + std::to_string(i); }).for_each_story([&](std::string_view story) {
    stories.emplace_back(story);
  });
  CHECK(stories == Stories{"Story 0", "Story 1", "Story 2"});

  Index blocks = 0, count = 0;
  tinymoe::detail::for_each_block(GeneratedStories(50, [](Index) { return std::string(100000, 'x'); }),
                                  [&](StoryList&& block) {
                                    ++blocks;
                                    count += block.size();
                                  });
  CHECK(blocks == 5);
  CHECK(count == 50);
}

TEST_CASE("Stories in JSON come by lines or as an array, whatever the chunks", "[corpus]") {
  const std::string lines =
      "\xef\xbb\xbf{\"text\": \" One \\u00e9.\\n\", \"n\": {\"text\": 1}}\r\n\n  {\"story\": \"Two \\\" \\\\\"}\n"
      "\"Three\"\n{\"text\": \"\"}\n{\"text\": \"Four<|endoftext|>Five\"}";
  const Stories expected = {"One é.", "Two \" \\", "Three", "Four", "Five"};
  const std::string array =
      " [\n{\"story\": \" One é.\", \"words\": [\"a]\", {\"b\": \"}\\\"\"}]},\n\n{\"text\":\n\"Two \\\" \\\\\"}"
      ",\"Three\" , {\"text\": \"Four<|endoftext|>Five\"}\n]\n";
  for (std::size_t chunk = 1; chunk < 12; ++chunk) {
    CAPTURE(chunk);
    CHECK(stories_in("a.jsonl", lines, {.text = {.chunk = chunk}}) == expected);
    CHECK(stories_in("a.json", array, {.text = {.chunk = chunk}}) == expected);
  }
  CHECK(stories_in("a.JSON", lines) == expected);
  CHECK(stories_in("a.ndjson", array) == expected);
  CHECK(stories_in("a.json", "") == Stories{});
  CHECK(stories_in("a.json", " [ ] ") == Stories{});
  const std::string named = "{\"text\": \"no\", \"body\": \"yes\"}\n";
  CHECK(stories_in("a.jsonl", named, {.field = "body"}) == Stories{"yes"});
  CHECK(stories_in("a.jsonl", "\"" + std::string(40, 'x') + "\"", {.text = {.longest_story = 16}}) ==
        Stories{std::string(16, 'x'), std::string(16, 'x'), std::string(8, 'x')});
}

TEST_CASE("A wrong value of JSON is told with its line", "[corpus]") {
  const std::string good = "{\"text\": \"One.\"}\n";
  const auto lines = [&](const std::string& wrong, const std::string& field = {}) {
    return refusal_of("a.jsonl", good + "\n" + wrong, {.field = field, .text = {.chunk = 7}});
  };
  CHECK(lines("{\"text\": \"Tw") ==
        "a.jsonl: line 3: JSON is cut or corrupt at byte 13: expected the end of a string, in "
        "which control characters are escaped, found the end");
  CHECK(contains(lines("{\"text\": \"Two\"\n" + good), "a.jsonl: line 3: JSON is cut or corrupt"));
  CHECK(lines("{\"row\": {\"text\": \"Two\"}, \"n\": 1}") ==
        "a.jsonl: line 3: expected the field \"text\" or \"story\", found \"row\", \"n\"");
  CHECK(contains(lines("{}"), "found no field"));
  CHECK(lines("{\"text\": [1]}") == "a.jsonl: line 3: expected the story as a string in \"text\", found array");
  CHECK(lines("{\"text\": null}") == "a.jsonl: line 3: expected the story as a string in \"text\", found null");
  CHECK(lines("{\"story\": 7}") == "a.jsonl: line 3: expected the story as a string in \"story\", found number");
  CHECK(contains(lines("{\"text\": \"a\", \"story\": \"b\"}"),
                 "line 3: has the fields \"text\" and \"story\"; name the one"));
  CHECK(contains(lines("12"), "line 3: expected an object with the story, found a number"));
  CHECK(contains(lines("null"), "found null"));
  CHECK(contains(lines("Once upon a time"), "line 3: JSON is cut or corrupt at byte 1: expected a value, found 'O'"));
  CHECK(contains(lines("{\"text\": \"caf\xe9\"}"), "line 3: JSON is cut or corrupt at byte 14: expected UTF-8"));
  CHECK(contains(lines(std::string(100, '[')), "line 3: JSON is nested deeper than 64"));
  CHECK(
      contains(refusal_of("a.jsonl", good, {.field = "body"}), "line 1: expected the field \"body\", found \"text\""));
  CHECK(contains(refusal_of("a.jsonl", "\"One.\"", {.field = "body"}), "expected an object with the story"));

  const auto array = [&](const std::string& wrong) {
    return refusal_of("a.json", "[\"One.\",\n\n" + wrong, {.text = {.chunk = 5}});
  };
  CHECK(array("{\"text\": \"Two") ==
        "a.json: line 3, value 2 of the array: JSON is cut: expected the end of a string, found "
        "the end of the file");
  CHECK(contains(array("\"Two\\"), "line 3, value 2 of the array: JSON is cut: expected the end of a string"));
  CHECK(contains(array("\"Two\""), "line 3, value 2 of the array: JSON is cut: expected ',' or ']'"));
  CHECK(contains(array("\"Two\", ]"), "line 3, value 3 of the array: JSON is cut or corrupt at byte 1"));
  CHECK(contains(array("\"Two\" \"Three\"]"), "line 3, value 2 of the array: JSON is cut or corrupt at byte 7"));
  CHECK(contains(array("\"T\nwo\",\n{\"x\": 1}]"), "line 3, value 2"));
  CHECK(contains(array("\"Two\",\n{\"x\":\n1}]"), "line 4, value 3 of the array: expected the field"));
  CHECK(contains(array("\"Two\"]\n["), "a.json: line 4: expected the end of the file behind the array"));
  CHECK(contains(array("\"Two\"}]"), "line 3, value 2"));
  CHECK(contains(refusal_of("a.json", "["), "JSON is cut"));
}

TEST_CASE("A value of JSON that is too long is refused before it is read", "[corpus]") {
  struct Endless final : ByteReader {
    std::size_t left = std::size_t{66} << 20;
    char first;
    explicit Endless(char byte) : first(byte) {}
    std::size_t read(std::span<char> to) override {
      const std::size_t count = std::min(left, to.size());
      std::fill_n(to.begin(), count, 'x');
      if (count > 0 && first != 0) to[0] = std::exchange(first, '\0');
      left -= count;
      return count;
    }
  };
  for (const char first : {'"', '['}) {
    Endless reader(first);
    tinymoe::detail::JsonStories stories(reader, "a.json", {}, std::size_t{1} << 20);
    CHECK(contains(message_if_any<FileError>([&] { stories.pass([](std::string_view) {}); }),
                   "a value of at most 64 MiB"));
    CHECK(reader.left > 0);
  }
}

TEST_CASE("A file that is not what its name says is refused", "[corpus]") {
  CHECK(refusal_of("a.txt", "{\"text\": \"One.\"}\n{\"text\": \"Two.\"}\n") ==
        "a.txt: begins as JSON; name it .jsonl or .json");
  CHECK(refusal_of("a.txt", "[ {\"story\": \"One.\"}]") == "a.txt: begins as JSON; name it .jsonl or .json");
  const Stories kept = {"{\"name\": 1} is JSON.", "[One] \"text\"", "[\"One\"]"};
  for (const std::string& text : kept) CHECK(stories_in("a.txt", text) == Stories{text});
  CHECK(refusal_of("a.txt.gz", "One.") == "a.txt.gz: expected a gzipped file, found another");
  CHECK(contains(refusal_of("a.txt", "PAR1…"), "is a Parquet file; name it .parquet"));
  CHECK(contains(refusal_of("a.parquet", "PAR1…"), "was built without Arrow"));
  CHECK(contains(refusal_of("a.bin", "One."), "has tokens; expected stories as text"));
  CHECK(contains(refusal_of("a.txt", "\x1f\x8b\x08"), "is gzipped, and this program was built without zlib"));
}

#if defined(TINYMOE_TEST_ZLIB)
namespace {

std::string gzip(std::string text) {
  std::string packed(text.size() + 1000, '\0');
  z_stream stream = {};
  deflateInit2(&stream, 6, Z_DEFLATED, MAX_WBITS + 16, 8, Z_DEFAULT_STRATEGY);
  stream.next_in = reinterpret_cast<Bytef*>(text.data());
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = static_cast<uInt>(packed.size());
  deflate(&stream, Z_FINISH);
  packed.resize(stream.total_out);
  deflateEnd(&stream);
  return packed;
}

}  // namespace

TEST_CASE("Gzipped stories are read, of several members too", "[corpus]") {
  const StoryFileOptions options{.gzip = open_gzip};
  const std::string one = gzip("One.<|endof"), two = gzip("text|>Two."), empty = gzip("");
  const Stories expected = {"One.", "Two."};
  CHECK(stories_in("a.txt.gz", one + two, options) == expected);
  CHECK(stories_in("a.txt", one + empty + two + std::string(1000, '\0'), options) == expected);
  CHECK(stories_in("a.jsonl.gz", gzip("\"One.\"\n\"Two.\"\n"), options) == expected);
  CHECK(stories_in("a.json.gz", gzip("[\"One.\",\"Two.\"]"), options) == expected);
  CHECK(stories_in("a.txt.gz", empty, options) == Stories{});
  std::string longer;
  for (int i = 0; i < 100000; ++i) longer += std::to_string(i * 7919) + " ";
  longer.pop_back();
  const std::string packed = gzip(longer);
  REQUIRE(packed.size() > std::size_t{1} << 16);  // more than the reader's buffer
  CHECK(stories_in("a.txt.gz", packed + packed, {.gzip = open_gzip, .text = {.chunk = 1000}}) ==
        Stories{longer + longer});

  for (std::size_t size = 3; size < one.size(); ++size) {
    CHECK(refusal_of("a.txt.gz", one.substr(0, size), options) ==
          "a.txt.gz: is cut: its gzip data end at byte " + std::to_string(size));
  }
  CHECK(contains(refusal_of("a.txt.gz", one + two.substr(0, 12), options), "is cut"));
  CHECK(contains(refusal_of("a.txt.gz", one + "more", options), "a.txt.gz: its gzip data are corrupt at byte"));
  CHECK(contains(refusal_of("a.txt.gz", one + std::string("\0\0x", 3), options),
                 "has other bytes behind its gzip data, at byte " + std::to_string(one.size() + 3)));
  for (std::size_t at = 10; at < packed.size(); at += 997) {  // behind the header, any bit
    std::string wrong = packed;
    wrong[at] = static_cast<char>(wrong[at] ^ 4);
    const std::string message = refusal_of("a.txt.gz", wrong, options);
    CHECK((contains(message, "corrupt at byte") || contains(message, "is cut") || contains(message, "UTF-8")));
  }
}
#endif

TEST_CASE("Folders and patterns are their files in a fixed order", "[corpus]") {
  TemporaryFolder folder;
  const auto put = [&](const std::string& name, const std::string& text) {
    std::filesystem::create_directories((folder / name).parent_path());
    write_bytes(folder / name, text);
  };
  CHECK(contains(message_if_any<FileError>([&] { StoryFiles(folder.path()); }), "has no file of stories"));
  put("b.txt", "b<|endoftext|>B");
  put("B.jsonl", "\"first\"");
  put("a10.txt", "a10");
  put("a9.txt", "a9");
  put("c/d.json", "[\"d\"]");
  put("README.md", "not a story");
  put(".hidden.txt", "not a story");
  put(".cache/a.txt", "not a story");
  std::filesystem::create_directory_symlink("..", folder / "c" / "loop");
  CHECK(all_of(StoryFiles(folder.path())) == Stories{"first", "a10", "a9", "b", "B", "d"});
  CHECK(all_of(StoryFiles(folder / "a*.txt")) == Stories{"a10", "a9"});
  CHECK(all_of(StoryFiles(folder / "[bc]*")) == Stories{"b", "B", "d"});
  CHECK(all_of(StoryFiles({folder / "b.txt", folder / "a?.txt"})) == Stories{"b", "B", "a9"});
  CHECK(contains(message_if_any<FileError>([&] { StoryFiles(folder / "z*"); }), "z*: no file has a name like this"));
  put("z[1].txt", "a name, no pattern");
  CHECK(all_of(StoryFiles(folder / "z[1].txt")) == Stories{"a name, no pattern"});
  put("t.bin", "tokens");
  CHECK(contains(message_if_any<FileError>([&] { StoryFiles(folder.path()); }), "name files of one kind"));
  CHECK(contains(message_if_any<FileError>([&] { StoryFiles(folder / "none.txt"); }), "none.txt"));
  CHECK(StoryFiles({folder / "b.txt", folder / "a9.txt"}).name() == (folder / "b.txt").string() + " and 1 more");
}

TEST_CASE("A part of the stories is shuffled, skipped, taken", "[corpus]") {
  const StoryList list = {"a", "b", "c", "d", "e", "f", "g"};
  const auto part = [&](StorySelection selection, std::size_t memory = 1000) {
    return all_of(SelectedStories(list, selection, memory));
  };
  CHECK(part({}) == all_of(list));
  CHECK(part({.skip = 2}) == Stories{"c", "d", "e", "f", "g"});
  CHECK(part({.count = 2}) == Stories{"a", "b"});
  CHECK(part({.skip = 5, .count = 2}) == Stories{"f", "g"});
  const Stories shuffled = part({.shuffle_seed = 7});
  CHECK(shuffled != all_of(list));
  CHECK(std::set(shuffled.begin(), shuffled.end()).size() == 7);
  CHECK(part({.shuffle_seed = 8}) != shuffled);
  for (const std::size_t memory : {0, 1, 2, 3, 100}) CHECK(part({.shuffle_seed = 7}, memory) == shuffled);
  CHECK(part({.shuffle_seed = 7, .skip = 2, .count = 3}, 2) == Stories(shuffled.begin() + 2, shuffled.begin() + 5));
  CHECK(shuffled == Stories{"e", "g", "c", "d", "a", "f", "b"});  // the same on every machine and in every version

  CHECK(message_if_any<TextError>([&] { part({.skip = 3, .count = 5}); }) ==
        "expected 5 stories behind the first 3, found 4; there are 7 in all");
  CHECK(
      contains(message_if_any<TextError>([&] { part({.skip = 7}); }), "expected 1 stories or more behind the first 7"));
  CHECK(contains(message_if_any<TextError>([&] { part({.shuffle_seed = 1, .count = 8}); }),
                 "expected 8 stories, found 7"));
  CHECK(contains(message_if_any<OptionError>([&] { part({.skip = -1}); }), "-1"));
  CHECK(contains(message_if_any<OptionError>([&] { part({.count = 0}); }), "count"));
  // What is not needed is not read, and what the visitor throws comes through.
  const GeneratedStories endless(5, [](Index i) { return i < 2 ? std::to_string(i) : throw TextError("too far"); });
  CHECK(all_of(SelectedStories(endless, {.count = 2})) == Stories{"0", "1"});
  CHECK_THROWS_AS(SelectedStories(list, {.count = 2}).for_each_story([](std::string_view) { throw 1; }), int);
}

}  // namespace tinymoe_test::corpus
