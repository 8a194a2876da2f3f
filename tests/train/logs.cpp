// The logs that other tools read: TensorBoard's event files, byte for byte what the package writes, and JSON lines.

#include <sstream>

#include "files/bytes.hpp"
#include "support/catch.hpp"
#include "tinymoe/files/json.hpp"
#include "tinymoe/train/json_lines.hpp"
#include "tinymoe/train/tensorboard.hpp"

namespace tinymoe_test::logs {

using namespace tinymoe;

namespace {

const ExpertLoads loads = {{1, 3, 2}, {0, 0, 0}};

StepReport report(Index step) {
  return {
      .step = step, .tokens = 100 * step, .loss = 1.5, .learning_rate = 0.25, .seconds = 2, .tokens_per_second = 50};
}

std::uint64_t number_at(const std::string& bytes, std::size_t at, std::size_t size) {
  std::uint64_t number = 0;
  for (std::size_t i = 0; i < size; ++i)
    number |= std::uint64_t{static_cast<unsigned char>(bytes.at(at + i))} << (8 * i);
  return number;
}

std::string hex(const std::string& bytes) {
  std::string digits;
  for (const char byte : bytes) {
    for (const int shift : {4, 0}) digits += "0123456789abcdef"[static_cast<unsigned char>(byte) >> shift & 15];
  }
  return digits;
}

/// The messages of a file's records, whose checksums are looked at, without their time, which comes first.
std::vector<std::string> messages(const std::filesystem::path& path) {
  const std::string bytes = read_bytes(path);
  std::vector<std::string> found;
  for (std::size_t at = 0; at < bytes.size();) {
    const auto size = static_cast<std::size_t>(number_at(bytes, at, 8));
    const std::string content = bytes.substr(at + 12, size);
    REQUIRE(content.size() == size);
    CHECK(number_at(bytes, at + 8, 4) == tinymoe::detail::masked_checksum(bytes.substr(at, 8)));
    CHECK(number_at(bytes, at + 12 + size, 4) == tinymoe::detail::masked_checksum(content));
    CHECK(hex(content.substr(0, 1)) == "09");
    found.push_back(hex(content.substr(9)));
    at += 16 + size;
  }
  return found;
}

std::vector<Json> lines(const std::filesystem::path& path) {
  std::vector<Json> found;
  std::istringstream text(read_bytes(path));
  for (std::string line; std::getline(text, line);) found.push_back(parse_json(line, "a line"));
  return found;
}

}  // namespace

TEST_CASE("An event file has the bytes that the package tensorboard writes", "[logs]") {
  CHECK(tinymoe::detail::masked_checksum("123456789") == 0xc78ab0e5u);
  const TemporaryFolder folder;
  EventFile file(folder / "new/events");
  CHECK(file.path().filename().string().starts_with("events.out.tfevents."));
  file.restart_at(21);
  file.scalar(300, "train/loss", 1.5);
  file.histogram(300, "experts", std::vector<Index>{1, 3, 2});
  file.histogram(300, "no tokens", std::vector<Index>{0, 0});
  file.text(300, "story", "cat");
  file.text(300, "story", std::string("\xff\0", 2) + "\xc3\xa9");
  const auto found = messages(file.path());
  REQUIRE(found.size() == 6);
  CHECK(found[0] == "10001a0d627261696e2e4576656e743a32");
  CHECK(found[1] == "10153a020801");
  // By tensorboard 2.21: Event(step=300, summary=Summary(value=[Summary.Value(tag="train/loss", simple_value=1.5)])),
  // and so on.
  const std::string step = "10ac02";
  CHECK(found[2] == step + "2a130a110a0a747261696e2f6c6f7373150000c03f");
  CHECK(found[3] ==
        step +
            "2a650a630a07657870657274732a58110000000000000840190000000000001840210000000000001c40290000000000002640"
            "3218000000000000f03f000000000000004000000000000008403a18000000000000f03f0000000000000840"
            "0000000000000040");
  CHECK(found[4] == step + "2a220a200a0573746f7279420d080712041202080142036361744a080a060a0474657874");
  CHECK(found[5].find(hex(std::string("\xef\xbf\xbd\0\xc3\xa9", 6))) != std::string::npos);
}

TEST_CASE("A run for TensorBoard has its curves, loads and hyperparameters", "[logs]") {
  const TemporaryFolder folder;
  std::filesystem::path path;
  {
    TensorBoard log(folder / "events", 0, {{"lr", 0.25}, {"preset", "story"}, {"muon", false}, {"betas", {0.9, 0.95}}});
    path = log.file().path();
    log.on_step(report(1), loads);
    log.on_evaluation(report(1), {.loss = 2, .bits_per_byte = 1, .tokens = 9, .loads = loads});
    log.on_end(report(1), {.how = EndReport::How::error});
  }
  CHECK(messages(path)[1] == "10003a020801");  // a mark in the first file, too, by which readers know later ones
  std::string all;
  for (const auto& message : messages(path)) all += message + "\n";
  for (const char* tag : {"train/loss", "train/learning_rate", "train/balance_loss", "speed/tokens_per_second",
                          "validation/bits_per_byte", "experts/mixture_0", "_hparams_/session_start_info",
                          "_hparams_/session_end_info", "muon", "[0.9,0.95]"}) {
    INFO(tag);
    CHECK(all.find(hex(tag)) != std::string::npos);
  }
  CHECK(all.find(hex("experts/mixture_1")) == std::string::npos);  // no token went through it
  // A resumed run's file says where it goes on; a second of the same time has another name.
  TensorBoard resumed(folder / "events", 1);
  CHECK(resumed.file().path() != path);
  CHECK(messages(resumed.file().path())[1] == "10023a020801");
  write_bytes(folder / "file", "");
  check_message<FileError>([&] { TensorBoard(folder / "file"); }, "file", "cannot be made");
}

TEST_CASE("JSON lines tell what happens, and go on where a run is resumed", "[logs]") {
  const TemporaryFolder folder;
  const auto path = folder / "run.jsonl";
  {
    JsonLines log(path, 0, {{"recipe", {{"lr", 0.25}}}});
    log.on_step(report(1), loads);
    log.on_evaluation(report(1), {.loss = 2, .bits_per_byte = 1, .tokens = 9, .loads = loads});
    log.on_checkpoint(report(1), {.kind = CheckpointReport::Kind::best, .path = "a \"folder\"", .seconds = 0.5});
    StepReport skipped = report(2);
    skipped.skipped = true, skipped.gradient_norm = std::numeric_limits<double>::infinity();
    log.on_step(skipped, {});
    check_message<FileError>([&] { JsonLines(path, 0); }, "run.jsonl");  // another run writes there
    log.on_end(report(2), {.how = EndReport::How::stopped});
  }
  auto found = lines(path);
  REQUIRE(found.size() == 6);
  CHECK(found[0] == Json({{"event", "start"}, {"step", 0}, {"recipe", {{"lr", 0.25}}}}));
  CHECK(found[1]["loads"] == Json::array({Json::array({1, 3, 2}), Json::array({0, 0, 0})}));
  CHECK(found[1]["tokens"] == 100);
  CHECK(found[2]["scored"] == 9);
  CHECK(found[3]["path"] == "a \"folder\"");
  CHECK(found[4]["gradient_norm"].is_null());
  CHECK(found[4]["skipped"] == true);
  CHECK(found[5]["how"] == "stopped");
  // Resumed at step 1, after a kill that cut a line: the steps after it go, and the end.
  write_bytes(path, read_bytes(path) + "{\"event\":\"st");
  JsonLines(path, 1).on_step(report(2), {});
  found = lines(path);
  REQUIRE(found.size() == 6);
  CHECK(found[4] == Json({{"event", "start"}, {"step", 1}}));
  CHECK(found[5]["step"] == 2);
  // An evaluation that a resumed run makes again takes the place of the old one, and nothing else goes.
  JsonLines(path, 1).on_evaluation(report(1), {.loss = 3});
  found = lines(path);
  REQUIRE(found.size() == 6);
  CHECK(found[2]["event"] == "checkpoint");
  CHECK(found[5]["loss"] == 3);
  JsonLines(path, 1).on_end(report(1), {.message = "\xff"});
  CHECK(lines(path).size() == 8);
  CHECK(lines(path)[7]["message"] == "\xef\xbf\xbd");
  // What is no log is not replaced.
  for (const char* other : {"notes\n", "{\"a\":1}\n", "[]\n{\"event\":\"step\",\"step\":1}\n"}) {
    write_bytes(path, other);
    check_message<FileError>([&] { JsonLines(path, 0); }, "line 1 is no event");
    CHECK(read_bytes(path) == other);
  }
}

}  // namespace tinymoe_test::logs
