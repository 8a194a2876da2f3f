// Generated stories against full forward passes, also beyond window and context; their text and their end.

#include "tinymoe/sample/generate.hpp"

#include <random>
#include <set>

#include "files/bytes.hpp"
#include "support/catch.hpp"
#include "tinymoe/analysis/inspect.hpp"
#include "train/tiny.hpp"

namespace tinymoe_test::generate_tests {

namespace {

/// The vocabulary is larger than the tokenizer's 260, as a rounded-up one is.
template <Index C, class... Options>
using Teller = TinyOf<300, 24, RmsNorm, C, Options...>;

/// The logits after the last of `tokens`, by one full forward pass.
template <class Arch>
std::vector<float> full_logits(const Model<Arch, Cpu>& model, std::span<const Token> tokens) {
  auto row = xt::xtensor<Token, 2>::from_shape({1, tokens.size()});
  std::copy(tokens.begin(), tokens.end(), row.begin());
  const auto logits = inspect(model, row).logits;
  return {logits.end() - static_cast<Index>(Arch::vocab), logits.end()};
}

/// A prompt of `count` tokens.
std::string prompt_of(Index count) {
  std::string prompt;
  for (const Token token : random_tokens(count, 26, 4)) prompt += static_cast<char>('a' + token);
  return prompt;
}

/// A model that never ends its story: "<|endoftext|>" has the logit 0, and others are above it.
template <class Arch>
Model<Arch, Cpu> endless(Cpu& backend) {
  Model<Arch, Cpu> model(backend, Seed{3});
  std::fill_n(model.weights().head.data + tiny_tokenizer().end_of_story() * Arch::width, Arch::width, 0.0f);
  const auto fill = [](const auto& table) {  // zeros at first
    for (Index i = 0; i < table.size(); ++i) table.data[i] = static_cast<float>(i * 7 % 11) / 11 - 0.5f;
  };
  if constexpr (Arch::bigrams > 0) fill(model.weights().embedding.bigrams);
  for (const auto& table : model.weights().embedding.of_layers) fill(table);
  return model;
}

/// Greedy stories of a model are those of full forward passes of `whole`, which has the same weights.
template <class Arch, class Whole>
void check_greedy(const Model<Arch, Cpu>& model, const Model<Whole, Cpu>& whole, Index prompt_tokens, Index tokens) {
  const auto& tokenizer = tiny_tokenizer();
  const auto prompt = prompt_of(prompt_tokens);
  std::vector<Token> read = {tokenizer.end_of_story()};
  const auto encoded = tokenizer.encode(prompt);
  read.insert(read.end(), encoded.begin(), encoded.end());
  Generator generator(model, tokenizer);
  Session session(model);
  auto cached = session.feed(read);
  std::string expected = prompt;
  Index written = 0;
  double worst = 0;
  for (; written < tokens; ++written) {
    const auto logits = full_logits(whole, read);
    worst = std::max(worst, greatest_difference(std::vector<float>(cached.begin(), cached.end()), logits));
    const auto next = static_cast<Token>(std::max_element(logits.begin(), logits.begin() + 260) - logits.begin());
    if (next == tokenizer.end_of_story()) break;
    expected += tokenizer.bytes(next);
    read.push_back(next);
    cached = session.feed(std::span(&next, 1));
  }
  INFO("context " << Arch::context << ", prompt of " << prompt_tokens);
  CHECK(worst < 1e-4);
  const auto story = generator.write(prompt, {.temperature = 0, .tokens = tokens});
  CHECK(story.text == expected);
  CHECK(story.tokens == written);
  CHECK(story.prompt_tokens == std::ssize(encoded));
  CHECK_FALSE(story.ended);
  CHECK(written == tokens);
}

/// A model that generates `bytes` and ends. Each token depends on the previous one only.
template <class Arch>
void make_automaton(Model<Arch, Cpu>& model, const std::string& bytes) {
  set_weights(model, std::vector<float>(static_cast<std::size_t>(model.size)));
  const auto& weights = model.weights();
  for (Index i = 0; i < Arch::width; ++i) weights.norm.weight.data[i] = 1;
  REQUIRE(std::ssize(bytes) < Arch::width);
  Token before = tiny_tokenizer().end_of_story();
  Index state = 0;
  const auto follow = [&](Token token) {
    weights.embedding.weight.data[before * Arch::width + state] = 1;
    weights.head.data[token * Arch::width + state] = 10;
    before = token, ++state;
  };
  for (const char byte : bytes) follow(tiny_tokenizer().encode(std::string(1, byte)).at(0));
  follow(tiny_tokenizer().end_of_story());
}

}  // namespace

TEST_CASE("Cached greedy stories are those of full passes, within the context", "[generate]") {
  Cpu backend(2);
  const auto model = endless<Teller<128>>(backend);
  check_greedy(model, model, 0, 40);
  check_greedy(model, model, 80, 40);
  using Paired = Transformer<Vocab<300>, Context<64>, Width<16>, Bigrams<40>, PerLayerEmbeddings,
                             Layers<2, DenseBlock<RmsNorm, Attention<Heads<4>>, Expert<SwiGlu, Hidden<24>>>>>;
  const auto paired = endless<Paired>(backend);
  check_greedy(paired, paired, 20, 30);
}

TEST_CASE("A prompt may be longer than a pass of the session", "[generate]") {
  Cpu backend(2);
  using Long = Teller<560>;
  STATIC_REQUIRE(Session<Model<Long, Cpu>>::chunk == 512);
  STATIC_REQUIRE(Session<Model<Teller<80, SlidingWindow<11>>, Cpu>>::chunk == 64);
  STATIC_REQUIRE(Session<Model<Teller<300, SlidingWindow<100>>, Cpu>>::chunk == 100);
  STATIC_REQUIRE(Session<Model<Teller<17>, Cpu>>::chunk == 17);
  const auto model = endless<Long>(backend);
  check_greedy(model, model, 540, 12);
}

TEST_CASE("With a sliding window, stories continue beyond window and context", "[generate]") {
  Cpu backend(2);
  const auto check = [&]<class Arch, class Whole>(std::type_identity<Arch>, std::type_identity<Whole>) {
    static_assert(Session<Model<Arch, Cpu>>::unlimited);
    const auto model = endless<Arch>(backend);
    Model<Whole, Cpu> whole(backend, Seed{4});
    set_weights(whole, weights_of(model));
    for (const Index prompt : {0, 5, 31, 100}) check_greedy(model, whole, prompt, 80);
  };
  // The cache rolls within the context; is as long as the context; is longer, as a pass reads the whole context.
  check(std::type_identity<Teller<32, SlidingWindow<8>>>{}, std::type_identity<Teller<200, SlidingWindow<8>>>{});
  check(std::type_identity<Teller<32, SlidingWindow<32>>>{}, std::type_identity<Teller<200, SlidingWindow<32>>>{});
}

TEST_CASE("If a pass is shorter than the context, the cache is a ring buffer too", "[generate]") {
  Cpu backend(2);
  const auto model = endless<Teller<80, SlidingWindow<11>>>(backend);
  Model<Teller<320, SlidingWindow<11>>, Cpu> whole(backend, Seed{4});
  set_weights(whole, weights_of(model));
  check_greedy(model, whole, 3, 100);
  check_greedy(model, whole, 250, 30);
}

TEST_CASE("Prefill in pieces of any size gives the logits of single tokens", "[session]") {
  Cpu backend(2);
  const Model<Teller<32, SlidingWindow<8>>, Cpu> model(backend, Seed{3});
  Session single(model), pieces(model);
  const auto tokens = random_tokens(150, 300);
  std::mt19937 random(1);
  std::vector<float> expected;
  for (std::size_t at = 0; at < tokens.size();) {
    const std::size_t count = std::min<std::size_t>(1 + random() % 45, tokens.size() - at);
    const auto found = pieces.feed(std::span(tokens).subspan(at, count));
    for (std::size_t i = 0; i < count; ++i) {
      const auto logits = single.feed(std::span(tokens).subspan(at + i, 1));
      expected.assign(logits.begin(), logits.end());
    }
    CHECK(greatest_difference(std::vector<float>(found.begin(), found.end()), expected) < 1e-5);
    at += count;
    CHECK(pieces.position() == static_cast<Index>(at));
  }
  // After a reset nothing is left of the past.
  pieces.reset();
  CHECK(pieces.position() == 0);
  const auto again = pieces.feed(std::span(tokens).first(5));
  CHECK(greatest_difference(std::vector<float>(again.begin(), again.end()),
                            full_logits(model, std::span(tokens).first(5))) < 1e-5);
}

TEST_CASE("A sequence that outgrows a full context starts again with its later half", "[session]") {
  Cpu backend(2);
  const auto check = [&]<class Arch>(std::type_identity<Arch>) {
    static_assert(!Session<Model<Arch, Cpu>>::unlimited);
    constexpr Index context = Arch::context;
    const Model<Arch, Cpu> model(backend, Seed{3});
    Session session(model);
    const auto tokens = random_tokens(100, Arch::vocab);
    Index first = 0;  // what the model still sees begins here
    for (Index t = 0; t < 100; ++t) {
      if (t + 1 - first > context) first = t + 1 - (context + 1) / 2;
      const auto at = static_cast<std::size_t>(t);
      const auto logits = session.feed(std::span(tokens).subspan(at, 1));
      const auto seen =
          std::span(tokens).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(t + 1 - first));
      CHECK(greatest_difference(std::vector<float>(logits.begin(), logits.end()), full_logits(model, seen)) < 1e-5);
      CHECK(session.position() == t + 1 - first);
    }
    // A prompt longer than the context: its end.
    session.reset();
    const auto logits = session.feed(tokens);
    CHECK(greatest_difference(std::vector<float>(logits.begin(), logits.end()),
                              full_logits(model, std::span(tokens).last(static_cast<std::size_t>((context + 1) / 2)))) <
          1e-5);
    // One that fills it to the last place is read whole.
    session.reset();
    const auto filled = session.feed(std::span(tokens).first(static_cast<std::size_t>(context)));
    CHECK(greatest_difference(std::vector<float>(filled.begin(), filled.end()),
                              full_logits(model, std::span(tokens).first(static_cast<std::size_t>(context)))) < 1e-5);
    const auto story = Generator(model, tiny_tokenizer()).write(prompt_of(40), {.temperature = 1, .tokens = 60});
    CHECK((story.ended || story.tokens == 60));
  };
  check(std::type_identity<Teller<17>>{});
  using Block = DenseBlock<LayerNorm, Attention<Heads<2>, Learned, SlidingWindow<5>, Bias>, Expert<Gelu, Hidden<16>>>;
  check(std::type_identity<Transformer<Vocab<260>, Context<16>, Width<16>, HeadBias, Layers<1, Block>>>{});
}

