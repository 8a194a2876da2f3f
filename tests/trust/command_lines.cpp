// Draws command lines of the example programs, runs them on small files, and looks at how they end:
//
//   command_lines PROGRAMS [COUNT [SEED]]
//
// PROGRAMS is the folder of train, sample and the others; those that are not there are left out, and lines that read
// what they make. Each line is one that works, or fails for its files alone, of which some arguments are changed, left
// out, given twice or added, by the options that --help tells. Line n depends on SEED + n and the programs alone, so
// `command_lines PROGRAMS 1 NUMBER` repeats the one that a failure names.
//
// A program must end by itself or soon after TERM, with status 0, or with another and a sentence, which is none of the
// standard library's and has no control characters. A value that its option does not allow must be refused. No file
// that was there may change or go unless --overwrite or --resume was given, nothing may be written beside the current
// folder, and no partial file or lock may be left.

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace {

using std::filesystem::path;
using namespace std::chrono_literals;
using Words = std::vector<std::string>;
using Tree = std::map<std::string, std::string>;  // what each name of a folder has

struct Option {
  std::string name, type;  // INT, FLOAT, TEXT, …; empty for a flag
  Words choices;
};

/// A program and the arguments of lines that work. Of `failing` each fails for its files.
struct Program {
  std::string name;
  std::vector<Words> lines, failing = {};
  std::vector<Option> options = {};
};

std::vector<Program> all_programs() {
  const Words stories = {"--data", "stories.txt", "--validation-stories", "6", "--batch", "2"};
  const auto with = [](Words words, const Words& more) {
    words.insert(words.end(), more.begin(), more.end());
    return words;
  };
  const Words run = with(stories, {"--preset", "pocket", "--sequence", "16"});
  const Words sweep = with(stories, {"--steps", "1", "--only", "dense", "--csv", "out.csv"});
  return {{"train",
           {with(run, {"--steps", "2", "--out", "out"}),
            with(run, {"--steps", "3", "--out", "run", "--resume"}),
            with(run, {"--steps", "1", "--out", "out", "--from", "run"}),
            {"--preset", "pocket", "--benchmark"}}},
          {"sample", {{"run", "--tokens", "4"}, {"run", "--tokens=9", "--prompt", "Tom", "--quiet"}}},
          {"chat", {{"run", "--tokens", "4"}}},
          {"convert", {{"run", "out.gguf"}, {"model.gguf", "out"}, {"int8", "out.gguf", "--type", "q8_0"}}},
          {"describe", {{"run"}, {"run/config.json", "--name", "Model"}}},
          {"prune", {{"run", "--experts", "2", "--tokens", "50", "--out", "out"}}},
          {"quantize", {{"run", "--weights", "int8", "--out", "out"}}},
          {"report",
           {{"run", "--tokens", "50", "--worth-tokens", "0", "--out", "out.html"}, {"sweep.csv", "--out", "out.html"}}},
          {"sweep", {sweep}},
          {"tokenize",
           {{"train", "stories.txt", "--vocabulary", "270", "--out", "out.json"},
            {"import", "--vocab", "vocab.json", "--merges", "merges.txt", "--out", "out.json"},
            {"encode", "run/tokenizer.json", "stories.txt", "--pieces"},
            {"decode", "run/tokenizer.json", "numbers.txt"}},
           {{"export", "run/tokenizer.json", "out.model"}}},
          {"upcycle",
           {},
           {{"--dense", "run", "--out", "out"},
            {"--llama2c", "model.gguf", "--tokenizer", "stories.txt", "--out", "out"}}}};
}

/// An interrupted campaign ends after its line, and takes its folder with it.
volatile std::sig_atomic_t interrupted = 0;

std::string text_of(const path& file) {
  std::ifstream stream(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

/// Each name in a folder, and what a file has; a link has where it leads.
Tree tree_of(const path& folder) {
  Tree tree;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    const std::string name = entry.path().lexically_relative(folder).string();
    if (entry.is_symlink()) {
      tree[name] = "-> " + std::filesystem::read_symlink(entry.path()).string();
    } else {
      tree[name] = entry.is_regular_file() ? text_of(entry.path()) : std::string("folder");
    }
  }
  return tree;
}

/// A line as bash takes it.
std::string quoted(const Words& words) {
  std::string line;
  for (const std::string& word : words) {
    line += line.empty() ? "$'" : " $'";
    for (const char c : word) {
      char code[8];
      const auto byte = static_cast<unsigned char>(c);
      std::snprintf(code, sizeof code, byte < 32 || byte > 126 || c == '\'' || c == '\\' ? "\\x%02x" : "%c", byte);
      line += code;
    }
    line += "'";
  }
  return line;
}

// The sanitizers' shadow of all addresses takes more than any limit.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool sanitized = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
constexpr bool sanitized = true;
#else
constexpr bool sanitized = false;
#endif
#else
constexpr bool sanitized = false;
#endif

struct End {
  int status = 0, signal = 0;
  bool stopped = false, twice = false, hung = false;
  std::string out, error;
};

/// Runs a program in `folder`. After `patience` it gets TERM, and KILL where that does not end it.
End run(const path& program, const Words& arguments, const path& folder, std::chrono::milliseconds patience) {
  const path out = folder.parent_path() / "out.txt", error = folder.parent_path() / "error.txt";
  std::string name = program.string();
  Words words = arguments;
  std::vector<char*> values{name.data()};
  for (std::string& word : words) values.push_back(word.data());
  values.push_back(nullptr);
  const pid_t child = ::fork();
  if (child < 0) throw std::runtime_error("fork failed");
  if (child == 0) {
    const rlimit memory{rlim_t{6} << 30, rlim_t{6} << 30}, size{1 << 28, 1 << 28}, none{0, 0};
    if (!sanitized) ::setrlimit(RLIMIT_AS, &memory);
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::setrlimit(RLIMIT_FSIZE, &size), ::setrlimit(RLIMIT_CORE, &none);
    const int to = ::open(out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0666);
    const int errors = ::open(error.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0666);
    const int from = ::open((folder / "typed.txt").c_str(), O_RDONLY);
    ::dup2(from, STDIN_FILENO), ::dup2(to, STDOUT_FILENO), ::dup2(errors, STDERR_FILENO);
    for (const int opened : {from, to, errors}) ::close(opened);
    if (::chdir(folder.c_str()) == 0) ::execv(name.c_str(), values.data());
    ::_exit(126);
  }
  End end;
  const auto begin = std::chrono::steady_clock::now();
  int status = 0;
  for (pid_t ended = 0; (ended = ::waitpid(child, &status, WNOHANG)) != child;) {
    if (ended < 0) throw std::runtime_error("waitpid failed");
    const auto taken = std::chrono::steady_clock::now() - begin;
    if (!end.stopped && taken > patience) end.stopped = true, ::kill(child, SIGTERM);
    if (!end.twice && taken > patience + 15s) end.twice = true, ::kill(child, SIGTERM);  // a step may take long
    if (!end.hung && taken > patience + 30s) end.hung = true, ::kill(child, SIGKILL);
    std::this_thread::sleep_for(500us);
  }
  if (WIFSIGNALED(status)) end.signal = WTERMSIG(status);
  if (WIFEXITED(status)) end.status = WEXITSTATUS(status);
  end.out = text_of(out), end.error = text_of(error);
  return end;
}

/// The options that a program's --help tells: "  --batch INT=8 …". Not --help itself.
std::vector<Option> options_of(const std::string& help) {
  std::vector<Option> options;
  std::istringstream lines(help);
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("  --")) continue;
    std::istringstream words(line.substr(0, line.find("  ", 2)));
    std::string names, type;
    words >> names >> type;
    Option option;
    const auto brace = type.find('{');
    if (brace != type.npos) {
      std::istringstream choices(type.substr(brace + 1, type.find('}') - brace - 1));
      for (std::string choice; std::getline(choices, choice, ',');) option.choices.push_back(choice);
    }
    if (type != "Needs:" && type != "Excludes:") option.type = type.substr(0, type.find_first_of(":=["));
    if (type.starts_with("[")) option.type = "[]";
    std::istringstream each(names);
    for (std::string name; std::getline(each, name, ',');) {
      option.name = name.substr(0, name.find('{'));
      options.push_back(option);
    }
  }
  return options;
}

