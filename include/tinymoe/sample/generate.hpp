#pragma once
/// @file
/// Generation: prefill of a prompt, then decode token by token until the end of the story.

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/utf8.hpp"
#include "tinymoe/sample/expert_trace.hpp"
#include "tinymoe/sample/sampler.hpp"
#include "tinymoe/sample/session.hpp"
#include "tinymoe/text/tokenizer.hpp"

namespace tinymoe::inline v0_1 {

/// A tokenizer for generation. A story starts after `end_of_story` and ends with it.
template <class T>
concept StoryTokenizer = requires(const T& tokenizer, std::string_view text, Token token) {
  { tokenizer.encode(text) } -> std::convertible_to<std::vector<Token>>;
  { tokenizer.bytes(token) } -> std::convertible_to<std::string_view>;
  { tokenizer.vocabulary_size() } -> std::convertible_to<Index>;
  { tokenizer.end_of_story() } -> std::convertible_to<Token>;
};

/// A generated story.
struct Story {
  std::string text;  // the prompt and the generated text
  Index prompt_tokens = 0;
  Index tokens = 0;                         // generated
  bool ended = false;                       // by end_of_story, not by the limit of tokens
  std::vector<Token> ids = {};              // (1 + prompt_tokens + tokens): end_of_story, prompt, generated tokens
  std::vector<ExpertChoices> experts = {};  // with `trace`: for each mixture, row i has the experts of ids[i]
};

/// Generates stories with one model and tokenizer, several at once. Its session is planned once.
template <class ModelType, StoryTokenizer TokenizerType = Tokenizer>
class Generator {
 public:
  /// Generates up to `options.sequences` stories at once. Model and tokenizer must outlive the generator. Throws
  /// MismatchError if the tokenizer has more tokens than the model, and what Session throws.
  Generator(const ModelType& model, const TokenizerType& tokenizer, const SessionOptions& options = {})
      : session_(model, options), tokenizer_(&tokenizer), traces_(options.trace) {
    if (tokenizer.vocabulary_size() > ModelType::Architecture::vocab) {
      fail<MismatchError>("the tokenizer has ", tokenizer.vocabulary_size(), " tokens, the model a vocabulary of ",
                          ModelType::Architecture::vocab);
    }
    for (Index sequence = session_.sequences(); sequence-- > 0;) free_.push_back(sequence);
  }

  /// Continues `prompt`, which may be empty: the model then starts a new story. `on_text(string_view)` is called with
  /// the prompt and then with each new piece of text, in whole UTF-8 characters. If it returns false, the story stops.
  /// Throws OptionError, TextError.
  template <class OnText>
  Story write(std::string_view prompt, const SampleOptions& options, OnText&& on_text) {
    const std::string_view prompts[] = {prompt};
    return std::move(write_all(std::span<const std::string_view>(prompts), options, [&](Index, std::string_view text) {
                       return goes_on(on_text, text);
                     }).front());
  }

  Story write(std::string_view prompt, const SampleOptions& options = {}) {
    return write(prompt, options, [](std::string_view) {});
  }

  /// Continues each prompt. One pass decodes one token of all stories under way; further prompts wait until a story
  /// ends. Story i equals that of `write` for prompts[i] with the story number options.story + i, except on a backend
  /// that rounds differently for more rows, as `Cpu` does for more than four. `on_text(i, string_view)` gets the text
  /// of story i as above.
  template <class OnText>
  std::vector<Story> write(std::span<const std::string> prompts, const SampleOptions& options, OnText&& on_text) {
    return write_all(prompts, options, [&](Index i, std::string_view text) { return goes_on(on_text, i, text); });
  }

  std::vector<Story> write(std::span<const std::string> prompts, const SampleOptions& options = {}) {
    return write(prompts, options, [](Index, std::string_view) {});
  }

 private:
  /// A story that is being generated.
  struct Writer {
    Index number = 0;    // of its prompt
    Index sequence = 0;  // of the session
    Sampler sampler;
    std::string pending = {};  // the beginning of a character
  };

  template <class OnText, class... Arguments>
  static bool goes_on(OnText& on_text, const Arguments&... arguments) {
    if constexpr (std::is_convertible_v<decltype(on_text(arguments...)), bool>) {
      return on_text(arguments...);
    } else {
      on_text(arguments...);
      return true;
    }
  }

