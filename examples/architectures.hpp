#pragma once
// The architectures that the example programs are compiled for. Adding one is a line in `Architectures`.

#include <string>
#include <string_view>
#include <tinymoe/model.hpp>
#include <tuple>

namespace examples {

/// An architecture and what the command line calls it.
template <class Arch>
struct Named {
  using Architecture = Arch;
  std::string_view name, about;
};

inline constexpr auto architectures =
    std::tuple(Named<tinymoe::presets::Story>{"story", "tells stories after some minutes on two cores"},
               Named<tinymoe::presets::Pocket>{"pocket", "learns in seconds; for trying things out"},
               Named<tinymoe::presets::Yardstick>{"yardstick", "163M parameters; what speed is compared on"});

/// "story, pocket, yardstick"
inline std::string names() {
  std::string text;
  std::apply([&](auto... named) { ((text += (text.empty() ? "" : ", ") + std::string(named.name)), ...); },
             architectures);
  return text;
}

/// f(named architecture) for the one of this name. Throws OptionError if there is none.
template <class F>
void with_architecture(const std::string& name, F&& f) {
  bool found = false;
  std::apply([&](auto... named) { ((named.name == name ? (found = true, f(named)) : void()), ...); }, architectures);
  if (!found) tinymoe::fail<tinymoe::OptionError>("there is no preset \"", name, "\"; there are ", names());
}

/// f(named architecture) for the one that a checkpoint was trained with. Throws FileError for a checkpoint that cannot
/// be read, MismatchError if none of the architectures is its own.
template <class F>
void with_architecture_of(const std::filesystem::path& checkpoint, F&& f) {
  const auto path = tinymoe::resolve_folder(checkpoint) / "config.json";
  const auto file = tinymoe::read_json(path, std::size_t{1} << 20);
  bool found = false;
  std::apply(
      [&](auto... named) {
        const auto run = [&](auto one) {
          using Arch = typename decltype(one)::Architecture;
          if (found || tinymoe::json_member(file, "tinymoe", path.string()) != tinymoe::describe<Arch>()) return;
          found = true;
          f(one);
        };
        (run(named), ...);
      },
      architectures);
  if (!found) {
    tinymoe::fail<tinymoe::MismatchError>(path.string(), ": is of an architecture that this program was not compiled ",
                                          "for; it knows ", names());
  }
}

}  // namespace examples
