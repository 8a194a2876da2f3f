#include "ranks.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <span>
#include <tinymoe/core/error.hpp>
#include <tinymoe/mpi/launcher.hpp>
#include <utility>

#include "programs/interruption.hpp"

#ifdef TINYMOE_EXAMPLE_MPI
#include <tinymoe/mpi/mpi.hpp>
#include <tinymoe/train/agreement.hpp>
#endif
#ifdef TINYMOE_EXAMPLE_NCCL
#include <tinymoe/mpi/nccl.hpp>
#endif

namespace examples {

using namespace tinymoe;

#ifdef TINYMOE_EXAMPLE_MPI

struct Ranks::Joined {
  std::string checkpoint = "none yet";
  double waited = 0, asked = -1;  // in this wait: its seconds so far, and when this process was asked to end
  bool told = false;
  Mpi mpi{{.patience = 0, .while_waiting = [this](double seconds) { tell_if_interrupted(seconds); }}};

  /// A launcher that has lost a process asks the others to end, and kills them soon: after a second by default. Rank 0,
  /// which waits for the lost one, takes no step any more at whose end it would save.
  void tell_if_interrupted(double seconds) {
    if (seconds < waited) asked = -1;  // another wait
    waited = seconds;
    if (told || !programs::interrupted()) return;
    if (asked < 0) asked = seconds;
    if (seconds - asked < 0.3 || mpi.rank() != 0) return;  // a step of the others may end soon
    told = true;
    std::fprintf(stderr,
                 "train: %s came while rank 0 waits for the others; if they do not end this step, the last good "
                 "checkpoint: %s\n",
                 programs::interruption(), checkpoint.c_str());
  }
};

Ranks::Ranks() {
  // Open MPI's mpirun gives a process a terminal that is not the user's, which may be a file.
  if (std::getenv("OMPI_COMM_WORLD_SIZE") != nullptr) ::setenv("TERM", "dumb", 1);
  if (launched_processes() < 2) return;  // one needs no MPI
  try {
    joined_ = std::make_unique<Joined>();
  } catch (const std::exception& error) {
    reason_ = error.what();
    return;
  }
  if (first()) return;
  const int nothing = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
  if (nothing < 0) return;
  ::dup2(nothing, STDOUT_FILENO);
  ::close(nothing);
}

Index Ranks::rank() const { return joined_ ? joined_->mpi.rank() : 0; }
Index Ranks::size() const { return joined_ ? joined_->mpi.size() : 1; }
Index Ranks::local_rank() const { return joined_ ? joined_->mpi.local_rank() : 0; }
int Ranks::threads(int asked) const { return asked == 0 && size() > 1 ? joined_->mpi.threads() : asked; }
void Ranks::expect_same(const std::string& name, const std::string& text) {
  if (!joined_) return;
  compared_ = true;
  tinymoe::detail::Agreement same;
  same.add_text(name, text);
  same.expect(joined_->mpi);
}
void Ranks::meet() {
  if (joined_) joined_->mpi.meet();
}
void Ranks::expect_answers(bool soon) {
  if (joined_) joined_->mpi.wait_at_most(soon ? MpiOptions{}.patience : 0);
}
void Ranks::note_checkpoint(const std::string& checkpoint) {
  if (joined_) joined_->checkpoint = checkpoint;
}

std::string Ranks::of_first(std::string text) {
  if (!joined_) return text;
  double length = first() ? static_cast<double>(text.size()) : 0;
  joined_->mpi.sum(std::span(&length, 1));
  text.resize(static_cast<std::size_t>(length));
  joined_->mpi.broadcast(std::as_writable_bytes(std::span(text)));
  return text;
}

Communicators Ranks::communicators(const Device& device, [[maybe_unused]] bool in_groups) {
  if (size() == 1) return {};
  // A rank with another kind of device would make other calls from here on.
  expect_same("kind of device", std::visit([]<class B>(const B&) { return is_cpu<B> ? "cpu" : "gpu"; }, device));
  auto all = std::apply([&]<class... C>(const C&...) { return Communicators{C(joined_->mpi)...}; }, Communicators());
#ifdef TINYMOE_EXAMPLE_NCCL
  std::visit(
      [&]<class B>(const B& backend) {
        if constexpr (!is_cpu<B>) {
          const bool possible = !in_groups && Nccl::possible(joined_->mpi, backend);
          if (possible) std::get<AnyCommunicator<B>>(all) = Nccl(joined_->mpi, backend);
          std::puts(possible    ? "NCCL joins the GPUs"
                    : in_groups ? "the hosts' memory joins the GPUs, as always in expert parallelism"
                                : "two processes have the same GPU, so the hosts' memory joins them");
        }
      },
      device);
#endif
  return all;
}

int Ranks::end(int status, const std::string& sentence, const char* program) {
  if (joined_ && status == 0 && sentence.empty()) {
    if (compared_) return 0;
    try {  // it had nothing to do, as with --help
      expect_same(kind_of_work, "none");
      return 0;
    } catch (const std::exception& error) {
      if (first()) programs::print_error(program, error.what());
      std::fflush(nullptr);
      Mpi::abort(1);
    }
  }
  if (joined_ && !first()) {
    joined_->mpi.leave(sentence.empty() ? "its command line is wrong" : sentence);
    // Rank 0 tells the sentence and ends this process.
    const int tenths_of_patience = static_cast<int>(10 * MpiOptions{}.patience);  // rank 0 may be in a step, or saving
    for (int tenths = 0; tenths < tenths_of_patience && !programs::interrupted(); ++tenths) ::usleep(100'000);
    if (programs::interrupted()) Mpi::abort(1);
  }
  if (!sentence.empty()) status = programs::print_error(program, sentence.c_str());
  std::fflush(nullptr);
  if (joined_) Mpi::abort(status);
  return status;
}

#else

struct Ranks::Joined {};

Ranks::Ranks() {
  if (const Index started = launched_processes(); started > 1) {
    reason_ =
        "a launcher has started " + std::to_string(started) +
        " processes, but this program was built without MPI; build it with cmake -DTINYMOE_MPI=ON, which says what is "
        "missing for that, or start one process";
  }
}
Index Ranks::rank() const { return 0; }
Index Ranks::size() const { return 1; }
Index Ranks::local_rank() const { return 0; }
int Ranks::threads(int asked) const { return asked; }
void Ranks::expect_same(const std::string& /*name*/, const std::string& /*text*/) {}
void Ranks::meet() {}
void Ranks::expect_answers(bool /*soon*/) {}
void Ranks::note_checkpoint(const std::string& /*checkpoint*/) {}
std::string Ranks::of_first(std::string text) { return text; }
Communicators Ranks::communicators(const Device& /*device*/, bool /*in_groups*/) { return {}; }
int Ranks::end(int status, const std::string& sentence, const char* program) {
  return sentence.empty() ? status : programs::print_error(program, sentence.c_str());
}

#endif

Ranks::~Ranks() = default;

void Ranks::expect_joined() const {
  if (!reason_.empty()) fail<DeviceError>(reason_);
}

}  // namespace examples
