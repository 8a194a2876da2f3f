#pragma once
/// @file
/// The plots of the embedded stories: our own prose, in the patterns of grammar.hpp.
///
/// A table gives what a plot turns on (what broke, and so how it is mended), so that the end of a story follows from
/// its beginning.
///
/// Over 300 lines: it is a book, of one table after another.

#include <string_view>

#include "tinymoe/text/stories/grammar.hpp"

namespace tinymoe::inline v0_1::detail {

/// One family of stories. `friend_matters`: the opening brings in the friend. `ends_by_day`: an evening may follow.
struct Plot {
  std::string_view name;
  bool friend_matters;
  std::string_view text;
  Table table, second_table;
  bool ends_by_day = true;
};

// The tables are laid out by rows.
// clang-format off

inline constexpr std::string_view story_opening = R"(
[ Once upon a time, there [was|lived] {a trait} [little|young] {kind} named {hero}. {He} lived {home}.
| There once was {a trait} [little|young] {kind} [called|named] {hero}, who lived {home}.
| {Hero} was {a trait} [little|young] {kind}. {He} lived {home}.
| Once there was a [little|young] {kind} named {hero}. {He} was {trait}, and {he} lived {home}.
| A long time ago, {a trait} {kind} named {hero} lived {home}.
| This is a story about {hero}, {a trait} [little|young] {kind} who lived {home}.])";

inline constexpr std::string_view friend_opening = R"(
[ {His} {relation} was {a friend.kind} named {friend}.
| {He} had {a relation}, {a friend.kind} named {friend}.
| {Hero} had {a relation} named {friend}, {a friend.kind} who [always had good ideas|loved to laugh|lived nearby].
| {He} was often seen with {his} {relation}, {a friend.kind} named {friend}.])";

inline constexpr std::string_view story_closing = R"(
[|||
| That night, {hero} [fell asleep|went to bed] with a [big|warm|happy] smile.
| That night, {hero} dreamed [happy|sweet|lovely] dreams.
| It had been a [very good|wonderful|long and lovely] day.
| {Hero} never forgot that day.
| And {hero} was as happy as could be.])";

inline constexpr std::string_view toy_columns[] = {"toy", "look"};
inline constexpr std::string_view toy_cells[] = {
    "ball",       "[red|blue|round|yellow|green]",
    "kite",       "[purple|orange|long|blue|red]",
    "teddy bear", "[brown|soft|old|fluffy|little]",
    "toy car",    "[red|fast|shiny|silver|tiny]",
    "drum",       "[round|red|loud|little|wooden]",
    "doll",       "[pretty|old|little|cloth|smiling]",
    "hat",        "[green|warm|funny|yellow|striped]",
    "scarf",      "[long|red|soft|striped|woolly]",
    "whistle",    "[silver|shiny|loud|tin|little]",
    "toy boat",   "[blue|wooden|white|little|old]",
    "marble",     "[green|shiny|blue|round|orange]",
    "key",        "[golden|old|tiny|shiny|iron]",
    "bell",       "[silver|little|golden|old|shiny]",
    "toy train",  "[green|wooden|long|red|old]",
    "spoon",      "[silver|wooden|big|old|shiny]",
    "umbrella",   "[yellow|blue|old|spotted|little]"};

inline constexpr std::string_view lost_thing = R"(
[ {Hero} had {a look} {toy} that {he} loved very much.
| {Hero}'s favorite thing was {a look} {toy}.
| More than anything else, {hero} loved {his} {look} {toy}.
| For {his} birthday, {elder} had given {him} {a look} {toy}.]

[ One {weather} {time}, {hero} took the {toy} to {place} to play with {friend}.
| One {weather} {time}, {friend} came, and they went to {place} with the {look} {toy}.
| It was a {weather} {time}, and {sky}. {Hero} and {friend} took the {toy} to {place}.]
[They played [a game|tag|ball] by {spot_one}.|They [danced|sang|ran races] near {spot_one}.]
[ Then they sat down near {spot_three} to [rest|eat a snack|look at the clouds].
| After that, they [rested|had a little nap|shared some bread] near {spot_three}.]
[When it was time to go home|When they wanted to leave|Before they went home], {hero} looked down.
  The {toy} was gone!
[ "Oh no! Where is my {toy}?" {he} [cried|said|asked].
| "My {toy}! I have lost it!" {he} [cried|said].]

[ {He} looked behind {spot_one}, but it was not there. {He} looked behind {spot_two}, but it was not there either.
| First {he} looked behind {spot_two}. No {toy}. Then {he} looked behind {spot_one}. Still no {toy}.]
[||A tear ran down {his} face.|{He} wanted to cry.]

"[Do not worry|Don't be sad|Wait a moment], {hero}," said {friend}.
  "[Where did we sit down|Where did we rest|Where were you last with it]?"
[{Hero} thought hard.|{Hero} closed {his} eyes and thought.] "[Near|By] {spot_three}!" {he} [said|shouted].
[They ran back.|They hurried back.]
[ There, behind {spot_three}, was the {look} {toy}!
| And there it was, the {look} {toy}, right behind {spot_three}!]
[ {Hero} hugged the {toy}, and then {he} hugged {friend}.
| "You found it with your good question," {hero} [said|told {friend}]. "Thank you!"]

[ From then on, when something was lost, {hero} stopped and thought before {he} looked.
| {Hero} learned that it helps to stay calm and think back.
| After that, {hero} always looked around before {he} went home.])";

inline constexpr std::string_view snack_columns[] = {"snacks", "taste"};
inline constexpr std::string_view snack_cells[] = {
    "cookies",      "[sweet|warm|crunchy]",
    "strawberries", "[sweet|red|juicy]",
    "plums",        "[juicy|sweet|purple]",
    "muffins",      "[soft|warm|sweet]",
    "pancakes",     "[warm|soft|round]",
    "cherries",     "[sweet|shiny|red]",
    "apples",       "[crunchy|red|sweet]",
    "honey cakes",  "[sticky|sweet|soft]",
    "pears",        "[green|juicy|soft]",
    "nuts",         "[crunchy|round|brown]",
    "biscuits",     "[crunchy|thin|warm]",
    "carrots",      "[crunchy|orange|fresh]",
    "tarts",        "[sticky|little|sweet]",
    "buns",         "[warm|soft|round]"};
inline constexpr std::string_view count_columns[] = {"count", "each"};
inline constexpr std::string_view count_cells[] = {
    "two",   "one",
    "four",  "two",
    "six",   "three",
    "eight", "four",
    "ten",   "five"};

inline constexpr std::string_view sharing = R"(
[ One {weather} {time}, {elder} gave {hero} {count} {taste} {snacks} in a basket.
| One {weather} {time}, {elder} put {count} {taste} {snacks} into a little bag for {hero}.
| One {weather} {time}, {hero} helped {elder} in the kitchen, and {elder} gave {him} {count} {taste} {snacks}.]
[ {Hero} took them to {place}.
| "I will eat them {at}," {hero} [said|thought], and off {he} went.
| {He} thanked {elder.him} and walked to {place}.]

