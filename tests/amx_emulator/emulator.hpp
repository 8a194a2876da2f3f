#pragma once
// AMX on processors without it, for tests: its instructions are illegal there, and a handler of that signal executes
// them on tiles in memory. An instruction that it does not know has its usual end; so has one that the processor would
// refuse, after a line on the error output.

#include <ucontext.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <cstring>

#include "amx_emulator/tiles.hpp"
#include "tinymoe/cpu/instructions.hpp"

namespace tinymoe_test {

#if defined(TINYMOE_AMX)

namespace amx_emulator {

inline thread_local constinit Tiles tiles{};

/// One instruction in 3-byte VEX form: C4, the fields, ModRM and what belongs to it.
class Instruction {
 public:
  /// At the program counter of `registers`.
  explicit Instruction(greg_t* registers)
      : registers_(registers), at_(reinterpret_cast<const std::uint8_t*>(registers[REG_RIP])) {
    if (next() != 0xc4) return;
    const unsigned first = next();
    if ((first & 0x1f) != 2) return;  // the map 0F 38
    const unsigned second = next();
    operation_ = next();
    if (operation_ != 0x49 && operation_ != 0x4b && operation_ != 0x5c) return;
    if ((second & 0x84) != 0) return;  // W and L are 0
    prefix_ = second & 3;
    third_ = ~second >> 3 & 15;
    const unsigned extend_reg = (~first >> 7 & 1) * 8, extend_index = (~first >> 6 & 1) * 8,
                   extend_base = (~first >> 5 & 1) * 8;
    const unsigned modrm = next(), mode = modrm >> 6;
    reg_ = (modrm >> 3 & 7) + extend_reg;
    rm_ = (modrm & 7) + extend_base;
    of_memory_ = mode != 3;
    has_index_byte_ = of_memory_ && (modrm & 7) == 4;
    if (of_memory_) address(mode, extend_index, extend_base);
    known_ = true;
  }

  /// Whether it is one of AMX's. If so it has been executed, unless `reason` says why not.
  bool execute(Reason& reason) {
    if (!known_ || (operation_ != 0x5c && third_ != 0)) return false;
    switch (operation_) {
      case 0x49:
        if (prefix_ == 0 && of_memory_ && reg_ == 0) return reason = tiles.configure(memory()), done(reason);
        if (prefix_ == 0 && !of_memory_ && reg_ == 0 && rm_ == 0) return tiles.release(), done(reason = nullptr);
        if (prefix_ == 3 && !of_memory_ && rm_ == 0) return reason = tiles.zero(reg_), done(reason);
        return false;
      case 0x4b:
        if (!has_index_byte_) return false;
        if (prefix_ == 3 || prefix_ == 1) return reason = tiles.load(reg_, memory(), stride_), done(reason);
        if (prefix_ == 2) return reason = tiles.store(reg_, memory(), stride_), done(reason);
        return false;
      default:
        if (prefix_ != 2 || of_memory_) return false;
        return reason = tiles.multiply_bfloat16(reg_, rm_, third_), done(reason);
    }
  }

 private:
  unsigned next() { return *at_++; }

  template <class Number>
  std::int64_t number() {
    Number value;
    std::memcpy(&value, at_, sizeof value);
    at_ += sizeof value;
    return value;
  }

  std::int64_t value(unsigned number) const {
    constexpr int order[] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                             REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
    return registers_[order[number]];
  }

  /// The operand's address, for tiles without the index, which is their stride; the manual's tables 2-2 and 2-3.
  void address(unsigned mode, unsigned extend_index, unsigned extend_base) {
    unsigned base = rm_;
    if (has_index_byte_) {
      const unsigned byte = next(), index = (byte >> 3 & 7) + extend_index;
      base = (byte & 7) + extend_base;
      if (index != 4) stride_ = value(index) * (std::int64_t{1} << (byte >> 6));
    }
    const bool no_base = mode == 0 && (base & 7) == 5;
    std::int64_t offset = 0;
    if (mode == 1) offset = number<std::int8_t>();
    if (mode == 2 || no_base) offset = number<std::int32_t>();
    const bool from_next = no_base && !has_index_byte_;
    address_ = offset + (from_next ? reinterpret_cast<std::int64_t>(at_) : no_base ? 0 : value(base));
  }

  std::uint8_t* memory() const {
    return reinterpret_cast<std::uint8_t*>(address_ + (operation_ == 0x49 ? stride_ : 0));
  }

  bool done(Reason reason) {
    if (reason == nullptr) registers_[REG_RIP] = reinterpret_cast<greg_t>(at_);
    return true;
  }

  greg_t* registers_;
  const std::uint8_t* at_;
  unsigned operation_ = 0, prefix_ = 0, reg_ = 0, rm_ = 0, third_ = 0;
  bool known_ = false, of_memory_ = false, has_index_byte_ = false;
  std::int64_t address_ = 0, stride_ = 0;
};

inline struct sigaction before;  // what the signal did

/// Executes AMX instructions from the program counter on, as many as follow each other.
inline void handle(int signal, siginfo_t*, void* context) {
  greg_t* const registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  bool any = false;
  for (Reason reason = nullptr; Instruction(registers).execute(reason); any = true) {
    if (reason == nullptr) continue;
    [[maybe_unused]] auto written = write(STDERR_FILENO, "amx_emulator: ", 14);
    written = write(STDERR_FILENO, reason, std::strlen(reason));
    written = write(STDERR_FILENO, "\n", 1);
    any = false;
    break;
  }
  // The instruction is met again, without this handler.
  if (!any) sigaction(signal, &before, nullptr);
}

/// The handler stands from now on, until someone else takes the signal, as Catch does at each test case.
inline void install() {
  struct sigaction action = {};
  action.sa_sigaction = handle;
  action.sa_flags = SA_SIGINFO;
  sigemptyset(&action.sa_mask);
  struct sigaction now = {};
  sigaction(SIGILL, nullptr, &now);
  if ((now.sa_flags & SA_SIGINFO) != 0 && now.sa_sigaction == handle) return;
  before = now;
  sigaction(SIGILL, &action, nullptr);
}

}  // namespace amx_emulator

/// Whether kernels for AMX can run: on the processor's own tiles, or from now to the end of the test case on emulated
/// ones, for which it must have AVX-512 with BF16. A backend of them is a Forced<CpuBfloat16>.
inline bool amx_runs() {
  using tinymoe::CpuInstructions;
  namespace cpu = tinymoe::detail::cpu;
  if (cpu::best() == CpuInstructions::amx) return true;
  if (cpu::best() < CpuInstructions::avx512 || !__builtin_cpu_supports("avx512bf16")) return false;
  amx_emulator::install();
  return true;
}

#else
inline bool amx_runs() { return false; }
#endif

}  // namespace tinymoe_test
