// A backend with the required members alone trains and samples. Each optional capability is used if a backend has it,
// with the same results.

#include "tinymoe/backend/capabilities.hpp"

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "support/catch.hpp"
#include "tinymoe/backend/reference.hpp"
#include "tinymoe/sample/session.hpp"
#include "tinymoe/train/trainer.hpp"

namespace tinymoe_test::capabilities {

using namespace tinymoe;

namespace {

/// A foreign backend: what concept Backend asks for and nothing else.
class Bare {
 public:
  using Scalar = float;
  using Master = float;
  using X = View<const float>;
  using Y = View<float>;

  static constexpr const char* name() { return "bare"; }
  Memory allocate(std::size_t bytes) { return oracle_.allocate(bytes); }
  void copy_to_device(void* to, const void* from, std::size_t bytes) { oracle_.copy_to_device(to, from, bytes); }
  void copy_to_host(void* to, const void* from, std::size_t bytes) { oracle_.copy_to_host(to, from, bytes); }
  void zero(void* to, std::size_t bytes) { oracle_.zero(to, bytes); }
  template <RowKernel Kernel>
  void launch(Index rows, const Kernel& kernel) {
    oracle_.launch(rows, kernel);
  }
  void matmul(X x, X w, X bias, Y y) { oracle_.matmul(x, w, bias, y); }
  void matmul_input(X dy, X w, Y dx, Write write) { oracle_.matmul_input(dy, w, dx, write); }
  void matmul_weight(X dy, X x, Y dw) { oracle_.matmul_weight(dy, x, dw); }
  void grouped_matmul(X x, Bank<const float> w, Bank<const float> bias, const Dispatch& dispatch, Y y) {
    oracle_.grouped_matmul(x, w, bias, dispatch, y);
  }
  void grouped_matmul_input(X dy, Bank<const float> w, const Dispatch& dispatch, Y dx) {
    oracle_.grouped_matmul_input(dy, w, dispatch, dx);
  }
  void grouped_matmul_weight(X dy, X x, const Dispatch& dispatch, Bank<float> dw) {
    oracle_.grouped_matmul_weight(dy, x, dispatch, dw);
  }
  void sort_by_expert(View<const std::int32_t> selected, Dispatch& dispatch) {
    oracle_.sort_by_expert(selected, dispatch);
  }
  Index attention_scratch(const AttentionShape& shape) const { return oracle_.attention_scratch(shape); }
  void attention_forward(const AttentionShape& shape, X q, X k, X v, Y y, Y log_sum, Y scratch) {
    oracle_.attention_forward(shape, q, k, v, y, log_sum, scratch);
  }
  void attention_backward(const AttentionShape& shape, X q, X k, X v, X y, X log_sum, X dy, Y dq, Y dk, Y dv,
                          Y scratch) {
    oracle_.attention_backward(shape, q, k, v, y, log_sum, dy, dq, dk, dv, scratch);
  }

