// The embedded corpus: it is deterministic, its stories are distinct and can be held out, and its English is good.

#include "tinymoe/text/stories/stories.hpp"

#include <sstream>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "support/catch.hpp"

namespace tinymoe_test::stories {

using namespace tinymoe;

namespace {

struct Told {
  detail::Scene scene;
  std::string text;
  const detail::Plot* plot;
  double outcomes;

  Told(Seed seed, std::uint64_t index) {
    detail::Dice dice(seed, index);
    plot = &detail::tell_story(scene, dice, text);
    outcomes = dice.outcomes();
  }
};

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

/// The runs of letters, in lower case.
std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words;
  bool inside = false;
  for (const char c : text) {
    if (is_letter(c) && !inside) words.emplace_back();
    inside = is_letter(c);
    if (inside) words.back() += detail::lower(c);
  }
  return words;
}

bool contains_any(const std::vector<std::string>& words, std::initializer_list<std::string_view> wanted) {
  for (const auto& word : words)
    for (const auto w : wanted)
      if (word == w) return true;
  return false;
}

/// What is wrong with the story as text; empty if nothing is.
std::string fault_of(std::string_view text) {
  for (const char c : text)
    if (c != '\n' && (c < ' ' || c > '~')) return "a character that is not printable ASCII";
  for (std::string_view bad : {"  ", " \n", "\n ", "\n\n", " .", " ,", " !", " ?", "..",   "!.",  "?.",
                               ".,", "!,",  "?!",  "{",    "}",  "[",  "]",  "|",  "\"\"", ". ,", "<"})
    if (text.find(bad) != std::string_view::npos) return "it contains '" + std::string(bad) + "'";

  std::size_t start = 0;
  while (start < text.size()) {  // each paragraph
    const std::size_t end = std::min(text.find('\n', start), text.size());
    const std::string_view line = text.substr(start, end - start);
    if (std::count(line.begin(), line.end(), '"') % 2 != 0) return "an open quotation";
    const char first = line.front() == '"' ? line[1] : line.front();
    if (first < 'A' || first > 'Z') return "a paragraph that starts small: " + std::string(line);
    if (std::string_view(".!?\"").find(line.back()) == std::string_view::npos) return "a paragraph without a full stop";
    for (std::size_t i = 0; i + 2 < line.size(); ++i)
      if (std::string_view(".!?").find(line[i]) != std::string_view::npos && line[i + 1] == ' ') {
        const char next = line[i + 2] == '"' ? line[i + 3] : line[i + 2];
        if (next < 'A' || next > 'Z') return "a sentence that starts small: " + std::string(line.substr(i));
      }
    start = end + 1;
  }

  const auto words = words_of(text);
  for (std::size_t i = 0; i + 1 < words.size(); ++i) {
    if (words[i] == "a" && detail::wants_an(words[i + 1])) return "'a " + words[i + 1] + "'";
    if (words[i] == "an" && !detail::wants_an(words[i + 1])) return "'an " + words[i + 1] + "'";
    if (words[i] == words[i + 1] && words[i] != "two" && words[i] != "her" &&
        text.find(words[i] + " " + words[i]) != text.npos)
      return "'" + words[i] + "' twice";
  }
  return {};
}

bool may_repeat(const std::string& fault) {  // noises, and a mended drum, repeat themselves on purpose
  for (std::string_view noise : {"'tap'", "'boom'", "'quack'", "'bump'", "'drip'", "'slowly'", "'again'", "'plip'"})
    if (fault.starts_with(noise)) return true;
  return false;
}

}  // namespace

TEST_CASE("a story is a pure function of its seed and index") {
  CHECK(make_story(Seed{1}, 7) == make_story(Seed{1}, 7));
  CHECK(make_story(Seed{1}, 7) != make_story(Seed{2}, 7));
  CHECK(make_story(Seed{1}, 7) != make_story(Seed{1}, 8));
  CHECK(make_story(Seed{1}, 7) != make_story(Seed{1}, 7 + (std::uint64_t{1} << 40)));
}

TEST_CASE("a / an goes by sound") {
  CHECK(detail::wants_an("apple"));
  CHECK(detail::wants_an("hour"));
  CHECK_FALSE(detail::wants_an("dog"));
  CHECK_FALSE(detail::wants_an("unicorn"));
  CHECK(detail::wants_an("umbrella"));
}

TEST_CASE("patterns: choices nest, names are filled in, blanks are tidied") {
  detail::Dice dice(Seed{3}, 0);
  detail::Scene scene;
  scene.set("pet", "owl", dice);
  std::string text;
  scene.expand("{A pet} met [{a pet}|{a pet}].\n\n [|]\n[The [same|same] {pet}\n].", dice, text);
  detail::tidy_blanks(text);
  CHECK(text == "An owl met an owl.\nThe same owl.");
  CHECK(dice.outcomes() == 2 * 2 * 1 * 2);
}

