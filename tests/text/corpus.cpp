#include "tinymoe/text/corpus.hpp"

#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/data.hpp"
#include "text/samples.hpp"

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

}  // namespace tinymoe_test::corpus