TEST_CASE("A session refuses tokens outside the vocabulary", "[session]") {
  Cpu backend(1);
  const Model<Teller<17>, Cpu> model(backend, Seed{3});
  Session session(model);
  check_message<TextError>([&] { session.feed({}); }, "at least one token");
  const std::vector<Token> large = {1, 300}, negative = {-1};
  check_message<TextError>([&] { session.feed(large); }, "token 300", "vocabulary of 300");
  check_message<TextError>([&] { session.feed(negative); }, "token -1");
  CHECK(session.position() == 0);
  CHECK(session.cache_bytes() > 0);
}

TEST_CASE("A story ends where the model says so, and comes in whole characters", "[generate]") {
  Cpu backend(1);
  Model<Teller<17>, Cpu> model(backend, Seed{3});
  const std::string text = "a\xC3\xA9\xF0\x9F\x98\x80z\xE2\x82\xAC!";  // a é 😀 z € !
  make_automaton(model, text);
  // A token beyond the tokenizer's would win everywhere.
  for (Index i = 0; i < 16; ++i) model.weights().head.data[299 * 16 + i] = 100;
  Generator generator(model, tiny_tokenizer());
  std::vector<std::string> pieces;
  const auto collect = [&](std::string_view piece) { pieces.emplace_back(piece); };
  auto story = generator.write("", {.temperature = 0.5f}, collect);
  CHECK(story.text == text);
  CHECK(story.ended);
  CHECK(story.tokens == 12);
  CHECK(story.prompt_tokens == 0);
  CHECK(pieces == std::vector<std::string>{"a", "\xC3\xA9", "\xF0\x9F\x98\x80", "z", "\xE2\x82\xAC", "!"});

  // Cut by the number of tokens, in the middle of a character: nothing is lost.
  pieces.clear();
  story = generator.write("", {.temperature = 0, .tokens = 5}, collect);
  CHECK(story.text == text.substr(0, 5));
  CHECK_FALSE(story.ended);
  CHECK(pieces == std::vector<std::string>{"a", "\xC3\xA9", "\xF0\x9F"});

  // The prompt comes first; the story goes on from it.
  pieces.clear();
  story = generator.write("z", {.temperature = 0}, collect);
  CHECK(story.text == "z\xE2\x82\xAC!");
  CHECK(story.prompt_tokens == 1);
  CHECK(pieces == std::vector<std::string>{"z", "\xE2\x82\xAC", "!"});
  CHECK(generate(model, tiny_tokenizer(), "z", {.temperature = 0}) == "z\xE2\x82\xAC!");

  // A prompt that ends within a character: the model's next token is the rest of it.
  pieces.clear();
  story = generator.write("\xC3", {.temperature = 0, .tokens = 1}, collect);
  CHECK(story.text == "\xC3\xA9");
  CHECK(pieces == std::vector<std::string>{"\xC3\xA9"});
  pieces.clear();
  CHECK(generator.write("z\xC3", {.tokens = 0}, collect).text == "z\xC3");
  CHECK(pieces == std::vector<std::string>{"z", "\xC3"});

  // Nothing to write.
  pieces.clear();
  story = generator.write("z", {.tokens = 0}, collect);
  CHECK(story.text == "z");
  CHECK(story.tokens == 0);
  CHECK_FALSE(story.ended);
  CHECK(pieces == std::vector<std::string>{"z"});
}

