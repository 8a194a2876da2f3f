// Batched sequences against single ones: logits, stories, restarts, and the experts of each token.

#include <random>
#include <set>

#include "files/bytes.hpp"
#include "files/unzipped.hpp"
#include "support/catch.hpp"
#include "tinymoe/analysis/inspect.hpp"
#include "tinymoe/backend/reference.hpp"
#include "tinymoe/files/json_parser.hpp"
#include "tinymoe/files/npy.hpp"
#include "tinymoe/sample/generate.hpp"
#include "tinymoe/sample/trace_file.hpp"
#include "tinymoe/text/tokenizer.hpp"
#include "train/tiny.hpp"

namespace tinymoe_test::together {

namespace {

template <Index C, class Position, class... Options>
using Speaker = Transformer<
    Vocab<270>, Context<C>, Width<16>, HeadBias, Bigrams<50>, PerLayerEmbeddings,
    Layers<1, MoEBlock<RmsNorm, Attention<Heads<4>, KvHeads<2>, Position, Options...>, Router<4, 2>,
                       Expert<SwiGlu, Hidden<12>>>>,
    Layers<1, DenseBlock<LayerNorm, Attention<Heads<2>, Position, Options..., Bias>, Expert<Gelu, Hidden<16>>>>,
    Layers<1, MoEBlock<RmsNorm, Attention<Heads<2>, Position, Options...>, Router<5, 3>, Expert<Relu, Hidden<8>>>>>;

/// A ring-buffer cache; a cache of the context, with restarts; learned positions.
using Rolling = Speaker<32, Rope, SlidingWindow<8>>;
using Restarting = Speaker<24, Rope>;
using Tabled = Speaker<24, Learned>;

/// A model that ends its stories after 20 tokens or so, each at a place of its own.
template <class Arch, class B>
Model<Arch, B> teller(B& backend) {
  Model<Arch, B> model(backend, Seed{4});
  model.weights().bias.data[tiny_tokenizer().end_of_story()] = 3;
  const auto fill = [](const auto& table) {  // zeros at first
    for (Index i = 0; i < table.size(); ++i) table.data[i] = static_cast<float>(i * 7 % 11) / 50 - 0.1f;
  };
  fill(model.weights().embedding.bigrams);
  for (const auto& table : model.weights().embedding.of_layers) fill(table);
  return model;
}

const std::vector<std::string> prompts = {"the cat", "",        "once upon a time there was a very small owl that sat",
                                          "z",       "the cat", "a dog and the owl"};

void check_same(const Story& found, const Story& expected) {
  CHECK(found.text == expected.text);
  CHECK(found.ids == expected.ids);
  CHECK(found.ended == expected.ended);
  CHECK(found.tokens == expected.tokens);
  CHECK(found.prompt_tokens == expected.prompt_tokens);
  CHECK(std::ssize(found.ids) == 1 + found.prompt_tokens + found.tokens);
}

/// Stories written `together` at once are those written one by one.
template <class Arch, class B>
void check_together(B& backend, Index together, const SampleOptions& options) {
  const auto model = teller<Arch>(backend);
  Generator alone(model, tiny_tokenizer());
  Generator generator(model, tiny_tokenizer(), {.sequences = together});
  std::vector<std::string> streamed(prompts.size());
  const auto stories = generator.write(prompts, options, [&](Index i, std::string_view text) {
    CHECK_FALSE(text.empty());
    streamed[static_cast<std::size_t>(i)] += text;
  });
  REQUIRE(stories.size() == prompts.size());
  std::set<Index> lengths;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    INFO("story " << i << ", " << together << " together");
    auto own = options;
    own.story += static_cast<std::uint32_t>(i);
    check_same(stories[i], alone.write(prompts[i], own));
    CHECK(streamed[i] == stories[i].text);
    lengths.insert(stories[i].tokens);
  }
  if (options.temperature > 0) CHECK(lengths.size() > 3);  // they end at different times
  // Nothing of the stories before is left.
  const auto again = generator.write(prompts, options);
  for (std::size_t i = 0; i < prompts.size(); ++i) check_same(again[i], stories[i]);
}

std::vector<float> to_vector(std::span<const float> logits) { return {logits.begin(), logits.end()}; }

/// The choices of rows `first` … of a trace, for comparing.
std::vector<ChosenExpert> rows(const ExpertChoices& choices, Index first, Index count) {
  const auto from = choices.selected.begin() + first * choices.choices;
  return {from, from + count * choices.choices};
}

}  // namespace

