#include "tinymoe/cpu/instructions.hpp"

#include <cstdlib>
#include <fstream>
#include <initializer_list>
#include <optional>
#include <string>

#include "support/catch.hpp"

namespace tinymoe_test::instructions {

using namespace tinymoe;
using detail::cpu::best;
using detail::cpu::chosen;
using detail::cpu::compiled_for;
using detail::cpu::every_set;
using detail::cpu::name_of;
using detail::cpu::permitted;
using detail::cpu::usable;
using detail::cpu::word_of;

namespace {

/// Sets TINYMOE_CPU while it lives.
class Variable {
 public:
  explicit Variable(const char* value) {
    if (const char* before = std::getenv("TINYMOE_CPU"); before != nullptr) before_ = before;
    set(value);
  }
  ~Variable() { set(before_ ? before_->c_str() : nullptr); }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;

 private:
  static void set(const char* value) {
    if (value == nullptr) {
      unsetenv("TINYMOE_CPU");
    } else {
      setenv("TINYMOE_CPU", value, 1);
    }
  }
  std::optional<std::string> before_;
};

/// Whether Linux names every one of these features of the processor.
bool system_has(std::initializer_list<std::string> features) {
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line) && !line.starts_with("flags")) {
  }
  line += ' ';
  for (const std::string& feature : features) {
    if (line.find(' ' + feature + ' ') == std::string::npos) return false;
  }
  return true;
}

}  // namespace

TEST_CASE("the sets found are those that the system names", "[cpu]") {
#if defined(TINYMOE_TARGET_AVX512) && defined(__linux__)
  const bool avx2 = system_has({"avx2", "fma", "f16c"});
  const bool avx512 = avx2 && system_has({"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd"});
  CHECK(usable(CpuInstructions::avx2) == avx2);
  CHECK(usable(CpuInstructions::avx512) == avx512);
  CHECK(usable(CpuInstructions::vnni) == (avx512 && system_has({"avx512_vnni"})));
  CHECK((best() != CpuInstructions::amx || system_has({"amx_tile", "amx_bf16", "amx_int8"})));
#endif
  CHECK(usable(CpuInstructions::baseline));
  CHECK(compiled_for <= best());
}

TEST_CASE("without a wish the best set is chosen; TINYMOE_CPU and an option ask for another", "[cpu]") {
  {
    const Variable unset(nullptr);
    CHECK(chosen({}) == best());
  }
  {
    const Variable empty("");
    CHECK(chosen({}) == best());
  }
  for (const CpuInstructions set : every_set) {
    const Variable variable(word_of(set));
    if (usable(set)) {
      CHECK(chosen({}) == set);
      CHECK(chosen(set) == set);
    } else {
      CHECK_THROWS_WITH(chosen({}), std::string("TINYMOE_CPU asks for ") + name_of(set) +
                                        ", which this processor or system lacks; ask for " + word_of(best()) +
                                        " or less");
      CHECK_THROWS_WITH(chosen(set), std::string("CpuOptions::instructions asks for ") + name_of(set) +
                                         ", which this processor or system lacks; ask for " + word_of(best()) +
                                         " or less");
      CHECK_THROWS_AS(chosen(set), OptionError);
    }
    CHECK(chosen(CpuInstructions::baseline) == CpuInstructions::baseline);  // an option comes before the variable
  }
}

TEST_CASE("where the system refuses AMX the next lesser set is used, and only for AMX is it asked", "[cpu]") {
  CHECK(permitted(CpuInstructions::amx, [] { return false; }) == CpuInstructions::vnni);
  CHECK(permitted(CpuInstructions::amx, [] { return true; }) == CpuInstructions::amx);
  for (const CpuInstructions set : every_set) {
    if (set == CpuInstructions::amx) continue;
    bool asked = false;
    CHECK(permitted(set, [&] { return asked = true; }) == set);
    CHECK_FALSE(asked);
  }
  CHECK(best(false) >= best());
}

TEST_CASE("another word in TINYMOE_CPU is refused with the words that there are", "[cpu]") {
  for (const std::string word : {"avx3", "AVX2", "avx2 ", "native", "0"}) {
    const Variable variable(word.c_str());
    CHECK_THROWS_WITH(chosen({}), "TINYMOE_CPU must be baseline, avx2, avx512, vnni or amx, found \"" + word + "\"");
    CHECK_THROWS_AS(chosen({}), OptionError);
    CHECK(chosen(CpuInstructions::baseline) == CpuInstructions::baseline);
  }
}

}  // namespace tinymoe_test::instructions
