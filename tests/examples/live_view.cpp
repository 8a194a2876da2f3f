// What a training run shows on a terminal.

#include "live_view.hpp"

#include <cstdlib>
#include <string>
#include <vector>

#include "support/catch.hpp"

using namespace examples;
using std::string;

TEST_CASE("a sparkline shows a curve of any length from its first value to its last") {
  Sparkline line;
  CHECK(line.draw(10).empty());
  line.add(3);
  CHECK(line.draw(10) == "▁");
  for (int i = 1; i < 100000; ++i) line.add(i < 50000 ? 3 : 1);
  line.add(std::nan(""));
  const string drawn = line.draw(8);
  CHECK(drawn == "████▁▁▁▁");
}

TEST_CASE("bars of loads have half their height where loads are even") {
  CHECK(load_bars({10, 10, 10, 10}, 9) == "▅▅▅▅");
  CHECK(load_bars({0, 40, 0, 0}, 9) == "·█··");
  CHECK(load_bars({0, 0}, 9) == "··");
  CHECK(load_bars({1, 1, 1}, 2) == "▅▅");
}

TEST_CASE("a line has the parts that a terminal has room for") {
  const std::vector<string> parts = {"step 3  loss 1.234", "  0:50 left", "  900 tokens/s"};
  CHECK(fitting(parts, string::npos) == "step 3  loss 1.234  0:50 left  900 tokens/s");
  CHECK(fitting(parts, 39) == "step 3  loss 1.234  0:50 left");
  CHECK(fitting(parts, 18) == "step 3  loss 1.234");
  CHECK(fitting(parts, 6) == "step 3");
}

TEST_CASE("live lines are drawn over the last ones and clipped to the terminal") {
  LiveLines live;
  CHECK(live.erase().empty());
  CHECK(live.draw({"abc", "▁▂▃"}, 2) == "ab\n▁▂\n");
  CHECK(live.draw({"x"}, 2) == "\033[2A\r\033[Jx\n");
  CHECK(live.erase() == "\033[1A\r\033[J");
  CHECK(live.erase().empty());
}
