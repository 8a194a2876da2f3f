#pragma once
/// @file
/// Stories into the tokens of a token file, on several threads.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/text/merge_dropout.hpp"
#include "tinymoe/text/ordered_workers.hpp"
#include "tinymoe/text/story_source.hpp"
#include "tinymoe/text/token_file.hpp"
#include "tinymoe/text/tokenizer.hpp"

namespace tinymoe::inline v0_1::detail {

/// What encoding leaves beside the tokens: the counts, and each story's size as token files have them.
struct EncodedStories {
  TokenFileCounts counts;
  std::vector<std::byte> sizes;
};

/// Encodes stories on threads and gives the tokens, two or four bytes each, to `sink(std::span<const std::byte>)` in
/// the order of the stories, each followed by the end of a story. Throws TextError if there is no story, OptionError
/// for dropout that the tokenizer does not have.
template <StorySource Stories, class Sink>
EncodedStories encode_stories(const Stories& stories, const Tokenizer& tokenizer, std::size_t token_bytes, int threads,
                              const MergeDropout& dropout, Sink&& sink) {
  Encoder(tokenizer, dropout);  // an error before the threads begin
  EncodedStories encoded;
  const auto make_work = [&]() -> OrderedWorkers::Work {
    return [encoder = std::make_shared<Encoder>(tokenizer, dropout), end = tokenizer.end_of_story(), token_bytes,
            tokens = std::vector<Token>()](StoryBlock& block) mutable {
      tokens.clear();
      block.stories.for_each_story([&](std::string_view story) {
        encoder->encode(story, tokens);
        tokens.push_back(end);
      });
      block.result.resize(tokens.size() * token_bytes);
      for (std::size_t i = 0; i < tokens.size(); ++i) {
        std::memcpy(block.result.data() + i * token_bytes, &tokens[i], token_bytes);  // the lower bytes come first
      }
    };
  };
  const auto finish = [&](StoryBlock& block) {
    auto& counts = encoded.counts;
    counts.tokens += block.result.size() / token_bytes;
    counts.text_bytes += block.stories.bytes();
    counts.stories += static_cast<std::uint64_t>(block.stories.size());
    block.stories.for_each_story([&](std::string_view story) { append_size(encoded.sizes, story.size()); });
    sink(std::span<const std::byte>(block.result));
  };
  OrderedWorkers workers(thread_count(threads), make_work, finish);
  for_each_block(stories, [&](StoryList&& block) { workers.push(std::move(block)); });
  workers.drain();
  if (encoded.counts.stories == 0) fail<TextError>("expected at least one story, found none");
  encoded.counts.size_bytes = encoded.sizes.size();
  return encoded;
}

/// As `encode_stories`, of stories that are tokens already (`TokenFiles`). The size of a story is that of the text that
/// its tokens decode to.
template <StorySource Stories, class Sink>
EncodedStories import_stories(const Stories& stories, const Tokenizer& tokenizer, std::size_t token_bytes,
                              Sink&& sink) {
  EncodedStories encoded;
  auto& counts = encoded.counts;
  std::vector<Token> tokens;
  std::vector<std::byte> bytes;
  stories.for_each_story([&](std::string_view story) {
    tokens.resize(story.size() / sizeof(Token));
    std::memcpy(tokens.data(), story.data(), story.size());
    const std::size_t size = tokenizer.decode(tokens).size();
    append_size(encoded.sizes, size);
    tokens.push_back(tokenizer.end_of_story());
    bytes.resize(tokens.size() * token_bytes);
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      std::memcpy(bytes.data() + i * token_bytes, &tokens[i], token_bytes);  // the lower bytes come first
    }
    counts.tokens += tokens.size();
    counts.text_bytes += size;
    ++counts.stories;
    sink(std::span<const std::byte>(bytes));
  });
  if (counts.stories == 0) fail<TextError>("expected at least one story, found none");
  counts.size_bytes = encoded.sizes.size();
  return encoded;
}

}  // namespace tinymoe::inline v0_1::detail