TEST_CASE("A text ends at each of the tokens that the model's files name, and they are no text", "[generate]") {
  Cpu backend(1);
  Model<Teller<17>, Cpu> model(backend, Seed{3});
  const auto tokenizer = llama_tokenizer(true);
  const auto greedy = [&](std::string_view prompt) {
    return Generator(model, tokenizer).write(prompt, {.temperature = 0, .tokens = 8});
  };
  // `token` is always the likeliest one.
  const auto prefer = [&](Token token) {
    auto weights = weights_of(model);
    std::fill(weights.begin(), weights.end(), 0.0f);
    set_weights(model, weights);
    for (Index i = 0; i < 16; ++i) model.weights().norm.weight.data[i] = 1;
    for (Index i = 0; i < 300 * 16; ++i) model.weights().embedding.weight.data[i] = 1;
    for (Index i = 0; i < 16; ++i) model.weights().head.data[token * 16 + i] = 1;
  };
  auto& files = model.special_tokens();
  const Token last = static_cast<Token>(tokenizer.vocabulary_size() - 1);
  // Special tokens that end nothing give no text; the tokenizer's end of a story is Llama's <s>.
  for (const Token token : {0, 1, 2, int{last}}) {
    CAPTURE(token);
    prefer(token);
    files = {};
    auto story = greedy("the");
    CHECK(story.text == "the");
    CHECK(story.ended == (token == 1));
    CHECK(story.tokens == (token == 1 ? 0 : 8));
    files.config = SpecialTokens{.begin = 1, .end = {2}};
    story = greedy("the");
    CHECK(story.text == "the");
    CHECK(story.ended == (token == 2));
    CHECK(story.tokens == (token == 2 ? 0 : 8));
    // Another list; generation_config.json decides where there is one; a file may name no end.
    files.config->end = {2, last, 0};
    CHECK(greedy("").ended == (token != 1));
    files.generation = SpecialTokens{.end = {1}};
    CHECK(greedy("").ended == (token == 1));
    files.generation->end = {};
    CHECK_FALSE(greedy("").ended);
    CHECK(greedy("").text.empty());
  }
  // An end beyond the tokenizer's tokens is drawn too, no other one; one beyond the model's ends nothing.
  files = {.config = SpecialTokens{.begin = 1, .end = {290, 300, -1}}};
  for (const Token token : {289, 290}) {
    prefer(token);
    CHECK(greedy("the").ended == (token == 290));
    CHECK(Generator(model, tokenizer).write("the", {.temperature = 1, .tokens = 50}).text.starts_with("the"));
  }
}

