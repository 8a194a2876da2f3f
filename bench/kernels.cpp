// Single operations of the CPU backend at the shapes of the yardstick and of the story model (Google Benchmark).
//
// `share` is the share of the machine's limit, which the same process measures first: of multiply-adds for products and
// attention, of memory traffic for AdamW. Row kernels run on one thread; their figure is nanoseconds an element.
// The arguments are Google Benchmark's: --benchmark_filter=yardstick/expert, --benchmark_min_time=1, …

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <iterator>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "matrix.hpp"
#include "programs/measure.hpp"
#include "support.hpp"
#include "tinymoe/backend/cpu.hpp"
#include "tinymoe/presets.hpp"

namespace {

using namespace tinymoe;
using benchmark::State;

/// One for each process: the backend, the limits, and the numbers that all operations read.
struct Machine {
  Cpu cpu;
  Cpu one{1};  // for row kernels
  double fma = 0;
  bench::MemoryLimits memory;
};

using Matrix = bench::Matrix<float>;

/// Runs f() until Google Benchmark has enough; the seconds of one run.
template <class F>
double seconds_each(State& state, F&& f) {
  const double seconds = programs::seconds_of([&] {
    for (auto _ : state) f();
  });
  return seconds / double(state.iterations());
}

/// f() does `operations`.
template <class F>
void time_operations(State& state, const Machine& machine, double operations, F&& f) {
  const double rate = operations / seconds_each(state, f);
  state.counters["GFLOP/s"] = rate / 1e9;
  state.counters["share"] = rate / machine.fma;
}

void add(const std::string& name, std::function<void(State&)> f) {
  benchmark::RegisterBenchmark(name.c_str(), [f = std::move(f)](State& state) { f(state); })
      ->UseRealTime()
      ->Unit(benchmark::kMicrosecond);
}

/// y (N, O) = x (N, I) w (O, I), and its two gradients.
void add_product(Machine& machine, const std::string& name, Index rows, Index outputs, Index inputs) {
  const double operations = 2.0 * double(rows) * double(outputs) * double(inputs);
  const std::string shape =
      name + "/" + std::to_string(rows) + "x" + std::to_string(outputs) + "x" + std::to_string(inputs);
  add(shape + "/forward", [=, &machine](State& state) {
    const Matrix x(rows, inputs), w(outputs, inputs), y(rows, outputs);
    time_operations(state, machine, operations, [&] { machine.cpu.matmul(x, w, {}, y); });
  });
  if (rows == 1) return;
  add(shape + "/input_gradient", [=, &machine](State& state) {
    const Matrix dx(rows, inputs), w(outputs, inputs), dy(rows, outputs);
    time_operations(state, machine, operations, [&] { machine.cpu.matmul_input(dy, w, dx, Write::overwrite); });
  });
  add(shape + "/weight_gradient", [=, &machine](State& state) {
    const Matrix x(rows, inputs), dw(outputs, inputs), dy(rows, outputs);
    time_operations(state, machine, operations, [&] { machine.cpu.matmul_weight(dy, x, dw); });
  });
}

/// Where each expert's rows start: equal loads, or loads that halve from one expert to the next.
std::vector<std::int32_t> expert_offsets(Index experts, Index rows, bool balanced) {
  std::vector<std::int32_t> offsets = {0};
  Index left = rows;
  for (Index e = 0; e < experts; ++e) {
    const Index load = e + 1 == experts ? left : (balanced ? rows / experts : left / 2);
    left -= load;
    offsets.push_back(static_cast<std::int32_t>(rows - left));
  }
  return offsets;
}

void add_grouped(Machine& machine, const std::string& name, Index experts, Index rows, Index outputs, Index inputs,
                 bool balanced) {
  const double operations = 2.0 * double(rows) * double(outputs) * double(inputs);
  const std::string shape = name + "/" + std::to_string(experts) + "_experts_" + (balanced ? "balanced" : "skewed") +
                            "/" + std::to_string(rows) + "x" + std::to_string(outputs) + "x" + std::to_string(inputs);
  const auto offsets = expert_offsets(experts, rows, balanced);
  const auto bank = [=](const Matrix& w) {
    return Bank<float>{w.view().data, experts, outputs, inputs, outputs * inputs};
  };
  const auto reading = [](Bank<float> w) { return Bank<const float>{w.data, w.count, w.rows, w.cols, w.stride}; };
  const auto sorted = [=](std::vector<std::int32_t>& all) {
    return Dispatch(View<std::int32_t>(all.data(), 1, std::ssize(all)), rows);
  };
  add(shape + "/forward", [=, &machine](State& state) {
    const Matrix x(rows, inputs), w(experts * outputs, inputs), y(rows, outputs);
    auto ends = offsets;
    const Dispatch dispatch = sorted(ends);
    time_operations(state, machine, operations,
                    [&] { machine.cpu.grouped_matmul(x, reading(bank(w)), {}, dispatch, y); });
  });
  add(shape + "/input_gradient", [=, &machine](State& state) {
    const Matrix dx(rows, inputs), w(experts * outputs, inputs), dy(rows, outputs);
    auto ends = offsets;
    const Dispatch dispatch = sorted(ends);
    time_operations(state, machine, operations,
                    [&] { machine.cpu.grouped_matmul_input(dy, reading(bank(w)), dispatch, dx); });
  });
  add(shape + "/weight_gradient", [=, &machine](State& state) {
    const Matrix x(rows, inputs), dw(experts * outputs, inputs), dy(rows, outputs);
    auto ends = offsets;
    const Dispatch dispatch = sorted(ends);
    time_operations(state, machine, operations, [&] { machine.cpu.grouped_matmul_weight(dy, x, dispatch, bank(dw)); });
  });
}

/// Counted are the products of visible pairs: two forward, five backward, which makes the probabilities again.
void add_attention(Machine& machine, const std::string& name, const AttentionShape& shape) {
  double pairs = 0;
  for (Index t = 0; t < shape.time; ++t) pairs += double(t + 1 - shape.first_key(t));
  pairs *= double(shape.batch * shape.heads);
  const double product = 2 * pairs * double(shape.head_dim);
  const Index rows = shape.batch * shape.time, queries = shape.heads * shape.head_dim,
              keys = shape.kv_heads * shape.head_dim;
  add(name + "/attention/forward", [=, &machine](State& state) {
    auto& cpu = machine.cpu;
    const Matrix q(rows, queries), k(rows, keys), v(rows, keys), y(rows, queries), log_sum(rows, shape.heads),
        scratch(1, cpu.attention_scratch(shape));
    time_operations(state, machine, 2 * product, [&] { cpu.attention_forward(shape, q, k, v, y, log_sum, scratch); });
  });
  add(name + "/attention/backward", [=, &machine](State& state) {
    auto& cpu = machine.cpu;
    const Matrix q(rows, queries), k(rows, keys), v(rows, keys), y(rows, queries), log_sum(rows, shape.heads),
        scratch(1, cpu.attention_scratch(shape)), dy(rows, queries), dq(rows, queries), dk(rows, keys), dv(rows, keys);
    cpu.attention_forward(shape, q, k, v, y, log_sum, scratch);
    time_operations(state, machine, 5 * product,
                    [&] { cpu.attention_backward(shape, q, k, v, y, log_sum, dy, dq, dk, dv, scratch); });
  });
}

/// All products and the attention of a training step of `batch` sequences that fill the context.
template <class Arch>
void add_model(Machine& machine, const std::string& name, Index batch) {
  using Block = typename Arch::template BlockLayer<0>;
  using Attention = typename Block::AttentionLayer;
  using Network = typename Block::NetworkLayer;
  using Experts = typename Network::Experts;
  using OneExpert = typename Experts::template One<float>;
  using Mixture = typename std::tuple_element_t<0, typename Arch::Groups>::Block::Network;
  constexpr Index experts = Mixture::experts, choices = Mixture::choices, width = Arch::width;
  const Index rows = batch * Arch::context;
  add_product(machine, name + "/qkv", rows, Attention::qkv_width, width);
  add_product(machine, name + "/attention_output", rows, width, Attention::query_width);
  add_product(machine, name + "/router", rows, experts, width);
  for (const bool balanced : {true, false}) {
    add_grouped(machine, name + "/expert_input", experts, rows * choices, decltype(OneExpert::input)::rows, width,
                balanced);
    add_grouped(machine, name + "/expert_output", experts, rows * choices, width, decltype(OneExpert::output)::cols,
                balanced);
  }
  // The head works in chunks of about 32 MB of logits (layers/loss.hpp).
  const Index chunk = std::clamp<Index>((Index{32} << 20) / (Arch::vocab * Index{sizeof(float)}), 64, 1024);
  add_product(machine, name + "/head", std::min(chunk, rows), Arch::vocab, width);
  add_product(machine, name + "/head_decode", 1, Arch::vocab, width);
  add_attention(machine, name, Attention::shape(Pass{.batch = batch, .time = Arch::context}));
}

/// A kernel over rows of `width` elements, in the first-level cache or nearly, on one thread.
template <class Make>
void add_rows(Machine& machine, const std::string& name, Index rows, Index width, Make make) {
  add("rows/" + name + "/" + std::to_string(width), [=, &machine](State& state) {
    auto& cpu = machine.one;
    const auto run = make(cpu, rows, width);
    state.counters["ns/element"] = 1e9 * seconds_each(state, run) / double(rows * width);
  });
}

/// Matrices with shared ownership, for the function that reads them.
template <class... M>
auto shared(M... matrices) {
  return std::make_shared<std::tuple<M...>>(std::move(matrices)...);
}

void add_row_kernels(Machine& machine) {
  const Index width = presets::Yardstick::width, hidden = 1408, vocab = presets::Yardstick::vocab;
  add_rows(machine, "rms_norm/forward", 64, width, [](Cpu& cpu, Index rows, Index cols) {
    const auto m = shared(Matrix(rows, cols), Matrix(1, cols), Matrix(rows, cols), Matrix(1, rows));
    return [=, &cpu] {
      const auto& [x, gain, y, inverse] = *m;
      cpu.launch(rows, kernels::NormForward<float, float>{x, gain, {}, y, {}, inverse, 1e-5});
    };
  });
  add_rows(machine, "rms_norm/backward", 64, width, [](Cpu& cpu, Index rows, Index cols) {
    const auto m = shared(Matrix(rows, cols), Matrix(1, cols), Matrix(rows, cols), Matrix(rows, cols), Matrix(1, rows),
                          Matrix(rowwise::chunks(rows), cols));
    return [=, &cpu] {
      const auto& [x, gain, dy, dx, inverse, partial] = *m;
      cpu.launch(rowwise::chunks(rows), kernels::NormBackward<float, float>{x, gain, dy, {}, dx, {}, inverse, partial});
    };
  });
  add_rows(machine, "swiglu/forward", 32, hidden, [](Cpu& cpu, Index rows, Index cols) {
    const auto m = shared(Matrix(rows, 2 * cols), Matrix(rows, cols));
    return [=, &cpu] {
      const auto& [hidden, activated] = *m;
      cpu.launch(rows, kernels::ActivationForward<SwiGlu, float>{hidden, activated, {}});
    };
  });
  add_rows(machine, "swiglu/backward", 32, hidden, [](Cpu& cpu, Index rows, Index cols) {
    const auto m = shared(Matrix(rows, 2 * cols), Matrix(rows, cols), Matrix(rows, 2 * cols));
    return [=, &cpu] {
      const auto& [hidden, dactivated, dhidden] = *m;
      cpu.launch(rows, kernels::ActivationBackward<SwiGlu, float>{hidden, dactivated, dhidden, {}});
    };
  });
  for (const bool gradient : {false, true}) {
    const char* name = gradient ? "softmax_cross_entropy_gradient" : "softmax_cross_entropy";
    add_rows(machine, name, 8, vocab, [=](Cpu& cpu, Index rows, Index cols) {
      const auto m = shared(Matrix(rows, cols), Matrix(1, rows));
      const auto targets = std::make_shared<std::vector<Token>>(programs::random_tokens(rows, cols, 3));
      return [=, &cpu] {
        const auto& [logits, losses] = *m;
        cpu.launch(rows, kernels::CrossEntropy<float, float>{logits, View<const Token>(targets->data(), 1, rows),
                                                             losses, gradient ? 1.0f : 0.0f});
      };
    });
  }
  add_rows(machine, "rope", 64, width, [](Cpu& cpu, Index rows, Index cols) {
    const auto m = shared(Matrix(rows, cols), Matrix(rows, 64));
    cpu.launch(rows, kernels::FillRopeTable<float>{std::get<1>(*m), 0, 10000});
    return [=, &cpu] {
      const auto& [x, table] = *m;
      cpu.launch(rows, kernels::Rotate<float, float>{x, table, 64, 1.0f});
    };
  });
  add_rows(machine, "router", 1024, 8, [](Cpu& cpu, Index rows, Index) {
    using Layer = Router<8, 2>::Layer<512>;
    struct Routed {
      Memory weights, activations;
      Layer::Parameters<float> parameters;
      Layer::Saved<float, float> saved;
      Pass pass;
    };
    const auto routed = std::make_shared<Routed>();
    routed->pass = Pass{.time = rows};
    routed->weights = cpu.allocate(static_cast<std::size_t>(buffer_size<Layer::Parameters<float>>()) * sizeof(float));
    bind_parameters(routed->parameters, routed->weights.as<float>().data);
    Plan measure(Plan::Purpose::training);
    routed->saved.plan(measure, routed->pass);
    routed->activations = cpu.allocate(measure.bytes());
    Plan place(Plan::Purpose::training, routed->activations.bytes(), measure);
    routed->saved.plan(place, routed->pass);
    const auto x = shared(Matrix(rows, 512));
    return [=, &cpu] { Layer::forward(cpu, routed->pass, routed->parameters, std::get<0>(*x), routed->saved); };
  });
}

void add_optimizer(Machine& machine) {
  add("adamw/134M_parameters", [&machine](State& state) {
    const Index size = Index{1} << 27;
    std::vector<Chunk> chunks;
    for (Index at = 0; at < size; at += Chunk::largest) chunks.push_back({at, Chunk::largest, 1});
    bench::OptimizerPass<Cpu> pass(machine.cpu, size, chunks);
    const double rate = pass.step_bytes * double(size) / seconds_each(state, [&] { pass.step(); });
    state.counters["GB/s"] = rate / 1e9;
    state.counters["share"] = rate / machine.memory.update;
  });
}

}  // namespace

int main(int count, char** values) {
  benchmark::Initialize(&count, values);
  if (benchmark::ReportUnrecognizedArguments(count, values)) return 1;
  Machine machine;
  machine.fma = bench::measure_fma(machine.cpu.threads());
  machine.memory = bench::measure_memory(machine.cpu.threads());
  char limits[160];
  std::snprintf(limits, sizeof limits, "%d threads: %.1f GFLOP/s; read %.1f, triad %.1f, update %.1f GB/s",
                machine.cpu.threads(), machine.fma / 1e9, machine.memory.read / 1e9, machine.memory.triad / 1e9,
                machine.memory.update / 1e9);
  benchmark::AddCustomContext("limits", limits);
  add_model<presets::Yardstick>(machine, "yardstick", 4);
  add_model<presets::StoryMixtral>(machine, "story_mixtral", 8);
  add_row_kernels(machine);
  add_optimizer(machine);
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
