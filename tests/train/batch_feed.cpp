// BatchFeed and TokenSlots: the tokens of each step, their place on the backend, and the time of their upload.

#include "tinymoe/train/batch_feed.hpp"

#include <vector>

#include "support/catch.hpp"
#include "train/lagging.hpp"
#include "train/tiny.hpp"

namespace tinymoe_test::batch_feed {

namespace {

std::vector<Token> on_host(Lagging& backend, View<const Token> row) {
  std::vector<Token> tokens(static_cast<std::size_t>(row.cols));
  backend.copy_to_host(tokens.data(), row.data, tokens.size() * sizeof(Token));
  return tokens;
}

std::vector<Token> part(std::span<const Token> tokens, Index i, Index size) {
  const auto from = tokens.subspan(static_cast<std::size_t>(i * size), static_cast<std::size_t>(size));
  return {from.begin(), from.end()};
}

}  // namespace

TEST_CASE("A feed gives each step its micro-batches, on the host and on the backend", "[feed]") {
  for (const Batching batching : {Batching::packed, Batching::padded}) {
    Lagging backend;
    BatchFeed<Lagging> feed(backend, tiny_data(),
                            {.batch = 3,
                             .time = 32,
                             .micro_batches = 2,
                             .batching = batching,
                             .end_of_story = tiny_tokenizer().end_of_story(),
                             .seed = Seed{4}});
    const Batches packed(tiny_data(), 3, 32, Seed{4});
    const PaddedBatches padded(tiny_data(), tiny_tokenizer().end_of_story(), 3, 32, Seed{4});
    std::vector<Token> inputs(96), targets(96);
    // In order, the same again, one that was prefetched, and one that was not although another was.
    for (const Index step : {0, 1, 1, 2, 7, 3}) {
      if (step == 2 || step == 7) feed.prefetch(2);
      const auto batch = feed.next(step);
      REQUIRE(batch.micro_batches() == 2);
      CHECK(feed.current().inputs.data() == batch.inputs.data());
      for (Index i = 0; i < 2; ++i) {
        const Index number = step * 2 + i;
        batching == Batching::packed ? packed.fill(number, inputs, targets) : padded.fill(number, inputs, targets);
        CHECK(part(batch.inputs, i, 96) == inputs);
        CHECK(part(batch.targets, i, 96) == targets);
        const auto there = batch.micro_batch(i);
        CHECK(on_host(backend, there.inputs) == inputs);
        CHECK(on_host(backend, there.targets) == targets);
        CHECK(there.pads == std::count_if(inputs.begin(), inputs.end(), [](Token token) { return token < 0; }));
        CHECK((there.pads > 0) == (batching == Batching::padded));
      }
    }
  }
}

TEST_CASE("A micro-batch that a slot holds is not uploaded again", "[feed]") {
  Lagging backend;
  BatchFeed<Lagging> feed(backend, tiny_data(), {.batch = 2, .time = 8, .seed = Seed{4}});
  const auto uploads = [&](auto&& f) {
    backend.log.clear();
    f();
    return std::count(backend.log.begin(), backend.log.end(), 'u') / 2;  // inputs and targets
  };
  const auto take = [&](Index step) { return uploads([&] { feed.next(step).micro_batch(0); }); };
  CHECK(take(0) == 1);
  CHECK(take(0) == 0);
  CHECK(uploads([&] { feed.prefetch(1); }) == 1);
  CHECK(uploads([&] { feed.prefetch(1); }) == 0);
  CHECK(take(0) == 0);  // a step that was skipped runs again, and the next one's tokens wait
  CHECK(take(1) == 0);
  CHECK(uploads([&] { feed.prefetch(2); }) == 1);
  CHECK(take(3) == 1);  // other than what was foreseen
}

TEST_CASE("After forget, slots upload the tokens that they are given", "[feed]") {
  Lagging backend;
  detail::TokenSlots<Lagging> slots(backend, 4);
  const std::vector<Token> first = {1, 2, 3, 4}, second = {5, 6, 7, -1};
  CHECK(on_host(backend, slots.take(0, 0, first, first).inputs) == first);
  CHECK(on_host(backend, slots.take(0, 0, second, second).inputs) == first);  // known by its numbers
  slots.forget();
  const auto found = slots.take(0, 0, second, second);
  CHECK(on_host(backend, found.inputs) == second);
  CHECK(found.pads == 1);
  // What is read now stays until the next one is taken, whatever is sent ahead meanwhile.
  slots.send_ahead(1, 0, first, first);
  CHECK(on_host(backend, found.inputs) == second);
  const auto third = slots.take(0, 1, second, first);
  CHECK(on_host(backend, third.targets) == first);
  const auto ahead = slots.take(1, 0, second, second);
  CHECK(on_host(backend, ahead.inputs) == first);
  CHECK(ahead.slot != third.slot);
}

}  // namespace tinymoe_test::batch_feed
