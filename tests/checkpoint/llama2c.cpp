// Models of llama2.c: against a forward pass written as llama2.c's own, its greedy text, and everything that can be
// wrong with a file.

#include "tinymoe/checkpoint/llama2c.hpp"

#include <random>

#include "files/bytes.hpp"
#include "support/catch.hpp"
#include "tinymoe/backend/reference.hpp"
#include "tinymoe/sample/generate.hpp"
#include "tinymoe/text/tokenizer.hpp"
#include "train/tiny.hpp"

namespace tinymoe_test::llama2c {

namespace {

template <class Head, Index V = 11, Index F = 10>
using Small =
    Transformer<Vocab<V>, Context<8>, Width<12>, Head,
                Layers<2, DenseBlock<RmsNorm, Attention<Heads<6>, KvHeads<2>, Rope>, Expert<SwiGlu, Hidden<F>>>>>;

/// The model that generated greedy.txt.
using Trained =
    Transformer<Vocab<105>, Context<256>, Width<128>, TiedHead,
                Layers<5, DenseBlock<RmsNorm, Attention<Heads<8>, KvHeads<4>, Rope>, Expert<SwiGlu, Hidden<352>>>>>;

/// A model.bin, and llama2.c's forward pass over it, in double precision and one token at a time.
struct Written {
  Index width = 12, hidden = 10, layers = 2, heads = 6, kv_heads = 2, vocab = 11, context = 8;
  bool tied = true;
  std::vector<float> numbers;

  explicit Written(bool tied_head) : tied(tied_head) {
    const Index head_dim = width / heads, key_width = head_dim * kv_heads;
    const Index count = vocab * width * (tied ? 1 : 2) + width + context * head_dim +
                        layers * (2 * width + 2 * width * width + 2 * key_width * width + 3 * hidden * width);
    std::mt19937 random(5);
    for (Index i = 0; i < count; ++i) numbers.push_back(float(random() % 2001) / 1000.0f - 1.0f);
  }

  std::string bytes() const {
    std::string text;
    for (const Index field : {width, hidden, layers, heads, kv_heads, tied ? vocab : -vocab, context}) {
      text += bytes_of(static_cast<std::int32_t>(field));
    }
    return text + std::string(reinterpret_cast<const char*>(numbers.data()), numbers.size() * sizeof(float));
  }

  using Vector = std::vector<double>;
  static Vector times(const float* matrix, Index rows, const Vector& x) {
    Vector y(static_cast<std::size_t>(rows));
    for (auto& sum : y) {
      for (const double value : x) sum += value * double(*matrix++);
    }
    return y;
  }
  static Vector normed(const Vector& x, const float* gain) {
    double square = 0;
    for (const double value : x) square += value * value;
    Vector y = x;
    for (auto& value : y) value *= double(*gain++) / std::sqrt(square / double(x.size()) + 1e-5);
    return y;
  }
  static void add(Vector& x, const Vector& y) {
    for (std::size_t i = 0; i < x.size(); ++i) x[i] += y[i];
  }

