// The CUDA backend on this machine's GPU: training, decoding and AdamW of the yardstick model, each operation of a
// training step against its limit, and the ways to compute the products of a bank. Times are the device's own, by
// events, unless they say otherwise.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <iterator>
#include <numeric>
#include <span>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "cuda_limits.hpp"
#include "cuda_report.hpp"
#include "cuda_watched.hpp"
#include "programs/main.hpp"
#include "programs/measure.hpp"
#include "programs/numbers.hpp"
#include "tinymoe/analysis/count.hpp"
#include "tinymoe/presets.hpp"
#include "tinymoe/sample/session.hpp"
#include "tinymoe/train/trainer.hpp"

namespace {

using namespace tinymoe;

struct Arguments {
  std::vector<std::string> only;
  std::filesystem::path output, targets, peer;
  int device = 0;
  bool tiny = false;
};

/// The sizes of the measurements: as the figures are defined, or minimal for a test that all of it works.
struct Sizes {
  std::size_t copy = std::size_t{1} << 30;
  Index product = 8192;
  Index tokens = 65536, few_tokens = 16384;  // of a training step
  int samples = 5, min_steps = 3;
  double sample_milliseconds = 500;
  Index decoded = 160;
  std::vector<Index> rows = {64, 256, 1024, 4096, 16384};  // of an expert, on average
};
const Sizes tiny{.copy = 1 << 20,
                 .product = 64,
                 .tokens = 128,
                 .few_tokens = 64,
                 .samples = 2,
                 .min_steps = 1,
                 .sample_milliseconds = 0,
                 .decoded = 6,
                 .rows = {32}};

using Brain = bench::WatchedCuda<CudaBfloat16>;
using Float = bench::WatchedCuda<Cuda>;

/// Shared by all parts.
struct Run {
  bench::CudaReport& report;
  const Sizes& sizes;
  Brain& brain;
  Float& wide;
  bench::CudaLimits limits;

  double product_limit(const char* type) const {
    const auto found = limits.product.find(type);
    return found == limits.product.end() ? 0 : found->second;
  }
};

void measure_limits(Run& run) {
  run.limits.copy = bench::measure_copy(run.sizes.copy);
  run.report.figure("copy", "device-to-device copy, read and written", run.limits.copy / 1e9, "GB/s");
  const auto product = [&](auto& watched) {
    const char* type = bench::type_name<std::remove_cvref_t<decltype(watched)>>();
    const double rate = bench::measure_product(watched, run.sizes.product);
    run.limits.product[type] = rate;
    const std::string size = std::to_string(run.sizes.product);
    run.report.figure(std::string("product_") + type,
                      std::string("product, ") + type + ", " + size + " x " + size + " x " + size, rate / 1e12,
                      "TFLOP/s");
  };
  product(run.brain);
  product(run.wide);
}

/// Training steps of `tokens` tokens; the figure is stored under `key`. With `operations`, also a table of their
/// operations.
template <class Arch, class W>
void train(Run& run, W& watched, Index tokens, const std::string& key, bool operations) {
  const Index time = Arch::context, batch = tokens / time;
  Model<Arch, W> model(watched, Seed{1});
  Trainer trainer(model, AdamW{.lr = 1e-4});
  const Index plain_before = watched.backend().plain_products();
  const auto text = programs::random_tokens(2 * tokens + 1, Arch::vocab, 1);
  std::size_t turn = 0;
  std::vector<double> handing;  // milliseconds until the host has launched all passes
  const auto step = [&] {
    const auto at = std::span(text).subspan(turn++ % 2 * static_cast<std::size_t>(tokens));
    const auto size = static_cast<std::size_t>(tokens);
    const auto started = std::chrono::steady_clock::now();
    trainer.begin_step(at.first(size), at.subspan(1, size), batch, time);
    handing.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - started).count());
    trainer.finish_step();
  };
  // One step after another, as in a run: the host prepares a step while the device ends the last one.
  for (int warm = 0; warm < 2; ++warm) step();
  const double once = watched.milliseconds(step);
  const int steps =
      std::max(run.sizes.min_steps, static_cast<int>(run.sizes.sample_milliseconds / std::max(once, 1e-3)));
  std::vector<double> found;
  handing.clear();
  for (int sample = 0; sample < run.sizes.samples; ++sample) {
    const double all = watched.milliseconds([&] {
      for (int i = 0; i < steps; ++i) step();
    });
    found.push_back(all / steps);
  }
  const double milliseconds = programs::median(found);
  constexpr auto cost = count<Arch>();
  const double peak = run.product_limit(bench::type_name<W>());
  run.report.figure(key,
                    std::string("train, ") + bench::type_name<W>() + ", " + std::to_string(tokens) + " tokens a step",
                    1e3 * double(tokens) / milliseconds, "tok/s", peak / double(cost.flops_trained), 0);
  run.report.time(key + "_step", "a step of it", milliseconds, "ms");
  run.report.time(key + "_host", "the host until all passes are launched", programs::median(handing), "ms");
  run.report.figure(key + "_activations", "its activations", double(trainer.activation_bytes()) / 1e9, "GB");
  const Index plain = watched.backend().plain_products() - plain_before;
  if (plain > 0) run.report.figure(key + "_plain", "products without an algorithm, in all steps", double(plain), "");
  if (!operations) return;
  watched.watch(bench::Watch::operations, double(Model<Arch, W>::size), bench::names_of_products<Arch>());
  constexpr int watched_steps = 2;
  for (int i = 0; i < watched_steps; ++i) step();
  run.report.operations(
      key, "The operations of a training step, " + std::to_string(tokens) + " tokens, " + bench::type_name<W>() + ":",
      watched.operations(), watched_steps, milliseconds, run.limits.copy, peak);
  watched.watch(bench::Watch::nothing);
}

