// The format GGUF: what is written is read, and a file that lies is refused in one sentence.

#include "tinymoe/files/gguf.hpp"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "files/bytes.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"
#include "tinymoe/files/atomic.hpp"
#include "tinymoe/files/gguf_writer.hpp"

namespace tinymoe_test::gguf {

using namespace tinymoe;

namespace {

/// A string as the format has it.
std::string sized(const std::string& text) { return bytes_of(std::uint64_t{text.size()}) + text; }

std::string key(const std::string& name, detail::GgufKind kind, const std::string& value) {
  return sized(name) + bytes_of(static_cast<std::uint32_t>(kind)) + value;
}

std::string tensor(const std::string& name, const std::vector<std::uint64_t>& shape, std::uint32_t type,
                   std::uint64_t offset) {
  std::string text = sized(name) + bytes_of(static_cast<std::uint32_t>(shape.size()));
  for (const std::uint64_t extent : shape) text += bytes_of(extent);
  return text + bytes_of(type) + bytes_of(offset);
}

/// A file of these parts. `data` begins at a multiple of 32.
std::string file_of(const std::vector<std::string>& keys, const std::vector<std::string>& tensors,
                    const std::string& data, std::uint32_t version = 3) {
  std::string text =
      "GGUF" + bytes_of(version) + bytes_of(std::uint64_t{tensors.size()}) + bytes_of(std::uint64_t{keys.size()});
  for (const std::string& part : keys) text += part;
  for (const std::string& part : tensors) text += part;
  text.resize((text.size() + 31) / 32 * 32, '\0');
  return text + data;
}

constexpr auto uint32 = detail::GgufKind::uint32;

}  // namespace

TEST_CASE("GGUF: metadata of all kinds and tensors of all types are read as they were written", "[gguf]") {
  const TemporaryFolder folder;
  const std::vector<std::string> words = {"", "one", "U+2581 \xe2\x96\x81"};
  const std::vector<float> scores = {0.5f, -2.0f};
  const std::vector<std::int32_t> kinds = {1, -7};
  const std::vector<float> numbers = {1, 2, 3, 4, 5, 6};
  std::vector<float> row(64);
  for (std::size_t i = 0; i < row.size(); ++i) row[i] = static_cast<float>(i) - 31.5f;
  std::vector<std::byte> eight(2 * 34), four(2 * 18), sixteen(4, std::byte{0x3f});
  WeightFormat<Int8>::encode(View<const float>(row.data(), 1, 64), eight.data());
  WeightFormat<Int4>::encode(View<const float>(row.data(), 1, 64), four.data());
  write_file_atomically(folder / "a.gguf", [&](FileWriter& file) {
    GgufMetadata metadata;
    metadata.add("u8", std::uint8_t{200});
    metadata.add("i8", std::int8_t{-100});
    metadata.add("u16", std::uint16_t{60000});
    metadata.add("i16", std::int16_t{-30000});
    metadata.add("u32", std::uint32_t{4000000000});
    metadata.add("i32", std::int32_t{-2000000000});
    metadata.add("u64", std::numeric_limits<std::uint64_t>::max());
    metadata.add("i64", std::numeric_limits<std::int64_t>::min());
    metadata.add("f32", 0.25f);
    metadata.add("f64", 1e300);
    metadata.add("yes", true);
    metadata.add("text", "caf\xc3\xa9");
    metadata.add("words", std::span<const std::string>(words));
    metadata.add("scores", std::span<const float>(scores));
    metadata.add("kinds", std::span<const std::int32_t>(kinds));
    GgufWriter writer(file, metadata,
                      {{"float", GgufType::float32, {3, 2}},
                       {"half", GgufType::bfloat16, {2}},
                       {"eight", GgufType::q8_0, {32, 2}},
                       {"four", GgufType::q4_0, {64, 1, 1, 1}}});
    writer.append("float", std::as_bytes(std::span(numbers).first(2)));
    writer.append("float", std::as_bytes(std::span(numbers).subspan(2)));
    writer.append("half", sixteen);
    writer.append("eight", eight);
    writer.append("four", four);
    writer.finish();
  });
  const Gguf file(folder / "a.gguf");
  CHECK(file.value("u8") == 200);
  CHECK(file.value("i8") == -100);
  CHECK(file.value("u16") == 60000);
  CHECK(file.value("i16") == -30000);
  CHECK(file.value("u32") == 4000000000);
  CHECK(file.value("i32") == -2000000000);
  CHECK(file.value("u64") == std::numeric_limits<std::uint64_t>::max());
  CHECK(file.value("i64") == std::numeric_limits<std::int64_t>::min());
  CHECK(file.value("f32") == 0.25);
  CHECK(file.value("f64") == 1e300);
  CHECK(file.value("yes") == true);
  CHECK(file.value("text") == "caf\xc3\xa9");
  CHECK(file.value("words").is_null());
  CHECK(file.value("absent").is_null());
  CHECK(std::vector<std::string>(words) == [&] {
    const auto found = file.strings("words");
    return std::vector<std::string>(found.begin(), found.end());
  }());
  CHECK(file.numbers("scores") == std::vector<double>{0.5, -2});
  CHECK(file.numbers("kinds") == std::vector<double>{1, -7});
  CHECK(file.keys().size() == 15);
  CHECK(file.names() == std::vector<std::string_view>{"float", "half", "eight", "four"});
  CHECK(file.tensor("float")->shape == std::vector<Index>{3, 2});
  CHECK(file.tensor("none") == nullptr);
  const auto read = [&](const char* name, std::size_t count) {
    std::vector<float> values(count);
    detail::gguf_to_floats(file.tensor(name)->type, file.tensor(name)->bytes.data(), values);
    return values;
  };
  CHECK(read("float", 6) == numbers);
  CHECK(read("half", 2) == std::vector<float>(2, float(bfloat16::from_bits(0x3f3f))));
  CHECK(read("eight", 64)[0] == Approx(-31.5).epsilon(1e-3));
  CHECK(read("eight", 64)[63] == Approx(32.5 - 0.0).epsilon(0.04));
  CHECK(read("four", 64)[0] == Approx(-31.5).epsilon(1e-3));
  check_message<FileError>([&] { file.strings("scores"); }, "a.gguf", "key scores", "an array of strings");
  check_message<FileError>([&] { file.numbers("absent"); }, "key absent", "missing");

  // A file that is cut, anywhere, is refused; one with another byte is read or refused.
  const std::string bytes = read_bytes(folder / "a.gguf");
  const auto last = bytes.size() - 28;  // zeros behind the last tensor
  for (std::size_t length = 0; length < last; ++length) {
    const auto cut = write_bytes(folder / "cut.gguf", bytes.substr(0, length));
    CHECK_THROWS_AS(Gguf(cut), FileError);
  }
  std::mt19937 random(3);
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    std::string other = bytes;
    other[at] = static_cast<char>(other[at] ^ static_cast<char>(1 + random() % 255));
    write_bytes(folder / "other.gguf", other);
    try {
      const Gguf changed(folder / "other.gguf");
      for (const auto name : changed.names()) CHECK(changed.tensor(name)->bytes.size() > 0);
      for (const auto name : changed.keys()) static_cast<void>(changed.value(name));
    } catch (const FileError& error) {
      CHECK(std::string(error.what()).find('\n') == std::string::npos);
    }
  }
}

