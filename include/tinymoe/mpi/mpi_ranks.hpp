#pragma once
/// @file
/// What is behind `Mpi`: starting and ending MPI, sums in the order of the ranks, waiting, and leaving.
/// Over 300 lines: it is one class.

#include <sched.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <functional>
#include <limits>
#include <memory>
#include <span>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

// The C++ interface of MPI 2 is not used, and many builds of MPI no longer have it.
/// @cond
#ifndef OMPI_SKIP_MPICXX
#define OMPI_SKIP_MPICXX 1
#endif
#ifndef MPICH_SKIP_MPICXX
#define MPICH_SKIP_MPICXX 1
#endif
/// @endcond
#include <mpi.h>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/core/threads.hpp"
#include "tinymoe/core/worker.hpp"
#include "tinymoe/mpi/launcher.hpp"

namespace tinymoe::inline v0_1 {

/// How a rank waits for the others.
struct MpiOptions {
  /// Seconds after which a rank that waits takes the others for dead, and throws; 0: it waits on. A rank waits while
  /// rank 0 alone does something: half an hour is above what writing a checkpoint takes.
  double patience = 1800;
  /// Called every now and then while this rank waits, with the seconds since it began to. What it throws ends the
  /// waiting.
  std::function<void(double)> while_waiting = {};
};

namespace detail {

/// Throws DeviceError unless an MPI function has succeeded.
[[gnu::cold]] inline void throw_mpi_error(int code, const char* what) {
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(code, text, &length);
  fail<DeviceError>("MPI cannot ", what, ": ", std::string_view(text, static_cast<std::size_t>(std::max(0, length))));
}
inline void check_mpi(int code, const char* what) {
  if (code != MPI_SUCCESS) throw_mpi_error(code, what);
}

/// At the end of a program that has not finalized MPI, as after an exception: the other processes must not wait for it.
[[gnu::cold]] inline void abort_mpi_at_exit() {
  int initialized = 0, finalized = 0;
  MPI_Initialized(&initialized);
  MPI_Finalized(&finalized);
  if (initialized != 0 && finalized == 0) MPI_Abort(MPI_COMM_WORLD, 1);
}

/// The ranks of a communicator of MPI, and memory for the pieces of sums.
class MpiRanks {
 public:
  /// MPI_COMM_NULL: of all processes.
  [[gnu::cold]] MpiRanks(MPI_Comm of, MpiOptions options)
      : options_(std::move(options)), worker_(std::make_shared<Worker>()) {
    start(of);
    const bool all = of == MPI_COMM_NULL;
    if (all) of = MPI_COMM_WORLD;
    check_mpi(MPI_Comm_dup(of, &communicator_), "copy a communicator");
    MPI_Comm_set_errhandler(communicator_, MPI_ERRORS_RETURN);
    int number = 0;
    MPI_Comm_rank(communicator_, &number), rank = number;
    MPI_Comm_size(communicator_, &number), size = number;
    if (const Index started = launched_processes(); all && size == 1 && started > 1) {
      fail<DeviceError>("the launcher has started ", started,
                        " processes, and MPI finds one: take the mpirun of the MPI ",
                        "that the program was built with, or with Slurm srun --mpi=pmix or pmi2");
    }
    find_neighbours();
    if (rank == 0 && size > 1) {
      check_mpi(MPI_Irecv(reason_, sizeof reason_, MPI_CHAR, MPI_ANY_SOURCE, leaving, communicator_, &reason_request_),
                "receive");
    }
  }
  /// Those ranks of `all` that give this number, in their order.
  [[gnu::cold]] MpiRanks(std::shared_ptr<MpiRanks> all, Index color) : all_(std::move(all)), worker_(all_->worker_) {
    threads_allowed_ = all_->threads_allowed_;
    check_mpi(
        MPI_Comm_split(all_->communicator_, static_cast<int>(color), static_cast<int>(all_->rank), &communicator_),
        "form groups of processes");
    MPI_Comm_set_errhandler(communicator_, MPI_ERRORS_RETURN);
    int number = 0;
    MPI_Comm_rank(communicator_, &number), rank = number;
    MPI_Comm_size(communicator_, &number), size = number;
    find_neighbours();
    threads = all_->threads;
  }
  MpiRanks(const MpiRanks&) = delete;