/// Bytes of the weights that `tokens` tokens use together, if routers spread them evenly: the weights of every token,
/// and the expected number of distinct experts.
template <class Arch, class T>
double weight_bytes_met(Index tokens) {
  using Network = typename std::tuple_element_t<0, typename Arch::Groups>::Block::Network;
  constexpr auto cost = count<Arch>();
  constexpr double experts = double(Network::experts), choices = double(Network::choices);
  const double one = double(cost.active_part(Part::expert));
  const double rest = double(cost.active) - one - (Arch::tied ? 0 : double(cost.part(Part::embedding)));
  const double share = 1 - std::pow(1 - choices / experts, double(tokens));
  return (rest + double(cost.part(Part::expert)) * share) * sizeof(T);
}

/// `early`: a kernel may start before the previous one has ended (programmatic dependent launch).
template <class Arch, class W>
void decode(Run& run, W& watched, Index streams, bool early) {
  watched.backend().early_starts(early);
  if (early && !watched.backend().early_starts()) return;  // not supported here
  const Model<Arch, W> model(watched, Seed{1});
  Session<Model<Arch, W>> session(model, {.sequences = streams});
  std::vector<Index> all(static_cast<std::size_t>(streams));
  std::iota(all.begin(), all.end(), Index{0});
  // Random tokens, so that they go to different experts, as the tokens of a text do.
  const auto text = programs::random_tokens(streams * Arch::context, Arch::vocab, 7);
  // Steps first … last − 1 of all streams, from the start where `first` is 0; the host's milliseconds of each.
  const auto write = [&](Index first, Index last) {
    std::vector<double> milliseconds;
    if (first == 0) session.reset();
    for (Index i = first; i < last; ++i) {
      const auto tokens = std::span(text).subspan(static_cast<std::size_t>(i * streams), all.size());
      milliseconds.push_back(1e3 * programs::seconds_of([&] { session.step(all, tokens); }));
    }
    return milliseconds;
  };
  const Index last = std::min(run.sizes.decoded, Arch::context - 1), watched_tokens = std::min<Index>(4, last);
  write(0, watched_tokens);  // the second step records
  const double token = programs::median(write(0, last));
  watched.watch(bench::Watch::replays);
  write(0, last);
  const double device = programs::median(watched.replays());
  watched.watch(bench::Watch::nothing);
  watched.backend().early_starts(false);
  const double bytes = weight_bytes_met<Arch, typename W::Scalar>(streams);
  const double bound = run.limits.copy > 0 ? bytes / run.limits.copy : 0;  // seconds
  const std::string key = "decode_" + std::to_string(streams) + (early ? "_early" : "");
  run.report.figure(key,
                    std::string("decode, ") + bench::type_name<W>() + ", " + std::to_string(streams) +
                        (streams == 1 ? " stream" : " streams") + (early ? ", early starts" : ""),
                    1e3 * double(streams) / token, "tok/s", bound > 0 ? double(streams) / bound : 0, 0);
  run.report.time(key + "_step", "a step of it, on the host's clock", token, "ms", 1e3 * bound, 4);
  run.report.time(key + "_device", "its recorded part on the device, started and done", device, "ms", 1e3 * bound, 4);
  run.report.time(key + "_host", "the rest: tokens there, logits back, and the host", token - device, "ms", 0, 4);
  if (streams > 1 || early) return;
  write(0, last / 2);
  watched.watch(bench::Watch::operations, double(Model<Arch, W>::size), bench::names_of_products<Arch>());
  write(last / 2, last / 2 + watched_tokens);
  run.report.operations(
      key,
      std::string("The operations of a token, ") + bench::type_name<W>() +
          ", one stream; run again and again they find their weights in the cache, so that a share may pass 100 %:",
      watched.operations(), double(watched_tokens), device, run.limits.copy, run.product_limit(bench::type_name<W>()));
  watched.watch(bench::Watch::nothing);
}

