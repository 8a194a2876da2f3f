#pragma once
// What a fuzz harness is. The fuzzer calls it with inputs of its own making (fuzzer.cpp), the tests with those that are
// kept (replay.cpp). A harness returns where tinymoe did what it should: it read the input, or refused it by an
// exception of its own. Whatever else leaves a harness is a fault.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <functional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "tinymoe/core/error.hpp"

namespace tinymoe_fuzz {

using namespace tinymoe;

/// What a harness found.
class Fault : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

/// No std::string: most harnesses say hundreds of sentences for an input, and few are needed.
inline void expect(bool holds, const char* sentence) {
  if (!holds) throw Fault(sentence);
}

/// Takes an input to begin with, whole files that the library wrote for example.
using TakeSeed = std::function<void(std::string_view)>;

struct Harness {
  const char* name;
  void (*run)(std::string_view input);
  /// Inputs to begin with; they are tests, too.
  void (*seeds)(const TakeSeed& take);
  std::size_t longest;                  // bytes of an input, at most
  std::size_t memory_factor = 2;        // bytes that it may take at once for each of the input's, beside `memory_base`
  const char* dictionary = "";          // of dictionaries/
  std::size_t memory_base = 256 << 10;  // bytes of any input: tables of a tokenizer, a tiny model
};

/// For readers of texts by the chunk, which has 1 MiB.
inline constexpr std::size_t chunk_memory = 2 << 20;
/// For readers of JSON: a value takes 16 bytes and the text of it two, "0,"; a growing array is there twice.
inline constexpr std::size_t json_memory_factor = 64;
/// Seconds of the processor that an input may take.
inline constexpr double most_seconds = 1;

// Of each source file, which is a program of the fuzzer's.
std::span<const Harness> json_harnesses();
std::span<const Harness> utf8_harnesses();
std::span<const Harness> files_harnesses();
std::span<const Harness> text_harnesses();
std::span<const Harness> stories_harnesses();
std::span<const Harness> checkpoint_harnesses();
std::span<const Harness> logs_harnesses();
std::span<const Harness> options_harnesses();
std::span<const Harness> numbers_harnesses();

/// Runs an input. Throws `Fault`, and lets through what leaves the harness, where there is a fault.
void run_checked(const Harness& harness, std::string_view input);

/// Calls f() and returns whether it came to its end. An error of tinymoe's is a sentence on one line.
template <class F>
bool accepts(F&& f) {
  try {
    f();
    return true;
  } catch (const Error& error) {
    const std::string_view sentence = error.what();
    const auto control = [](char c) { return (c >= 0 && c < ' ') || c == 0x7f; };
    expect(!sentence.empty(), "an error without a sentence");
    expect(std::none_of(sentence.begin(), sentence.end(), control), "an error with control characters");
    return false;
  }
}

/// Bytes that a harness takes apart. Behind their end there are zeros.
class Bytes {
 public:
  explicit Bytes(std::string_view rest) : rest_(rest) {}

  template <class T>
  T take() {
    static_assert(std::is_trivially_copyable_v<T>);
    T value{};
    const std::string_view bytes = text(sizeof value);
    if (!bytes.empty()) std::memcpy(&value, bytes.data(), bytes.size());
    return value;
  }
  /// A number from 0 to `end` − 1.
  std::size_t below(std::size_t end) { return end <= 256 ? take<std::uint8_t>() % end : take<std::uint32_t>() % end; }
  std::string_view text(std::size_t size) {
    const std::string_view bytes = rest_.substr(0, size);
    rest_.remove_prefix(bytes.size());
    return bytes;
  }
  std::string_view rest() { return text(rest_.size()); }
  bool empty() const { return rest_.empty(); }

 private:
  std::string_view rest_;
};

/// A folder of this process, in memory where the system has such a place.
const std::filesystem::path& scratch();
/// Writes a file there.
std::filesystem::path write_scratch(const std::string& name, std::string_view bytes);
std::string read_file(const std::filesystem::path& path);

/// An input for a harness that reads one of several files: which one, and its bytes.
std::string numbered(std::size_t number, std::string_view bytes);

/// A value's bytes.
template <class T>
std::string bytes_of(const T& value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof value);
}

}  // namespace tinymoe_fuzz