TEST_CASE("Stories written together are those written alone, exactly", "[together]") {
  Reference<double> oracle;
  for (const Index together : {1, 2, 4, 6, 9}) {
    const SampleOptions options{.temperature = 1, .top_p = 1, .tokens = 60, .seed = Seed{7}, .story = 5};
    check_together<Rolling>(oracle, together, options);
    check_together<Restarting>(oracle, together, options);
    check_together<Tabled>(oracle, together, options);
  }
}

TEST_CASE("Greedy stories written together are those written alone, on the CPU", "[together]") {
  const SampleOptions options{.temperature = 0, .tokens = 50};
  Cpu one(1), two(2);
  check_together<Rolling>(one, 3, options);
  check_together<Restarting>(one, 6, options);
  check_together<Tabled>(one, 3, options);
  check_together<Restarting>(two, 6, options);
}

TEST_CASE("A batch of sequences has the logits of each by itself", "[together]") {
  Reference<double> oracle;
  const auto check = [&]<class Arch>(std::type_identity<Arch>) {
    const auto model = teller<Arch>(oracle);
    constexpr Index sequences = 5;
    Session together(model, {.sequences = sequences, .trace = true});
    CHECK(together.sequences() == sequences);
    std::vector<Session<Model<Arch, Reference<double>>>> alone;
    for (Index i = 0; i < sequences; ++i) alone.emplace_back(model, SessionOptions{.trace = true});
    const auto tokens = random_tokens(4000, Arch::vocab);
    std::mt19937 random(4);
    std::size_t next = 0;
    for (int turn = 0; turn < 120; ++turn) {
      if (turn < 10 || random() % 8 == 0) {
        // One reads several, or begins anew.
        const Index sequence = turn < 5 ? turn : static_cast<Index>(random() % sequences);
        auto& own = alone[static_cast<std::size_t>(sequence)];
        if (random() % 3 == 0) together.reset(sequence), own.reset();
        const auto part = std::span(tokens).subspan(next, 1 + random() % 20);
        next += part.size();
        CHECK(to_vector(together.feed(part, sequence)) == to_vector(own.feed(part)));
      }
      std::vector<Index> members;
      for (Index i = 0; i < sequences; ++i) {
        if (random() % 4 != 0) members.insert(members.begin() + static_cast<Index>(random() % (members.size() + 1)), i);
      }
      const auto part = std::span(tokens).subspan(next, members.size());
      next += members.size();
      const auto found = to_vector(together.step(members, part));
      REQUIRE(std::ssize(found) == std::ssize(members) * Arch::vocab);
      for (std::size_t i = 0; i < members.size(); ++i) {
        auto& own = alone[static_cast<std::size_t>(members[i])];
        const auto expected = to_vector(own.feed(part.subspan(i, 1)));
        const auto row = found.begin() + static_cast<Index>(i) * Arch::vocab;
        CHECK(std::equal(expected.begin(), expected.end(), row));
        CHECK(together.position(members[i]) == own.position());
        for (std::size_t layer = 0; layer < 2; ++layer) {
          CHECK(rows(together.experts()[layer], static_cast<Index>(i), 1) == own.experts()[layer].selected);
        }
      }
    }
  };
  check(std::type_identity<Rolling>{});
  check(std::type_identity<Restarting>{});
  check(std::type_identity<Tabled>{});
}

