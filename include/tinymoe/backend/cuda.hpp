#pragma once
/// @file
/// The CUDA backend: an NVIDIA GPU. This header is plain C++, so that programs which use it keep their `.cpp` files:
/// the kernels and the calls of cuBLAS stand behind plain functions, which the CMake target tinymoe::cuda compiles from
/// the folder cuda/.
///
/// Operations are enqueued on one stream and return at once; what reads back (`copy_to_host`) waits. Nothing is added
/// atomically: the same inputs on the same device and libraries give the same bits.

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "tinymoe/backend/backend.hpp"
#include "tinymoe/backend/capabilities.hpp"
#include "tinymoe/backend/dispatch.hpp"
#include "tinymoe/backend/group.hpp"
#include "tinymoe/core/bfloat16.hpp"
#include "tinymoe/core/float16.hpp"
#include "tinymoe/core/memory.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/tensor.hpp"

struct CUstream_st;  // CUDA's: a cudaStream_t is a pointer to it

namespace tinymoe::inline v0_1 {

/// How the products of an expert bank are computed.
enum class GroupedProducts {
  streams,     // a cublasLt product for each expert, on streams side by side; the default
  one_stream,  // the same, one after another
  call         // one call of cublasGemmGroupedBatchedEx where it can do the product, which is without a bias
};

/// Options of a CUDA backend.
struct CudaOptions {
  int device = 0;                                      // its number, as CUDA counts
  GroupedProducts grouped = GroupedProducts::streams;  // docs/benchmarks compares them
  // Lets a kernel's blocks take their places before the previous kernel has ended (programmatic dependent launch), to
  // shorten decoding. Works if the device and the compiled code have compute capability 9.0 or newer, and CUDA is 12.3
  // or newer. Off until it is measured.
  bool early_starts = false;
};

/// A GPU as its driver describes it.
struct CudaDevice {
  std::string name;
  int major = 0, minor = 0;  // compute capability
  int multiprocessors = 0;
  std::size_t bytes = 0, free_bytes = 0;
};

namespace detail::cuda {

/// Banks of up to this many rows are computed by kernels that find the experts' rows on the device, so that decoding
/// never waits for the host and can be recorded.
inline constexpr Index max_gemv_bank_rows = 64;

class Context;  // streams, handles and workspaces: cuda/context.cuh
struct FreeContext {
  void operator()(Context* context) const;
};
using ContextOwner = std::unique_ptr<Context, FreeContext>;

/// Recorded operations: see `BasicCuda::replay`.
class Recording;
struct FreeRecording {
  void operator()(Recording* recording) const;
};

ContextOwner open(const CudaOptions& options);
bool usable(int device) noexcept;
/// Makes the context's device the current one of the calling thread.
void use(Context&);
CUstream_st* stream(Context&);
CudaDevice describe(int device);

Memory allocate(Context&, std::size_t bytes);
void copy_to_device(Context&, void* to, const void* from, std::size_t bytes);
void copy_to_host(Context&, void* to, const void* from, std::size_t bytes);
void upload(Context&, void* to, const void* from, std::size_t bytes);
void zero(Context&, void* to, std::size_t bytes);
void synchronise(Context&);
void set_grouped(Context&, GroupedProducts);
void set_early_starts(Context&, bool early);
bool starts_early(Context&);
Index plain_products(const Context&);
double milliseconds(Context&, const std::function<void()>& work);
void replay(Context&, std::unique_ptr<Recording, FreeRecording>&, const std::function<void()>& work);

/// Runs kernel(group, row) for each row < rows. It is instantiated for the kernels of this library in cuda/rows_*.cu.
/// Your own kernel needs a `.cu` file with TINYMOE_CUDA_KERNEL(its type) (docs/write-your-own.md).
template <class Kernel>
void launch(Context&, Index rows, const Kernel& kernel);

template <class T>
void matmul(Context&, View<const T> x, View<const T> w, View<const T> bias, View<T> y);
template <class T>
void matmul_input(Context&, View<const T> dy, View<const T> w, View<T> dx, Write write);
template <class T>
void matmul_weight(Context&, View<const T> dy, View<const T> x, View<float> dw);
template <class T>
void grouped_matmul(Context&, View<const T> x, Bank<const T> w, Bank<const T> bias, const Dispatch& dispatch,
                    View<T> y);
template <class T>
void grouped_matmul_input(Context&, View<const T> dy, Bank<const T> w, const Dispatch& dispatch, View<T> dx);
template <class T>
void grouped_matmul_weight(Context&, View<const T> dy, View<const T> x, const Dispatch& dispatch, Bank<float> dw);

void sort_by_expert(Context&, View<const std::int32_t> selected, Dispatch& dispatch);

template <class T, class Choose>
void route(Context&, View<const T> x, View<const T> w, View<const T> bias, View<T> logits, const Choose& choose,
           View<const std::int32_t> selected, Dispatch& dispatch);
template <class Rotate, class Attend>
bool rotate_and_attend(Context&, const Rotate& rotate, const Attend& attend);

template <class T>
void attention_forward(Context&, const AttentionShape&, View<const T> q, View<const T> k, View<const T> v, View<T> y,
                       View<float> log_sum);
template <class T>
void attention_backward(Context&, const AttentionShape&, View<const T> q, View<const T> k, View<const T> v,
                        View<const T> y, View<const float> log_sum, View<const T> dy, View<T> dq, View<T> dk,
                        View<T> dv, float* delta);

}  // namespace detail::cuda

/// Runs models on an NVIDIA GPU of compute capability 8.0 or newer. `T` stores activations and the layers' weights:
/// float, bfloat16 or float16. Gradients, moments, statistics and the weights that the optimizer changes are float32.
/// One thread of the host at a time may use an object.
template <class T>
class BasicCuda {
 public:
  using Scalar = T;
  using Master = float;

