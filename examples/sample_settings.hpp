#pragma once
// The numbers among the sampling options: options of `sample` and `chat`, and commands of `chat`.

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <string_view>
#include <tinymoe/core/platform.hpp>
#include <tinymoe/sample/sampler.hpp>

#include "programs/numbers.hpp"

namespace examples {

/// A number's name, its field, its range, and its description.
template <class T>
struct SampleSetting {
  std::string_view name;
  T& field;
  programs::NumberRange range;
  std::string_view about;
};

/// f(setting) for each number.
template <class F>
void for_each_setting(tinymoe::SampleOptions& o, F&& f) {
  using tinymoe::Index;
  using namespace programs::range;
  f(SampleSetting<float>{"temperature", o.temperature, from_0, "0: always the most likely token"});
  f(SampleSetting<Index>{"top-k", o.top_k, whole(0), "choose among so many tokens; 0: all"});
  f(SampleSetting<float>{"min-p", o.min_p, from_0_to_1,
                         "tokens at least this times as likely as the likeliest; 0: all"});
  f(SampleSetting<float>{"typical", o.typical_p, above_0_to_1,
                         "most typical tokens of this probability together; 1: all"});
  f(SampleSetting<float>{"top-p", o.top_p, above_0_to_1, "likeliest tokens of this probability together; 1: all"});
  f(SampleSetting<float>{"penalty", o.repetition_penalty, above_0, "above 1: tokens seen before become less likely"});
  f(SampleSetting<Index>{"tokens", o.tokens, whole(0), "max tokens of a story"});
  f(SampleSetting<std::uint64_t>{"seed", o.seed.value, whole(0), "another seed, other stories"});
}

/// Adds an option for each number, named as the command; only the penalty's is --repetition-penalty.
inline void add_sample_options(CLI::App& app, tinymoe::SampleOptions& options) {
  for_each_setting(options, [&](auto setting) {
    const std::string name(setting.name == "penalty" ? "repetition-penalty" : setting.name);
    programs::add_number(app, "--" + name, setting.field, std::string(setting.about), setting.range);
  });
}

}  // namespace examples