  /// The last handle is gone: waits for the other ranks and finalizes MPI. After an exception MPI is left as it is, for
  /// the others may wait in a sum: `abort_mpi_at_exit` ends them when the program has told its error. MPI may still use
  /// the memory of what is under way then, so it is not given back.
  [[gnu::cold]] static void end(MpiRanks* ranks) {
    if (ranks->left_ || std::uncaught_exceptions() > ranks->exceptions_) return;
    int finalized = 0;
    MPI_Finalized(&finalized);
    if (finalized == 0 && ranks->all_) {
      if (!ranks->all_->left_) MPI_Comm_free(&ranks->communicator_);
    } else if (finalized == 0) {
      try {
        ranks->settle();
        ranks->options_.patience = 0;  // another rank may work on after its last sum
        ranks->meet();
      } catch (...) {
        return;
      }
      if (ranks->reason_request_ != MPI_REQUEST_NULL) {
        MPI_Cancel(&ranks->reason_request_);
        MPI_Wait(&ranks->reason_request_, MPI_STATUS_IGNORE);
      }
      MPI_Comm_free(&ranks->communicator_);
      if (ranks->finalizes_) MPI_Finalize();
    }
    delete ranks;
  }

  Index rank = 0, size = 1, local_rank = 0, local_size = 1;
  int threads = 1;
  std::vector<Index> piece_places, piece_counts;  // of each rank: kept, so that a step allocates no memory for them

  void wait_at_most(double seconds) { options_.patience = seconds; }
  MPI_Comm communicator() const { return communicator_; }

  /// Whether another thread than the main one may use MPI while that does not.
  bool threads_allowed() const { return threads_allowed_; }
  /// Work with the functions below beside the calling thread, after what was started before. The calling thread settles
  /// before it calls one of them itself, so that one thread uses MPI at a time.
  void start(std::function<void()> work) { worker_->give(std::move(work)); }
  /// Returns when all that was started is done. Throws what it has thrown.
  void settle() { worker_->finish(); }

  /// Begins an exchange of rows of so many bytes; see ExpertExchange. Sums that are under way come first.
  void start_exchange(const void* from, std::span<const Index> send, void* to, std::span<const Index> receive,
                      std::size_t row_bytes) {
    exchange_.resize(4 * static_cast<std::size_t>(size));
    int* numbers = exchange_.data();
    for (const auto& rows : {send, receive}) {
      Index place = 0;
      for (std::size_t r = 0; r < rows.size(); ++r) {
        numbers[r] = static_cast<int>(rows[r]), numbers[rows.size() + r] = static_cast<int>(place);
        place += rows[r];
      }
      if (place > std::numeric_limits<int>::max())
        fail<ShapeError>("an exchange of ", place, " rows is too large for MPI");
      numbers += 2 * rows.size();
    }
    const auto begin = [this, from, to, row_bytes] {
      const int *sends = exchange_.data(), *receives = sends + 2 * size;
      MPI_Datatype row = MPI_DATATYPE_NULL;
      MPI_Type_contiguous(static_cast<int>(row_bytes), MPI_BYTE, &row);
      MPI_Type_commit(&row);
      const int code = MPI_Ialltoallv(from, sends, sends + size, row, to, receives, receives + size, row, communicator_,
                                      &exchange_request_);
      MPI_Type_free(&row);
      check_mpi(code, "exchange rows with the processes");
    };
    if (worker_->idle()) return begin();
    worker_->give([this, begin] {
      begin();
      wait(exchange_request_);
    });
  }
  void finish_exchange() {
    worker_->finish();
    if (exchange_request_ != MPI_REQUEST_NULL) wait(exchange_request_);
  }

  /// Memory for pieces of a row of elements of so many bytes: returns how many elements of each rank's share a piece
  /// has at most. A piece has some MiB in all, and for each rank enough that the time of a message is not its latency.
  Index reserve(std::size_t element) {
    const Index bytes = std::max((Index{1} << 22) / size, Index{1} << 16);
    packed_.resize(static_cast<std::size_t>(bytes * size)), own_.resize(packed_.size());
    return bytes / static_cast<Index>(element);
  }
  /// A piece of each rank's share, one behind the other.
  std::byte* packed() { return packed_.data(); }
  /// A piece of this rank's share.
  std::byte* own() { return own_.data(); }

