#pragma once
// Small tokenizers and files for the tests of this room.

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <initializer_list>
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
  tinymoe::detail::TokenizerParts parts;
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
inline const tinymoe::detail::TokenizerParts& parts_of(const tinymoe::Tokenizer& tokenizer) {
  return tokenizer.as<tinymoe::ByteLevelBpe>()->parts();
}

/// A tokenizer that knows " the", "low" and "er".
inline tinymoe::Tokenizer small_tokenizer() {
  return tokenizer_of({{"t", "h"}, {"th", "e"}, {" ", "the"}, {"l", "o"}, {"lo", "w"}, {"e", "r"}, {"a", "a"}});
}

/// A tokenizer of Llama's kind: with tokens for the bytes and 270 tokens in all, or with 34 for small letters alone.
/// The last token is special: "<|im_end|>".
inline tinymoe::Tokenizer llama_tokenizer(bool bytes) {
  std::vector<tinymoe::VocabularyEntry> names = {{"<unk>"}, {"<s>"}, {"</s>"}};
  for (int byte = 0; bytes && byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", byte);
    names.push_back({name});
  }
  names.push_back({" "});
  for (char letter = 'a'; !bytes && letter <= 'z'; ++letter) names.push_back({std::string(1, letter)});
  for (const char* piece : {"a", "b", "e", "h", "t"}) {
    if (bytes) names.push_back({piece});
  }
  for (const char* piece : {"ab", "th", "the"}) names.push_back({piece});
  if (bytes) names.push_back({" the"});
  names.push_back({"<|im_end|>", true});
  std::vector<float> scores;
  for (std::size_t id = 0; id < names.size(); ++id) scores.push_back(-static_cast<float>(id));
  tinymoe::detail::Llama2cVocabulary vocabulary(std::move(names));
  auto merges = tinymoe::detail::scored_merges(vocabulary, scores);
  return tinymoe::Tokenizer(tinymoe::detail::Llama2cBpe({std::move(vocabulary), std::move(merges)}));
}

/// The tokens of "<|endoftext|>", "<|pad|>" and the bytes.
inline tinymoe::Tokenizer padding_tokenizer() {
  auto parts = parts_of(small_tokenizer());
  parts.vocabulary.push_back({"<|pad|>", true});
  return tinymoe::Tokenizer(tinymoe::ByteLevelBpe(parts));
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

/// The bytes of a character map whose array of 256 units has these at their places, and zeros.
inline std::string character_map_bytes(std::initializer_list<std::pair<std::size_t, std::uint32_t>> units,
                                       const std::string& strings) {
  std::array<std::uint32_t, 257> words{1024};
  for (const auto& [at, unit] : units) words.at(at + 1) = unit;
  std::string bytes;
  for (const std::uint32_t word : words) {
    for (int shift = 0; shift < 32; shift += 8) bytes += static_cast<char>(static_cast<unsigned char>(word >> shift));
  }
  return bytes + strings;
}
