// A training step allocates nothing: every way to memory is counted while a step runs.

#include <atomic>
#include <cstdlib>
#include <new>

#include "files/bytes.hpp"
#include "support/catch.hpp"
#include "support/sanitizers.hpp"
#include "tinymoe/train/trainer.hpp"
#include "train/tiny.hpp"

#if defined(__GLIBC__) && !TINYMOE_TEST_SANITIZED
#define TINYMOE_TEST_COUNTS_MALLOC 1
#endif

namespace {

std::atomic<bool> counting{false};
std::atomic<long> news{0}, mallocs{0}, maps{0};

void count(std::atomic<long>& counter) {
  if (counting.load(std::memory_order_relaxed)) counter.fetch_add(1, std::memory_order_relaxed);
}

void* checked(void* address) {
  if (address == nullptr) throw std::bad_alloc();
  return address;
}
void* aligned(std::size_t size, std::align_val_t alignment) noexcept {
  count(news);
  const auto align = static_cast<std::size_t>(alignment);
  return std::aligned_alloc(align, (std::max<std::size_t>(size, 1) + align - 1) / align * align);
}
// Not inlined, or the compiler sees free beside new and warns.
[[gnu::noinline]] void release(void* address) noexcept { std::free(address); }
void* plain(std::size_t size) noexcept {
  count(news);
  return std::malloc(std::max<std::size_t>(size, 1));
}

}  // namespace

// All replaceable forms of new, and their deletes.
void* operator new(std::size_t size) { return checked(plain(size)); }
void* operator new[](std::size_t size) { return checked(plain(size)); }
void* operator new(std::size_t size, const std::nothrow_t&) noexcept { return plain(size); }
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept { return plain(size); }
void* operator new(std::size_t size, std::align_val_t a) { return checked(aligned(size, a)); }
void* operator new[](std::size_t size, std::align_val_t a) { return checked(aligned(size, a)); }
void* operator new(std::size_t size, std::align_val_t a, const std::nothrow_t&) noexcept { return aligned(size, a); }
void* operator new[](std::size_t size, std::align_val_t a, const std::nothrow_t&) noexcept { return aligned(size, a); }
void operator delete(void* p) noexcept { release(p); }
void operator delete[](void* p) noexcept { release(p); }
void operator delete(void* p, std::size_t) noexcept { release(p); }
void operator delete[](void* p, std::size_t) noexcept { release(p); }
void operator delete(void* p, const std::nothrow_t&) noexcept { release(p); }
void operator delete[](void* p, const std::nothrow_t&) noexcept { release(p); }
void operator delete(void* p, std::align_val_t) noexcept { release(p); }
void operator delete[](void* p, std::align_val_t) noexcept { release(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { release(p); }
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept { release(p); }
void operator delete(void* p, std::align_val_t, const std::nothrow_t&) noexcept { release(p); }
void operator delete[](void* p, std::align_val_t, const std::nothrow_t&) noexcept { release(p); }

#ifdef TINYMOE_TEST_COUNTS_MALLOC
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

// What C code calls, passed on to glibc under its own names; mmap is how backends get memory.
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);

void* malloc(std::size_t size) noexcept {
  count(mallocs);
  return __libc_malloc(size);
}
void* calloc(std::size_t number, std::size_t size) noexcept {
  count(mallocs);
  return __libc_calloc(number, size);
}
void* realloc(void* address, std::size_t size) noexcept {
  count(mallocs);
  return __libc_realloc(address, size);
}
void* aligned_alloc(std::size_t alignment, std::size_t size) noexcept {
  count(mallocs);
  return __libc_memalign(alignment, size);
}
int posix_memalign(void** result, std::size_t alignment, std::size_t size) noexcept {
  count(mallocs);
  *result = __libc_memalign(alignment, size);
  return *result == nullptr ? 12 /* ENOMEM */ : 0;
}
void* mmap(void* address, std::size_t size, int protection, int flags, int file, off_t offset) noexcept {
  count(maps);
  return reinterpret_cast<void*>(::syscall(SYS_mmap, address, size, protection, flags, file, offset));
}
}
#endif

