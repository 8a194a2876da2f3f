// The CSV file of a run: its header, its rows, and a resumed run.

#include "tinymoe/train/metrics.hpp"

#include <clocale>
#include <cstdlib>
#include <locale>
#include <sstream>

#include "files/bytes.hpp"
#include "support/catch.hpp"
#include "tinymoe/analysis/report.hpp"
#include "tinymoe/files/json.hpp"
#include "tinymoe/files/safetensors_writer.hpp"

namespace tinymoe_test::metrics {

using namespace tinymoe;

namespace {

const std::string header =
    "step,tokens,seconds,loss,learning_rate,gradient_norm,tokens_per_second,balance_loss,z_loss,load_variation,"
    "validation_loss,validation_bits_per_byte\n";

StepReport report(Index step) {
  return {.step = step,
          .tokens = 100 * step,
          .loss = 2.5,
          .balance_loss = 1.25,
          .z_loss = 0.5,
          .load_variation = 0.125,
          .gradient_norm = 0.75,
          .learning_rate = 0.001,
          .seconds = 1.5,
          .tokens_per_second = 2000};
}

std::string row(Index step) {
  return std::to_string(step) + "," + std::to_string(100 * step) +
         ",1.500,2.500000,0.001,0.75,2000.0,1.25000,0.50000,0.1250,,\n";
}

/// While it lives, the program is in Germany: C's functions write 0,5 where the system has that locale or can make it,
/// and streams write 1.234,5.
class Germany {
 public:
  explicit Germany(const std::filesystem::path& folder) : before_(std::locale::global(Numbers::locale())) {
    if (std::setlocale(LC_ALL, "de_DE.UTF-8") != nullptr) return;
    const std::string make = "localedef -i de_DE -f UTF-8 " + (folder / "de_DE.UTF-8").string() + " >/dev/null 2>&1";
    if (std::system(make.c_str()) != 0) return;
    setenv("LOCPATH", folder.c_str(), 1);
    std::setlocale(LC_ALL, "de_DE.UTF-8");
    unsetenv("LOCPATH");
  }
  Germany(const Germany&) = delete;
  ~Germany() {
    std::locale::global(before_);
    std::setlocale(LC_ALL, "C");
  }

