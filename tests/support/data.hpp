#pragma once
// The folder of optional development data (real stories, GPT-2's tokenizer). Tests that need it are skipped without it.

#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <system_error>

#include "support/catch.hpp"

/// The path of a file of the development data. Skips the test if there is none.
inline std::filesystem::path shared_data(const std::string& name) {
  const char* folder = std::getenv("TINYMOE_TEST_DATA");
  const std::filesystem::path root = folder != nullptr ? folder : TINYMOE_SOURCE_DIR "/../shared/data";
  const auto path = root / name;
  if (!std::filesystem::exists(path)) skip(("development data is absent: " + name).c_str());
  return path;
}

/// A fresh folder that is removed with the object.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "tinymoe-test-XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("no temporary folder");
    path_ = pattern;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};