[ {At}, {he} met {friend}, who was sitting near {spot_one}.
| {Friend} was there too, sitting alone by {spot_one}.]
"[Those {snacks} smell good|What nice {snacks} you have|Oh, {snacks}]," said {friend}.
  "[I forgot my lunch today|I have had nothing to eat all day|My own bag is empty]."
[ {Hero} held the {snacks} tight. "They are mine," {he} said, and {he} [walked away|went to sit behind {spot_two}].
| "I want every one of them for myself," said {hero}, and {he} [turned away|hid behind {spot_two}].]
[ But when {he} looked back, {friend} [looked so sad|had tears in {friend.his} eyes|was looking at the ground].
| {Friend} said nothing and looked at {friend.his} empty {hand}s.]
[| {Hero} did not feel hungry any more. {His} tummy felt as heavy as a stone.
| Now the {snacks} did not look so good.
| {Hero} took one little bite, but it did not taste good at all.]

[ {Hero} went back. "[I am sorry|I was not kind], {friend}," {he} said. "I have {count} {snacks}.
  That is {each} for you and {each} for me."
| So {hero} sat down next to {friend}. "Let us share," {he} said.
  "{Count} {snacks} make {each} for you and {each} for me."]
[ {Friend} [smiled|jumped up|laughed with joy]. "Thank you!" {friend.he} said.
  "[You are a true friend|That is so kind|Now we can have a picnic]!"
| "Really?" asked {friend}. "Oh, thank you, {hero}!"]
[ They ate the {taste} {snacks} together and played until the sun went down.
| They sat side by side and ate, and they told each other funny stories.
| They ate every bite, and {friend} sang a song.]

[ The {snacks} had never tasted so good. {Hero} learned that good things are better when you share them.
| {Hero} was happy. Half of the {snacks} with a friend was better than all of them alone.
| From that day on, {hero} always kept something for a friend.])";

inline constexpr std::string_view fear_columns[] = {"fear", "scare", "secret", "trick", "brave_act", "reward"};
inline constexpr std::string_view fear_cells[] = {
    "the dark", "One {time}, the lamp went out in the cellar, and everything turned black",
        "the dark is only the same room with its eyes closed", "hold my {hand} and count to ten",
        "walked down the dark steps and counted to ten",
        "At the bottom {he} found a box of old toys that nobody had seen for years",
    "thunder", "One {time}, black clouds came, and thunder rolled over the roof", "thunder is only the sky clapping",
        "clap back every time it claps", "stood at the window and clapped back at the thunder",
        "When the storm was over, a rainbow stood over {place}",
    "deep water", "One {weather} {time}, all the others jumped into the lake, but {hero} stayed on the sand",
        "the water will carry you if you let it", "lie on your back and look at the sky",
        "lay back in the water and looked at the sky", "The water carried {him} like a soft bed",
    "high places", "One {weather} {time}, a ball got stuck on a high rock near {place}",
        "a high rock is only many small steps", "look at your feet and take one step at a time",
        "climbed up one step at a time",
        "From the top {he} could see all the way to the sea, and {he} threw the ball down",
    "big dogs", "One {weather} {time}, a very big dog stood on the path to {place}", "big dogs have soft hearts",
        "stand still and let it smell your {hand}", "stood still and held out {his} {hand}",
        "The big dog licked it and rolled on its back",
    "loud trains", "One {weather} {time}, a long train came by with a roar", "the train is only saying hello",
        "wave to the driver and count the cars", "waved to the driver and counted the cars",
        "The driver waved back and rang the bell just for {him}",
    "the old bridge", "One {weather} {time}, {hero} had to cross the old bridge on the way to {place}",
        "the bridge has been strong for a hundred years", "look at the other side and sing a song",
        "crossed the bridge and sang all the way", "On the other side grew the sweetest berries {he} had ever tasted",
    "speaking to a crowd", "One {weather} {time}, {hero} had to say a poem in front of everyone",
        "every speaker has butterflies in the tummy", "find one face you love and speak to that face",
        "looked at {friend} and said the whole poem", "Everybody clapped and asked to hear it again",
    "the tall slide", "One {weather} {time}, all the others went down the tall slide, but {hero} stayed below",
        "the slide is only a hill with good manners", "sit down, take a breath and say wheee",
        "sat down, took a breath and slid all the way down", "It was so much fun that {he} did it nine more times",
    "the wind", "One {time}, a wild wind howled around the house", "the wind only wants to play",
        "give it something to play with", "went outside and let the wind play with a ribbon",
        "The ribbon danced in the air like a happy bird"};

inline constexpr std::string_view fear_overcome = R"(
[ There was only one thing that {hero} did not like: {he} was afraid of {fear}.
| {Hero} was not afraid of spiders or mice. But {he} was very afraid of {fear}.
| {Hero} had a secret. {He} was afraid of {fear}.]

{Scare}. [{Hero} began to shake.|{Hero}'s knees felt like jelly.|{Hero}'s heart went bump, bump, bump.]
[ {He} [ran away and hid|tried to be brave, but {he} ran away|took one step, and then {he} ran back].
| {He} shut {his} eyes, but {his} legs would not move.]
"I can't do it," {he} [whispered|said|cried].

[ {Friend} sat down next to {him}. "[Once I was afraid too|I know that feeling|It is all right to be afraid],"
  said {friend}.
| {Friend} did not laugh. "Everyone is afraid of something," {friend.he} said.]
"[Shall I tell you a secret|Do you know what {elder} told me|May I tell you something]?
  [{Secret}.|I think that {secret}.] [Just|Try it: just|You only need to] {trick}."
[|"[Will you stay with me|Will you be there]?" asked {hero}.
"[Of course|I promise|Always]," said {friend}.]

[ So {hero} took a deep breath. [Slowly, slowly,|Bit by bit,|Then] {he} {brave_act}.
| {Hero} nodded. {He} [was still a little afraid|still felt afraid], but {he} {brave_act}.]
{Reward}.
"[I did it|Look at me|You were right]!" [shouted|cried|laughed] {hero}.
[|"[I knew you could|That was very brave|I am proud of you]," said {friend}.]

[ After that, {hero} was not so afraid of {fear} any more.
| {Hero} learned that being brave means trying even when you are afraid.
| And the next time somebody was afraid, it was {hero} who held out a {hand}.])";

inline constexpr std::string_view mend_columns[] = {"thing",     "wear", "use",    "damage",
                                                    "wrong_way", "tool", "repair", "works"};
