// Harnesses of the command line: of numbers, and of all options of a run, of its model's settings and of sampling.

#include "fuzz/harness.hpp"

#ifdef TINYMOE_FUZZ_OPTIONS
#include <algorithm>
#include <cmath>
#include <memory>
#include <type_traits>
#include <utility>

#include "examples/run_fields.hpp"
#include "examples/sample_settings.hpp"
#include "examples/setting_options.hpp"
#include "programs/main.hpp"
#include "programs/numbers.hpp"
#include "tinymoe/layers/transformer.hpp"

namespace tinymoe_fuzz {

namespace options {

namespace range = programs::range;
constexpr programs::NumberRange ranges[] = {range::any,         range::above_0,        range::from_0,
                                            range::from_0_to_1, range::from_0_below_1, range::above_0_to_1,
                                            range::whole(0),    range::whole(1, 4096), range::whole(-1)};

/// A program with an option of numbers, of each range. Made once, since that takes a hundred times as long as parsing.
struct Program {
  explicit Program(const programs::NumberRange& allowed) {
    programs::add_numbers(app, "--many", many, "numbers", allowed);
  }
  CLI::App app;
  std::vector<double> many;
};

Program& program_of(std::size_t number) {
  static const auto all = [] {
    std::vector<std::unique_ptr<Program>> made;
    for (const auto& allowed : ranges) made.push_back(std::make_unique<Program>(allowed));
    return made;
  }();
  return *all[number];
}

// A number of an option of the programs: of which range, and its text.
void option_number(std::string_view input) {
  Bytes bytes(input);
  const std::size_t number_of_range = bytes.below(std::size(ranges));
  const auto& chosen = ranges[number_of_range];
  const std::string_view text = bytes.rest();
  const auto take = [&]<class T>(T number) {
    if (!accepts([&] { programs::take_number("--option", text, number, chosen); })) return;
    expect(std::isfinite(static_cast<double>(number)), "an option that is not finite");
    expect(!std::signbit(static_cast<double>(number)) || number != T(0), "an option is a negative zero");
    expect(chosen.allows(static_cast<double>(number)), "an option outside its range");
  };
  take(float{}), take(double{});
  if (chosen.whole) take(std::int64_t{}), take(std::uint64_t{}), take(int{});
  auto& [app, many] = program_of(number_of_range);
  many.clear();
  try {
    app.parse(std::vector<std::string>{std::string(text), "--many"});
    for (const double number : many) expect(chosen.allows(number), "one of many is outside its range");
  } catch (const CLI::ParseError&) {
  }
}

void option_number_seeds(const TakeSeed& take) {
  for (const char* text :
       {"1e-3", "-0", "nan", "inf", "0x10", "1,2,3", "18446744073709551616", "1e400", "0.99999999", ""}) {
    for (const std::size_t range : {0, 4, 7}) take(numbered(range, text));
  }
}

/// What for_each_field of `train` asks of its arguments.
struct Run {
  struct Stories {
    struct {
      double rate = 0;
    } dropout;
  };
  examples::Recipe recipe;
  Stories stories;
  Index time = 0, steps = 0, evaluate_every = 0, checkpoint_every = 0;
  double minutes = 0, evaluate_minutes = 0, checkpoint_minutes = 0, average = 0;
  Batching batching = Batching::packed;
  std::uint64_t seed = 1337;
};

using Tiny = Transformer<Vocab<20>, Context<8>, Width<8>,
                         Layers<1, MoEBlock<RmsNorm, Attention<Heads<2>>, Router<4, 2>, Expert<Hidden<6>>>>>;

/// Options of the programs, made once.
struct Programs {
  Programs() {
    examples::add_fields(train, run);
    examples::add_settings(train, run.recipe.settings, settings);
    examples::add_sample_options(sample, options);
    for (CLI::App* app : {&train, &sample}) programs::refuse_values_of_flags(*app);
  }
  Programs(const Programs&) = delete;
  CLI::App train, sample;
  Run run;
  SettingList settings = settings_of<Tiny>();
  SampleOptions options;
};

/// f(option, number, range) for each field that is a number.
template <class F>
void for_each_number(const Run& run, F&& f) {
  examples::for_each_field(run, [&](const char*, const std::string& option, const auto& value, const char*,
                                    const programs::NumberRange& allowed) {
    using T = std::remove_cvref_t<decltype(value)>;
    if constexpr (std::is_arithmetic_v<T> && !std::is_same_v<T, bool>) f(option, static_cast<double>(value), allowed);
  });
}

void expect_in_range(const Run& run) {
  static const auto initial = [] {
    std::map<std::string, double> numbers;
    for_each_number(Run(), [&](const std::string& option, double number, const auto&) { numbers[option] = number; });
    return numbers;
  }();
  for_each_number(run, [](const std::string& option, double number, const programs::NumberRange& allowed) {
    // A default may be no value to give.
    expect(number == initial.at(option) || allowed.allows(number), "a field outside its range");
  });
  examples::for_each_field(run, [](const char*, const std::string&, const auto& value, const auto&...) {
    using T = std::remove_cvref_t<decltype(value)>;
    if constexpr (examples::is_pairs<T>) {
      T again;
      const std::string text = examples::text_of(value);
      if (!text.empty()) examples::take_text("again", text, again);
      expect(text.empty() || again == value, "a field's text is another value");
    }
  });
}

/// Fields that were taken are stored, and read again as they were.
void expect_stored(const Run& run) {
  const Json stored = examples::fields_to_json(run);
  Run again;
  examples::fields_from_json(parse_json(stored.dump(), "trainer.json"), "trainer.json", again);
  expect(examples::fields_to_json(again) == stored, "a run that is stored is read as another");
}

enum class Input : std::uint8_t { train, sample, trainer_json };

/// Whether a program takes this input: a line for each argument, or a run's trainer.json.
bool takes(Programs& all, Input kind, std::string_view text) {
  all.run = {}, all.options = {};
  if (kind == Input::trainer_json) {
    return accepts([&] { examples::fields_from_json(parse_json(text, "trainer.json"), "trainer.json", all.run); });
  }
  std::vector<std::string> arguments;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    arguments.emplace_back(text.substr(at, end - at));
    at = end + 1;
  }
  std::reverse(arguments.begin(), arguments.end());
  try {
    (kind == Input::train ? all.train : all.sample).parse(std::move(arguments));
    return true;
  } catch (const CLI::ParseError& error) {
    expect(*error.what() != '\0', "an error without a sentence");
    return false;
  }
}

/// Made anew now and then: CLI11 keeps a list of all that it has ever parsed, in memory that would count as an input's.
Programs& all_programs() {
  static std::unique_ptr<Programs> all;
  static int uses = 0;
  if (uses++ % 4096 == 0) all = std::make_unique<Programs>();
  return *all;
}

void command_line(std::string_view input) {
  Programs& all = all_programs();
  Bytes bytes(input);
  const auto kind = static_cast<Input>(bytes.below(3));
  if (!takes(all, kind, bytes.rest())) return;
  if (kind == Input::sample) {
    examples::for_each_setting(all.options, [](const auto& setting) {
      expect(setting.range.allows(static_cast<double>(setting.field)), "an option of sampling outside its range");
    });
    return;
  }
  for (const Setting* setting : all.settings) {
    expect(setting->numbers().allows(all.run.recipe.settings[*setting]), "a setting outside its range");
  }
  expect_in_range(all.run);
  expect_stored(all.run);
}

void command_line_seeds(const TakeSeed& take) {
  const auto give = [&](Input kind, std::string_view text, bool taken = true) {
    expect(takes(all_programs(), kind, text) == taken, "a seed is refused, or taken, that should not be");
    take(numbered(static_cast<std::size_t>(kind), text));
  };
  give(Input::train, "--batch\n4\n--optimizer\nmuon\n--rates\nnorm=4,table=6\n--decays\nnone\n--no-muon-experts");
  give(Input::train, "--growth\n64=0.1,128=0.4\n--sequence=512\n--batching\npadded\n--seed\n18446744073709551615");
  give(Input::train, "--learning-rate\n1e-3\n--schedule\nwsd\n--warmup\n10\n--floor\n0\n--clip=0\n--recompute");
  give(Input::train, "--jitter\n0.01\n--bias-rate=0.001\n--balance-over-step");
  give(Input::train, "--growth\n=\n--rates\n,", false);
  give(Input::train, "--balance-over-step=norm=", false);
  give(Input::train, "--no-recompute=99999999999999999999", false);
  give(Input::train, "--help", false);
  give(Input::sample, "--temperature\n0.8\n--top-k\n40\n--top-p=0.9\n--repetition-penalty\n1.1\n--seed\n7");
  Run run;
  run.recipe.rates.norm = 4;
  run.recipe.growth = {{{{64, 0.1}, {128, 0.35}}}};
  give(Input::trainer_json, examples::fields_to_json(run).dump());
  give(Input::trainer_json, R"({"growth":"64=0.1,","rates":"norm=","seed":-1,"optimizer":"sgd"})", false);
}

constexpr Harness harnesses[] = {
    {"option_number", option_number, option_number_seeds, 1 << 6, 64},
    {"command_line", command_line, command_line_seeds, 1 << 11, json_memory_factor, "options"}};

}  // namespace options

std::span<const Harness> options_harnesses() { return options::harnesses; }

}  // namespace tinymoe_fuzz
#else
namespace tinymoe_fuzz {

std::span<const Harness> options_harnesses() { return {}; }

}  // namespace tinymoe_fuzz
#endif
