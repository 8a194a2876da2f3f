#include "tinymoe/cpu/team.hpp"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/sanitizers.hpp"

namespace tinymoe_test::team {

using namespace tinymoe;
using detail::cpu::Team;

namespace {

void spend(std::chrono::microseconds time) {
  const auto until = std::chrono::steady_clock::now() + time;
  while (std::chrono::steady_clock::now() < until) {
  }
}

/// Whether a run does each task once and no two at the same time by the same number.
bool all_once(const Team& team, Index tasks, std::chrono::microseconds each = {}) {
  std::vector<std::atomic<int>> visits(static_cast<std::size_t>(tasks));
  std::vector<std::atomic<int>> busy(static_cast<std::size_t>(team.threads()));
  std::atomic<bool> good = true;
  team.run(tasks, [&](Index task, Index thread) {
    if (busy.at(static_cast<std::size_t>(thread)).exchange(1) != 0) good = false;
    ++visits.at(static_cast<std::size_t>(task));
    spend(each);
    busy[static_cast<std::size_t>(thread)] = 0;
  });
  for (const auto& visited : visits) good = good && visited == 1;
  return good;
}

/// The exit status of f() in a child of this process; -1 if it has not ended after 20 seconds.
template <class F>
int in_child(F f) {
  std::fflush(nullptr);
  std::cout.flush();
  const ::pid_t child = ::fork();
  if (child == 0) {
    ::alarm(20);
    ::_exit(f());
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace

TEST_CASE("a team does each task once, with any number of threads", "[team]") {
  for (const int threads : {1, 2, 3, 7}) {
    Team team(threads);
    CHECK(team.threads() == threads);
    for (const Index tasks : {0, 1, 2, 5, 64, 1001}) CHECK(all_once(team, tasks));
    const Team moved = std::move(team);
    CHECK(all_once(moved, 20));
  }
}

TEST_CASE("threads of a team that sleep are woken, and so is a caller that sleeps", "[team]") {
  const Team team(3);
  for (int i = 0; i < 20; ++i) {
    std::this_thread::sleep_for(std::chrono::microseconds(300));
    CHECK(all_once(team, 3, std::chrono::microseconds(100 * (i % 5))));
  }
}

TEST_CASE("a thread that is late takes no task of a run that is over", "[team]") {
  const Team team(4);
  std::array<int, 9> stamps{};
  int wrong = 0;
  for (int run = 1; run <= 20'000; ++run) {
    const int tasks = 2 + run % 8;
    team.run(tasks, [&, run](Index task, Index) { stamps[static_cast<std::size_t>(task)] = run; });
    for (int task = 0; task < tasks; ++task) wrong += stamps[static_cast<std::size_t>(task)] != run;
  }
  CHECK(wrong == 0);
}

TEST_CASE("the others do the work of a thread that is held up", "[team]") {
  const Team team(2);
  // Shares of the same size would never end: the first task waits for all the others.
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  std::atomic<int> done = 0;
  team.run(64, [&](Index task, Index) {
    while (task == 0 && done < 63 && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
    if (task > 0) ++done;
  });
  CHECK(std::chrono::steady_clock::now() < deadline);
}

TEST_CASE("a run from within a task is done by the task's thread, of the same team and of another", "[team]") {
  const Team team(3), other(2);
  std::atomic<int> inner = 0, others = 0, strangers = 0;
  team.run(8, [&](Index, Index thread) {
    team.run(5, [&](Index, Index nested) {
      ++inner;
      if (nested != thread) ++strangers;
    });
    other.run(5, [&](Index, Index) { ++others; });
  });
  CHECK(inner == 40);
  CHECK(others == 40);
  CHECK(strangers == 0);
  CHECK(all_once(team, 9));
}

TEST_CASE("teams may be nested in each other", "[team]") {
  CHECK(in_child([] {
          const Team a(3), b(2), c(2);
          std::atomic<int> done = 0, strangers = 0, meetings = 0, inside = 0;
          a.run(6, [&](Index, Index thread) {
            b.run(4, [&](Index, Index) {
              if (++inside > 1) ++meetings;  // callers of b take turns
              c.run(2, [&](Index, Index) {
                a.run(3, [&](Index, Index nested) {
                  ++done;
                  if (nested != thread) ++strangers;
                });
                b.run(1, [&](Index, Index) { ++done; });
              });
              --inside;
            });
          });
          if (done != 6 * 4 * 2 * 4 || strangers != 0 || meetings != 0) return 1;
          return all_once(a, 9) && all_once(b, 9) ? 0 : 2;
        }) == 0);
}

TEST_CASE("callers with one task wait for each other, too", "[team]") {
  const Team team(2);
  std::atomic<int> inside = 0, meetings = 0;
  const auto call = [&] {
    for (int i = 0; i < 200; ++i) {
      team.run(1, [&](Index, Index) {
        if (++inside > 1) ++meetings;
        spend(std::chrono::microseconds(5));
        --inside;
      });
    }
  };
  std::thread first(call), second(call);
  first.join();
  second.join();
  CHECK(meetings == 0);
}

TEST_CASE("callers on several threads wait for each other", "[team]") {
  const Team team(2);
  std::atomic<int> inside = 0, most = 0, tasks = 0;
  const auto call = [&] {
    for (int i = 0; i < 200; ++i) {
      team.run(4, [&](Index, Index) {
        const int now = ++inside;
        if (now > most) most = now;
        ++tasks;
        --inside;
      });
    }
  };
  std::thread first(call), second(call);
  first.join();
  second.join();
  CHECK(tasks == 1600);
  CHECK(most <= 2);
}

#if !TINYMOE_TEST_THREAD_SANITIZER  // it allows the child no threads
TEST_CASE("the child of a fork does a team's work alone, and ends", "[team]") {
  auto team = std::make_unique<Team>(3);
  REQUIRE(all_once(*team, 10));
  CHECK(in_child([&] {
          const bool good = all_once(*team, 10);
          team.reset();
          return good && all_once(Team(2), 10) ? 0 : 1;
        }) == 0);
  CHECK(all_once(*team, 10));
}
#endif

TEST_CASE("a process ends while a team's threads sleep", "[team]") {
  for (const bool regular : {true, false}) {
    CHECK(in_child([&]() -> int {
            static const Team team(3);
            if (!all_once(team, 10)) return 1;
            std::this_thread::sleep_for(std::chrono::milliseconds(2));
            if (regular) std::exit(0);
            return 0;
          }) == 0);
  }
}

#if !TINYMOE_TEST_SANITIZED
TEST_CASE("a team whose threads cannot all be started does its work", "[team]") {
  CHECK(in_child([] {
          const Team team(64);
          const ::rlimit none{0, 0};
          if (::setrlimit(RLIMIT_AS, &none) != 0) return 2;
          std::atomic<int> done = 0;
          team.run(100, [&](Index, Index) { ++done; });  // by more than the caller if the C library kept a stack
          return done == 100 ? 0 : 1;
        }) == 0);
}
#endif

}  // namespace tinymoe_test::team