inline constexpr std::string_view mend_cells[] = {
    "kite", "[red|yellow|striped]", "fly", "The paper was torn in two", "tied it with grass, but the grass broke",
        "some tape", "put a long piece of tape over the tear", "rose high above the trees",
    "toy boat", "[blue|white|little]", "sail", "The mast had snapped",
        "stood the mast up with mud, but the mud washed away", "a stick and some glue",
        "glued a new stick where the mast had been", "sailed across the water without tipping over",
    "cart", "[green|wooden|old]", "pull around", "A wheel had come off",
        "pushed the wheel back on, but it fell off again", "a wooden peg", "pushed the peg in to hold the wheel",
        "rolled along as if it were new",
    "drum", "[loud|round|little]", "play", "There was a hole in the skin",
        "put a leaf over the hole, but the leaf ripped", "a piece of leather",
        "pulled the leather tight over the drum", "went boom, boom, boom again",
    "umbrella", "[blue|spotted|yellow]", "play under", "One side hung down like a broken wing",
        "held the side up with a twig, but the twig fell out", "a bit of wire", "fastened the side with the wire",
        "opened with a pop, and nothing hung down any more",
    "birdhouse", "[yellow|little|red]", "watch", "The roof had come off",
        "put the roof back on, but the wind took it again", "a hammer and four nails",
        "hammered in the nails, one at each corner", "had a family of birds inside by the next morning",
    "teddy bear", "[brown|soft|old]", "cuddle", "One arm had come off",
        "tied the arm on with a ribbon, but it fell off", "a needle and thread",
        "sewed the arm on with tiny stitches", "could hug again with both arms",
    "music box", "[tiny|golden|old]", "listen to", "It would not play a note", "shook it hard, but it stayed silent",
        "a drop of oil", "put the drop of oil on the little wheels", "played its sweet song from beginning to end",
    "lantern", "[round|tin|orange]", "carry", "The glass was cracked",
        "held the crack shut, but the light still blew out", "a new piece of glass",
        "slid the new glass into its place", "shone warm and bright in the evening",
    "sled", "[fast|red|long]", "ride", "One board had split", "sat on the other side, but the sled tipped over",
        "a new board and some screws", "screwed the new board on tight", "slid down the grassy hill like the wind"};

inline constexpr std::string_view broken_thing = R"(
[ {Hero} had {a wear} {thing} that {he} loved to {use}.
| What {hero} liked best was to {use} {his} {wear} {thing}.]
One {weather} {time}, {he} [took|brought] it to {place} to show it to {friend}.
[ On the way {he} tripped over [a root|a stone|{his} own feet]. Crack!
| But near {spot_one} {he} fell, and the {thing} fell too. Crash!
| {He} ran too fast and bumped into {friend}. Bump!]
{Damage}.

"[Oh no, my {thing}|It is broken|Look what I have done]!" [cried|wailed|said] {hero}.
[{Hero} tried to mend it alone. {He} {wrong_way}.|{He} did not want to wait. {He} {wrong_way}.]
[|| "It will never be right again," {he} said [sadly|with a sigh].
| {He} sat down by {spot_two} and cried.]

[{Friend} looked at it closely.|{Friend} turned the {thing} over.]
  "[I think we can mend it|It is not so bad|We can fix this]," {friend.he} said.
  "[We only need|What we need is] {tool}. Let us ask {elder}."
[ {Elder} had just what they needed.
| "[Go slowly|Work together|Be patient]," {elder} said, and {elder.he} gave them {tool}.]
[{Friend} held the {thing} still, and {hero}|While {friend} held the {thing}, {hero}] {repair}.
[|It took a long time.|It was slow work, but they did not give up.]

[Then they tried it out.|At last it was done.|"Ready?" asked {friend}.] The {wear} {thing} {works}!
[|| "We did it!" they [shouted|cried].
| "It is even better than before," said {hero}. "Thank you, {friend}!"]
[ {Hero} learned that many broken things can be mended with time and a friend.
| And whenever {hero} looked at the {thing}, {he} thought of the {time} when they mended it.
| After that, {hero} always carried the {thing} with both {hand}s.])";

inline constexpr std::string_view promise_columns[] = {"task", "task_done", "trouble", "result"};
inline constexpr std::string_view promise_cells[] = {
    "water the flowers", "watered every single flower", "the flowers will be thirsty",
        "The flowers lifted their heads and opened",
    "feed the hens", "fed the hens and filled their water bowl", "the hens will be hungry",
        "In the nest lay a fresh brown egg",
    "close the garden gate", "closed the garden gate with a click", "the goat will run into the garden",
        "The goat looked over the gate, and all the cabbages were safe",
    "bring in the washing", "brought in all the washing", "the washing will get wet",
        "Just then the first drops of rain began to fall",
    "pick up the bread", "picked up the bread at the bakery", "there will be no bread for supper",
        "The bread was still warm and smelled wonderful",
    "check on the baby ducks", "counted the baby ducks, and all of them were there", "the baby ducks will be alone",
        "The baby ducks fell asleep in a warm heap",
    "take soup to the neighbor", "took the hot soup to the neighbor", "the neighbor will have no supper",
        "The sick neighbor smiled for the first time that week",
    "light the lamp by the path", "lit the lamp by the path", "nobody will see the path",
        "Soon a tired traveler found the way home by its light",
    "turn the cheese", "turned the big round cheese", "the cheese will go bad", "The cheese was golden on both sides",
    "mail the letter", "dropped the letter into the mailbox", "the letter will be late",
        "A minute later, the mail truck came to take it"};

inline constexpr std::string_view promise_kept = R"(
One {weather} {time}, {elder} [had to go out|had to go to town|went to visit a friend].
"[Will you|Can you|Could you] {task} before the sun goes down?" {elder.he} asked.
"[Yes|Of course|I will], {elder}. I promise," said {hero}.

[ But then {friend} came by. "Come to {place}!" {friend.he} [called|said].
  "[We have built a boat|There is a puppet show|Everyone is playing hide and seek]!"
| Soon {friend} knocked on the door. "Let us go to {place}," {friend.he} said.
  "[It is such a lovely {time}|I have a new game|I found a secret path]!"]
"[I can do my work later|There is a lot of time|It can wait]," {hero} thought.
  They [played|laughed|ran around] near {spot_one}, and [the time flew by|{hero} forgot everything else].
[ Then {he} saw that the sun was low behind {spot_two}. "My promise!" {he} [cried|said].
| Suddenly {he} stopped. "Oh no, my promise!" {he} [cried|gasped].]

[|"[Stay a little longer|Just one more game|Do it tomorrow]," said {friend}.]
{Hero} thought of {elder}. "[If I do not go now|If I wait], {trouble}," {he} said.
[ "[You are right|That is true]. I will help you," said {friend}.
| "Then I will come with you," said {friend}.]
They ran home, and [just in time |]{hero} {task_done}. {Result}.

[ When {elder} came home, {elder.he} [smiled|was very glad]. "Now I know that I can trust you," {elder.he} said.
| "Did you {task}?" asked {elder} that evening. "Yes," said {hero}.]
[ {Hero} felt [warm inside|very proud|ten feet tall]. From then on, {he} did {his} work first and played after.
| {Hero} learned that a kept promise feels better than any game.])";

inline constexpr std::string_view rescue_columns[] = {"creature",  "size",  "plight", "bad_help",
                                                      "good_help", "means", "thanks"};