template <class Arch, class W>
void optimizer(Run& run, W& watched) {
  using M = Model<Arch, W>;
  bench::OptimizerPass<W> pass(watched, M::size, detail::chunks_of<typename M::Weights>());
  pass.norm();
  const double step = bench::median_milliseconds(watched, [&] { pass.step(); });
  const double norm = bench::median_milliseconds(watched, [&] { pass.norm(); });
  const double size = double(pass.size()), copy = run.limits.copy;
  const auto limit = [&](double bytes) { return copy > 0 ? 1e3 * size * bytes / copy : 0; };
  const std::string type = bench::type_name<W>(), key = std::is_same_v<W, Brain> ? "adamw" : "adamw_float32";
  run.report.time(key, "AdamW, " + type + ", " + std::to_string(int(pass.step_bytes)) + " bytes a parameter", step,
                  "ms", limit(pass.step_bytes), 3);
  run.report.time(key + "_norm", "the norm of its gradients, 4 bytes a parameter", norm, "ms", limit(pass.norm_bytes),
                  3);
  if (copy > 0) {
    run.report.figure(key + "_share", "AdamW's share of the copy bandwidth", 100 * limit(pass.step_bytes) / step, "%");
  }
}

/// Rows of experts with loads spread evenly from three to five quarters of the mean. They are sorted like a router's
/// choices, so that the host knows the loads as in training.
class Loads {
 public:
  Loads(Brain& brain, Index experts, Index mean) : rows_(experts * mean) {
    std::vector<std::int32_t> chosen;
    for (Index e = 0; e < experts; ++e) {
      const Index end =
          e + 1 == experts ? rows_ : std::ssize(chosen) + mean * (3 * (experts - 1) + 2 * e) / (4 * (experts - 1));
      chosen.resize(static_cast<std::size_t>(end), static_cast<std::int32_t>(e));
    }
    const auto bytes = [](Index count) { return static_cast<std::size_t>(count) * sizeof(std::int32_t); };
    memory_ = brain.allocate(bytes(3 * rows_ + experts + 1));
    auto* at = memory_.as<std::int32_t>().data;
    brain.copy_to_device(at, chosen.data(), bytes(rows_));
    dispatch_ = {{at + 3 * rows_, 1, experts + 1}, {at + rows_, rows_, 1}, {at + 2 * rows_, 1, rows_}};
    brain.sort_by_expert({at, rows_, 1}, dispatch_);
  }
  const Dispatch& dispatch() const { return dispatch_; }
  Index rows() const { return rows_; }

 private:
  Index rows_;
  Memory memory_;
  Dispatch dispatch_;
};

/// The products of one bank, computed in each way.
void grouped(Run& run, const std::string& name, Index experts, Index mean, Index outputs, Index inputs) {
  using T = bfloat16;
  Brain& brain = run.brain;
  const Loads loads(brain, experts, mean);
  const bench::DeviceMatrix<Brain, T> x(brain, loads.rows(), inputs), y(brain, loads.rows(), outputs),
      weights(brain, experts * outputs, inputs);
  const Bank<const T> bank{weights.view().data, experts, outputs, inputs, outputs * inputs};
  const std::pair<const char*, std::function<void()>> directions[] = {
      {"forward", [&] { brain.grouped_matmul(x, bank, {}, loads.dispatch(), y); }},
      {"input gradient", [&] { brain.grouped_matmul_input(y, bank, loads.dispatch(), x); }}};
  const std::pair<const char*, GroupedProducts> ways[] = {{"streams", GroupedProducts::streams},
                                                          {"one stream", GroupedProducts::one_stream},
                                                          {"one call", GroupedProducts::call}};
  const double operations = 2.0 * double(loads.rows()) * double(outputs) * double(inputs);
  const double peak = run.product_limit("bfloat16");
  for (const auto& [direction, work] : directions) {
    Json entry = {{"bank", name}, {"mean_rows", mean}, {"direction", direction}};
    std::printf("| %s | %td | %s |", name.c_str(), mean, direction);
    double least = 0;
    const char* fastest = "";
    for (const auto& [way, how] : ways) {
      brain.backend().grouped_products(how);
      const double milliseconds = bench::median_milliseconds(brain, work, 5, run.sizes.sample_milliseconds / 50);
      entry[way] = milliseconds;
      std::printf(" %.4f |", milliseconds);
      if (*fastest == '\0' || milliseconds < least) least = milliseconds, fastest = way;
    }
    brain.backend().grouped_products(GroupedProducts::streams);
    entry["fastest"] = fastest;
    const double rate = operations / std::max(least, 1e-9) * 1e3;
    std::printf(" %s | %.1f |", fastest, rate / 1e12);
    peak > 0 ? std::printf(" %.0f %% |\n", 100 * rate / peak) : std::printf(" |\n");
    std::fflush(stdout);
    run.report.append("grouped", std::move(entry));
  }
}

