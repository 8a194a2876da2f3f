#pragma once
// Small tokenizers and files for the tests of this room.

#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "files/bytes.hpp"
#include "tinymoe/text/byte_level/byte_alphabet.hpp"
#include "tinymoe/text/tokenizer.hpp"

/// The 256 bytes, one token for each pair of texts, in order, and "<|endoftext|>".
inline tinymoe::Tokenizer tokenizer_of(const std::vector<std::pair<std::string, std::string>>& merges) {
  tinymoe::TokenizerParts parts;
  for (const unsigned char byte : tinymoe::detail::byte_alphabet.in_order) {
    parts.vocabulary.push_back({std::string(1, static_cast<char>(byte)), false});
  }
  const auto find = [&](const std::string& bytes) {
    for (std::size_t id = 0; id < parts.vocabulary.size(); ++id) {
      if (parts.vocabulary[id].bytes == bytes) return static_cast<tinymoe::Token>(id);
    }
    throw std::runtime_error("no token " + bytes);
  };
  for (const auto& [left, right] : merges) {
    parts.merges.push_back({find(left), find(right)});
    parts.vocabulary.push_back({left + right, false});
  }
  parts.vocabulary.push_back({"<|endoftext|>", true});
  return tinymoe::Tokenizer(tinymoe::ByteLevelBpe(parts));
}

/// The parts of a byte-level tokenizer.
inline const tinymoe::TokenizerParts& parts_of(const tinymoe::Tokenizer& tokenizer) {
  return tokenizer.as<tinymoe::ByteLevelBpe>()->parts();
}

/// A tokenizer that knows " the", "low" and "er".
inline tinymoe::Tokenizer small_tokenizer() {
  return tokenizer_of({{"t", "h"}, {"th", "e"}, {" ", "the"}, {"l", "o"}, {"lo", "w"}, {"e", "r"}, {"a", "a"}});
}

inline std::string random_bytes(std::mt19937_64& random, std::size_t size) {
  std::string bytes(size, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random());
  return bytes;
}

/// The message of the `E` that `f` throws; another exception goes through, none gives "".
template <class E, class F>
std::string message_if_any(F&& f) {
  try {
    f();
  } catch (const E& error) {
    return error.what();
  }
  return "";
}

inline bool contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }
