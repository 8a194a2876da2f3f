// Settings and random sites belong to the parts that read them.

#include "tinymoe/layers/settings.hpp"

#include <algorithm>
#include <set>
#include <string>

#include "files/bytes.hpp"
#include "support/catch.hpp"
#include "tinymoe/layers/model.hpp"
#include "tinymoe/sample/sampler.hpp"
#include "tinymoe/text/batches.hpp"
#include "tinymoe/text/merge_table.hpp"
#include "tinymoe/text/selected_stories.hpp"
#include "tinymoe/text/stories/grammar.hpp"

namespace tinymoe_test::settings {

using namespace tinymoe;

namespace {

inline constexpr Setting heat{.name = "heat", .initial = 2, .range = SettingRange::positive, .about = "of a test"};

template <class Block>
using Of = Transformer<Vocab<20>, Context<8>, Width<8>, Layers<1, Block>>;
using Mixing = Of<MoEBlock<RmsNorm, Attention<Heads<2>>, Router<4, 2>, Expert<Hidden<6>>>>;
using Feeding = Of<DenseBlock<RmsNorm, Attention<Heads<2>>, Expert<Hidden<6>>>>;

std::set<std::string> names(const SettingList& list) {
  std::set<std::string> result;
  for (const Setting* setting : list) result.insert(std::string(setting->name));
  return result;
}

}  // namespace

static_assert(Settings{heat = 0.5}[heat] == 0.5);
static_assert(Settings{}[heat] == 2);

TEST_CASE("settings hold what differs from the defaults", "[settings]") {
  Settings settings{setting::dropout = 0.1, heat = 3};
  CHECK(settings[setting::dropout] == 0.1);
  CHECK(settings[heat] == 3);
  CHECK(settings[setting::jitter] == 0.01);
  CHECK(settings.changed().size() == 2);
  CHECK(settings == Settings{heat = 3, setting::dropout = 0.1});
  CHECK(settings != Settings{heat = 3, setting::dropout = 0.2});
  CHECK(settings != Settings{heat = 3});
  CHECK(settings != Settings{heat = 3, setting::jitter = 0.1});
  settings.set(setting::dropout = 0).set(heat = 4);
  CHECK(settings == Settings{heat = 4});
  settings.set(heat = 2);
  CHECK(settings == Settings{});
  CHECK(Settings{setting::z_weight = 0.001} == Settings{});
}

TEST_CASE("a setting is known by its name", "[settings]") {
  constexpr Setting same{.name = "heat", .initial = 2, .range = SettingRange::positive};
  static const Setting copy = same;
  CHECK(Settings{heat = 5}[copy] == 5);
  SettingList list;
  list.add(heat), list.add(heat);
  CHECK(list.size() == 1);
  CHECK(list.distinct());
  list.add(copy);
  CHECK_FALSE(list.distinct());
}

TEST_CASE("settings have a capacity", "[settings]") {
  std::vector<std::string> texts;
  std::vector<Setting> many;
  for (std::size_t i = 0; i <= Settings::capacity; ++i) texts.push_back("setting " + std::to_string(i));
  for (const auto& text : texts) many.push_back({.name = text});
  Settings settings;
  for (std::size_t i = 0; i < Settings::capacity; ++i) settings.set(many[i] = 1);
  CHECK(settings[many[Settings::capacity - 1]] == 1);
  check_message<OptionError>([&] { settings.set(many.back() = 1); }, "at most 24 settings");
  settings.set(many[0] = 0).set(many.back() = 7);  // there is room again
  CHECK(settings[many.back()] == 7);
}

TEST_CASE("a setting outside its range is named", "[settings]") {
  check_message<OptionError>([] { Settings{heat = 0}.check(); }, "heat", "above 0");
  check_message<OptionError>([] { Settings{setting::jitter = 1}.check(); }, "jitter", "below 1");
  check_message<OptionError>([] { Settings{setting::routing_mass = 1.5}.check(); }, "routing_mass", "between 0 and 1");
  check_message<OptionError>([] { Settings{setting::z_weight = -1}.check(); }, "z_weight", "0 or more");
  check_message<OptionError>([] { Settings{setting::z_weight = 1001}.check(); }, "z_weight",
                             "0 or more, at most 1000, found 1001");
  check_message<OptionError>([] { Settings{setting::balance_over_step = 2}.check(); }, "balance_over_step", "0 or 1");
  Settings{setting::routing_mass = 1, setting::z_weight = 0, setting::balance_over_step = true}.check();
}

TEST_CASE("an architecture has the settings of its parts", "[settings]") {
  const std::set<std::string> dense = {"norm_epsilon", "rope_theta", "attention_dropout", "dropout", "expert_dropout"};
  CHECK(names(settings_of<Feeding>()) == dense);
  auto all = dense;
  all.insert({"balance_weight", "z_weight", "balance_over_step", "jitter", "bias_rate", "routing_mass"});
  CHECK(names(settings_of<Mixing>()) == all);
}

TEST_CASE("an architecture says whether its training draws random numbers", "[settings]") {
  CHECK_FALSE(draws_numbers<Feeding>({}));
  CHECK_FALSE(draws_numbers<Feeding>({setting::norm_epsilon = 1, setting::rope_theta = 3}));
  CHECK(draws_numbers<Feeding>({setting::dropout = 0.1}));
  CHECK(draws_numbers<Feeding>({setting::attention_dropout = 0.1}));
  CHECK(draws_numbers<Feeding>({setting::expert_dropout = 0.1}));
  CHECK(draws_numbers<Mixing>({}));  // by default routers jitter, where they can
  CHECK_FALSE(draws_numbers<Mixing>({setting::jitter = 0}));
}

TEST_CASE("all random sites are distinct", "[random]") {
  using namespace random_site;
  // A site of layers has the numbers up to the next one.
  const std::vector<RandomSite> sites = {initialisation,    batches,
                                         sampling,          stories,
                                         story_order,       merge_dropout,
                                         embedding_dropout, attention_dropout,
                                         residual_dropout,  network_dropout,
                                         expert_dropout,    shared_dropout,
                                         router_noise,      random_site::jitter};
  std::set<std::uint32_t> numbers;
  for (const RandomSite site : sites) numbers.insert(site.number);
  CHECK(numbers.size() == sites.size());
  CHECK(std::all_of(sites.begin(), sites.end(), [](RandomSite s) { return s.number < 1u << 31; }));
  CHECK(std::all_of(sites.begin() + 6, sites.end(), [](RandomSite s) { return s.number % (1u << 20) == 0; }));
  // The numbers are part of what a seed gives.
  CHECK(initialisation.number == 0);
  CHECK(stories.number == 3);
  CHECK(merge_dropout.number == 5);
  CHECK(embedding_dropout.number == 1u << 20);
  CHECK(random_site::jitter.number == 8u << 20);
}

TEST_CASE("a site of a user's own meets none of the library's", "[random]") {
  constexpr RandomSite mine = RandomSite::named("my router's noise"), other = RandomSite::named("my router's jitter");
  static_assert(mine.number >= 1u << 31 && other.number >= 1u << 31);
  CHECK(mine != other);
  CHECK(mine == RandomSite::named("my router's noise"));
  CHECK(mine.number % 4096 == 0);  // room for the layers
}

}  // namespace tinymoe_test::settings
