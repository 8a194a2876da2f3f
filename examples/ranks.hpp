#pragma once
// The processes of a run of `train`: one, or those that mpirun or srun has started, if the program was built with MPI.

#include <memory>
#include <string>
#include <tinymoe/core/platform.hpp>

#include "programs.hpp"

namespace examples {

/// This process among those that train together.
class Ranks {
 public:
  /// Joins the processes that were started with this one, if a launcher has started it. Rank 0 alone prints: the
  /// standard output of the others goes nowhere. What it cannot do, `expect_joined` throws.
  Ranks();
  Ranks(const Ranks&) = delete;
  ~Ranks();

  /// Throws DeviceError if a launcher has started several processes and they cannot train together.
  void expect_joined() const;

  Index rank() const;
  Index size() const;
  bool first() const { return rank() == 0; }
  /// Among those of this machine.
  Index local_rank() const;
  bool first_here() const { return local_rank() == 0; }
  /// Threads of the CPU backend, where the command line says `asked`; 0: it says none.
  int threads(int asked) const;

  /// Throws MismatchError on all ranks if one has another text than rank 0 under this name. What decides which calls
  /// follow is compared before them: ranks that made different calls would wait for each other forever.
  void expect_same(const std::string& name, const std::string& text);
  /// Returns when all ranks have called it. Throws where one has left.
  void meet();
  /// The text of rank 0.
  std::string of_first(std::string text);
  /// Whether a rank that waits takes the others for dead after half an hour. At first it does not.
  void expect_answers(bool soon);
  /// What the message names if the launcher ends this process, since another has died.
  void note_checkpoint(const std::string& checkpoint);

  /// How these processes train together on the device: GPUs are joined by NCCL where it was built in and each process
  /// has one of its own, else through the memory of the hosts. All ranks call it.
  Communicators communicators(const Device& device);

  /// What `expect_same` calls whether a program trains, lists or measures.
  static constexpr const char* kind_of_work = "kind of work";

  /// At the end of the program: returns its exit status. After an error that `sentence` tells, rank 0 ends all
  /// processes; another rank tells rank 0 and waits for that.
  int end(int status, const std::string& sentence, const char* program);

 private:
  struct Joined;
  std::unique_ptr<Joined> joined_;
  [[maybe_unused]] bool compared_ = false;  // whether expect_same was called
  std::string reason_;                      // why it has not joined
};

}  // namespace examples
