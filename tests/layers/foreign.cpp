// A norm, a router and experts that a user might write, without a change to the library: they have the gradients of
// complex steps and learn.

#include "layers/model_trial.hpp"
#include "tinymoe/analysis/count.hpp"

namespace tinymoe_test::foreign {

namespace {

/// A norm of one's own: y = x · g, a gain without any normalisation, made of two row kernels.
struct Scale {
  template <class T>
  struct Multiply {
    View<const T> x, gain;
    View<T> y;
    template <class Group>
    void operator()(Group group, Index n) const {
      const T *from = x.row(n), *g = gain.data;
      T* to = y.row(n);
      group.each(x.cols, [=](Index i) { to[i] = from[i] * g[i]; });
    }
  };
  template <class T>
  struct GainGradient {
    View<const T> x, dy;
    View<T> dgain;
    template <class Group>
    void operator()(Group group, Index i) const {
      const View<const T> from = x, slope = dy;
      const T total = group.sum(x.rows, [=](Index n) { return from(n, i) * slope(n, i); });
      group.once([&] { dgain.data[i] += total; });
    }
  };

  template <Index D>
  struct Layer {
    template <class T>
    struct Parameters {
      Tensor<T, 1, D> gain;
      template <class F, class... P>
      static constexpr void for_each(const Path& path, F&& f, P&... p) {
        f(ParameterInfo::vector(path, "gain", D, Part::norm, Initial::ones), p.gain...);
      }
    };
    template <class T, class M>
    struct Saved {
      View<const T> x;
      void plan(Plan&, const Pass&) {}
    };
    template <Backend B, class T = typename B::Scalar>
    static void forward(B& backend, const Pass&, const Parameters<T>& p, Input<B> x, Output<B> y, Saved<T, T>& saved) {
      saved.x = x;
      backend.launch(x.rows, Multiply<T>{x, p.gain, y});
    }
    template <Backend B, class T = typename B::Scalar>
    static void backward(B& backend, const Pass&, const Parameters<T>& p, Input<B> dy, Output<B> dx, Saved<T, T>& saved,
                         Parameters<T>& gradients) {
      backend.launch(D, GainGradient<T>{saved.x, dy, gradients.gain});
      backend.launch(dy.rows, Multiply<T>{dy, p.gain, dx});
    }
  };
};

/// A router of one's own: token n goes to experts n mod E and n + 1 mod E with weights s and 1 − s, where s is one
/// learned number; it has no losses.
template <Index E>
struct RoundRobin {
  static constexpr Index experts = E, choices = 2;

  template <class T>
  struct Choose {
    Routing<T> routing;
    View<const T> share;
    template <class Group>
    void operator()(Group group, Index n) const {
      group.once([&] {
        routing.selected(n, 0) = static_cast<std::int32_t>(n % E);
        routing.selected(n, 1) = static_cast<std::int32_t>((n + 1) % E);
        routing.gate(n, 0) = share.data[0];
        routing.gate(n, 1) = T(1) - share.data[0];
      });
      const auto probability = routing.probability;
      group.each(E, [=](Index e) { probability(n, e) = T(1.0 / double(E)); });
    }
  };