inline constexpr std::string_view rescue_cells[] = {
    "bird", "[little|blue|young]", "It had fallen out of its nest",
        "told it to fly up, but its wings were still too short",
        "climbed up and set the bird gently back in the nest", "a ladder", "sang its very best song",
    "turtle", "[old|green|small]", "It lay on its back and could not turn over",
        "pushed with both {hand}s, but the turtle was too heavy",
        "slid the stick under the shell and tipped the turtle over", "a flat stick",
        "nodded its head and walked off with a slow, happy step",
    "bee", "[tiny|fuzzy|golden]", "It had fallen into a puddle and could not get out",
        "blew on the water, but that only made waves", "held out the leaf, and the bee crawled onto it", "a big leaf",
        "dried its wings and hummed a song",
    "lamb", "[white|woolly|small]", "It was stuck in the mud up to its knees",
        "pulled its ears, but the lamb only cried", "laid down the board and led the lamb out step by step",
        "a wide board", "jumped for joy and said baa",
    "butterfly", "[yellow|orange|blue]", "Its wing was caught in a spider web",
        "pulled at the web, but that made it stickier", "cut the threads one by one with great care",
        "a pair of small scissors", "danced around their heads and flew into the light",
    "duckling", "[yellow|fluffy|tiny]", "It could not find its mother",
        "called quack, quack, but no mother duck came",
        "made a trail of crumbs all the way to the water, where the mother was waiting", "a bag of crumbs",
        "swam off with its mother and its five brothers",
    "frog", "[green|small|spotted]", "It sat at the bottom of a deep bucket and could not jump out",
        "told it to jump higher, but the bucket was too deep",
        "put the branch into the bucket, and the frog climbed up", "a long branch",
        "made a great big jump and said ribbit",
    "snail", "[tiny|brown|slow]", "It was in the middle of the road, and carts were coming",
        "told it to hurry, but snails cannot hurry", "let the snail crawl onto the paper and carried it across",
        "a piece of paper", "waved its two little horns",
    "goat", "[young|gray|small]", "Its horns were stuck in the fence", "pushed its nose, but it was stuck fast",
        "spread the butter on the horns, and out they slid", "a bit of butter", "skipped in circles around them",
    "fish", "[silver|little|orange]", "It lay in a drying pool, far from the water",
        "tried to carry it, but it slipped away", "scooped the fish up and let it go in the deep water",
        "a pail of water", "splashed three times with its tail"};

inline constexpr std::string_view animal_helped = R"(
[ One {weather} {time}, {hero} and {friend} were [walking|playing|looking for flowers] {at}.
| It was a {weather} {time}. {Hero} and {friend} had gone to {place} to [play|have a picnic|pick flowers].]
[Suddenly they heard a tiny sound|Then {hero} heard something strange] from [near|behind] {spot_one}.
[||"What is that?" asked {friend}.] [It was|There they found] {a size} {creature}. {Plight}.

"[Poor thing|Poor little {creature}|Oh, look]!" said {hero}. "[We must help it|We have to do something|I want to
  help]."
[First|Right away], {he} {bad_help}.
[ "That does not work," said {friend}. "[Let us think|We need a plan|Let us try another way]."
| "Stop," said {friend} [softly|kindly]. "Let us think first."]
"[I know|I have an idea]!" {hero} said at last. "We need {means}."
[ {Friend} ran home and came back with {means}.
| {Friend} ran to {elder} and soon came back with {means}.
| "I know where to find that," said {friend}, and soon {friend.he} brought {means}.]

[Very slowly|As gently as {he} could|With a steady {hand}], {hero} {good_help}.
[|"You are safe now, little {creature}," {he} [whispered|said].
| "There you go," {he} [whispered|said], and {friend} [clapped|smiled].]
The {size} {creature} {thanks}.
[|| "I think that means thank you," said {friend}, and they both laughed.
| "Did you see that?" asked {friend}. "It likes us!"]

[ {Hero} learned that a kind heart needs a quiet {hand} and a good plan.
| When {hero} told {elder} about the {creature}, {elder} said, "Nobody is too small to help."
| From that day on, whenever {hero} went to {place}, {he} looked out for the {creature}.])";

inline constexpr std::string_view chase_columns[] = {"lure", "lure_look", "lure_end"};
inline constexpr std::string_view chase_cells[] = {
    "butterfly",   "[blue|yellow|white]", "fluttered up over the trees",
    "balloon",     "[red|green|silver]",  "floated away into the sky",
    "dragonfly",   "[green|shiny|long]",  "flew off over the water",
    "leaf",        "[golden|red|big]",    "was carried off by the wind",
    "bird",        "[tiny|red|singing]",  "flew up and was gone",
    "feather",     "[white|long|soft]",   "sailed up and out of sight",
    "frog",        "[green|funny|fat]",   "jumped into the grass",
    "beetle",      "[black|shiny|slow]",  "crawled under a stone",
    "bubble",      "[round|shiny|big]",   "went pop",
    "grasshopper", "[green|noisy|quick]", "hopped away in the grass"};
inline constexpr std::string_view landmark_columns[] = {"mark_one", "mark_two", "mark_three"};
inline constexpr std::string_view landmark_cells[] = {
    "the crooked tree",    "the white stones", "the well",
    "the old mill",        "the red gate",     "the three pines",
    "the scarecrow",       "the stone bridge", "the yellow field",
    "the beehives",        "the broken cart",  "the white barn",
    "the tall sunflowers", "the mailbox",      "the clock tower",
    "the blue door",       "the hedge",        "the little waterfall",
    "the fallen oak",      "the goose pond",   "the windmill",
    "the wooden sign",     "the cherry trees", "the round hill",
    "the bell tower",      "the rope bridge",  "the green boat",
    "the sandy path",      "the two rocks",    "the empty barn"};

inline constexpr std::string_view way_home = R"(
[ One {weather} {time}, {hero} was playing {at} when {he} saw {a lure_look} {lure}.
| One {weather} {time}, {hero} went to {place} with {elder}. Near {spot_one} {he} saw {a lure_look} {lure}.]
[ "[Wait for me|How pretty]!" {he} called, and {he} ran after it.
| {He} ran after it.]
[At last|In the end], the {lure} {lure_end}. {Hero} looked around.
[Nothing looked the same.|Everything was strange.] {He} was lost!
[| {He} took a path to the left, but it only led to [a wall of thorns|a muddy ditch].
| First {he} walked one way, and then the other, but {he} only got more lost.]
[|{He} sat down and began to cry.|"I want to go home," {he} [whispered|said].]

[Just then|After a while], {a guide} [came down the path|came by].
"I cannot find my way home," said {hero}.
"[Don't be afraid|It is not far]," said the {guide}. "Go to {mark_one}, and turn at {mark_two}.
  Then you will see {mark_three}[|, and then your home]."
"{Mark_one}, {mark_two}, {mark_three}," {hero} said[| to {himself}]. "Thank you!"

[ {He} walked until {he} came to {mark_one}. Then {he} came to {mark_two}. {He} turned, and {he} saw {mark_three}!
| Soon {he} saw {mark_one}. Then came {mark_two}. {He} turned, and at last {he} saw {mark_three}!]
[ {Elder} was standing at the door. "There you are!" {elder.he} [cried|called].
| "{Hero}!" called a voice. It was {elder}, who had been looking for {him}.]
[|{Hero} told {elder.him} all about the {lure} and the kind {guide}.]
[ From then on, {hero} never ran off without looking back.
| {Hero} learned that it is good to ask for help, and even better to listen well.])";

