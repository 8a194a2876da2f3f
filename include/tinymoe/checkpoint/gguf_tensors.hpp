#pragma once
/// @file
/// Writes and reads the tensors of a GGUF file, by the names of the model's.

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tinymoe/checkpoint/gguf_places.hpp"
#include "tinymoe/checkpoint/gguf_shape.hpp"
#include "tinymoe/core/bfloat16.hpp"
#include "tinymoe/core/block_weights.hpp"
#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"
#include "tinymoe/core/weights.hpp"
#include "tinymoe/files/gguf.hpp"
#include "tinymoe/files/gguf_types.hpp"
#include "tinymoe/files/gguf_values.hpp"
#include "tinymoe/files/gguf_writer.hpp"
#include "tinymoe/files/safetensors_writer.hpp"
#include "tinymoe/files/stored_type.hpp"

namespace tinymoe::inline v0_1::detail {

/// The block format of a type; nothing where it is none.
template <class F>
void with_gguf_blocks(GgufType type, F&& f) {
  if (type == GgufType::q8_0) f(Int8{});
  if (type == GgufType::q4_0) f(Int4{});
}

/// A tensor of a model as it lies there: rows of float32, or of blocks, the last of which may be filled up.
struct GgufSource {
  GgufType type = GgufType::float32;
  std::vector<std::byte> bytes;

  std::size_t row_bytes(Index cols) const {
    const auto elements = static_cast<Index>(gguf_facts(type).elements);
    return gguf_row_bytes(type, (cols + elements - 1) / elements * elements);
  }
};

/// The type of a tensor in a file whose weights are of `type`. Rows that are no whole blocks stay float32; llama.cpp's
/// own quantizer takes a float type for them, too.
inline GgufType gguf_type_of(const GgufPlace& place, GgufType type) {
  const bool whole = place.cols % static_cast<Index>(gguf_facts(type).elements) == 0;
  return place.matrix && whole ? type : GgufType::float32;
}

/// Stores a row of floats in a type, from the first byte of `to`. The row's last block may be filled up with zeros.
/// Throws OptionError for a weight that a block cannot hold.
[[gnu::cold]] inline void store_gguf_row(std::span<const float> row, GgufType type, std::byte* to) {
  if (type == GgufType::float32) std::memcpy(to, row.data(), row.size_bytes());
  if (type == GgufType::bfloat16) {
    for (std::size_t i = 0; i < row.size(); ++i) {
      const bfloat16 value(row[i]);
      std::memcpy(to + i * sizeof value, &value, sizeof value);
    }
  }
  with_gguf_blocks(type, [&]<class W>(W) {
    WeightFormat<W>::encode(View<const float>(row.data(), 1, static_cast<Index>(row.size())), to);
  });
}

/// Writes one tensor. `fetch(name)` gives a tensor of the model.
[[gnu::cold]] inline void write_gguf_tensor(GgufWriter& writer, const GgufPlace& place, GgufType type,
                                            const std::function<GgufSource(const std::string&)>& fetch) {
  std::vector<std::byte> zeros(gguf_row_bytes(type, place.cols)), row;
  std::vector<float> values(static_cast<std::size_t>(place.cols));
  store_gguf_row(values, type, zeros.data());
  for (const GgufPart& part : place.parts) {
    row = zeros;
    const GgufSource source = part.hub.empty() ? GgufSource{} : fetch(part.hub);
    const std::size_t stride = source.row_bytes(part.cols);
    const bool whole = part.cols % static_cast<Index>(gguf_facts(type).elements) == 0;
    values.assign(static_cast<std::size_t>(part.cols), 0.0f);
    for (Index r = 0; r < part.rows; ++r) {
      if (!part.hub.empty()) {
        const std::byte* from = source.bytes.data() + static_cast<std::size_t>(part.source(r)) * stride;
        if (source.type == type && whole) {
          std::memcpy(row.data(), from, stride);
        } else {
          gguf_to_floats(source.type, from, values);
          try {
            store_gguf_row(values, type, row.data());
          } catch (const OptionError& error) {
            fail<OptionError>(part.hub, ": ", error.what());
          }
        }
      }
      writer.append(place.name, row);
    }
  }
}

/// The tensors of a file, for a model of a shape. The constructor checks that the file has all of them and no others,
/// and that what must be zeros are. Throws MismatchError and FileError that name the tensor.
class GgufTensors {
 public:
  [[gnu::cold]] GgufTensors(const Gguf& file, const GgufShape& shape) : file_(&file), places_(gguf_places(shape)) {
    std::size_t found = 0;
    for (const GgufPlace& place : places_) {
      const GgufTensorView* tensor = file.tensor(place.name);
      if (tensor == nullptr) {
        fail<MismatchError>(file.name(), ": tensor ", place.name, " is missing; is the file of another model?");
      }
      if (tensor->shape != place.shape) {
        fail<MismatchError>(file.name(), ": tensor ", place.name, ": expected the shape ", shape_text(place.shape),
                            ", found ", shape_text(tensor->shape), ", the fastest dimension first");
      }
      if (place.cols == 1 && gguf_facts(tensor->type).elements > 1) {
        fail<MismatchError>(file.name(), ": tensor ", place.name, " is ", gguf_type_name(tensor->type),
                            ", expected floating-point numbers");
      }
      ++found;
      Index row = 0;
      for (const GgufPart& part : place.parts) {
        if (!part.hub.empty()) of_hub_[part.hub] = {&place, &part, tensor, row};
        check_zeros(place, part, *tensor, row);
        row += part.rows;
      }
    }
    if (found == file.names().size()) return;
    for (const std::string_view name : file.names()) {
      if (std::any_of(places_.begin(), places_.end(), [&](const GgufPlace& place) { return place.name == name; }))
        continue;
      fail<MismatchError>(file.name(), ": tensor ", name, " does not belong to this model (and ",
                          file.names().size() - found, " in all do not); use a program whose model has it");
    }
  }

