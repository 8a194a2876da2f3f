#include "tinymoe/files/safetensors.hpp"

#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "files/bytes.hpp"
#include "tinymoe/files/atomic.hpp"
#include "tinymoe/files/safetensors_shards.hpp"

namespace tinymoe_test::safetensors {

using namespace tinymoe;

namespace {

/// A safetensors file from its header, unpadded, and its data.
std::string file_of(const std::string& header, const std::string& data = {}) {
  return bytes_of(std::uint64_t{header.size()}) + header + data;
}

std::string one_tensor(const std::string& fields, const std::string& data) {
  return file_of("{\"w\":{" + fields + "}}", data);
}

const std::string golden_header =
    R"({"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
    R"("a":{"dtype":"BF16","shape":[1,3],"data_offsets":[8,14]}})";
const std::string golden = std::string("\x90\0\0\0\0\0\0\0", 8) + golden_header + "  " +
                           std::string("\0\0\x80\x3f\0\0\0\xc0", 8) + std::string("\x80\x3f\0\x40\x40\x40", 6);

}  // namespace

TEST_CASE("A safetensors file is byte for byte what the format says", "[safetensors]") {
  const TemporaryFolder folder;
  const auto path = folder / "golden.safetensors";
  REQUIRE(golden_header.size() == 142);
  const std::vector<float> b = {1.0f, -2.0f}, a = {1.0f, 2.0f, 3.0f};
  write_file_atomically(path, [&](FileWriter& file) {
    SafetensorsWriter writer(file, {{"b", StoredType::float32, {2}}, {"a", StoredType::bfloat16, {1, 3}}},
                             {{"format", "pt"}});
    writer.append("b", std::span<const float>(b));
    writer.append("a", std::span<const float>(a));
    writer.finish();
  });
  CHECK(read_bytes(path) == golden);

  const Safetensors file(write_bytes(folder / "by_hand.safetensors", golden));
  CHECK(file.names() == std::vector<std::string>{"b", "a"});
  CHECK(file.metadata() == Metadata{{"format", "pt"}});
  CHECK(file.contains("a"));
  CHECK_FALSE(file.contains("c"));
  CHECK(file.info("a").type == StoredType::bfloat16);
  CHECK(file.info("a").shape == std::vector<Index>{1, 3});
  CHECK(file.info("a").bytes.size() == 6);
  std::vector<float> read_a(3), read_b(2);
  file.read("a", {1, 3}, read_a);
  file.read("b", std::array<Index, 1>{2}, read_b);
  CHECK(read_a == a);
  CHECK(read_b == b);
}

TEST_CASE("Safetensors round trip: types, pieces, empty tensors, scalars, odd names", "[safetensors]") {
  const TemporaryFolder folder;
  const auto path = folder / "round.safetensors";
  std::vector<double> values(70'001);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = std::sin(0.1 * static_cast<double>(i));
  std::vector<float> floats(values.begin(), values.end());
  const std::vector<std::int64_t> steps = {1, -2, 3};
  const std::string odd = "a \"b\" \\ \n \xc3\xa9";
  const auto size = static_cast<Index>(values.size());
  write_file_atomically(path, [&](FileWriter& file) {
    SafetensorsWriter writer(file,
                             {{"none", StoredType::float32, {0, 5}},
                              {"one", StoredType::int8, {}},  // puts what follows at an odd offset
                              {odd, StoredType::float32, {size}},
                              {"double", StoredType::float64, {size, 1}},
                              {"brain", StoredType::bfloat16, {size}},
                              {"steps", StoredType::int64, {3}},
                              {"last", StoredType::float64, {3, 0}}},
                             {{"quote\"", "\t"}});
    writer.append("none", std::span<const float>());
    writer.append("one", std::span<const std::int8_t>(std::array<std::int8_t, 1>{-7}));
    writer.append(odd, std::span<const float>(floats).first(10));
    writer.append(odd, std::span<const double>(values).subspan(10));
    writer.append("double", std::span<const double>(values));
    writer.append("brain", std::span<const double>(values));
    writer.append("steps", std::span<const std::int64_t>(steps));
    writer.finish();
  });
  const Safetensors file(path);
  CHECK(file.metadata().at("quote\"") == "\t");
  CHECK(file.names().size() == 7);
  CHECK(file.info("one").shape.empty());
  CHECK(std::to_integer<int>(file.info("one").bytes[0]) == 256 - 7);
  std::vector<float> float_out(values.size());
  std::vector<double> double_out(values.size());
  file.read(odd, {size}, float_out);
  CHECK(float_out == floats);
  file.read(odd, {size}, double_out);
  CHECK(double_out == std::vector<double>(floats.begin(), floats.end()));
  file.read("double", {size, 1}, double_out);
  CHECK(double_out == values);
  file.read("double", {size, 1}, float_out);
  CHECK(float_out == floats);
  file.read("brain", {size}, float_out);
  bool rounded = true;
  for (std::size_t i = 0; i < floats.size(); ++i) rounded = rounded && float_out[i] == float(bfloat16(floats[i]));
  CHECK(rounded);
  file.read("none", {0, 5}, std::span<float>());
  const auto moved = Safetensors(path);
  CHECK(moved.contains("steps"));
}

TEST_CASE("Half precision is read", "[safetensors]") {
  const TemporaryFolder folder;
  const auto data = std::string("\x00\x3c\x00\xc0\x01\x00", 6);
  const Safetensors file(
      write_bytes(folder / "half", one_tensor(R"("dtype":"F16","shape":[3],"data_offsets":[0,6])", data)));
  std::vector<float> out(3);
  file.read("w", {3}, out);
  CHECK(out == std::vector<float>{1.0f, -2.0f, 0x1p-24f});
}

TEST_CASE("Hostile safetensors files are refused by name", "[safetensors]") {
  const TemporaryFolder folder;
  const auto path = folder / "hostile.safetensors";
  const auto rejects = [&](const std::string& bytes, const std::string& part) {
    write_bytes(path, bytes);
    check_message<FileError>([&] { Safetensors file(path); }, path.string(), part);
  };
  const std::string eight(8, '\0');
  const auto tensor = [&](const std::string& fields) { return one_tensor(fields, eight); };
  check_message<FileError>([&] { Safetensors file(folder / "missing"); }, "missing", "No such file");
  rejects("", "found 0 bytes");
  rejects("1234567", "found 7 bytes");
  rejects(bytes_of(std::uint64_t{1} << 63) + "{}", "claims 9223372036854775808 bytes");
  rejects(bytes_of(UINT64_MAX) + "{}", "claims 18446744073709551615 bytes");
  rejects(bytes_of(std::uint64_t{3}) + "{}", "claims 3 bytes");
  rejects(bytes_of(std::uint64_t{100'000'001}) + std::string(100'000'001, ' '), "claims 100000001 bytes");
  rejects(file_of(""), "not a JSON object");
  rejects(file_of(" {}"), "not a JSON object");
  rejects(file_of("[]"), "not a JSON object");
  rejects(file_of("{\"w\":"), "byte 6");
  rejects(file_of("{\"w\":[[[[[[[[[]]]]]]]]]}"), "nested deeper");
  rejects(file_of("{\"w\":3}"), "tensor w: expected an object");
  rejects(file_of("{\"__metadata__\":[]}"), "__metadata__");
  rejects(file_of("{\"__metadata__\":{\"a\":1}}"), "\"a\": expected a string");
  rejects(tensor(R"("shape":[2],"data_offsets":[0,8])"), "\"dtype\" is missing");
  rejects(tensor(R"("dtype":"F32","data_offsets":[0,8])"), "\"shape\" is missing");
  rejects(tensor(R"("dtype":"F32","shape":[2])"), "\"data_offsets\" is missing");
  rejects(tensor(R"("dtype":"F33","shape":[2],"data_offsets":[0,8])"), "unknown dtype F33");
  rejects(tensor(R"("dtype":32,"shape":[2],"data_offsets":[0,8])"), "\"dtype\": expected a string");
  rejects(tensor(R"("dtype":"F32","shape":2,"data_offsets":[0,8])"), "shape is not a list");
  rejects(tensor(R"("dtype":"F32","shape":[-2],"data_offsets":[0,8])"), "shape [-2]");
  rejects(tensor(R"("dtype":"F32","shape":[2.0],"data_offsets":[0,8])"), "\"shape\": expected a whole number");
  rejects(tensor(R"("dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8])"), "does not have 8 bytes");
  rejects(tensor(R"("dtype":"F32","shape":[4611686018427387906],"data_offsets":[0,8])"), "does not have 8 bytes");
  rejects(tensor(R"("dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,8])"), "expected a whole number");
  rejects(tensor(R"("dtype":"F32","shape":[2],"data_offsets":[0])"), "not two numbers");
  rejects(tensor(R"("dtype":"F32","shape":[2],"data_offsets":[0,"8"])"), "data_offsets");
  rejects(tensor(R"("dtype":"F32","shape":[2],"data_offsets":[-8,0])"), "data_offsets");
  rejects(tensor(R"("dtype":"F32","shape":[2],"data_offsets":[8,0])"), "[8, 0]");
  rejects(tensor(R"("dtype":"F32","shape":[2],"data_offsets":[4,12])"), "is the file cut?");
  rejects(tensor(R"("dtype":"F32","shape":[2],"data_offsets":[0,18446744073709551615])"), "18446744073709551615");
  rejects(tensor(R"("dtype":"F32","shape":[1],"data_offsets":[0,8])"), "does not have 8 bytes");
  rejects(tensor(R"("dtype":"F32","shape":[1],"data_offsets":[0,4])"), "end at byte 4 of the data, which has 8");
  rejects(tensor(R"("dtype":"F32","shape":[1],"data_offsets":[4,8])"), "tensor w: has a gap");
  rejects(file_of("{}", "x"), "end at byte 0");
  const auto two = [&](const std::string& first, const std::string& second) {
    return file_of(
        "{\"v\":{\"dtype\":\"U8\",\"shape\":" + first + "},\"w\":{\"dtype\":\"U8\",\"shape\":" + second + "}}", eight);
  };
  rejects(two(R"([5],"data_offsets":[0,5])", R"([4],"data_offsets":[4,8])"), "tensor w: overlaps");
  rejects(two(R"([8],"data_offsets":[0,8])", R"([8],"data_offsets":[0,8])"), "tensor w: overlaps");
  rejects(two(R"([8],"data_offsets":[0,8])", R"([0],"data_offsets":[3,3])"), "tensor w: overlaps");
  rejects(two(R"([3],"data_offsets":[0,3])", R"([4],"data_offsets":[4,8])"), "tensor w: has a gap");
  rejects(file_of(R"({"w":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
                  R"("w":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}})",
                  eight),
          "the key \"w\" twice");
  for (std::size_t size = 0; size < golden.size(); ++size) {  // cut anywhere
    write_bytes(path, golden.substr(0, size));
    CHECK_THROWS_AS(Safetensors(path), FileError);
  }
  write_bytes(path, file_of("{}"));
  CHECK(Safetensors(path).names().empty());
}

TEST_CASE("A wrong byte anywhere in a header does no harm", "[safetensors]") {
  const TemporaryFolder folder;
  const auto path = folder / "flipped.safetensors";
  for (std::size_t place = 0; place < golden.size() - 14; ++place) {
    for (const int mask : {0x01, 0x20, 0x80, 0xff}) {
      std::string bytes = golden;
      bytes[place] = static_cast<char>(bytes[place] ^ mask);
      write_bytes(path, bytes);
      try {
        const Safetensors file(path);  // a changed name leaves a valid file
        for (const auto& name : file.names()) static_cast<void>(file.info(name).bytes.size());
      } catch (const FileError& error) {
        REQUIRE(std::string(error.what()).find(path.string()) == 0);
      }
    }
  }
}

TEST_CASE("Reading the wrong tensor names file, tensor, expected and found", "[safetensors]") {
  const TemporaryFolder folder;
  const auto path = write_bytes(
      folder / "model.safetensors",
      file_of(
          R"({"w":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},"i":{"dtype":"I8","shape":[2],"data_offsets":[8,10]}})",
          std::string(10, '\0')));
  const Safetensors file(path);
  std::vector<float> out(2);
  check_message<MismatchError>([&] { file.read("v", {2, 1}, out); }, path.string(), "tensor v is missing");
  check_message<MismatchError>(
      [&] {
        file.read("w", {1, 2}, out);
      },
      path.string(), "tensor w", "expected the shape [1, 2]", "found [2, 1]");
  check_message<MismatchError>([&] { file.read("w", {2}, out); }, "found [2, 1]");
  check_message<MismatchError>([&] { file.read("i", {2}, out); }, path.string(), "tensor i", "found I8");
  out.resize(3);
  check_message<ShapeError>([&] { file.read("w", {2, 1}, out); }, path.string(), "tensor w", "3 numbers");
}

TEST_CASE("A weight that is not finite names file, tensor and index", "[safetensors]") {
  const TemporaryFolder folder;
  const auto path = folder / "nan.safetensors";
  std::vector<double> values(3000, 1.0);
  const auto save = [&](StoredType type) {
    write_file_atomically(path, [&](FileWriter& file) {
      SafetensorsWriter writer(file, {{"w", type, {3000}}});
      writer.append("w", std::span<const double>(values));
    });
  };
  std::vector<float> out(3000);
  std::vector<double> doubles(3000);
  for (const double bad : {std::nan(""), HUGE_VAL, -HUGE_VAL}) {
    values[2047] = bad;
    for (const auto type : {StoredType::float32, StoredType::bfloat16, StoredType::float64}) {
      save(type);
      const Safetensors file(path);
      check_message<FileError>([&] { file.read("w", {3000}, out); }, path.string(), "tensor w", "number 2047");
      check_message<FileError>([&] { file.read("w", {3000}, doubles); }, path.string(), "tensor w", "number 2047");
      CHECK_NOTHROW(file.read("w", {3000}, out, {.finite = false}));
      CHECK_FALSE(std::isfinite(out[2047]));
    }
  }
  values[2047] = 1e300;  // finite in the file, infinite in a float
  save(StoredType::float64);
  check_message<FileError>([&] { Safetensors(path).read("w", {3000}, out); }, "number 2047");
  CHECK_NOTHROW(Safetensors(path).read("w", {3000}, doubles));
  values[2047] = std::numeric_limits<float>::max();
  save(StoredType::float32);
  CHECK_NOTHROW(Safetensors(path).read("w", {3000}, out));
}

TEST_CASE("A safetensors writer refuses calls that would spoil the file", "[safetensors]") {
  const TemporaryFolder folder;
  const auto path = folder / "bad.safetensors";
  const std::vector<StoredTensor> two = {{"v", StoredType::float32, {2}}, {"w", StoredType::int32, {1}}};
  const std::vector<float> floats(3);
  const std::span<const float> all(floats);
  const std::vector<std::int32_t> number = {1};
  const auto rejects = [&](std::vector<StoredTensor> tensors, auto&& use, const char* part) {
    check_message<FileError>(
        [&] {
          FileWriter file(path);
          SafetensorsWriter writer(file, std::move(tensors));
          use(writer);
        },
        path.string(), part);
  };
  const auto nothing = [](SafetensorsWriter&) {};
  rejects({{"v", StoredType::float32, {2}}, {"v", StoredType::float32, {2}}}, nothing, "tensor v: the name");
  rejects({{"__metadata__", StoredType::float32, {2}}}, nothing, "reserved");
  rejects({{"v", StoredType::float32, {-1}}}, nothing, "shape [-1] is impossible");
  rejects({{"v", StoredType::float32, {Index{1} << 40, Index{1} << 40}}}, nothing, "is impossible");
  rejects({{"\xff", StoredType::float32, {1}}}, nothing, "not UTF-8");
  rejects(
      two, [](SafetensorsWriter& writer) { writer.finish(); }, "tensor v: has 0 bytes of 8");
  rejects(
      two, [&](SafetensorsWriter& writer) { writer.append("v", all); }, "given 12 bytes, expected at most 8 of v");
  rejects(
      two, [&](SafetensorsWriter& writer) { writer.append_bytes("w", std::as_bytes(all)); }, "tensor w: given");
  rejects(
      two, [&](SafetensorsWriter& writer) { writer.append("v", std::span<const std::int32_t>(number)); },
      "given I32, expected F32");
  rejects(
      two,
      [&](SafetensorsWriter& writer) {
        writer.append("v", all.first(2));
        writer.append("w", all);
      },
      "given F32, expected I32");
  rejects(
      two,
      [&](SafetensorsWriter& writer) {
        writer.append("v", all.first(2));
        writer.append("w", std::span<const std::int32_t>(number));
        writer.finish();
        writer.append("w", std::span<const std::int32_t>(number));
      },
      "after the last tensor");
}

TEST_CASE("An index of shards names files beside it and no others", "[safetensors]") {
  const TemporaryFolder root;
  std::filesystem::create_directories(root / "model/inner");
  const auto shard = one_tensor(R"("dtype":"F32","shape":[1],"data_offsets":[0,4])", std::string(4, '\0'));
  for (const char* place : {"x.safetensors", "model/x.safetensors", "model/inner/x.safetensors"}) {
    write_bytes(root / place, shard);
  }
  const auto file = root / "model/model.safetensors", index = root / "model/model.safetensors.index.json";
  const auto naming = [&](const std::string& name) {
    write_bytes(index, R"({"weight_map":{"w":")" + name + "\"}}");
    return SafetensorsShards(file).names();
  };
  CHECK(naming("x.safetensors") == std::vector<std::string>{"w"});
  for (const std::string& name : {std::string("../x.safetensors"), std::string("inner/x.safetensors"),
                                  std::string("./x.safetensors"), (root / "x.safetensors").string(), std::string(".."),
                                  std::string("."), std::string("inner/../x.safetensors"), std::string()}) {
    CAPTURE(name);
    check_message<FileError>([&] { naming(name); }, index.string(), "names of files beside it", name);
  }
}

TEST_CASE("The error of a full disk names the bytes that the weights need", "[safetensors]") {
  const TemporaryFolder folder;
  const auto path = folder / "large.safetensors";
  const std::vector<float> block(100'000);
  const auto message = message_of<FileError>([&] {
    const FileSizeLimit limit(500'000);
    write_file_atomically(path, [&](FileWriter& file) {
      SafetensorsWriter writer(file, {{"w", StoredType::float32, {1000, 100'000}}});
      for (int i = 0; i < 1000; ++i) writer.append("w", std::span<const float>(block));
    });
  });
  CHECK(message.find(path.string()) != std::string::npos);
  CHECK(message.find("needs 400000080 bytes") != std::string::npos);
  CHECK(entries_in(folder.path()) == 0);
}

TEST_CASE("Stored types know their names and sizes", "[safetensors]") {
  for (const char* name : {"BOOL", "U8", "I8", "U16", "I16", "F16", "BF16", "U32", "I32", "F32", "U64", "I64", "F64"}) {
    CHECK(stored_type_name(stored_type_named(name).value()) == name);
  }
  CHECK_FALSE(stored_type_named("f32"));
  static_assert(stored_type_of<float>() == StoredType::float32 && stored_type_of<bfloat16>() == StoredType::bfloat16);
  static_assert(stored_type_of<std::int64_t>() == StoredType::int64 && stored_type_of<char8_t>() == StoredType::uint8);
  static_assert(stored_type_bytes(StoredType::float64) == 8 && stored_type_bytes(StoredType::boolean) == 1);
}

}  // namespace tinymoe_test::safetensors