  /// The logits after the last of `tokens`.
  Vector logits(const std::vector<Token>& tokens) const {
    const Index d = width / heads, key_width = d * kv_heads;
    const float* next = numbers.data();
    const auto stack = [&](Index count) { return std::exchange(next, next + count); };
    const float *embedding = stack(vocab * width), *norm1 = stack(layers * width);
    const float *wq = stack(layers * width * width), *wk = stack(layers * key_width * width);
    const float *wv = stack(layers * key_width * width), *wo = stack(layers * width * width);
    const float *norm2 = stack(layers * width), *w1 = stack(layers * hidden * width);
    const float *w2 = stack(layers * width * hidden), *w3 = stack(layers * hidden * width), *last = stack(width);
    stack(context * d);
    const float* head = tied ? embedding : next;
    std::vector<std::vector<Vector>> keys(2), values(2);
    Vector x;
    for (std::size_t position = 0; position < tokens.size(); ++position) {
      const float* row = embedding + tokens[position] * width;
      x.assign(row, row + width);
      for (Index l = 0; l < layers; ++l) {
        const auto at = static_cast<std::size_t>(l);
        const Vector normed_x = normed(x, norm1 + l * width);
        Vector q = times(wq + l * width * width, width, normed_x);
        Vector k = times(wk + l * key_width * width, key_width, normed_x);
        for (Index i = 0; i < width; i += 2) {  // neighbours are a pair
          const double angle = double(position) * std::pow(10000.0, -double(i % d) / double(d));
          for (Vector* turned : {&q, &k}) {
            if (i >= std::ssize(*turned)) continue;
            double &a = (*turned)[static_cast<std::size_t>(i)], &b = (*turned)[static_cast<std::size_t>(i + 1)];
            const double a0 = a, b0 = b;
            a = a0 * std::cos(angle) - b0 * std::sin(angle);
            b = a0 * std::sin(angle) + b0 * std::cos(angle);
          }
        }
        keys[at].push_back(k);
        values[at].push_back(times(wv + l * key_width * width, key_width, normed_x));
        Vector out(static_cast<std::size_t>(width));
        for (Index h = 0; h < heads; ++h) {
          const auto col = static_cast<std::size_t>(h / (heads / kv_heads) * d);
          const auto own = static_cast<std::size_t>(h * d);
          double total = 0;
          Vector weights;
          for (const auto& key : keys[at]) {
            double score = 0;
            for (std::size_t i = 0; i < static_cast<std::size_t>(d); ++i) score += q[own + i] * key[col + i];
            weights.push_back(std::exp(score / std::sqrt(double(d))));
            total += weights.back();
          }
          for (std::size_t t = 0; t < weights.size(); ++t) {
            for (std::size_t i = 0; i < static_cast<std::size_t>(d); ++i) {
              out[own + i] += weights[t] / total * values[at][t][col + i];
            }
          }
        }
        add(x, times(wo + l * width * width, width, out));
        const Vector normed_h = normed(x, norm2 + l * width);
        Vector gate = times(w1 + l * hidden * width, hidden, normed_h);
        const Vector up = times(w3 + l * hidden * width, hidden, normed_h);
        for (std::size_t i = 0; i < gate.size(); ++i) gate[i] *= up[i] / (1 + std::exp(-gate[i]));
        add(x, times(w2 + l * width * hidden, width, gate));
      }
    }
    return times(head, vocab, normed(x, last));
  }
};

/// A file's content with one i32 changed.
std::string with_field(std::string bytes, std::size_t field, std::int32_t value) {
  return bytes.replace(4 * field, 4, bytes_of(value));
}

template <class Head>
void check_forward() {
  const TemporaryFolder folder;
  const Written written(std::is_same_v<Head, TiedHead>);
  const auto path = write_bytes(folder / "model.bin", written.bytes());
  Reference<double> backend;
  Model<Small<Head>, Reference<double>> model(
      backend, Seed{1}, {setting::norm_epsilon = 0.5, setting::rope_theta = 3, setting::z_weight = 7});
  load_llama2c(path, model);
  CHECK(model.settings() == Settings{setting::z_weight = 7});
  const std::vector<Token> tokens = {3, 10, 0, 3, 7, 7};
  const auto expected = written.logits(tokens);
  Session session(model);
  const auto found = session.feed(tokens);
  REQUIRE(found.size() == expected.size());
  for (std::size_t v = 0; v < expected.size(); ++v) CHECK(double(found[v]) == Approx(expected[v]).epsilon(1e-6));
}

}  // namespace

TEST_CASE("A model of llama2.c computes what llama2.c does", "[llama2c]") {
  check_forward<TiedHead>();
  check_forward<UntiedHead>();
}

TEST_CASE("The header of a model.bin says what it is", "[llama2c]") {
  const TemporaryFolder folder;
  const auto path = write_bytes(folder / "model.bin", Written(false).bytes());
  const Llama2cHeader header = llama2c_header(path);
  CHECK(header == Llama2cHeader{12, 10, 2, 6, 2, 11, 8, false});
  CHECK(header.type() ==
        "Transformer<Vocab<11>, Context<8>, Width<12>, UntiedHead, Layers<2, DenseBlock<RmsNorm, "
        "Attention<Heads<6>, KvHeads<2>, Rope>, Expert<SwiGlu, Hidden<10>>>>>");
}

TEST_CASE("A model.bin of another architecture is refused with every difference", "[llama2c]") {
  const TemporaryFolder folder;
  const auto path = write_bytes(folder / "model.bin", Written(true).bytes());
  Cpu backend(1);
  Model<Small<UntiedHead, 12, 9>, Cpu> model(backend, Seed{2}, {setting::norm_epsilon = 0.5});
  const auto before = weights_of(model);
  check_message<MismatchError>([&] { load_llama2c(path, model); }, path.string(), "hidden 10 where the type has 9",
                               "vocabulary 11 where the type has 12", "a tied head yes where the type has no",
                               llama2c_header(path).type());
  const auto message = message_of<MismatchError>([&] { load_llama2c(path, model); });
  for (const char* same : {"width 12", "layers 2", "heads 6", "context 8"}) {
    CHECK(message.find(same) == std::string::npos);
  }
  CHECK(same_bits(weights_of(model), before));
  CHECK(model.settings()[setting::norm_epsilon] == 0.5);
}

TEST_CASE("A model.bin that is cut, corrupt or hostile is a file error and changes nothing", "[llama2c]") {
  const TemporaryFolder folder;
  const auto path = folder / "model.bin";
  Cpu backend(1);
  Model<Small<TiedHead>, Cpu> model(backend, Seed{2});
  const auto before = weights_of(model);
  const auto refuse = [&](const std::string& bytes, const auto&... parts) {
    write_bytes(path, bytes);
    check_message<FileError>([&] { load_llama2c(path, model); }, path.string(), parts...);
    REQUIRE(same_bits(weights_of(model), before));
  };
  const auto good = Written(true).bytes();
  for (const std::size_t size : {0, 1, 27, 28, 29, 1000}) refuse(good.substr(0, size));
  refuse(good.substr(0, good.size() - 1), "numbers");
  refuse(good.substr(0, good.size() - 4), "numbers");
  refuse(good + std::string(4, '\0'), "numbers");
  const char* const fields[] = {"width", "hidden", "layers", "heads", "key-value heads", "vocabulary", "context"};
  for (std::size_t field = 0; field < 7; ++field) {
    refuse(with_field(good, field, 0), fields[field], "of 0");
    refuse(with_field(good, field, INT32_MIN), fields[field]);
    if (field != 5) refuse(with_field(good, field, -1), fields[field], "of -1");
    refuse(with_field(good, field, 0x7ffffffe));  // sizes that overflow, or heads that do not fit
    refuse(with_field(good, field, 0x40000000));
  }
  std::string huge = good;
  for (std::size_t field = 0; field < 7; ++field)
    huge = with_field(huge, field, field == 3 || field == 4 ? 1 : 1 << 30);
  refuse(huge, "numbers");
  refuse(with_field(good, 3, 5), "5 heads");
  refuse(with_field(good, 3, 12), "even");
  refuse(with_field(good, 4, 4), "4 key-value heads do not fit");
  refuse(with_field(good, 0, 0x616b3432), "version 0");
  // Even a fault in the last tensor is found before anything has changed.
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    Written written(true);
    written.numbers[11 * 12 + 5] = bad;
    refuse(written.bytes(), "model.layers.0.input_layernorm.weight", "number 5");
    written = Written(true);
    written.numbers[written.numbers.size() - 8 * 2 - 1] = bad;
    refuse(written.bytes(), "model.norm.weight", "number 11");
  }
  // The RoPE tables are not read.
  Written written(true);
  written.numbers.back() = std::numeric_limits<float>::quiet_NaN();
  load_llama2c(write_bytes(path, written.bytes()), model);
  CHECK_FALSE(same_bits(weights_of(model), before));
  check_message<FileError>([&] { load_llama2c(folder / "none", model); }, "none");
  check_message<FileError>([&] { static_cast<void>(llama2c_header(folder.path())); }, "regular file");
}

