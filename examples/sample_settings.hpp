#pragma once
// The numbers among the sampling options: options of `sample` and `chat`, and commands of `chat`.

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <string_view>
#include <tinymoe/core/platform.hpp>
#include <tinymoe/sample/sampler.hpp>

namespace examples {

/// A number's name, its field, and its description.
template <class T>
struct SampleSetting {
  std::string_view name;
  T& field;
  std::string_view about;
};

/// f(setting) for each number.
template <class F>
void for_each_setting(tinymoe::SampleOptions& o, F&& f) {
  using tinymoe::Index;
  f(SampleSetting<float>{"temperature", o.temperature, "0: always the most likely token"});
  f(SampleSetting<Index>{"top-k", o.top_k, "choose among so many tokens; 0: all"});
  f(SampleSetting<float>{"min-p", o.min_p, "tokens at least this times as likely as the likeliest; 0: all"});
  f(SampleSetting<float>{"typical", o.typical_p, "most typical tokens of this probability together; 1: all"});
  f(SampleSetting<float>{"top-p", o.top_p, "likeliest tokens of this probability together; 1: all"});
  f(SampleSetting<float>{"penalty", o.repetition_penalty, "above 1: tokens seen before become less likely"});
  f(SampleSetting<Index>{"tokens", o.tokens, "max tokens of a story"});
  f(SampleSetting<std::uint64_t>{"seed", o.seed.value, "another seed, other stories"});
}

/// Adds an option for each number, named as the command; only the penalty's is --repetition-penalty.
inline void add_sample_options(CLI::App& app, tinymoe::SampleOptions& options) {
  for_each_setting(options, [&](auto setting) {
    const std::string name(setting.name == "penalty" ? "repetition-penalty" : setting.name);
    app.add_option("--" + name, setting.field, std::string(setting.about))->capture_default_str();
  });
}

}  // namespace examples
