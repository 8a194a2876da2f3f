#pragma once
/// @file
/// Generation: prefill of a prompt, then decode token by token until the end of the story.
///
/// Over 300 lines: it is one class.

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
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
#include "tinymoe/text/special_tokens.hpp"
#include "tinymoe/text/tokenizer.hpp"

namespace tinymoe::inline v0_1 {

/// A tokenizer for generation. A story starts after `end_of_story` and ends with it, where the model's files do not
/// name other tokens. The text of a token is its `bytes`, unless the tokenizer is a StreamingTokenizer.
template <class T>
concept StoryTokenizer = requires(const T& tokenizer, std::string_view text, Token token) {
  { tokenizer.encode(text) } -> std::convertible_to<std::vector<Token>>;
  { tokenizer.bytes(token) } -> std::convertible_to<std::string_view>;
  { tokenizer.vocabulary_size() } -> std::convertible_to<Index>;
  { tokenizer.end_of_story() } -> std::convertible_to<Token>;
};
/// A tokenizer whose `decode_after(before, tokens)` gives the text that `tokens` add to that of `before`. Optional.
template <class T>
concept StreamingTokenizer = StoryTokenizer<T> && requires(const T& tokenizer, std::span<const Token> tokens) {
  { tokenizer.decode_after(tokens, tokens) } -> std::convertible_to<std::string>;
};
/// A tokenizer that may put a token of its own before each text, whatever a model's config.json says. Optional.
template <class T>
concept BeginningTokenizer = StoryTokenizer<T> && requires(const T& tokenizer) {
  { tokenizer.begin_of_text() } -> std::convertible_to<std::optional<Token>>;
};

/// A generated story. Its text is the prompt, followed by what the tokenizer's `decode` gives for the generated tokens
/// behind it. So special tokens give no text, and where `decode` gives the prompt back, `text` is `decode(ids)`.
struct Story {
  std::string text;
  Index prompt_tokens = 0;
  Index tokens = 0;             // generated, without the one that ended the story
  bool ended = false;           // by a token that ends texts, not by the limit of tokens
  std::vector<Token> ids = {};  // the one that begins a text, if there is one, the prompt's, the generated tokens
  std::vector<ExpertChoices> experts = {};  // with `trace`: for each mixture, row i has the experts of ids[i]
};

/// Generates stories with one model and tokenizer, several at once. Its session is planned once.
///
/// A story ends at any of the model's `special_tokens`' ends: those that the model's folder names ("eos_token_id" of
/// generation_config.json, or without that file of config.json), or else the tokenizer's end of a story. It begins with
/// the token that the tokenizer puts before each text ("<s>" of Llama's kind), or else the files' "bos_token_id", or
/// else the end of a story.
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
  /// the prompt and then with each new piece of text, in whole UTF-8 characters; all pieces together are the story's
  /// text. If it returns false, the story stops. Throws OptionError, TextError, and MismatchError if the files'
  /// "bos_token_id" is outside the tokenizer's vocabulary.
  template <class OnText>
  Story write(std::string_view prompt, const SampleOptions& options, OnText&& on_text) {
    const std::string_view prompts[] = {prompt};
    return std::move(write_all(std::span<const std::string_view>(prompts), options, [&](Index, std::string_view text) {
                       return goes_on(on_text, text);
                     }).front());
  }

  /// The same, with the text in the result alone.
  Story write(std::string_view prompt, const SampleOptions& options = {}) {
    return write(prompt, options, [](std::string_view) {});
  }

  /// Continues each prompt. One pass decodes one token of all stories under way; further prompts wait until a story
  /// ends. Story i equals that of `write` for prompts[i] with the story number options.story + i, except on a backend
  /// that rounds differently for more rows, as `Cpu` does (docs/features.md). `on_text(i,
  /// string_view)` gets the text of story i as above.
  template <class OnText>
  std::vector<Story> write(std::span<const std::string> prompts, const SampleOptions& options, OnText&& on_text) {
    return write_all(prompts, options, [&](Index i, std::string_view text) { return goes_on(on_text, i, text); });
  }

  /// The same, with the texts in the result alone.
  std::vector<Story> write(std::span<const std::string> prompts, const SampleOptions& options = {}) {
    return write(prompts, options, [](Index, std::string_view) {});
  }