  /// Sums counts[r] elements of `element` bytes of each rank r in `packed` over the ranks. Returns the sums of this
  /// rank's. `add(to, from, count)` adds elements.
  const std::byte* reduce_scatter(std::span<const Index> counts, std::size_t element,
                                  void (*add)(std::byte*, const std::byte*, Index)) {
    const Places at(*this, counts, element);
    const Index count = counts[static_cast<std::size_t>(rank)];
    int* const own_sizes = at.places + size;
    int* const own_places = own_sizes + size;
    for (Index r = 0; r < size; ++r) {
      own_sizes[r] = at.sizes[rank], own_places[r] = static_cast<int>(r) * at.sizes[rank];
    }
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Ialltoallv(packed_.data(), at.sizes, at.places, MPI_BYTE, own_.data(), own_sizes, own_places,
                             MPI_BYTE, communicator_, &request),
              "sum over the processes");
    wait(request);
    for (Index r = 1; r < size; ++r) add(own_.data(), own_.data() + own_places[r], count);
    return own_.data();
  }

  /// Gives the elements in `own`, as many as counts[rank], to all. Returns those of all ranks, one behind the other.
  const std::byte* all_gather(std::span<const Index> counts, std::size_t element) {
    const Places at(*this, counts, element);
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Iallgatherv(own_.data(), at.sizes[rank], MPI_BYTE, packed_.data(), at.sizes, at.places, MPI_BYTE,
                              communicator_, &request),
              "gather from the processes");
    wait(request);
    return packed_.data();
  }