TEST_CASE("A text begins with the tokenizer's token, or else the files', or else the end of a story", "[generate]") {
  Cpu backend(1);
  Model<Teller<17>, Cpu> model(backend, Seed{3});
  const auto first = [&](const Tokenizer& tokenizer) {
    return Generator(model, tokenizer).write("", {.tokens = 0}).ids;
  };
  const auto bytes = padding_tokenizer(), llama = llama_tokenizer(true);
  auto& files = model.special_tokens();
  CHECK(first(bytes) == std::vector<Token>{bytes.end_of_story()});
  files.config = SpecialTokens{.begin = 7, .end = {8}};
  CHECK(first(bytes) == std::vector<Token>{7});
  CHECK(first(llama) == std::vector<Token>{1});
  files.generation = SpecialTokens{.begin = 9, .end = {8}};
  CHECK(first(bytes) == std::vector<Token>{9});
  files.generation->begin.reset();
  CHECK(first(bytes) == std::vector<Token>{7});
  files.config->begin.reset();
  CHECK(first(bytes) == std::vector<Token>{bytes.end_of_story()});
  files.config->begin = 299;
  check_message<MismatchError>([&] { first(bytes); }, "\"bos_token_id\" is 299", "265 tokens");
}

/// A tokenizer of one's own with the required members alone.
struct Bare {
  std::vector<Token> encode(std::string_view text) const { return tiny_tokenizer().encode(text); }
  std::string_view bytes(Token token) const { return tiny_tokenizer().bytes(token); }
  Index vocabulary_size() const { return tiny_tokenizer().vocabulary_size(); }
  Token end_of_story() const { return tiny_tokenizer().end_of_story(); }
};

