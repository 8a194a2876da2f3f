#include "tinymoe/files/atomic.hpp"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <iterator>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "files/bytes.hpp"
#include "tinymoe/files/appended_file.hpp"
#include "tinymoe/files/mapped_file.hpp"

namespace tinymoe_test::atomic {

using namespace tinymoe;

TEST_CASE("A file is written in pieces of any size", "[atomic]") {
  const TemporaryFolder folder;
  const auto path = folder / "pieces";
  std::string expected;
  FileWriter file(path);
  for (const std::size_t size : {0, 1, 7, 65535, 65536, 65537, 3, 200000, 12}) {
    const std::string piece(size, static_cast<char>('a' + size % 26));
    file.write(piece);
    expected += piece;
  }
  CHECK(file.size() == expected.size());
  CHECK_FALSE(file.finished());
  file.finish();
  CHECK(file.finished());
  CHECK(read_bytes(path) == expected);
  CHECK_THROWS_AS(([&] { file.write(std::string(100000, 'x')); }()), FileError);
}

TEST_CASE("A mapped file is its bytes", "[atomic]") {
  const TemporaryFolder folder;
  CHECK(MappedFile(write_bytes(folder / "empty", "")).size() == 0);
  MappedFile file(write_bytes(folder / "full", "story"));
  const MappedFile moved = std::move(file);
  CHECK(moved.text() == "story");
  CHECK(file.size() == 0);
  check_message<FileError>([&] { MappedFile(folder.path()); }, folder.path().string());
  check_message<FileError>([&] { MappedFile(folder / "missing"); }, (folder / "missing").string());
  const auto pipe = folder / "pipe";
  REQUIRE(mkfifo(pipe.c_str(), 0600) == 0);
  check_message<FileError>([&] { MappedFile{pipe}; }, pipe.string(), "regular file");
}

TEST_CASE("A full disk names the file, the reason and the bytes", "[atomic]") {
  if (!std::filesystem::exists("/dev/full")) skip("there is no /dev/full here");
  check_message<FileError>(
      [] {
        FileWriter file("/dev/full");
        file.expect(1'000'000);
        file.write(std::string(100'000, 'x'));
      },
      "/dev/full", "No space left", "needs 1000000 bytes");
  check_message<FileError>(
      [] {
        FileWriter file("/dev/full");
        file.write("short");
        file.finish();
      },
      "/dev/full", "No space left", "needs 5 bytes");
}

TEST_CASE("A file is replaced whole or not at all", "[atomic]") {
  const TemporaryFolder folder;
  const auto path = folder / "file";
  write_file_atomically(path, [](FileWriter& file) { file.write("old"); });
  CHECK(read_bytes(path) == "old");

  SECTION("by a new one") {
    write_file_atomically(path, [&](FileWriter& file) {
      file.write("new");
      CHECK(read_bytes(path) == "old");
    });
    CHECK(read_bytes(path) == "new");
  }
  SECTION("unless the writer throws") {
    CHECK_THROWS_AS(write_file_atomically(path,
                                          [](FileWriter& file) {
                                            file.write("new");
                                            throw std::logic_error("no");
                                          }),
                    std::logic_error);
    CHECK(read_bytes(path) == "old");
  }
  SECTION("unless the disk is full") {
    const auto message = message_of<FileError>([&] {
      const FileSizeLimit limit(1000);
      write_file_atomically(path, [](FileWriter& file) { file.write(std::string(100'000, 'x')); });
    });
    CHECK(message.find(path.string()) != std::string::npos);
    CHECK(message.find("needs 100000 bytes") != std::string::npos);
    CHECK(read_bytes(path) == "old");
  }
  SECTION("through a symbolic link") {
    const auto link = folder / "link";
    std::filesystem::create_symlink("file", link);
    write_file_atomically(link, [](FileWriter& file) { file.write("new"); });
    CHECK(std::filesystem::is_symlink(link));
    CHECK(read_bytes(path) == "new");
    std::filesystem::remove(link);
  }
  SECTION("by two writers, one within the other") {
    write_file_atomically(path, [&](FileWriter& file) {
      write_file_atomically(path, [](FileWriter& inner) { inner.write("inner"); });
      file.write("outer");
    });
    CHECK(read_bytes(path) == "outer");
  }
  CHECK(entries_in(folder.path()) == 1);
}

TEST_CASE("What a log could not write comes before its next piece, or at its end", "[atomic]") {
  const TemporaryFolder folder;
  for (const bool goes_on : {true, false}) {
    const auto path = folder / (goes_on ? "a.log" : "b.log");
    {
      detail::AppendedFile file(path, O_CREAT | O_EXCL);
      file.append("one\n");
      {
        const FileSizeLimit limit(8);
        check_message<FileError>([&] { file.append("two three\n"); }, path.string(), "cannot be written");
        if (goes_on) check_message<FileError>([&] { file.append("four\n"); }, "cannot be written");
        CHECK(read_bytes(path) == "one\ntwo ");
      }
      if (goes_on) file.append("five\n");
    }
    CHECK(read_bytes(path) == (goes_on ? "one\ntwo three\nfour\nfive\n" : "one\ntwo three\n"));
  }
}

TEST_CASE("An error of writing names the file", "[atomic]") {
  const TemporaryFolder folder;
  const auto nothing = [](FileWriter&) {};
  const auto path = folder / "no/such/file";
  check_message<FileError>([&] { write_file_atomically(path, nothing); }, path.string(), "No such file");
  check_message<FileError>([&] { write_file_atomically(folder.path(), nothing); }, folder.path().string(), "regular");
  check_message<FileError>([&] { write_file_atomically("/dev/null", nothing); }, "/dev/null", "regular");
  check_message<FileError>([&] { write_file_atomically("", nothing); }, "expected the path");
}

TEST_CASE("A partial file that a crash leaves is removed later", "[atomic]") {
  const TemporaryFolder folder;
  const auto path = folder / "file";
  write_bytes(path, "old");
  write_bytes(folder / "file.partial-1-1", "of a process whose number means nothing here");
  detail::PartialFile living(path);
  const pid_t child = fork();
  if (child == 0) {
    write_file_atomically(path, [](FileWriter& file) {
      file.write(std::string(100'000, 'x'));
      _exit(0);
    });
  }
  REQUIRE(waitpid(child, nullptr, 0) == child);
  CHECK(read_bytes(path) == "old");
  CHECK(entries_in(folder.path()) == 4);
  write_file_atomically(path, [](FileWriter& file) { file.write("new"); });
  CHECK(read_bytes(path) == "new");
  CHECK(entries_in(folder.path()) == 2);  // the partial file of a living process stays
}

TEST_CASE("What others named like a partial file stays", "[atomic]") {
  const TemporaryFolder folder;
  const char* const names[] = {"f.partial-",    "f.partial-old", "f.partial-1",    "f.partial-1-",   "f.partial--1",
                               "f.partial-1-x", "f.partial-1 2", "xf.partial-1-2", "f.partial-1-2-3"};
  for (const char* name : names) write_bytes(folder / name, "mine");
  std::filesystem::create_directory(folder / "f.partial-1-2");
  std::filesystem::create_symlink("f", folder / "f.partial-3-4");
  write_file_atomically(folder / "f", [](FileWriter& file) { file.write("new"); });
  for (const char* name : names) CHECK(read_bytes(folder / name) == "mine");
  CHECK(entries_in(folder.path()) == std::size(names) + 3);
}

TEST_CASE("Threads may write one file", "[atomic]") {
  const TemporaryFolder folder;
  std::atomic<int> failed = 0;
  std::vector<std::thread> threads;
  for (const char letter : {'a', 'b', 'c', 'd'}) {
    threads.emplace_back([&, letter] {
      try {
        for (int i = 0; i < 25; ++i) {
          write_file_atomically(folder / "file", [&](FileWriter& file) { file.write(std::string(100, letter)); });
        }
      } catch (const Error&) {
        ++failed;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(failed == 0);
  const auto text = read_bytes(folder / "file");
  CHECK(text == std::string(100, text.at(0)));
  CHECK(entries_in(folder.path()) == 1);
}

TEST_CASE("A lock is given back where it was taken", "[atomic]") {
  const TemporaryFolder root;
  const auto before = std::filesystem::current_path();
  std::filesystem::create_directory(root / "other");
  write_bytes(root / "other/.run.csv.lock", "of another program");
  std::filesystem::current_path(root.path());
  {
    const WriteLock lock = lock_file("run.csv");
    CHECK(std::filesystem::exists(root / ".run.csv.lock"));
    std::filesystem::current_path(root / "other");
  }
  std::filesystem::current_path(before);
  CHECK_FALSE(std::filesystem::exists(root / ".run.csv.lock"));
  CHECK(std::filesystem::exists(root / "other/.run.csv.lock"));
}

TEST_CASE("A lock that another user's killed process left is no obstacle", "[atomic]") {
  if (geteuid() != 0) skip("this process may not change its user");
  const TemporaryFolder root;
  std::filesystem::permissions(root.path(), std::filesystem::perms::all);
  write_bytes(root / ".run.csv.lock", "process 1 on host gone");
  const auto other_user = [&] {
    const pid_t child = fork();
    if (child == 0) {
      if (setgid(65534) != 0 || setuid(65534) != 0) _exit(3);
      try {
        const WriteLock lock = lock_file(root / "run.csv");
        _exit(read_bytes(root / ".run.csv.lock").find("host gone") == std::string::npos ? 0 : 4);
      } catch (const FileError& error) {
        _exit(std::string(error.what()).find("another run writes to it") != std::string::npos ? 1 : 2);
      }
    }
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    return WEXITSTATUS(status);
  };
  {
    const WriteLock living = lock_file(root / "run.csv");
    CHECK(other_user() == 1);
  }
  write_bytes(root / ".run.csv.lock", "process 1 on host gone");
  CHECK(other_user() == 0);
  std::filesystem::remove(root / ".run.csv.lock");  // it is the other user's now
  write_bytes(root / ".run.csv.lock", "process 1 on host gone");
  std::filesystem::permissions(root / ".run.csv.lock", std::filesystem::perms::owner_all);
  CHECK(other_user() == 2);
}

}  // namespace tinymoe_test::atomic