/// Makes `work` a copy of `good`.
void copy_of(const path& good, const path& work) {
  using std::filesystem::copy_options;
  std::filesystem::remove_all(work);
  std::filesystem::copy(good, work, copy_options::recursive | copy_options::copy_symlinks);
}

class Draws {
 public:
  explicit Draws(std::uint64_t seed) : engine_(seed) {}
  std::size_t below(std::size_t count) { return engine_() % count; }
  template <class List>
  auto& of(List& list) {
    return list[below(std::size(list))];
  }

 private:
  std::mt19937_64 engine_;
};

const Words files = {"run",       "run/",      "stories.txt", "model.gguf", "run/config.json", "run/model.safetensors",
                     "run.csv",   "sweep.csv", "int8",        "run-best",   "empty.txt",       "run/tokenizer.json",
                     "folder",    "link",      "dangling",    "itself",     "run-data",        "numbers.txt",
                     "new/names", "out",       "out.json",    "out.npz",    "sweep.json",      "bytes.bin"};

std::string anything(Draws& draws) {
  static const Words others = {"",
                               " ",
                               "-",
                               "--",
                               "-1",
                               "0",
                               "1",
                               "2",
                               "3",
                               "7",
                               "1e999",
                               "-0.0",
                               "nan",
                               "inf",
                               "0.5",
                               "2147483648",
                               "4294967296",
                               "9223372036854775807",
                               "18446744073709551616",
                               "1e-320",
                               "1,2,3",
                               ",",
                               "0.001,0.01",
                               "norm=4,table=0",
                               "norm=",
                               "=",
                               "64=0.1,128=0.4",
                               "8=0.5",
                               "none",
                               "{",
                               "%s%n",
                               "*",
                               "*.txt",
                               "[a",
                               ".",
                               "..",
                               "./",
                               "../work",
                               "run/../run",
                               "./run",
                               "stories.txt/",
                               "stories.txt/under",
                               "\x1b[2J",
                               "\xff\xfe",
                               "a\nb",
                               "\xe2\x80\xae",
                               "\xc3\xa9",
                               "a\tb",
                               "'",
                               "\"",
                               std::string(300, 'n'),
                               std::string(70'000, 'x'),
                               std::string(5000, '9'),
                               "run/model.safetensors.partial-1-1",
                               "~",
                               "$HOME",
                               "true",
                               "false",
                               "on",
                               "--help",
                               "--list",
                               "--quiet",
                               "--json",
                               "--overwrite",
                               "--resume"};
  return draws.below(3) == 0 ? draws.of(files) : draws.of(others);
}

/// A value that may be one of this option's.
std::string likely(const Option& option, Draws& draws) {
  static const Words whole = {"0", "1", "2", "3", "4", "8", "16", "64", "1000", "1000000"};
  static const Words real = {"0", "0.1", "0.5", "1", "1e-3", "2", "10", "1e6"};
  if (!option.choices.empty()) return draws.of(option.choices);
  if (option.type.starts_with("INT")) return draws.of(whole);
  if (option.type.starts_with("FLOAT")) return draws.of(real);
  return draws.below(4) != 0 ? draws.of(files) : anything(draws);
}

/// A value that this option does not allow; empty if any text is one.
std::string impossible(const Option& option, Draws& draws) {
  static const Words no_choice = {"abc", "cpux", "int8,int4", "\xff", "0"};
  static const Words not_whole = {"abc", "1.5", "0x10", "1e3", "99999999999999999999", "nan", "1 ", "\x1b[2J", "1e999"};
  static const Words not_real = {"abc", "nan", "inf", "-inf", "1e999", "0x1p3", "1.5x", "1..5", "\xff"};
  static const Words no_pairs = {"abc", "norm=", "=1", "norm=nan", "64=", "64=x", "norm=1,norm", "=", ","};
  if (!option.choices.empty()) return draws.of(no_choice);
  if (option.type.starts_with("INT")) return draws.of(not_whole);
  if (option.type.starts_with("FLOAT")) return draws.of(not_real);
  return option.type == "PART" || option.type == "LENGTH" ? draws.of(no_pairs) : std::string();
}

struct Line {
  Words words;
  std::string refused;  // the argument for which it must be refused, if there is one
};

void change(Words& words, const Program& program, Draws& draws) {
  // In this order on every machine.
  const auto place = [&] { return static_cast<std::ptrdiff_t>(words.empty() ? 0 : draws.below(words.size())); };
  const std::ptrdiff_t first = place(), second = place();
  const auto word_at = [&](std::ptrdiff_t at) -> std::string& { return words[static_cast<std::size_t>(at)]; };
  switch (words.empty() ? 11 : draws.below(12)) {
    case 0:
      words.erase(words.begin() + first);
      break;
    case 1:
      word_at(first) = anything(draws);
      break;
    case 2:
      words.insert(words.begin() + first, std::string(word_at(second)));
      break;
    case 3:
      std::swap(word_at(first), word_at(second));
      break;
    case 4: {
      std::string& word = word_at(first);
      if (word.empty()) break;
      const std::size_t byte = draws.below(word.size());
      if (draws.below(2) != 0) {
        word.erase(byte, 1 + draws.below(4));
      } else {
        word[byte] = static_cast<char>(1 + draws.below(255));
      }
      break;
    }
    default: {
      const Option& option = draws.of(program.options);
      const std::string value = draws.below(6) != 0 ? likely(option, draws) : anything(draws);
      const bool alone = option.type.empty()   ? draws.below(16) != 0
                         : option.type == "[]" ? draws.below(2) != 0
                                               : draws.below(32) == 0;
      if (alone || draws.below(2) != 0) {
        words.push_back(option.name);
        if (!alone) words.push_back(value);
      } else {
        words.push_back(option.name + "=" + value);
      }
    }
  }
}

/// Lines with absolute names, or names above the parent folder, are not run: they could reach other files of this
/// machine.
bool stays_here(const Words& words) {
  return std::ranges::none_of(words, [](const std::string& word) {
    return word.starts_with("/") || word.find("=/") != word.npos || word.find("../..") != word.npos;
  });
}

Line line_of(const Program& program, Draws& draws) {
  const std::size_t base = draws.below(program.lines.size() + program.failing.size());
  Line line{base < program.lines.size() ? program.lines[base] : program.failing[base - program.lines.size()], {}};
  for (std::size_t changes = draws.below(5); changes > 0; --changes) change(line.words, program, draws);
  if (draws.below(4) != 0) return line;
  // An argument that asks for help ends the program before, and "--" ends the options.
  const bool others = std::ranges::any_of(line.words, [](const std::string& word) {
    return word.starts_with("--h") || word == "--" || (word.starts_with("-") && !word.starts_with("--"));
  });
  // An option at the end would take the next argument for its value.
  const bool open =
      !line.words.empty() && line.words.back().starts_with("-") && line.words.back().find('=') == std::string::npos;
  const Option& option = draws.of(program.options);
  const std::string value = impossible(option, draws);
  if (others || open || value.empty()) return line;
  line.refused = option.name + "=" + value;
  line.words.push_back(line.refused);
  return line;
}

/// What is wrong with how a program has ended; empty if nothing is.
std::string complaint_of_end(const std::string& program, const Line& line, const End& end) {
  if (end.hung) return "did not end after TERM";
  if (end.signal != 0 && !(end.signal == SIGTERM && end.stopped)) {
    return "ended by signal " + std::to_string(end.signal);
  }
  for (const char* word : {"Sanitizer", "runtime error"}) {
    if (end.error.find(word) != end.error.npos) return "has a sanitizer's report";
  }
  for (const char c : end.error) {
    const auto byte = static_cast<unsigned char>(c);
    if ((byte < 32 && c != '\n') || byte == 127) return "tells control characters";
  }
  if (end.signal != 0) return {};
  const bool refused = end.status >= 100 && end.status < 126;  // CLI11's statuses
  if (!refused && !line.refused.empty()) return "took " + line.refused;
  if (!refused && end.status > 1) return "ended with status " + std::to_string(end.status);
  if (refused && end.error.empty()) return "was refused without a sentence";
  if (end.status == 1 && ("\n" + end.error).find("\n" + program + ": ") == std::string::npos) {
    return "failed without a sentence";
  }
  for (const char* word : {"std::", "basic_string", ": stoi", ": stol", ": stoul", ": stod", ": stof", "vector::",
                           "map::at", "bad_", "filesystem error", "terminate called", "Assertion", "what()"}) {
    if (end.status != 0 && end.error.find(word) != end.error.npos) return std::string("speaks of \"") + word + "\"";
  }
  return {};
}

/// What is wrong with what a program has done to the files of its folder; empty if nothing is.
std::string complaint_of_files(const Line& line, const End& end, const Tree& before, const Tree& after) {
  if (end.status >= 100 && before != after) return "was refused, and has changed files";
  const bool may_replace = std::ranges::any_of(line.words, [](const std::string& word) {
    return word.starts_with("--overwrite") || word.starts_with("--resume");
  });
  for (const auto& [name, text] : before) {
    // Neither a run's nor a model's: no option lets a program replace them. An empty file may be.
    const bool foreign = name.ends_with(".txt") || name.ends_with(".bin") || text.starts_with("-> ");
    const auto found = after.find(name);
    if ((may_replace && !foreign) || text.empty()) continue;
    if (found == after.end()) return "has removed " + name;
    if (found->second != text) return "has changed " + name;
  }
  for (const auto& [name, text] : after) {
    if (end.signal != 0 || before.count(name) != 0) continue;
    const std::string last = path(name).filename().string();
    if (last.find(".partial-") != last.npos || last.starts_with(".tinymoe") || last.ends_with(".lock")) {
      return "has left " + name;
    }
  }
  return {};
}

/// A folder for the campaign, which goes with it.
struct Folder {
  path where;
  Folder() {
    std::error_code none;
    const char* chosen = std::getenv("TMPDIR");
    std::string name = chosen != nullptr && *chosen != '\0'              ? chosen
                       : std::filesystem::is_directory("/dev/shm", none) ? "/dev/shm"
                                                                         : "/tmp";
    name += "/tinymoe.XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error(name + " cannot be made");
    where = name;
  }
  Folder(const Folder&) = delete;
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(where, ignored);
  }
};

