#pragma once
// What several harnesses do with a tokenizer.

#include <vector>

#include "tinymoe/text/tokenizer.hpp"

namespace tinymoe_fuzz {

using Tokens = std::vector<tinymoe::Token>;

/// Encodes and decodes some texts. Throws `Fault`.
void use(const tinymoe::Tokenizer& tokenizer);
/// The same, saved and loaded again too.
void use_and_save(const tinymoe::Tokenizer& tokenizer);

/// The 256 bytes, as the beginning of a byte-level vocabulary.
tinymoe::detail::TokenizerParts byte_parts();
/// The 256 bytes, "th", "the", " the" and "<|endoftext|>".
tinymoe::Tokenizer small_byte_level();

}  // namespace tinymoe_fuzz
