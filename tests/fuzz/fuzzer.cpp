// libFuzzer's entry, of one source file's harnesses (TINYMOE_FUZZ_HARNESSES). TINYMOE_FUZZ names the harness. Without
// it the program lists all of them; with TINYMOE_FUZZ_SEEDS as well it writes the seeds of the harness into that folder
// and ends.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>

#include "fuzz/harness.hpp"

namespace {

const tinymoe_fuzz::Harness& chosen() {
  static const tinymoe_fuzz::Harness harness = [] {
    const char* const name = std::getenv("TINYMOE_FUZZ");
    for (const auto& one : tinymoe_fuzz::TINYMOE_FUZZ_HARNESSES()) {
      if (name == nullptr) {
        const char* const dictionary = *one.dictionary != '\0' ? one.dictionary : "-";
        std::printf("%s %zu %s\n", one.name, one.longest, dictionary);
      } else if (one.name == std::string(name)) {
        return one;
      }
    }
    if (name != nullptr) std::fprintf(stderr, "there is no harness %s\n", name);
    std::fflush(stdout);
    std::_Exit(name != nullptr ? 1 : 0);
  }();
  return harness;
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  const auto& harness = chosen();
  if (const char* const folder = std::getenv("TINYMOE_FUZZ_SEEDS")) {
    int number = 0;
    harness.seeds([&](std::string_view seed) {
      std::ofstream(std::string(folder) + "/made" + std::to_string(number++), std::ios::binary) << seed;
    });
    std::exit(0);
  }
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  tinymoe_fuzz::run_checked(chosen(), {reinterpret_cast<const char*>(data), size});
  return 0;
}
