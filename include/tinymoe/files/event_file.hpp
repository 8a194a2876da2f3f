#pragma once
/// @file
/// TensorBoard's event files: scalars, histograms, texts and the hyperparameters of a run.
///
/// A file is a row of records, each of which is a message of protocol buffers (tensorboard/compat/proto/event.proto,
/// summary.proto, tensor.proto; plugins/hparams/plugin_data.proto) between two checksums (TFRecord's format: CRC-32C of
/// the length and of the content, masked).

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/utf8.hpp"
#include "tinymoe/files/appended_file.hpp"
#include "tinymoe/files/json_value.hpp"

namespace tinymoe::inline v0_1 {

namespace detail {

/// CRC-32C (Castagnoli's polynomial, bits reversed), as TFRecord masks it.
[[gnu::cold]] inline std::uint32_t masked_checksum(std::string_view bytes) {
  static const auto table = [] {
    std::array<std::uint32_t, 256> remainders{};
    for (std::uint32_t i = 0; i < 256; ++i) {
      std::uint32_t remainder = i;
      for (int bit = 0; bit < 8; ++bit) remainder = (remainder >> 1) ^ ((remainder & 1) != 0 ? 0x82F63B78u : 0);
      remainders[i] = remainder;
    }
    return remainders;
  }();
  std::uint32_t sum = 0xFFFFFFFFu;
  for (const char byte : bytes) sum = (sum >> 8) ^ table[(sum ^ static_cast<unsigned char>(byte)) & 255u];
  return std::rotr(~sum, 15) + 0xA282EAD8u;
}

/// A message of protocol buffers: fields one after another, each with its number.
class ProtoMessage {
 public:
  ProtoMessage& whole(std::uint32_t field, std::uint64_t value) {
    key(field, 0);
    varint(value);
    return *this;
  }
  ProtoMessage& number(std::uint32_t field, double value) {
    key(field, 1);
    fixed(std::bit_cast<std::uint64_t>(value));
    return *this;
  }
  ProtoMessage& number(std::uint32_t field, float value) {
    key(field, 5);
    fixed(std::bit_cast<std::uint32_t>(value));
    return *this;
  }
  ProtoMessage& text(std::uint32_t field, std::string_view value) {
    key(field, 2);
    varint(value.size());
    bytes_ += value;
    return *this;
  }
  ProtoMessage& message(std::uint32_t field, const ProtoMessage& value) { return text(field, value.bytes_); }
  ProtoMessage& numbers(std::uint32_t field, std::span<const double> values) {
    key(field, 2);
    varint(values.size() * sizeof(double));
    for (const double value : values) fixed(std::bit_cast<std::uint64_t>(value));
    return *this;
  }
  const std::string& bytes() const { return bytes_; }

 private:
  void key(std::uint32_t field, std::uint32_t kind) { varint(field << 3 | kind); }
  void varint(std::uint64_t value) {
    for (; value >= 128; value >>= 7) bytes_ += static_cast<char>((value & 127) | 128);
    bytes_ += static_cast<char>(value);
  }
  template <class T>
  void fixed(T value) {  // the lowest byte first
    for (std::size_t i = 0; i < sizeof value; ++i) bytes_ += static_cast<char>((value >> (8 * i)) & 255);
  }

  std::string bytes_;
};

}  // namespace detail

/// One event file in a folder, which may have those of earlier parts of the run beside it: TensorBoard reads them in
/// turn. Each record is written at once; one that a killed program cut is left out by readers.
class EventFile {
 public:
  /// Makes a new file in `folder`, and the folder. Throws FileError.
  [[gnu::cold]] explicit EventFile(const std::filesystem::path& folder) {
    std::error_code reason;
    std::filesystem::create_directories(folder, reason);
    if (reason) fail<FileError>(folder.string(), ": cannot be made: ", reason.message());
    // The name that readers look for: a time by which files are in order, the host, and what makes it the only one.
    static std::atomic<int> number = 0;
    char host[256] = {};
    if (::gethostname(host, sizeof host - 1) != 0 || host[0] == 0) std::strcpy(host, "host");
    const auto seconds = static_cast<long long>(now());
    const std::string name = "events.out.tfevents." + std::to_string(seconds) + "." + host + "." +
                             std::to_string(::getpid()) + "." + std::to_string(number++);
    file_.emplace(std::filesystem::absolute(folder) / name, O_CREAT | O_EXCL);
    append(event(0).text(3, "brain.Event:2"));
  }

  const std::filesystem::path& path() const { return file_->path(); }

