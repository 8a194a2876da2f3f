// Checkpoints of Int8 and Int4: saved and read to the bit, refused where they do not belong or are damaged.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "files/bytes.hpp"
#include "support/data.hpp"
#include "tinymoe/backend/reference.hpp"
#include "tinymoe/checkpoint/checkpoint.hpp"
#include "tinymoe/core/block_weights.hpp"
#include "tinymoe/sample/generate.hpp"
#include "train/tiny.hpp"

namespace tinymoe_test::integer_weights {

namespace {

using Plain = Reference<float>;
template <class W>
using Of = Model<Tiny, Plain, W>;

/// Knows the most memory that was asked for at once.
struct Counting : Plain {
  std::size_t most = 0;
  Memory allocate(std::size_t bytes) {
    most = std::max(most, bytes);
    return Plain::allocate(bytes);
  }
};

/// What a model of the tokens' own choice writes: it differs where a weight does.
template <class ModelType>
std::string story(const ModelType& model) {
  return generate(model, tiny_tokenizer(), "the cat", {.temperature = 0, .tokens = 12});
}

/// The weights as they lie in memory.
template <class W>
std::string stored_in(const Of<W>& model) {
  std::string text;
  for (const auto& place : detail::stored_places(model.weights()).second) {
    text.append(reinterpret_cast<const char*>(place.data), place.bytes);
  }
  return text;
}

/// A folder's file with a piece replaced by another of the same length.
void patch(const std::filesystem::path& file, const std::string& piece, const std::string& other) {
  std::string content = read_bytes(file);
  const auto at = content.find(piece);
  REQUIRE(at != std::string::npos);
  write_bytes(file, content.replace(at, piece.size(), other));
}

}  // namespace

TEMPLATE_TEST_CASE("integer weights are made from a checkpoint, saved, and read to the bit", "[weights]", Int8, Int4) {
  const TemporaryFolder folder;
  Plain backend;
  Of<float> trained(backend, Seed{9});
  trained.settings().set(setting::rope_theta = 5000);
  save_model(folder / "model", trained, tiny_tokenizer());
  Of<TestType> made(backend, Seed{1}), read(backend, Seed{2});
  load_model(folder / "model", made);
  save_model(folder / "small", made, tiny_tokenizer());
  load_model(folder / "small", read);
  CHECK(stored_in(read) == stored_in(made));
  CHECK(read.settings()[setting::rope_theta] == 5000);
  CHECK(story(read) == story(made));
  CHECK(load_tokenizer<Tiny>(folder / "small") == tiny_tokenizer());

  const Safetensors file(folder / "small" / "model.safetensors");
  const bool eight = std::is_same_v<TestType, Int8>;
  const auto& query = file.info("model.layers.0.self_attn.q_proj.weight");
  CHECK(query.type == StoredType::uint8);
  CHECK(query.shape == std::vector<Index>{16, eight ? 34 : 18});  // rows of 16 are one group, filled up
  CHECK(file.info("lm_head.weight").shape == std::vector<Index>{260, eight ? 34 : 18});
  CHECK(file.info("model.layers.0.block_sparse_moe.gate.weight").type == StoredType::float32);
  CHECK(file.info("model.norm.weight").type == StoredType::float32);
}

TEST_CASE("a checkpoint of integer weights is refused by every other model", "[weights]") {
  const TemporaryFolder folder;
  Plain backend;
  save_model(folder / "small", Of<Int8>(backend, Seed{3}), tiny_tokenizer());
  const std::string said = (folder / "small" / "config.json").string() +
                           ": its weights are int8, which are for inference alone; this model's are ";
  Of<float> plain(backend, Seed{1});
  const std::string before = story(plain);
  CHECK(message_of<MismatchError>([&] { load_model(folder / "small", plain); }) ==
        said + "floating-point numbers: take the checkpoint that they were made of");
  CHECK(story(plain) == before);
  Of<Int4> four(backend, Seed{1});
  CHECK(message_of<MismatchError>([&] { load_model(folder / "small", four); }) ==
        said + "int4: take the checkpoint that they were made of");

  const auto config = folder / "small" / "config.json";
  patch(config, "\"int8\"", "\"int9\"");
  Of<Int8> eight(backend, Seed{1});
  check_message<MismatchError>([&] { load_model(folder / "small", eight); }, "its weights are int9");
  patch(config, "\"int9\"", "   999");
  CHECK_THROWS_AS(load_model(folder / "small", eight), FileError);
  patch(config, "\"weights\"", "\"weighty\"");
  CHECK_THROWS_AS(load_model(folder / "small", eight), FileError);
  patch(config, "\"tinymoe\",", "\"awq\",    ");  // another program's
  check_message<MismatchError>([&] { load_model(folder / "small", eight); }, "quantization_config");
}

TEST_CASE("a damaged checkpoint of integer weights leaves the model unchanged", "[weights]") {
  const TemporaryFolder folder;
  Plain backend;
  const auto file = folder / "small" / "model.safetensors", config = folder / "small" / "config.json";
  const auto save = [&] { save_model(folder / "small", Of<Int4>(backend, Seed{3}), tiny_tokenizer()); };
  Of<Int4> model(backend, Seed{4});
  const std::string before = stored_in(model);
  const auto refused = [&](const std::string& sentence) {
    check_message<Error>([&] { load_model(folder / "small", model); }, sentence);
    CHECK(stored_in(model) == before);
  };

  save();
  std::string content = read_bytes(file);
  const auto name = content.find("model.layers.1.self_attn.q_proj.weight");
  REQUIRE(name != std::string::npos);
  const auto offset = std::stoul(content.substr(content.find("data_offsets\":[", name) + 15));
  std::uint64_t header = 0;
  std::memcpy(&header, content.data(), sizeof header);
  content[sizeof header + header + offset + 18] = '\0', content[sizeof header + header + offset + 19] = '\x7c';
  write_bytes(file, content);
  refused("tensor model.layers.1.self_attn.q_proj.weight has a scale that is not finite");

  save();
  patch(file, "\"dtype\":\"U8\"", "\"dtype\":\"I8\"");
  refused("expected the type U8, found I8");
  save();
  patch(file, "\"shape\":[16,18]", "\"shape\":[18,16]");
  refused("expected the shape [16, 18], found [18, 16]");
  save();
  write_bytes(file, read_bytes(file).substr(0, 2000));
  refused("model.safetensors");
  save();
  patch(file, "lm_head.weight", "lm_hood.weight");
  refused("tensor lm_head.weight is missing");
}

TEST_CASE("integer weights are drawn and loaded one tensor after the other", "[weights]") {
  const TemporaryFolder folder;
  Plain plain;
  const Of<float> trained(plain, Seed{9});
  save_model(folder / "model", trained, tiny_tokenizer());
  Counting backend;
  Model<Tiny, Counting, Int4> model(backend, Seed{1});
  load_model(folder / "model", model);
  CHECK(backend.most < Of<float>::size * sizeof(float) / 2);
}

TEST_CASE("weights that the format cannot hold leave a model unchanged, and are named", "[weights]") {
  Plain backend;
  Of<Int4> model(backend, Seed{4});
  const std::string before = stored_in(model);
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), 1e9f}) {
    const std::string said = message_of<OptionError>([&] {
      model.replace([&](View<float> values, Index first) {
        const auto places = segments<Of<Int4>::Weights>();
        const auto& head = places.back();  // (260, 16)
        if (first == head.offset) values.data[3 * 16 + 5] = bad;
      });
    });
    CHECK(said.starts_with("lm_head.weight: the weight in row 3, column 5 is "));
    CHECK(stored_in(model) == before);
  }
}

}  // namespace tinymoe_test::integer_weights