inline constexpr std::string_view truth_columns[] = {"treasure", "treasure_look", "place_of_it", "accident", "amends"};
inline constexpr std::string_view truth_cells[] = {
    "vase", "[blue|tall|old]", "on the shelf", "It fell down and broke into three pieces",
        "They glued the three pieces together",
    "window", "[big|round|kitchen]", "by the door", "The glass broke with a loud crash",
        "They swept up the glass and put in a new pane",
    "jug", "[white|heavy|milk]", "on the table", "It tipped over, and the handle came off",
        "They glued the handle back on",
    "plate", "[painted|yellow|best]", "on the wall", "It dropped to the floor and cracked",
        "They made a new plate out of clay and painted it together",
    "flower pot", "[red|clay|big]", "on the step", "It rolled down and broke, and the earth spilled out",
        "They put the flower into a new pot",
    "lamp", "[green|glass|reading]", "in the corner", "It fell over, and the shade was bent",
        "They bent the shade until it was round again",
    "clock", "[wooden|cuckoo|old]", "over the fire", "It fell with a bang and stopped ticking",
        "They opened it, put the spring back, and it ticked again",
    "bowl", "[silver|fruit|shiny]", "by the window", "It fell down and got a big dent",
        "They tapped the dent out with a little hammer",
    "picture", "[sea|gold|family]", "in the hall", "It fell down, and the frame came apart",
        "They made a new frame out of four sticks",
    "teapot", "[round|brown|spotted]", "on the stove", "The lid fell off and broke in two",
        "They made a new lid out of wood"};
inline constexpr std::string_view mischief_columns[] = {"mischief"};
inline constexpr std::string_view mischief_cells[] = {
    "threw a ball",
    "danced on one leg",
    "jumped off a chair",
    "ran with a broom",
    "played with a stick",
    "spun in a circle",
    "chased a fly",
    "pretended to be a bear",
    "kicked a pillow",
    "rode a mop like a horse"};

inline constexpr std::string_view truth_told = R"(
[ {Elder} had {a treasure_look} {treasure} {place_of_it}.
| At home, {place_of_it}, there was {a treasure_look} {treasure}. It belonged to {elder}.]
"[Please be careful near it|Please do not play near it|No running near it]," {elder.he} always said.

One {weather} {time}, {hero} was playing all alone. {He} [was bored|wanted some fun], and {he} {mischief}. Bump!
  {He} hit the {treasure}. {Accident}.
[|"[Oh no|Oh dear]," {he} whispered. "What have I done?"]
[ {He} [quickly |]put a [blanket|towel|big cloth] over it and ran [to {his} room|outside].
| {He} hid behind the [door|curtain|sofa].]

[Soon|Then] {elder} came home. "[Who has done this|What happened to my {treasure}|How did this happen]?"
  {elder.he} asked.
[ "It was the [wind|cat]," said {hero}, and {he} looked at the floor.
| "I don't know," said {hero}. "Maybe it was the [wind|cat]."]
[|"[Hmm|I see]," said {elder}, and {elder.he} [said no more|looked sad].]
[ At supper {hero} could not eat.
| All evening {hero} felt bad. The lie was as heavy as a stone.
| In bed {hero} could not sleep.]

[At last|In the end], {he} ran to {elder}. "It was [not the wind or the cat. It was me|me]," {he} said.
  "I {mischief}, and I hit the {treasure}. I am so sorry."
[ {Elder} [took {him} in {elder.his} arms|smiled]. "I am glad that you told the truth," {elder.he} said.
| "I was sad about the {treasure}," said {elder}, "but a lie makes me sadder."]
The next day they set to work. {Amends}.

[ {Hero} felt as light as a feather. The truth makes a heavy heart light.
| And from that day on, {hero} told the truth right away.])";

inline constexpr std::string_view plant_columns[] = {"plant", "seed_look", "sprout_sign", "harvest", "gift"};
inline constexpr std::string_view plant_cells[] = {
    "sunflower", "[striped|flat|gray]", "a thick green stem with two round leaves",
        "a flower as big as a plate, yellow like the sun", "a crown of yellow petals",
    "pumpkin", "[white|flat|big]", "a curly green vine", "a fat orange pumpkin", "a pot of pumpkin soup",
    "bean plant", "[brown|smooth|shiny]", "a thin green hook", "a hundred long green beans", "a bowl of beans",
    "tomato plant", "[tiny|flat|yellow]", "a small stem that smelled of summer", "seven round red tomatoes",
        "a juicy tomato",
    "strawberry plant", "[tiny|dry|brown]", "three little leaves on a thread", "a row of sweet red strawberries",
        "a jar of strawberry jam",
    "carrot", "[thin|light|brown]", "a tuft of leaves like feathers", "a long, crunchy orange carrot",
        "the best half of the carrot",
    "apple tree", "[dark|pointed|brown]", "a little twig with one leaf", "one shiny red apple, the first of its life",
        "half of the very first apple",
    "rose bush", "[hard|round|tiny]", "a red shoot with tiny thorns", "a pink rose that smelled like honey",
        "the first pink rose",
    "pea plant", "[round|green|wrinkled]", "a small green curl", "a basket full of fat green pods",
        "a handful of sweet peas",
    "melon", "[black|oval|smooth]", "two leaves like little ears", "a round green melon, sweet and cold inside",
        "the biggest slice of melon"};

inline constexpr std::string_view patience = R"(
One {weather} {time}, {elder} gave {hero} {a seed_look} seed. "This will be {a plant} one day," {elder.he} said.
[|"[How long will it take|When will it be ready]?" asked {hero}.]
"[It needs water, sun and a friend who can wait|Give it water every day, and wait]," said {elder}.

[ {Hero} put the seed into the ground near {spot_one} and gave it water.
| {Hero} found a sunny spot {at} and put the seed into the ground.]
[|The next morning, {he} ran to look. [There was only brown earth.|Nothing had changed.]]
[ "Grow!" {he} told the seed. {He} [shouted at it|jumped up and down|sang to it very loudly]. Nothing happened.
| "Why is it so slow?" {he} asked. {He} gave it [a whole pail of water|ten cups of water], but nothing came up.]
[ After [three|four|five] days, {hero} [took a spoon to dig the seed up|wanted to dig it up]. "Stop!"
  [said|called] {friend}. "It is working where you cannot see it."
| After [three|four|five] days, {hero} was angry. "It is a bad seed," {he} said. "It is only sleeping,"
  said {friend}.]

[ So {hero} waited. Every day {he} watered the seed, and every day {friend} told it a story.
| So they waited. They watered it every morning and counted the days.]
[And then, one morning,|At last, after two long weeks,] {he} saw {sprout_sign}!
"[It is alive|It is growing|You were right]!" [shouted|cried|laughed] {hero}, and {he} hugged {friend}.
[It grew and grew.|It grew a bit every day.] In the end it gave them {harvest}.
[|{Hero} gave {friend} {gift}. "[You taught me to wait|You helped it grow]," {he} said.]

[ {Elder} smiled. "Good things take time," {elder.he} said, and {hero} knew that it was true.
| {Hero} had learned to be patient.
| The next time something took long, {hero} only smiled and thought of the {plant}.])";