TEST_CASE("A session reports which experts the tokens went to", "[together]") {
  Reference<double> oracle;
  const auto model = teller<Speaker<70, Rope>>(oracle);
  const auto tokens = random_tokens(60, 270);
  auto array = xt::xtensor<Token, 2>::from_shape({1, 60});
  std::copy(tokens.begin(), tokens.end(), array.begin());
  const auto expected = inspect(model, array).routing;
  Session session(model, {.trace = true});
  CHECK(session.experts().size() == 2);
  Index first = 0;
  for (const Index count : {50, 1, 1, 8}) {
    session.feed(std::span(tokens).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count)));
    const auto experts = session.experts();
    REQUIRE(experts.size() == expected.size());
    for (std::size_t i = 0; i < experts.size(); ++i) {
      CHECK(experts[i].layer == expected[i].layer);
      CHECK(experts[i].experts == static_cast<Index>(expected[i].probability.shape(1)));
      CHECK(experts[i].choices == static_cast<Index>(expected[i].selected.shape(1)));
      REQUIRE(experts[i].tokens() == count);
      for (Index n = 0; n < count; ++n) {
        for (Index k = 0; k < experts[i].choices; ++k) {
          const auto pair = static_cast<std::size_t>(n * experts[i].choices + k);
          CHECK(experts[i].selected[pair] == expected[i].selected(first + n, k));
          CHECK(experts[i].gate[pair] == Approx(expected[i].gate(first + n, k)).margin(1e-6));
        }
      }
    }
    first += count;
  }
  // The same weights and tokens give the same logits, traced or not.
  Session untraced(model);
  CHECK(untraced.experts().empty());
  session.reset();
  CHECK(to_vector(untraced.feed(tokens)) == to_vector(session.feed(tokens)));
}

TEST_CASE("Tokens that were not read have no expert, and tokens read again are reported once", "[together]") {
  Reference<double> oracle;
  const auto model = teller<Restarting>(oracle);
  const auto tokens = random_tokens(50, 270);
  Session session(model, {.trace = true}), tail(model, {.trace = true});
  session.feed(tokens);  // the last 12 of them, after a restart
  tail.feed(std::span(tokens).last(12));
  for (std::size_t i = 0; i < 2; ++i) {
    const auto& choices = session.experts()[i];
    CHECK(choices.tokens() == 50);
    CHECK(rows(choices, 0, 38) == std::vector<ChosenExpert>(static_cast<std::size_t>(38 * choices.choices)));
    CHECK(rows(choices, 38, 12) == tail.experts()[i].selected);
    CHECK(choices.gate.front() == 0);
  }
  // Token 13 of the second half makes it 25: 12 are read again, and one is told.
  session.feed(std::span(tokens).first(12));
  session.feed(std::span(tokens).first(1));
  CHECK(session.position() == 12);
  CHECK(session.experts()[0].tokens() == 1);
  CHECK(session.experts()[0].selected.front().taken());
}

TEST_CASE("A generator with `trace` reports the experts of each token of a story", "[together]") {
  Reference<double> oracle;
  const auto model = teller<Speaker<100, Rope>>(oracle);
  Generator generator(model, tiny_tokenizer(), {.sequences = 3, .trace = true});
  const auto stories = generator.write(prompts, {.temperature = 1, .top_p = 1, .tokens = 30});
  for (const auto& story : stories) {
    auto array = xt::xtensor<Token, 2>::from_shape({1, story.ids.size()});
    std::copy(story.ids.begin(), story.ids.end(), array.begin());
    const auto expected = inspect(model, array).routing;
    REQUIRE(story.experts.size() == 2);
    for (std::size_t i = 0; i < 2; ++i) {
      // The last token of a story that was cut was never read.
      const Index read = std::ssize(story.ids) - (story.ended ? 0 : 1);
      REQUIRE(story.experts[i].tokens() == read);
      CHECK(
          std::equal(story.experts[i].selected.begin(), story.experts[i].selected.end(), expected[i].selected.begin()));
    }
  }
  CHECK(Generator(model, tiny_tokenizer()).write("the").experts.empty());
}