  /// Logits of this many bytes are computed at once: large products for a large device.
  static constexpr std::size_t logit_bytes = std::size_t{256} << 20;

  /// A pass whose layers send up to this many pairs to experts routes them on the device, and can be recorded.
  static constexpr Index max_recorded_pairs = detail::cuda::max_gemv_bank_rows;

  /// Up to this many pairs, a mixture takes three launches in inference (layers/few_experts.hpp). With more, these
  /// kernels would read the weights too often.
  static constexpr Index max_fused_pairs = 16;

  /// Throws DeviceError if there is no such GPU or no driver.
  explicit BasicCuda(const CudaOptions& options = {})
      : context_(detail::cuda::open(options)), description_(detail::cuda::describe(options.device)) {}

  /// Whether this machine has that GPU and can use it, to choose a backend: `Cuda::available() ? … : …`.
  static bool available(int device = 0) noexcept { return detail::cuda::usable(device); }
  static constexpr const char* name() { return "cuda"; }
  /// The device as it was when this object was made.
  const CudaDevice& device() const { return description_; }

  /// Zeroed memory of the device. Throws DeviceError that says how much is free if there is not enough.
  Memory allocate(std::size_t bytes) const { return detail::cuda::allocate(context(), bytes); }
  void copy_to_device(void* to, const void* from, std::size_t bytes) const {
    detail::cuda::copy_to_device(context(), to, from, bytes);
  }
  void copy_to_host(void* to, const void* from, std::size_t bytes) const {
    detail::cuda::copy_to_host(context(), to, from, bytes);
  }
  /// Copies to the device without waiting, in order with the operations before and after. `from` may be reused on
  /// return.
  void upload(void* to, const void* from, std::size_t bytes) const { detail::cuda::upload(context(), to, from, bytes); }
  void zero(void* to, std::size_t bytes) const { detail::cuda::zero(context(), to, bytes); }
  /// Waits until all that was enqueued is done. Throws DeviceError if something failed.
  void synchronise() const { detail::cuda::synchronise(context()); }
  /// The stream on which all operations are enqueued, a cudaStream_t, for a program's own calls; makes its device the
  /// current one of the calling thread.
  CUstream_st* stream() const { return detail::cuda::stream(context()); }
  /// The milliseconds that `work` takes, by the device's clock.
  double milliseconds(const std::function<void()>& work) const { return detail::cuda::milliseconds(context(), work); }
  /// Sets how products of expert banks are computed from now on.
  void grouped_products(GroupedProducts how) { detail::cuda::set_grouped(context(), how); }
  /// Turns early starts on or off. Work that is recorded already does not change.
  void early_starts(bool early) { detail::cuda::set_early_starts(context(), early); }
  /// Whether kernels start early: it is turned on, and works here.
  bool early_starts() const { return detail::cuda::starts_early(context()); }

  /// The number of products so far for which cuBLAS had no algorithm. A plain kernel computed them: correct and very
  /// slow. Expect 0 if widths are multiples of 8.
  Index plain_products() const { return detail::cuda::plain_products(*context_); }

  /// Operations that are recorded once and enqueued again as a whole, as a CUDA graph.
  using Recording = std::unique_ptr<detail::cuda::Recording, detail::cuda::FreeRecording>;
  /// Runs `work`, which enqueues the same operations on the same addresses each time. The first call runs it, the
  /// second records it, later calls enqueue the recording and do not call it. It must not read back.
  template <class Work>
  void replay(Recording& recording, Work&& work) const {
    detail::cuda::replay(context(), recording, work);
  }

  template <RowKernel Kernel>
  void launch(Index rows, const Kernel& kernel) const {
    if (rows > 0) detail::cuda::launch(context(), rows, kernel);
  }

  void matmul(View<const T> x, View<const T> w, View<const T> bias, View<T> y) const {
    assert(x.cols == w.cols && y.rows == x.rows && y.cols == w.rows);
    detail::cuda::matmul(context(), x, w, bias, y);
  }
  void matmul_input(View<const T> dy, View<const T> w, View<T> dx, Write write) const {
    assert(dy.cols == w.rows && dx.rows == dy.rows && dx.cols == w.cols);
    detail::cuda::matmul_input(context(), dy, w, dx, write);
  }
  void matmul_weight(View<const T> dy, View<const T> x, View<float> dw) const {
    assert(dy.rows == x.rows && dw.rows == dy.cols && dw.cols == x.cols);
    detail::cuda::matmul_weight(context(), dy, x, dw);
  }