 private:
  struct Numbers : std::numpunct<char> {
    static std::locale locale() { return {std::locale::classic(), new Numbers}; }
    char do_decimal_point() const override { return ','; }
    char do_thousands_sep() const override { return '.'; }
    std::string do_grouping() const override { return "\3"; }
  };
  std::locale before_;
};

/// What is written to files and told in messages, one after another.
std::string all_that_is_written(const std::filesystem::path& folder) {
  std::filesystem::create_directory(folder);
  const EvaluationReport evaluation{.loss = 1.5, .bits_per_byte = 0.625, .tokens = 9};
  {
    MetricsFile file(folder / "metrics.csv", 0);
    file.on_step(report(1234), {});
    file.on_evaluation(report(1234), evaluation);
  }
  const TrainingState state{.step = 1234, .tokens = 123400, .seconds = 1.5};
  MetricsFile(folder / "metrics.csv", state).on_step(report(1235), {});  // the old rows are read
  write_file_atomically(folder / "numbers.safetensors", [](FileWriter& file) {
    SafetensorsWriter writer(file, {{.name = "w", .shape = {2048}}});
    writer.append<float>("w", std::vector<float>(2048, 0.5f));
    writer.finish();
  });
  const Json json = {{"rate", 0.001}, {"steps", 1234567}, {"most", 1e300}};
  const Json read = parse_json(json.dump(), "numbers");
  const std::string sentence = tinymoe::detail::sentence_of({read["rate"].number(), " ", 1234567, " ", 1234.5});
  return read_bytes(folder / "metrics.csv") + read_bytes(folder / "numbers.safetensors") + read.dump() + sentence +
         tinymoe::detail::mebibytes(1536) + tinymoe::detail::mebibytes(Index{5} << 40);
}

}  // namespace

TEST_CASE("What is written is the same in every locale", "[metrics]") {
  const TemporaryFolder root;
  const std::string plain = all_that_is_written(root / "plain");
  CHECK(plain.find("[2048]") != std::string::npos);
  const Germany germany(root.path());
  std::ostringstream stream;
  stream << 1234.5;
  REQUIRE(stream.str() == "1.234,5");  // the locale is in force
  CHECK(all_that_is_written(root / "german") == plain);
}

TEST_CASE("A CSV of metrics has a header and a row for each step and evaluation", "[metrics]") {
  const TemporaryFolder root;
  const auto path = root / "metrics.csv";
  write_bytes(path, header + "something old\n");
  MetricsFile file(path, 0);
  CHECK(read_bytes(path) == header);
  file.on_step(report(1), {});
  file.on_step(report(2), {});
  CHECK(read_bytes(path) == header + row(1) + row(2));  // there at once
  const EvaluationReport evaluation{.loss = 1.5, .bits_per_byte = 0.625, .tokens = 9, .loads = {{0, 4}, {1, 3}}};
  file.on_evaluation(report(2), evaluation);
  const std::string evaluated = "2,200,1.500,,,,,,,0.7500,1.500000,0.62500\n";
  CHECK(read_bytes(path) == header + row(1) + row(2) + evaluated);
  std::istringstream lines(read_bytes(path));
  for (std::string line; std::getline(lines, line);) CHECK(std::count(line.begin(), line.end(), ',') == 11);
}

TEST_CASE("A row that cannot be written is told with the reason", "[metrics]") {
  const TemporaryFolder root;
  MetricsFile file(root / "metrics.csv", 0);
  const FileSizeLimit limit(header.size());
  check_message<FileError>([&] { file.on_step(report(1), {}); }, "metrics.csv: cannot be written: File too large");
}

TEST_CASE("A resumed CSV drops the rows that will be computed again", "[metrics]") {
  const TemporaryFolder root;
  const auto path = root / "metrics.csv";
  write_bytes(path, header + row(1) + row(2) + row(10) + row(11));
  {
    MetricsFile file(path, 10);
    file.on_step(report(11), {});
  }
  CHECK(read_bytes(path) == header + row(1) + row(2) + row(10) + row(11));
  { MetricsFile file(path, 2); }
  CHECK(read_bytes(path) == header + row(1) + row(2));
  // A row that a killed run cut is dropped even where its step is done.
  write_bytes(path, header + row(1) + row(2).substr(0, 9));
  { MetricsFile file(path, 2); }
  CHECK(read_bytes(path) == header + row(1));
  // A file cut in its header, an empty one and none at all become one with a header.
  for (const std::string& old : {header.substr(0, 20), std::string()}) {
    write_bytes(path, old);
    { MetricsFile file(path, 2); }
    CHECK(read_bytes(path) == header);
  }
  std::filesystem::remove(path);
  { MetricsFile file(path, 2); }
  CHECK(read_bytes(path) == header);
}

TEST_CASE("A new evaluation of the step that a run was resumed at replaces the old one", "[metrics]") {
  const TemporaryFolder root;
  const auto path = root / "metrics.csv";
  const auto evaluated = [](Index step, const std::string& bits) {
    return std::to_string(step) + "," + std::to_string(100 * step) + ",1.500,,,,,,,0.0000,1.500000," + bits + "\n";
  };
  const std::string old = header + row(1) + row(2) + evaluated(2, "0.50000");
  write_bytes(path, old + evaluated(2, "0.62500") + evaluated(2, "0.75000"));  // as earlier versions left it
  {
    MetricsFile file(path, 2);
    CHECK(read_bytes(path) == header + row(1) + row(2) + evaluated(2, "0.75000"));
    file.on_evaluation(report(2), {.loss = 1.5, .bits_per_byte = 0.25});
    CHECK(read_bytes(path) == header + row(1) + row(2) + evaluated(2, "0.25000"));
    file.on_evaluation(report(2), {.loss = 1.5, .bits_per_byte = 0.125});  // another one of this run
    CHECK(read_bytes(path) == header + row(1) + row(2) + evaluated(2, "0.25000") + evaluated(2, "0.12500"));
  }
  write_bytes(path, old);
  {
    MetricsFile file(path, 2);
    file.on_step(report(3), {});
    file.on_evaluation(report(3), {.loss = 1.5, .bits_per_byte = 0.25});
  }
  CHECK(read_bytes(path) == old + row(3) + evaluated(3, "0.25000"));
}

TEST_CASE("A CSV that was edited, repeats rows or lost line ends is continued by its rows", "[metrics]") {
  const TemporaryFolder root;
  const auto path = root / "metrics.csv";
  const auto kept = [&](const std::string& old, Index step) {
    write_bytes(path, old);
    MetricsFile(path, step);
    return read_bytes(path);
  };
  const auto with_crlf = [](std::string text) {
    for (std::size_t at = 0; (at = text.find('\n', at)) != std::string::npos; at += 2) text.insert(at, "\r");
    return text;
  };
  CHECK(kept("\xef\xbb\xbf" + with_crlf(header + row(1) + "\n" + row(2) + row(3)), 2) == header + row(1) + row(2));
  CHECK(kept(header + row(2) + row(3) + row(1) + row(2), 3) == header + row(1) + row(2) + row(3));
  CHECK(kept(header + row(1) + "# a note\n" + row(2) + "2,200,1.5\n" + row(3), 2) ==
        header + row(1) + "# a note\n" + row(2));
  const std::string last = row(2).substr(0, row(2).size() - 1);  // an editor may leave out the last line's end
  CHECK(kept(header + row(1) + last, 2) == header + row(1) + row(2));
  for (std::size_t cut = 1; cut < last.size(); ++cut) {
    CHECK(kept(header + row(1) + last.substr(0, cut), 2) == header + row(1));
  }
}

TEST_CASE("The CSV of another run is not continued", "[metrics]") {
  const TemporaryFolder root;
  const auto path = root / "metrics.csv";
  const std::string old = header + row(1) + row(2);
  write_bytes(path, old);
  TrainingState run{.step = 2, .tokens = 200, .seconds = 1.5004};
  { MetricsFile file(path, run); }
  CHECK(read_bytes(path) == old);
  run.tokens = 300;
  check_message<FileError>([&] { MetricsFile(path, run); }, "metrics.csv", "another run", "200 tokens", "step 2");
  run = {.step = 2, .tokens = 200, .seconds = 1.51};
  check_message<FileError>([&] { MetricsFile(path, run); }, "metrics.csv", "another run", "1.5 seconds");
  CHECK(read_bytes(path) == old);
  run.step = 3;  // its row is not there, so nothing speaks against it
  { MetricsFile file(path, run); }
  CHECK(read_bytes(path) == old);
}

TEST_CASE("A file that is no CSV of metrics is left alone", "[metrics]") {
  const TemporaryFolder root;
  const auto path = root / "notes.csv";
  for (const std::string& old : {std::string("my notes\n"), "step,loss\n1,2\n" + row(1), header + row(1)}) {
    write_bytes(path, old);
    if (old.starts_with(header)) continue;
    for (const Index resumed : {0, 5}) {
      check_message<FileError>([&] { MetricsFile(path, resumed); }, "notes.csv", "step,tokens,seconds", "another");
      CHECK(read_bytes(path) == old);
    }
  }
  // A CSV file is replaced atomically: without space for the new one, the old one stays.
  const FileSizeLimit limit(20);
  check_message<FileError>([&] { MetricsFile(path, 1); }, "notes.csv", "cannot be written");
  CHECK(read_bytes(path) == header + row(1));
  CHECK(entries_in(root.path()) == 1);
}

TEST_CASE("Metrics that cannot be written are an error that names the file", "[metrics]") {
  const TemporaryFolder root;
  check_message<FileError>([&] { MetricsFile("/dev/null/metrics.csv", 0); }, "/dev/null/metrics.csv");
  MetricsFile file(root / "new/metrics.csv", 0);  // its folder is made
  const FileSizeLimit limit(header.size() + 10);
  check_message<FileError>([&] { file.on_step(report(1), {}); }, "metrics.csv", "cannot be written");
}

}  // namespace tinymoe_test::metrics
