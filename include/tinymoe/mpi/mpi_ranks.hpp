#pragma once
/// @file
/// What is behind `Mpi`: sums in the order of the ranks, exchanges, waiting, and leaving.
/// Over 300 lines: it is one class.

#include <sched.h>

#include <algorithm>
#include <chrono>
#include <complex>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/worker.hpp"
#include "tinymoe/mpi/launcher.hpp"
#include "tinymoe/mpi/mpi_process.hpp"

namespace tinymoe::inline v0_1 {

/// How a rank waits for the others.
struct MpiOptions {
  /// Seconds after which a rank that waits takes the others for dead, and throws; 0: it waits on. A rank waits while
  /// rank 0 alone does something: half an hour is above what writing a checkpoint takes.
  double patience = 1800;
  /// Called every now and then while this rank waits, with the seconds since it began to. It makes no call of MPI. What
  /// it throws ends the waiting.
  std::function<void(double)> while_waiting = {};
};

namespace detail {

/// The ranks of a communicator of MPI, and memory for the pieces of sums.
class MpiRanks {
 public:
  /// MPI_COMM_NULL: of all processes.
  [[gnu::cold]] MpiRanks(MPI_Comm of, MpiOptions options)
      : options_(std::move(options)), shared_(std::make_shared<Shared>()) {
    const StartedMpi started = start_mpi(of);
    finalizes_ = started.finalizes, threads_allowed_ = started.threads_allowed;
    const bool all = of == MPI_COMM_NULL;
    if (all) of = MPI_COMM_WORLD;
    check_mpi(MPI_Comm_dup(of, &communicator_), "copy a communicator");
    MPI_Comm_set_errhandler(communicator_, MPI_ERRORS_RETURN);
    int number = 0;
    MPI_Comm_rank(communicator_, &number), rank = number;
    MPI_Comm_size(communicator_, &number), size = number;
    if (const Index launched = launched_processes(); all && size == 1 && launched > 1) {
      fail<DeviceError>("the launcher has started ", launched,
                        " processes, and MPI finds one: take the mpirun of the MPI ",
                        "that the program was built with, or with Slurm srun --mpi=pmix or pmi2");
    }
    neighbours = find_neighbours(communicator_, rank);
    if (rank == 0 && size > 1) {
      check_mpi(MPI_Irecv(reason_, sizeof reason_, MPI_CHAR, MPI_ANY_SOURCE, leaving, communicator_, &reason_request_),
                "receive");
    }
  }
  /// Those ranks of `all` that give this number, in their order.
  [[gnu::cold]] MpiRanks(std::shared_ptr<MpiRanks> all, Index color) : all_(std::move(all)), shared_(all_->shared_) {
    all_->settle();
    threads_allowed_ = all_->threads_allowed_;
    check_mpi(
        MPI_Comm_split(all_->communicator_, static_cast<int>(color), static_cast<int>(all_->rank), &communicator_),
        "form groups of processes");
    MPI_Comm_set_errhandler(communicator_, MPI_ERRORS_RETURN);
    int number = 0;
    MPI_Comm_rank(communicator_, &number), rank = number;
    MPI_Comm_size(communicator_, &number), size = number;
    neighbours = find_neighbours(communicator_, rank);
    neighbours.threads = all_->neighbours.threads;
  }
  MpiRanks(const MpiRanks&) = delete;

  /// The last handle is gone: waits for the other ranks and finalizes MPI. After an exception MPI is left as it is, for
  /// the others may wait in a sum: `abort_mpi_at_exit` ends them when the program has told its error. MPI may still use
  /// this object's memory then, so it is not given back; it may use the rows of what was under way, too.
  [[gnu::cold]] static void end(MpiRanks* ranks) {
    const bool left = ranks->left_ || (ranks->all_ && ranks->all_->left_);
    if (left || std::uncaught_exceptions() > ranks->exceptions_) return;
    int finalized = 0;
    MPI_Finalized(&finalized);
    if (finalized == 0) {
      try {
        ranks->settle();
        if (!ranks->all_) {
          ranks->options_.patience = 0;  // another rank may work on after its last sum
          ranks->meet();
        }
      } catch (...) {
        return;
      }
    }
    if (finalized == 0 && ranks->all_) {
      MPI_Comm_free(&ranks->communicator_);
    } else if (finalized == 0) {
      if (ranks->reason_request_ != MPI_REQUEST_NULL) {
        MPI_Cancel(&ranks->reason_request_);
        MPI_Wait(&ranks->reason_request_, MPI_STATUS_IGNORE);
      }
      MPI_Comm_free(&ranks->communicator_);
      if (ranks->finalizes_) MPI_Finalize();
    }
    delete ranks;
  }

