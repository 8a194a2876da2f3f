// Makes a smaller checkpoint: without the least worthy experts of each layer, or with fewer experts for each token.
//
//   prune runs/story --experts 6 --out runs/story-6
//   prune runs/story --experts 6 --by load --validation stories.txt --out runs/story-6
//   prune runs/top-4 --choices 2 --out runs/top-2

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <tinymoe/analysis/expert_worth.hpp>
#include <tinymoe/checkpoint/prune.hpp>
#include <tinymoe/checkpoint/type_text.hpp>
#include <tinymoe/files/paths.hpp>
#include <tinymoe/model.hpp>
#include <type_traits>
#include <vector>

#include "compiled_architectures.hpp"
#include "output_files.hpp"
#include "programs.hpp"
#include "programs/main.hpp"
#include "programs/numbers.hpp"
#include "progress.hpp"
#include "run_paths.hpp"
#include "stories.hpp"

namespace {

using namespace tinymoe;
using std::filesystem::path;

struct Arguments {
  path checkpoint, out;
  std::vector<path> validation;
  std::string field, by = "loss", name = "Pruned";
  Index experts = 0, choices = 0;  // 0: as many as the model has
  Index tokens = 20000;
  examples::DeviceOptions device;
  bool overwrite = false;
};

/// The experts of a model by their worth, or by their share of the pairs. Prints the loss if that is what it goes by.
template <class Arch>
std::vector<ExpertWorth> rank(const Arguments& a, Cpu& device) {
  const Tokenizer tokenizer = load_tokenizer<Arch>(a.checkpoint);
  const auto stories = examples::unseen_stories(a.validation, a.field, a.checkpoint, tokenizer, a.device.threads);
  if (!stories) {
    fail<OptionError>(examples::RunPaths(a.checkpoint).tokens.string(),
                      ": has not what the run validated on; give stories with --validation");
  }
  const TokenData data = first_stories(*stories, tokenizer, a.tokens);
  const bool by_load = a.by == "load";
  examples::ExpertRun run{.checkpoint = a.checkpoint, .data = &data};
  run.profile_tokens = by_load ? data.size() : 0;
  run.worth_tokens = by_load ? 0 : data.size();
  examples::Percent progress;
  run.on_progress = [&](const char* what, double done) { progress.show(what, done); };
  const examples::ExpertReport report = examples::look_at_experts<Arch>(device, run);
  progress.end();
  if (!report.note.empty()) fail<OptionError>(report.note);
  std::vector<ExpertWorth> worths = report.worths.experts;
  for (const MixtureFindings& mixture : report.profile.mixtures) {
    for (std::size_t e = 0; e < mixture.expert.size(); ++e) {
      worths.push_back({mixture.layer, static_cast<Index>(e), 0, mixture.expert[e].share});
    }
  }
  if (!by_load) {
    std::printf("loss %.4f with all experts\n", report.worths.loss);
    for (const FewerExperts& point : report.worths.by_experts) {
      if (point.experts == a.experts && a.choices == 0) std::printf("loss %.4f without these:\n", point.loss);
    }
  }
  return worths;
}

template <class Arch>
void run(const Arguments& a, Cpu& device) {
  if (!Arch::has_mixtures) fail<OptionError>(a.checkpoint.string(), ": has no experts to prune");
  const FolderLock lock(a.out, tinymoe::detail::checkpoint_files, WriteUse::ahead);  // before the work
  ExpertLimits limits{.choices = a.choices};
  // What no type has is refused before the work, too.
  const auto shape = tinymoe::detail::shape_of(describe<Arch>());
  if (a.experts > 0) {
    Index most = 0;
    for (const auto& layer : shape.layers) most = std::max(most, layer.experts);
    if (a.experts >= most) fail<OptionError>("--experts ", a.experts, " leaves none out; each layer has ", most);
    for (std::size_t i = 0; i < shape.layers.size(); ++i) {
      for (Index e = a.experts; e < shape.layers[i].experts; ++e) limits.left_out.push_back({static_cast<Index>(i), e});
    }
  }
  tinymoe::detail::pruned_description(describe<Arch>(), tinymoe::detail::experts_kept(shape, limits), a.choices);
  if (a.experts > 0) {
    const std::vector<ExpertWorth> worths = rank<Arch>(a, device);
    limits.left_out = least_worthy(worths, a.experts);
    for (std::size_t i = 0; i < limits.left_out.size(); ++i) {
      const LayerExpert& gone = limits.left_out[i];
      const auto worth = std::find_if(worths.begin(), worths.end(), [&](const ExpertWorth& expert) {
        return LayerExpert{expert.layer, expert.expert} == gone;
      });
      const bool first = i == 0 || limits.left_out[i - 1].layer != gone.layer;
      if (first) std::printf("%slayer %td:", i == 0 ? "" : "\n", gone.layer);
      if (a.by == "load") std::printf("  expert %td (%.1f %% of the load)", gone.expert, 100 * worth->worth);
      if (a.by == "loss") std::printf("  expert %td (%+.4f)", gone.expert, worth->worth);
    }
    std::printf("\n");
  }
  const Tokenizer tokenizer = load_tokenizer<Arch>(a.checkpoint);
  examples::with_tensors<Arch>(device, a.checkpoint, {}, [&](const tinymoe::detail::ModelTensors& tensors) {
    auto pruned = tinymoe::detail::prune(tensors, limits);
    tinymoe::detail::save_pruned(device, a.out, pruned, tokenizer);
    std::printf("%s", tinymoe::detail::type_header(pruned.shape(), a.out.string(), a.name).c_str());
  });
  std::printf("checkpoint: %s\n", a.out.c_str());
}

}  // namespace

