#pragma once
/// @file
/// The weights of a model in one safetensors file, or in several beside an index, as the hub has large models:
/// model.safetensors, or model.safetensors.index.json with {"weight_map": {tensor: file}}.

#include <cstddef>
#include <filesystem>
#include <functional>
#include <initializer_list>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/files/json.hpp"
#include "tinymoe/files/json_value.hpp"
#include "tinymoe/files/paths.hpp"
#include "tinymoe/files/safetensors.hpp"

namespace tinymoe::inline v0_1 {

/// A safetensors file, or its shards where there are only these, as one file of all their tensors.
class SafetensorsShards {
 public:
  /// Opens `file`, or the shards that `file`.index.json names if there is no such file. Throws FileError as
  /// `Safetensors`, and for an index that does not agree with its shards: one is missing or lies elsewhere, or a tensor
  /// is not where the index says.
  [[gnu::cold]] explicit SafetensorsShards(const std::filesystem::path& file) : path_(file) {
    const auto index = std::filesystem::path(file) += ".index.json";
    if (detail::is_there(file) || !detail::is_there(index)) {
      add(file);
    } else {
      path_ = index;
      open_shards();
    }
  }

  /// All tensors, file by file in the order of their bytes.
  const std::vector<std::string>& names() const { return names_; }
  bool contains(std::string_view tensor) const { return shard_of_.find(tensor) != shard_of_.end(); }
  /// The file, or the index of the shards.
  const std::filesystem::path& path() const { return path_; }

  /// As the functions of `Safetensors`.
  const detail::StoredTensorView& info(std::string_view tensor) const { return shard(tensor).info(tensor); }
  template <class T>
  void read(std::string_view tensor, std::span<const Index> shape, std::span<T> out) const {
    shard(tensor).read(tensor, shape, out);
  }
  std::span<const std::byte> bytes(std::string_view tensor, std::span<const Index> shape) const {
    return shard(tensor).bytes(tensor, shape);
  }

 private:
  void add(const std::filesystem::path& file) {
    shards_.emplace_back(file);
    for (const std::string& tensor : shards_.back().names()) {
      if (!shard_of_.emplace(tensor, shards_.size() - 1).second) {
        fail<FileError>(file.string(), ": tensor ", tensor, " is in another shard, too; take the shards of one model");
      }
      names_.push_back(tensor);
    }
  }

  [[gnu::cold]] void open_shards() {
    const std::string name = path_.string();
    const Json index = read_json(path_, std::size_t{64} << 20);
    const Json& map = json_member(index, "weight_map", name);
    if (!map.is_object() || map.size() == 0) {
      fail<FileError>(name, ": \"weight_map\": expected an object of tensors and their files, found ", map.kind());
    }
    std::map<std::string, std::size_t> files;
    for (const auto& [tensor, file] : map.members()) ++files[json_value<std::string>(file, tensor, name)];
    for (const auto& [file, tensors] : files) {
      const auto path = path_.parent_path() / file;
      if (file.empty() || std::filesystem::path(file).filename() != file || file == "." || file == "..") {
        fail<FileError>(name, ": expected the names of files beside it, found \"", file, "\"");
      }
      if (!detail::is_there(path)) {
        fail<FileError>(path.string(), ": is missing, one of ", files.size(), " shards of ", path_.filename().string(),
                        "; copy it into the folder");
      }
      add(path);
    }
    for (const auto& [tensor, file] : map.members()) {
      const auto found = shard_of_.find(tensor);
      if (found == shard_of_.end()) {
        fail<FileError>(name, ": tensor ", tensor, " should be in ", file.string(),
                        ", which does not have it; take the ", "index and the shards of one model");
      }
      const std::string held = shards_[found->second].path().filename().string();
      if (held != file.string()) {
        fail<FileError>(name, ": tensor ", tensor, " should be in ", file.string(), " and is in ", held,
                        "; take the index ", "and the shards of one model");
      }
    }
    if (names_.size() == map.size()) return;
    for (const std::string& tensor : names_) {
      if (map.contains(tensor)) continue;
      fail<FileError>(name, ": does not have the tensor ", tensor, " of ", shard(tensor).path().filename().string(),
                      "; take the index and the shards of one model");
    }
  }

  const Safetensors& shard(std::string_view tensor) const {
    const auto found = shard_of_.find(tensor);
    if (found == shard_of_.end()) fail<MismatchError>(path_.string(), ": tensor ", tensor, " is missing");
    return shards_[found->second];
  }

  std::filesystem::path path_;
  std::vector<Safetensors> shards_;
  std::map<std::string, std::size_t, std::less<>> shard_of_;
  std::vector<std::string> names_;
};

}  // namespace tinymoe::inline v0_1
