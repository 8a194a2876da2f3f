#pragma once
/// @file
/// Stories: a prompt, then token after token until the end of the story.

#include <string>
#include <string_view>

#include "tinymoe/sample/kv_cache.hpp"
#include "tinymoe/sample/sampler.hpp"
#include "tinymoe/text/tokenizer.hpp"

namespace tinymoe {

/// A story that a model wrote.
struct Story {
  std::string text;  // the prompt and what was written
  Index prompt_tokens = 0;
  Index tokens = 0;    // written
  bool ended = false;  // by the end of the story, not by the number of tokens
};

/// Writes stories with one model and tokenizer; its session is planned once.
template <class ModelType>
class Generator {
 public:
  /// Both must outlive the generator. Throws MismatchError if the tokenizer has more tokens than the model.
  Generator(const ModelType& model, const Tokenizer& tokenizer) : session_(model), tokenizer_(&tokenizer) {
    if (tokenizer.vocabulary_size() > ModelType::Architecture::vocab) {
      fail<MismatchError>("the tokenizer has ", tokenizer.vocabulary_size(), " tokens, the model a vocabulary of ",
                          ModelType::Architecture::vocab);
    }
  }

  /// Continues `prompt`, which may be empty: the model begins as it does after the end of a story.
  /// `on_text(string_view)` gets the text as it comes, first the prompt, in whole UTF-8 characters. Throws OptionError,
  /// TextError.
  template <class OnText>
  Story write(std::string_view prompt, const SampleOptions& options, OnText&& on_text) {
    Sampler sampler(options);
    std::vector<Token> tokens = {tokenizer_->end_of_story()};
    const auto encoded = tokenizer_->encode(prompt);
    tokens.insert(tokens.end(), encoded.begin(), encoded.end());
    for (const Token token : encoded) sampler.saw(token);
    Story story{.text = std::string(prompt), .prompt_tokens = std::ssize(encoded)};
    if (!prompt.empty()) on_text(prompt);
    if (options.tokens == 0) return story;
    session_.reset();
    std::string pending;
    auto logits = session_.feed(tokens);
    while (true) {
      const Token token = sampler(logits.first(static_cast<std::size_t>(tokenizer_->vocabulary_size())), story.tokens);
      if (token == tokenizer_->end_of_story()) {
        story.ended = true;
        break;
      }
      sampler.saw(token);
      ++story.tokens;
      const auto bytes = tokenizer_->bytes(token);
      story.text += bytes;
      pending += bytes;
      const std::size_t whole = complete_characters(pending);
      if (whole > 0) on_text(std::string_view(pending).substr(0, whole));
      pending.erase(0, whole);
      if (story.tokens == options.tokens) break;
      logits = session_.feed(std::span(&token, 1));
    }
    if (!pending.empty()) on_text(pending);
    return story;
  }

  Story write(std::string_view prompt, const SampleOptions& options = {}) {
    return write(prompt, options, [](std::string_view) {});
  }

 private:
  /// The length of `text` without a UTF-8 character at its end that is not all there yet.
  static std::size_t complete_characters(std::string_view text) {
    for (std::size_t back = 1; back <= std::min<std::size_t>(3, text.size()); ++back) {
      const auto byte = static_cast<unsigned char>(text[text.size() - back]);
      if (byte < 0x80) break;
      if (byte < 0xC0) continue;  // inside a character
      const std::size_t length = byte >= 0xF0 ? 4 : (byte >= 0xE0 ? 3 : 2);
      return length > back ? text.size() - back : text.size();
    }
    return text.size();
  }

  Session<ModelType> session_;
  const Tokenizer* tokenizer_;
};

/// The prompt and its continuation. For more than one story, keep a Generator.
template <class ModelType>
std::string generate(const ModelType& model, const Tokenizer& tokenizer, std::string_view prompt,
                     const SampleOptions& options = {}) {
  return Generator<ModelType>(model, tokenizer).write(prompt, options).text;
}

}  // namespace tinymoe
