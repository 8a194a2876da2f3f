// expected sentence: tinymoe: a backend's `upload` must be void upload(void* to, const void* from, std::size_t bytes)
#include <tinymoe/backend/reference.hpp>

using namespace tinymoe;

struct Mine : Reference<float> {
#ifdef FIXED
  void upload(void*, const void*, std::size_t) {}
#else
  void upload(void*, const void*) {}
#endif
};
static_assert(Backend<Mine>);
