// Harnesses of the file formats: JSON, safetensors and its shards, GGUF, .npy, and UTF-8.

#include <array>
#include <cmath>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <tuple>

#include "fuzz/harness.hpp"
#include "tinymoe/core/utf8.hpp"
#include "tinymoe/files/gguf.hpp"
#include "tinymoe/files/gguf_writer.hpp"
#include "tinymoe/files/json.hpp"
#include "tinymoe/files/npy.hpp"
#include "tinymoe/files/safetensors.hpp"
#include "tinymoe/files/safetensors_shards.hpp"

namespace tinymoe_fuzz {

namespace files {

// JSON, against nlohmann's library.

using Oracle = nlohmann::ordered_json;

bool same(const Json& ours, const Oracle& theirs) {
  if (theirs.is_object()) {
    if (!ours.is_object() || ours.size() != theirs.size()) return false;
    auto member = ours.members().begin();
    for (const auto& [key, value] : theirs.items()) {
      if (member->key != key || !same(member->value, value)) return false;
      ++member;
    }
    return true;
  }
  if (theirs.is_array()) {
    if (!ours.is_array() || ours.size() != theirs.size()) return false;
    for (std::size_t i = 0; i < theirs.size(); ++i) {
      if (!same(ours.items()[i], theirs[i])) return false;
    }
    return true;
  }
  if (theirs.is_string()) return ours.is_string() && ours.string() == theirs.get_ref<const std::string&>();
  if (theirs.is_boolean()) return ours.is_boolean() && ours.boolean() == theirs.get<bool>();
  if (theirs.is_number_unsigned()) return ours.whole<std::uint64_t>() == theirs.get<std::uint64_t>();
  if (theirs.is_number_integer()) return ours.whole<std::int64_t>() == theirs.get<std::int64_t>();
  if (theirs.is_number()) return ours.is_number() && ours.number() == theirs.get<double>();
  return ours.is_null() && theirs.is_null();
}

void json(std::string_view input) {
  Json value;
  std::string refusal;
  const bool read = accepts([&] {
    try {
      value = parse_json(input, "text");
    } catch (const FileError& error) {
      refusal = error.what();
      throw;
    }
  });
  // nlohmann takes keys that are there twice, nests without limit, and ends a text at a zero.
  const bool stricter = input.find('\0') != std::string_view::npos || refusal.find("twice") != std::string::npos ||
                        refusal.find("nested deeper") != std::string::npos;
  if (!stricter) {
    const Oracle theirs = Oracle::parse(input, nullptr, false);
    expect(theirs.is_discarded() == !read, "nlohmann's library reads what tinymoe does not, or refuses what it reads");
    expect(!read || same(value, theirs), "nlohmann's library reads another value");
  }
  if (!read) return;
  for (const int indent : {-1, 1}) {
    expect(parse_json(value.dump(indent), "dump") == value, "what is written is another value");
  }
}

void json_seeds(const TakeSeed& take) {
  for (const char* text : {"{\"a\":[1,-2,3.5e-7,null,true,false],\"b\":{\"c\":\"\\u00e9\\ud83d\\ude00\\n\"}}", "[]",
                           "-0.0", "1e400", "1e-400", "18446744073709551616", "\"\xc3\xa9\"", "[[[[]]]]"}) {
    take(text);
  }
}

// UTF-8, against a decoder that goes by the table of well-formed sequences (Unicode, table 3-7).

std::size_t well_formed(std::string_view text) {
  const auto byte = [&](std::size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  const auto in = [&](std::size_t i, unsigned least, unsigned most) { return byte(i) >= least && byte(i) <= most; };
  const auto tail = [&](std::size_t i) { return in(i, 0x80, 0xbf); };
  if (text.empty()) return 0;
  if (in(0, 0, 0x7f)) return 1;
  if (in(0, 0xc2, 0xdf)) return tail(1) ? 2 : 0;
  if (byte(0) == 0xe0) return in(1, 0xa0, 0xbf) && tail(2) ? 3 : 0;
  if (byte(0) == 0xed) return in(1, 0x80, 0x9f) && tail(2) ? 3 : 0;
  if (in(0, 0xe1, 0xef)) return tail(1) && tail(2) ? 3 : 0;
  if (byte(0) == 0xf0) return in(1, 0x90, 0xbf) && tail(2) && tail(3) ? 4 : 0;
  if (in(0, 0xf1, 0xf3)) return tail(1) && tail(2) && tail(3) ? 4 : 0;
  if (byte(0) == 0xf4) return in(1, 0x80, 0x8f) && tail(2) && tail(3) ? 4 : 0;
  return 0;
}

void utf8(std::string_view input) {
  std::size_t first = std::string_view::npos;
  std::string replaced;
  for (std::size_t at = 0; at < input.size();) {
    const std::size_t length = well_formed(input.substr(at));
    const auto found = tinymoe::detail::decode_utf8(input, at);
    expect((found.value == tinymoe::detail::invalid_code_point) == (length == 0), "another byte is well formed");
    expect(found.length == std::max<std::size_t>(length, 1), "a character has another length");
    if (length == 0) first = std::min(first, at);
    std::string written;
    if (length > 0) tinymoe::detail::append_utf8(written, found.value);
    expect(written == input.substr(at, length), "a character is written as another");
    replaced += length > 0 ? written : "\xef\xbf\xbd";
    at += std::max<std::size_t>(length, 1);
  }
  expect(find_invalid_utf8(input) == first, "the first byte that is no UTF-8 is another");
  expect(tinymoe::detail::with_replacements(input) == replaced, "other replacements");
  const std::size_t complete = complete_characters(input);
  expect(complete <= input.size() && input.size() - complete < 4, "too much is no complete character");
  if (first == std::string_view::npos) expect(complete == input.size(), "a whole text is not complete");
}

void utf8_seeds(const TakeSeed& take) {
  for (const char* text : {"plain text of more than eight bytes", "\xc3\xa9\xe2\x96\x81\xf0\x9f\x91\x8b",
                           "\xed\xa0\x80", "\xf4\x90\x80\x80", "aaaaaaa\xe2\x82", "\xc0\x80", "\xf0\x80\x80\x80"}) {
    take(text);
  }
}

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
    {"json", json, json_seeds, 1 << 14, 2 * json_memory_factor, "json"},  // with the other library's values
    {"utf8", utf8, utf8_seeds, 1 << 10},
    {"safetensors", safetensors, safetensors_seeds, 1 << 14, json_memory_factor, "safetensors"},
    {"safetensors_shards", safetensors_shards, safetensors_shards_seeds, 1 << 13, json_memory_factor, "safetensors"},
    {"safetensors_round_trip", safetensors_round_trip, safetensors_round_trip_seeds, 1 << 10, 64},
    {"gguf", gguf, gguf_seeds, 1 << 14, 16, "gguf"},
    {"npy", npy, npy_seeds, 1 << 12, 16, "npy"},
};

}  // namespace files

std::span<const Harness> file_harnesses() { return files::harnesses; }

}  // namespace tinymoe_fuzz