  template <Index D>
  struct Layer {
    template <class T>
    struct Parameters {
      Tensor<T, 1, 1> share;
      template <class F, class... P>
      static constexpr void for_each(const Path& path, F&& f, P&... p) {
        f(ParameterInfo::vector(path, "share", 1, Part::router, Initial::ones), p.share...);
      }
    };
    template <class T, class M>
    struct Saved {
      Routing<M> routing;
      void plan(Plan& plan, const Pass& pass) { routing.plan(plan, pass, E, 2); }
    };
    template <Backend B, class T = typename B::Scalar>
    static void forward(B& backend, const Pass&, const Parameters<T>& p, Input<B> x, Saved<T, T>& saved) {
      backend.launch(x.rows, Choose<T>{saved.routing, p.share});
    }
    template <Backend B, class T = typename B::Scalar>
    static void losses(B& backend, const Pass&, const Dispatch&, Saved<T, T>& saved) {
      backend.zero(saved.routing.losses.data, 2 * sizeof(T));
    }
    template <Backend B, class T = typename B::Scalar>
    static void backward(B& backend, const Pass&, const Parameters<T>&, Input<B> dgate, Output<B> dx, Saved<T, T>&,
                         Parameters<T>& gradients) {
      for (Index n = 0; n < dgate.rows; ++n) gradients.share.data[0] += dgate(n, 0) - dgate(n, 1);  // a host backend
      backend.zero(dx.data, static_cast<std::size_t>(dx.size()) * sizeof(T));
    }
  };
};

/// Experts of one's own: y = W x, one matrix each and no hidden layer.
struct Linear {
  template <Index D, Index E>
  struct Layer {
    template <class T>
    struct Parameters {
      std::array<Tensor<T, D, D>, static_cast<std::size_t>(E)> weight;
      template <class F, class... P>
      static constexpr void for_each(const Path& path, Index active, F&& f, P&... p) {
        for (Index e = 0; e < E; ++e) {
          const Path one{&path, "experts", e, active, E};
          f(ParameterInfo::matrix(one, "weight", D, D, Part::expert, Initial::residual),
            p.weight[static_cast<std::size_t>(e)]...);
        }
      }
      Bank<T> bank() const { return {weight[0].data, E, D, D, aligned_size(D * D)}; }
      Bank<const T> read() const { return {weight[0].data, E, D, D, aligned_size(D * D)}; }
    };
    template <class T, class M>
    struct Saved {
      View<const T> x;
      void plan(Plan&, Index) {}
    };
    template <Backend B, class T = typename B::Scalar>
    static void forward(B& backend, const Pass&, const Parameters<T>& p, const Dispatch& dispatch, Input<B> x,
                        Output<B> y, Saved<T, T>& saved) {
      saved.x = x;
      backend.grouped_matmul(x, p.read(), {}, dispatch, y);
    }
    template <Backend B, class T = typename B::Scalar>
    static void backward(B& backend, const Pass&, const Parameters<T>& p, const Dispatch& dispatch, Input<B> dy,
                         Output<B> dx, Saved<T, T>& saved, Parameters<T>& gradients) {
      backend.grouped_matmul_weight(dy, saved.x, dispatch, gradients.bank());
      backend.grouped_matmul_input(dy, p.read(), dispatch, dx);
    }
  };
};

using Foreign =
    Transformer<Vocab<7>, Context<8>, Width<6>, Layers<2, MoEBlock<Scale, Attention<Heads<1>>, RoundRobin<3>, Linear>>>;

const Pass pass{.batch = 2, .time = 5};

}  // namespace

TEST_CASE("a norm, a router and experts of one's own have the gradients of complex steps", "[foreign][gradient]") {
  Reference<double> real;
  Reference<Complex> stepped_backend;
  ModelTrial<Foreign, Reference<double>> trial(real, pass);
  ModelTrial<Foreign, Reference<Complex>> stepped(stepped_backend, pass);
  trial.forward();
  trial.backward();
  const auto gradient = trial.g.read();
  Index offset = 0;
  Foreign::Parameters<double>::for_each(Path{}, [&](const ParameterInfo& info) {
    const std::string name = full_name(info);
    const double largest =
        check_slopes(name, stepped.model.buffer(), offset, info.size(), gradient, [&] { return stepped.loss(); });
    check_true(name + " has a gradient", largest > 1e-9);
    offset += aligned_size(info.size());
  });
}

TEST_CASE("a norm, a router and experts of one's own learn", "[foreign]") {
  Reference<double> backend;
  ModelTrial<Foreign, Reference<double>> trial(backend, pass);
  const double loss = trial.loss();
  trial.backward();
  const auto g = trial.g.view();
  double square = 0;
  for (Index i = 0; i < g.cols; ++i) square += g.data[i] * g.data[i];
  constexpr double rate = 1e-4;
  for (Index i = 0; i < g.cols; ++i) trial.model.buffer().data[i] -= rate * g.data[i];
  const double gain = loss - trial.loss();
  CHECK(gain > 0);
  CHECK(gain == Approx(rate * square).epsilon(0.05));  // what a step down the gradient gains, to first order
}

TEST_CASE("parameters of one's own have their names among the model's", "[foreign]") {
  const auto names = tensor_names<Foreign::Parameters<double>>();
  const auto has = [&](const std::string& name) { return std::count(names.begin(), names.end(), name) == 1; };
  CHECK(has("model.layers.0.input_layernorm.gain"));
  CHECK(has("model.layers.1.block_sparse_moe.gate.share"));
  CHECK(has("model.layers.1.block_sparse_moe.experts.2.weight"));
  CHECK(has("model.norm.gain"));
}

/// The same, but its tokens go to one and a half experts of the two on average, so to one by a whole number.
struct Sparing : RoundRobin<3> {
  static constexpr Index active = 1;
};
template <class R>
using Routed = Transformer<Vocab<11>, Context<6>, Width<8>, Layers<1, MoEBlock<Scale, Attention<Heads<2>>, R, Linear>>>;

TEST_CASE("a router of one's own may say how many experts a token meets", "[foreign]") {
  static_assert(CountingRouter<Sparing> && !CountingRouter<RoundRobin<3>>);
  constexpr Count all = count<Routed<RoundRobin<3>>>(), sparing = count<Routed<Sparing>>();
  CHECK(sparing.total == all.total);
  CHECK(all.active - sparing.active == 8 * 8);  // one expert
}

}  // namespace tinymoe_test::foreign