  Index rank = 0, size = 1;
  MpiNeighbours neighbours;
  // Kept, so that a step allocates no memory for them.
  std::vector<Index> piece_places, packed_places, piece_counts;     // of each rank
  std::vector<std::byte> rows_to_send, rows_to_receive;             // the host's copies of rows on a device
  void* received_rows = nullptr;                                    // where received rows go on the device
  std::vector<std::pair<std::size_t, std::size_t>> received_parts;  // the first byte and the bytes of each part

  void wait_at_most(double seconds) {
    settle();
    options_.patience = seconds;
  }
  MPI_Comm communicator() const { return communicator_; }

  /// Whether another thread than the main one may use MPI while that does not.
  bool threads_allowed() const { return threads_allowed_; }
  /// A sum beside the calling thread, after what was started before. The calling thread settles before it sums or
  /// gathers itself.
  void start(std::function<void()> work) {
    sums_beside_ = true;
    shared_->worker.give(std::move(work));
  }
  /// Returns when all that was started is done. Throws what it has thrown.
  void settle() {
    sums_beside_ = false;
    shared_->worker.finish();
  }

  /// Begins an exchange of rows of so many bytes in host memory; see ExpertExchange. It goes on beside the sums of
  /// other communicators.
  void start_exchange(const void* from, std::span<const Index> send, void* to, std::span<const Index> receive,
                      std::size_t row_bytes) {
    if (sums_beside_) settle();
    int* const numbers = numbers_of_ranks(exchange_);
    const Places sends(numbers, send), receives(numbers + 2 * size, receive);
    sends.sizes[rank] = receives.sizes[rank] = 0;  // what is its own stays where it is
    call("exchange rows with the processes", [&] {
      MPI_Datatype row = MPI_DATATYPE_NULL;
      MPI_Type_contiguous(static_cast<int>(row_bytes), MPI_BYTE, &row);
      MPI_Type_commit(&row);
      const int code = MPI_Ialltoallv(from, sends.sizes, sends.places, row, to, receives.sizes, receives.places, row,
                                      communicator_, &exchange_request_);
      MPI_Type_free(&row);
      return code;
    });
  }
  void finish_exchange() { wait(exchange_request_, "exchange rows with the processes"); }
  /// Gives each rank its part of the numbers, of which all have as many, and takes theirs.
  void exchange_numbers(std::span<const std::int32_t> send, std::span<std::int32_t> receive) {
    if (sums_beside_) settle();
    const int each = static_cast<int>(std::ssize(send) / size);
    exchanged_numbers_.assign(send.begin(), send.end());
    exchanged_numbers_.resize(2 * send.size());
    std::int32_t* const came = exchanged_numbers_.data() + send.size();
    constexpr const char* what = "exchange numbers with the processes";
    MPI_Request request = MPI_REQUEST_NULL;
    call(what, [&] {
      return MPI_Ialltoall(exchanged_numbers_.data(), each, MPI_INT32_T, came, each, MPI_INT32_T, communicator_,
                           &request);
    });
    wait(request, what);
    std::copy_n(came, receive.size(), receive.begin());
  }

  /// The memory for pieces of a row of elements of so many bytes: returns how many elements of each rank's share a
  /// piece has at most. A piece has some MiB in all, and for each rank enough that the time of a message is not its
  /// latency.
  Index reserve(std::size_t element) {
    const Index bytes = std::max((Index{1} << 22) / size, Index{1} << 16);
    received_.resize(static_cast<std::size_t>(bytes * size));
    return bytes / static_cast<Index>(element);
  }
  /// Room for a copy of a piece of each rank's share, for a backend whose memory MPI does not read.
  std::byte* packed() {
    packed_.resize(received_.size());
    return packed_.data();
  }

  /// Of counts[r] elements from places[r] on of each rank r's share in `row`: gives them to their owners, and returns
  /// those that came for this rank's share, counts[rank] of each rank, one behind the other. Its own are not among
  /// them: their place there may hold anything.
  template <class T>
  const T* exchange_shares(const T* row, std::span<const Index> places, std::span<const Index> counts) {
    int* const numbers = numbers_of_ranks(numbers_);
    const Places sends(numbers, counts, places), receives(numbers + 2 * size, counts);
    for (Index r = 0; r < size; ++r) {
      receives.sizes[r] = r == rank ? 0 : sends.sizes[rank];
      receives.places[r] = static_cast<int>(r) * sends.sizes[rank];
    }
    sends.sizes[rank] = 0;
    MPI_Request request = MPI_REQUEST_NULL;
    call("sum over the processes", [&] {
      return MPI_Ialltoallv(row, sends.sizes, sends.places, type_of<T>(), received_.data(), receives.sizes,
                            receives.places, type_of<T>(), communicator_, &request);
    });
    wait(request, "sum over the processes");
    return reinterpret_cast<const T*>(received_.data());
  }

