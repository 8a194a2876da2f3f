// Upcycles a trained dense model into a mixture of experts, which computes the same function until it is trained
// further.
//
//   upcycle --llama2c model.bin --tokenizer tokenizer.bin --out runs/mixture
//   upcycle --dense runs/dense --mixture story_mixtral --out runs/mixture

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <span>
#include <string>
#include <tinymoe/checkpoint/llama2c.hpp>
#include <tinymoe/checkpoint/upcycle.hpp>
#include <tinymoe/files/paths.hpp>
#include <tinymoe/model.hpp>
#include <tinymoe/presets.hpp>
#include <tuple>
#include <utility>

#include "output_files.hpp"
#include "programs/main.hpp"
#include "programs/numbers.hpp"

namespace {

using namespace tinymoe;
using std::filesystem::path;

/// A dense architecture, the mixture that it is upcycled into, and the mixture's name on the command line.
template <class From, class To>
struct Pair {
  using DenseArch = From;
  using MixtureArch = To;
  const char *name, *about;
};

/// One of llama2.c's models and a mixture of E of its networks.
template <class Shape, Index E, Index K>
using Llama = Pair<typename Shape::Dense, typename Shape::template Mixture<E, K>>;

/// The pairs that this program is compiled for. A new mixture needs a line here, and one in architectures.hpp for the
/// programs that train or sample it. The first pair of a dense model is its default.
constexpr auto pairs = std::tuple(
    Llama<presets::Characters, 4, 2>{"characters_4x2", "of 105 characters, width 128"},
    Llama<presets::Characters, 8, 2>{"characters_8x2", "the same with eight experts"},
    Llama<presets::Stories260K, 8, 2>{"stories260k_8x2", "of llama2.c's stories260K"},
    Llama<presets::Stories15M, 4, 2>{"stories15m_4x2", "of llama2.c's stories15M"},
    Pair<presets::StoryDense, presets::StoryMixtral>{"story_mixtral", "the preset story_mixtral, of story_dense"});

struct Arguments {
  path llama2c, tokenizer, dense, out;
  std::string mixture;
  UpcycleOptions options;
  std::uint64_t seed = 1337;
  int threads = 0;
  bool overwrite = false;
};

/// Calls f(pair) until it returns true; whether it did.
template <class F>
bool any_pair(F&& f) {
  return std::apply([&](auto... pair) { return (f(pair) || ...); }, pairs);
}

std::string names() {
  std::string text;
  any_pair([&](auto pair) { return text += (text.empty() ? "" : ", ") + std::string(pair.name), false; });
  return text;
}

/// The max difference of the two models' logits over some tokens, and the max of the dense model's logits.
template <class From, class To>
std::pair<double, double> compare(const From& dense, const To& mixture, Token first) {
  Session one(dense);
  Session other(mixture);
  double difference = 0, largest = 0;
  Token token = first;
  for (Index position = 0; position < 64; ++position) {
    const auto expected = one.feed(std::span(&token, 1)), found = other.feed(std::span(&token, 1));
    for (std::size_t v = 0; v < expected.size(); ++v) {
      difference = std::max(difference, double(std::abs(expected[v] - found[v])));
      largest = std::max(largest, double(std::abs(expected[v])));
    }
    token = static_cast<Token>(std::max_element(expected.begin(), expected.end()) - expected.begin());
  }
  return {difference, largest};
}

/// `load(model)` fills the dense model.
template <class P, class Load>
void run(const P& pair, const Arguments& a, const Tokenizer& tokenizer, Load&& load) {
  using From = typename P::DenseArch;
  using To = typename P::MixtureArch;
  if (tokenizer.vocabulary_size() > From::vocab) {
    fail<MismatchError>("the tokenizer has ", tokenizer.vocabulary_size(), " tokens, the model a vocabulary of ",
                        From::vocab);
  }
  const FolderLock lock(a.out, tinymoe::detail::checkpoint_files,
                        WriteUse::ahead);  // before the work: can it be written?
  Cpu device(a.threads);
  Model<From, Cpu> dense(device);
  load(dense);
  Model<To, Cpu> mixture(device, Seed{a.seed});
  upcycle(dense, mixture, a.options);
  std::printf("%s: %td parameters before, %td after, of which a token uses %td\n", pair.name, count<From>().total,
              count<To>().total, count<To>().active);
  const auto [difference, largest] = compare(dense, mixture, tokenizer.end_of_story());
  std::printf("first logits: they differ by %.2g at most, and go up to %.2g\n", difference, largest);
  save_model(a.out, mixture, tokenizer);
  std::printf("checkpoint: %s\n", a.out.c_str());
}

/// f(pair) for the mixture of the command line, or else for the first whose dense model `fits`. `what`: for errors.
template <class Fits, class F>
void choose(const Arguments& a, const std::string& what, Fits&& fits, F&& f) {
  bool known = a.mixture.empty();
  const bool done = any_pair([&](auto pair) {
    if (!a.mixture.empty() && a.mixture != pair.name) return false;
    known = true;
    if (!fits(pair)) return false;
    f(pair);
    return true;
  });
  if (!known) fail<OptionError>("there is no mixture \"", a.mixture, "\"; there are ", names());
  if (!done) {
    fail<MismatchError>(what, "; this program is compiled to make ", a.mixture.empty() ? names() : a.mixture,
                        " of other models: add a line to its list of pairs");
  }
}

void from_llama2c(const Arguments& a) {
  const Llama2cHeader header = llama2c_header(a.llama2c);
  const auto tokenizer = Tokenizer::load_llama2c(a.tokenizer);
  choose(
      a, a.llama2c.string() + ": is a " + header.type(),
      [&](auto pair) { return llama2c_header_of<typename decltype(pair)::DenseArch>() == header; },
      [&](auto pair) { run(pair, a, tokenizer, [&](auto& model) { load_llama2c(a.llama2c, model); }); });
}

/// open(folder) for the files of the dense checkpoint, all of one save, though a run may be saving another.
template <class Open>
auto open_dense(const Arguments& a, Open&& open) {
  return tinymoe::detail::open_together(a.dense, tinymoe::detail::checkpoint_files[0], open);
}

void from_checkpoint(const Arguments& a) {
  std::string name;
  const auto described = open_dense(a, [&](const path& folder) {
    name = (folder / "config.json").string();
    return Json(json_member(read_json(name, std::size_t{1} << 20), "tinymoe", name));
  });
  choose(
      a, name + ": is of another architecture",
      [&](auto pair) { return described == describe<typename decltype(pair)::DenseArch>(); },
      [&](auto pair) {
        using From = typename decltype(pair)::DenseArch;
        const auto opened = open_dense(a, [](const path& folder) {
          return std::pair(Tokenizer::load(folder / "tokenizer.json"),
                           tinymoe::detail::ModelFiles<From>(folder, "model.safetensors"));
        });
        run(pair, a, opened.first, [&](auto& model) { opened.second.load(model); });
      });
}

}  // namespace

