#pragma once
/// @file
/// What the ranks of a run agree on: that all can begin it, and that they will train the same. A rank with another
/// seed, other data or other options would train another model without a word, or wait for a step that others do not
/// take.

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <iterator>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/platform.hpp"
#include "tinymoe/text/fingerprint.hpp"
#include "tinymoe/train/communicator.hpp"

namespace tinymoe::inline v0_1::detail {

[[gnu::cold]] inline std::string message_of(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& found) {
    return found.what();
  } catch (...) {
    return "the exception is not a std::exception";
  }
}

/// f() on each rank, after which they agree on the outcome, so that none waits for one that has thrown. Where one
/// throws, the others throw a TrainingError: "rank 1", `has`, ": " and its message; `agreed` is set then. It is not if
/// the communicator throws.
template <class C, class F>
void on_all_ranks(C& communicator, std::string_view has, F&& f, bool* agreed = nullptr) {
  if constexpr (std::is_same_v<C, Alone>) {
    f();
  } else {
    if (communicator.size() == 1) return f();
    std::exception_ptr error;
    std::string message;
    try {
      f();
    } catch (...) {
      error = std::current_exception();
      message = message_of(error);
    }
    const auto rank = static_cast<std::size_t>(communicator.rank());
    std::vector<double> lengths(static_cast<std::size_t>(communicator.size()));  // of the messages, and one
    if (error) lengths[rank] = static_cast<double>(message.size() + 1);
    communicator.sum(std::span(lengths));
    std::size_t failed = 0;
    while (failed < lengths.size() && lengths[failed] == 0) ++failed;
    if (failed == lengths.size()) return;
    std::vector<double> letters(static_cast<std::size_t>(lengths[failed]) - 1);
    if (rank == failed)
      std::transform(message.begin(), message.end(), letters.begin(), [](unsigned char c) { return c; });
    communicator.sum(std::span(letters));
    if (agreed != nullptr) *agreed = true;
    if (error) std::rethrow_exception(error);
    message.clear();
    for (const double letter : letters) message += static_cast<char>(static_cast<unsigned char>(letter));
    fail<TrainingError>("rank ", failed, has, ": ", message);
  }
}

/// Things with names, to be compared over the ranks.
class Agreement {
 public:
  /// A number, which the message shows.
  [[gnu::noinline, gnu::cold]] void add(std::string_view name, double number) {
    things_.push_back({std::string(name), std::bit_cast<std::uint64_t>(number), true});
  }
  /// A hash.
  [[gnu::noinline, gnu::cold]] void add_hash(std::string_view name, std::uint64_t hash) {
    things_.push_back({std::string(name), hash, false});
  }
  void add_text(std::string_view name, std::string_view text) {
    Fnv1a hash;
    hash.text(text);
    add_hash(name, hash.value());
  }

  /// Throws MismatchError on all ranks, with the first rank that differs from rank 0, and in what. All ranks call it.
  template <class C>
  [[gnu::cold]] void expect(C& communicator) const {
    if (communicator.size() == 1) return;
    // Whether all have a list of the same names. If not, their sums would have other sizes.
    Fnv1a names;
    for (const Thing& thing : things_) names.text(thing.name), names.number(thing.name.size());
    const Thing list[] = {{"list of options, so another build of the program", names.value(), false}};
    compare(communicator, list);
    compare(communicator, things_);
  }

 private:
  struct Thing {
    std::string name;
    std::uint64_t bits;  // of a number, or a hash
    bool shown;
  };
  /// 64 bits as two numbers that a sum over the ranks leaves exact.
  using Halves = std::array<double, 2>;
  static Halves halves(std::uint64_t bits) {
    return {static_cast<double>(bits >> 32), static_cast<double>(bits & 0xffffffffu)};
  }
  static double number(Halves halves) {
    return std::bit_cast<double>(static_cast<std::uint64_t>(halves[0]) << 32 | static_cast<std::uint64_t>(halves[1]));
  }

  /// The shortest text that is this number.
  static std::string text(double number) {
    char digits[32];
    return {digits, std::to_chars(digits, std::end(digits), number).ptr};
  }

  template <class C>
  [[gnu::cold]] static void compare(C& communicator, std::span<const Thing> things) {
    // What rank 0 has. The others add zeros.
    std::vector<Halves> first(things.size());
    if (communicator.rank() == 0) {
      for (std::size_t i = 0; i < things.size(); ++i) first[i] = halves(things[i].bits);
    }
    sum(communicator, first);
    // Each rank's first thing that is another, from 1; 0: none is.
    const auto rank = static_cast<std::size_t>(communicator.rank());
    std::vector<double> others(static_cast<std::size_t>(communicator.size()));
    for (std::size_t i = things.size(); i-- > 0;) {
      if (halves(things[i].bits) != first[i]) others[rank] = static_cast<double>(i + 1);
    }
    communicator.sum(std::span(others));
    std::size_t other = 0;
    while (other < others.size() && others[other] == 0) ++other;
    if (other == others.size()) return;
    const auto at = static_cast<std::size_t>(others[other]) - 1;
    std::vector<Halves> found(1);
    if (rank == other) found[0] = halves(things[at].bits);
    sum(communicator, found);
    std::string values;
    if (things[at].shown) values = " (" + text(number(found[0])) + ", not " + text(number(first[at])) + ")";
    fail<MismatchError>("rank ", other, " has another ", things[at].name, " than rank 0", values,
                        "; start all processes of a run with the same program, options and data");
  }

  template <class C>
  static void sum(C& communicator, std::vector<Halves>& all) {
    communicator.sum(std::span(all.empty() ? nullptr : all[0].data(), 2 * all.size()));
  }

  std::vector<Thing> things_;
};

}  // namespace tinymoe::inline v0_1::detail
