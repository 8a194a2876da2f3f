#pragma once
/// @file
/// The real-valued settings of a model: run-time values, unlike its architecture.
///
/// A part of a model declares each of its settings once, beside itself, and lists them:
///
///     inline constexpr Setting temperature{
///         .name = "temperature", .initial = 1, .range = SettingRange::positive, .about = "of the router's softmax"};
///     struct MyRouter {
///       static constexpr std::array settings = {&temperature};
///
/// It reads `pass.settings[temperature]`, and a user writes `Settings{temperature = 0.5}`. The architecture collects
/// the lists of its parts (`settings_of`): config.json and the programs' options follow from that.

#include <array>
#include <concepts>
#include <cstddef>
#include <initializer_list>
#include <limits>
#include <span>
#include <string>
#include <string_view>

#include "tinymoe/core/error.hpp"
#include "tinymoe/core/number_range.hpp"

namespace tinymoe::inline v0_1 {

/// The values that a setting may have: above 0; 0 or more; from 0 to below 1; from 0 to 1; 0 or 1.
enum class SettingRange { positive, weight, share, fraction, flag };

/// When a setting changes what a model computes: always, as a norm's epsilon does, or in training alone.
enum class SettingUse { always, training };

struct [[nodiscard]] SettingValue;

/// One setting: its name, default and range. It is a constant with static storage, since `Settings` refers to it.
struct Setting {
  std::string_view name;  // in config.json and, with - for _, on a command line; unique
  double initial = 0;     // the default
  SettingRange range = SettingRange::weight;
  double max = std::numeric_limits<double>::infinity();  // within the range
  std::string_view about = {};                           // a phrase for --help
  std::string_view hub = {};  // what the hub's config.json calls it; empty: the hub does not know it
  SettingUse use = SettingUse::training;
  bool draws = false;  // training draws random numbers where the value is above 0

  friend constexpr bool operator==(const Setting&, const Setting&) = default;

  /// `dropout = 0.1` names a value; it changes nothing.
  constexpr SettingValue operator=(double value) const&;
  constexpr SettingValue operator=(double value) const&& = delete;  // it would refer to a temporary that is gone

  /// The numbers that `range` and `max` allow.
  detail::NumberRange numbers() const {
    using namespace detail::range;
    constexpr std::array ranges = {above_0, from_0, from_0_below_1, from_0_to_1, whole(0, 1)};
    detail::NumberRange allowed = ranges[static_cast<std::size_t>(range)];
    if (max < allowed.most) allowed.most = max, allowed.below = false;
    return allowed;
  }
  /// Whether a value is in its range.
  bool allows(double value) const { return numbers().allows(value); }
};

/// A setting with a value, for `Settings`. Alone it does nothing.
struct [[nodiscard]] SettingValue {
  const Setting* setting = nullptr;
  double value = 0;
};

constexpr SettingValue Setting::operator=(double value) const& { return {this, value}; }

/// The settings of a model: those that differ from their defaults. A small value without memory of its own.
///
///     Settings settings{setting::dropout = 0.1, setting::jitter = 0};
///     settings.set(setting::balance_weight = 0.02);
///     double rate = settings[setting::dropout];
class Settings {
 public:
  /// The maximum number of settings that differ from their defaults.
  static constexpr std::size_t capacity = 24;

  constexpr Settings() = default;
  /// `{setting::dropout = 0.1, …}`; the others have their defaults.
  constexpr Settings(std::initializer_list<SettingValue> values) {
    for (const SettingValue& value : values) set(value);
  }

  [[gnu::noinline]] constexpr double operator[](const Setting& setting) const {
    const std::size_t at = find(setting);
    return at < size_ ? values_[at].value : setting.initial;
  }

  /// Throws OptionError where more than `capacity` settings would differ from their defaults.
  constexpr Settings& set(const SettingValue& given) {
    const std::size_t at = find(*given.setting);
    if (given.value != given.setting->initial) {
      if (at == capacity) fail<OptionError>("a model has at most ", capacity, " settings of its own");
      values_[at] = {given.setting, given.value + 0.0};  // a negative zero becomes 0
      if (at == size_) ++size_;
    } else if (at < size_) {
      values_[at] = values_[--size_];
      values_[size_] = {};
    }
    return *this;
  }