TEST_CASE("GGUF: blocks of other programs are the numbers that the package gguf makes of them", "[gguf]") {
  struct Recorded {
    GgufType type;
    std::vector<std::size_t> scales;         // where 0.5 and -0.25 stand, as float16
    std::vector<float> first, middle, last;  // of the package's numbers
    double sum;                              // of all, weight i times 1 + i^2 mod 13
  };
  const std::vector<Recorded> formats = {
      {GgufType::q4_1, {0, 2}, {4.75f, 2.75f, 4.75f, 1.75f}, {6.75f, 4.75f}, {5.25f, 6.75f}, 947.25},
      {GgufType::q5_0, {0}, {-3, 2, 2, -3}, {6.5f, -1}, {7.5f, 0}, 333},
      {GgufType::q5_1, {0, 2}, {1.75f, 12.75f, 4.75f, 15.25f}, {9.25f, 1.25f}, {1.25f, 3.75f}, 1735.25},
      {GgufType::q2_k, {80, 82}, {0, 0, 0, 0}, {0, 0.75f}, {5.25f, 9.75f}, 12135.25},
      {GgufType::q3_k, {108}, {-62, -15.5f, -15.5f, 31}, {-6, -0.5f}, {2, 3}, 217},
      {GgufType::q4_k, {0, 2}, {328, 307, 76, 307}, {31.75f, 129.5f}, {62.75f, 67.25f}, 247821.5},
      {GgufType::q5_k, {0, 2}, {433, 307, 664, 118}, {15.75f, 465.5f}, {103.25f, 35.75f}, 493372.5},
      {GgufType::q6_k, {208}, {32, 64, -12, 22}, {0, 437}, {84, 483}, 81412}};
  for (const Recorded& format : formats) {
    INFO(gguf_type_name(format.type));
    const auto& facts = detail::gguf_facts(format.type);
    std::vector<std::byte> block(facts.bytes);
    for (std::size_t i = 0; i < block.size(); ++i) {
      block[i] = static_cast<std::byte>((37 * i + 11 * (i * i % 7) + i / 5) % 256);
    }
    for (std::size_t i = 0; i < format.scales.size(); ++i) {
      const std::uint16_t half = i == 0 ? 0x3800 : 0xb400;
      std::memcpy(&block[format.scales[i]], &half, sizeof half);
    }
    const std::size_t count = facts.elements;
    std::vector<float> values(count);
    detail::gguf_to_floats(format.type, block.data(), values);
    const auto at = values.begin();
    CHECK(std::vector<float>(at, at + 4) == format.first);
    CHECK(std::vector<float>{values[count / 2 - 1], values[count / 2]} == format.middle);
    CHECK(std::vector<float>(values.end() - 2, values.end()) == format.last);
    double sum = 0;
    for (std::size_t i = 0; i < count; ++i) sum += double(values[i]) * double(1 + i * i % 13);
    CHECK(sum == format.sum);
  }
}

