#include <string>
#include <string_view>
#include <type_traits>
#include <variant>

#include "devices.hpp"

#include <CLI/CLI.hpp>

#include "programs/numbers.hpp"

namespace examples {

using namespace tinymoe;

namespace {

#ifdef TINYMOE_EXAMPLE_CUDA
constexpr bool built_with_cuda = true;
bool has_gpu() { return Cuda::available(); }

Device open_cuda(const std::string& precision, int gpu) {
  int count = 1;
  if (gpu > 0) {
    while (Cuda::available(count)) ++count;
  }
  const CudaOptions options{.device = gpu % count};
  if (precision == "float32") return Cuda(options);
  if (precision == "bfloat16") return CudaBfloat16(options);
  if (precision == "float16") return CudaFloat16(options);
  fail<OptionError>("there is no precision \"", precision, "\"; there are float32, bfloat16 and float16");
}
#else
constexpr bool built_with_cuda = false;
bool has_gpu() { return false; }
Device open_cuda(const std::string&, int) { fail<OptionError>("this program was built without CUDA"); }
#endif

/// bfloat16 where the processor has a unit for its products, as all GPUs have that run this; without one it would be no
/// faster on the CPU.
std::string default_precision(bool cuda, bool narrow) {
  const bool fast = cuda || (narrow && tinymoe::detail::cpu::chosen({}) == CpuInstructions::amx);
  return fast ? "bfloat16" : "float32";
}

}  // namespace

void add_device_options(CLI::App& app, DeviceOptions& options) {
  app.add_option("--device", options.device,
                 "cpu or cuda; default: cuda where this build has it for the preset and the machine has a GPU")
      ->check(CLI::IsMember({"cpu", "cuda"}));
  app.add_option(
         "--precision", options.precision,
         "float32, bfloat16 or, on cuda, float16, of activations and products; default: bfloat16 on cuda and on "
         "a cpu with AMX, else float32")
      ->check(CLI::IsMember({"float32", "bfloat16", "float16"}));
  programs::add_number(app, "--threads", options.threads, "of the cpu; default: all cores",
                       programs::range::whole(0, tinymoe::detail::max_threads), false);
}

void add_weights_option(CLI::App& app, DeviceOptions& options) {
  app.add_option("--weights", options.weights,
                 "int8 or int4: round the weights to 8 or 4 bits with a scale for 32 of them, on the cpu; default: as "
                 "the checkpoint has them")
      ->check(CLI::IsMember({"int8", "int4"}));
}

Device open_device(const DeviceOptions& options, std::string_view preset, CompiledFor compiled) {
  if (!options.weights.empty()) {
    if (options.device == "cuda") {
      fail<OptionError>("weights of ", options.weights, " need --device cpu: a GPU has no products for them");
    }
    if (!options.precision.empty() && options.precision != "float32") {
      fail<OptionError>("weights of ", options.weights,
                        " need --precision float32, which activations have beside them");
    }
    compiled.cuda = false;
  }
  const bool cuda = options.device.empty() ? compiled.cuda && has_gpu() : options.device == "cuda";
  const std::string last = options.last_device == (cuda ? "cuda" : "cpu") ? options.last_precision : std::string();
  const std::string_view asker = options.precision.empty() && !last.empty() ? "trainer.json asks for " : "--precision ";
  const std::string precision = !options.weights.empty()     ? "float32"
                                : !options.precision.empty() ? options.precision
                                : !last.empty()              ? last
                                                             : default_precision(cuda, compiled.narrow);
  if (!cuda) {
    if (precision != "float32" && precision != "bfloat16") {
      fail<OptionError>(asker, precision, ", and the cpu computes in float32 or bfloat16; give one of them, or ",
                        "--device cuda");
    }
    if (!compiled.cpu) {
      fail<OptionError>("the preset ", preset, " was left out of this build; build without TINYMOE_EXAMPLE_PRESETS, ",
                        "or name it there");
    }
    if (!compiled.narrow && (precision == "bfloat16" || !options.weights.empty())) {
      fail<OptionError>(preset, " was compiled for float32 alone in this build; name it in CMake's ",
                        "TINYMOE_EXAMPLE_NARROW_PRESETS for bfloat16 and integer weights");
    }
    if (precision == "bfloat16") return CpuBfloat16(options.threads);
    return Cpu(options.threads);
  }
  if (!built_with_cuda) {
    fail<OptionError>("this program was built without CUDA; build it with cmake -DTINYMOE_CUDA=ON, which says what ",
                      "is missing for that, or give --device cpu");
  }
  if (!compiled.cuda) {
    fail<OptionError>(preset, " was not compiled for cuda in this build; name it in CMake's ",
                      "TINYMOE_EXAMPLE_CUDA_PRESETS, or give --device cpu");
  }
  return open_cuda(precision, options.gpu);
}

std::string about(const Device& device, const DeviceOptions& options) {
  return about(device) + (options.weights.empty() ? "" : ", " + options.weights + " weights");
}

std::string kind_of(const Device& device) {
  return std::visit([]<class B>(const B&) -> std::string { return is_cpu<B> ? "cpu" : "cuda"; }, device);
}

std::string precision_of(const Device& device) {
  return std::visit(
      []<class B>(const B&) -> std::string {
        using T = typename B::Scalar;
        return std::is_same_v<T, float> ? "float32" : std::is_same_v<T, bfloat16> ? "bfloat16" : "float16";
      },
      device);
}

std::string about(const Device& device) {
  const std::string which = std::visit(
      []<class B>(const B& backend) -> std::string {
        const std::string name = std::string(backend.name()) + ", ";
        if constexpr (is_cpu<B>) {
          return name + std::to_string(backend.threads()) + (backend.threads() == 1 ? " thread" : " threads");
        } else {
          return name + backend.device().name;
        }
      },
      device);
  return which + ", " + precision_of(device);
}

}  // namespace examples
