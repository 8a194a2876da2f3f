// How stories hang together.

#include <cmath>
#include <initializer_list>
#include <string_view>
#include <utility>

#include "support/catch.hpp"
#include "tinymoe/analysis/coherence.hpp"

namespace tinymoe_test::coherence_tests {

namespace {

using namespace tinymoe;

Coherence coherence_of(std::initializer_list<std::string_view> stories) {
  CoherenceCounter counter;
  for (const std::string_view story : stories) counter.add(story);
  return counter.counts();
}

}  // namespace

TEST_CASE("Four-grams are distinct over all stories, whatever their capitals and punctuation", "[coherence]") {
  const Coherence one = coherence_of({"The cat sat down. The cat sat, down!"});
  CHECK(one.stories == 1);
  CHECK(one.words == 8);
  CHECK(one.four_grams == 5);
  CHECK(one.distinct_four_grams == 4);  // "the cat sat down" stands twice
  CHECK(one.distinct_share() == 0.8);
  const Coherence two = coherence_of({"The cat sat down.", "the cat SAT down", "no"});
  CHECK(two.stories == 3);
  CHECK(two.four_grams == 2);
  CHECK(two.distinct_four_grams == 1);
  // No four-gram spans two stories.
  CHECK(coherence_of({"one two", "three four"}).four_grams == 0);
}

TEST_CASE("A name of the second half is kept if the first half has it", "[coherence]") {
  const auto names = [](std::string_view story) {
    const Coherence counts = coherence_of({story});
    return std::pair(counts.kept_names, counts.late_names);
  };
  CHECK(names("A girl named Lily ran. Lily saw a dog. So Lily was glad.") == std::pair(Index{1}, Index{1}));
  CHECK(names("A girl named Lily ran far away. Then the happy Lucy saw Lily's dog.") == std::pair(Index{1}, Index{2}));
  // A word that only begins sentences is none, nor is one that stands without a capital too.
  CHECK(names("We saw it and ran. Dogs bark. Dogs run. I ran.") == std::pair(Index{0}, Index{0}));
  CHECK(names("He saw Mom and a mom. Then he saw Mom and went home.") == std::pair(Index{0}, Index{0}));
  // A name is known by one place inside a sentence; its others may begin sentences or end in 's.
  CHECK(names("Tim had a ball. It was red and big. Look, it was Tim\xE2\x80\x99s.") == std::pair(Index{1}, Index{1}));
  // Two names that share a beginning are two.
  CHECK(names("She met Tom and Tommy. Then she saw Tommy and Tomas.") == std::pair(Index{1}, Index{2}));
}

TEST_CASE("Shares of nothing are NaN", "[coherence]") {
  for (const Coherence& none : std::initializer_list<Coherence>{coherence_of({}), coherence_of({""}),
                                                                coherence_of({"1 2 3 ... \xF0\x9F\x99\x82"})}) {
    CHECK(none.words == 0);
    CHECK(std::isnan(none.distinct_share()));
    CHECK(std::isnan(none.kept_share()));
  }
}

}  // namespace tinymoe_test::coherence_tests