TEST_CASE("GGUF: version 2 is read; what cannot be true of a file is refused", "[gguf]") {
  const TemporaryFolder folder;
  const auto refused = [&](const std::string& bytes, const auto&... parts) {
    const auto path = write_bytes(folder / "a.gguf", bytes);
    check_message<FileError>([&] { Gguf file(path); }, "a.gguf", parts...);
  };
  const std::string data(64, '\1');
  const auto two = [&](std::uint64_t first, std::uint64_t second) {
    return file_of({}, {tensor("a", {8}, 0, first), tensor("b", {8}, 0, second)}, data);
  };
  write_bytes(folder / "v2.gguf", file_of({key("k", uint32, bytes_of(7u))}, {tensor("a", {16}, 0, 0)}, data, 2));
  CHECK(Gguf(folder / "v2.gguf").value("k") == 7);
  write_bytes(folder / "none.gguf", file_of({}, {}, ""));
  CHECK(Gguf(folder / "none.gguf").names().empty());
  write_bytes(folder / "gap.gguf", two(32, 0));  // in another order than that of the header
  CHECK(Gguf(folder / "gap.gguf").names().size() == 2);

  refused("", "another kind of file");
  refused("GGML" + data, "another kind of file");
  refused(file_of({}, {}, "", 1), "version 1", "convert the model again");
  refused(file_of({}, {}, "", 4), "version 4", "2 and 3");
  refused(file_of({}, {}, "", 3u << 24), "the order of another machine");
  const auto counts = [&](std::uint64_t tensors, std::uint64_t keys) {
    return "GGUF" + bytes_of(3u) + bytes_of(tensors) + bytes_of(keys) + data;
  };
  const auto huge = std::numeric_limits<std::uint64_t>::max();
  refused(counts(huge, 0), "claims 0 keys and 18446744073709551615 tensors");
  refused(counts(0, huge), "cut?");
  refused(counts(0, 5), "keys");
  refused(file_of({bytes_of(huge) + "k"}, {}, data), "key 0", "18446744073709551615 bytes");
  refused(file_of({key("k", detail::GgufKind::string, bytes_of(huge))}, {}, data), "k needs", "cut?");
  refused(file_of({key("k", detail::GgufKind::array, bytes_of(uint32) + bytes_of(huge / 4 + 2))}, {}, data), "k needs");
  refused(file_of({key("k", detail::GgufKind::array, bytes_of(detail::GgufKind::string) + bytes_of(huge))}, {}, data),
          "k needs");
  refused(file_of({key("k", detail::GgufKind::array, bytes_of(detail::GgufKind::array) + bytes_of(huge))}, {}, data),
          "array of arrays");
  refused(file_of({key("k", detail::GgufKind{13}, "")}, {}, data), "key k", "unknown type 13");
  refused(file_of({key("k", detail::GgufKind::boolean, "\2")}, {}, data), "key k", "neither 0 nor 1");
  refused(file_of({key("k", detail::GgufKind::string, sized("\xff"))}, {}, data), "key k", "UTF-8");
  refused(file_of({key("k", uint32, bytes_of(1u)), key("k", uint32, bytes_of(1u))}, {}, data), "key k is there twice");
  refused(file_of({key("", uint32, bytes_of(1u))}, {}, data), "key 0 is empty");
  refused(file_of({key("k\n", uint32, bytes_of(1u))}, {}, data), "key 0 is not printable");
  for (const std::uint32_t alignment : {0u, 3u, 48u}) {
    refused(file_of({key("general.alignment", uint32, bytes_of(alignment))}, {}, data), "power of two");
  }
  refused(file_of({key("general.alignment", uint32, bytes_of(1u << 31))}, {tensor("a", {8}, 0, 0)}, data), "outside");
  refused(file_of({}, {tensor("a", {8}, 0, 0), tensor("a", {8}, 0, 32)}, data), "tensor a is there twice");
  refused(file_of({}, {tensor("a", {}, 0, 0)}, data), "tensor a", "1 to 4 dimensions, found 0");
  refused(file_of({}, {tensor("a", {1, 1, 1, 1, 1}, 0, 0)}, data), "found 5");
  refused(file_of({}, {tensor("a", {8, 0}, 0, 0)}, data), "tensor a has an extent of 0");
  refused(file_of({}, {tensor("a", {huge}, 0, 0)}, data), "tensor a has an extent of");
  refused(file_of({}, {tensor("a", {1ull << 32, 1ull << 32}, 0, 0)}, data), "tensor a has an extent of");
  refused(file_of({}, {tensor("a", {1ull << 40}, 0, 0)}, data), "tensor a", "more than the file");
  refused(file_of({}, {tensor("a", {256}, 16, 0)}, data), "tensor a is of the type IQ2_XXS", "Q4_0 or Q4_K_M");
  refused(file_of({}, {tensor("a", {32}, 14, 0)}, data), "tensor a has rows of 32 elements");
  refused(file_of({}, {tensor("a", {512}, 14, 0)}, data), "tensor a has 2 times 210 bytes", "cut?");
  refused(file_of({}, {tensor("a", {256}, 99, 0)}, data), "tensor a is of the type 99");
  refused(file_of({}, {tensor("a", {33}, 8, 0)}, data), "tensor a has rows of 33 elements");
  refused(two(0, 16), "tensor b lies at 16", "the alignment 32");
  refused(two(0, 0), "overlaps");
  refused(two(0, 64), "tensor b", "outside");
  refused(two(0, huge - 31), "tensor b", "outside");
  check_message<FileError>([&] { Gguf file(folder / "absent.gguf"); }, "absent.gguf", "cannot be opened");
}

TEST_CASE("GGUF: a writer refuses tensors that do not come as they were announced", "[gguf]") {
  const TemporaryFolder folder;
  const auto refused = [&](const std::vector<GgufTensor>& tensors, const std::string& name, std::size_t bytes,
                           const auto&... parts) {
    check_message<FileError>(
        [&] {
          FileWriter file(folder / "a.gguf");
          GgufWriter writer(file, {}, tensors);
          if (!name.empty()) writer.append(name, std::vector<std::byte>(bytes));
          writer.finish();
        },
        "a.gguf", parts...);
  };
  const std::vector<GgufTensor> two = {{"a", GgufType::float32, {2}}, {"b", GgufType::q8_0, {32}}};
  refused(two, "b", 34, "tensor b", "8 of a");
  refused(two, "a", 12, "tensor a", "at most 8");
  refused(two, "a", 4, "tensor a", "4 bytes of 8");
  refused(two, "a", 8, "tensor b", "0 bytes of 34");
  refused({{"a", GgufType::float32, {2}}, {"a", GgufType::float32, {2}}}, "", 0, "tensor a", "twice");
  refused({{std::string(64, 'n'), GgufType::float32, {2}}}, "", 0, "more than 63 bytes");
}

}  // namespace tinymoe_test::gguf