  /// Up to `max_gemv_bank_rows` rows, the device finds the rows of each expert. With more, the host waits for the
  /// experts' counts: once after each `sort_by_expert`, and each time for a dispatch that no sort has filled.
  void grouped_matmul(View<const T> x, Bank<const T> w, Bank<const T> bias, const Dispatch& dispatch, View<T> y) const {
    assert(x.cols == w.cols && y.rows == x.rows && y.cols == w.rows && dispatch.experts() == w.count);
    detail::cuda::grouped_matmul(context(), x, w, bias, dispatch, y);
  }
  void grouped_matmul_input(View<const T> dy, Bank<const T> w, const Dispatch& dispatch, View<T> dx) const {
    assert(dy.cols == w.rows && dx.rows == dy.rows && dx.cols == w.cols && dispatch.experts() == w.count);
    detail::cuda::grouped_matmul_input(context(), dy, w, dispatch, dx);
  }
  void grouped_matmul_weight(View<const T> dy, View<const T> x, const Dispatch& dispatch, Bank<float> dw) const {
    assert(dy.rows == x.rows && dw.rows == dy.cols && dw.cols == x.cols && dispatch.experts() == dw.count);
    detail::cuda::grouped_matmul_weight(context(), dy, x, dispatch, dw);
  }

  /// `dispatch.rows` becomes the maximum, because the host does not wait to learn how many slots are taken.
  void sort_by_expert(View<const std::int32_t> selected, Dispatch& dispatch) const {
    assert(selected.rows == dispatch.tokens() && selected.cols == dispatch.choices() && selected.contiguous());
    detail::cuda::sort_by_expert(context(), selected, dispatch);
  }
  /// Computes logits = x wᵀ + bias, runs choose(group, n) for each token, and sorts what it selected by expert: in one
  /// launch if that is little work.
  template <class Choose>
  void route(View<const T> x, View<const T> w, View<const T> bias, View<T> logits, const Choose& choose,
             View<const std::int32_t> selected, Dispatch& dispatch) const {
    assert(x.cols == w.cols && logits.rows == x.rows && logits.cols == w.rows && x.rows == dispatch.tokens());
    detail::cuda::route<T>(context(), x, w, bias, logits, choose, selected, dispatch);
  }
  /// Runs `rotate` for each token and `attend` for each of its heads, in one launch; false if one launch cannot do it.
  /// A sequence has one new token.
  template <class Rotate, class Attend>
  bool rotate_and_attend(const Rotate& rotate, const Attend& attend) const {
    return detail::cuda::rotate_and_attend(context(), rotate, attend);
  }
  /// Elements of T that hold Σ y · dy of each head, in float32, wherever an element of T may begin.
  Index attention_scratch(const AttentionShape& shape) const {
    constexpr Index elements = sizeof(float) / sizeof(T);
    return shape.batch * shape.time * shape.heads * elements + (elements - 1);
  }
  void attention_forward(const AttentionShape& shape, View<const T> q, View<const T> k, View<const T> v, View<T> y,
                         View<float> log_sum, View<T>) const {
    detail::cuda::attention_forward(context(), shape, q, k, v, y, log_sum);
  }
  void attention_backward(const AttentionShape& shape, View<const T> q, View<const T> k, View<const T> v,
                          View<const T> y, View<const float> log_sum, View<const T> dy, View<T> dq, View<T> dk,
                          View<T> dv, View<T> scratch) const {
    T* begin = scratch.data;
    if (reinterpret_cast<std::uintptr_t>(begin) % alignof(float) != 0) ++begin;
    detail::cuda::attention_backward(context(), shape, q, k, v, y, log_sum, dy, dq, dk, dv,
                                     reinterpret_cast<float*>(begin));
  }

 private:
  /// The context, once its device is the current one of this thread.
  detail::cuda::Context& context() const {
    detail::cuda::use(*context_);
    return *context_;
  }

  detail::cuda::ContextOwner context_;
  CudaDevice description_;
};

/// float32 throughout: the products too, without TF32.
using Cuda = BasicCuda<float>;
/// Activations and products in bfloat16, with float32 masters: what to train with on a GPU of 2020 or later.
using CudaBfloat16 = BasicCuda<bfloat16>;
/// The same in float16, which is more exact and has a smaller range: training scales the loss (core/loss_scale.hpp).
using CudaFloat16 = BasicCuda<float16>;

static_assert(Backend<Cuda> && Backend<CudaBfloat16> && Backend<CudaFloat16>);
static_assert(UploadingBackend<Cuda> && SynchronisingBackend<Cuda> && RecordingBackend<Cuda> && FewTokenBackend<Cuda> &&
              RoutingBackend<Cuda> && RotatingAttentionBackend<Cuda> && LogitChunkBackend<Cuda>);

}  // namespace tinymoe::inline v0_1