int main(int argument_count, char** values) {
  Arguments a;
  CLI::App app("Makes a mixture of experts of a trained dense model (Komatsuzaki et al. 2022).");
  auto* llama2c = app.add_option("--llama2c", a.llama2c, "model.bin of llama2.c");
  auto* tokenizer = app.add_option("--tokenizer", a.tokenizer, "its tokenizer.bin")->needs(llama2c);
  llama2c->needs(tokenizer);
  app.add_option("--dense", a.dense, "or: folder of a dense checkpoint")->excludes(llama2c);
  app.add_option("--out", a.out, "folder of the mixture's checkpoint")->required();
  app.add_option("--mixture", a.mixture, "one of " + names() + "; default: the first of the dense model");
  using namespace programs::range;
  programs::add_number(app, "--noise", a.options.noise, "of the experts' weights, as a share of them; 0: exact copies",
                       from_0);
  programs::add_number(app, "--seed", a.seed, "of the routers and of the noise", whole(0));
  programs::add_number(app, "--threads", a.threads, "default: all cores", whole(0, tinymoe::detail::max_threads),
                       false);
  app.add_flag("--overwrite", a.overwrite, "replace the checkpoint in OUT");
  return programs::run(app, argument_count, values, [&] {
    a.options.seed = Seed{a.seed};
    if (a.llama2c.empty() == a.dense.empty()) fail<OptionError>("give --llama2c or --dense");
    if (tinymoe::detail::is_same(a.out, a.dense)) {
      fail<OptionError>(a.out.string(), ": is the dense checkpoint itself; give another --out");
    }
    examples::expect_checkpoint_folder(a.out, a.overwrite);
    a.dense.empty() ? from_llama2c(a) : from_checkpoint(a);
  });
}