/// GPT-2's vocab.json of single bytes: printable ones stand for themselves, the others for characters from 256 on.
void write_vocabulary(std::ostream& file) {
  int others = 0;
  for (int byte = 0; byte < 256; ++byte) {
    const bool itself = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    char entry[32];
    std::snprintf(entry, sizeof entry, "%s\"\\u%04x\": %d", byte == 0 ? "{" : ", ", itself ? byte : 256 + others, byte);
    others += itself ? 0 : 1;
    file << entry;
  }
  file << ", \"th\": 256, \"<|endoftext|>\": 257}\n";
}

/// The files that lines read.
void prepare(const path& programs, const path& folder) {
  std::filesystem::create_directories(folder / "folder");
  {
    std::ofstream stories(folder / "stories.txt"), bytes(folder / "bytes.bin"), vocabulary(folder / "vocab.json");
    for (int i = 1; i <= 60; ++i) stories << "Tom had " << i << " pets. One was a red cat.<|endoftext|>\n";
    for (int i = 0; i < 500; ++i) bytes << static_cast<char>(i * 37);
    write_vocabulary(vocabulary);
    std::ofstream(folder / "merges.txt") << "#version: 0.2\nt h\n";
    std::ofstream(folder / "numbers.txt") << "1 2 3\n";
    std::ofstream(folder / "typed.txt") << "Tom had\n/help\n/tokens 3\nOne\n";
    const std::ofstream empty(folder / "empty.txt");
  }
  std::filesystem::create_symlink("run", folder / "link");
  std::filesystem::create_symlink("nowhere", folder / "dangling");
  std::filesystem::create_symlink("itself", folder / "itself");
  const auto make = [&](const char* program, const Words& words) {
    if (!std::filesystem::exists(programs / program)) return;
    const End end = run(programs / program, words, folder, 60s);
    if (end.status != 0 || end.signal != 0) throw std::runtime_error(program + (": " + end.error));
  };
  make("train", {"--preset", "pocket", "--data", "stories.txt", "--batch", "2", "--sequence", "16", "--steps", "2",
                 "--out", "run", "--validation-stories", "6"});
  make("convert", {"run", "model.gguf"});
  make("quantize", {"run", "--weights", "int8", "--out", "int8"});
  make("sweep",
       {"--data", "stories.txt", "--validation-stories", "6", "--steps", "1", "--only", "dense", "--batch", "2"});
}

