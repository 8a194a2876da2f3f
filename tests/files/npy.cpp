#include "tinymoe/files/npy.hpp"

#include <complex>
#include <cstdint>
#include <string>

#include "files/bytes.hpp"

#if __has_include(<xtensor/io/xnpy.hpp>)
#include <xtensor/io/xnpy.hpp>
#else
#include <xtensor/xnpy.hpp>
#endif

#include "files/unzipped.hpp"
#include "tinymoe/files/npz.hpp"

namespace tinymoe_test::npy {

using namespace tinymoe;

namespace {

std::string npy_of(const std::string& dictionary, const std::string& data, int major = 1) {
  const std::string magic = std::string("\x93NUMPY") + static_cast<char>(major) + '\0';
  const auto length = dictionary.size();
  return magic +
         (major == 1 ? bytes_of(static_cast<std::uint16_t>(length)) : bytes_of(static_cast<std::uint32_t>(length))) +
         dictionary + data;
}

template <class T>
void check_round_trip(const xt::xarray<T>& array) {
  const TemporaryFolder folder;
  save_npy(folder / "array.npy", array);
  const auto loaded = load_npy<T>(folder / "array.npy");
  CHECK((loaded.shape() == array.shape()));
  CHECK((loaded == array));
}

}  // namespace

TEST_CASE("Arrays of every kind make the round trip through .npy", "[npy]") {
  check_round_trip<float>({{1, 2, 3}, {4, 5, 6}});
  check_round_trip<double>({0.1, 1e300, -0.0});
  check_round_trip<std::int64_t>({INT64_MIN, INT64_MAX});
  check_round_trip<std::int32_t>(xt::xarray<std::int32_t>{{{1, 2}, {3, 4}}, {{5, 6}, {7, 8}}});
  check_round_trip<std::uint8_t>({0, 255});
  check_round_trip<bool>({true, false, true});
  check_round_trip<std::complex<float>>(xt::xarray<std::complex<float>>(std::complex<float>(1, 2)));
  check_round_trip<float>(xt::xarray<float>(3.0f));  // no dimension
  check_round_trip<float>(xt::xarray<float>::from_shape({0, 4}));
}

TEST_CASE("A .npz file is a ZIP file of .npy files", "[npy]") {
  // The checksum of the standard's example.
  const std::string digits = "123456789";
  const auto bytes = std::as_bytes(std::span(digits));
  CHECK(tinymoe::detail::crc32(bytes) == 0xCBF43926u);
  CHECK(tinymoe::detail::crc32(bytes.subspan(4), tinymoe::detail::crc32(bytes.first(4))) == 0xCBF43926u);
  const TemporaryFolder folder;
  const std::vector<float> numbers = {1, 2, 3, 4, 5, 6};
  const std::vector<std::int64_t> whole = {INT64_MIN, 7};
  write_file_atomically(folder / "a.npz", [&](FileWriter& file) {
    NpzWriter npz(file);
    npz.add("numbers", std::span<const float>(numbers), {2, 3});
    npz.add("na\xC3\xAFve", std::span<const std::int64_t>(whole), {2});
    npz.add("none", std::span<const float>(), {0, 4});
    npz.finish();
  });
  const auto files = unzipped(folder / "a.npz", folder);
  CHECK(files == std::vector<std::string>{"numbers.npy", "na\xC3\xAFve.npy", "none.npy"});
  CHECK((load_npy(folder / "numbers.npy") == xt::xarray<float>{{1, 2, 3}, {4, 5, 6}}));
  CHECK((load_npy<std::int64_t>(folder / "na\xC3\xAFve.npy") == xt::xarray<std::int64_t>{INT64_MIN, 7}));
  CHECK((load_npy(folder / "none.npy").shape() == xt::xarray<float>::from_shape({0, 4}).shape()));
  write_file_atomically(folder / "b.npz", [](FileWriter& file) { NpzWriter(file).finish(); });
  CHECK(unzipped(folder / "b.npz", folder).empty());
}

TEST_CASE("Expressions and column-major arrays are saved by value", "[npy]") {
  const TemporaryFolder folder;
  const xt::xtensor<float, 2, xt::layout_type::column_major> columns = {{1, 2, 3}, {4, 5, 6}};
  save_npy(folder / "a.npy", columns + 1.0f);
  CHECK((load_npy(folder / "a.npy") == xt::xarray<float>{{2, 3, 4}, {5, 6, 7}}));
  save_npy(folder / "a.npy", columns);
  CHECK((load_npy(folder / "a.npy") == columns));
  CHECK((entries_in(folder.path()) == 1));
}

TEST_CASE("xtensor's own reader and writer agree with ours", "[npy]") {
  const TemporaryFolder folder;
  const xt::xarray<float> rows = {{1, 2, 3}, {4, 5, 6}};
  const xt::xarray<float, xt::layout_type::column_major> columns = rows;
  save_npy(folder / "ours.npy", rows);
  CHECK((xt::load_npy<float>((folder / "ours.npy").string()) == rows));
  CHECK(read_bytes(folder / "ours.npy").find('\n') % 64 == 63);
  xt::dump_npy((folder / "theirs.npy").string(), rows);
  CHECK((load_npy(folder / "theirs.npy") == rows));
  xt::dump_npy((folder / "theirs.npy").string(), columns);
  CHECK((load_npy(folder / "theirs.npy") == rows));
}

TEST_CASE(".npy headers of every version and order are read", "[npy]") {
  const TemporaryFolder folder;
  const std::string data = bytes_of(1.0f) + bytes_of(2.0f);
  const xt::xarray<float> expected = {1, 2};
  for (const int major : {1, 2, 3}) {
    for (const std::string dictionary : {"{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n",
                                         "{\"shape\":(2),\"fortran_order\":True,\"descr\":\"<f4\"}"}) {
      const auto path = write_bytes(folder / "a.npy", npy_of(dictionary + std::string(150, ' '), data, major));
      CHECK((load_npy(path) == expected));
    }
  }
}

TEST_CASE("Hostile .npy files are refused by name", "[npy]") {
  const TemporaryFolder folder;
  const auto path = folder / "hostile.npy";
  const auto rejects = [&](const std::string& bytes, const char* part) {
    write_bytes(path, bytes);
    check_message<FileError>([&] { load_npy(path); }, path.string(), part);
  };
  const std::string good = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", data(8, '\0');
  const auto shape = [&](const std::string& text) {
    return npy_of("{'descr': '<f4', 'fortran_order': False, 'shape': " + text + ", }", data);
  };
  check_message<FileError>([&] { load_npy(folder / "missing.npy"); }, "missing.npy");
  rejects("", "expected a .npy file");
  rejects("PK\3\4 a zip file", "expected a .npy file");
  rejects("\x93NUMPY", "format 1, 2 or 3, found 0");
  rejects(npy_of(good, data, 4), "found 4");
  rejects(std::string("\x93NUMPY\1\0\xff\xff", 10) + "{}", "claims 65535 bytes");
  rejects(std::string("\x93NUMPY\2\0\xff\xff\xff\xff", 12) + "{}", "claims 4294967295 bytes");
  rejects(npy_of(good, data + "x"), "does not fit the 9 bytes");
  rejects(npy_of(good, ""), "does not fit the 0 bytes");
  rejects(shape("(1000000000000,)"), "does not fit");
  rejects(shape("(4294967296, 4294967296, 4294967296)"), "does not fit");
  rejects(shape("(0, 9223372036854775807, 9223372036854775807)"), "does not fit");
  rejects(shape("(99999999999999999999,)"), "expected a size");
  rejects(shape("(-2,)"), "expected a size");
  rejects(shape("(2"), "corrupt");
  rejects(shape("2"), "corrupt");
  rejects(npy_of("", data), "corrupt at its byte 0");
  rejects(npy_of("{", data), "corrupt");
  rejects(npy_of("{}", data), "lacks");
  rejects(npy_of("{'descr': '<f4', 'descr': '<f4'}", data), "unexpected key descr");
  rejects(npy_of("{'other': 1}", data), "unexpected key other");
  rejects(npy_of("{'descr': [('x', '<f4')], 'fortran_order': False, 'shape': (2,)}", data), "records");
  rejects(npy_of("{'descr': '<f4', 'fortran_order': 1, 'shape': (2,)}", data), "True or False");
  rejects(npy_of("{'descr': '>f4', 'fortran_order': False, 'shape': (2,)}", data), "expected numbers <f4, found >f4");
  rejects(npy_of("{'descr': '|O', 'fortran_order': False, 'shape': (2,)}", data), "found |O");
  rejects(npy_of(good + "junk", data), "expected its end");
  std::string most = "(2, ";
  for (int i = 0; i < 63; ++i) most += "1, ";
  write_bytes(path, shape(most + ")"));
  CHECK(load_npy(path).dimension() == 64);
  std::string many = "(";
  for (int i = 0; i < 65; ++i) many += "1, ";
  rejects(shape(many + ")"), "does not fit");
  const auto whole = npy_of(good, data);
  for (std::size_t size = 0; size < whole.size(); ++size) {
    write_bytes(path, whole.substr(0, size));
    CHECK_THROWS_AS(load_npy(path), FileError);
  }
  write_bytes(path, npy_of("{'descr': '|b1', 'fortran_order': False, 'shape': (8,)}", "\1\1\1\1\1\1\1\2"));
  check_message<FileError>([&] { load_npy<bool>(path); }, path.string(), "not bool");
}

}  // namespace tinymoe_test::npy
