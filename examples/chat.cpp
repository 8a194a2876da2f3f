// Continues what you type, with a trained model. Lines that begin with / are commands; /help lists them.
//
//   chat runs/story --temperature 0.7
//
// Ctrl-C stops the story, not the program. Input may be piped: printf 'One day\n/again\n' | chat runs/story

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <numeric>
#include <string>
#include <string_view>
#include <tinymoe/core/number_text.hpp>
#include <type_traits>
#include <utility>
#include <vector>

#include "compiled_architectures.hpp"
#include "programs.hpp"
#include "programs/main.hpp"
#include "programs/numbers.hpp"
#include "sample_settings.hpp"

namespace {

using namespace tinymoe;

std::atomic<bool> interrupted = false;  // a signal of the process may be handled on any of its threads
static_assert(std::atomic<bool>::is_always_lock_free, "a signal handler uses it");

struct Arguments {
  std::filesystem::path checkpoint;
  SampleOptions options;
  examples::DeviceOptions device;
};

std::string_view trimmed(std::string_view text) {
  const auto first = text.find_first_not_of(" \t\r");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r") - first + 1);
}

/// A token's text between quotes, cut to `columns`; control characters and incomplete UTF-8 as escapes.
std::string quoted(std::string_view bytes, std::size_t columns) {
  const bool whole = std::ranges::all_of(bytes, [](char c) { return static_cast<unsigned char>(c) < 0x80; }) ||
                     (static_cast<unsigned char>(bytes[0]) >= 0xC0 && complete_characters(bytes) == bytes.size());
  std::string text = "\"";
  std::size_t used = 1;
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    char piece[8] = {c};
    if (c == '\n') {
      std::snprintf(piece, sizeof(piece), "\\n");
    } else if (byte < 0x20 || byte == 0x7F || (byte >= 0x80 && !whole)) {
      std::snprintf(piece, sizeof(piece), "\\x%02X", static_cast<unsigned>(byte));
    }
    const bool continues = whole && byte >= 0x80 && byte < 0xC0;  // a continuation byte of the previous character
    const std::size_t width = continues ? 0 : std::string_view(piece).size();
    if (used + width + 1 > columns) break;
    text += piece;
    used += width;
  }
  return text + "\"" + std::string(columns - used - 1, ' ');
}

/// "2:71 0:29": the experts of a token and their gates in percent; "2 0" if there is no space for gates.
std::string cell(const ExpertChoices& choices, Index token, bool gates) {
  std::string text;
  for (Index k = 0; k < choices.choices; ++k) {
    const auto pair = static_cast<std::size_t>(token * choices.choices + k);
    const ChosenExpert chosen = choices.selected[pair];
    if (!chosen.taken()) continue;
    char piece[32];
    std::snprintf(piece, sizeof(piece), gates ? "%td:%02.0f" : "%td", chosen.expert(),
                  100.0 * double(choices.gate[pair]));
    if (!text.empty()) text += ' ';
    text += piece;
  }
  return text.empty() ? "-" : text;
}

/// Prints the experts of each token in each layer, with as many layers side by side as fit in 80 columns, and each
/// expert's share.
void print_experts(const Story& story, const Tokenizer& tokenizer) {
  constexpr std::size_t label = 16, line = 80;
  const auto& layers = story.experts;
  if (layers.empty()) return void(std::printf("[this model has no layer with experts, or read no token]\n"));
  const auto width_of = [&](bool gates) {
    std::size_t width = 8;  // "layer 12"
    for (const auto& layer : layers) {
      for (Index n = 0; n < layer.tokens(); ++n) width = std::max(width, cell(layer, n, gates).size());
    }
    return width + 2;
  };
  const bool gates = label + layers.size() * width_of(true) <= line;
  const std::size_t width = width_of(gates), block = std::max<std::size_t>(1, (line - label) / width);
  std::printf("[experts of each token%s]\n", gates ? ", and their gates in percent" : "");
  for (std::size_t first = 0; first < layers.size(); first += block) {
    const std::size_t last = std::min(first + block, layers.size());
    const auto row = [&](const std::string& name, auto&& text_of) {
      std::string text = name;
      text.resize(std::max(text.size(), label), ' ');
      for (std::size_t i = first; i < last; ++i) {
        const std::string piece = text_of(layers[i]);
        text += "  " + piece + std::string(width - 2 - std::min(width - 2, piece.size()), ' ');
      }
      std::printf("%.*s\n", static_cast<int>(text.find_last_not_of(' ') + 1), text.c_str());
    };
    row("token", [](const ExpertChoices& layer) { return "layer " + std::to_string(layer.layer); });
    for (Index n = 0; n < layers[first].tokens(); ++n) {
      const auto bytes = tokenizer.bytes(story.ids[static_cast<std::size_t>(n)]);
      row(bytes.empty() ? "" : quoted(bytes, label), [&](const ExpertChoices& layer) { return cell(layer, n, gates); });
    }
  }
  std::printf("[share of the choices that each expert got]\n");
  for (const auto& layer : layers) {
    const std::vector<Index> loads = loads_of(layer.selected, layer.experts);
    const Index pairs = std::accumulate(loads.begin(), loads.end(), Index{0});
    std::string text = "layer " + std::to_string(layer.layer);
    text.resize(std::max<std::size_t>(text.size(), 10), ' ');
    std::size_t used = text.size();
    for (std::size_t e = 0; e < loads.size(); ++e) {
      char piece[32];
      std::snprintf(piece, sizeof(piece), "%4zu: %3.0f%%", e,
                    100.0 * double(loads[e]) / double(std::max<Index>(1, pairs)));
      if (used + std::string_view(piece).size() > line) text += "\n          ", used = 10;
      text += piece;
      used += std::string_view(piece).size();
    }
    std::printf("%s\n", text.c_str());
  }
}

