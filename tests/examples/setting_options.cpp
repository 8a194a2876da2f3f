// The programs' options follow from an architecture's settings, a user's own among them.

#include "setting_options.hpp"

#include "files/bytes.hpp"
#include "support/catch.hpp"
#include "tinymoe/layers/transformer.hpp"
#include "train/own_router.hpp"

using namespace tinymoe_test;

namespace {

using Own = Transformer<Vocab<20>, Context<8>, Width<8>,
                        Layers<1, MoEBlock<RmsNorm, Attention<Heads<2>>, SharingRouter, Expert<Hidden<6>>>>>;
using Library = Transformer<Vocab<20>, Context<8>, Width<8>,
                            Layers<1, MoEBlock<RmsNorm, Attention<Heads<2>>, Router<4, 2>, Expert<Hidden<6>>>>>;

/// The settings of both after parsing a command line.
Settings parsed(std::vector<std::string> line) {
  CLI::App app;
  SettingList list = settings_of<Library>();
  list.add(settings_of<Own>());
  Settings settings{setting::dropout = 0.25};
  examples::add_settings(app, settings, list);
  std::reverse(line.begin(), line.end());
  app.parse(line);
  return settings;
}

}  // namespace

TEST_CASE("A user's own setting is listed by --help", "[settings]") {
  CLI::App app;
  Settings settings;
  const auto names = examples::add_settings(app, settings, settings_of<Own>());
  CHECK(std::count(names.begin(), names.end(), "--first-share") == 1);
  CHECK(std::count(names.begin(), names.end(), "--jitter") == 0);  // no part of Own reads it
  const std::string help = app.help();
  CHECK(help.find("--first-share") != std::string::npos);
  CHECK(help.find("of a token's first expert") != std::string::npos);
}

TEST_CASE("Options set settings, and refuse values outside the range", "[settings]") {
  CHECK(parsed({}) == Settings{setting::dropout = 0.25});
  CHECK(parsed({"--first-share", "0.75", "--bias-rate=0.5"}) ==
        Settings{setting::dropout = 0.25, first_share = 0.75, setting::bias_rate = 0.5});
  CHECK(parsed({"--dropout", "0", "--balance-over-step"}) == Settings{setting::balance_over_step = true});
  CHECK_THROWS_AS(parsed({"--first-share", "1.5"}), CLI::ValidationError);
  CHECK_THROWS_AS(parsed({"--jitter", "1"}), CLI::ValidationError);
  CHECK(parsed({"--balance-weight", "1000"})[setting::balance_weight] == 1000);
  check_message<CLI::ValidationError>(
      [] {
        parsed({"--balance-weight", "1001"});
      },
      "--balance-weight", "at most 1000", "found 1001");
  CHECK_THROWS_AS(parsed({"--z-weight", "1001"}), CLI::ValidationError);
  CHECK_THROWS_AS(parsed({"--bias-rate", "1.5"}), CLI::ValidationError);
  CHECK_THROWS_AS(parsed({"--jitter", "much"}), CLI::ConversionError);
  check_message<CLI::ConversionError>(
      [] {
        parsed({"--jitter", "1e-400"});
      },
      "--jitter", "found \"1e-400\", which does not fit a double");
}
