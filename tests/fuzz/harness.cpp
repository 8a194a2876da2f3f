// What all harnesses share: files, and the limits of memory and time.

#include "fuzz/harness.hpp"

#include <fcntl.h>
#include <malloc.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <iterator>
#include <new>
#include <system_error>

#if defined(__SANITIZE_ADDRESS__)
#define TINYMOE_FUZZ_ASAN
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TINYMOE_FUZZ_ASAN
#endif
#endif
#ifdef TINYMOE_FUZZ_ASAN
#include <sanitizer/allocator_interface.h>
#endif

namespace {

std::atomic<std::size_t> allocated = 0, peak = 0;

void count_bytes(std::size_t bytes) {
  const std::size_t now = allocated += bytes;
  std::size_t before = peak;
  while (now > before && !peak.compare_exchange_weak(before, now)) {
  }
}

}  // namespace

#ifdef TINYMOE_FUZZ_ASAN
// The sanitizer has an allocator of its own, and tells of each call.
namespace {

[[maybe_unused]] const int hooks = __sanitizer_install_malloc_and_free_hooks(
    [](const volatile void*, std::size_t size) { count_bytes(size); },
    [](const volatile void* memory) {
      if (memory != nullptr) allocated -= __sanitizer_get_allocated_size(const_cast<const void*>(memory));
    });

}  // namespace
#else
namespace {

void* counted(void* memory) {
  if (memory == nullptr) throw std::bad_alloc();
  count_bytes(::malloc_usable_size(memory));
  return memory;
}
void release(void* memory) {
  if (memory == nullptr) return;
  allocated -= ::malloc_usable_size(memory);
  std::free(memory);
}

}  // namespace

// The program's own, so that what a reader takes is seen. The other forms call these; the one that does not throw is
// here for valgrind, which puts one of its own in its place.
void* operator new(std::size_t size) { return counted(std::malloc(size == 0 ? 1 : size)); }
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  void* const memory = std::malloc(size == 0 ? 1 : size);
  if (memory != nullptr) count_bytes(::malloc_usable_size(memory));
  return memory;
}
void* operator new(std::size_t size, std::align_val_t alignment) {
  const auto unit = static_cast<std::size_t>(alignment);
  return counted(std::aligned_alloc(unit, (std::max<std::size_t>(size, 1) + unit - 1) / unit * unit));
}
void operator delete(void* memory) noexcept { release(memory); }
void operator delete(void* memory, std::size_t) noexcept { release(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { release(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { release(memory); }
#endif

namespace tinymoe_fuzz {

void run_checked(const Harness& harness, std::string_view input) {
  // A copy of just its size, so that a sanitizer sees what reads past its end.
  const std::vector<char> copy(input.begin(), input.end());
  const std::size_t before = allocated;
  peak = before;
  const std::clock_t begin = std::clock();
  harness.run({copy.data(), copy.size()});
  const double seconds = static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
  const std::size_t taken = peak < before ? 0 : peak - before,
                    allowed = harness.memory_base + harness.memory_factor * input.size();
  const auto fault = [&](const std::string& sentence) {
    throw Fault(std::string(harness.name) + ": " + std::to_string(input.size()) + " bytes took " + sentence);
  };
  if (taken > allowed) {
    fault(std::to_string(taken) + " bytes of memory, expected at most " + std::to_string(allowed));
  }
  if (seconds > most_seconds) fault(std::to_string(seconds) + " seconds");
}

namespace {

class ScratchFolder {
 public:
  ScratchFolder() {
    std::error_code ignored;
    const std::filesystem::path memory = "/dev/shm";
    const bool there = std::filesystem::is_directory(memory, ignored) && ::access(memory.c_str(), W_OK) == 0;
    std::string pattern = ((there ? memory : std::filesystem::temp_directory_path()) / "tinymoe-fuzz-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("no temporary folder");
    path = pattern;
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ~ScratchFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  std::filesystem::path path;
};

}  // namespace

const std::filesystem::path& scratch() {
  static const ScratchFolder folder;
  return folder.path;
}

std::filesystem::path write_scratch(const std::string& name, std::string_view bytes) {
  const auto path = scratch() / name;
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  const bool written = file >= 0 && ::write(file, bytes.data(), bytes.size()) == std::ssize(bytes);
  if (file >= 0) ::close(file);
  if (!written) throw std::runtime_error(path.string() + " cannot be written");
  return path;
}

std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string numbered(std::size_t number, std::string_view bytes) {
  return std::string(1, static_cast<char>(number)).append(bytes);
}

}  // namespace tinymoe_fuzz
