// What safetensors_files.py judges:
//
//     FILES OUT FOLDER
//
// For each file of FILES two things go to OUT (things.hpp): what tinymoe reads in it, and the same as tinymoe writes
// it. What is read is a line for each tensor, "t NAME DTYPE EXTENT,… BYTES", and each piece of metadata, "m KEY TEXT",
// where all but the type and the extents is in hexadecimal digits; or "e" and the sentence of the error, and nothing
// written.

#include <cstddef>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "things.hpp"
#include "tinymoe/core/error.hpp"
#include "tinymoe/files/atomic.hpp"
#include "tinymoe/files/mapped_file.hpp"
#include "tinymoe/files/safetensors.hpp"
#include "tinymoe/files/safetensors_writer.hpp"

namespace {

using namespace tinymoe;

std::string hexadecimal(std::string_view bytes) {
  std::string digits;
  for (const char byte : bytes) {
    char two[3];
    std::snprintf(two, sizeof two, "%02x", static_cast<unsigned char>(byte));
    digits += two;
  }
  return digits;
}

std::string listing(const Safetensors& file) {
  std::string text;
  for (const auto& name : file.names()) {
    const auto& tensor = file.info(name);
    text += "t " + hexadecimal(name) + " " + std::string(stored_type_name(tensor.type)) + " ";
    for (std::size_t i = 0; i < tensor.shape.size(); ++i) text += (i > 0 ? "," : "") + std::to_string(tensor.shape[i]);
    text += " " + hexadecimal({reinterpret_cast<const char*>(tensor.bytes.data()), tensor.bytes.size()}) + "\n";
  }
  for (const auto& [key, value] : file.metadata()) text += "m " + hexadecimal(key) + " " + hexadecimal(value) + "\n";
  return text;
}

void write_again(const Safetensors& file, const std::filesystem::path& to) {
  write_file_atomically(to, [&](FileWriter& out) {
    std::vector<StoredTensor> tensors;
    for (const auto& name : file.names()) tensors.push_back({name, file.info(name).type, file.info(name).shape});
    SafetensorsWriter writer(out, tensors, file.metadata());
    for (const auto& name : file.names()) writer.append_bytes(name, file.info(name).bytes);
    writer.finish();
  });
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 4) return 2;
  std::size_t number = 0;
  try {
    const std::filesystem::path folder(arguments[3]);
    tinymoe_interop::for_each_thing(arguments[1], arguments[2], [&](std::string_view bytes, const auto& put) {
      ++number;
      std::ofstream(folder / "read", std::ios::binary) << bytes;
      std::optional<Safetensors> file;
      try {
        file.emplace(folder / "read");
      } catch (const Error& error) {
        put("e" + std::string(error.what()));
        return put(std::string_view());
      }
      write_again(*file, folder / "written");
      put(listing(*file));
      put(MappedFile(folder / "written").text());
    });
  } catch (const std::exception& error) {
    std::fprintf(stderr, "file %zu of these: %s\n", number, error.what());
    return 1;
  }
}