TEST_CASE("A tokenizer with the required members alone writes what the library's does", "[generate]") {
  static_assert(StoryTokenizer<Bare> && !StreamingTokenizer<Bare> && !BeginningTokenizer<Bare>);
  static_assert(StreamingTokenizer<Tokenizer> && BeginningTokenizer<Tokenizer>);
  Cpu backend(1);
  const Model<Teller<17>, Cpu> model(backend, Seed{3});
  const SampleOptions options{.top_p = 1, .tokens = 12, .seed = Seed{4}};
  const Story story = Generator(model, tiny_tokenizer()).write("the cat", options);
  const Story bare = Generator(model, Bare{}).write("the cat", options);
  CHECK(bare.ids == story.ids);
  CHECK(bare.text == story.text);
}

TEST_CASE("The text of a story is its prompt and what decode gives, for every kind of tokenizer", "[generate]") {
  Cpu backend(1);
  Model<Teller<17>, Cpu> model(backend, Seed{3});
  const std::vector<std::string> prompts = {"", " ", "  ", "the", "the ", " the", "a b", "\n", "<s>", "</s>",
                                            "<|endoftext|>", "<|im_end|>", "<0x41>",
                                            // U+2581; the first bytes of a character; a byte that is none; a NUL.
                                            "a\xe2\x96\x81the", "a\xf0\x9f\x98", "\xe2", "\xff", std::string("a\0", 2)};
  model.special_tokens().config = SpecialTokens{};  // no end
  for (const auto& tokenizer : {tiny_tokenizer(), padding_tokenizer(), llama_tokenizer(true), llama_tokenizer(false)}) {
    Generator generator(model, tokenizer, {.sequences = 5});
    std::vector<std::string> known;
    for (const auto& prompt : prompts) {
      if (tokenizer.knows(prompt)) known.push_back(prompt);
    }
    REQUIRE(known.size() > 5);
    for (std::uint32_t number = 0; number < 12; ++number) {
      // So hot that all tokens come, special ones too.
      SampleOptions options{.temperature = 20, .top_p = 1, .tokens = 20, .seed = Seed{2}, .story = number};
      std::vector<std::string> streams(known.size());
      const auto stories = generator.write(known, options, [&](Index i, std::string_view text) {
        CHECK_FALSE(text.empty());
        streams[static_cast<std::size_t>(i)] += text;
      });
      for (std::size_t i = 0; i < known.size(); ++i) {
        const auto& story = stories[i];
        CAPTURE(tokenizer.vocabulary_size(), known[i], story.ids);
        CHECK(story.tokens == 20);
        const auto ids = std::span(story.ids);
        const auto of_prompt = static_cast<std::size_t>(1 + story.prompt_tokens);
        const auto more = tokenizer.decode_after(ids.first(of_prompt), ids.subspan(of_prompt));
        CHECK(story.text == known[i] + more);
        CHECK(streams[i] == story.text);
        if (tokenizer.decode(tokenizer.encode(known[i])) == known[i]) CHECK(story.text == tokenizer.decode(story.ids));
        for (const char* name : {"<|endoftext|>", "<|pad|>", "<unk>", "<s>", "</s>", "<|im_end|>"}) {
          CHECK(more.find(name) == std::string::npos);
        }
      }
    }
  }
}