TEST_CASE("200,000 stories: distinct, of the right length, in good English") {
  std::unordered_set<std::size_t> seen;
  std::vector<int> told(std::size(detail::plots));
  std::size_t repeated = 0;
  const int count = 200000;
  for (int i = 0; i < count; ++i) {
    const Told story(Seed{11}, static_cast<std::uint64_t>(i));
    repeated += !seen.insert(std::hash<std::string>{}(story.text)).second;
    ++told[static_cast<std::size_t>(story.plot - detail::plots)];
    const auto words = detail::count_words(story.text);
    const std::string fault = fault_of(story.text);
    if (words < 80 || words > 220 || story.outcomes < 1e15 || (!fault.empty() && !may_repeat(fault))) {
      INFO(fault << " in story " << i << " of " << words << " words:\n" << story.text);
      FAIL();
    }
  }
  CHECK(repeated < count / 1000);
  for (const int times : told) CHECK(times > count / 30);  // 15 plots, each about as often
}

TEST_CASE("the hero is there from beginning to end, and pronouns agree") {
  int all_she = 0, all_he = 0;
  for (std::uint64_t i = 0; i < 20000; ++i) {
    const Told story(Seed{12}, i);
    const std::string hero(story.scene.get("hero"));
    const auto words = words_of(story.text);
    INFO(story.text);
    const std::string_view text = story.text;
    if (text.substr(0, text.size() / 3).find(hero) == text.npos) FAIL("the hero is not in the first third");
    if (text.substr(text.size() - text.size() / 3).find(hero) == text.npos) FAIL("the hero is not in the last third");
    if (hero == story.scene.get("friend")) FAIL("two of one name");
    const std::string own(story.scene.get("he"));
    if (!contains_any(words, {own})) FAIL("the hero's pronoun is missing");
    if (story.scene.get("friend.he") == own && story.scene.get("elder.he") == own) {
      if (own == "she" && contains_any(words, {"he", "him", "his", "himself"})) FAIL("nobody here is a he");
      if (own == "he" && contains_any(words, {"she", "her", "hers", "herself"})) FAIL("nobody here is a she");
      ++(own == "she" ? all_she : all_he);
    }
  }
  CHECK(all_she > 1000);
  CHECK(all_he > 1000);
}

TEST_CASE("what a story turns on comes back at its end") {
  int lost = 0, shared = 0;
  for (std::uint64_t i = 0; lost + shared < 2000; ++i) {
    const Told story(Seed{13}, i);
    const auto value = [&](std::string_view name) { return std::string(story.scene.get(name)); };
    const std::string_view text = story.text;
    INFO(story.text);
    if (story.plot->name == "lost thing") {
      ++lost;
      const std::string spot = value("spot_three");
      if (text.find("near " + spot) == text.npos) FAIL("the hero did not rest where it is found");
      if (text.find("behind " + spot) == text.npos) FAIL("it is not found there");
      if (text.find(value("look") + " " + value("toy")) == text.npos) FAIL("the toy changed");
    }
    if (story.plot->name == "sharing") {
      ++shared;
      if (text.find(value("each") + " for you and " + value("each") + " for me") == text.npos)
        FAIL("not shared evenly");
    }
  }
  CHECK(lost > 500);
  CHECK(shared > 500);
}

TEST_CASE("training and validation stories are held apart, by range or by seed") {
  std::unordered_set<std::string> training;
  EmbeddedStories{.count = 60000, .seed = Seed{1}}.for_each_story([&](std::string_view s) { training.emplace(s); });
  std::size_t shared = 0;
  const auto look = [&](std::string_view s) { shared += training.count(std::string(s)); };
  EmbeddedStories{.count = 20000, .seed = Seed{1}, .first = 60000}.for_each_story(look);
  EmbeddedStories{.count = 20000, .seed = Seed{2}}.for_each_story(look);
  CHECK(shared == 0);
}

TEST_CASE("the corpus as one text ends every story with its mark") {
  const EmbeddedStories stories{.count = 3, .seed = Seed{5}, .first = 40};
  std::string expected;
  for (std::uint64_t i = 40; i < 43; ++i) expected += make_story(Seed{5}, i) + "\n<|endoftext|>\n";
  CHECK(stories.text() == expected);
  std::ostringstream out;
  stories.write(out);
  CHECK(out.str() == expected);
  CHECK(EmbeddedStories{}.text().empty());
}

TEST_CASE("a story holds some ninety bits of choice") {
  double bits = 0, bytes = 0;
  for (std::uint64_t i = 0; i < 1000; ++i) {
    bits += story_bits(Seed{6}, i);
    bytes += static_cast<double>(make_story(Seed{6}, i).size());
  }
  CHECK(bits / 1000 > 60);
  CHECK(bits / 1000 < 130);
  CHECK(bits / bytes < 0.2);
}

}  // namespace tinymoe_test::stories
