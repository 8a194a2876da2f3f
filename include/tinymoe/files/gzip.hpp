#pragma once
/// @file
/// Gzipped files (RFC 1952), by zlib: an optional part, which needs zlib's header here and `-lz` in the link. Nothing
/// else in tinymoe includes this file.

#include <zlib.h>

#include <algorithm>
#include <array>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <new>
#include <span>
#include <utility>

#include "tinymoe/core/error.hpp"
#include "tinymoe/files/byte_reader.hpp"

namespace tinymoe::inline v0_1 {

namespace detail {

/// What a gzipped file holds: all of its members, one after the other, as gunzip gives them.
class GzipReader final : public ByteReader {
 public:
  GzipReader(std::unique_ptr<ByteReader> file, std::filesystem::path path)
      : file_(std::move(file)), path_(std::move(path)) {
    constexpr int gzip_alone = 16;
    if (::inflateInit2(&stream_, MAX_WBITS + gzip_alone) != Z_OK) throw std::bad_alloc();
  }
  ~GzipReader() override { ::inflateEnd(&stream_); }

  std::size_t read(std::span<char> to) override {
    const auto size = static_cast<uInt>(std::min<std::size_t>(to.size(), UINT_MAX));
    stream_.next_out = reinterpret_cast<Bytef*>(to.data());
    stream_.avail_out = size;
    while (stream_.avail_out == size) {
      if (stream_.avail_in == 0 && !refill()) {
        if (state_ == State::in_member) fail<FileError>(path_, ": is cut: its gzip data end at byte ", taken_);
        return 0;
      }
      if (state_ != State::in_member && !begin_member()) continue;
      const int status = ::inflate(&stream_, Z_NO_FLUSH);
      if (status == Z_STREAM_END) {
        state_ = State::after_member;
      } else if (status == Z_MEM_ERROR) {
        throw std::bad_alloc();
      } else if (status != Z_OK && status != Z_BUF_ERROR) {
        fail<FileError>(path_, ": its gzip data are corrupt at byte ", at(), ": ",
                        stream_.msg != nullptr ? stream_.msg : "no gzip header");
      }
    }
    return size - stream_.avail_out;
  }

 private:
  enum class State { in_member, after_member, padding };

  bool refill() {
    const std::size_t count = file_->read(input_);
    stream_.next_in = reinterpret_cast<Bytef*>(input_.data());
    stream_.avail_in = static_cast<uInt>(count);
    taken_ += count;
    return count > 0;
  }

  /// Whether the next byte begins another member. Zeros behind the last one, as tapes have them, are passed over.
  bool begin_member() {
    if (state_ == State::after_member && *stream_.next_in != 0) {
      ::inflateReset(&stream_);
      state_ = State::in_member;
      return true;
    }
    state_ = State::padding;
    for (; stream_.avail_in > 0; ++stream_.next_in, --stream_.avail_in) {
      if (*stream_.next_in != 0) fail<FileError>(path_, ": has other bytes behind its gzip data, at byte ", at());
    }
    return false;
  }

  /// The file's byte that comes next, counted from 1.
  std::uint64_t at() const { return taken_ - stream_.avail_in + 1; }

  std::unique_ptr<ByteReader> file_;
  std::filesystem::path path_;
  z_stream stream_ = {};
  State state_ = State::in_member;
  std::uint64_t taken_ = 0;  // bytes of the file so far, with those that wait in `input_`
  std::array<char, std::size_t{1} << 16> input_;
};

}  // namespace detail

/// The content of a gzipped file, whose bytes `file` gives; `path` names it in errors. For `StoryFileOptions::gzip`.
/// Its `read` throws FileError that names the byte where the file is cut or corrupt.
inline std::unique_ptr<ByteReader> open_gzip(std::unique_ptr<ByteReader> file, const std::filesystem::path& path) {
  return std::make_unique<detail::GzipReader>(std::move(file), path);
}

}  // namespace tinymoe::inline v0_1
