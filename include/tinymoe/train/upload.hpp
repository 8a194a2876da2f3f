#pragma once
/// @file
/// Copies to a backend that need not wait for it.

#include <cstddef>

namespace tinymoe::inline v0_1::detail {

/// Copies `bytes` from the host, in order with the operations before and after; `from` may be reused on return. Where
/// the backend has `upload(to, from, bytes)`, the host goes on while the device still works on what came before.
template <class B>
void upload(B& backend, void* to, const void* from, std::size_t bytes) {
  if constexpr (requires { backend.upload(to, from, bytes); }) {
    backend.upload(to, from, bytes);
  } else {
    backend.copy_to_device(to, from, bytes);
  }
}

}  // namespace tinymoe::inline v0_1::detail