TEST_CASE("A story stops when its text is refused; others go on", "[together]") {
  Reference<double> oracle;
  const auto model = teller<Rolling>(oracle);
  Generator generator(model, tiny_tokenizer(), {.sequences = 6});
  const SampleOptions options{.temperature = 1, .top_p = 1, .tokens = 40};
  const auto whole = generator.write(prompts, options);
  std::vector<int> pieces(prompts.size());
  const auto stories = generator.write(
      prompts, options, [&](Index i, std::string_view) { return ++pieces[static_cast<std::size_t>(i)] < 4 || i != 2; });
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    if (i != 2) check_same(stories[i], whole[i]);
  }
  CHECK(pieces[2] >= 4);
  CHECK(pieces[2] <= 5);  // the beginning of a character may be left
  CHECK(whole[2].text.starts_with(stories[2].text));
  CHECK(stories[2].tokens < whole[2].tokens);
  CHECK_FALSE(stories[2].ended);
  // At once.
  CHECK(generator.write("the", options, [](std::string_view) { return false; }).text == "the");
  CHECK(generator.write(std::vector<std::string>{}, options).empty());
}

TEST_CASE("A session refuses sequences that do not exist", "[together]") {
  Reference<double> oracle;
  const auto model = teller<Rolling>(oracle);
  using SessionType = Session<Model<Rolling, Reference<double>>>;
  check_message<OptionError>([&] { SessionType session(model, {.sequences = 0}); }, "SessionOptions::sequences",
                             "found 0");
  SessionType session(model, {.sequences = 3});
  const std::vector<Token> tokens = {1, 2}, wrong = {1, 300};
  const auto step = [&](std::vector<Index> sequences, const std::vector<Token>& read) {
    return [&session, sequences, read] { session.step(sequences, read); };
  };
  check_message<ShapeError>(step({0, 3}, tokens), "0 to 2", "3");
  check_message<ShapeError>(step({-1, 1}, tokens), "0 to 2", "-1");
  check_message<ShapeError>(step({1, 1}, tokens), "1 twice");
  check_message<ShapeError>(step({1}, tokens), "each of 1", "2");
  check_message<TextError>(step({1, 2}, wrong), "token 300");
  check_message<ShapeError>([&] { session.feed(tokens, 3); }, "found 3");
  check_message<ShapeError>([&] { session.reset(3); }, "found 3");
  check_message<ShapeError>([&] { session.position(-2); }, "found -2");
  for (Index i = 0; i < 3; ++i) CHECK(session.position(i) == 0);
  CHECK(session.step({}, {}).empty());
}

namespace {

/// Letters, and their end: what a user's own tokenizer may look like.
struct Letters {
  std::vector<Token> encode(std::string_view text) const {
    std::vector<Token> tokens;
    for (const char c : text) tokens.push_back(c - 'a');
    return tokens;
  }
  std::string bytes(Token token) const { return std::string(2, static_cast<char>('a' + token)); }
  Index vocabulary_size() const { return 27; }
  Token end_of_story() const { return 26; }
};

}  // namespace

TEST_CASE("Any type with the four functions of StoryTokenizer works", "[together]") {
  STATIC_REQUIRE(StoryTokenizer<Tokenizer>);
  STATIC_REQUIRE(StoryTokenizer<Letters>);
  STATIC_REQUIRE_FALSE(StoryTokenizer<std::string>);
  Reference<double> oracle;
  Model<Speaker<40, Rope>, Reference<double>> model(oracle, Seed{3});
  const Letters letters;
  const auto story = Generator(model, letters).write("cab", {.temperature = 1, .tokens = 20});
  CHECK(story.prompt_tokens == 3);
  CHECK(std::ssize(story.text) == 3 + 2 * story.tokens);
  CHECK(std::all_of(story.text.begin(), story.text.end(), [](char c) { return c >= 'a' && c <= 'z'; }));
  CHECK(generate(model, letters, "cab", {.temperature = 1, .tokens = 20}) == story.text);
}

