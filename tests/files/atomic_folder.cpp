#include "tinymoe/files/atomic_folder.hpp"

#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "files/bytes.hpp"
#include "tinymoe/files/mapped_file.hpp"

namespace tinymoe_test::atomic_folder {

using namespace tinymoe;

namespace {

void fill(AtomicFolder& folder, const std::string& text) {
  folder.write("model.safetensors", [&](FileWriter& file) { file.write(text); });
  folder.write("config.json", [&](FileWriter& file) { file.write(text); });
}

constexpr std::string_view owned[] = {"model.safetensors", "config.json", "optimizer.safetensors"};

void save(const std::filesystem::path& path, const std::string& text) {
  AtomicFolder folder(path, owned);
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
    CHECK_FALSE(std::filesystem::exists(path / "config.json"));
    CHECK(std::filesystem::exists(folder / "config.json"));
    folder.commit();
    CHECK_THROWS_AS(folder.commit(), FileError);
  }
  CHECK(load(path) == "new");
  save(path.string() + "/", "slash");
  CHECK(load(path.string() + "/") == "slash");
  CHECK(entries_in(path) == 2);
  {
    AtomicFolder never(root / "never");
    fill(never, "never");
  }
  CHECK(entries_in(root.path()) == 1);
}

TEST_CASE("A folder is replaced whole, and left alone without commit", "[atomic]") {
  const TemporaryFolder root;
  const auto path = root / "checkpoint";
  save(path, "old");
  write_bytes(path / "optimizer.safetensors", "old moments");
  write_bytes(path / "notes.txt", "dear diary");
  write_bytes(path / "results.json", "{}");
  std::filesystem::create_directory(path / ".ipynb_checkpoints");
  {
    AtomicFolder folder(path, owned);
    fill(folder, "never");
  }
  CHECK(load(path) == "old");
  {
    AtomicFolder folder(path, owned);
    fill(folder, "new");
    CHECK(load(path) == "old");
    folder.commit();
  }
  CHECK(load(path) == "new");
  CHECK_FALSE(std::filesystem::exists(path / "optimizer.safetensors"));
  CHECK(read_bytes(path / "notes.txt") == "dear diary");
  CHECK(entries_in(path) == 5);
}

TEST_CASE("A mistyped path replaces nothing", "[atomic]") {
  const TemporaryFolder root;
  const auto project = root / "project";
  std::filesystem::create_directories(project / "source");
  write_bytes(project / "config.json", "mine");
  check_message<FileError>([&] { AtomicFolder(project, owned); }, project.string(), "config.json without model");
  CHECK(read_bytes(project / "config.json") == "mine");
  CHECK(entries_in(project) == 2);
  const auto file = write_bytes(root / "file", "text");
  check_message<FileError>([&] { AtomicFolder{file}; }, file.string(), "found a file");
  check_message<FileError>([&] { AtomicFolder{file / "checkpoint"}; }, (file / "checkpoint").string(),
                           "Not a directory");
  check_message<FileError>([&] { AtomicFolder{""}; }, "expected the path of a folder");
  check_message<FileError>([&] { AtomicFolder{"/"}; }, "no folder for a model");
  check_message<FileError>([&] { resolve_folder(file); }, file.string(), "found a file");
  std::filesystem::create_directories(root / "odd/model.safetensors");
  check_message<FileError>([&] { AtomicFolder(root / "odd", owned); }, "not a file");
  CHECK(entries_in(root.path()) == 3);
}

TEST_CASE("A folder may be a link, dangling or not, or the current folder", "[atomic]") {
  const TemporaryFolder root;
  std::filesystem::create_directory(root / "volume");
  std::filesystem::create_directory_symlink("volume/run", root / "relative");
  std::filesystem::create_directory_symlink(root / "relative", root / "twice");
  save(root / "twice", "1");
  CHECK(std::filesystem::is_symlink(root / "twice"));
  CHECK(load(root / "volume/run") == "1");
  CHECK(load(root / "relative") == "1");
  save(root / "relative/", "2");
  CHECK(load(root / "twice") == "2");
  std::filesystem::create_directory_symlink("loop", root / "loop");
  check_message<FileError>([&] { save(root / "loop", "3"); }, (root / "loop").string(), "link to itself");
  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(root / "volume/run");
  save(".", "4");
  save("../run/.", "5");
  std::filesystem::current_path(before);
  CHECK(load(root / "volume/run") == "5");
  CHECK(entries_in(root / "volume/run") == 2);
}

TEST_CASE("A folder may be a mount point", "[atomic]") {
  const TemporaryFolder root;
  const auto volume = root / "volume";
  std::filesystem::create_directory(volume);
  const pid_t child = fork();  // a mount is seen by this process alone, and goes with it
  if (child == 0) {
    const bool mounted = unshare(CLONE_NEWNS) == 0 && mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
                         mount("none", volume.c_str(), "tmpfs", 0, nullptr) == 0;
    if (!mounted) _exit(77);
    try {
      save(volume, "old");
      save(volume, "new");
      const bool right = load(volume) == "new" && entries_in(volume) == 2 && detail::is_mount_point(volume) &&
                         !detail::is_mount_point(root.path());
      write_bytes(root / "file", "text");
      write_bytes(root / "other", "text");
      bool bound = mount((root / "file").c_str(), (root / "other").c_str(), nullptr, MS_BIND, nullptr) == 0;
      const bool refused = message_of<FileError>([&] {
                             write_file_atomically(root / "other", [](FileWriter&) {});
                           }).find("mount point") != std::string::npos;
      const auto config = volume / "config.json";
      bound = bound && mount((root / "file").c_str(), config.c_str(), nullptr, MS_BIND, nullptr) == 0;
      const auto message = message_of<FileError>([&] { FolderLock(volume, owned, WriteUse::run); });
      const bool early = message.find("config.json in it is a mount point") != std::string::npos;
      _exit(right && bound && refused && early ? 0 : 1);
    } catch (...) {
      _exit(2);
    }
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  if (WEXITSTATUS(status) == 77) skip("this process may not mount");
  CHECK(WEXITSTATUS(status) == 0);
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
  CHECK(entries_in(path) == 2);
}

TEST_CASE("A run that is killed while writing leaves the previous files", "[atomic]") {
  const TemporaryFolder root;
  const auto path = root / "checkpoint";
  save(path, "old");
  std::filesystem::create_directory(root / "checkpoint.partial-1");  // of a version that wrote beside the folder
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
  CHECK(entries_in(path) == 4);  // with the partial and the lock
  AtomicFolder living(path);
  CHECK(entries_in(path) == 4);  // with its own
  CHECK(entries_in(root.path()) == 1);
  save(path, "newer");
  CHECK(load(path) == "newer");
  CHECK(entries_in(path) == 4);
  CHECK(std::filesystem::exists(living.path()));
}

TEST_CASE("A run that is killed at any moment leaves a whole folder", "[atomic]") {
  const TemporaryFolder root;
  const auto path = root / "checkpoint";
  save(path, "first");
  std::set<std::string> seen;
  // Where a process is slow to start, under a sanitizer beside others, later moments too.
  for (int attempt = 0; attempt < 12 || (seen.size() < 2 && attempt < 200); ++attempt) {
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
  CHECK(entries_in(path) == 2);
}

TEST_CASE("Files that are opened together are of one replacement", "[atomic]") {
  const TemporaryFolder root;
  const auto path = root / "checkpoint";
  save(path, "first");
  const pid_t child = fork();
  if (child == 0) {
    for (int step = 0;; ++step) save(path, std::to_string(step));
  }
  std::set<std::string> seen;
  int torn = 0;
  for (int reading = 0; reading < 400 && torn == 0; ++reading) {
    const auto [model, config] = detail::open_together(path, owned[0], [](const std::filesystem::path& folder) {
      auto one = read_bytes(folder / "model.safetensors");
      usleep(200);  // longer than between two renames
      return std::pair(std::move(one), read_bytes(folder / "config.json"));
    });
    torn += model != config ? 1 : 0;
    seen.insert(model);
  }
  kill(child, SIGKILL);
  REQUIRE(waitpid(child, nullptr, 0) == child);
  CHECK(torn == 0);
  CHECK(seen.size() > 1);
  const auto missing = [&](const std::filesystem::path& folder) { return MappedFile(folder / "missing").size(); };
  check_message<FileError>([&] { detail::open_together(path, owned[0], missing); }, "missing", "cannot be opened");
}

TEST_CASE("A replacement that a crash cut is whole, and ended by the next writer", "[atomic]") {
  const TemporaryFolder root;
  const auto path = root / "checkpoint", fresh = path / ".tinymoe.new";
  save(path, "old");
  write_bytes(path / "optimizer.safetensors", "old moments");
  save(root / "other", "new");
  std::filesystem::rename(root / "other", fresh);
  const int placed = GENERATE(0, 1, 2);
  if (placed > 0) detail::place_file(fresh / "config.json", path / "config.json");
  if (placed > 1) std::filesystem::remove(path / "model.safetensors");  // it was the first replacement of all
  write_bytes(path / ".tinymoe.lock", "");                              // nobody holds it
  CHECK(resolve_folder(path) == fresh);
  CHECK(load(path) == "new");
  const auto holds = [&] {
    return std::pair(detail::folder_has(path, "model.safetensors"), detail::folder_has(path, "optimizer.safetensors"));
  };
  CHECK(holds() == std::pair(true, false));  // what is old no longer counts
  { const FolderLock lock(path, owned); }
  CHECK(holds() == std::pair(true, false));
  CHECK_FALSE(detail::folder_has(root / "missing", "model.safetensors"));
  CHECK(resolve_folder(path) == path);
  CHECK(load(path) == "new");
  CHECK(entries_in(path) == 2);
}

TEST_CASE("A folder that was copied in the middle of a replacement is read at once", "[atomic]") {
  const TemporaryFolder root;
  const auto path = root / "checkpoint";
  save(path, "old");
  save(path / ".tinymoe.new", "new");  // without a lock
  const auto start = std::chrono::steady_clock::now();
  CHECK(load(path) == "new");
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(2));
}

TEST_CASE("What others named like a partial folder stays", "[atomic]") {
  const TemporaryFolder root;
  for (const char* name : {"run.partial-backup", "run.partial-7", "run.partial-8", "run.partial-1-2"}) {
    std::filesystem::create_directory(root / name);
    write_bytes(root / name / (std::string(name).ends_with('8') ? "config.json" : "notes.txt"), "mine");
  }
  save(root / "run", "new");
  CHECK_FALSE(std::filesystem::exists(root / "run.partial-8"));  // a killed process's, with owned files alone
  for (const char* name : {"run.partial-backup", "run.partial-7", "run.partial-1-2"}) {
    CHECK(read_bytes(root / name / "notes.txt") == "mine");
  }
}

TEST_CASE("Links in a folder are replaced or refused, and never followed", "[atomic]") {
  const TemporaryFolder root;
  const auto path = root / "run", outside = root / "outside";
  save(path, "old");
  std::filesystem::create_directory(outside);
  for (const char* name : {"mine", "model.safetensors"}) write_bytes(outside / name, "mine");
  const auto untouched = [&] {
    return entries_in(outside) == 2 && read_bytes(outside / "mine") == "mine" &&
           read_bytes(outside / "model.safetensors") == "mine";
  };
  std::filesystem::remove(path / "config.json");
  std::filesystem::create_symlink("../outside/mine", path / "config.json");
  std::filesystem::create_symlink("../outside/new", path / "optimizer.safetensors");
  std::filesystem::create_directory_symlink("../outside", path / ".tinymoe.partial-0");
  save(path, "new");
  CHECK(load(path) == "new");
  CHECK(untouched());
  CHECK(entries_in(path) == 2);
  CHECK_FALSE(std::filesystem::is_symlink(path / "config.json"));

  const auto fresh = path / ".tinymoe.new", lock = path / ".tinymoe.lock";
  std::filesystem::create_directory_symlink("../outside", fresh);
  check_message<FileError>([&] { load(path); }, fresh.string(), "expected a folder or none");
  check_message<FileError>([&] { save(path, "other"); }, fresh.string(), "expected a folder or none");
  std::filesystem::remove(fresh);
  std::filesystem::create_symlink("../outside/mine", lock);
  check_message<FileError>([&] { save(path, "other"); }, path.string(), "cannot be written");
  std::filesystem::remove(lock);
  CHECK(load(path) == "new");
  CHECK(untouched());
}

TEST_CASE("What the system cannot look at is not taken for missing", "[atomic]") {
  const TemporaryFolder root;
  write_bytes(root / "file", "");
  CHECK(detail::look_at(root / "none") == detail::Found::nothing);
  CHECK(detail::look_at(root / "file/none") == detail::Found::nothing);
  CHECK(detail::look_at(root / "file") == detail::Found::file);
  CHECK(detail::look_at(root.path()) == detail::Found::folder);
  const auto unknown = root / std::string(300, 'x');  // stands for a disk that fails
  check_message<FileError>([&] { detail::is_there(unknown); }, unknown.string(), "cannot be looked at");
  check_message<FileError>([&] { resolve_folder(unknown); }, unknown.string(), "cannot be looked at");
}

TEST_CASE("Threads that save to one folder take turns", "[atomic]") {
  const TemporaryFolder root;
  const auto path = root / "checkpoint";
  std::atomic<int> failed = 0;
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      try {
        for (int i = 0; i < 20; ++i) {
          AtomicFolder folder(path, owned);
          fill(folder, std::to_string(thread));
          if (i % 2 == 0) folder.write("optimizer.safetensors", [&](FileWriter& file) { file.write("moments"); });
          folder.commit();
        }
      } catch (const Error&) {
        ++failed;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(failed == 0);
  CHECK(load(path).size() == 1);
  CHECK_FALSE(std::filesystem::exists(path / "optimizer.safetensors"));
  CHECK(entries_in(path) == 2);
}

TEST_CASE("A second run in a folder is refused while the first lives", "[atomic]") {
  const TemporaryFolder root;
  const auto path = root / "run";
  std::filesystem::create_directory_symlink("run", root / "link");
  int ready[2], end[2];
  REQUIRE((pipe(ready) == 0 && pipe(end) == 0));
  const pid_t child = fork();
  if (child == 0) {
    const FolderLock lock(path, {}, WriteUse::run);
    char byte = 0;
    static_cast<void>(!write(ready[1], "x", 1));
    static_cast<void>(!read(end[0], &byte, 1));
    kill(getpid(), SIGKILL);
  }
  char byte = 0;
  REQUIRE(read(ready[0], &byte, 1) == 1);
  check_message<FileError>([&] { FolderLock(path, {}, WriteUse::run); }, path.string(), "another run",
                           "process " + std::to_string(child));
  check_message<FileError>([&] { FolderLock(root / "link", {}, WriteUse::run); }, "link", "another run");
  REQUIRE(write(end[1], "x", 1) == 1);
  REQUIRE(waitpid(child, nullptr, 0) == child);
  for (const int one : {ready[0], ready[1], end[0], end[1]}) close(one);

  const FolderLock lock(path, {}, WriteUse::run);  // the lock of the dead run is no obstacle
  check_message<FileError>([&] { FolderLock(root / "link", {}, WriteUse::run); }, "in this process");
  save(path, "by the run itself");
  CHECK(load(path) == "by the run itself");
}

}  // namespace tinymoe_test::atomic_folder
