#include "emulator/machine.hpp"

#include <sys/mman.h>

#include <bit>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <vector>

#include "emulator/memory.hpp"
#include "emulator/switch.hpp"
#include "tinymoe/core/platform.hpp"

#if defined(TINYMOE_EMULATOR_ADDRESS_SANITIZER)
#include <sanitizer/common_interface_defs.h>
#endif

namespace cuda_emulator {
namespace {

constexpr std::size_t stack_bytes = 256 * 1024, page = 4096;

TINYMOE_INLINE void change(Fiber& from, Fiber& to) {
#if defined(TINYMOE_EMULATOR_ADDRESS_SANITIZER)
  void* fake_stack = nullptr;
  __sanitizer_start_switch_fiber(&fake_stack, to.bottom, to.bytes);
  switch_stacks(&from.pointer, to.pointer);
  __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#else
  switch_stacks(&from.pointer, to.pointer);
#endif
}

bool same_text(const Place& a, const Place& b) {
  return a.line() == b.line() && a.column() == b.column() && std::strcmp(a.file_name(), b.file_name()) == 0;
}
/// Nearly always they are copies of the same object.
TINYMOE_INLINE bool same_place(const Place& a, const Place& b) {
  return std::memcmp(&a, &b, sizeof(a)) == 0 || same_text(a, b);
}

[[noreturn]] void refuse(Meeting meeting, const Place& place, const char* what) {
  machine().comes_to = meeting, machine().comes_at = place;
  stop(what);
}

std::uint64_t next_random(std::uint64_t& state) {
  std::uint64_t word = state += 0x9e3779b97f4a7c15u;
  word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9u;
  word = (word ^ (word >> 27)) * 0x94d049bb133111ebu;
  return word ^ (word >> 31);
}

/// The first, the last, or any bit that is set.
TINYMOE_INLINE unsigned choose(std::uint32_t bits) {
  Machine& m = machine();
  if (m.random) {
    const int turn = static_cast<int>(next_random(m.random_state) & 31);
    return (static_cast<unsigned>(std::countr_zero(std::rotr(bits, turn))) + static_cast<unsigned>(turn)) & 31;
  }
  return static_cast<unsigned>(m.backward ? 31 - std::countl_zero(bits) : std::countr_zero(bits));
}

struct Choice {
  unsigned thread;
  bool fresh;
};
/// The thread that runs next: of the same warp while that can run, so that its lanes meet soon.
TINYMOE_INLINE Choice next_thread() {
  Machine& m = machine();
  if (m.runnable == 0) stop("the block's threads wait for each other");
  unsigned number = current_thread / 32;
  if (m.from_first || m.random || (m.runnable >> number & 1u) == 0) number = choose(m.runnable);
  m.from_first = false;
  Warp& warp = m.warps[number];
  const unsigned lane = choose(warp.ready | warp.fresh);
  const std::uint32_t bit = 1u << lane;
  const bool fresh = (warp.fresh & bit) != 0;
  warp.ready &= ~bit, warp.fresh &= ~bit;
  if ((warp.ready | warp.fresh) == 0) m.runnable &= ~(1u << number);
  return {32 * number + lane, fresh};
}

void fiber_main();

Fiber* idle_fiber() {
  Machine& m = machine();
  if (!m.idle.empty()) {
    Fiber* fiber = m.idle.back();
    m.idle.pop_back();
    return fiber;
  }
  auto fiber = std::make_unique<Fiber>();
  void* memory = mmap(nullptr, page + stack_bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  if (memory == MAP_FAILED || mprotect(memory, page, PROT_NONE) != 0) stop("no memory for a thread's stack");
  fiber->bottom = static_cast<std::byte*>(memory) + page;
  // Stacks begin at different places of their pages: at the same one they would share few lines of the cache.
  const std::size_t shift = m.fibers.size() % 16 * 256;
  fiber->bytes = stack_bytes - shift;
  fiber->pointer = new_stack(static_cast<std::byte*>(fiber->bottom) + fiber->bytes, fiber_main);
  m.fibers.push_back(std::move(fiber));
  return m.fibers.back().get();
}

TINYMOE_INLINE void make_current(unsigned thread) {
  Machine& m = machine();
  current_thread = thread;
  threadIdx = m.threads[thread].index;
}

/// The fiber of the chosen thread, which becomes the running one.
TINYMOE_INLINE Fiber& fiber_of(Choice next) {
  Machine& m = machine();
  make_current(next.thread);
  if (next.fresh) m.threads[next.thread].fiber = idle_fiber();
  return *m.threads[next.thread].fiber;
}

/// Lets others run until this thread is ready and its turn comes.
TINYMOE_INLINE void leave() {
  Machine& m = machine();
  const unsigned self = current_thread;
  const Choice next = next_thread();
  if (next.thread != self) {
    Fiber& fiber = *m.threads[self].fiber;
    change(fiber, fiber_of(next));
  }
}

void open_barrier() {
  Machine& m = machine();
  m.waiting = 0;
  m.from_first = true;
  for (unsigned w = 0; w < (m.count + 31) / 32; ++w) {
    Warp& warp = m.warps[w];
    warp.ready = warp.present & ~warp.exited, warp.at_barrier = 0;
    if (warp.ready != 0) m.runnable |= 1u << w;
  }
}

void exit_thread() {
  Machine& m = machine();
  Thread& thread = m.threads[current_thread];
  thread.copies.clear();
  thread.closed_groups = 0;
  Warp& warp = m.warps[current_thread / 32];
  warp.exited |= 1u << current_thread % 32;
  if (warp.arrived != 0) stop("a lane exits while others of its warp wait for it");
  if (--m.live > 0 && m.waiting == m.live) open_barrier();
}

/// The work of a fiber: it runs threads that have not begun, one after another, as long as none has to wait.
void fiber_main() {
#if defined(TINYMOE_EMULATOR_ADDRESS_SANITIZER)
  __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
  Machine& m = machine();
  for (;;) {
    m.body.call(m.body.context);
    Fiber* const self = m.threads[current_thread].fiber;
    exit_thread();
    if (m.live == 0) {
      m.idle.push_back(self);
      change(*self, m.host);
      continue;
    }
    const Choice next = next_thread();
    if (next.fresh) {
      m.threads[next.thread].fiber = self;
      make_current(next.thread);
    } else {
      Fiber& other = fiber_of(next);
      m.idle.push_back(self);
      change(*self, other);
    }
  }
}

void read_order() {
  Machine& m = machine();
  if (m.order_known) return;
  m.order_known = true;
  const char* text = std::getenv("TINYMOE_EMULATOR_THREADS");
  if (text == nullptr || std::strcmp(text, "alternate") == 0) return;
  if (std::strcmp(text, "forward") == 0) {
    m.order.kind = Order::Kind::forward;
  } else if (std::strcmp(text, "backward") == 0) {
    m.order.kind = Order::Kind::backward;
  } else {
    m.order = {Order::Kind::random, std::strtoull(text, nullptr, 10)};
  }
}

void run_block() {
  Machine& m = machine();
  ++m.blocks;
  m.live = m.count, m.waiting = 0, m.runnable = 0, m.from_first = true;
  for (unsigned w = 0; w < (m.count + 31) / 32; ++w) {
    Warp& warp = m.warps[w];
    const unsigned lanes = std::min(32u, m.count - 32 * w);
    warp.present = warp.fresh = all_lanes >> (32 - lanes);
    warp.ready = warp.exited = warp.arrived = warp.at_barrier = 0;
    m.runnable |= 1u << w;
  }
  prepare_shared();
  change(m.host, fiber_of(next_thread()));
  check_zones();
}

/// The i-th of `count` blocks to run.
std::uint64_t block_number(std::uint64_t i, std::uint64_t count) {
  Machine& m = machine();
  if (m.random) {
    std::uint64_t step = (m.random_state | 1) % count + 1;
    while (std::gcd(step, count) != 1) ++step;
    return (i * step + m.random_state % count) % count;
  }
  const bool backward = m.order.kind == Order::Kind::alternate ? (m.launches & 2) != 0 : m.backward;
  return backward ? count - 1 - i : i;
}

}  // namespace

void set_thread_order(Order order) {
  if (the_machine == nullptr) the_machine = new Machine;
  machine().order = order;
  machine().order_known = true;
}

void run_grid(dim3 blocks, dim3 threads, std::size_t shared_bytes, Body body) {
  if (the_machine == nullptr) the_machine = new Machine;
  Machine& m = machine();
  read_order();
  ++m.launches;
  m.random = m.order.kind == Order::Kind::random;
  m.body = body, m.shared_bytes = shared_bytes, m.running = true;
  m.count = threads.x * threads.y * threads.z;
  if (m.shape.x != threads.x || m.shape.y != threads.y || m.shape.z != threads.z) {
    m.shape = threads;
    for (unsigned i = 0; i < m.count; ++i) {
      m.threads[i].index = {i % threads.x, i / threads.x % threads.y, i / threads.x / threads.y};
    }
  }
  gridDim = blocks, blockDim = threads;
  const std::uint64_t plane = std::uint64_t{blocks.x} * blocks.y, count = plane * blocks.z;
  const std::uint64_t seed = m.order.seed * 0x9e3779b97f4a7c15u + m.launches;
  for (std::uint64_t i = 0; i < count; ++i) {
    m.random_state = seed;
    const std::uint64_t number = block_number(i, count);
    blockIdx = {static_cast<unsigned>(number % blocks.x), static_cast<unsigned>(number % plane / blocks.x),
                static_cast<unsigned>(number / plane)};
    m.random_state = seed * 31 + number;
    m.backward = m.order.kind == Order::Kind::backward ||
                 (m.order.kind == Order::Kind::alternate && ((m.launches ^ number) & 1) != 0);
    run_block();
  }
  m.running = false;
}

const Exchange& meet_warp(Meeting meeting, const void* input, std::size_t bytes, void (*finish)(Exchange&),
                          const Place& place) {
  Machine& m = machine();
  Warp& warp = m.warps[current_thread / 32];
  const unsigned lane = current_thread % 32;
  if (warp.present != all_lanes) refuse(meeting, place, "a function of the whole warp in a warp that is not whole");
  if (warp.exited != 0) refuse(meeting, place, "a function of the whole warp after lanes have exited");
  if (warp.arrived == 0) {
    warp.meeting = meeting, warp.place = place;
  } else if (warp.meeting != meeting || !same_place(warp.place, place)) {
    refuse(meeting, place, "the lanes of a warp are at different places");
  }
  Exchange& exchange = warp.exchange[warp.parity];
  if (bytes == 4) {
    std::memcpy(exchange.input[lane].bytes, input, 4);
  } else if (bytes != 0) {
    std::memcpy(exchange.input[lane].bytes, input, bytes);
  }
  warp.arrived |= 1u << lane;
  if (warp.arrived != all_lanes) {
    leave();
    return exchange;
  }
  if (finish != nullptr) finish(exchange);
  warp.arrived = 0, warp.parity ^= 1;
  warp.ready = all_lanes & ~(1u << lane);
  m.runnable |= 1u << current_thread / 32;
  return exchange;
}

void meet_block(const Place& place) {
  Machine& m = machine();
  if (m.waiting == 0) {
    m.barrier = place;
  } else if (!same_place(m.barrier, place)) {
    refuse(Meeting::sync_block, place, "the threads of a block are at different barriers");
  }
  m.warps[current_thread / 32].at_barrier |= 1u << current_thread % 32;
  if (++m.waiting == m.live) open_barrier();
  leave();
}

}  // namespace cuda_emulator