inline constexpr std::string_view skill_columns[] = {"skill",          "skilled", "failure",
                                                     "second_failure", "advice",  "triumph"};
inline constexpr std::string_view skill_cells[] = {
    "ride a bike", "rode a bike", "fell over on the very first turn", "wobbled and rode into a bush",
        "look far ahead, not down at the wheel", "rode all the way to {place} and back",
    "swim", "swam", "swallowed a lot of water", "sank like a stone", "kick like a frog and breathe slowly",
        "swam from one side to the other",
    "whistle", "whistled", "only made a wet puff of air", "blew until {his} cheeks were red",
        "make your mouth small, as if to kiss", "whistled a whole song",
    "skate", "skated", "slipped and sat down hard", "slid backward into a fence",
        "bend your knees and lean a little forward", "skated in a big smooth circle",
    "bake bread", "baked bread", "made a loaf as hard as a brick", "made a loaf as flat as a hat",
        "let the dough rest under a warm cloth", "baked a loaf that was soft and golden",
    "paint a bird", "painted a bird", "painted a bird that looked like a potato",
        "painted a bird with its wings on its head", "look at a real bird for a long time first",
        "painted a bird that looked ready to fly",
    "juggle", "juggled", "dropped all three balls on {his} toes", "threw a ball over the roof",
        "begin with only one ball", "juggled three balls for a whole minute",
    "tie a bow", "tied a bow", "made a big, ugly knot", "tied {his} two shoes together",
        "make two ears and cross them over", "tied two neat bows, one on each shoe",
    "play the flute", "played the flute", "made a sound like an angry goose", "made a squeak that scared the cat",
        "blow softly, as if to cool soup", "played a song that made everyone dance",
    "row a boat", "rowed a boat", "only went around in circles", "lost an oar in the water",
        "pull with both arms at the same time", "rowed in a straight line to the other shore",
    "do a handstand", "did a handstand", "fell flat on {his} back", "tipped over into the hay",
        "look at the ground between your {hand}s", "stood upside down and counted to five",
    "build a stone tower", "built a stone tower", "saw it fall after two stones",
        "put a big stone on a small one, and it all fell", "put the biggest stones at the bottom",
        "built a tower that was taller than {he} was"};

inline constexpr std::string_view new_skill = R"(
One {weather} {time}, {hero} saw how {friend} {skilled}. [It looked so easy.|It looked like so much fun.]
"[I want to do that too|I want to learn that|Let me try]!" said {hero}.
{He} tried at once, but {he} {failure}.
[|Somebody laughed.|A bird in the tree seemed to laugh.|{His} face turned red.]
[ {Hero} tried again. This time {he} {second_failure}.
| "Once more," {he} said, but {he} {second_failure}.]
"I will never [learn it|be able to {skill}]," {he} [said|cried|sighed].

[| {Friend} did not laugh.]
"It took me [a hundred days|a whole summer|three months] to learn it," said {friend}. "Here is a tip: {advice}."
[ "{Advice}," {hero} said to {himself}, and {he} got up.
| {Hero} nodded slowly.]

[ That day, {he} failed [nine|ten|eleven] times, but each time it went a little better.
| {He} practiced every day for a week.]
And then, one fine morning, it happened: {hero} {triumph}!
"[I did it|Did you see that|I can do it]!" {he} [shouted|cried].
[|"[Hooray|I saw it|I knew it]!" said {friend}, and {friend.he} [clapped|cheered|jumped for joy].]

[ {Hero} learned that nobody is good at something the first time.
| Now {hero} could {skill}. But the best thing {he} had learned was not to give up.
| The next week, {hero} taught a smaller {kind} to {skill}. "Don't give up," {he} said.])";

inline constexpr std::string_view gift_columns[] = {"present", "made_of", "spoiled", "saved", "keeps"};
inline constexpr std::string_view gift_cells[] = {
    "cake", "flour, eggs and honey", "It came out of the oven with a big hole in the middle",
        "filled the hole with fresh berries", "ate two big slices",
    "card", "paper and colored pencils", "A drop of water fell on it, and the colors ran",
        "turned the blot into a rainbow", "hung it over {friend.his} bed",
    "necklace", "string and shiny shells", "The string broke, and the shells rolled everywhere",
        "put the shells on a stronger string", "put it on right away",
    "crown", "gold paper and feathers", "It was much too big and slid down", "added a soft ribbon to make it fit",
        "wore it all day long",
    "clay cup", "wet brown clay", "It got a dent on one side", "made the dent into a place for the thumb",
        "drank warm milk out of it",
    "paper boat", "thick white paper", "One side of it got wet and limp", "rubbed it with wax to keep it dry",
        "let it float in a bowl of water",
    "song book", "paper and a ribbon", "The pages were in the wrong order",
        "took it apart and put numbers on the pages", "sang every song in it",
    "scarf", "soft blue wool", "It was far too short", "added a long red end to it",
        "wrapped it around {friend.his} neck twice",
    "puppet", "an old sock and two buttons", "One button eye fell off and was lost",
        "sewed on a blue bead, so that it seemed to wink", "made it dance and tell jokes",
    "wooden boat", "a piece of soft wood", "It tipped over in the water",
        "put a little stone at the bottom to keep it upright", "sailed it on the pond that same day"};

inline constexpr std::string_view birthday_gift = R"(
[Tomorrow was {friend}'s birthday|{Friend}'s birthday was coming soon], and {hero}
  [had no money for a gift|wanted to give {friend.him} something special].
[ "I will make something," {he} [said|thought]. "I will make {a present}!"
| "Make something with your own {hand}s," said {elder}. So {hero} began to make {a present}.]
{He} [gathered|found] {made_of} and set to work.

[But then something went wrong.|But then something bad happened.] {Spoiled}.
[ "It is ruined," [cried|said] {hero}. "[Now I have nothing for {friend}|Nobody will want it]."
| {Hero} [threw {himself} on the bed|hid {his} face]. "It is the worst {present} in the world," {he} said.]
[ {Elder} looked at it. "A mistake is sometimes the start of something good," {elder.he} said.
  "[Look at it again.|What could you make of it?]"
| "It is not ruined," said {elder}. "It is only not finished."]
[|{Hero} thought and thought.] [Then {hero} had an idea.|Suddenly {hero} smiled.] {He} {saved}.
  [|Now it was even nicer than before.|It looked better than ever.]

When the birthday came, {hero} [gave the {present} to {friend}|held out the {present} with both {hand}s].
  "Happy birthday!" {he} said. "I made it myself."
[ {Friend}'s eyes grew wide. "[Nobody else has one like it|It is the best gift of all|You made this for me]!"
  {friend.he} said, and {friend.he} {keeps}.
| "For me?" asked {friend}. {Friend.he} laughed with joy, and {friend.he} {keeps}.]
[|{Hero} told {friend.him} about the mistake, and they both laughed.
| {Hero} looked at {elder}, and {elder} winked.]

[ {Hero} learned that a gift does not have to be perfect when it is made with love.
| And {hero} never again called something ruined before {he} had looked at it twice.])";

