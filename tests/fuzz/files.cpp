// Harnesses of the file formats: safetensors and its shards, GGUF, .npy.

#include <cmath>

#include "fuzz/harness.hpp"
#include "tinymoe/files/gguf.hpp"
#include "tinymoe/files/gguf_writer.hpp"
#include "tinymoe/files/json.hpp"
#include "tinymoe/files/npy.hpp"
#include "tinymoe/files/safetensors.hpp"
#include "tinymoe/files/safetensors_shards.hpp"

namespace tinymoe_fuzz {

namespace files {

// safetensors

/// Reads each tensor of a file, or of shards, in each way that there is.
template <class File>
void read_tensors(const File& file) {
  for (const std::string& tensor : file.names()) {
    const auto& info = file.info(tensor);
    expect(file.contains(tensor), "a name is not there");
    std::size_t numbers = 1;
    for (const Index extent : info.shape) numbers *= static_cast<std::size_t>(extent);
    expect(numbers * stored_type_bytes(info.type) == info.bytes.size(), "a tensor has other bytes than its shape");
    if (info.type == StoredType::uint8) expect(file.bytes(tensor, info.shape).size() == numbers, "other bytes");
    std::vector<float> values(numbers);
    accepts([&] {
      file.read(tensor, info.shape, std::span<float>(values));
      for (const float value : values) expect(std::isfinite(value), "a weight that is not finite is read");
    });
  }
}

void safetensors(std::string_view input) {
  accepts([&] {
    const Safetensors file(write_scratch("model.safetensors", input));
    read_tensors(file);
    std::size_t bytes = 0;
    for (const auto& name : file.names()) bytes += file.info(name).bytes.size();
    expect(bytes <= input.size(), "tensors overlap");
  });
}

std::string safetensors_of(const std::vector<StoredTensor>& tensors, const Metadata& metadata = {}) {
  const auto path = scratch() / "written.safetensors";
  write_file_atomically(path, [&](FileWriter& file) {
    SafetensorsWriter writer(file, tensors, metadata);
    for (const StoredTensor& tensor : tensors) {
      const std::vector<std::byte> bytes(tinymoe::detail::tensor_bytes(tensor.type, tensor.shape).value(),
                                         std::byte{1});
      writer.append_bytes(tensor.name, bytes);
    }
    writer.finish();
  });
  return read_file(path);
}

void safetensors_seeds(const TakeSeed& take) {
  take(safetensors_of({{"a.weight", StoredType::float32, {2, 3}}, {"b", StoredType::bfloat16, {4}}},
                      {{"format", "pt"}}));
  take(safetensors_of(
      {{"x", StoredType::float16, {}}, {"none", StoredType::float64, {0, 3}}, {"y", StoredType::uint8, {5}}}));
  take(safetensors_of({}));
}

constexpr const char* shard_files[] = {"sharded.safetensors.index.json", "one.safetensors", "two.safetensors"};

std::vector<std::string> good_shards() {
  return {
      "{\"metadata\":{\"total_size\":28},\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"two.safetensors\","
      "\"c\":\"two.safetensors\"}}",
      safetensors_of({{"a", StoredType::float32, {3}}}),
      safetensors_of({{"b", StoredType::float32, {2, 2}}, {"c", StoredType::float16, {1}}})};
}

void safetensors_shards(std::string_view input) {
  static const std::vector<std::string> good = good_shards();
  Bytes bytes(input);
  const std::size_t changed = bytes.below(std::size(shard_files));
  const std::string_view content = bytes.rest();
  for (std::size_t i = 0; i < std::size(shard_files); ++i)
    write_scratch(shard_files[i], i == changed ? content : good[i]);
  accepts([] { read_tensors(SafetensorsShards(scratch() / "sharded.safetensors")); });
}

void safetensors_shards_seeds(const TakeSeed& take) {
  const std::vector<std::string> good = good_shards();
  for (std::size_t i = 0; i < good.size(); ++i) take(numbered(i, good[i]));
}

/// What is written is read back, to the bit.
void safetensors_round_trip(std::string_view input) {
  Bytes bytes(input);
  constexpr StoredType types[] = {StoredType::float32, StoredType::float64, StoredType::float16, StoredType::bfloat16,
                                  StoredType::uint8};
  std::vector<StoredTensor> tensors;
  std::vector<std::string> contents;
  Metadata metadata;
  if (bytes.below(2) == 1) metadata[std::string(bytes.text(3))] = bytes.text(bytes.below(9));
  for (std::size_t count = bytes.below(6); count > 0; --count) {
    StoredTensor tensor{std::string(bytes.text(bytes.below(12))), types[bytes.below(std::size(types))], {}};
    for (std::size_t d = bytes.below(4); d > 0; --d) tensor.shape.push_back(static_cast<Index>(bytes.below(6)));
    std::string content(tinymoe::detail::tensor_bytes(tensor.type, tensor.shape).value(), '\0');
    const std::string_view given = bytes.text(content.size());
    std::copy(given.begin(), given.end(), content.begin());
    tensors.push_back(tensor), contents.push_back(content);
  }
  const auto path = scratch() / "round_trip.safetensors";
  const std::size_t piece = 1 + bytes.below(7);
  const bool written = accepts([&] {
    write_file_atomically(path, [&](FileWriter& file) {
      SafetensorsWriter writer(file, tensors, metadata);
      for (std::size_t i = 0; i < tensors.size(); ++i) {
        for (std::size_t at = 0; at < contents[i].size(); at += piece) {
          writer.append_bytes(tensors[i].name,
                              std::as_bytes(std::span(std::string_view(contents[i]).substr(at, piece))));
        }
      }
      writer.finish();
    });
  });
  if (!written) return;  // a name twice, or one that is no UTF-8
  const Safetensors file(path);
  expect(file.names().size() == tensors.size() && file.metadata() == metadata, "other names or metadata are read");
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const auto& info = file.info(tensors[i].name);
    const std::string_view found(reinterpret_cast<const char*>(info.bytes.data()), info.bytes.size());
    expect(info.type == tensors[i].type && info.shape == tensors[i].shape && found == contents[i],
           "another tensor is read than was written");
  }
}

void safetensors_round_trip_seeds(const TakeSeed& take) {
  take(
      std::string("\x01keyv\x03"
                  "abc\x02\x02"
                  "ab\x00\x02\x02\x02"
                  "aabbccddeeffgghh\x03"
                  "a.b\x04\x01\x05"
                  "12345\x02",
                  46));
  take("");
}

// GGUF

void read_keys(const Gguf& file) {
  for (const std::string_view key : file.keys()) {
    const Json value = file.value(key);
    if (!value.is_null()) value.dump();
    accepts([&] { file.strings(key); });
    accepts([&] { file.numbers(key); });
  }
}

void gguf(std::string_view input) {
  accepts([&] {
    const Gguf file(write_scratch("model.gguf", input));
    read_keys(file);
    for (const std::string_view name : file.names()) {
      const auto* tensor = file.tensor(name);
      expect(tensor != nullptr, "a tensor is not there");
      std::uint64_t sum = 0;
      for (const std::byte byte : tensor->bytes) sum += std::to_integer<std::uint64_t>(byte);
      volatile std::uint64_t kept = sum;  // all of it was read
      static_cast<void>(kept);
    }
  });
}

void gguf_seeds(const TakeSeed& take) {
  GgufMetadata metadata;
  metadata.add("general.architecture", "llama");
  metadata.add("general.alignment", std::uint32_t{32});
  metadata.add("a.float", 0.5f);
  metadata.add("a.flag", true);
  const auto path = scratch() / "written.gguf";
  write_file_atomically(path, [&](FileWriter& file) {
    std::vector<GgufTensor> tensors;
    tensors.push_back({"token_embd.weight", GgufType::float32, {4, 2}});
    GgufWriter writer(file, metadata, std::move(tensors));
    const std::vector<float> values(8, 1.0f);
    writer.append("token_embd.weight", std::as_bytes(std::span(values)));
    writer.finish();
  });
  take(read_file(path));
  // By hand: an array of strings, one of numbers, and version 2.
  const auto text = [](std::string_view t) { return bytes_of(std::uint64_t{t.size()}).append(t); };
  std::string bytes = "GGUF" + bytes_of(std::uint32_t{2}) + bytes_of(std::uint64_t{0}) + bytes_of(std::uint64_t{2});
  bytes += text("words") + bytes_of(std::uint32_t{9}) + bytes_of(std::uint32_t{8}) + bytes_of(std::uint64_t{2}) +
           text("a") + text("");
  bytes += text("numbers") + bytes_of(std::uint32_t{9}) + bytes_of(std::uint32_t{5}) + bytes_of(std::uint64_t{2}) +
           bytes_of(std::int32_t{-1}) + bytes_of(std::int32_t{7});
  take(bytes);
}

// .npy

void npy(std::string_view input) {
  const auto path = write_scratch("array.npy", input);
  std::size_t readers = 0;
  const auto read = [&]<class T>(T) {
    accepts([&] {
      const auto array = load_npy<T>(path);
      ++readers;
      expect(array.size() * sizeof(T) <= input.size(), "an array is larger than its file");
      save_npy(scratch() / "again.npy", array);
      const auto again = load_npy<T>(scratch() / "again.npy");
      const auto bytes = [](const auto& a) {
        return std::string_view(reinterpret_cast<const char*>(a.data()), a.size() * sizeof(T));
      };
      expect(array.shape() == again.shape() && bytes(array) == bytes(again), "another array is written");
    });
  };
  read(float{}), read(std::int64_t{}), read(bool{});
  expect(readers <= 1, "an array has two types");
}

void npy_seeds(const TakeSeed& take) {
  const auto path = scratch() / "written.npy";
  const auto seed = [&](const auto& array) { save_npy(path, array), take(read_file(path)); };
  seed(xt::xarray<float>({{1.0f, 2.0f, 3.0f}, {4.0f, 5.0f, 6.0f}}));
  seed(xt::xarray<std::int64_t>({1, -2}));
  seed(xt::xarray<bool>({true, false, true}));
  std::string header = "{'descr': '<f4', 'fortran_order': True, 'shape': (2, 2), }";
  take("\x93NUMPY" + std::string("\x02\x00", 2) + bytes_of(static_cast<std::uint32_t>(header.size())) + header +
       std::string(16, '\1'));
}

constexpr Harness harnesses[] = {
    {"safetensors", safetensors, safetensors_seeds, 1 << 11, json_memory_factor, "safetensors"},
    {"safetensors_shards", safetensors_shards, safetensors_shards_seeds, 1 << 11, json_memory_factor, "safetensors"},
    {"safetensors_round_trip", safetensors_round_trip, safetensors_round_trip_seeds, 1 << 10, 64},
    {"gguf", gguf, gguf_seeds, 1 << 11, 16, "gguf"},
    {"npy", npy, npy_seeds, 1 << 9, 16, "npy"},
};

}  // namespace files

std::span<const Harness> files_harnesses() { return files::harnesses; }

}  // namespace tinymoe_fuzz