  /// Sums a few numbers: each rank gets those of all, and adds them itself, in one exchange.
  void sum(std::span<double> numbers) {
    const auto most = static_cast<std::size_t>(std::max<Index>(1, (Index{1} << 17) / size));
    for (std::size_t at = 0; at < numbers.size(); at += most) {
      const auto piece = numbers.subspan(at, std::min(most, numbers.size() - at));
      gathered_.resize(piece.size() * static_cast<std::size_t>(size));
      MPI_Request request = MPI_REQUEST_NULL;
      const int count = static_cast<int>(piece.size());
      check_mpi(
          MPI_Iallgather(piece.data(), count, MPI_DOUBLE, gathered_.data(), count, MPI_DOUBLE, communicator_, &request),
          "sum over the processes");
      wait(request);
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
      const bool beside = !worker_->idle() && !worker_->awaited();  // in the worker, and nobody waits for it
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
    check_mpi(MPI_Ibarrier(communicator_, &request), "wait for all processes");
    wait(request);
  }

  void broadcast(std::span<std::byte> bytes) {
    constexpr std::size_t most = std::size_t{1} << 26;
    for (std::size_t at = 0; at < bytes.size(); at += most) {
      const auto piece = bytes.subspan(at, std::min(most, bytes.size() - at));
      MPI_Request request = MPI_REQUEST_NULL;
      check_mpi(MPI_Ibcast(piece.data(), static_cast<int>(piece.size()), MPI_BYTE, 0, communicator_, &request),
                "send to all processes");
      wait(request);
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

  /// The bytes of each rank's part of a piece, and where it begins; behind them is room for as many numbers again.
  struct Places {
    int *sizes, *places;
    Places(MpiRanks& ranks, std::span<const Index> counts, std::size_t element) {
      ranks.numbers_.resize(4 * counts.size());
      sizes = ranks.numbers_.data(), places = sizes + counts.size();
      int place = 0;
      for (std::size_t r = 0; r < counts.size(); ++r) {
        sizes[r] = static_cast<int>(counts[r] * static_cast<Index>(element));
        places[r] = place;
        place += sizes[r];
      }
    }
  };

  [[gnu::cold]] void start(MPI_Comm of) {
    int initialized = 0, finalized = 0, level = MPI_THREAD_SINGLE;
    MPI_Initialized(&initialized);
    MPI_Finalized(&finalized);
    if (finalized != 0) fail<DeviceError>("MPI has ended in this process, and cannot be started again");
    if (initialized == 0) {
      if (of != MPI_COMM_NULL) fail<DeviceError>("MPI is not initialized, so there is no communicator of it");
      check_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &level), "start");
      finalizes_ = true;
      std::atexit(abort_mpi_at_exit);
    } else {
      MPI_Query_thread(&level);
    }
    if (level < MPI_THREAD_FUNNELED) {
      fail<DeviceError>("MPI was started for programs of one thread; start it by MPI_Init_thread with ",
                        "MPI_THREAD_FUNNELED, or leave it to tinymoe::Mpi");
    }
    threads_allowed_ = level >= MPI_THREAD_SERIALIZED;
  }

  /// The ranks of this machine, and the threads for each. A launcher may have bound each to cores of its own; else
  /// they share the machine's.
  [[gnu::cold]] void find_neighbours() {
    MPI_Comm machine = MPI_COMM_NULL;
    check_mpi(MPI_Comm_split_type(communicator_, MPI_COMM_TYPE_SHARED, static_cast<int>(rank), MPI_INFO_NULL, &machine),
              "find the processes of a machine");
    int number = 0;
    MPI_Comm_rank(machine, &number), local_rank = number;
    MPI_Comm_size(machine, &number), local_size = number;
    std::uint64_t cores = 0;  // a hash
#ifdef __linux__
    cpu_set_t mask;
    if (::sched_getaffinity(0, sizeof mask, &mask) == 0) {
      for (std::size_t core = 0; core < CPU_SETSIZE; ++core) {
        if (CPU_ISSET(core, &mask)) cores = (cores ^ static_cast<std::uint64_t>(core + 1)) * 0x100000001b3u;
      }
    }
#endif
    std::vector<std::uint64_t> of_all(static_cast<std::size_t>(local_size));
    check_mpi(MPI_Allgather(&cores, 1, MPI_UINT64_T, of_all.data(), 1, MPI_UINT64_T, machine), "gather");
    const auto sharing = std::max<std::ptrdiff_t>(1, std::count(of_all.begin(), of_all.end(), cores));
    const bool told = std::getenv("OMP_NUM_THREADS") != nullptr;  // for each process
    threads = told ? default_threads() : std::max(1, available_cores() / static_cast<int>(sharing));
    MPI_Comm_free(&machine);
  }

  /// Waits until the operation is done on this rank.
  void wait(MPI_Request& request) {
    wait_until([&] {
      int done = 0;
      check_mpi(MPI_Test(&request, &done, MPI_STATUS_IGNORE), "sum over the processes");
      return done != 0;
    });
  }

  [[gnu::cold]] void look_up(double waited, bool beside) {
    if (all_) return all_->look_up(waited, beside);
    if (reason_request_ != MPI_REQUEST_NULL) {
      int told = 0;
      MPI_Status status;
      check_mpi(MPI_Test(&reason_request_, &told, &status), "receive");
      if (told != 0) {
        int length = 0;
        MPI_Get_count(&status, MPI_CHAR, &length);
        fail<TrainingError>("rank ", status.MPI_SOURCE, ": ",
                            std::string_view(reason_, static_cast<std::size_t>(std::max(0, length))));
      }
    }
    if (options_.while_waiting && !beside) options_.while_waiting(waited);
    if (options_.patience > 0 && waited > options_.patience) {
      fail<TrainingError>("rank ", rank, " has waited ", options_.patience,
                          " seconds for the other processes, one of which hangs or has died");
    }
  }

  using Clock = std::chrono::steady_clock;

  MpiOptions options_;
  MPI_Comm communicator_ = MPI_COMM_NULL;
  MPI_Request reason_request_ = MPI_REQUEST_NULL;
  char reason_[1000];                    // why another rank leaves
  std::vector<std::byte> packed_, own_;  // a piece: of all ranks' shares, and of this rank's from all ranks
  std::vector<double> gathered_;
  std::vector<int> numbers_;  // of Places
  int exceptions_ = std::uncaught_exceptions();
  bool finalizes_ = false, left_ = false;
  bool threads_allowed_ = false;  // another thread than the main one may use MPI while that does not
  std::vector<int> exchange_;     // numbers of rows to each rank and where they begin, and the same from each
  MPI_Request exchange_request_ = MPI_REQUEST_NULL;
  std::shared_ptr<MpiRanks> all_;   // of which this is a group; null: of none
  std::shared_ptr<Worker> worker_;  // of all groups: one thread uses MPI at a time
};

}  // namespace detail

}  // namespace tinymoe::inline v0_1