/// What some programs make for the lines of others.
const Words made_files = {"run", "run/config.json", "run/tokenizer.json", "model.gguf", "int8", "sweep.csv"};

/// The programs of a folder, with the options that each tells, once each line that works has worked.
std::vector<Program> found_programs(const path& folder, const path& good, const path& work) {
  std::vector<Program> found;
  for (Program& program : all_programs()) {
    const path file = folder / program.name;
    if (!std::filesystem::exists(file)) continue;
    program.options = options_of(run(file, {"--help"}, good, 10s).out);
    std::vector<Words> all = program.lines;
    all.insert(all.end(), program.failing.begin(), program.failing.end());
    for (const Words& line : all) {
      if (line[0].starts_with("-") || program.name != "tokenize") continue;  // else its first word is a subcommand
      for (Option& option : options_of(run(file, {line[0], "--help"}, good, 10s).out)) {
        program.options.push_back(std::move(option));
      }
    }
    if (program.options.empty()) throw std::runtime_error(program.name + " --help tells no options");
    std::erase_if(program.lines, [&](const Words& line) {
      return std::ranges::any_of(line, [&](const std::string& word) {
        return std::ranges::find(made_files, word) != made_files.end() && !std::filesystem::exists(good / word);
      });
    });
    if (program.lines.empty() && program.failing.empty()) continue;
    for (const Words& line : program.lines) {
      copy_of(good, work);
      const End end = run(file, line, work, 60s);
      if (end.status == 0 && end.signal == 0 && !end.stopped) continue;
      throw std::runtime_error("a line that should work: " + program.name + " " + quoted(line) + ": " + end.error);
    }
    found.push_back(std::move(program));
  }
  if (found.empty()) throw std::runtime_error(folder.string() + ": has no programs");
  return found;
}