int main(int count, char** values) {
  Arguments a;
  CLI::App app("Makes a smaller checkpoint, without the least worthy experts, and tells its C++ type.");
  using programs::range::whole;
  app.add_option("checkpoint", a.checkpoint, "folder that train wrote")->required();
  const auto* experts = programs::add_number(app, "--experts", a.experts, "how many each layer keeps", whole(1), false);
  const auto* choices =
      programs::add_number(app, "--choices", a.choices, "how many a token takes, at most", whole(1), false);
  app.add_option("--out", a.out, "folder of the smaller checkpoint")->required();
  app.add_option("--by", a.by, "what an expert is worth by: the loss without it, or its load")
      ->check(CLI::IsMember({"loss", "load"}))
      ->capture_default_str();
  app.add_option("--validation", a.validation,
                 "stories to measure that on, as for train; default: those that its run validated on");
  examples::add_field_option(app, a.field);
  programs::add_number(app, "--tokens", a.tokens, "of them, the first, up to a story's end", whole(1));
  app.add_option("--name", a.name, "what the C++ type is called")->capture_default_str();
  programs::add_number(app, "--threads", a.device.threads, "default: all cores", whole(0, tinymoe::detail::max_threads),
                       false);
  app.add_flag("--overwrite", a.overwrite, "replace the checkpoint in OUT");
  return programs::run(app, count, values, [&] {
    if (experts->count() + choices->count() == 0) fail<OptionError>("give --experts, --choices or both");
    const std::string stored = examples::stored_weights(a.checkpoint);
    if (!stored.empty()) {
      fail<OptionError>(a.checkpoint.string(), ": its weights are ", stored,
                        "; prune the checkpoint that they were made of");
    }
    if (tinymoe::detail::is_same(a.out, a.checkpoint)) {
      fail<OptionError>(a.out.string(), ": is the checkpoint itself, which training may need; give another --out");
    }
    examples::expect_checkpoint_folder(a.out, a.overwrite);
    a.device.device = "cpu", a.device.precision = "float32";
    examples::with_architecture_of(a.checkpoint, [&](auto named) {
      using Arch = typename decltype(named)::Architecture;
      examples::Device device = examples::open_device<Arch>(a.device, named.name);
      examples::on<Arch>(device, [&]<class B>(B& backend) -> void {
        if constexpr (std::is_same_v<B, Cpu>) run<Arch>(a, backend);
      });
    });
  });
}