  /// Readers forget what other files of the folder have from `step` on: the run does these steps again.
  [[gnu::cold]] void restart_at(Index step) { append(event(step).message(7, detail::ProtoMessage().whole(1, 1))); }

  /// A point of a curve. Throws FileError, as all below.
  [[gnu::cold]] void scalar(Index step, std::string_view tag, double value) {
    summary(step, detail::ProtoMessage().text(1, tag).number(2, static_cast<float>(value)));
  }

  /// Counts of the values `first`, `first` + 1, …, each of which becomes a bar. Counts that are 0 altogether are left
  /// out.
  [[gnu::cold]] void histogram(Index step, std::string_view tag, std::span<const Index> counts, double first = 0) {
    double number = 0, sum = 0, squares = 0;
    std::vector<double> limits, values;
    for (const Index count : counts) {
      const double value = first + static_cast<double>(limits.size()), times = static_cast<double>(count);
      number += times, sum += times * value, squares += times * value * value;
      limits.push_back(value + 1), values.push_back(times);
    }
    if (number == 0) return;
    detail::ProtoMessage bars;
    if (first != 0) bars.number(1, first);  // where the first bar begins
    bars.number(2, first + static_cast<double>(counts.size())).number(3, number).number(4, sum);
    bars.number(5, squares).numbers(6, limits).numbers(7, values);
    summary(step, detail::ProtoMessage().text(1, tag).message(5, bars));
  }

  /// A text, in Markdown. What is no UTF-8 becomes U+FFFD, because readers refuse it.
  [[gnu::cold]] void text(Index step, std::string_view tag, std::string_view value) {
    constexpr std::uint64_t strings = 7;
    detail::ProtoMessage tensor, shape, one;
    one.whole(1, 1), shape.message(2, one);
    tensor.whole(1, strings).message(2, shape).text(8, detail::with_replacements(value));
    summary(step, detail::ProtoMessage().text(1, tag).message(8, tensor).message(9, plugin("text", {})));
  }

  /// What the run was started with: the members of an object, of which those that are no numbers, words or truths are
  /// written as JSON.
  [[gnu::cold]] void hyperparameters(const Json& values) {
    detail::ProtoMessage start;
    for (const auto& [name, value] : values.members()) {
      detail::ProtoMessage wrapped;
      if (value.is_boolean()) {
        wrapped.whole(4, value == true ? 1 : 0);
      } else if (value.is_number()) {
        wrapped.number(2, value.number());
      } else {
        wrapped.text(3, detail::with_replacements(value.is_string() ? value.string() : value.dump()));
      }
      start.message(1, detail::ProtoMessage().text(1, detail::with_replacements(name)).message(2, wrapped));
    }
    hyperparameter_part("_hparams_/session_start_info", 3, start.number(5, now()));
  }

  /// The run's end, for the table of hyperparameters.
  [[gnu::cold]] void end(bool success) {
    hyperparameter_part("_hparams_/session_end_info", 4,
                        detail::ProtoMessage().whole(1, success ? 1 : 2).number(2, now()));
  }

 private:
  static double now() {
    return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  }
  static detail::ProtoMessage event(Index step) {
    return detail::ProtoMessage().number(1, now()).whole(2, static_cast<std::uint64_t>(step));
  }
  static detail::ProtoMessage plugin(std::string_view name, std::string_view content) {
    detail::ProtoMessage data;
    data.text(1, name);
    if (!content.empty()) data.text(2, content);
    return detail::ProtoMessage().message(1, data);
  }
  void hyperparameter_part(std::string_view tag, std::uint32_t field, const detail::ProtoMessage& part) {
    detail::ProtoMessage content;
    content.whole(1, 0).message(field, part);
    summary(0, detail::ProtoMessage().text(1, tag).message(9, plugin("hparams", content.bytes())));
  }
  void summary(Index step, const detail::ProtoMessage& value) {
    append(event(step).message(5, detail::ProtoMessage().message(1, value)));
  }

  /// One record in one write, so that no reader sees a part of it for long.
  void append(const detail::ProtoMessage& message) {
    const auto put = [](std::string& to, std::uint64_t value, std::size_t bytes) {
      for (std::size_t i = 0; i < bytes; ++i) to += static_cast<char>((value >> (8 * i)) & 255);
    };
    std::string record;
    put(record, message.bytes().size(), 8);
    put(record, detail::masked_checksum(record), 4);
    record += message.bytes();
    put(record, detail::masked_checksum(message.bytes()), 4);
    file_->append(record);
  }

  std::optional<detail::AppendedFile> file_;
};

}  // namespace tinymoe::inline v0_1
