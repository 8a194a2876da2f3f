#pragma once
// The backends that the conformance suite runs over, and matrices in their memory with guard zones all around.

#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "backend/forced.hpp"
#include "support/catch.hpp"
#include "support/same_bits.hpp"
#include "tinymoe/backend/cpu.hpp"
#ifdef TINYMOE_TEST_CUDA
#include "tinymoe/backend/cuda.hpp"
#endif
#include "tinymoe/backend/reference.hpp"
#include "tinymoe/core/random.hpp"

namespace tinymoe_test {

using namespace tinymoe;

/// Runs `test(backend)` on each backend. One more backend is one more line here.
template <class Test>
void for_each_backend(Test&& test) {
  const auto run = [&](const char* label, auto&& backend) {
    INFO("on " << label);
    test(backend);
  };
#ifdef TINYMOE_TEST_CUDA
  if (!Cuda::available()) skip("no GPU can be used here");
  run("cuda, float32", Cuda());
  run("cuda, bfloat16", CudaBfloat16());
  run("cuda, float16", CudaFloat16());
#else
  run("cpu, 1 thread", Cpu(1));
  run("cpu, 2 threads", Cpu(2));
  run("cpu, 3 threads", Cpu(3));
  run("cpu, bfloat16", CpuBfloat16(2));
  if (amx_runs()) {
    run("cpu, bfloat16 on AMX", static_cast<CpuBfloat16&&>(Forced<CpuBfloat16>(2, CpuInstructions::amx)));
  }
  run("reference in float", Reference<float>());
  run("reference in bfloat16", Reference<bfloat16, float>());
  run("reference in float16", Reference<float16, float>());
#endif
}

/// How far results may be from the oracle's, relative to the oracle's maximum.
template <class B>
inline constexpr double tolerance = std::is_same_v<typename B::Scalar, float> ? 1e-5 : 1e-2;

/// Fresh random numbers for each use: standard normal, rounded so that every backend stores just them.
class Numbers {
 public:
  explicit Numbers(std::uint64_t seed) : stream_(Seed{seed}, 0, RandomSite{3}) {}
  double next() { return bfloat16(static_cast<float>(random_normal(stream_, index_++))); }
  std::vector<double> take(Index count) {
    std::vector<double> numbers;
    while (std::ssize(numbers) < count) numbers.push_back(next());
    return numbers;
  }

 private:
  RandomStream stream_;
  std::uint64_t index_ = 0;
};

/// A matrix of a backend whose rows lie apart, with guard zones before, between and after them. The guards must not be
/// written. They are NaN, so that reading them shows.
template <class B, class T>
class Guarded {
 public:
  /// With a gap that is a multiple of 8 the matrix begins at a multiple of 64 bytes; so its rows are aligned for wide
  /// loads if their length is a multiple of 8, too. Otherwise it is aligned to one element only.
  Guarded(B& backend, Index rows, Index cols, Index gap = 0)
      : backend_(&backend), margin_(gap > 0 && gap % 8 == 0 ? 64 : 37), rows_(rows), cols_(cols), stride_(cols + gap) {
    host_.assign(static_cast<std::size_t>(2 * margin_ + rows * stride_), guard());
    memory_ = backend.allocate(host_.size() * sizeof(T));
    upload();
  }

  View<T> view() const { return {memory_.template as<T>().data + margin_, rows_, cols_, stride_}; }
  operator View<T>() const { return view(); }
  operator View<const T>() const { return view(); }

  /// Each row in turn; an empty vector means NaN, for outputs that must be overwritten.
  void write(const std::vector<double>& values) {
    for (Index i = 0; i < rows_ * cols_; ++i) {
      element(i) = values.empty() ? guard() : T(static_cast<float>(values[static_cast<std::size_t>(i)]));
    }
    upload();
  }
  std::vector<double> read() const {
    const auto now = download();
    std::vector<double> values;
    for (Index i = 0; i < rows_ * cols_; ++i) values.push_back(static_cast<double>(now[place(i)]));
    return values;
  }
  /// Whether the guards are as they were.
  bool intact() const {
    auto now = download();
    for (Index i = 0; i < rows_ * cols_; ++i) now[place(i)] = host_[place(i)];
    return std::memcmp(now.data(), host_.data(), now.size() * sizeof(T)) == 0;
  }
  /// Whether nothing at all was written.
  bool unchanged() const { return std::memcmp(download().data(), host_.data(), host_.size() * sizeof(T)) == 0; }

 private:
  static T guard() {
    if constexpr (std::is_integral_v<T>) {
      return T(-123456789);
    } else {
      return T(std::numeric_limits<float>::quiet_NaN());
    }
  }
  std::size_t place(Index i) const { return static_cast<std::size_t>(margin_ + i / cols_ * stride_ + i % cols_); }
  T& element(Index i) { return host_[place(i)]; }
  void upload() { backend_->copy_to_device(memory_.bytes(), host_.data(), host_.size() * sizeof(T)); }
  std::vector<T> download() const {
    std::vector<T> now(host_.size());
    backend_->copy_to_host(now.data(), memory_.bytes(), now.size() * sizeof(T));
    return now;
  }

  B* backend_;
  Index margin_, rows_, cols_, stride_;
  std::vector<T> host_;
  Memory memory_;
};

/// A matrix of the oracle.
struct Oracle {
  Oracle(Index rows, Index cols, std::vector<double> values = {}) : values(std::move(values)), rows(rows), cols(cols) {
    this->values.resize(static_cast<std::size_t>(rows * cols));
  }
  View<double> view() { return {values.data(), rows, cols}; }
  operator View<double>() { return view(); }
  operator View<const double>() { return view(); }

  std::vector<double> values;
  Index rows, cols;
};

/// max |a − b| / max |b|; infinite if an element of a is not finite.
inline double error_of(const std::vector<double>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  double worst = 0, maximum = 1e-30;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (!std::isfinite(a[i])) return std::numeric_limits<double>::infinity();
    worst = std::max(worst, std::abs(a[i] - b[i]));
    maximum = std::max(maximum, std::abs(b[i]));
  }
  return worst / maximum;
}

[[gnu::noinline]] inline void check_close(const char* what, const std::vector<double>& found,
                                          const std::vector<double>& expected, double tolerance) {
  INFO(what);
  CHECK(error_of(found, expected) < tolerance);
}
[[gnu::noinline]] inline void check_holds(const char* what, bool value) {
  INFO(what);
  CHECK(value);
}

/// Calls `run` twice from the same start, `before` (NaN if empty). The result agrees with the oracle's, has the same
/// bits the second time, and stays within its matrix.
template <class B, class T, class Run>
void check_output(Guarded<B, T>& output, const std::vector<double>& before, const std::vector<double>& expected,
                  Run&& run) {
  output.write(before);
  run();
  const auto first = output.read();
  check_close("the result", first, expected, tolerance<B>);
  check_holds("guards are untouched", output.intact());
  output.write(before);
  run();
  check_holds("the same bits again", same_bits(output.read(), first));
}

}  // namespace tinymoe_test