TEST_CASE("A trace of stories is written for NumPy and as JSON lines", "[trace]") {
  Cpu backend(1);
  const auto model = teller<Restarting>(backend);
  Generator generator(model, tiny_tokenizer(), {.sequences = 2, .trace = true});
  const std::vector<std::string> two = {"the cat", "caf\xC3\xA9"};
  const auto stories = generator.write(two, {.tokens = 12, .seed = Seed{5}});
  const TemporaryFolder folder;
  save_trace(folder / "trace.npz", stories, tiny_tokenizer());
  save_trace(folder / "trace.json", stories, tiny_tokenizer());
  std::size_t rows = 0;
  for (const Story& story : stories) rows += story.ids.size();

  const auto names = unzipped(folder / "trace.npz", folder);
  CHECK(names.size() == 6 + 2 * 3);
  const auto tokens = load_npy<std::int32_t>(folder / "token.npy");
  const auto text = load_npy<std::uint8_t>(folder / "text_bytes.npy");
  const auto ends = load_npy<std::int64_t>(folder / "text_ends.npy");
  const auto generated = load_npy<bool>(folder / "generated.npy");
  const auto experts = load_npy<std::int32_t>(folder / "layer_2_experts.npy");
  const auto gates = load_npy(folder / "layer_2_gates.npy"), logits = load_npy(folder / "layer_2_logits.npy");
  REQUIRE((tokens.shape() == xt::xarray<int>::from_shape({rows}).shape()));
  REQUIRE((experts.shape() == xt::xarray<int>::from_shape({rows, 3}).shape()));
  REQUIRE((logits.shape() == xt::xarray<int>::from_shape({rows, 5}).shape()));

  const std::string json = read_bytes(folder / "trace.json");
  std::size_t row = 0, line_begin = 0;
  for (std::size_t s = 0; s < stories.size(); ++s) {
    const Story& story = stories[s];
    REQUIRE(story.experts.size() == 2);
    const ExpertChoices& choices = story.experts[1];
    CHECK(choices.tokens() + 1 >= std::ssize(story.ids));
    std::string pieces;
    for (std::size_t i = 0; i < story.ids.size(); ++i, ++row) {
      CHECK(tokens(row) == story.ids[i]);
      CHECK(generated(row) == (static_cast<Index>(i) > story.prompt_tokens));
      const std::string piece(reinterpret_cast<const char*>(text.data()) + ends(row),
                              reinterpret_cast<const char*>(text.data()) + ends(row + 1));
      pieces += piece;
      const std::size_t line_end = json.find('\n', line_begin);
      REQUIRE(line_end != std::string::npos);
      const Json line = parse_json(json.substr(line_begin, line_end - line_begin), "line");
      line_begin = line_end + 1;
      CHECK(line["story"] == Json(s));
      CHECK(line["position"] == Json(i));
      CHECK(line["token"] == Json(story.ids[i]));
      CHECK(line["generated"] == Json(generated(row)));
      CHECK(line.contains("bytes") == (find_invalid_utf8(piece) != std::string_view::npos));
      if (!line.contains("bytes")) CHECK(line["text"] == Json(piece));
      const bool read = static_cast<Index>(i) < choices.tokens();
      REQUIRE(line["layers"].size() == (read ? 2u : 0u));
      for (std::size_t k = 0; k < 3; ++k) {
        CHECK(experts(row, k) == (read ? choices.selected[i * 3 + k].expert() : -1));
        CHECK(gates(row, k) == (read ? choices.gate[i * 3 + k] : 0.0f));
        if (!read) continue;
        const Json& layer = line["layers"].items()[1];
        CHECK(layer["layer"] == Json(2));
        CHECK(layer["experts"].items()[k] == Json(experts(row, k)));
        CHECK(static_cast<float>(layer["gates"].items()[k].number()) == gates(row, k));
      }
      for (std::size_t e = 0; e < 5; ++e) {
        if (read) CHECK(logits(row, e) == choices.logit[i * 5 + e]);
        if (!read) CHECK(std::isnan(logits(row, e)));
        if (read) CHECK(line["layers"].items()[1]["logits"].size() == 5);
      }
    }
    CHECK(pieces == story.text);
  }
  CHECK(line_begin == json.size());
  check_message<OptionError>([&] { save_trace(folder / "trace.txt", stories, tiny_tokenizer()); }, "trace.txt", ".npz");
}

}  // namespace tinymoe_test::together
