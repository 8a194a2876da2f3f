// What tokenizer_files.py judges:
//
//     stories                      writes the embedded stories
//     encode {FILE STRINGS OUT}…   for each string of STRINGS: its tokens without and with special ones, and both
//     decoded
//
// STRINGS and OUT have the bytes of each thing after their number, u32.

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "tinymoe/files/json_parser.hpp"
#include "tinymoe/files/mapped_file.hpp"
#include "tinymoe/text/pipeline/tokenizer.hpp"
#include "tinymoe/text/stories/stories.hpp"

namespace {

using namespace tinymoe;

void encode(const char* file, const char* strings, const char* to) {
  const MappedFile mapped{std::filesystem::path(file)};
  const PipelineTokenizer tokenizer(parse_json(mapped.text(), file), std::string(mapped.text()), file);
  std::ifstream in(strings, std::ios::binary);
  const std::string all{std::istreambuf_iterator<char>(in), {}};
  std::ofstream out(to, std::ios::binary);
  const auto put = [&](const auto& values) {
    const auto bytes = static_cast<std::uint32_t>(values.size() * sizeof(values[0]));
    out.write(reinterpret_cast<const char*>(&bytes), sizeof bytes);
    out.write(reinterpret_cast<const char*>(values.data()), bytes);
  };
  const auto encoder = tokenizer.encoder();
  for (std::size_t at = 0; at < all.size();) {
    std::uint32_t size = 0;
    std::memcpy(&size, all.data() + at, sizeof size);
    const auto text = std::string_view(all).substr(at + sizeof size, size);
    at += sizeof size + size;
    std::vector<Token> plain;
    encoder->encode(text, plain);
    const auto full = tokenizer.encode(text, {.special_in_text = true, .post_processor = true});
    put(plain);
    put(full);
    put(tokenizer.decode(plain));
    put(tokenizer.decode(full));
  }
}

}  // namespace

int main(int count, char** arguments) {
  try {
    if (count == 2 && std::string_view(arguments[1]) == "stories") {
      tinymoe::EmbeddedStories{.count = 2000}.for_each_story([](std::string_view story) {
        std::printf("%.*s<|endoftext|>", static_cast<int>(story.size()), story.data());
      });
    }
    for (int i = 2; i + 2 < count; i += 3) encode(arguments[i], arguments[i + 1], arguments[i + 2]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
