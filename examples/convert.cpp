// Turns checkpoints into GGUF files, for llama.cpp, and GGUF files into checkpoints.
//
//   convert runs/mixtral story.gguf --type q8_0
//   convert story.gguf runs/story-again

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <tinymoe/checkpoint/gguf.hpp>
#include <tinymoe/files/paths.hpp>
#include <tinymoe/model.hpp>

#include "compiled_architectures.hpp"
#include "output_files.hpp"
#include "programs.hpp"
#include "programs/main.hpp"

namespace {

using namespace tinymoe;
using std::filesystem::path;

struct Arguments {
  path from, to;
  std::string type;
  bool overwrite = false;
};

/// The types of a GGUF file, and their names on the command line.
const std::map<std::string, GgufType> types = {{"float32", GgufType::float32},
                                               {"bfloat16", GgufType::bfloat16},
                                               {"q8_0", GgufType::q8_0},
                                               {"q4_0", GgufType::q4_0}};

/// The CPU in float32, with the weights that a checkpoint has.
examples::DeviceOptions options_of(const std::string& weights) {
  examples::DeviceOptions options;
  options.device = "cpu", options.precision = "float32", options.weights = weights;
  return options;
}

template <class Arch>
void write_file(const Arguments& a, std::string_view name) {
  const examples::DeviceOptions options = options_of(examples::stored_weights(a.from));
  examples::Device device = examples::open_device<Arch>(options, name);
  const Tokenizer tokenizer = load_tokenizer<Arch>(a.from);
  examples::on<Arch>(device, [&](auto& backend) -> void {
    examples::with_tensors<Arch>(backend, a.from, options.weights, [&](const tinymoe::detail::ModelTensors& model) {
      const GgufType type = a.type.empty() ? tinymoe::detail::gguf_type_of(model) : types.at(a.type);
      tinymoe::detail::save_gguf(a.to, model, tokenizer, type);
      std::printf("%s: %s, %s\n", a.to.c_str(), std::string(name).c_str(), std::string(gguf_type_name(type)).c_str());
    });
  });
}

template <class Arch>
void write_checkpoint(const Arguments& a, std::string_view name) {
  const Tokenizer tokenizer = load_gguf_tokenizer(a.from);
  if (tokenizer.vocabulary_size() > Arch::vocab) {
    fail<MismatchError>(a.from, ": has ", tokenizer.vocabulary_size(), " tokens, more than the model");
  }
  examples::Device device = examples::open_device<Arch>(options_of({}), name);
  const tinymoe::detail::GgufModelFile file(a.from, describe<Arch>());
  const examples::ForeignModel model{
      [&](const std::string& tensor, std::span<float> values) { file.tensors.read(tensor, values); },
      file.config.settings(), tinymoe::detail::read_gguf_model_tokens(file.file)};
  examples::on<Arch>(device,
                     [&](auto& backend) -> void { examples::save_foreign<Arch>(backend, model, tokenizer, a.to); });
  std::printf("%s: %s, float32\n", a.to.c_str(), std::string(name).c_str());
}

void from_checkpoint(const Arguments& a) {
  if (tinymoe::detail::is_there(a.to) && !a.overwrite) {
    fail<OptionError>(a.to, ": is there already; give --overwrite to replace it");
  }
  examples::expect_gguf(a.to);
  examples::with_architecture_of(
      a.from, [&](auto named) { write_file<typename decltype(named)::Architecture>(a, named.name); });
}

void from_file(const Arguments& a) {
  if (!a.type.empty()) fail<OptionError>("--type is for writing a GGUF file; a checkpoint has float32");
  examples::expect_checkpoint_folder(a.to, a.overwrite);
  const Gguf file(a.from);
  const tinymoe::detail::GgufConfig config(file);
  bool found = false;
  // Some architectures differ in training alone: the one that tinymoe wrote comes first.
  for (const bool same : {true, false}) {
    examples::for_each_architecture([&](auto named) {
      using Arch = typename decltype(named)::Architecture;
      const Json described = describe<Arch>();
      if (found || !(same ? config.description() == described : config.is(described))) return;
      found = true;
      write_checkpoint<Arch>(a, named.name);
    });
  }
  if (!found) {
    fail<MismatchError>(a.from, ": is of an architecture that this program was not compiled for; it knows ",
                        examples::names());
  }
}

}  // namespace

int main(int count, char** values) {
  Arguments a;
  CLI::App app("Turns a checkpoint into a GGUF file, or a GGUF file into a checkpoint.");
  app.add_option("from", a.from, "folder of a checkpoint, or a GGUF file")->required();
  app.add_option("to", a.to, "the GGUF file, or the checkpoint's folder")->required();
  app.add_option("--type", a.type, "of the file's matrices; default: float32, or as the checkpoint has them")
      ->check(CLI::IsMember({"float32", "bfloat16", "q8_0", "q4_0"}));
  app.add_flag("--overwrite", a.overwrite, "replace what is in TO");
  return programs::run(app, count, values, [&] {
    const auto found = tinymoe::detail::look_at(a.from);
    if (found == tinymoe::detail::Found::nothing) {
      fail<FileError>(a.from.string(), ": there is no such file; give a checkpoint's folder, or a GGUF file");
    }
    if (found == tinymoe::detail::Found::folder) {
      from_checkpoint(a);
    } else {
      from_file(a);
    }
  });
}