  /// Gives the elements of this rank's share in `row` to all, and takes theirs: counts[r] elements from places[r] on.
  template <class T>
  void all_gather(T* row, std::span<const Index> places, std::span<const Index> counts) {
    const Places at(numbers_of_ranks(numbers_), counts, places);
    MPI_Request request = MPI_REQUEST_NULL;
    call("gather from the processes", [&] {
      return MPI_Iallgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, row, at.sizes, at.places, type_of<T>(), communicator_,
                             &request);
    });
    wait(request, "gather from the processes");
  }

  /// Sums a few numbers: each rank gets those of all, and adds them itself, in one exchange.
  void sum(std::span<double> numbers) {
    const auto most = static_cast<std::size_t>(std::max<Index>(1, (Index{1} << 17) / size));
    for (std::size_t at = 0; at < numbers.size(); at += most) {
      const auto piece = numbers.subspan(at, std::min(most, numbers.size() - at));
      gathered_.resize(piece.size() * static_cast<std::size_t>(size));
      MPI_Request request = MPI_REQUEST_NULL;
      const int count = static_cast<int>(piece.size());
      call("sum over the processes", [&] {
        return MPI_Iallgather(piece.data(), count, MPI_DOUBLE, gathered_.data(), count, MPI_DOUBLE, communicator_,
                              &request);
      });
      wait(request, "sum over the processes");
      std::copy_n(gathered_.begin(), piece.size(), piece.begin());
      for (std::size_t from = piece.size(); from < gathered_.size(); from += piece.size()) {
        for (std::size_t i = 0; i < piece.size(); ++i) piece[i] += gathered_[from + i];
      }
    }
  }

  /// Waits until `done()`. Throws what ends the waiting: a rank that has left, an impatient or a disturbed one. Waiting
  /// costs no core after the first milliseconds: others may compute on it, ranks too.
  template <class F>
  void wait_until(F&& done) {
    const auto started = Clock::now();
    for (int tries = 0;; ++tries) {
      if (done()) return;
      const bool beside = shared_->worker.here() && !shared_->worker.awaited();  // nobody waits for this thread
      if (tries % 64 != 63 && !beside) {
        ::sched_yield();
        continue;
      }
      const std::chrono::duration<double> waited = Clock::now() - started;
      if (waited.count() < 2e-3 && !beside) continue;
      look_up(waited.count(), beside);
      std::this_thread::sleep_for(std::chrono::microseconds(100));
      tries -= 1;  // a sleep between any two tests from now on
    }
  }

  /// Waits for all, without the load of MPI's own waiting.
  void meet() {
    MPI_Request request = MPI_REQUEST_NULL;
    call("wait for all processes", [&] { return MPI_Ibarrier(communicator_, &request); });
    wait(request, "wait for all processes");
  }

  void broadcast(std::span<std::byte> bytes) {
    constexpr std::size_t most = std::size_t{1} << 26;
    for (std::size_t at = 0; at < bytes.size(); at += most) {
      const auto piece = bytes.subspan(at, std::min(most, bytes.size() - at));
      MPI_Request request = MPI_REQUEST_NULL;
      call("send to all processes", [&] {
        return MPI_Ibcast(piece.data(), static_cast<int>(piece.size()), MPI_BYTE, 0, communicator_, &request);
      });
      wait(request, "send to all processes");
    }
  }