/// One conversation: the settings, the last prompt and the last story.
class Chat {
 public:
  Chat(examples::Storyteller& storyteller, const SampleOptions& options)
      : storyteller_(storyteller), options_(options), terminal_(isatty(STDIN_FILENO) == 1) {}

  void run() {
    if (terminal_) std::printf("Write how a story begins. /help lists the commands, Ctrl-C stops a story.\n");
    while (true) {
      if (terminal_) std::printf("> ");
      programs::flush_output();
      interrupted = false;
      std::string line;
      if (!std::getline(std::cin, line)) {
        if (!interrupted && std::ferror(stdin) != 0) fail<FileError>("the standard input cannot be read");
        if (!interrupted) break;
        std::clearerr(stdin);  // Ctrl-C at the prompt drops the line
        std::cin.clear();
        std::printf("\n[/quit leaves]\n");
        continue;
      }
      try {
        if (!obey(line)) return;
      } catch (const Error& error) {
        std::printf("[%s]\n", error.what());
      }
    }
    if (terminal_) std::printf("\n");
  }

 private:
  /// False at the end.
  bool obey(const std::string& line) {
    const auto text = trimmed(line);
    if (text.empty()) return true;
    if (text[0] != '/') {
      options_.story = 0;
      prompt_ = text;
      write(prompt_, true);
      return true;
    }
    const auto space = std::min(text.find_first_of(" \t"), text.size());
    return obey(text.substr(1, space - 1), trimmed(text.substr(space)));
  }

  bool obey(std::string_view name, std::string_view rest) {
    const auto is = [&](std::string_view command) {
      if (name != command) return false;
      if (!rest.empty()) fail<OptionError>("/", command, " takes nothing after it, found \"", rest, "\"");
      return true;
    };
    if (is("quit")) return false;
    if (is("help")) return help(), true;
    if (is("settings")) return show_settings(), true;
    if (is("prompt")) return void(std::printf("%s\n", need_prompt().c_str())), true;
    if (is("again")) return again(), true;
    if (is("continue")) return go_on(), true;
    if (is("experts")) return storyteller_.plan({.trace = !experts_}), toggle("experts", experts_), true;
    if (is("stats")) return toggle("stats", stats_), true;
    if (name == "edit") return edit(rest), true;
    bool found = false;
    examples::for_each_setting(options_, [&](auto setting) {
      if (setting.name != name) return;
      found = true;
      programs::take_number("/" + std::string(name), rest, setting.field, setting.range);
    });
    if (!found) fail<OptionError>("there is no command /", name, "; /help lists them");
    return true;
  }

  void help() {
    std::printf("Any other line is a prompt, which the model continues. Commands:\n");
    const auto line = [](std::string_view name, std::string_view about) {
      std::printf("  %-20.*s %.*s\n", int(name.size()), name.data(), int(about.size()), about.data());
    };
    examples::for_each_setting(options_,
                               [&](auto setting) { line("/" + std::string(setting.name) + " X", setting.about); });
    line("/settings", "shows what is set");
    line("/prompt", "shows the last prompt");
    line("/edit OLD -> NEW", "replaces a piece of the last prompt and generates again");
    line("/again", "another story from the same prompt");
    line("/continue", "more of the last story");
    line("/experts", "on or off: which experts the tokens of a story took");
    line("/stats", "on or off: how fast a story was generated");
    line("/quit", "leaves, as does the end of the input");
  }