namespace tinymoe_test::allocation {

namespace {

struct Counts {
  long news = 0, mallocs = 0, maps = 0;
};

template <class F>
Counts count_during(F&& f) {
  news = mallocs = maps = 0;
  counting = true;
  f();
  counting = false;
  return {news, mallocs, maps};
}

}  // namespace

TEST_CASE("The count sees every way to memory", "[allocation]") {
  CHECK(count_during([] { delete new volatile int(3); }).news == 1);
  struct alignas(64) Wide {
    char bytes[64];
  };
  CHECK(count_during([] {
          Wide* volatile wide = new Wide();
          delete wide;
        }).news == 1);
#ifdef TINYMOE_TEST_COUNTS_MALLOC
  CHECK(count_during([] {
          void* volatile block = std::malloc(10);
          block = std::realloc(block, 100);
          std::free(block);
          block = std::calloc(3, 5);
          std::free(block);
        }).mallocs == 3);
  const Cpu backend(1);
  CHECK(count_during([&] { backend.allocate(100000); }).maps == 1);
#endif
}

TEST_CASE("A training step allocates nothing", "[allocation]") {
  const auto inputs = random_tokens(4 * 16, Tiny::vocab, 1), targets = random_tokens(4 * 16, Tiny::vocab, 2);
  const AnySchedule schedule = WarmupCosine{};
  for (const int threads : {1, 2}) {
    Cpu backend(threads);
    const AnyOptimizer<Cpu> optimizers[] = {AdamW{}, Lion{}, Muon{}};
    for (const auto& optimizer : optimizers) {
      Model<Tiny, Cpu> model(backend, Seed{1});
      Trainer trainer(model, optimizer, schedule);
      StepReport report;
      const auto step = [&] { report = trainer.train_step(inputs, targets, 2, 16); };
      step();
      step();
      const auto counts = count_during(step);
      INFO(optimizer.name << ", " << threads << " threads");
      CHECK(counts.news == 0);
      CHECK(counts.mallocs == 0);
      CHECK(counts.maps == 0);
      CHECK(report.step == 3);
      // Another shape plans anew, which the count sees.
      const auto planned = count_during([&] { trainer.train_step(inputs, targets, 4, 16); });
#ifdef TINYMOE_TEST_COUNTS_MALLOC
      CHECK(planned.maps > 0);
#else
      static_cast<void>(planned);
#endif
    }
  }
}

namespace {

/// Counts what a run allocates between two of its steps, beside the tests' own observers.
struct Counting : Observer {
  explicit Counting(Index last_step) : last(last_step) {}
  Index last;
  Counts counts;

  void on_step(const StepReport& report, const ExpertLoads& loads) override {
    if (report.step == last) counting = false, counts = {news, mallocs, maps};
    CHECK(loads.size() == 2);
    if (report.step == 3) news = mallocs = maps = 0, counting = true;
  }
};

}  // namespace

TEST_CASE("A step of a run allocates nothing, with its batches, its observers and its CSV", "[allocation]") {
  const TemporaryFolder root;
  for (const Batching batching : {Batching::packed, Batching::padded}) {
    Cpu backend(1);
    Model<Tiny, Cpu> model(backend, Seed{1});
    Trainer trainer(model, AdamW{}, WarmupCosine{});
    Counting counting_steps(9);
    Observer quiet;
    trainer.fit(tiny_data(), {.batch = 2,
                              .time = 16,
                              .batching = batching,
                              .accumulation = 2,
                              .steps = 10,
                              .tokenizer = &tiny_tokenizer(),
                              .metrics = root / "run.csv",
                              .observers = {&quiet, &counting_steps}});
    INFO("padded " << (batching == Batching::padded));
    CHECK(trainer.step() == 10);
    CHECK(counting_steps.counts.news == 0);
    CHECK(counting_steps.counts.mallocs == 0);
    CHECK(counting_steps.counts.maps == 0);
  }
}

}  // namespace tinymoe_test::allocation
