#pragma once
// The architectures that the example programs know, and how each is trained. Adding one is a line in `architectures`.

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <tinymoe/model.hpp>
#include <tinymoe/presets.hpp>
#include <tuple>

#include "recipes.hpp"

namespace examples {

using tinymoe::Index;

/// An architecture, its name on the command line, and its training options.
template <class Arch>
struct Named {
  using Architecture = Arch;
  std::string_view name, about;
  Recipe recipe = {};
};

namespace presets = tinymoe::presets;

// One line each: CMake counts the lines and compiles a few of them in each unit.
// clang-format off
inline constexpr auto architectures = std::tuple(
    Named<presets::Story>{"story", "ours: learns most in minutes on two cores; what the demo trains", recipes::story},
    Named<presets::StoryMixtral>{"story_mixtral", "ours: a Mixtral that tells stories after some minutes on two cores"},
    Named<presets::StoryDense>{"story_dense", "ours: story_mixtral without experts, for upcycle to start from"},
    Named<presets::Pocket>{"pocket", "ours: learns in seconds; for trying things out"},
    Named<presets::Yardstick>{"yardstick", "ours: what speed is compared on", recipes::minimixtral},
    Named<presets::MiniMixtral>{"minimixtral", "Mixtral with D 512, as in the published code", recipes::minimixtral},
    Named<presets::MiniMixtralReadme>{"minimixtral_readme", "the same by its README's table", recipes::minimixtral},
    Named<presets::MiniMixtralTrue>{"minimixtral_true", "a true Mixtral of these sizes", recipes::minimixtral},
    Named<presets::pocket::MiniMixtral>{"minimixtral_pocket", "minimixtral for some minutes on two cores"},
    Named<presets::NanoGpt>{"nanogpt", "NanoGPT, dense", recipes::nanogpt},
    Named<presets::pocket::NanoGpt>{"nanogpt_pocket", "nanogpt for some minutes on two cores", recipes::learned_pocket},
    Named<presets::NanoGptMoE>{"nanogpt_moe", "NanoGPT with noisy top-k experts", recipes::nanogpt},
    Named<presets::NanoGptMoEReleased>{"nanogpt_moe_released", "the same in its released size", recipes::nanogpt},
    Named<presets::pocket::NanoGptMoE>{"nanogpt_moe_pocket", "nanogpt_moe for some minutes on two cores", recipes::learned_pocket},
    Named<presets::MyMoE<>>{"mymoe", "one of two experts, with a capacity and jitter", recipes::mymoe},
    Named<presets::pocket::MyMoE>{"mymoe_pocket", "mymoe for some minutes on two cores"},
    Named<presets::SparseMoE>{"sparse_moe", "two of sixteen GELU experts, GPT-2's vocabulary", recipes::sparse_moe},
    Named<presets::pocket::SparseMoE>{"sparse_moe_pocket", "sparse_moe for some minutes on two cores", recipes::learned_pocket},
    Named<presets::Characters::Dense>{"characters", "llama2.c's dense model of 105 characters"},
    Named<presets::Characters::Mixture<4, 2>>{"characters_4x2", "the same upcycled to four experts"},
    Named<presets::Characters::Mixture<8, 2>>{"characters_8x2", "the same upcycled to eight"},
    Named<presets::Stories260K::Mixture<8, 2>>{"stories260k_8x2", "llama2.c's stories260K upcycled to eight experts"},
    Named<presets::Stories15M::Mixture<4, 2>>{"stories15m_4x2", "llama2.c's stories15M upcycled to four"},
    Named<presets::DeepSeekMini>{"deepseek_mini", "fine-grained and shared experts", recipes::deepseek_mini},
    Named<presets::pocket::DeepSeekMini>{"deepseek_mini_pocket", "deepseek_mini for some minutes on two cores"});
// clang-format on

/// The architecture of line i, from 0.
template <std::size_t line>
using Architecture = typename std::tuple_element_t<line, decltype(architectures)>::Architecture;

/// "story, pocket, yardstick"
inline std::string names() {
  std::string text;
  std::apply([&](auto... named) { ((text += (text.empty() ? "" : ", ") + std::string(named.name)), ...); },
             architectures);
  return text;
}

/// f(named architecture) for each.
template <class F>
void for_each_architecture(F&& f) {
  std::apply([&](auto... named) { (f(named), ...); }, architectures);
}

/// f(named architecture) for the one of this name. Throws OptionError if there is none.
template <class F>
void with_architecture(const std::string& name, F&& f) {
  bool found = false;
  std::apply([&](auto... named) { ((named.name == name ? (found = true, f(named)) : void()), ...); }, architectures);
  if (!found) tinymoe::fail<tinymoe::OptionError>("there is no preset \"", name, "\"; there are ", names());
}

/// f(folder) for the files of a checkpoint, all of one save, though a run may be saving another.
template <class F>
auto of_one_save(const std::filesystem::path& checkpoint, F&& f) {
  return tinymoe::detail::open_together(checkpoint, tinymoe::detail::checkpoint_files[0], f);
}

/// The format of a checkpoint's weights; empty: numbers. Throws FileError for a checkpoint that cannot be read.
inline std::string stored_weights(const std::filesystem::path& checkpoint) {
  return of_one_save(checkpoint, [](const std::filesystem::path& folder) {
    const std::string name = (folder / "config.json").string();
    const std::string found = tinymoe::detail::stored_weights(tinymoe::read_json(name, std::size_t{1} << 20), name);
    for (const std::string_view known : {"", "int8", "int4"}) {
      if (found == known) return found;
    }
    tinymoe::fail<tinymoe::MismatchError>(name, ": its weights are \"", found,
                                          "\"; this program reads int8 and int4; use the program that wrote it");
  });
}

/// f(named architecture) for the architecture of a checkpoint. Throws FileError for a checkpoint that cannot be read,
/// MismatchError if it has another architecture.
template <class F>
void with_architecture_of(const std::filesystem::path& checkpoint, F&& f) {
  std::string name;
  const auto file = of_one_save(checkpoint, [&](const std::filesystem::path& folder) {
    name = (folder / "config.json").string();
    return tinymoe::read_json(name, std::size_t{1} << 20);
  });
  // A checkpoint of tinymoe's describes its architecture in full; a folder of the hub's, what it computes.
  const tinymoe::Json* description = file.find("tinymoe");
  const auto shape =
      description == nullptr ? tinymoe::detail::shape_of_file(file, name) : tinymoe::detail::ModelShape();
  const auto is_of = [&](const tinymoe::Json& known) {
    return description != nullptr ? *description == known : shape == tinymoe::detail::shape_of(known);
  };
  bool found = false;
  std::apply(
      [&](auto... named) {
        const auto run = [&](auto one) {
          using Arch = typename decltype(one)::Architecture;
          if (found || !is_of(tinymoe::describe<Arch>())) return;
          found = true;
          f(one);
        };
        (run(named), ...);
      },
      architectures);
  if (!found) {
    tinymoe::fail<tinymoe::MismatchError>(name, ": is of an architecture that this program was not compiled ",
                                          "for; it knows ", names(), "; describe tells the file's type");
  }
}

}  // namespace examples