  template <class Prompt, class OnText>
  std::vector<Story> write_all(std::span<const Prompt> prompts, SampleOptions options, OnText&& on_text) {
    options.check();
    std::vector<Story> stories(prompts.size());
    std::vector<Writer> writers;
    // All sequences are free here, even after an exception in an earlier call.
    auto free = free_;
    const std::uint32_t first_story = options.story;
    for (std::size_t next = 0; next < prompts.size() || !writers.empty();) {
      while (next < prompts.size() && !free.empty()) {
        options.story = first_story + static_cast<std::uint32_t>(next);
        writers.push_back({static_cast<Index>(next), free.back(), Sampler(options)});
        if (begin(writers.back(), prompts[next], stories[next], options, on_text)) {
          free.pop_back();
        } else {
          writers.pop_back();
        }
        ++next;
      }
      if (!writers.empty()) step(writers, stories, options, on_text, free);
    }
    return stories;
  }

  /// Reads the prompt and generates the first token; false if the story has ended.
  template <class OnText>
  bool begin(Writer& writer, std::string_view prompt, Story& story, const SampleOptions& options, OnText& on_text) {
    const std::vector<Token> encoded = tokenizer_->encode(prompt);
    story.text = prompt;
    story.prompt_tokens = std::ssize(encoded);
    story.ids = {tokenizer_->end_of_story()};
    story.ids.insert(story.ids.end(), encoded.begin(), encoded.end());
    for (const Token token : encoded) writer.sampler.saw(token);
    if (!prompt.empty() && !on_text(writer.number, prompt)) return false;
    if (options.tokens == 0) return false;
    session_.reset(writer.sequence);
    const auto logits = session_.feed(story.ids, writer.sequence);
    trace(story, 0, std::ssize(story.ids));
    return add_token(writer, logits, story, options, on_text);
  }

  /// Generates one token of each story, and removes stories that have ended.
  template <class OnText>
  void step(std::vector<Writer>& writers, std::vector<Story>& stories, const SampleOptions& options, OnText& on_text,
            std::vector<Index>& free) {
    sequences_.clear();
    tokens_.clear();
    for (const auto& writer : writers) {
      sequences_.push_back(writer.sequence);
      tokens_.push_back(stories[static_cast<std::size_t>(writer.number)].ids.back());
    }
    const auto logits = session_.step(sequences_, tokens_);
    Index row = 0;
    std::erase_if(writers, [&](Writer& writer) {
      auto& story = stories[static_cast<std::size_t>(writer.number)];
      trace(story, row, 1);
      const auto own = logits.subspan(static_cast<std::size_t>(row++ * ModelType::Architecture::vocab));
      if (add_token(writer, own, story, options, on_text)) return false;
      free.push_back(writer.sequence);
      return true;
    });
  }

  /// Draws the next token from the logits; false if the story has ended.
  template <class OnText>
  bool add_token(Writer& writer, std::span<const float> logits, Story& story, const SampleOptions& options,
                 OnText& on_text) {
    const auto size = static_cast<std::size_t>(tokenizer_->vocabulary_size());
    const Token token = writer.sampler(logits.first(size), story.tokens);
    story.ended = token == tokenizer_->end_of_story();
    auto& pending = writer.pending;
    if (!story.ended) {
      writer.sampler.saw(token);
      story.ids.push_back(token);
      ++story.tokens;
      const auto bytes = tokenizer_->bytes(token);
      story.text += bytes;
      pending += bytes;
      const std::size_t whole = complete_characters(pending);
      const bool wanted = whole == 0 || on_text(writer.number, std::string_view(pending).substr(0, whole));
      pending.erase(0, whole);
      if (wanted && story.tokens < options.tokens) return true;
    }
    if (!pending.empty()) on_text(writer.number, pending);
    return false;
  }

  /// Appends `count` rows of the session's trace to the story.
  void trace(Story& story, Index first, Index count) const {
    if (!traces_) return;
    const auto experts = session_.experts();
    story.experts.resize(experts.size());
    for (std::size_t i = 0; i < experts.size(); ++i) {
      auto& to = story.experts[i];
      const auto& from = experts[i];
      to.layer = from.layer, to.experts = from.experts, to.choices = from.choices;
      const auto add = [&](auto& all, const auto& part) {
        all.insert(all.end(), part.begin() + first * from.choices, part.begin() + (first + count) * from.choices);
      };
      add(to.selected, from.selected);
      add(to.gate, from.gate);
    }
  }

  Session<ModelType> session_;
  const TokenizerType* tokenizer_;
  bool traces_;
  std::vector<Index> free_;  // all sequences, the first one last
  std::vector<Index> sequences_;
  std::vector<Token> tokens_;
};

/// The prompt and its continuation. For more than one story, keep a Generator.
template <class ModelType, StoryTokenizer TokenizerType>
std::string generate(const ModelType& model, const TokenizerType& tokenizer, std::string_view prompt,
                     const SampleOptions& options = {}) {
  return Generator(model, tokenizer).write(prompt, options).text;
}

}  // namespace tinymoe::inline v0_1
