#pragma once
/// @file
/// The routing of generated stories as a file for other programs: arrays for NumPy (.npz), or JSON lines.

#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/utf8.hpp"
#include "tinymoe/files/atomic.hpp"
#include "tinymoe/files/json_value.hpp"
#include "tinymoe/files/json_writer.hpp"
#include "tinymoe/files/npz.hpp"
#include "tinymoe/layers/routing.hpp"
#include "tinymoe/sample/generate.hpp"
#include "tinymoe/text/token_pieces.hpp"
#include "tinymoe/text/tokenizer.hpp"

namespace tinymoe::inline v0_1 {

namespace detail {

/// The number whose shortest decimal text is that of a float, so that JSON is short; null if it is not finite.
inline Json json_number(float value) {
  if (!std::isfinite(value)) return nullptr;
  char text[32];
  const auto end = std::to_chars(text, text + sizeof text, value).ptr;
  double number = 0;
  std::from_chars(text, end, number);
  return number;
}

/// One line for each token.
[[gnu::cold]] inline void write_trace_lines(FileWriter& file, std::span<const Story> stories,
                                            const Tokenizer& tokenizer) {
  for (std::size_t s = 0; s < stories.size(); ++s) {
    const Story& story = stories[s];
    for (std::size_t i = 0; i < story.ids.size(); ++i) {
      const std::string piece = token_piece(tokenizer, story.ids, i);
      Json line = {{"story", s},
                   {"position", i},
                   {"token", story.ids[i]},
                   {"text", with_replacements(piece)},
                   {"generated", std::cmp_greater(i, story.prompt_tokens)}};
      if (find_invalid_utf8(piece) != std::string_view::npos) {
        Json bytes = Json::array();
        for (const char byte : piece) bytes.push_back(static_cast<int>(static_cast<unsigned char>(byte)));
        line["bytes"] = std::move(bytes);
      }
      Json layers = Json::array();
      for (const ExpertChoices& choices : story.experts) {
        if (std::cmp_greater_equal(i, choices.tokens())) continue;  // the model has not read it
        Json experts = Json::array(), gates = Json::array(), logits = Json::array();
        const auto k = static_cast<std::size_t>(choices.choices), e = static_cast<std::size_t>(choices.experts);
        for (std::size_t pair = i * k; pair < (i + 1) * k; ++pair) {
          if (!choices.selected[pair].taken()) continue;
          experts.push_back(choices.selected[pair].expert());
          gates.push_back(json_number(choices.gate[pair]));
        }
        for (std::size_t at = i * e; at < (i + 1) * e && !choices.logit.empty(); ++at) {
          logits.push_back(json_number(choices.logit[at]));
        }
        layers.push_back({{"layer", choices.layer},
                          {"experts", std::move(experts)},
                          {"gates", std::move(gates)},
                          {"logits", std::move(logits)}});
      }
      line["layers"] = std::move(layers);
      file.write(line.dump() + "\n");
    }
  }
}

/// One array for each mixture and kind of number, whose rows are the tokens of all stories.
[[gnu::cold]] inline void write_trace_arrays(FileWriter& file, std::span<const Story> stories,
                                             const Tokenizer& tokenizer) {
  std::vector<std::int32_t> story_of, position, token;
  std::vector<bool> generated;
  std::vector<std::uint8_t> text;
  std::vector<std::int64_t> ends = {0};
  for (std::size_t s = 0; s < stories.size(); ++s) {
    for (std::size_t i = 0; i < stories[s].ids.size(); ++i) {
      story_of.push_back(static_cast<std::int32_t>(s));
      position.push_back(static_cast<std::int32_t>(i));
      token.push_back(stories[s].ids[i]);
      generated.push_back(std::cmp_greater(i, stories[s].prompt_tokens));
      const std::string piece = token_piece(tokenizer, stories[s].ids, i);
      text.insert(text.end(), piece.begin(), piece.end());
      ends.push_back(std::ssize(text));
    }
  }
  const std::size_t rows = token.size();
  NpzWriter npz(file);
  const auto add = [&]<class T>(const std::string& name, const std::vector<T>& values, std::size_t cols = 0) {
    std::vector<std::size_t> shape = {cols > 0 ? rows : values.size()};
    if (cols > 0) shape.push_back(cols);
    npz.add(name, std::span<const T>(values), shape);
  };
  add("story", story_of), add("position", position), add("token", token);
  const std::vector<std::uint8_t> made(generated.begin(), generated.end());
  npz.add("generated", std::span(reinterpret_cast<const bool*>(made.data()), rows), {rows});
  add("text_bytes", text), add("text_ends", ends);

  const std::vector<ExpertChoices>* mixtures = nullptr;
  for (const Story& story : stories) {
    if (!story.experts.empty()) mixtures = &story.experts;
  }
  for (std::size_t m = 0; mixtures != nullptr && m < mixtures->size(); ++m) {
    const ExpertChoices& of = (*mixtures)[m];
    const auto k = static_cast<std::size_t>(of.choices), e = static_cast<std::size_t>(of.experts);
    std::vector<std::int32_t> experts;
    std::vector<float> gates, logits;
    for (const Story& story : stories) {
      const std::size_t tokens = story.ids.size(), first = experts.size() / k;
      if (m < story.experts.size()) {
        const ExpertChoices& choices = story.experts[m];
        for (const ChosenExpert chosen : choices.selected) {
          experts.push_back(chosen.taken() ? static_cast<std::int32_t>(chosen.expert()) : -1);
        }
        gates.insert(gates.end(), choices.gate.begin(), choices.gate.end());
        logits.insert(logits.end(), choices.logit.begin(), choices.logit.end());
      }
      // The model has not read the last token of a story that was cut.
      experts.resize((first + tokens) * k, -1);
      gates.resize((first + tokens) * k, 0.0f);
      logits.resize((first + tokens) * e, std::numeric_limits<float>::quiet_NaN());
    }
    const std::string layer = "layer_" + std::to_string(of.layer) + "_";
    add(layer + "experts", experts, k), add(layer + "gates", gates, k), add(layer + "logits", logits, e);
  }
  npz.finish();
}

}  // namespace detail

/// Whether `save_trace` knows the format of a file by its name.
inline bool is_trace_file(const std::filesystem::path& path) {
  const auto extension = path.extension();
  return extension == ".npz" || extension == ".json" || extension == ".jsonl";
}

/// Writes what the routers did for each token of stories that were traced (`SessionOptions::trace`), whole or not at
/// all: arrays if the name ends with .npz, JSON lines if it ends with .json or .jsonl (docs/experts.md). Throws
/// OptionError for another name, FileError if it cannot be written.
[[gnu::cold]] inline void save_trace(const std::filesystem::path& path, std::span<const Story> stories,
                                     const Tokenizer& tokenizer) {
  if (!is_trace_file(path)) {
    fail<OptionError>(path.string(), ": is no name of a trace; end it with .npz, .json or .jsonl");
  }
  write_file_atomically(path, [&](FileWriter& file) {
    if (path.extension() == ".npz") {
      detail::write_trace_arrays(file, stories, tokenizer);
    } else {
      detail::write_trace_lines(file, stories, tokenizer);
    }
  });
}

}  // namespace tinymoe::inline v0_1
