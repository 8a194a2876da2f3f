// What several harnesses do with a tokenizer.

#include "fuzz/tokenizers.hpp"

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fuzz/harness.hpp"

namespace tinymoe_fuzz {

constexpr std::string_view sample_texts[] = {"",
                                             "Once upon a time, there was 1 (one) cat.",
                                             "  two\n\n\tlines \r\n",
                                             "\xc3\xa9\xe4\xb8\xad\xf0\x9f\x91\x8b\xe2\x96\x81x e\xcc\x81",
                                             "<|endoftext|></s><s>",
                                             "\xff\xc3 \xed\xa0\x80"};

void use(const Tokenizer& tokenizer) {
  const Index size = tokenizer.vocabulary_size();
  expect(size > 0, "a tokenizer without tokens");
  for (const Token token : {Token(0), static_cast<Token>(size - 1)}) static_cast<void>(tokenizer.bytes(token));
  for (const std::string_view text : sample_texts) {
    Tokens tokens;
    const bool encoded = accepts([&] { tokens = tokenizer.encode(text); });
    if (!encoded) continue;
    for (const Token token : tokens) expect(token >= 0 && token < size, "a text has a token that is none");
    const std::string whole = tokenizer.decode(tokens);
    std::string pieces;
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      pieces += tokenizer.decode_after(std::span(tokens).first(i), std::span(tokens).subspan(i, 1));
    }
    expect(pieces == whole, "a text decoded token by token is another one");
  }
}

/// Saved and loaded again, it encodes the same.
void use_and_save(const Tokenizer& tokenizer) {
  use(tokenizer);
  const auto path = scratch() / (std::string("saved.") + tokenizer.file_name());
  if (!accepts([&] { tokenizer.save(path); })) return;
  const auto again = Tokenizer::load(path);
  expect(again.fingerprint() == tokenizer.fingerprint(), "a saved tokenizer is another one");
  for (const std::string_view text : sample_texts) {
    Tokens one, other;
    const bool encoded = accepts([&] { one = tokenizer.encode(text); });
    expect(accepts([&] { other = again.encode(text); }) == encoded && one == other,
           "a saved tokenizer encodes otherwise");
  }
}

tinymoe::detail::TokenizerParts byte_parts() {
  tinymoe::detail::TokenizerParts parts;
  for (const unsigned char byte : tinymoe::detail::byte_alphabet.in_order) {
    parts.vocabulary.push_back({std::string(1, static_cast<char>(byte)), false});
  }
  return parts;
}

Tokenizer small_byte_level() {
  tinymoe::detail::TokenizerParts parts = byte_parts();
  const auto find = [&](std::string_view bytes) {
    const auto found = std::find_if(parts.vocabulary.begin(), parts.vocabulary.end(),
                                    [&](const auto& entry) { return entry.bytes == bytes; });
    return static_cast<Token>(found - parts.vocabulary.begin());
  };
  for (const auto& [left, right] : {std::pair{"t", "h"}, {"th", "e"}, {" ", "the"}}) {
    parts.merges.push_back({find(left), find(right)});
    parts.vocabulary.push_back({std::string(left) + right, false});
  }
  parts.vocabulary.push_back({"<|endoftext|>", true});
  return Tokenizer(ByteLevelBpe(parts));
}

}  // namespace tinymoe_fuzz
