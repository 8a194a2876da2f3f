#include "emulator/memory.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <vector>

#include "emulator/fibers.hpp"

namespace cuda_emulator {
namespace {

constexpr std::size_t page = 4096;
constexpr std::size_t reserved_bytes = std::size_t{1} << 40;  // addresses only, so that freed ones are not used again

/// [pages, pages + mapped) belongs to the allocation; it ends on a page's end, where a page that is never opened
/// begins.
struct Allocation {
  std::byte* pages;
  std::size_t mapped, bytes;
};

struct Store {
  std::byte* begin = nullptr;
  std::size_t reserved = 0, next = 0, used = 0;
  int open = 0;
  std::map<std::uintptr_t, Allocation> device;
  std::map<std::uintptr_t, std::size_t> pinned;
};
Store& store() {
  static Store* const store = new Store;
  return *store;
}

std::uintptr_t number(const void* address) { return reinterpret_cast<std::uintptr_t>(address); }

void reserve() {
  Store& s = store();
  for (s.reserved = reserved_bytes; s.reserved >= 2 * device_memory_bytes; s.reserved /= 2) {
    void* memory = mmap(nullptr, s.reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory != MAP_FAILED) {
      s.begin = static_cast<std::byte*>(memory);
      return;
    }
  }
  stop("no addresses for device memory");
}

/// Fills fresh memory with 0xff. What is large is mapped from a file of such bytes again and again, so that only pages
/// that are written take memory, and time whenever device memory is opened and closed.
void fill_fresh(std::byte* pages, std::size_t bytes) {
  constexpr std::size_t pattern_bytes = std::size_t{16} << 20;
  static const int pattern = [] {
    const int file = memfd_create("tinymoe-fresh-device-memory", MFD_CLOEXEC);
    const std::vector<std::byte> some(1 << 20, std::byte{0xff});
    for (std::size_t i = 0; file >= 0 && i < pattern_bytes / some.size(); ++i) {
      if (write(file, some.data(), some.size()) != static_cast<ssize_t>(some.size())) return -1;
    }
    return file;
  }();
  const bool large = bytes >= pattern_bytes / 16 && pattern >= 0;
  for (std::size_t done = 0; large && done < bytes; done += pattern_bytes) {
    if (mmap(pages + done, std::min(pattern_bytes, bytes - done), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED,
             pattern, 0) == MAP_FAILED) {
      stop("fresh device memory cannot be mapped");
    }
  }
  if (!large) std::memset(pages, 0xff, bytes);
}

void protect(const Allocation& allocation, int protection) {
  if (mprotect(allocation.pages, allocation.mapped, protection) != 0) stop("mprotect failed on device memory");
}

/// Where `bytes` are free: behind all that was ever used, or, when the end is reached, in the first gap.
std::byte* find_place(std::size_t bytes) {
  Store& s = store();
  if (s.next + bytes > s.reserved) {
    s.next = 0;
    for (const auto& [address, allocation] : s.device) {
      const auto offset = static_cast<std::size_t>(allocation.pages - s.begin);
      if (s.next + bytes <= offset) return s.begin + s.next;
      s.next = offset + allocation.mapped + page;
    }
    if (s.next + bytes > s.reserved) return nullptr;
  }
  std::byte* const place = s.begin + s.next;
  s.next += bytes;
  return place;
}

bool all_bytes(const std::byte* begin, const std::byte* end) {
  for (; begin != end; ++begin) {
    if (*begin != std::byte{0xff}) return false;
  }
  return true;
}

}  // namespace

bool is_device_address(const void* address) {
  const Store& s = store();
  return number(address) >= number(s.begin) && number(address) < number(s.begin) + s.reserved;
}

bool is_device(const void* address, std::size_t bytes) {
  const Store& s = store();
  auto after = s.device.upper_bound(number(address));
  if (after == s.device.begin()) return false;
  const auto& [begin, allocation] = *--after;
  return number(address) + bytes <= begin + allocation.bytes;
}

bool is_pinned(const void* address, std::size_t bytes) {
  const Store& s = store();
  auto after = s.pinned.upper_bound(number(address));
  if (after == s.pinned.begin()) return false;
  const auto& [begin, size] = *--after;
  return number(address) + bytes <= begin + size;
}

OpenMemory::OpenMemory() {
  if (store().open++ > 0) return;
  for (const auto& [address, allocation] : store().device) protect(allocation, PROT_READ | PROT_WRITE);
}

OpenMemory::~OpenMemory() {
  if (--store().open > 0) return;
  for (const auto& [address, allocation] : store().device) protect(allocation, PROT_NONE);
}

void* allocate_device(std::size_t bytes) {
  Store& s = store();
  if (s.begin == nullptr) reserve();
  if (bytes > device_memory_bytes || s.used + bytes > device_memory_bytes) return nullptr;
  // As cudaMalloc's, addresses are multiples of 256; what is left up to the next one is checked when it is freed.
  const std::size_t taken = round_up_to(bytes, 256), mapped = round_up_to(taken + 256, page);
  std::byte* const pages = find_place(mapped + page);
  if (pages == nullptr) return nullptr;
  const Allocation allocation{pages, mapped, bytes};
  protect(allocation, PROT_READ | PROT_WRITE);
  fill_fresh(pages, mapped);
  if (s.open == 0) protect(allocation, PROT_NONE);
  std::byte* const address = pages + mapped - taken;
  s.device.emplace(number(address), allocation);
  s.used += bytes;
  return address;
}

bool free_device(void* address) {
  Store& s = store();
  const auto found = s.device.find(number(address));
  if (found == s.device.end()) return false;
  const Allocation allocation = found->second;
  protect(allocation, PROT_READ);
  const auto* const begin = static_cast<const std::byte*>(address);
  if (!all_bytes(allocation.pages, begin)) stop("a write before the begin of device memory, seen when it is freed");
  if (!all_bytes(begin + allocation.bytes, allocation.pages + allocation.mapped)) {
    stop("a write past the end of device memory, seen when it is freed");
  }
  // A fresh mapping gives the pages back to the system and stays closed.
  if (mmap(allocation.pages, allocation.mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
           0) == MAP_FAILED) {
    stop("device memory cannot be given back");
  }
  s.used -= allocation.bytes;
  s.device.erase(found);
  return true;
}

std::size_t device_bytes_used() { return store().used; }

void* allocate_pinned(std::size_t bytes) {
  void* const address = std::aligned_alloc(page, round_up_to(bytes, page));
  if (address == nullptr) return nullptr;
  std::memset(address, 0xff, bytes);
  store().pinned.emplace(number(address), bytes);
  return address;
}

bool free_pinned(void* address) {
  if (store().pinned.erase(number(address)) == 0) return false;
  std::free(address);
  return true;
}

}  // namespace cuda_emulator