template <class Arch>
void grouped_products(Run& run) {
  using One = typename Arch::template BlockLayer<0>::NetworkLayer::Experts::template One<float>;
  using Network = typename std::tuple_element_t<0, typename Arch::Groups>::Block::Network;
  run.report.start_table("The products of a bank, computed in each way, bfloat16:");
  std::printf(
      "| bank | rows an expert | product | streams, ms | one stream, ms | one call, ms | fastest | TFLOP/s | share "
      "|\n");
  std::printf("|---|---|---|---|---|---|---|---|---|\n");
  for (const Index mean : run.sizes.rows) {
    grouped(run, "input", Network::experts, mean, decltype(One::input)::rows, Arch::width);
    grouped(run, "output", Network::experts, mean, Arch::width, decltype(One::output)::cols);
  }
  std::printf("\n");
}

template <class Arch>
void measure_all(Run& run, const std::vector<std::string>& only) {
  const auto part = [&](const std::string& name, auto&& f) {
    if (!only.empty() && std::find(only.begin(), only.end(), name) == only.end()) return;
    try {
      f();
    } catch (const Error& error) {
      run.brain.watch(bench::Watch::nothing), run.wide.watch(bench::Watch::nothing);
      run.brain.backend().early_starts(false);
      run.report.left_out(name, error.what());
    }
  };
  const Sizes& sizes = run.sizes;
  part("limits", [&] { measure_limits(run); });
  part("decode", [&] { decode<Arch>(run, run.brain, 8, false); });
  part("decode", [&] { decode<Arch>(run, run.brain, 1, true); });
  part("decode", [&] { decode<Arch>(run, run.brain, 1, false); });
  part("optimizer", [&] { optimizer<Arch>(run, run.brain); });
  part("optimizer", [&] { optimizer<Arch>(run, run.wide); });
  part("train", [&] { train<Arch>(run, run.brain, sizes.few_tokens, "train_bfloat16_few", false); });
  part("train", [&] { train<Arch>(run, run.wide, sizes.few_tokens, "train_float32", false); });
  part("train", [&] { train<Arch>(run, run.brain, sizes.tokens, "train_bfloat16", true); });
  part("grouped", [&] { grouped_products<Arch>(run); });
}

/// Runs all measurements; false if a part was left out.
bool run(const Arguments& arguments) {
  CudaBfloat16 brain({.device = arguments.device});
  Cuda wide({.device = arguments.device});
  Brain watched_brain(brain);
  Float watched_wide(wide);
  const CudaDevice& device = brain.device();
  std::printf("%s, compute capability %d.%d, %d multiprocessors, %.1f GB, %.1f GB free\n", device.name.c_str(),
              device.major, device.minor, device.multiprocessors, double(device.bytes) / 1e9,
              double(device.free_bytes) / 1e9);
  bench::CudaReport report(arguments.output);
  int driver = 0, runtime = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  report.set("device", device.name);
  report.set("tiny", arguments.tiny);
  report.set("multiprocessors", device.multiprocessors);
  report.set("cuda", Json{{"driver", driver}, {"runtime", runtime}});
  Run run{report, arguments.tiny ? tiny : Sizes{}, watched_brain, watched_wide, {}};
  if (arguments.tiny) {
    measure_all<presets::Pocket>(run, arguments.only);
  } else {
    measure_all<presets::Yardstick>(run, arguments.only);
  }
  return report.whole();
}

}  // namespace

int main(int count, char** values) {
  Arguments arguments;
  CLI::App app(
      "The yardstick model on an NVIDIA GPU: training, decoding, AdamW, and each operation's share of its limit.");
  app.add_option("--output", arguments.output, "a file for all figures, as JSON");
  app.add_option("--only", arguments.only, "limits, decode, optimizer, train, grouped; shares need limits")
      ->check(CLI::IsMember({"limits", "decode", "optimizer", "train", "grouped"}));
  programs::add_number(app, "--device", arguments.device, "its number, as CUDA counts",
                       programs::range::whole(0, 1024));
  app.add_flag("--tiny", arguments.tiny, "a very small model and few repetitions, to see that all of it works");
  app.add_option("--targets", arguments.targets, "only the table of what must be reached, from a file of --output");
  app.add_option("--peer", arguments.peer, "for --targets: the file of peer_torch.py --device cuda");
  return programs::run(app, count, values, [&] {
    if (arguments.targets.empty()) return run(arguments) ? 0 : 1;
    bench::print_targets(arguments.targets, arguments.peer);
    return 0;
  });
}