inline constexpr std::string_view game_columns[] = {"game", "role", "need"};
inline constexpr std::string_view game_cells[] = {
    "hide and seek",   "the one who hides best",     "was so small and quiet that nobody could find {friend.him}",
    "a treasure hunt", "the one who reads the map",  "knew how to read every sign on the map",
    "a jumping game",  "the one who turns the rope", "turned the rope faster than anyone had ever seen",
    "a singing game",  "the one who sings first",    "had a voice as clear as a bell",
    "pirates",         "the captain",                "told the best pirate stories in the world",
    "circus",          "the acrobat",                "could walk on {friend.his} {hand}s",
    "a ball game",     "the goalkeeper",             "caught every single ball",
    "a puppet show",   "the dragon",                 "roared so well that everyone jumped",
    "explorers",       "the scout",                  "found a path that nobody had seen before",
    "a guessing game", "the one who asks",           "knew a hundred funny riddles"};

inline constexpr std::string_view new_neighbor = R"(
One {weather} {time}, a new family came to live near {place}. With them came {a friend.kind} named {friend}.
[ {Friend} did not know anyone. {Friend.he} sat alone near {spot_one}.
| {Friend} was very shy. {Friend.he} sat near {spot_one} and only watched.]
[ {Hero} and the others were playing {game} {at}. "We don't need anyone else," said one of them.
| {Hero} was playing {game} with the others. They all saw {friend}, but nobody said hello.]
[|"It must be hard to be new," {hero} thought.]

[ {Hero} waved, but {friend} [looked away|looked at the ground].
| {Hero} called, "Come and play!" But {friend} shook {friend.his} head and hid behind {spot_two}.]
[ {Hero} told {elder} about it. "Go and sit with {friend.him} first," said {elder}. "Words can come later."
| {Hero} asked {elder} what to do. "Take something to share," said {elder}, "and do not hurry."]
So the next day {hero} [sat down next to|went over to] {friend} with
  [two apples|two warm buns|two pieces of cake|a cup of berries]. [|They ate and did not say a word.]
"[Thank you|That was good]," whispered {friend}.
"[Do you like {game}|Have you ever played {game}|Will you play {game} with us]?" asked {hero}.
[{Friend} nodded|"Yes, please," said {friend}], and for the first time {friend.he} smiled.

{Hero} took {friend.his} {hand}. "This is {friend}," {he} told the others. "{Friend.he} can be {role}."
[And what a surprise!|Everyone made room, and what a surprise!] {Friend} {need}.
[|"[Play with us again tomorrow|You are wonderful]!" [cried|said] the others.]

[ {Hero} had learned that one kind word can open a door.
| From that day on, {hero} and {friend} were the best of friends.
| After that, whenever someone new came, {hero} was the first to say hello.])";

inline constexpr std::string_view noise_columns[] = {"noise", "guess", "source", "cause", "solution"};
inline constexpr std::string_view noise_cells[] = {
    "tap, tap, tap", "a giant with a stick", "a branch", "The wind was knocking it against the window",
        "They tied the branch back with a string",
    "hoo, hoo, hoo", "a ghost", "a young owl", "It was calling for its mother from the roof",
        "They waited until the mother owl came",
    "scratch, scratch", "a monster with long claws", "a little cat", "It was cold and wanted to come in",
        "They let the cat in and gave it some milk",
    "drip, drip, drip", "a sea monster in the kitchen", "a faucet", "It was not closed well",
        "They turned the faucet until it was tight",
    "rattle, rattle", "a robber with a big key", "an old window", "It was loose in its frame",
        "They put a folded piece of paper into the gap",
    "buzz, buzz", "a dragon that snores", "a beetle", "It was trapped under a glass",
        "They lifted the glass and let it fly out into the night",
    "squeak, squeak", "a witch on a rusty broom", "the garden gate", "It was swinging in the wind",
        "They closed the gate and put oil on it",
    "thump, thump", "a bear on the stairs", "a ball", "It had rolled off the shelf and was bouncing down the steps",
        "They put the ball into its box",
    "crunch, crunch", "a wolf eating bones", "a hungry goat", "It was eating the apples by the back door",
        "They led the goat home to its barn",
    "ding, ding, ding", "a knight in armor", "a spoon", "It was swinging on its string and hitting the wind chime",
        "They took the spoon down and put it away",
    "flap, flap, flap", "a huge bat", "a wet sheet", "It was flying about on the clothesline",
        "They took the sheet in and folded it",
    "ribbit, ribbit", "a goblin telling jokes", "a frog", "It had hopped into a watering can",
        "They carried the frog back to the pond"};

inline constexpr std::string_view night_noise = R"(
One [dark|cool|moonlit|quiet] night, {friend} was staying with {hero}.
  [They had told stories until late.|They lay in bed and talked.]
[Suddenly|Just when they were almost asleep], there was a noise. {Noise}!
"[Did you hear that|What was that|Are you awake]?" whispered {hero}.
"[Shh|Hush]," whispered {friend}. "[Maybe|I think] it is {guess}!"
They [pulled the blanket over their heads|hid under the bed]. But the noise did not stop. {Noise}!

[| "Go away!" called {hero}. It was quiet for a moment, and then it began again.
| {Hero} put a pillow over {his} ears, but {he} could still hear it.]
[ {Hero} sat up. "I do not want to be afraid all night," {he} said. "Let us go and look."
| {Hero} sat up. "If we do not look, we will never know," {he} said.]
[|"But what if it is {guess}?" asked {friend}.
"Then we will [run to {elder}|shout for {elder}]," said {hero}.]

[They lit a small lamp and went|{Hand} in {hand}, they went|On the tips of their toes, they went] toward the noise.
  {Hero} [held up the light|took a deep breath and looked].
[ It was not {guess} at all. It was only {source}! {Cause}.
| And what did they see? Not {guess}! It was just {source}. {Cause}.]
[| They began to laugh. "[We were afraid of {source}|So that is our monster]!" said {friend}.
| "Hello, monster," said {hero}, and {friend} laughed so much that {elder} woke up.]
{Solution}. [Then it was quiet.|After that, the night was still.]

[ "You were very brave to look," said {friend}. {Hero} smiled in the dark.
| In the morning they told {elder} about it. "Monsters get small when you bring a light,"
  said {elder}, and {hero} nodded.
| {Hero} learned that a noise is only scary until you know what makes it.])";

inline constexpr std::string_view rain_columns[] = {"plan", "indoor", "build", "play"};
inline constexpr std::string_view rain_cells[] = {
    "have a picnic", "have a picnic on the floor", "spread a blanket under the table and set out all the food",
        "ate sandwiches and pretended that the lamp was the sun",
    "sail a boat", "sail a boat in the living room", "turned the sofa into a boat with a sheet for a sail",
        "sailed to an island of pillows and caught ten paper fish",
    "camp in a tent", "camp in the bedroom", "hung a blanket over two chairs to make a tent",
        "crawled inside and told stories by the light of a lamp",
    "climb a mountain", "climb a mountain of pillows", "piled up every pillow in the house",
        "climbed to the top and planted a flag made from a sock",
    "go to the zoo", "open a zoo at home", "put all the toy animals behind chairs",
        "took turns being the lion and the one who sells tickets",
    "look for treasure", "hide a treasure in the house", "drew a map with a big red cross on it",
        "searched every room and found a box of raisins under the stairs",
    "watch the parade", "make a parade in the hall", "made hats from paper and drums from pots",
        "marched up and down until the cups danced on the shelf",
    "pick berries", "bake a berry pie", "took a jar of berries from the shelf and rolled out the dough",
        "baked a small pie with a smiling face on top"};

