// Rounds the weights of a checkpoint to integers, for inference with less memory, and shows what that costs.
//
//   quantize runs/story --weights int4 --out runs/story-int4 --validation stories.txt
//   quantize runs/story-int4 --validation stories.txt

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <string>
#include <tinymoe/analysis/report.hpp>
#include <tinymoe/files/paths.hpp>
#include <tinymoe/model.hpp>

#include "compiled_architectures.hpp"
#include "output_files.hpp"
#include "programs.hpp"
#include "programs/main.hpp"
#include "programs/numbers.hpp"
#include "progress.hpp"
#include "stories.hpp"

namespace {

using namespace tinymoe;
using std::filesystem::path;

struct Arguments {
  path checkpoint, out, validation;
  std::string field;
  Index validation_tokens = 500000;
  examples::DeviceOptions device;
  bool overwrite = false;
};

/// Prints a model's size and, if it was measured, its loss beside that of `before`.
void print(const std::string& name, const examples::MeasuredModel& model, const examples::MeasuredModel* before) {
  std::printf("%-8s %10s", name.c_str(), tinymoe::detail::mebibytes(static_cast<Index>(model.bytes)).c_str());
  if (model.evaluation) {
    std::printf("  loss %.4f, %.4f bits per byte", model.evaluation->loss, model.evaluation->bits_per_byte);
    if (before != nullptr) std::printf("  %+.3f %%", 100 * (model.evaluation->loss / before->evaluation->loss - 1));
  }
  std::printf("\n");
  programs::flush_output();
}

template <class Arch>
void run(const Arguments& a, const std::string& stored, std::string_view preset) {
  examples::Device device = examples::open_device<Arch>(a.device, preset);
  std::printf("device %s\n", examples::about(device, a.device).c_str());
  std::optional<FolderLock> lock;  // before the work: can it be written?
  if (!a.out.empty()) lock.emplace(a.out, tinymoe::detail::checkpoint_files, WriteUse::ahead);
  std::optional<TokenData> data;
  if (!a.validation.empty()) {
    const Tokenizer tokenizer = load_tokenizer<Arch>(a.checkpoint);
    data = first_stories(examples::encode_stories({a.validation}, a.field, tokenizer, a.device.threads), tokenizer,
                         a.validation_tokens);
  }
  const TokenData* text = data ? &*data : nullptr;
  examples::on<Arch>(device, [&](auto& backend) -> void {
    const auto convert = [&](const std::string& weights, const path& out) {
      examples::Percent progress;
      return examples::convert<Arch>(backend, a.checkpoint, weights, text, out, [&](Index done, Index count) {
        progress.show("validation", static_cast<double>(done) / static_cast<double>(count));
      });
    };
    if (stored == a.device.weights) return print(stored.empty() ? "float32" : stored, convert(stored, a.out), nullptr);
    const examples::MeasuredModel before = convert(stored, {});
    print("float32", before, nullptr);
    print(a.device.weights, convert(a.device.weights, a.out), text != nullptr ? &before : nullptr);
  });
  if (!a.out.empty()) std::printf("checkpoint: %s\n", a.out.c_str());
}

}  // namespace

int main(int count, char** values) {
  Arguments a;
  CLI::App app("Rounds the weights of a checkpoint to integers, and shows its loss before and after.");
  app.add_option("checkpoint", a.checkpoint, "folder that train or quantize wrote")->required();
  examples::add_weights_option(app, a.device);
  const auto* out =
      app.add_option("--out", a.out, "folder of the checkpoint of integer weights; default: none is written");
  app.add_option("--validation", a.validation, "stories to measure the loss on, as for train");
  examples::add_field_option(app, a.field);
  programs::add_number(app, "--validation-tokens", a.validation_tokens, "tokens of it, the first, up to a story's end",
                       programs::range::whole(1));
  programs::add_number(app, "--threads", a.device.threads, "default: all cores",
                       programs::range::whole(0, tinymoe::detail::max_threads), false);
  app.add_flag("--overwrite", a.overwrite, "replace the checkpoint in OUT");
  return programs::run(app, count, values, [&] {
    a.device.device = "cpu", a.device.precision = "float32";
    const std::string stored = examples::stored_weights(a.checkpoint);
    if (a.device.weights.empty()) a.device.weights = stored;
    if (!stored.empty() && a.device.weights != stored) {
      fail<OptionError>(a.checkpoint.string(), ": its weights are rounded to ", stored, " already, which --weights ",
                        a.device.weights, " would round again; take the checkpoint that they were made of");
    }
    if (out->count() > 0 && a.out.empty()) fail<OptionError>("--out is empty; give it a folder");
    if (!a.out.empty() && a.device.weights.empty()) fail<OptionError>("give --weights int8 or --weights int4");
    if (!a.out.empty() && tinymoe::detail::is_same(a.out, a.checkpoint)) {
      fail<OptionError>(a.out.string(), ": is the checkpoint itself, which training may need; give another --out");
    }
    if (!a.out.empty()) examples::expect_checkpoint_folder(a.out, a.overwrite);
    examples::with_architecture_of(
        a.checkpoint, [&](auto named) { run<typename decltype(named)::Architecture>(a, stored, named.name); });
  });
}
