#pragma once
/// @file
/// Stories from Parquet files, by Arrow's C++ library (tried with 26): an optional part, which needs its headers here
/// and libparquet and libarrow in the link. Nothing else in tinymoe includes this file.

#include <arrow/api.h>
#include <arrow/io/file.h>
#include <parquet/arrow/reader.h>

#include <cstdint>
#include <filesystem>
#include <iterator>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/utf8.hpp"
#include "tinymoe/text/corpora/json_stories.hpp"

namespace tinymoe::inline v0_1 {

namespace detail {

/// Throws FileError unless Arrow has done it.
inline void expect_arrow(const arrow::Status& status, const std::filesystem::path& path) {
  if (status.ok()) return;
  std::string reason = status.message();
  if (const auto end = reason.find('\n'); end != std::string::npos) reason.resize(end);
  fail<FileError>(path, ": is cut, corrupt or no Parquet file: ", reason);
}
template <class T>
T arrow_value(arrow::Result<T> result, const std::filesystem::path& path) {
  expect_arrow(result.status(), path);
  return std::move(result).ValueUnsafe();
}

/// The number of the column that has the stories. Throws FileError.
inline int story_column(const arrow::Schema& schema, const std::string& field, const std::filesystem::path& path) {
  std::vector<std::string> names{field};
  if (field.empty()) names.assign(std::begin(usual_story_fields), std::end(usual_story_fields));
  int column = -1;
  for (const auto& name : names) {
    const int found = schema.GetFieldIndex(name);
    if (found >= 0 && column >= 0) {
      fail<FileError>(path, ": has the columns \"text\" and \"story\"; name the one that has the story");
    }
    if (found >= 0) column = found;
  }
  if (column < 0) {
    fail<FileError>(path, ": expected the column ", field.empty() ? "\"text\" or \"story\"" : '"' + field + '"');
  }
  return column;
}

}  // namespace detail

/// Calls `visit` with the story of each row, in their order. For `StoryFileOptions::parquet`. Throws FileError for a
/// file that is cut or corrupt, has no such column of strings, or a row without a story or with one that is not UTF-8, whose number it
/// names. How
/// much memory a file takes is Arrow's decision: about a row group.
inline void read_parquet(const std::filesystem::path& path, const std::string& field,
                         const detail::StoryVisitor& visit) {
  const auto file = detail::arrow_value(arrow::io::ReadableFile::Open(path.string()), path);
  parquet::arrow::FileReaderBuilder builder;
  detail::expect_arrow(builder.Open(file), path);
  std::unique_ptr<parquet::arrow::FileReader> reader;
  detail::expect_arrow(builder.Build(&reader), path);
  std::shared_ptr<arrow::Schema> schema;
  detail::expect_arrow(reader->GetSchema(&schema), path);
  const int column = detail::story_column(*schema, field, path);
  std::uint64_t row = 0;
  for (int group = 0; group < reader->num_row_groups(); ++group) {
    std::shared_ptr<arrow::ChunkedArray> chunks;
    detail::expect_arrow(reader->RowGroup(group)->Column(column)->Read(&chunks), path);
    for (const auto& chunk : chunks->chunks()) {
      const auto pass = [&](const auto& strings) {
        for (std::int64_t i = 0; i < strings.length(); ++i) {
          ++row;
          if (strings.IsNull(i)) fail<FileError>(path, ": row ", row, ": expected a story, found null");
          const std::string_view story = strings.GetView(i);
          if (const auto wrong = find_invalid_utf8(story); wrong != std::string_view::npos) {
            fail<FileError>(path, ": row ", row, ": expected UTF-8 text, found another byte at offset ", wrong,
                            " of the story");
          }
          visit(story);
        }
      };
      if (const auto* strings = dynamic_cast<const arrow::StringArray*>(chunk.get())) {
        pass(*strings);
      } else if (const auto* large = dynamic_cast<const arrow::LargeStringArray*>(chunk.get())) {
        pass(*large);
      } else {
        fail<FileError>(path, ": expected a column of strings, found one of ", chunk->type()->ToString());
      }
    }
  }
}

}  // namespace tinymoe::inline v0_1