int attack(const path& folder_of_programs, std::size_t count, std::uint64_t seed) {
  const Folder made;
  // Two levels: a line may name the parent folder for its own, and write beside it.
  const path place = made.where / "in", good = place / "good", work = place / "work", temporary = place / "temporary";
  std::filesystem::create_directories(good);
  std::filesystem::create_directory(temporary);
  ::setenv("TMPDIR", temporary.c_str(), 1);
  prepare(folder_of_programs, good);
  const Tree before = tree_of(good);
  const std::vector<Program> programs = found_programs(folder_of_programs, good, work);
  struct Counts {
    std::size_t lines = 0, well = 0, refused = 0, failed = 0, stopped = 0;
  };
  std::map<std::string, Counts> counts;
  std::size_t failures = 0;
  bool fresh = false;
  for (std::size_t n = 0; n < count && interrupted == 0; ++n) {
    Draws draws(seed + n);
    const Program& program = draws.of(programs);
    const Line line = line_of(program, draws);
    if (!stays_here(line.words)) continue;
    if (!fresh) copy_of(good, work);
    const End end = run(folder_of_programs / program.name, line.words, work, 8s);
    if (interrupted != 0) break;
    std::string wrong = complaint_of_end(program.name, line, end);
    fresh = false;
    try {
      const Tree after = tree_of(work);
      fresh = before == after;
      if (wrong.empty()) wrong = complaint_of_files(line, end, before, after);
    } catch (const std::filesystem::filesystem_error& error) {
      wrong = error.what();
    }
    const bool above = std::ranges::any_of(line.words, [](const auto& word) { return word.find("..") != word.npos; });
    for (const path& folder : {made.where, place, temporary}) {
      for (const auto& entry : std::filesystem::directory_iterator(folder)) {
        const std::string name = entry.path().filename().string();
        if (folder != temporary && (entry.path() == place || entry.path() == good || entry.path() == work ||
                                    entry.path() == temporary || name == "out.txt" || name == "error.txt")) {
          continue;
        }
        if (wrong.empty() && !above && end.signal == 0) wrong = "has left " + entry.path().string();
        std::filesystem::remove_all(entry.path());
      }
    }
    Counts& of = counts[program.name];
    ++of.lines;
    ++(end.stopped ? of.stopped : end.status == 0 ? of.well : end.status >= 100 ? of.refused : of.failed);
    if (wrong.empty()) continue;
    ++failures;
    std::printf("FAILED (%llu): %s %s: %s, status %d: %s\n", static_cast<unsigned long long>(seed + n),
                program.name.c_str(), quoted(line.words).substr(0, 2000).c_str(), quoted({wrong}).c_str(), end.status,
                quoted({end.error.substr(0, 500)}).c_str());
    std::fflush(stdout);
  }
  std::printf("program    lines  ended well  refused  failed with a sentence  ended by TERM\n");
  for (const Program& program : programs) {
    const std::string& name = program.name;
    const Counts& of = counts[name];
    std::printf("%-9s %6zu %11zu %8zu %23zu %14zu\n", name.c_str(), of.lines, of.well, of.refused, of.failed,
                of.stopped);
    if (of.lines < 100 || of.well > 0 || program.lines.empty()) continue;
    ++failures;
    std::printf("FAILED: no line of %s has ended well: they are changed too much\n", name.c_str());
  }
  return failures == 0 && interrupted == 0 ? 0 : 1;
}

std::uint64_t number_of(const char* text) {
  std::uint64_t number = 0;
  const char* end = text + std::strlen(text);
  if (const auto [last, error] = std::from_chars(text, end, number); error != std::errc() || last != end) {
    throw std::runtime_error(std::string("expected a number, found ") + text);
  }
  return number;
}

}  // namespace

int main(int count, char** values) {
  if (count < 2 || count > 4) {
    std::fprintf(stderr, "usage: command_lines PROGRAMS [COUNT [SEED]]\n");
    return 2;
  }
  ::setenv("OMP_NUM_THREADS", "1", 1);
  ::setenv("CUDA_VISIBLE_DEVICES", "", 1);
  std::signal(SIGCHLD, SIG_DFL);
  for (const int signal : {SIGINT, SIGTERM}) std::signal(signal, [](int) { interrupted = 1; });
  try {
    return attack(std::filesystem::canonical(values[1]), count > 2 ? number_of(values[2]) : 300,
                  count > 3 ? number_of(values[3]) : 1);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "command_lines: %s\n", error.what());
    return 1;
  }
}
