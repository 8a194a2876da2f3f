#pragma once
// Stories whose reading a terminal shows, and learning a tokenizer from them.

#include <cstddef>
#include <string>
#include <string_view>
#include <tinymoe/text/bpe_trainer.hpp>
#include <tinymoe/text/story_source.hpp>
#include <tinymoe/text/text_identity.hpp>
#include <tinymoe/text/tokenizer.hpp>
#include <utility>

#include "progress.hpp"

namespace examples {

/// The stories of a source. Each time they are read, a terminal shows how much text has passed.
template <tinymoe::StorySource Source>
class ShownStories {
 public:
  /// `what` is done with them: "encoding".
  ShownStories(Source source, std::string what) : source_(std::move(source)), what_(std::move(what)) {}

  template <class F>
  void for_each_story(F&& f) const {
    Percent progress;
    std::size_t bytes = 0;
    source_.for_each_story([&](std::string_view story) {
      f(story);
      bytes += story.size();
      progress.show_bytes(what_, bytes);
    });
  }

  std::string name() const requires tinymoe::IdentifiedStories<Source> { return source_.name(); }
  tinymoe::detail::TextIdentity identity() const requires tinymoe::IdentifiedStories<Source> {
    return source_.identity();
  }

 private:
  Source source_;
  std::string what_;
};

/// Learns a tokenizer, while a terminal shows how far that is.
template <tinymoe::StorySource Source>
tinymoe::Tokenizer learn_tokenizer(const Source& source, tinymoe::TokenizerTraining training) {
  const char* what = "learning a tokenizer";
  Percent progress;
  training.on_progress = [&](Index done, Index all) {
    progress.show(what, static_cast<double>(done) / static_cast<double>(all));
  };
  return tinymoe::train_tokenizer(ShownStories(source, what), std::move(training));
}

}  // namespace examples