 private:
  /// A story that is being generated.
  struct Writer {
    Index number = 0;    // of its prompt
    Index sequence = 0;  // of the session
    Sampler sampler;
    std::string pending = {};  // text that `on_text` has not got: the beginning of a character
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
    find_special_tokens();
    std::vector<Story> stories(prompts.size());
    std::vector<std::unique_ptr<Writer>> writers;
    // All sequences are free here, even after an exception in an earlier call.
    auto free = free_;
    const std::uint32_t first_story = options.story;
    for (std::size_t next = 0; next < prompts.size() || !writers.empty();) {
      while (next < prompts.size() && !free.empty()) {
        options.story = first_story + static_cast<std::uint32_t>(next);
        writers.push_back(std::make_unique<Writer>(Writer{static_cast<Index>(next), free.back(), Sampler(options)}));
        if (begin(*writers.back(), prompts[next], stories[next], options, on_text)) {
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
    if (special_.begin) story.ids.push_back(*special_.begin);
    story.ids.insert(story.ids.end(), encoded.begin(), encoded.end());
    if (story.ids.empty()) story.ids.push_back(tokenizer_->end_of_story());  // an empty prompt: something must precede
    for (const Token token : encoded) writer.sampler.saw(token);
    writer.pending = prompt;
    if (!show(writer, on_text) || options.tokens == 0) return end(writer, on_text);
    session_.reset(writer.sequence);
    const auto logits = session_.feed(story.ids, writer.sequence);
    trace(story, 0, std::ssize(story.ids));
    return add_token(writer, logits, story, options, on_text);
  }

  /// Generates one token of each story, and removes stories that have ended.
  template <class OnText>
  void step(std::vector<std::unique_ptr<Writer>>& writers, std::vector<Story>& stories, const SampleOptions& options,
            OnText& on_text, std::vector<Index>& free) {
    sequences_.clear();
    tokens_.clear();
    for (const auto& writer : writers) {
      sequences_.push_back(writer->sequence);
      tokens_.push_back(stories[static_cast<std::size_t>(writer->number)].ids.back());
    }
    const auto logits = session_.step(sequences_, tokens_);
    std::size_t left = 0;
    for (std::size_t row = 0; row < writers.size(); ++row) {
      Writer& writer = *writers[row];
      auto& story = stories[static_cast<std::size_t>(writer.number)];
      trace(story, static_cast<Index>(row), 1);
      const auto own = logits.subspan(row * static_cast<std::size_t>(ModelType::Architecture::vocab));
      if (add_token(writer, own, story, options, on_text)) {
        std::swap(writers[left++], writers[row]);
      } else {
        free.push_back(writer.sequence);
      }
    }
    writers.resize(left);
  }

  /// Draws the next token from the logits; false if the story has ended.
  template <class OnText>
  bool add_token(Writer& writer, std::span<const float> logits, Story& story, const SampleOptions& options,
                 OnText& on_text) {
    const Token token = writer.sampler(candidates(logits), story.tokens);
    story.ended = special_.ends(token);
    if (!story.ended) {
      writer.sampler.saw(token);
      const std::string text = text_after(story.ids, token);
      story.ids.push_back(token);
      ++story.tokens;
      story.text += text;
      writer.pending += text;
      if (show(writer, on_text) && story.tokens < options.tokens) return true;
    }
    return end(writer, on_text);
  }

  /// Gives the whole characters of what is pending; false if no more is wanted.
  template <class OnText>
  static bool show(Writer& writer, OnText& on_text) {
    const std::size_t whole = complete_characters(writer.pending);
    const bool wanted = whole == 0 || on_text(writer.number, std::string_view(writer.pending).substr(0, whole));
    writer.pending.erase(0, whole);
    return wanted;
  }

  /// Gives what is left of a story, though it is no whole character; false, as the story has ended.
  template <class OnText>
  static bool end(Writer& writer, OnText& on_text) {
    if (!writer.pending.empty()) on_text(writer.number, writer.pending);
    return false;
  }

  /// The text that a token adds to a story.
  std::string text_after(const std::vector<Token>& ids, Token token) const {
    if constexpr (StreamingTokenizer<TokenizerType>) {
      return tokenizer_->decode_after(std::span(ids), std::span(&token, 1));
    } else {
      return std::string(tokenizer_->bytes(token));
    }
  }

  void find_special_tokens() {
    std::optional<Token> begin;
    if constexpr (BeginningTokenizer<TokenizerType>) begin = tokenizer_->begin_of_text();
    special_ = session_.model().special_tokens().with(begin, tokenizer_->end_of_story());
    if (special_.begin && (*special_.begin < 0 || *special_.begin >= tokenizer_->vocabulary_size())) {
      fail<MismatchError>("the model's \"bos_token_id\" is ", *special_.begin, "; the tokenizer has ",
                          tokenizer_->vocabulary_size(), " tokens");
    }
  }

  /// The logits of the tokens that may be drawn: the tokenizer's, and those that end a text.
  std::span<const float> candidates(std::span<const float> logits) {
    const auto known = logits.first(static_cast<std::size_t>(tokenizer_->vocabulary_size()));
    const auto is_beyond = [&](Token token) {
      return token >= std::ssize(known) && token < ModelType::Architecture::vocab;
    };
    if (std::none_of(special_.end.begin(), special_.end.end(), is_beyond)) return known;
    candidates_.assign(known.begin(), known.end());
    candidates_.resize(static_cast<std::size_t>(ModelType::Architecture::vocab),
                       -std::numeric_limits<float>::infinity());
    for (const Token token : special_.end) {
      if (is_beyond(token)) candidates_[static_cast<std::size_t>(token)] = logits[static_cast<std::size_t>(token)];
    }
    return candidates_;
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
      const auto add = [&](auto& all, const auto& part, Index cols) {
        all.insert(all.end(), part.begin() + first * cols, part.begin() + (first + count) * cols);
      };
      add(to.selected, from.selected, from.choices);
      add(to.gate, from.gate, from.choices);
      add(to.score, from.score, from.experts);
      if (!from.logit.empty()) add(to.logit, from.logit, from.experts);
    }
  }

  Session<ModelType> session_;
  const TokenizerType* tokenizer_;
  bool traces_;
  SpecialTokens special_;
  std::vector<float> candidates_;
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
