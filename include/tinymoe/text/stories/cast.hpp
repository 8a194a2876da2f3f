#pragma once
/// @file
/// Who can be in an embedded story, where and when: names, kinds, families, homes, places and weather.

#include <array>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <span>
#include <string_view>

#include "tinymoe/text/stories/grammar.hpp"

namespace tinymoe::inline v0_1::detail {

// The tables are laid out by rows.
// clang-format off

inline constexpr std::string_view girl_names[] = {
    "Lily",  "Mia",  "Anna",  "Sue",   "Emma", "Zoe",  "Ruby", "Ella",  "Nora",  "Ivy",   "Clara", "Lucy",
    "Daisy", "Amy",  "Molly", "Tina",  "Rosa", "Kate", "Hana", "Leila", "Maya",  "Olive", "Poppy", "Sara",
    "Tess",  "Nina", "Jane",  "Freya", "Lena", "Wren", "Ada",  "Bella", "Carla", "Holly", "Priya", "Yuki"};
inline constexpr std::string_view boy_names[] = {
    "Tom",  "Ben", "Max",  "Sam", "Leo",  "Jack",  "Tim",   "Noah", "Finn", "Oscar", "Theo",  "Hugo",
    "Adam", "Dan", "Eli",  "Ned", "Omar", "Paul",  "Peter", "Ravi", "Toby", "Will",  "Henry", "Kenji",
    "Jay",  "Ian", "Luke", "Rob", "Carl", "Diego", "Felix", "Joe",  "Arlo", "Owen",  "Teddy", "Abe"};
inline constexpr std::string_view she_animal_names[] = {"Dot",    "Hazel",    "Coco",   "Honey",    "Tansy",   "Pearl",
                                                        "Willow", "Bluebell", "Clover", "Maple",    "Fern",    "Pepper",
                                                        "Cherry", "Minty",    "Sunny",  "Velvet",   "Dewdrop", "Nutmeg",
                                                        "Plum",   "Tilly",    "Bonnie", "Marigold", "Pansy",   "Lulu"};
inline constexpr std::string_view he_animal_names[] = {"Pip",    "Bramble", "Rusty",   "Acorn",  "Button", "Chester",
                                                       "Moss",   "Pickle",  "Barnaby", "Rufus",  "Nibble", "Biscuit",
                                                       "Bumble", "Jasper",  "Tumble",  "Waffle", "Fidget", "Monty",
                                                       "Sprout", "Ziggy",   "Rocky",   "Bobo",   "Digger", "Wiggle"};

inline constexpr std::string_view animal_kinds[] = {"rabbit",  "fox",   "bear",     "mouse",  "squirrel", "hedgehog",
                                                    "kitten",  "puppy", "otter",    "beaver", "mole",     "raccoon",
                                                    "hamster", "panda", "chipmunk", "monkey"};

inline constexpr std::string_view person_columns[] = {"he", "him", "his", "himself"};
inline constexpr std::string_view friend_columns[] = {"friend.he", "friend.him", "friend.his", "friend.himself"};
inline constexpr std::string_view pronoun_cells[] = {
    "she", "her", "her", "herself",
    "he",  "him", "his", "himself"};
inline constexpr Table hero_pronouns{person_columns, pronoun_cells}, friend_pronouns{friend_columns, pronoun_cells};

inline constexpr std::string_view elder_columns[] = {"elder", "elder.he", "elder.him", "elder.his"};
inline constexpr std::string_view child_elder_cells[] = {
    "Mom",       "she", "her", "her",
    "Dad",       "he",  "him", "his",
    "Grandma",   "she", "her", "her",
    "Grandpa",   "he",  "him", "his",
    "Aunt Rose", "she", "her", "her",
    "Uncle Ben", "he",  "him", "his"};
inline constexpr std::string_view animal_elder_cells[] = {
    "Old Owl",      "he",  "him", "his",
    "Old Goose",    "she", "her", "her",
    "Uncle Badger", "he",  "him", "his",
    "Aunt Heron",   "she", "her", "her",
    "Grandpa Goat", "he",  "him", "his",
    "Grandma Deer", "she", "her", "her"};
inline constexpr Table child_elders{elder_columns, child_elder_cells}, animal_elders{elder_columns, animal_elder_cells};

inline constexpr std::string_view traits[] = {"kind",    "curious", "brave",  "cheerful", "shy",      "clever",
                                              "gentle",  "happy",   "lively", "quiet",    "friendly", "playful",
                                              "careful", "merry",   "dreamy", "busy"};
inline constexpr std::string_view child_homes[] = {
    "in a small white house",     "in a house with a red door",  "on a quiet street",
    "on a little farm",           "in a yellow house on a hill", "in a cozy house near the woods",
    "in a village by the sea",    "at the edge of a small town", "in a tall house with a garden",
    "in a blue house by a stream"};
inline constexpr std::string_view animal_homes[] = {"in a cozy burrow",
                                                    "in a hollow log",
                                                    "under the roots of an old oak tree",
                                                    "in a snug den by the stream",
                                                    "in a tiny house of stones",
                                                    "at the edge of a green forest",
                                                    "in a warm nest of leaves",
                                                    "in a little house with a round door",
                                                    "near a quiet pond",
                                                    "on the sunny side of a hill"};

/// Whom a lost hero may meet.
inline constexpr std::string_view child_guides[] = {"farmer",    "shepherd",   "baker",     "mail carrier",
                                                    "old woman", "fisherman",  "gardener",  "painter",
                                                    "beekeeper", "tall woman", "young man", "old sailor"};
inline constexpr std::string_view animal_guides[] = {"tortoise", "stork",    "hare", "donkey", "magpie", "toad",
                                                     "swan",     "old crow", "pony", "sheep",  "ant",    "eagle"};

/// The spots are things that one can look behind.
inline constexpr std::string_view place_columns[] = {"place", "at", "spot_one", "spot_two", "spot_three"};
inline constexpr std::string_view place_cells[] = {
    "the park",       "in the park",       "the bench",         "the slide",         "the tall tree",
    "the garden",     "in the garden",     "the rose bush",     "the wheelbarrow",   "the stone wall",
    "the beach",      "at the beach",      "the big rock",      "the old boat",      "the tall grass",
    "the farm",       "at the farm",       "the red barn",      "the hay cart",      "the wooden fence",
    "the meadow",     "in the meadow",     "the fallen log",    "the berry bush",    "the round stone",
    "the pond",       "by the pond",       "the reeds",         "the willow tree",   "the mossy rock",
    "the woods",      "in the woods",      "the oak tree",      "the tree stump",    "the green ferns",
    "the hill",       "on the hill",       "the apple tree",    "the gray stone",    "the little gate",
    "the playground", "at the playground", "the swings",        "the sandbox",       "the climbing wall",
    "the orchard",    "in the orchard",    "the pear tree",     "the fruit baskets", "the ladder",
    "the river",      "by the river",      "the wooden bridge", "the flat rock",     "the bushes",
    "the square",     "in the square",     "the fountain",      "the flower cart",   "the bakery"};
inline constexpr Table places{place_columns, place_cells};

inline constexpr std::string_view weather_columns[] = {"weather", "sky"};
inline constexpr std::string_view weather_cells[] = {
    "sunny",  "[the sun was warm and the sky was blue|the sun shone on every leaf]",
    "windy",  "[the wind danced in the trees|the wind played with the leaves]",
    "cloudy", "[soft gray clouds filled the sky|the clouds looked like sheep]",
    "warm",   "[bees hummed in the warm air|the air smelled of flowers]",
    "cool",   "[the air was cool and fresh|a cool breeze blew from the hills]",
    "bright", "[birds sang in the bright sky|the sky was bright and clear]",
    "quiet",  "[not a leaf was moving|only one small bird was singing]",
    "misty",  "[a thin mist hung over the grass|the mist made everything look soft]"};
inline constexpr Table weathers{weather_columns, weather_cells};

inline constexpr std::string_view times[] = {"morning",        "afternoon",  "day",
                                             "spring morning", "summer day", "fall afternoon"};

// clang-format on

/// Casts the hero, the friend and the grown-up, and sets the place and the weather. The friend's name, and an animal
/// friend's kind, is never the hero's.
inline void cast_scene(Scene& scene, Dice& dice) {
  const bool animal = dice.below(5) < 2;
  const std::uint32_t hero_gender = dice.below(2), friend_gender = dice.below(2);
  const std::array<std::span<const std::string_view>, 4> pools{girl_names, boy_names, she_animal_names,
                                                               he_animal_names};
  const auto hero_names = pools[2 * animal + hero_gender], friend_names = pools[2 * animal + friend_gender];
  const std::uint32_t hero_name = dice.below(hero_names.size());
  std::uint32_t friend_name = dice.below(friend_names.size() - 1);
  if (hero_gender == friend_gender && friend_name >= hero_name) ++friend_name;
  const std::uint32_t hero_kind = dice.below(std::size(animal_kinds));
  std::uint32_t friend_kind = dice.below(std::size(animal_kinds) - 1);
  if (friend_kind >= hero_kind) ++friend_kind;
  const std::array<std::string_view, 2> child_kinds{"girl", "boy"};

  // The most frequent names come first: a scene looks them up in order.
  scene.set("hero", hero_names[hero_name], dice);
  scene.set_row(hero_pronouns, hero_gender, dice);
  scene.set("friend", friend_names[friend_name], dice);
  scene.set_row(friend_pronouns, friend_gender, dice);
  scene.set_any_row(animal ? animal_elders : child_elders, dice);
  scene.set("kind", animal ? animal_kinds[hero_kind] : child_kinds[hero_gender], dice);
  scene.set("friend.kind", animal ? animal_kinds[friend_kind] : child_kinds[friend_gender], dice);
  scene.set("relation", animal ? "[best friend|good friend|neighbor]" : "[best friend|good friend|neighbor|cousin]",
            dice);
  scene.set("hand", animal ? "paw" : "hand", dice);
  scene.set("trait", dice.pick(traits), dice);
  scene.set("home", animal ? dice.pick(animal_homes) : dice.pick(child_homes), dice);
  scene.set("guide", animal ? dice.pick(animal_guides) : dice.pick(child_guides), dice);
  scene.set("time", dice.pick(times), dice);
  scene.set_any_row(weathers, dice);

  const std::uint32_t place = dice.below(places.rows()), order = dice.below(6);
  const auto row = places.row(place);
  constexpr std::array<std::array<std::uint8_t, 3>, 6> orders{
      {{2, 3, 4}, {2, 4, 3}, {3, 2, 4}, {3, 4, 2}, {4, 2, 3}, {4, 3, 2}}};
  scene.set("place", row[0], dice);
  scene.set("at", row[1], dice);
  for (std::size_t spot = 0; spot < 3; ++spot) scene.set(place_columns[2 + spot], row[orders[order][spot]], dice);
}

}  // namespace tinymoe::inline v0_1::detail
