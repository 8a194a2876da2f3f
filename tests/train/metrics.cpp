// The CSV file of a run: its header, its rows, and a resumed run.

#include "tinymoe/train/metrics.hpp"

#include <sstream>

#include "files/bytes.hpp"
#include "support/catch.hpp"

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

}  // namespace

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
