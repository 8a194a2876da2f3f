#pragma once
// Command-line options for the settings of a model's parts, including a user's own part.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdint>
#include <string>
#include <tinymoe/layers/settings.hpp>
#include <vector>

#include "programs/numbers.hpp"

namespace examples {

/// Adds an option for each setting, `--bias-rate` for bias_rate, which sets it in `settings`. Returns the options'
/// names.
inline std::vector<std::string> add_settings(CLI::App& app, tinymoe::Settings& settings,
                                             const tinymoe::SettingList& list) {
  std::vector<std::string> names;
  for (const tinymoe::Setting* setting : list) {
    std::string name = "--" + std::string(setting->name);
    std::replace(name.begin(), name.end(), '_', '-');
    const auto add = [&]() -> CLI::Option* {
      const std::string about(setting->about);
      if (setting->range == tinymoe::SettingRange::flag) {
        return app.add_flag_function(
            name, [&settings, setting](std::int64_t count) { settings.set(*setting = count > 0); }, about);
      }
      const auto set = [&settings, setting](double value) { settings.set(*setting = value); };
      return programs::add_number_function<double>(app, name, about, setting->numbers(), set);
    };
    add()->group("The model's settings");
    names.push_back(name);
  }
  return names;
}

}  // namespace examples