TEST_CASE("A model of llama2.c is saved with its tokenizer as a checkpoint", "[llama2c]") {
  const TemporaryFolder folder;
  std::string tokens = bytes_of(std::int32_t{8});
  for (const char* name : {"<unk>", "<s>", "</s>", " ", "a", "b", "ab", "c", "d", "e", "f"}) {
    tokens += bytes_of(0.0f) + bytes_of(static_cast<std::int32_t>(std::strlen(name))) + name;
  }
  const auto tokenizer = Tokenizer::load_llama2c(write_bytes(folder / "tokenizer.bin", tokens));
  Cpu backend(1);
  Model<Small<TiedHead>, Cpu> model(backend, Seed{2}), again(backend, Seed{3});
  model.special_tokens().config = SpecialTokens{.begin = 4, .end = {5}};  // of another model, which was there before
  load_llama2c(write_bytes(folder / "model.bin", Written(true).bytes()), model);
  CHECK(model.special_tokens() == ModelTokens{});
  save_model(folder / "checkpoint", model, tokenizer);
  load_model(folder / "checkpoint", again);
  CHECK(same_bits(weights_of(again), weights_of(model)));
  CHECK(Tokenizer::load(folder / "checkpoint" / "tokenizer.json") == tokenizer);
  const Json config = read_json(folder / "checkpoint" / "config.json");
  CHECK(config["bos_token_id"] == 1);
}

TEST_CASE("A trained model of llama2.c generates llama2.c's greedy text", "[llama2c]") {
  const auto model_bin = shared_data("llama2c/model.bin");
  const auto tokenizer = Tokenizer::load_llama2c(shared_data("llama2c/tokenizer.bin"));
  // llama2.c's program prints a line feed at the end.
  std::string expected = read_bytes(shared_data("llama2c/greedy.txt"));
  REQUIRE(expected.ends_with('\n'));
  expected.pop_back();
  CHECK(llama2c_header(model_bin) == Llama2cHeader{128, 352, 5, 8, 4, 105, 256, true});
  Cpu backend(1);
  Model<Trained, Cpu> model(backend);
  load_llama2c(model_bin, model);

  // llama2.c counts the prompt's tokens among its 256: the space before it, and 16 characters.
  Generator generator(model, tokenizer);
  const auto story = generator.write("Once upon a time", {.temperature = 0, .tokens = 256 - 17});
  CHECK(story.text == expected);
  auto encoded = tokenizer.encode(expected);
  encoded.insert(encoded.begin(), tokenizer.end_of_story());
  CHECK(story.ids == encoded);
}

}  // namespace tinymoe_test::llama2c