  void show_settings() {
    examples::for_each_setting(options_, [](auto setting) {
      std::string value;
      if constexpr (std::is_floating_point_v<std::remove_reference_t<decltype(setting.field)>>) {
        value = tinymoe::detail::general_text(setting.field, 6);
      } else {
        value = std::to_string(setting.field);
      }
      std::printf("%-12.*s %s\n", int(setting.name.size()), setting.name.data(), value.c_str());
    });
    std::printf("%-12s %s\n%-12s %s\n", "experts", experts_ ? "on" : "off", "stats", stats_ ? "on" : "off");
  }

  static void toggle(const char* name, bool& value) {
    value = !value;
    std::printf("[%s: %s]\n", name, value ? "on" : "off");
  }

  const std::string& need_prompt() const {
    if (prompt_.empty()) fail<OptionError>("there is no prompt yet; write how a story begins");
    return prompt_;
  }

  void again() {
    need_prompt();
    ++options_.story;
    write(prompt_, true);
  }

  void go_on() {
    need_prompt();
    if (story_.ended) fail<OptionError>("the story has ended; /again writes another");
    ++options_.story;  // otherwise the same random numbers would be drawn again
    write(std::string(story_.text), false);
  }

  void edit(std::string_view change) {
    const auto arrow = change.find("->");
    const auto old_text = trimmed(change.substr(0, std::min(arrow, change.size())));
    if (arrow == std::string_view::npos || old_text.empty()) {
      fail<OptionError>("expected /edit OLD -> NEW, found \"", change, "\"");
    }
    std::string prompt = need_prompt();
    const auto at = prompt.find(old_text);
    if (at == std::string::npos) fail<OptionError>("the prompt has no \"", old_text, "\": ", prompt);
    prompt.replace(at, old_text.size(), trimmed(change.substr(arrow + 2)));
    if (trimmed(prompt).empty()) fail<OptionError>("nothing would be left of the prompt");
    prompt_ = trimmed(prompt);
    write(prompt_, true);
  }

  /// Continues `prompt`, after printing it if asked.
  void write(const std::string& prompt, bool show_prompt) {
    using Clock = std::chrono::steady_clock;
    const auto started = Clock::now();
    auto first = started;
    Index pieces = 0;
    interrupted = false;
    std::size_t hidden = show_prompt ? 0 : prompt.size();  // bytes still to come that are not shown
    const std::string prompts[] = {prompt};
    story_ = std::move(storyteller_
                           .write(prompts, options_,
                                  [&](Index, std::string_view text) {
                                    if (++pieces == 2) first = Clock::now();  // the first piece is the prompt
                                    const auto shown = text.substr(std::min(hidden, text.size()));
                                    hidden -= text.size() - shown.size();
                                    std::fwrite(shown.data(), 1, shown.size(), stdout);
                                    return std::fflush(stdout) == 0 && !interrupted;
                                  })
                           .front());
    const auto ended = Clock::now();
    std::printf(interrupted ? "\n[stopped]\n" : "\n");
    if (stats_) {
      const auto seconds = [](auto time) { return std::chrono::duration<double>(time).count(); };
      const double after_first = seconds(ended - first);
      std::printf("[%td tokens after %td, the first in %.0f ms", story_.tokens, story_.prompt_tokens,
                  1000 * seconds((pieces > 1 ? first : ended) - started));
      if (story_.tokens > 1 && after_first > 0) {
        std::printf(", then %.0f tokens/s", double(story_.tokens - 1) / after_first);
      }
      std::printf("]\n");
    }
    if (experts_) print_experts(story_, storyteller_.tokenizer());
  }

  examples::Storyteller& storyteller_;
  SampleOptions options_;
  std::string prompt_;
  Story story_;
  bool experts_ = false, stats_ = false, terminal_;
};

}  // namespace

int main(int count, char** values) {
  Arguments a;
  CLI::App app("Continues what you type, with a trained model; /help lists the commands.");
  app.add_option("checkpoint", a.checkpoint, "folder that train wrote")->required();
  examples::add_sample_options(app, a.options);
  examples::add_device_options(app, a.device);
  examples::add_weights_option(app, a.device);
  return programs::run(app, count, values, [&] {
    // Without SA_RESTART, so that Ctrl-C at the prompt is seen at once.
    struct sigaction action = {};
    action.sa_handler = [](int) { interrupted = true; };
    sigaction(SIGINT, &action, nullptr);
    if (a.device.weights.empty()) a.device.weights = examples::stored_weights(a.checkpoint);
    examples::with_architecture_of(a.checkpoint, [&](auto named) {
      using Arch = typename decltype(named)::Architecture;
      examples::Device device = examples::open_device<Arch>(a.device, named.name);
      std::fprintf(stderr, "device %s\n", examples::about(device, a.device).c_str());
      examples::on<Arch>(device, [&](auto& backend) -> void {
        Chat(*examples::storyteller<Arch>(backend, a.checkpoint, a.device.weights), a.options).run();
      });
    });
  });
}
