// expected sentence: tinymoe: a backend that records has all of a type Recording, void replay(Recording&, work) and a constant max_recorded_pairs
#include <tinymoe/backend/reference.hpp>

using namespace tinymoe;

struct Mine : Reference<float> {
#ifdef FIXED
  struct Recording {};
  static constexpr Index max_recorded_pairs = 64;
  template <class Work>
  void replay(Recording&, Work&&) {}
#else
  struct Recording {};
  template <class Work>
  void replay(Recording&, Work&&) {}
#endif
};
static_assert(Backend<Mine>);
