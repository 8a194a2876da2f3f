// Architectures, and a block, that are structs of their own, so that their names stay short in messages. Everything
// works with them as with the types that they derive from.

#include "files/bytes.hpp"
#include "support/catch.hpp"
#include "tinymoe/analysis/count.hpp"
#include "tinymoe/analysis/inspect.hpp"
#include "tinymoe/analysis/report.hpp"
#include "tinymoe/backend/reference.hpp"
#include "tinymoe/checkpoint/checkpoint.hpp"
#include "tinymoe/checkpoint/llama2c.hpp"
#include "tinymoe/checkpoint/upcycle.hpp"
#include "tinymoe/sample/generate.hpp"
#include "tinymoe/train/trainer.hpp"
#include "train/tiny.hpp"

namespace tinymoe_test::named_model {

namespace {

using DenseFeed = DenseBlock<RmsNorm, Attention<Heads<4>, KvHeads<2>>, Expert<SwiGlu, Hidden<24>>>;
struct Sparse : MoEBlock<RmsNorm, Attention<Heads<4>, KvHeads<2>>, Router<4, 2>, Expert<SwiGlu, Hidden<24>>> {};

using PlainTeller = Transformer<
    Vocab<260>, Context<16>, Width<16>, TiedHead,
    Layers<2, MoEBlock<RmsNorm, Attention<Heads<4>, KvHeads<2>>, Router<4, 2>, Expert<SwiGlu, Hidden<24>>>>>;
struct StoryTeller : Transformer<Vocab<260>, Context<16>, Width<16>, TiedHead, Layers<2, Sparse>> {};
struct DenseTeller : Transformer<Vocab<260>, Context<16>, Width<16>, TiedHead, Layers<2, DenseFeed>> {};

static_assert(count<StoryTeller>().total == count<PlainTeller>().total);
static_assert(count<StoryTeller>().active == count<PlainTeller>().active);
static_assert(settings_of<StoryTeller>().size() == settings_of<PlainTeller>().size());
static_assert(StoryTeller::has_mixtures && !DenseTeller::has_mixtures);

const std::vector<Token> tokens = {1, 2, 3, 4, 5, 6, 7, 8}, next = {2, 3, 4, 5, 6, 7, 8, 9};

template <class Arch>
std::vector<float> after_a_step() {
  Cpu backend(1);
  Model<Arch, Cpu> model(backend, Seed{3});
  Trainer trainer(model);
  trainer.train_step(tokens, next, 1, 8);
  Session session(model);
  const auto logits = session.feed(tokens);
  return {logits.begin(), logits.end()};
}

}  // namespace

TEST_CASE("a named model computes the same as the type it derives from", "[named]") {
  CHECK(after_a_step<StoryTeller>() == after_a_step<PlainTeller>());
  CHECK(config_json<StoryTeller>({}, 3) == config_json<PlainTeller>({}, 3));
  CHECK(hub_class<StoryTeller>() == "MixtralForCausalLM");
  std::ostringstream named, plain;
  print_count<StoryTeller>(named), print_count<PlainTeller>(plain);
  CHECK(named.str() == plain.str());
  Cpu backend(1);
  CHECK(activation_bytes<StoryTeller>(backend, 2, 8) == activation_bytes<PlainTeller>(backend, 2, 8));
}

TEST_CASE("checkpoints of a named model and of the type are the same", "[named]") {
  const TemporaryFolder root;
  Cpu backend(1);
  Model<StoryTeller, Cpu> named(backend, Seed{3});
  Model<PlainTeller, Cpu> plain(backend, Seed{4});
  save_model(root / "model", named, tiny_tokenizer());
  load_model(root / "model", plain);
  auto array = xt::xtensor<Token, 2>::from_shape({1, 8});
  std::copy(tokens.begin(), tokens.end(), array.begin());
  CHECK((inspect(named, array).logits == inspect(plain, array).logits));
  CHECK(generate(named, tiny_tokenizer(), "the", {.tokens = 8}) ==
        generate(plain, tiny_tokenizer(), "the", {.tokens = 8}));
}

TEST_CASE("a named dense model comes from llama2.c, and becomes a named mixture", "[named]") {
  const TemporaryFolder root;
  const auto header = llama2c_header_of<DenseTeller>();
  CHECK(header.hidden == 24);
  Cpu backend(1);
  Model<DenseTeller, Cpu> dense(backend, Seed{3});
  check_message<FileError>([&] { load_llama2c(root / "none.bin", dense); }, "none.bin");
  Model<StoryTeller, Cpu> mixture(backend, Seed{4});
  upcycle(dense, mixture);
  auto array = xt::xtensor<Token, 2>::from_shape({1, 8});
  std::copy(tokens.begin(), tokens.end(), array.begin());
  const auto found = inspect(mixture, array).logits, expected = inspect(dense, array).logits;
  for (std::size_t i = 0; i < found.size(); ++i) {
    REQUIRE(found.data()[i] == Approx(expected.data()[i]).margin(1e-5));
  }
}

}  // namespace tinymoe_test::named_model
