#pragma once
// The devices of the example programs, and the architectures that this build has for each device.

#include <stdexcept>
#include <string>
#include <string_view>
#include <tinymoe/backend/cpu.hpp>
#include <type_traits>
#include <variant>

#ifdef TINYMOE_EXAMPLE_CUDA
#include <tinymoe/backend/cuda.hpp>
#endif

namespace CLI {
class App;
}

namespace examples {

/// One of the backends that this build has. A number type is part of a backend's type, so the CPU is two of them and a
/// GPU three.
#ifdef TINYMOE_EXAMPLE_CUDA
using Device =
    std::variant<tinymoe::Cpu, tinymoe::CpuBfloat16, tinymoe::Cuda, tinymoe::CudaBfloat16, tinymoe::CudaFloat16>;
#else
using Device = std::variant<tinymoe::Cpu, tinymoe::CpuBfloat16>;
#endif

template <class B>
inline constexpr bool is_cpu = std::is_same_v<B, tinymoe::Cpu> || std::is_same_v<B, tinymoe::CpuBfloat16>;

/// Whether the functions of programs.hpp are compiled for an architecture on a backend. CMake says so in a header for
/// each list: compiled_architectures.hpp, compiled_variants.hpp.
template <class Arch, class B>
inline constexpr bool compiled = false;

/// All backends of a device are compiled for an architecture, or none.
template <class Arch>
constexpr bool compiled_for_cuda() {
#ifdef TINYMOE_EXAMPLE_CUDA
  return compiled<Arch, tinymoe::Cuda>;
#else
  return false;
#endif
}

/// Whether an architecture is compiled for bfloat16 and for integer weights on the CPU.
template <class Arch>
constexpr bool compiled_for_narrow() {
  return compiled<Arch, tinymoe::CpuBfloat16>;
}

/// What an architecture is compiled for.
struct CompiledFor {
  bool cpu, narrow, cuda;
};

/// The command line's options of the device.
struct DeviceOptions {
  std::string device, precision;  // empty: the best available
  // Of the run that is resumed. It keeps its precision, unless the command line gives one or it goes to another device.
  std::string last_device, last_precision;
  int threads = 0;      // of the CPU; 0: all cores
  int gpu = 0;          // its number, modulo how many there are; no option of the command line
  std::string weights;  // "int8" or "int4", which only the CPU has; empty: as the checkpoint has them
};

/// Adds --device, --precision and --threads.
void add_device_options(CLI::App& app, DeviceOptions& options);
/// Adds --weights.
void add_weights_option(CLI::App& app, DeviceOptions& options);

/// Opens the device for a preset, or for `sweep`. Throws OptionError if this build or the device does not support the
/// options, DeviceError without a GPU.
Device open_device(const DeviceOptions& options, std::string_view preset, CompiledFor compiled);

template <class Arch>
Device open_device(const DeviceOptions& options, std::string_view preset) {
  return open_device(options, preset,
                     {compiled<Arch, tinymoe::Cpu>, compiled_for_narrow<Arch>(), compiled_for_cuda<Arch>()});
}

/// "cpu" or "cuda", and "float32", "bfloat16" or "float16".
std::string kind_of(const Device& device);
std::string precision_of(const Device& device);
/// "cpu, AVX-512, 2 threads, float32", "cuda, NVIDIA H100 80GB HBM3, bfloat16".
std::string about(const Device& device);
/// The same and, where they are integers, the weights.
std::string about(const Device& device, const DeviceOptions& options);

/// f(backend) for the backend of the device, which was opened for this architecture.
template <class Arch, class F>
auto on(Device& device, F&& f) -> std::invoke_result_t<F&, tinymoe::Cpu&> {
  return std::visit(
      [&]<class B>(B& backend) -> std::invoke_result_t<F&, tinymoe::Cpu&> {
        if constexpr (compiled<Arch, B>) {
          return f(backend);
        } else {
          throw std::logic_error("the device was opened for another architecture");
        }
      },
      device);
}

}  // namespace examples
