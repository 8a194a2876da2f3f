// A program that is compiled in a moment, for the ways of getting tinymoe that differ in nothing but how the headers and
// what they need are found: C++20, xtensor, and threads.
#include <concepts>
#include <cstdio>
#include <thread>
#include <tinymoe/core/threads.hpp>
#include <tinymoe/core/version.hpp>
#include <tinymoe/files/xtensor.hpp>

template <std::integral T>
T twice(T number) {
  return 2 * number;
}

int main() {
  const xt::xtensor<int, 2> numbers = {{1, 2, 3}, {4, 5, 6}};
  int sum = 0;
  std::thread other([&] {
    for (const int number : numbers) sum += twice(number);
  });
  other.join();
  std::printf("tinymoe %d.%d.%d: %d numbers; threads: %s\n", TINYMOE_VERSION_MAJOR, TINYMOE_VERSION_MINOR,
              TINYMOE_VERSION_PATCH, sum, tinymoe::detail::default_threads() > 0 ? "yes" : "no");
}
