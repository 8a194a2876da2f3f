#pragma once
/// @file
/// The switch between stacks: saves what a called function must keep, changes the stack pointer, restores. No system
/// call, unlike swapcontext, which saves the signal mask.

#include <cstdint>

#if defined(__SANITIZE_ADDRESS__)
#define TINYMOE_EMULATOR_ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TINYMOE_EMULATOR_ADDRESS_SANITIZER 1
#endif
#endif

namespace cuda_emulator {

#if defined(__x86_64__)
/// Leaves the running stack, whose pointer is written to `from`, for the stack that `to` points into. It is inline and
/// jumps instead of returning: after a switch each return goes to another place than the processor predicts, so there
/// should be few.
inline __attribute__((always_inline)) void switch_stacks(void** from, void* to) {
  asm volatile(
      "leaq -128(%%rsp), %%rsp\n\t"  // what a function may keep below the stack pointer
      "pushq %%rbp\n\t"
      "leaq 1f(%%rip), %%rax\n\t"
      "pushq %%rax\n\t"
      "movq %%rsp, (%0)\n\t"
      "movq %1, %%rsp\n\t"
      "popq %%rax\n\t"
      "jmpq *%%rax\n"
      "1:\n\t"
      "popq %%rbp\n\t"
      "leaq 128(%%rsp), %%rsp\n\t"
      : "+D"(from), "+S"(to)
      :
      : "rax", "rbx", "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "xmm0", "xmm1", "xmm2",
        "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15",
        "memory", "cc");
}

/// A stack that, switched to, calls `entry`, which must not return. `top` is aligned to 16.
inline void* new_stack(void* top, void (*entry)()) {
  auto* words = static_cast<std::uint64_t*>(top) - 4;
  words[0] = reinterpret_cast<std::uint64_t>(entry);
  words[1] = words[2] = words[3] = 0;  // an end for debuggers
  return words;
}
#elif defined(__aarch64__)
extern "C" void tinymoe_emulator_switch(void** from, void* to);
inline void switch_stacks(void** from, void* to) { tinymoe_emulator_switch(from, to); }
asm(R"(
.text
.p2align 4
.weak tinymoe_emulator_switch
.type tinymoe_emulator_switch, %function
tinymoe_emulator_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size tinymoe_emulator_switch, . - tinymoe_emulator_switch
)");

inline void* new_stack(void* top, void (*entry)()) {
  auto* words = static_cast<std::uint64_t*>(top) - 20;
  for (int i = 0; i < 20; ++i) words[i] = 0;
  words[11] = reinterpret_cast<std::uint64_t>(entry);
  return words;
}
#else
#error "the emulator's fibers know x86-64 and AArch64"
#endif

}  // namespace cuda_emulator