 private:
  Reference<float> oracle_;
};
static_assert(Backend<Bare>);
static_assert(!UploadingBackend<Bare> && !SynchronisingBackend<Bare> && !RecordingBackend<Bare> &&
              !FewTokenBackend<Bare> && !RoutingBackend<Bare> && !RotatingAttentionBackend<Bare> &&
              !LogitChunkBackend<Bare>);

struct Uploading : Bare {
  Index used = 0;
  void upload(void* to, const void* from, std::size_t bytes) {
    ++used;
    copy_to_device(to, from, bytes);
  }
};
static_assert(Backend<Uploading> && UploadingBackend<Uploading>);

struct Synchronising : Bare {
  Index used = 0;
  void synchronise() { ++used; }
};
static_assert(Backend<Synchronising> && SynchronisingBackend<Synchronising>);

/// Counts the recordings, and how often one is asked for.
struct Recorder : Bare {
  struct Recording {
    Index replays = 0;
  };
  static constexpr Index max_recorded_pairs = 4;
  Index recordings = 0, longest = 0;
  template <class Work>
  void replay(Recording& recording, Work&& work) {
    recordings += recording.replays == 0 ? 1 : 0;
    longest = std::max(longest, ++recording.replays);
    work();
  }
};
static_assert(Backend<Recorder> && RecordingBackend<Recorder>);

/// Counts the launches of the kernels that mixtures of few tokens have.
struct FewTokens : Bare {
  static constexpr Index max_fused_pairs = 16;
  Index used = 0;
  template <RowKernel Kernel>
  void launch(Index rows, const Kernel& kernel) {
    used += std::is_same_v<Kernel, kernels::FewExpertInputs<SwiGlu, float, float>> ? 1 : 0;
    Bare::launch(rows, kernel);
  }
};
static_assert(Backend<FewTokens> && FewTokenBackend<FewTokens> && !RoutingBackend<FewTokens>);

struct RoutingFewTokens : FewTokens {
  Index routed = 0;
  template <class Choose>
  void route(X x, X w, X bias, Y logits, const Choose& choose, View<const std::int32_t> selected, Dispatch& dispatch) {
    ++routed;
    matmul(x, w, bias, logits);
    launch(x.rows, choose);
    sort_by_expert(selected, dispatch);
  }
};
static_assert(Backend<RoutingFewTokens> && RoutingBackend<RoutingFewTokens>);

struct Rotating : Bare {
  Index used = 0;
  template <class Rotate, class Attend>
  bool rotate_and_attend(const Rotate& rotate, const Attend& attend) {
    if (++used % 2 == 0) return false;  // as if the shapes did not suit it
    launch(rotate.turned.rows, rotate);
    launch(attend.query.rows * attend.shape.heads, attend);
    return true;
  }
};
static_assert(Backend<Rotating> && RotatingAttentionBackend<Rotating>);

struct Chunked : Bare {
  static constexpr std::size_t logit_bytes = 1 << 10;
};
static_assert(Backend<Chunked> && LogitChunkBackend<Chunked>);

using Mixed = Transformer<
    Vocab<40>, Context<16>, Width<16>,
    Layers<2, MoEBlock<RmsNorm, Attention<Heads<4>, KvHeads<2>, Rope>, Router<4, 2>, Expert<SwiGlu, Hidden<8>>>>>;
using Plain = Transformer<Vocab<40>, Context<16>, Width<16>,
                          Layers<2, DenseBlock<RmsNorm, Attention<Heads<4>>, Expert<SwiGlu, Hidden<8>, Bias>>>>;

/// A user's attention that draws random numbers, without a setting that says so.
struct DrawingAttention : Attention<Heads<4>> {
  template <Index D>
  struct Layer : Attention<Heads<4>>::Layer<D> {
    template <class B, class P, class S>
    static void forward(B& backend, const Pass& pass, const P& p, Input<B> x, Output<B> y, S& saved) {
      if (pass.training) static_cast<void>(pass.random(RandomSite::named("a user's noise")));
      Attention<Heads<4>>::Layer<D>::forward(backend, pass, p, x, y, saved);
    }
  };
};
using Drawing = Transformer<Vocab<40>, Context<16>, Width<16>,
                            Layers<2, DenseBlock<RmsNorm, DrawingAttention, Expert<SwiGlu, Hidden<8>, Bias>>>>;

/// The losses of steps of training, and the logits of tokens that were read, together and one by one.
template <class Arch, class B>
std::vector<float> results(B& backend) {
  std::vector<float> found;
  Model<Arch, B> model(backend, Seed{7});
  Trainer trainer(model, AdamW{.lr = 1e-2});
  for (Token step = 0; step < 3; ++step) {
    std::vector<Token> inputs, targets;
    for (Token i = 0; i < 32; ++i) inputs.push_back((i * 7 + step) % 40), targets.push_back((i * 7 + step + 7) % 40);
    found.push_back(static_cast<float>(trainer.train_step(inputs, targets, 2, 16).loss));
  }
  Session session(model, {.sequences = 2});
  const auto keep = [&](std::span<const float> logits) { found.insert(found.end(), logits.begin(), logits.end()); };
  keep(session.feed(std::vector<Token>{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, 0));
  keep(session.feed(std::vector<Token>{4}, 1));
  const std::vector<Index> both = {1, 0};
  for (Token token = 0; token < 3; ++token) keep(session.step(both, std::vector<Token>{token, token + 1}));
  return found;
}

double worst(const std::vector<float>& a, const std::vector<float>& b) {
  REQUIRE(a.size() == b.size());
  double most = 0;
  for (std::size_t i = 0; i < a.size(); ++i) most = std::max(most, std::abs(double(a[i]) - double(b[i])));
  return most;
}

}  // namespace

TEST_CASE("a backend with the required members alone trains and samples", "[capabilities]") {
  Bare bare;
  Reference<float> oracle;
  CHECK(results<Mixed>(bare) == results<Mixed>(oracle));
  CHECK(results<Plain>(bare) == results<Plain>(oracle));
  synchronise(bare);
}

TEST_CASE("each optional capability is used, with the same results", "[capabilities]") {
  Bare bare;
  const auto expected = results<Mixed>(bare);
  SECTION("uploads") {
    Uploading backend;
    CHECK(results<Mixed>(backend) == expected);
    CHECK(backend.used == 3 * 2 + 3);  // inputs and targets of each step, and the host's values for each decoded token
  }
  SECTION("waiting") {
    Synchronising backend;
    synchronise(backend);
    CHECK(backend.used == 1);
  }
  SECTION("recordings, of tokens that are decoded together") {
    Recorder backend;
    CHECK(results<Mixed>(backend) == expected);
    CHECK(backend.recordings == 1);
    CHECK(backend.longest == 3);
  }
  SECTION("recordings, of training steps without mixtures") {
    Recorder backend;
    CHECK(results<Plain>(backend) == results<Plain>(bare));
    CHECK(backend.recordings == 3);  // two slots of tokens, and decoding
    CHECK(backend.longest == 3);
  }
  SECTION("no recordings of training steps that draw random numbers") {
    Recorder backend;
    Model<Drawing, Recorder> model(backend, Seed{7});
    Trainer trainer(model, AdamW{});
    const std::vector<Token> tokens(32, 3);
    for (int step = 0; step < 4; ++step) trainer.train_step(tokens, tokens, 2, 16);
    CHECK(backend.longest <= 1);  // the first step runs as it is, whatever follows
  }
  SECTION("fused mixtures of few tokens") {
    FewTokens backend;
    CHECK(worst(results<Mixed>(backend), expected) < 1e-5);
    CHECK(backend.used == 2 * (1 + 3));
  }
  SECTION("routes of few tokens") {
    FewTokens few;
    RoutingFewTokens backend;
    CHECK(results<Mixed>(backend) == results<Mixed>(few));
    CHECK(backend.routed == few.used);
  }
  SECTION("rotation and attention at once") {
    Rotating backend;
    CHECK(results<Mixed>(backend) == expected);
    CHECK(backend.used == 2 * (1 + 3));
  }
  SECTION("chunks of logits") {
    STATIC_REQUIRE(tinymoe::detail::max_logit_bytes<Chunked> == 1 << 10);
    STATIC_REQUIRE(tinymoe::detail::max_logit_rows<Chunked> > tinymoe::detail::max_logit_rows<Bare>);
    Chunked backend;
    CHECK(worst(results<Mixed>(backend), expected) < 1e-5);
  }
}

TEST_CASE("repeated work is recorded anew when its key changes", "[capabilities]") {
  Recorder backend;
  tinymoe::detail::Repeated<Recorder, int> repeated;
  Index done = 0;
  for (const int key : {1, 1, 2, 2, 2, 1}) repeated(backend, key, [&] { ++done; });
  CHECK(done == 6);
  CHECK(backend.recordings == 3);
  CHECK(backend.longest == 3);
}

}  // namespace tinymoe_test::capabilities