inline constexpr std::string_view rain_changes_plan = R"(
For [days|a whole week], {hero} and {friend} had been making plans. On Saturday they wanted to {plan}.
[|"[I can hardly wait|Only one more night|It will be the best day of all]!" said {hero}.]
But when Saturday came, {hero} looked out of the window. [It was raining.|Rain fell from a dark gray sky.|Big drops
  ran down the glass.]

[ "It is not fair!" [cried|shouted] {hero}. {He} [stamped {his} foot|threw {his} bag into the corner].
| {Hero} wanted to cry. "Now everything is spoiled," {he} said.]
[ "Maybe it will stop," said {friend}. They waited and waited by the window. But it only rained harder.
| They put on their boots and went out, but soon they were wet to the skin.]

[ {Elder} brought them [warm milk|hot cocoa|dry socks]. "You cannot change the weather,"
  {elder.he} said, "but you can change the plan."
| "Rain outside does not mean rain inside," said {elder}, and {elder.he} [winked|smiled].]
{Hero} looked at {friend}. [They had the same idea.|Then they both began to smile.]
"[Let us|We can still|Why not? Let us] {indoor}!" said {hero}.
"[Yes|What a good idea|I will help]!" [cried|said] {friend}.

They {build}. Then they {play}.
[ They had so much fun that they did not hear the rain any more.
| They laughed until their sides hurt.]
[|When the sun came out at last, {hero} did not even see it. "[One more time|Again, again]!" {he} [said|called].]

[ {Hero} learned that a spoiled plan can be the start of a better one.
| From then on, {hero} was always a little glad when it rained.
| "It was a good thing that it rained," said {hero}, and {friend} thought so too.])";

inline constexpr std::string_view load_columns[] = {"load", "load_look", "purpose", "alone", "together_way", "arrival"};
inline constexpr std::string_view load_cells[] = {
    "pumpkin", "[huge|round|orange]", "for the harvest feast", "pushed it with both arms, but it did not move",
        "rolled it along on three round logs", "They cooked soup for everyone",
    "log", "[thick|long|heavy]", "for a new bridge", "pulled one end, but it was stuck",
        "tied a rope around it and pulled at the same time", "Now everyone could cross the brook with dry feet",
    "bell", "[heavy|golden|big]", "for the school", "lifted with all {his} strength, but it stayed on the ground",
        "hung it from a long pole and carried the ends", "Its ringing could be heard all over the valley",
    "stone", "[flat|gray|heavy]", "for a new bench", "kicked it, but that only hurt {his} toes",
        "laid it on a sled and pulled the sled over the grass",
        "It made the best bench of all, with room for everyone",
    "table", "[long|wooden|heavy]", "for a big party", "tried to drag it, but it was much too wide",
        "each took a corner and lifted on the count of three", "Soon there was a bright cloth and a cake on it",
    "boat", "[green|old|heavy]", "for the summer race", "pushed from behind, but it stuck fast in the ground",
        "laid round poles under it and pushed all together", "It slid into the water with a splash",
    "swan boat", "[big|pretty|heavy]", "for the summer fair", "pulled its neck, but it did not move",
        "put wheels under it and pushed from behind", "At the fair it won the first prize",
    "tree", "[young|tall|green]", "for the middle of the village",
        "tried to lift it, but its roots were full of earth", "put it in a cart and walked beside it",
        "In spring the first birds came to live in it"};

inline constexpr std::string_view working_together = R"(
One {weather} {time}, {hero} found {a load_look} {load} {at}, not far from {spot_one}.
  "[This is just what we need|It would be perfect] {purpose}," {he} [said|thought]. "I will move it all by myself!"
[ {Hero} {alone}.
| {Hero} rubbed {his} {hand}s and began. {He} {alone}. [Huff! Puff!|Oof!]]
[{Friend} came by.|Along came {friend}.] "[Can I help you|Shall I help|That looks heavy. Can I help]?"
  {friend.he} asked.
[ "No," said {hero}. "I want to do it alone."
| "I don't need help," said {hero}.]
[|{Friend} sat down near {spot_two} and waited.]
[ {Hero} tried once more. "It is too heavy," {he} [said|puffed].
| After one more try, {hero}'s arms were shaking. "It is too heavy for me," {he} said [quietly|at last].]

"But it may not be too heavy for all of us," said {friend}.
[ "Please help me," said {hero}. "And let us ask {elder}."
| "You are right," said {hero}. "Let us get {elder} too."]
So {hero}, {friend} and {elder} [set|went] to work. They {together_way}.
"[One, two, three|Ready, steady, go|All together now]!" called {hero}.
  [And the {load} began to move!|Slowly, slowly, the {load} moved.]
Before [evening|supper], the {load_look} {load} was where it should be. {Arrival}.

[ {Hero} took {friend}'s {hand}. "I am glad that you waited for me," {he} said.
| {Hero} learned that asking for help is not weak. It is wise.
| From then on, {hero} liked the word "together" best of all.
| And {hero} knew now that many small {hand}s can do a big thing.])";

// clang-format on

inline constexpr Plot plots[] = {
    {"lost thing", true, lost_thing, {toy_columns, toy_cells}, {}},
    {"sharing", true, sharing, {snack_columns, snack_cells}, {count_columns, count_cells}},
    {"fear overcome", true, fear_overcome, {fear_columns, fear_cells}, {}},
    {"broken thing", true, broken_thing, {mend_columns, mend_cells}, {}},
    {"promise kept", true, promise_kept, {promise_columns, promise_cells}, {}},
    {"animal helped", true, animal_helped, {rescue_columns, rescue_cells}, {}},
    {"way home", false, way_home, {chase_columns, chase_cells}, {landmark_columns, landmark_cells}},
    {"truth told", false, truth_told, {truth_columns, truth_cells}, {mischief_columns, mischief_cells}},
    {"patience", true, patience, {plant_columns, plant_cells}, {}},
    {"new skill", true, new_skill, {skill_columns, skill_cells}, {}},
    {"birthday gift", true, birthday_gift, {gift_columns, gift_cells}, {}},
    {"new neighbor", false, new_neighbor, {game_columns, game_cells}, {}},
    {"night noise", true, night_noise, {noise_columns, noise_cells}, {}, false},
    {"rain changes a plan", true, rain_changes_plan, {rain_columns, rain_cells}, {}},
    {"working together", true, working_together, {load_columns, load_cells}, {}},
};

/// Every table is whole rows.
static_assert(
    [] {
      for (const Plot& plot : plots)
        for (const Table& table : {plot.table, plot.second_table})
          if (!table.columns.empty() && table.cells.size() % table.columns.size() != 0) return false;
      return true;
    }(),
    "tinymoe stories: a table of a plot has a row that is not whole");

}  // namespace tinymoe::inline v0_1::detail
