#include "tinymoe/files/atomic.hpp"

#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <stdexcept>
#include <string>

#include "files/bytes.hpp"
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
  write_bytes(folder / "file.partial-1", "of a process whose number means nothing here");
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

}  // namespace tinymoe_test::atomic