  /// Throws OptionError that names the setting if a value is outside its range.
  void check() const {
    for (const auto& [setting, value] : changed()) {
      if (!setting->allows(value)) {
        fail<OptionError>("the setting ", setting->name, setting->numbers().refusal(value));
      }
    }
  }

  /// Those that differ from their defaults.
  constexpr std::span<const SettingValue> changed() const { return {values_.data(), size_}; }

  friend constexpr bool operator==(const Settings& a, const Settings& b) {
    if (a.size_ != b.size_) return false;
    for (const auto& [setting, value] : a.changed()) {
      const std::size_t at = b.find(*setting);
      if (at == b.size_ || b.values_[at].value != value) return false;
    }
    return true;
  }

 private:
  /// The index of a setting, which is found by its name; `size_` if it has its default.
  [[gnu::noinline]] constexpr std::size_t find(const Setting& setting) const {
    std::size_t at = 0;
    while (at < size_ && values_[at].setting->name != setting.name) ++at;
    return at;
  }

  std::array<SettingValue, capacity> values_{};
  std::size_t size_ = 0;
};

/// A list of settings, each once; `settings_of<Arch>()` gives an architecture's.
class SettingList {
 public:
  static constexpr std::size_t capacity = 2 * Settings::capacity;

  /// Adds one, unless it is there.
  constexpr void add(const Setting& setting) {
    for (const Setting* known : *this) {
      if (known->name != setting.name) continue;
      if (!(*known == setting)) distinct_ = false;
      return;
    }
    if (size_ == capacity) fail<OptionError>("a list has at most ", capacity, " settings");
    list_[size_++] = &setting;
  }
  /// Adds several.
  constexpr void add(std::span<const Setting* const> settings) {
    for (const Setting* setting : settings) add(*setting);
  }

  constexpr const Setting* const* begin() const { return list_.data(); }
  constexpr const Setting* const* end() const { return list_.data() + size_; }
  constexpr std::size_t size() const { return size_; }
  /// Whether no two different settings have one name. (Addresses are not compared: g++ 12 does not take that for a
  /// constant under -fsanitize=undefined.)
  constexpr bool distinct() const { return distinct_; }

 private:
  std::array<const Setting*, capacity> list_{};
  std::size_t size_ = 0;
  bool distinct_ = true;
};

namespace detail {

/// A part that has settings of its own.
template <class P>
concept HasSettings = requires {
  { P::settings } -> std::convertible_to<std::span<const Setting* const>>;
};
template <class P>
concept NamesSettings = requires {
  P::settings;
};
/// A part made of parts, whose settings it adds.
template <class P>
concept CombinesSettings = requires(SettingList& list) {
  P::add_settings(list);
};

/// Adds the settings of a part, if it has some: those that it lists, or those of its own parts.
template <class P>
constexpr void add_settings(SettingList& list) {
  static_assert(HasSettings<P> || !NamesSettings<P>,
                "tinymoe: a part's `settings` must be an array of pointers to Setting");
  if constexpr (HasSettings<P>) list.add(P::settings);
  if constexpr (CombinesSettings<P>) P::add_settings(list);
}

}  // namespace detail

/// The settings of an architecture's parts.
template <class Arch>
constexpr SettingList settings_of() {
  constexpr SettingList list = [] {
    SettingList all;
    Arch::add_settings(all);
    return all;
  }();
  static_assert(list.distinct(), "tinymoe: two settings of the architecture have the same name");
  return list;
}

/// Whether an architecture's parts draw random numbers in training. A backend cannot record such a step and replay it,
/// since the numbers follow from the step.
template <class Arch>
bool draws_numbers(const Settings& settings) {
  for (const Setting* setting : settings_of<Arch>()) {
    if (setting->draws && settings[*setting] > 0) return true;
  }
  return false;
}

}  // namespace tinymoe::inline v0_1
