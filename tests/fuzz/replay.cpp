// The inputs of the fuzzers that are kept, and those that the harnesses make themselves, as tests: what was once found
// stays mended, whatever compiler there is. corpus/ has a folder for each harness.

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "fuzz/harness.hpp"
#include "support/catch.hpp"

namespace tinymoe_fuzz {

namespace {

/// What is wrong with an input; empty if nothing is.
std::string fault_of(const Harness& harness, std::string_view input) {
  try {
    run_checked(harness, input);
    return {};
  } catch (const std::exception& error) {
    return std::string("threw: ") + error.what();
  } catch (...) {
    return "threw what is no exception of the standard library";
  }
}

void check(const Harness& harness, const std::string& name, std::string_view input) {
  const std::string fault = fault_of(harness, input);
  INFO(harness.name << ", " << name);
  CHECK(fault == "");
}

void replay(std::span<const Harness> harnesses) {
  for (const Harness& harness : harnesses) {
    check(harness, "no bytes", "");
    int seeds = 0;
    harness.seeds([&](std::string_view seed) {
      const std::string name = "seed " + std::to_string(seeds++);
      CHECK(seed.size() <= harness.longest);
      check(harness, name, seed);
      // Cut and changed, as a fuzzer would, in a few places.
      for (int part = 1; part < 4; ++part) {
        check(harness, name + " cut", seed.substr(0, seed.size() * static_cast<std::size_t>(part) / 4));
        if (seed.empty()) continue;
        std::string changed(seed);
        char& byte = changed[(changed.size() - 1) * static_cast<std::size_t>(part) / 3];
        byte = static_cast<char>(byte ^ (1 << part));
        check(harness, name + " changed", changed);
      }
    });
    CHECK(seeds > 0);
    const auto folder = std::filesystem::path(TINYMOE_SOURCE_DIR) / "tests/fuzz/corpus" / harness.name;
    if (!std::filesystem::exists(folder)) continue;
    std::vector<std::filesystem::path> files;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) files.push_back(entry.path());
    std::sort(files.begin(), files.end());
    for (const auto& file : files) check(harness, file.filename().string(), read_file(file));
  }
}

}  // namespace

TEST_CASE("JSON that fuzzers made is read or refused", "[fuzz]") { replay(json_harnesses()); }
TEST_CASE("bytes that fuzzers made are UTF-8 or not", "[fuzz]") { replay(utf8_harnesses()); }
TEST_CASE("files that fuzzers made are read or refused", "[fuzz]") { replay(files_harnesses()); }
TEST_CASE("tokenizers that fuzzers made are read or refused", "[fuzz]") { replay(text_harnesses()); }
TEST_CASE("stories and token files that fuzzers made are read or refused", "[fuzz]") { replay(stories_harnesses()); }
TEST_CASE("checkpoints that fuzzers made are loaded or refused", "[fuzz]") { replay(checkpoint_harnesses()); }
TEST_CASE("logs that fuzzers made are read or refused", "[fuzz]") { replay(logs_harnesses()); }
TEST_CASE("numbers of options that fuzzers made are read or refused", "[fuzz]") { replay(options_harnesses()); }
TEST_CASE("samplers, routers and sorts do with a fuzzer's numbers what plain ones do", "[fuzz]") {
  replay(numbers_harnesses());
}
TEST_CASE("each folder of inputs belongs to a harness", "[fuzz]") {
  std::vector<Harness> harnesses;
  for (const auto table : {json_harnesses(), utf8_harnesses(), files_harnesses(), text_harnesses(), stories_harnesses(),
                           checkpoint_harnesses(), logs_harnesses(), options_harnesses(), numbers_harnesses()}) {
    harnesses.insert(harnesses.end(), table.begin(), table.end());
  }
  for (const auto& entry :
       std::filesystem::directory_iterator(std::filesystem::path(TINYMOE_SOURCE_DIR) / "tests/fuzz/corpus")) {
    INFO(entry.path());
    CHECK(std::any_of(harnesses.begin(), harnesses.end(),
                      [&](const Harness& harness) { return entry.path().filename() == harness.name; }));
  }
}

}  // namespace tinymoe_fuzz