  /// One of the model's tensors as float32. Throws MismatchError if the file has none of this size, FileError for a
  /// number that is not finite.
  [[gnu::cold]] void read(const std::string& hub, std::span<float> out) const {
    const Found& found = find(hub);
    const auto& [place, part, tensor, row] = found;
    const auto cols = static_cast<std::size_t>(part->cols);
    if (out.size() != static_cast<std::size_t>(part->rows) * cols) refuse_size(hub, out.size());
    for (Index r = 0; r < part->rows; ++r) {
      const auto to = out.subspan(static_cast<std::size_t>(part->source(r)) * cols, cols);
      gguf_to_floats(tensor->type, row_of(found, r), to);
      const std::size_t at = first_not_finite(std::span<const float>(to));
      if (at == to.size()) continue;
      fail<FileError>(file_->name(), ": tensor ", place->name, ": number ", at, " of row ", row + r, " is ", to[at],
                      ", expected a finite weight");
    }
  }

  /// One of the model's matrices in the blocks of W: the file's where it has them, else rounded to them. Throws as
  /// `read`, MismatchError for blocks of another format, which would be rounded twice, and OptionError for weights that
  /// the format cannot hold.
  template <class W>
  [[gnu::cold]] void read_blocks(const std::string& hub, GgufType wanted, std::span<std::byte> out) const {
    const Found& found = find(hub);
    const auto& [place, part, tensor, row] = found;
    const std::size_t row_bytes = WeightFormat<W>::row_bytes(part->cols);
    if (out.size() != static_cast<std::size_t>(part->rows) * row_bytes) refuse_size(hub, out.size());
    const bool blocks = gguf_facts(tensor->type).elements > 1;
    if (blocks && tensor->type != wanted) {
      fail<MismatchError>(file_->name(), ": tensor ", place->name, " is ", gguf_type_name(tensor->type),
                          ", which would be rounded a second time to ", gguf_type_name(wanted),
                          "; read it into a model of numbers, or take the model that it was made of");
    }
    if (blocks && part->cols % block_weights == 0) {
      for (Index r = 0; r < part->rows; ++r) {
        std::memcpy(out.data() + static_cast<std::size_t>(part->source(r)) * row_bytes, row_of(found, r), row_bytes);
      }
      if (WeightFormat<W>::sound(out)) return;
      fail<FileError>(file_->name(), ": tensor ", place->name, " has a scale that is not finite");
    }
    std::vector<float> values(static_cast<std::size_t>(part->rows * part->cols));
    read(hub, values);
    try {
      WeightFormat<W>::encode(View<const float>(values.data(), part->rows, part->cols), out.data());
    } catch (const OptionError& error) {
      fail<OptionError>(file_->name(), ": tensor ", place->name, ": ", error.what());
    }
  }

 private:
  struct Found {
    const GgufPlace* place = nullptr;
    const GgufPart* part = nullptr;
    const GgufTensorView* tensor = nullptr;
    Index row = 0;  // the part's first, of the tensor
  };

  const std::byte* row_of(const Found& found, Index r) const {
    return found.tensor->bytes.data() +
           static_cast<std::size_t>(found.row + r) * gguf_row_bytes(found.tensor->type, found.place->cols);
  }

  [[gnu::cold]] const Found& find(const std::string& hub) const {
    const auto found = of_hub_.find(hub);
    if (found == of_hub_.end()) fail<MismatchError>(file_->name(), ": has no tensor for ", hub);
    return found->second;
  }

  [[noreturn, gnu::cold]] void refuse_size(const std::string& hub, std::size_t size) const {
    fail<MismatchError>(file_->name(), ": the tensor for ", hub, " has not the size of the model's, ", size);
  }

  /// A vector's rows are numbers; a row of blocks is whole.
  [[gnu::cold]] void check_zeros(const GgufPlace& place, const GgufPart& part, const GgufTensorView& tensor,
                                 Index row) const {
    if (part.cols == place.cols) return;
    std::vector<float> values(static_cast<std::size_t>(place.cols));
    for (Index r = 0; r < part.rows; ++r) {
      const std::size_t bytes = gguf_row_bytes(tensor.type, place.cols);
      gguf_to_floats(tensor.type, tensor.bytes.data() + static_cast<std::size_t>(row + r) * bytes, values);
      const auto first = values.begin() + part.cols;
      if (std::all_of(first, values.end(), [](float value) { return value == 0; })) continue;
      fail<MismatchError>(file_->name(), ": tensor ", place.name, " has weights in row ", row + r,
                          " that this model has not; use a program whose model has them");
    }
  }

  const Gguf* file_;
  std::vector<GgufPlace> places_;
  std::map<std::string, Found> of_hub_;
};

}  // namespace tinymoe::inline v0_1::detail
