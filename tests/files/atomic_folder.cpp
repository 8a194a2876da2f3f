#include "tinymoe/files/atomic_folder.hpp"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <set>
#include <string>

#include "files/bytes.hpp"

namespace tinymoe_test::atomic_folder {

using namespace tinymoe;

namespace {

void fill(AtomicFolder& folder, const std::string& text) {
  folder.write("model.safetensors", [&](FileWriter& file) { file.write(text); });
  folder.write("config.json", [&](FileWriter& file) { file.write(text); });
}

void save(const std::filesystem::path& path, const std::string& text) {
  AtomicFolder folder(path);
  fill(folder, text);
  folder.commit();
}

/// What both files of the folder say; they must agree.
std::string load(const std::filesystem::path& path) {
  const auto folder = resolve_folder(path);
  const auto text = read_bytes(folder / "model.safetensors");
  REQUIRE(text == read_bytes(folder / "config.json"));
  return text;
}

}  // namespace

TEST_CASE("A folder appears whole", "[atomic]") {
  const TemporaryFolder root;
  const auto path = root / "runs/checkpoint";  // the folder above is made too
  check_message<FileError>([&] { resolve_folder(path); }, path.string(), "no such folder");
  {
    AtomicFolder folder(path);
    fill(folder, "new");
    CHECK_FALSE(std::filesystem::exists(path));
    CHECK(std::filesystem::exists(folder / "config.json"));
    folder.commit();
    CHECK_THROWS_AS(folder.commit(), FileError);
  }
  CHECK(load(path) == "new");
  save(path.string() + "/", "slash");
  CHECK(load(path.string() + "/") == "slash");
  CHECK(entries_in(root / "runs") == 1);
}

TEST_CASE("A folder is replaced whole, and left alone without commit", "[atomic]") {
  const TemporaryFolder root;
  const auto path = root / "checkpoint";
  save(path, "old");
  write_bytes(path / "optimizer.safetensors", "old moments");
  write_bytes(path / "notes.txt", "dear diary");
  {
    AtomicFolder folder(path);
    fill(folder, "never");
  }
  CHECK(load(path) == "old");
  {
    AtomicFolder folder(path);
    fill(folder, "new");
    CHECK(load(path) == "old");
    folder.commit();
  }
  CHECK(load(path) == "new");
  CHECK_FALSE(std::filesystem::exists(path / "optimizer.safetensors"));
  CHECK(read_bytes(path / "notes.txt") == "dear diary");
  CHECK(entries_in(root.path()) == 1);
}

TEST_CASE("A mistyped path deletes nothing", "[atomic]") {
  const TemporaryFolder root;
  const auto project = root / "project";
  std::filesystem::create_directories(project / "source");
  check_message<FileError>([&] { AtomicFolder{project}; }, project.string(), "source");
  const auto file = write_bytes(root / "file", "text");
  check_message<FileError>([&] { AtomicFolder{file}; }, file.string(), "found a file");
  check_message<FileError>([&] { AtomicFolder{file / "checkpoint"}; }, file.string());
  check_message<FileError>([&] { resolve_folder(file); }, file.string(), "found a file");
  CHECK(entries_in(root.path()) == 2);
}

TEST_CASE("A full disk leaves the previous folder", "[atomic]") {
  const TemporaryFolder root;
  const auto path = root / "checkpoint";
  save(path, "old");
  const auto message = message_of<FileError>([&] {
    const FileSizeLimit limit(100'000);
    save(path, std::string(300'000, 'x'));
  });
  CHECK(message.find("model.safetensors") != std::string::npos);
  CHECK(message.find("needs 300000 bytes") != std::string::npos);
  CHECK(load(path) == "old");
  CHECK(entries_in(root.path()) == 1);
}

TEST_CASE("A run that is killed while writing leaves the previous folder", "[atomic]") {
  const TemporaryFolder root;
  const auto path = root / "checkpoint";
  save(path, "old");
  const pid_t child = fork();
  if (child == 0) {
    AtomicFolder folder(path);
    fill(folder, "new");
    kill(getpid(), SIGKILL);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  REQUIRE(WIFSIGNALED(status));
  CHECK(load(path) == "old");
  CHECK(entries_in(root.path()) == 2);  // with the partial
  AtomicFolder living(path);            // another run's commit leaves it alone
  save(path, "newer");
  CHECK(load(path) == "newer");
  CHECK(entries_in(root.path()) == 2);
  CHECK(std::filesystem::exists(living.path()));
}

TEST_CASE("A run that is killed at any moment leaves a whole folder", "[atomic]") {
  const TemporaryFolder root;
  const auto path = root / "checkpoint";
  save(path, "first");
  std::set<std::string> seen;
  for (int attempt = 0; attempt < 12; ++attempt) {
    const pid_t child = fork();
    if (child == 0) {
      for (int step = 0;; ++step) save(path, std::to_string(attempt) + ":" + std::to_string(step));
    }
    usleep(3000 + 1700 * attempt);
    kill(child, SIGKILL);
    REQUIRE(waitpid(child, nullptr, 0) == child);
    seen.insert(load(path));
  }
  CHECK(seen.size() > 1);
  save(path, "last");
  CHECK(load(path) == "last");
  CHECK(entries_in(root.path()) == 1);
}

TEST_CASE("Replacing by renames alone keeps a good folder at every step", "[atomic]") {
  const TemporaryFolder root;
  const auto path = root / "checkpoint", partial = root / "partial";
  save(path, "old");
  save(partial, "new");
  SECTION("when all goes well") {
    std::filesystem::create_directory(root / "checkpoint.old");  // left by an older replacement
    detail::replace_by_renames(partial, path);
    CHECK(load(path) == "new");
  }
  SECTION("when the second rename fails") {
    const auto lost = root / "lost";
    check_message<FileError>([&] { detail::replace_by_renames(lost, path); }, path.string(), "cannot be replaced");
    CHECK(load(path) == "old");
    std::filesystem::remove_all(partial);
  }
  SECTION("when the run ends between the renames") {
    std::filesystem::rename(path, root / "checkpoint.old");
    CHECK(resolve_folder(path) == root / "checkpoint.old");
    CHECK(load(path) == "old");
    std::filesystem::remove_all(partial);
    save(path, "next");
    CHECK(load(path) == "next");
  }
  CHECK(entries_in(root.path()) == 1);
}

TEST_CASE("Names are exchanged in one step where the system can", "[atomic]") {
  const TemporaryFolder root;
  save(root / "one", "1");
  save(root / "other", "2");
  if (!detail::exchange_names(root / "one", root / "other")) skip("this file system cannot exchange names");
  CHECK(load(root / "one") == "2");
  CHECK(load(root / "other") == "1");
  CHECK_FALSE(detail::exchange_names(root / "one", root / "missing"));
}

}  // namespace tinymoe_test::atomic_folder
