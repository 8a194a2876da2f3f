#include <cstdio>
#include <span>
#include <tinymoe/mpi/mpi.hpp>

int main() {
  tinymoe::Mpi ranks;
  double number = static_cast<double>(ranks.rank() + 1);
  ranks.sum(std::span(&number, 1));
  if (ranks.rank() == 0) std::printf("%d ranks: %g\n", static_cast<int>(ranks.size()), number);
}
