// Tells the C++ type of a model of the hub's, with its counts, or the one thing that tinymoe does not compute.
//
//   describe Qwen3-30B-A3B
//   describe Mixtral-8x7B-v0.1 > mixtral.hpp

#include <CLI/CLI.hpp>
#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <string>
#include <tinymoe/checkpoint/hub_config.hpp>
#include <tinymoe/checkpoint/type_text.hpp>
#include <tinymoe/core/error.hpp>
#include <tinymoe/files/atomic_folder.hpp>
#include <tinymoe/files/json.hpp>
#include <tinymoe/files/paths.hpp>

#include "programs/main.hpp"

int main(int count, char** values) {
  std::filesystem::path folder;
  std::string name = "HubModel";
  CLI::App app("Tells the C++ type of a model of the Hugging Face hub's, from its config.json.");
  app.add_option("folder", folder, "folder of the model, or its config.json")->required();
  app.add_option("--name", name, "what the type is called")->capture_default_str();
  return programs::run(app, count, values, [&] {
    using namespace tinymoe::detail;
    const bool is_folder = look_at(folder) == Found::folder;
    const auto path = is_folder ? tinymoe::resolve_folder(folder) / "config.json" : folder;
    if (!is_there(path)) {
      tinymoe::fail<tinymoe::FileError>(path.string(),
                                        ": there is no such file; give a folder of the hub, or its config.json");
    }
    const tinymoe::Json file = tinymoe::read_json(path, std::size_t{1} << 20);
    const std::string text = type_header(shape_of_file(file, path.string()), path.string(), name);
    std::fputs(text.c_str(), stdout);
  });
}
