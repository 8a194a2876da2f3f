// A router of a user's own with a setting of its own: it acts, is checked, is saved and is loaded.

#include <array>

#include "files/bytes.hpp"
#include "support/catch.hpp"
#include "tinymoe/checkpoint/checkpoint.hpp"
#include "tinymoe/files/json.hpp"
#include "tinymoe/sample/session.hpp"
#include "tinymoe/train/trainer.hpp"
#include "train/own_router.hpp"
#include "train/tiny.hpp"

namespace tinymoe_test::own_setting {

namespace {

using Own = Transformer<Vocab<260>, Context<16>, Width<8>,
                        Layers<1, MoEBlock<RmsNorm, Attention<Heads<2>>, SharingRouter, Expert<Hidden<6>>>>>;

std::vector<float> logits(const Model<Own, Cpu>& model) {
  Session session(model);
  const auto row = session.feed(std::vector<Token>{7, 8, 9});
  return {row.begin(), row.end()};
}

}  // namespace

TEST_CASE("a setting of one's own acts, is checked, saved and loaded", "[settings]") {
  const TemporaryFolder root;
  Cpu backend(1);
  Model<Own, Cpu> model(backend, Seed{3});
  const auto before = logits(model);
  model.settings().set(first_share = 0.75);
  const auto after = logits(model);
  CHECK(before != after);

  save_model(root / "own", model, tiny_tokenizer());
  const Json config = read_json(root / "own" / "config.json");
  CHECK(config["tinymoe_settings"]["first_share"] == 0.75);
  Model<Own, Cpu> other(backend, Seed{4});
  load_model(root / "own", other);
  CHECK(other.settings() == Settings{first_share = 0.75});
  CHECK(logits(other) == after);

  model.settings().set(first_share = 1.5);
  check_message<OptionError>([&] { Session{model}; }, "first_share", "between 0 and 1");
  Trainer trainer(model);
  check_message<OptionError>(
      [&] {
        trainer.train_step(std::vector<Token>{1, 2}, std::vector<Token>{2, 3}, 1, 2);
      },
      "first_share");
}

}  // namespace tinymoe_test::own_setting