  [[gnu::cold]] void leave(std::string_view sentence) {
    if (std::exchange(left_, true) || rank == 0 || size == 1) return;
    try {
      settle();
    } catch (...) {  // what the caller leaves for is told
    }
    const int length = static_cast<int>(std::min(sentence.size(), sizeof reason_));
    MPI_Request request = MPI_REQUEST_NULL;
    if (MPI_Isend(sentence.data(), length, MPI_CHAR, 0, leaving, communicator_, &request) != MPI_SUCCESS) return;
    // Small enough that it is on its way without rank 0's help; waiting longer than that helps nobody.
    for (int tries = 0, done = 0; tries < 1000 && done == 0; ++tries) {
      if (MPI_Test(&request, &done, MPI_STATUS_IGNORE) != MPI_SUCCESS) return;
      if (done == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }

 private:
  ~MpiRanks() = default;  // by `end`

  static constexpr int leaving = 1;  // the tag of the message that says why

  /// What the communicators of a job have in common.
  struct Shared {
    Worker worker;
    int left = -1;       // a rank that has left,
    std::string reason;  // and why
  };

  /// How many elements each rank has in a piece, and where its first is, as MPI takes them.
  struct Places {
    int *sizes, *places;
    /// One rank's behind the other's.
    Places(int* numbers, std::span<const Index> counts) : sizes(numbers), places(numbers + counts.size()) {
      Index place = 0;
      for (std::size_t r = 0; r < counts.size(); ++r) {
        sizes[r] = static_cast<int>(counts[r]), places[r] = static_cast<int>(place);
        place += counts[r];
      }
      if (place > std::numeric_limits<int>::max())
        fail<ShapeError>("an exchange of ", place, " rows is too large for MPI");
    }
    Places(int* numbers, std::span<const Index> counts, std::span<const Index> at)
        : sizes(numbers), places(numbers + counts.size()) {
      for (std::size_t r = 0; r < counts.size(); ++r) {
        sizes[r] = static_cast<int>(counts[r]), places[r] = static_cast<int>(at[r]);
      }
    }
  };
  /// Memory for two of them.
  int* numbers_of_ranks(std::vector<int>& numbers) const {
    numbers.resize(4 * static_cast<std::size_t>(size));
    return numbers.data();
  }
  template <class T>
  static MPI_Datatype type_of() {
    if constexpr (std::is_same_v<T, float>) {
      return MPI_FLOAT;
    } else if constexpr (std::is_same_v<T, double>) {
      return MPI_DOUBLE;
    } else {
      static_assert(std::is_same_v<T, std::complex<double>>, "the ranks sum float, double and std::complex<double>");
      return MPI_C_DOUBLE_COMPLEX;
    }
  }

  inline static std::mutex in_mpi;  // one thread at a time, of all communicators

  /// A call of MPI that returns at once.
  template <class F>
  void call(const char* what, F&& f) {
    const std::lock_guard lock(in_mpi);
    check_mpi(f(), what);
  }

  /// Waits until the operation is done on this rank.
  void wait(MPI_Request& request, const char* what) {
    wait_until([&] {
      int done = 0;
      call(what, [&] { return MPI_Test(&request, &done, MPI_STATUS_IGNORE); });
      return done != 0;
    });
  }

  /// `beside`: in a thread for which nobody waits.
  [[gnu::cold]] void look_up(double waited, bool beside) {
    if (all_) return all_->look_up(waited, beside);
    hear_reason();
    if (options_.while_waiting && !beside) options_.while_waiting(waited);
    if (options_.patience > 0 && waited > options_.patience) {
      fail<TrainingError>("rank ", rank, " has waited ", options_.patience,
                          " seconds for the other processes, one of which hangs or has died");
    }
  }
  /// Throws if a rank has told why it leaves; in both threads.
  [[gnu::cold]] void hear_reason() {
    const std::lock_guard lock(in_mpi);
    if (reason_request_ != MPI_REQUEST_NULL) {
      int told = 0;
      MPI_Status status;
      check_mpi(MPI_Test(&reason_request_, &told, &status), "receive");
      if (told != 0) {
        int length = 0;
        MPI_Get_count(&status, MPI_CHAR, &length);
        shared_->reason.assign(reason_, static_cast<std::size_t>(std::max(0, length)));
        shared_->left = status.MPI_SOURCE;
      }
    }
    if (shared_->left >= 0) fail<TrainingError>("rank ", shared_->left, ": ", shared_->reason);
  }

  using Clock = std::chrono::steady_clock;

  MpiOptions options_;
  MPI_Comm communicator_ = MPI_COMM_NULL;
  MPI_Request reason_request_ = MPI_REQUEST_NULL;
  char reason_[1000];                         // why another rank leaves
  std::vector<std::byte> received_, packed_;  // a piece: of this rank's share from all ranks, and of all shares
  std::vector<double> gathered_;
  std::vector<std::int32_t> exchanged_numbers_;
  std::vector<int> numbers_, exchange_;  // Places of sums, and of the exchange that is under way
  int exceptions_ = std::uncaught_exceptions();
  bool finalizes_ = false, left_ = false;
  bool threads_allowed_ = false;  // another thread than the main one may use MPI while that does not
  bool sums_beside_ = false;      // some of this communicator may be under way
  MPI_Request exchange_request_ = MPI_REQUEST_NULL;
  std::shared_ptr<MpiRanks> all_;  // of which this is a group; null: of none
  std::shared_ptr<Shared> shared_;
};

}  // namespace detail

}  // namespace tinymoe::inline v0_1