TEST_CASE("Bytes that are not UTF-8 are part of the text too", "[generate]") {
  Cpu backend(1);
  Model<Teller<17>, Cpu> model(backend, Seed{3});
  const std::string text = "\xFF\xA9\xA8z\xE2\x82";
  make_automaton(model, text);
  std::string joined;
  const auto story = Generator(model, tiny_tokenizer()).write("", {.temperature = 0}, [&](std::string_view piece) {
    CHECK_FALSE(piece.empty());
    joined += piece;
  });
  CHECK(story.text == text);
  CHECK(joined == text);
  CHECK(story.ended);
}

TEST_CASE("The same seed gives the same story, another story number another", "[generate]") {
  Cpu backend(2);
  const Model<Teller<128>, Cpu> model(backend, Seed{3});
  Generator generator(model, tiny_tokenizer());
  std::set<std::string> stories;
  const SampleOptions options{.temperature = 1, .tokens = 30, .seed = Seed{5}};
  const auto first = generator.write("the cat", options).text;
  CHECK(first.starts_with("the cat"));
  CHECK(generator.write("the cat", options).text == first);  // and nothing of the story before is left
  CHECK(Generator(model, tiny_tokenizer()).write("the cat", options).text == first);
  for (std::uint32_t story = 0; story < 4; ++story) {
    auto other = options;
    other.story = story;
    stories.insert(generator.write("the cat", other).text);
  }
  auto other = options;
  other.seed = Seed{6};
  stories.insert(generator.write("the cat", other).text);
  CHECK(stories.size() == 5);
  CHECK(stories.contains(first));
}

TEST_CASE("A generator refuses wrong options and a tokenizer that is too large", "[generate]") {
  Cpu backend(1);
  const Model<Teller<17>, Cpu> model(backend, Seed{3});
  Generator generator(model, tiny_tokenizer());
  check_message<OptionError>([&] { generator.write("a", {.temperature = -1}); }, "temperature");
  check_message<OptionError>([&] { generator.write("a", {.tokens = -3}); }, "tokens");
  const Model<TinyOf<259>, Cpu> small(backend, Seed{3});
  check_message<MismatchError>([&] { Generator(small, tiny_tokenizer()); }, "260", "259");
}

}  // namespace tinymoe_test::generate_tests
