// Harness of numbers on the command line.

#include "fuzz/harness.hpp"

#ifdef TINYMOE_FUZZ_OPTIONS
#include <cmath>
#include <memory>

#include "programs/numbers.hpp"

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

constexpr Harness harnesses[] = {{"option_number", option_number, option_number_seeds, 1 << 6, 64}};

}  // namespace options

std::span<const Harness> options_harnesses() { return options::harnesses; }

}  // namespace tinymoe_fuzz
#else
namespace tinymoe_fuzz {

std::span<const Harness> options_harnesses() { return {}; }

}  // namespace tinymoe_fuzz
#endif
