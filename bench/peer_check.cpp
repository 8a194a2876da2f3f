// Writes a small model, tokens, its logits and the losses of some training steps, for peer_check.py to compare with
// PyTorch: another implementation, with gradients of its own, must find the same numbers.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <span>

#include "programs/main.hpp"
#include "programs/measure.hpp"
#include "support.hpp"
#include "tinymoe/analysis/inspect.hpp"
#include "tinymoe/backend/cpu.hpp"
#include "tinymoe/files/npy.hpp"
#include "tinymoe/model.hpp"

namespace {

using namespace tinymoe;
using Arch = Transformer<
    Vocab<384>, Context<64>, Width<64>, TiedHead,
    Layers<3, MoEBlock<RmsNorm, Attention<Heads<8>, KvHeads<2>, Rope>, Router<8, 2>, Expert<SwiGlu, Hidden<96>>>>>;

constexpr Index batch = 4, steps = 8;

void run(const std::filesystem::path& folder) {
  Cpu cpu;
  Model<Arch, Cpu> model(cpu, Seed{1});
  const auto tokenizer = train_tokenizer(EmbeddedStories{.count = 200}, {.vocabulary = Arch::vocab});
  save_model(folder, model, tokenizer);

  const Index size = batch * Arch::context;
  const auto text = programs::random_tokens(steps * size + 1, Arch::vocab, 1);
  const std::span<const Token> all(text);
  xt::xtensor<Token, 2> tokens = xt::xtensor<Token, 2>::from_shape({batch, Arch::context});
  std::copy_n(text.begin(), size, tokens.begin());
  save_npy(folder / "logits.npy", inspect(model, tokens).logits);

  Trainer trainer(model, AdamW{.lr = 1e-3});
  xt::xtensor<double, 2> reports = xt::xtensor<double, 2>::from_shape({steps, 2});  // loss, norm of the gradients
  for (Index step = 0; step < steps; ++step) {
    const auto at = static_cast<std::size_t>(step * size), count = static_cast<std::size_t>(size);
    const auto report = trainer.train_step(all.subspan(at, count), all.subspan(at + 1, count), batch, Arch::context);
    reports(step, 0) = report.loss;
    reports(step, 1) = report.gradient_norm;
  }
  save_npy(folder / "reports.npy", reports);
  xt::xtensor<Token, 1> written = xt::xtensor<Token, 1>::from_shape({text.size()});
  std::copy(text.begin(), text.end(), written.begin());
  save_npy(folder / "tokens.npy", written);
}

}  // namespace

int main(int count, char** values) {
  std::filesystem::path folder;
  CLI::App app("Writes a model and what it computes, for bench/peer_check.py.");
  app.add_option("folder", folder, "a folder to make")->required();
  return programs::run(app, count, values, [&] { run(folder); });
}
