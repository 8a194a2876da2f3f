#include <tinymoe/analysis/run_report.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <string_view>
#include <tinymoe/analysis/sweep_files.hpp>
#include <tinymoe/analysis/sweep_results.hpp>
#include <tinymoe/files/json_parser.hpp>
#include <tinymoe/train/json_lines.hpp>
#include <tinymoe/train/metrics.hpp>
#include <vector>

#include "files/bytes.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

namespace tinymoe_test::run_report_tests {

namespace {

using namespace tinymoe;
using std::string;

string escaped(std::string_view text) { return tinymoe::detail::Markup{text}.html(); }

void write(const std::filesystem::path& path, std::string_view text) { std::ofstream(path, std::ios::binary) << text; }

bool has(const string& text, std::string_view part) { return text.find(part) != string::npos; }

StepReport step_at(Index step) {
  return {.step = step,
          .tokens = 64 * step,
          .loss = 5.0 / static_cast<double>(step + 1) + 1,
          .load_variation = 0.25,
          .gradient_norm = 1,
          .learning_rate = 1e-3,
          .seconds = 0.5 * static_cast<double>(step),
          .tokens_per_second = 128,
          .state_bytes = 4000,
          .activation_bytes = 8000};
}

/// A run of some steps that logs into both files, with an evaluation and a story at the end.
void log_run(const std::filesystem::path& csv, const std::filesystem::path& jsonl, Index steps) {
  MetricsFile metrics(csv, 0);
  JsonLines lines(jsonl, 0);
  for (Index step = 1; step <= steps; ++step) {
    metrics.on_step(step_at(step), {{30, 34}});
    lines.on_step(step_at(step), {{30, 34}});
  }
  const EvaluationReport evaluation{.loss = 2, .bits_per_byte = 1.5, .tokens = 100, .loads = {{60, 40}}};
  metrics.on_evaluation(step_at(steps), evaluation);
  lines.on_evaluation(step_at(steps), evaluation);
  lines.story(steps, "Once upon\xff a time");
}

TEST_CASE("a page shows hostile text as text") {
  CHECK(escaped("<b a=\"1\" b='2'>&amp;") == "&lt;b a=&quot;1&quot; b=&#39;2&#39;&gt;&amp;amp;");
  CHECK(escaped("</script><!--") == "&lt;/script&gt;&lt;!--");
  CHECK(escaped("a\xff\xc3z\xe2\x82") == "a\ufffd\ufffdz\ufffd\ufffd");
  CHECK(escaped("\xed\xa0\x80") == "\ufffd\ufffd\ufffd");  // a surrogate
  CHECK(escaped(string("\0\x1b\r\x7f\n\t", 6)) == "\u2400\u241b\u240d\u2421\n\t");
  CHECK(escaped("\u202e\u2067\u200f\u061c") ==
        "\u27e8U+202E\u27e9\u27e8U+2067\u27e9\u27e8U+200F\u27e9\u27e8U+061C\u27e9");
  CHECK(escaped("\u0085\ufdd0\uffff\U0001fffe") == "\ufffd\ufffd\ufffd\ufffd");
  CHECK(escaped("\u05e9\u05dc\u05d5\u05dd \u00e9\U0001f600") == "\u05e9\u05dc\u05d5\u05dd \u00e9\U0001f600");

  const string bad = "<script>\"'</script>\u202e\xff";
  RunReport run{.name = bad};
  run.history.steps = {{1, 64, 1, 3}, {2, 128, 2, 2}};
  run.history.stories = {{2, bad}};
  run.history.notes = {bad};
  run.recipe = Json::object();
  run.recipe["<script>"] = "<script>";
  MixtureFindings mixture{.experts = 1, .choices = 1, .tokens = 1, .pairs = 1};
  mixture.kinds[0] = 1;
  mixture.expert = {{.pairs = 1, .share = 1, .typical = {{.piece = bad, .contexts = {{bad, bad, bad}}}}}};
  mixture.expert[0].kinds[0] = 1;
  run.profile = {.tokens = 1, .stories = 1, .mixtures = {mixture}};
  run.profile.stories_traced = {{.ids = {1}, .pieces = {bad}, .kinds = {TokenKind::name}}};
  run.profile.stories_traced[0].experts = {{.experts = 1, .choices = 1, .selected = {ChosenExpert(0)}, .gate = {1}}};
  for (const string& page :
       {report_html(run), report_html(bad, {run, run}, {{.variant = bad, .loss = 1, .seconds = 1}})}) {
    std::size_t scripts = 0;
    for (std::size_t at = page.find("<script"); at != string::npos; at = page.find("<script", at + 1)) ++scripts;
    CHECK(scripts == 1);  // the page's own
    CHECK_FALSE(has(page, "\u202e"));
    CHECK(find_invalid_utf8(page) == string::npos);
    CHECK(has(page, "&lt;script&gt;&quot;&#39;&lt;/script&gt;\u27e8U+202E\u27e9\ufffd"));
    const std::size_t space = page.find("http");  // the name of SVG's name space; nothing of other places
    CHECK(page.substr(space, 26) == "http://www.w3.org/2000/svg");
    CHECK(page.find("http", space + 1) == string::npos);
  }
}

TEST_CASE("pieces of a character that tokens cut stand in the token that ends it") {
  tinymoe::detail::VisiblePieces visible;
  CHECK(visible.next("a\xe2\x82") == "a");
  CHECK(visible.next("\xac") == "\u20ac");
  CHECK(visible.next("\xe2") == "\u25cc");
  CHECK(visible.next("\x82\xac\n") == "\u20ac\u23ce\n");
}

TEST_CASE("a run's logs are read back") {
  const TemporaryFolder folder;
  const auto csv = folder / "run.csv", jsonl = folder / "run.jsonl";
  log_run(csv, jsonl, 5);
  const TrainingState state{.step = 5, .tokens = 320, .seconds = 2.5};
  const RunHistory run = read_run_history(csv, jsonl, &state);
  REQUIRE(run.steps.size() == 5);
  CHECK(run.steps[4].tokens == 320);
  CHECK(run.steps[4].loss == Approx(5.0 / 6 + 1).epsilon(1e-5));
  CHECK(run.steps[4].load_variation == 0.25);
  REQUIRE(run.evaluations.size() == 1);
  CHECK(run.evaluations[0].bits_per_byte == 1.5);
  CHECK(run.validation_loads == ExpertLoads{{60, 40}});
  REQUIRE(run.memory.size() == 2);  // it stays the same, so that the first and the last step are enough
  CHECK(run.memory[1].step == 5);
  CHECK(run.memory[1].tokens == 320);
  CHECK(run.memory[1].state == 4000);
  CHECK(run.memory[1].activations == 8000);
  REQUIRE(run.loads.parts().size() == 5);
  CHECK(run.loads.parts()[2].loads == ExpertLoads{{30, 34}});
  REQUIRE(run.stories.size() == 1);
  CHECK(run.stories[0].text == "Once upon\ufffd a time");
  CHECK(run.notes.empty());

  SECTION("of another run") {
    const TrainingState other{.step = 4, .tokens = 1000, .seconds = 2};
    check_message<MismatchError>([&] { read_run_history(csv, {}, &other); },
                                 "run.csv: is the log of another run, with 256 tokens");
    write(csv, string(MetricsFile::header) + "\n");
    check_message<MismatchError>([&] { read_run_history(csv, jsonl, &other); }, "run.jsonl: is the log of another run");
  }
  SECTION("cut at any byte") {
    std::ifstream file(csv, std::ios::binary);
    const string whole((std::istreambuf_iterator<char>(file)), {});
    for (std::size_t size = string(MetricsFile::header).size() + 1; size < whole.size(); ++size) {
      write(csv, whole.substr(0, size));
      const RunHistory cut = read_run_history(csv);
      for (std::size_t i = 0; i < cut.steps.size(); ++i) REQUIRE(cut.steps[i].loss == run.steps[i].loss);
      REQUIRE(cut.evaluations.empty());
      const string last = whole.substr(0, size).substr(whole.rfind('\n', size - 1) + 1);
      const bool row = std::count(last.begin(), last.end(), ',') == 11 && last.ends_with(",,");
      REQUIRE(cut.notes.empty() == (last.empty() || row));
    }
  }
  SECTION("lines that are JSON and no events") {
    write(jsonl,
          "5\n[]\n\"a\"\n{}\n{\"event\":7}\n{\"step\":1}\n{\"a\":1,\"b\":2}\n{\"event\":\"story\",\"step\":1}\n");
    const RunHistory none = read_run_history(csv, jsonl);
    CHECK(none.stories.empty());
    CHECK(none.notes == std::vector<string>{"run.jsonl: 7 lines are cut or no event, and left out"});
  }
  SECTION("what are no logs") {
    check_message<FileError>([&] { read_run_history(folder / "none.csv"); }, "none.csv: cannot be opened");
    check_message<FileError>([&] { read_run_history(jsonl); }, "expected metrics that begin with");
    check_message<FileError>([&] { read_run_history(csv, csv); }, "run.csv: has no event of a run");
    check_message<FileError>([&] { read_run_history(csv, folder / "none.jsonl"); }, "none.jsonl: cannot be opened");
    check_message<FileError>([&] { read_run_history(csv, folder.path()); }, "cannot be read to its end");
    write(csv, string(MetricsFile::header) + "\n1,2,x,4,5,6,7,8,9,10,,\n-1,2,3,4,5,6,7,8,9,10,,\n1,2\n");
    const RunHistory none = read_run_history(csv);
    CHECK(none.steps.empty());
    CHECK(none.notes == std::vector<string>{"run.csv: 3 lines are cut or no row, and left out"});
    CHECK(has(report_html({.name = "none", .history = none}), "The run has no steps yet."));
  }
}

TEST_CASE("loads of a long run are kept in few parts, which together have every token") {
  LoadHistory history;
  constexpr Index steps = 12345;
  for (Index step = 1; step <= steps; ++step) history.add(step, {{step % 3, 2}, {1, 0}});
  history.add(steps + 1, {{1, 2, 3}});  // of another model
  CHECK(history.parts().size() <= LoadHistory::most_parts);
  CHECK(history.parts().size() > LoadHistory::most_parts / 2 - 1);
  Index sums[2] = {}, next = 1;
  for (const auto& part : history.parts()) {
    CHECK(part.first_step == next);
    next = part.last_step + 1;
    sums[0] += part.loads[0][1], sums[1] += part.loads[1][0];
  }
  CHECK(next == steps + 1);
  CHECK(sums[0] == 2 * steps);
  CHECK(sums[1] == steps);
}

TEST_CASE("a thinned curve keeps its ends and peaks") {
  std::vector<tinymoe::detail::PlotPoint> points;
  for (int i = 0; i < 100000; ++i)
    points.push_back({static_cast<double>(i), i == 31234 ? 50.0 : i == 777 ? -50.0 : std::sin(i)});
  points[5].y = std::numeric_limits<double>::quiet_NaN();
  const auto kept = tinymoe::detail::thinned(points, 300);
  CHECK(kept.size() <= 4 * 301);
  CHECK(kept.front().x == 0);
  CHECK(kept.back().x == 99999);
  bool high = false, low = false;
  for (std::size_t i = 0; i < kept.size(); ++i) {
    high = high || kept[i].y == 50, low = low || kept[i].y == -50;
    if (i > 0) REQUIRE(kept[i].x > kept[i - 1].x);
    REQUIRE(std::isfinite(kept[i].y));
  }
  CHECK(high);
  CHECK(low);
  CHECK(tinymoe::detail::thinned({{1, 2}}, 300).size() == 1);
  CHECK(tinymoe::detail::thinned({}, 300).empty());
}

TEST_CASE("a plot of several named curves has a legend, and one of a single curve has none") {
  using tinymoe::detail::Curve, tinymoe::detail::LinePlot, tinymoe::detail::draw;
  const auto html = [](std::vector<std::string> names) {
    LinePlot plot{.title = "losses", .x = "steps", .y = "loss"};
    for (const std::string& name : names) plot.curves.push_back({.name = name, .points = {{0, 1}, {1, 2}}});
    return draw(plot).html();
  };
  const std::string legend = "class=\"legend\"";
  CHECK(html({"one", "other"}).find(legend) != std::string::npos);
  CHECK(html({"one", "other"}).find("other") != std::string::npos);
  CHECK(html({"one"}).find(legend) == std::string::npos);
  CHECK(html({"one", ""}).find(legend) == std::string::npos);
}

TEST_CASE("axes have round marks within their range") {
  using tinymoe::detail::axis_of, tinymoe::detail::tick_text;
  const auto axis = axis_of(0.13, 0.97, 5);
  CHECK(axis.ticks.size() == 4);
  CHECK(tick_text(axis.ticks[0], axis, false) == "0.2");
  CHECK(tinymoe::detail::short_number(5e21) == tinymoe::detail::general_text(5000, 3) + "E");  // the largest unit
  const auto clock = axis_of(0, 200, 5, true);
  CHECK(tick_text(clock.ticks[1], clock, true) == "1:00");
  for (const double range : {0.0, 1e-300, 1e-9, 1.0, 1e9, 1e300}) {
    for (const double low : {-range, 0.0, range}) {
      const auto one = axis_of(low, low + range, 5);
      CHECK(one.high > one.low);
      CHECK(one.ticks.size() < 25);
    }
  }
}

TEST_CASE("the frontier has the models that no other beats in both") {
  const auto best = tinymoe::detail::frontier({{3, 1}, {1, 3}, {2, 4}, {2, 2}, {3, 2}});
  REQUIRE(best.size() == 3);
  CHECK(best[1].x == 2);
  CHECK(best[1].y == 2);
}

TEST_CASE("memory is a curve of the steps where it changes") {
  RunReport run{.name = "memory", .history = {.steps = {{1, 64, 1, 3}, {9, 576, 9, 2}}}};
  CHECK_FALSE(has(report_html(run), "Memory beside the weights"));
  auto& memory = run.history.memory;
  for (Index step = 1; step <= 9; ++step) {
    const std::size_t activations = step < 6 ? 8000 : 4000;
    tinymoe::detail::add_memory(memory, {step, 64 * step, static_cast<double>(step), 2000, activations});
  }
  REQUIRE(memory.size() == 4);
  CHECK(memory[1].step == 5);
  CHECK(memory[2].step == 6);
  CHECK(memory[3].step == 9);
  const string page = report_html(run), both = report_html("both", {run, {.name = "dense", .history = run.history}});
  CHECK(has(page, "Memory beside the weights"));
  CHECK(has(page, "data-name=\"activations\""));
  CHECK(has(both, "Memory beside the weights"));
  CHECK_FALSE(has(both, "data-name=\"activations\""));
}

TEST_CASE("memory is that of steps that were taken, with their tokens and time") {
  const TemporaryFolder folder;
  const auto csv = folder / "run.csv", jsonl = folder / "run.jsonl";
  write(csv, string(MetricsFile::header) + "\n");
  const auto memory_of = [&](const string& more) {
    write(jsonl, "{\"event\":\"step\",\"step\":1" + more + "}\n");
    return read_run_history(csv, jsonl).memory.size();
  };
  CHECK(memory_of(",\"tokens\":64,\"seconds\":1,\"state_bytes\":4000") == 1);
  CHECK(memory_of(",\"tokens\":64,\"seconds\":1") == 0);
  CHECK(memory_of(",\"tokens\":64,\"seconds\":-1,\"state_bytes\":4000") == 0);
  CHECK(memory_of(",\"seconds\":1,\"state_bytes\":4000") == 0);
  CHECK(memory_of(",\"tokens\":64,\"seconds\":1,\"state_bytes\":4000,\"skipped\":true") == 0);
}

TEST_CASE("a drawing of a model has a box for blocks that are alike, and its experts as squares") {
  const auto layer = [](Index experts) {
    tinymoe::detail::LayerShape one;
    one.heads = one.kv_heads = 4, one.head_dim = 8, one.hidden = 48, one.experts = experts, one.choices = 2;
    return one;
  };
  tinymoe::detail::ModelShape shape;
  shape.vocab = 260, shape.width = 32, shape.context = 16;
  shape.layers = {layer(0), layer(20), layer(20), layer(20)};
  shape.layers[0].choices = 0;
  const string svg = tinymoe::detail::ArchitectureDrawing().draw(shape).html();
  const auto count_of = [&](const string& part) {
    std::size_t found = 0;
    for (auto at = svg.find(part); at != string::npos; at = svg.find(part, at + 1)) ++found;
    return found;
  };
  CHECK(count_of("class=\"frame\"") == 2);
  CHECK(count_of(">× 1<") == 1);
  CHECK(count_of(">× 3<") == 1);
  CHECK(count_of("class=\"square") == 16);
  CHECK(count_of("class=\"square taken\"") == 2);
  CHECK(has(svg, ">+4<"));
  // A text lies within its box, and a square within the row of them.
  double top = 0;
  std::size_t boxes = 0;
  for (auto at = svg.find("<g class=\"box"); at != string::npos; at = svg.find("<g class=\"box", at + 1), ++boxes) {
    const string box = svg.substr(at, svg.find("</g>", at) - at);
    std::vector<double> heights;
    for (auto y = box.find(" y=\""); y != string::npos; y = box.find(" y=\"", y + 1)) {
      heights.push_back(std::stod(box.substr(y + 4)));
    }
    REQUIRE(heights.size() == 3);
    CHECK(heights[0] >= top);
    CHECK(heights[1] == Approx(heights[0] + 18.5));
    CHECK(heights[2] == heights[1]);
    top = heights[0] + 28;
  }
  CHECK(boxes == 14);
  double x = 220 - 8 * 19 + 2;
  for (auto at = svg.find("class=\"square"); at != string::npos; at = svg.find("class=\"square", at + 1), x += 19) {
    CHECK(std::stod(svg.substr(svg.find(" x=\"", at) + 4)) == x);
  }
  shape.layers.clear();
  for (Index kind = 0; kind < 9; ++kind) shape.layers.push_back(layer(kind + 2));
  CHECK(has(tinymoe::detail::ArchitectureDrawing().draw(shape).html(), "3 more blocks"));
}

TEST_CASE("parts that a run lacks are left out") {
  RunReport run{.name = "dense", .history = {.steps = {{1, 64, 1, 3}, {2, 128, 2, 2}}}, .counted = Count{.total = 10}};
  const string page = report_html(run);
  CHECK(has(page, "The model has no experts, so there are no parts about them."));
  for (const char* part : {"loads", "experts", "coloured", "worth", "stories", "recipe"}) {
    CHECK_FALSE(has(page, string("id=\"") + part));
  }
  CHECK(has(page, "id=\"training\""));
  CHECK_FALSE(has(report_html({.name = "nothing"}), "id=\""));
}

TEST_CASE("a sweep's results are read back") {
  const TemporaryFolder folder;
  const auto csv = folder / "sweep.csv";
  const SweepBudget budget{
      .batch = 4, .warmup = 60, .minutes = 0.1, .precision = "float32", .data = ~std::uint64_t{0}, .recipe = 17};
  const auto run = [&](const char* variant, double rate, std::uint64_t seed, double bits) {
    return SweepRun{.variant = variant,
                    .parameters = 400,
                    .active = 120,
                    .flops_forward = 240,
                    .tokens_per_second = 40,
                    .steps = 10,
                    .tokens = 1000,
                    .loss = 3.25,
                    .bits_per_byte = bits,
                    .load_variation = 0.1,
                    .learning_rate = rate,
                    .seed = seed,
                    .seconds = 25,
                    .budget = budget};
  };
  const std::vector<SweepRun> runs = {run("dense", 0.1, 1, 1.25), run("experts_8", 0.1, 1, 1.125),
                                      run("experts_8", 1e-3, ~std::uint64_t{0}, 2.5), run("experts_8", 0.1, 2, 1.375)};
  string text = sweep_header();
  for (const SweepRun& one : runs) text += sweep_row(one);
  write(csv, text + "cut,1");
  const auto read = read_sweep(csv);
  REQUIRE(read.size() == runs.size());
  for (std::size_t i = 0; i < runs.size(); ++i) CHECK(sweep_row(read[i]) == sweep_row(runs[i]));
  CHECK(read[2].learning_rate == 1e-3);
  CHECK(read[2].budget.minutes == 0.1);

  const auto results = sweep_results(read);
  REQUIRE(results.size() == 3);
  CHECK(results[1].runs == 2);
  CHECK(results[1].learning_rates == 2);
  CHECK(results[1].mean.bits_per_byte == 1.25);
  CHECK(results[1].error == Approx(0.125));  // of two that are 0.25 apart: 0.25 / √2 / √2
  CHECK(results[0].error == 0);
  const auto best = best_of_variants(results);
  REQUIRE(best.size() == 2);
  CHECK(best[1].mean.learning_rate == 0.1);

  const string page = report_html("sweep", {}, read);
  CHECK(has(page, escaped("1.2500 ± 0.1250")));
  CHECK(has(page, "id=\"learning-rates\""));
  for (const char* rate : {">0.001<", ">0.005<", ">0.01<", ">0.1<"}) CHECK(has(page, rate));
  CHECK(!has(report_html("sweep", {}, {runs[0], runs[1]}), "id=\"learning-rates\""));
  // Eight models have a colour each; those behind them are rings, and the markup is whole.
  std::vector<SweepRun> many;
  for (int i = 0; i < 10; ++i) many.push_back(run(("variant_" + std::to_string(i)).c_str(), 0.1, 1, 1 + 0.1 * i));
  const string rings = report_html("sweep", {}, many);
  std::size_t whole = 0, of_rings = 0;
  for (std::size_t at = rings.find("<circle"); at != string::npos; at = rings.find("<circle", at + 1)) {
    const string circle = rings.substr(at, rings.find('>', at) + 1 - at);
    whole += circle.ends_with("\"/>"), of_rings += has(circle, "\" class=\"ring\"/>");
  }
  CHECK(whole == 20);  // in two plots
  CHECK(of_rings == 4);
  CHECK(has(report_html("sweep", {}, {many[0]}), "variant_0"));
  // Pairs have a colour each, of which the second is a ring. One without its twin, and all have their own.
  const std::vector<SweepRun> pairs = {run("mix_1m", 0.1, 1, 1), run("dense_1m", 0.1, 1, 1.1),
                                       run("mix_4m", 0.1, 1, 1.2), run("dense_4m", 0.1, 1, 1.3)};
  const string paired = report_html("sweep", {}, pairs);
  for (const char* of :
       {"c0\" data-name=\"mix_1m", "c0 dashed\" data-name=\"dense_1m", "c1 dashed\" data-name=\"dense_4m"})
    CHECK(has(paired, of));
  CHECK(has(report_html("sweep", {}, {pairs[0], pairs[1], pairs[2]}), "c1\" data-name=\"dense_1m"));
  CHECK(has(report_html("sweep", {}, {run("dense", 0.1, 1, 1), run("mix", 0.1, 1, 1.1)}), "c1\" data-name=\"mix"));
  const Json json = parse_json(sweep_json(read), "sweep.json");
  CHECK(json["runs"].size() == 4);
  CHECK(json["runs"].items()[2]["seed"].dump() == "18446744073709551615");
  CHECK(json["means"].items()[1]["standard_error"].number() == Approx(0.125));

  // Results of before there were learning rates and seeds.
  const string old =
      "variant,parameters,active,flops_per_token,tokens_per_second,steps,tokens,validation_loss,"
      "validation_bits_per_byte,load_variation\n";
  write(csv, old +
                 "dense,100,100,200,50.0,10,1000,3.5,1.25,0.0000\nexperts_8,400,120,240,40.0,10,1000,3.25,1.125,0.1\n" +
                 "odd,400,120,240,40.0,10,1000,much,1.125,0.1\n" +
                 "more_than_a_mean_holds,400,120,240,40.0,9223372036854775807,1000,3.25,1.125,0.1\n");
  const auto before = read_sweep(csv);
  REQUIRE(before.size() == 2);
  CHECK(before[1].variant == "experts_8");
  CHECK(before[1].flops_forward == 240);
  CHECK(before[1].seconds == 25);
  CHECK(before[1].bits_per_byte == 1.125);
  CHECK(has(report_html("sweep", {}, before), "experts_8"));
  write(csv, old);
  CHECK(read_sweep(csv).empty());
  for (const char* other : {"a,b\n", "", "variant,parameters\n"}) {
    write(csv, other);
    check_message<FileError>([&] { read_sweep(csv); }, "as sweep writes them");
  }
  check_message<FileError>([&] { read_sweep(folder / "none.csv"); }, "none.csv: cannot be opened");
  // Of results that are equal the first.
  const auto first = best_of_variants(sweep_results({run("dense", 0.1, 1, 1.25), run("dense", 0.2, 1, 1.25)}));
  REQUIRE(first.size() == 1);
  CHECK(first[0].mean.learning_rate == 0.1);
}

TEST_CASE("a sweep's learning curves are read back and drawn") {
  const TemporaryFolder folder;
  const auto csv = folder / "sweep.csv", curves = sweep_curves_file(csv);
  CHECK(curves == folder / "sweep-curves.csv");
  const auto run = [](const char* variant, double rate, double bits) {
    SweepRun one{.variant = variant,
                 .flops_forward = 100,
                 .bits_per_byte = bits,
                 .learning_rate = rate,
                 .seed = ~std::uint64_t{}};
    one.curve = {{.step = 5, .tokens = 500, .seconds = 10, .loss = 4, .bits_per_byte = bits + 1},
                 {.step = 10, .tokens = 1000, .seconds = 100, .loss = 3, .bits_per_byte = bits}};
    return one;
  };
  const std::vector<SweepRun> runs = {run("dense", 0.1, 1.25), run("dense", 1e-3, 1.5), run("mix", 0.1, 1.125)};
  string text = sweep_header();
  for (const SweepRun& one : runs) text += sweep_row(one);
  write(csv, text);
  auto read = read_sweep(csv);
  read_sweep_curves(csv, read);  // there is no such file yet
  CHECK(read[0].curve.empty());
  CHECK(!has(report_html("sweep", {}, read), "id=\"curves\""));
  const string rows = sweep_curves(runs);
  write(curves, rows + "mix,0.1,18446744073709551615,much,1,1,1,1\nunknown,0.1,1,1,1,1,1,1\nmix,0.1,184467440737");
  read_sweep_curves(csv, read);
  read_sweep_curves(csv, read);  // once more: nothing is there twice
  CHECK(sweep_curves(read) == rows);
  CHECK(read[2].curve[1].tokens == 1000);

  // Of each variant the best rate alone, in two plots.
  const string page = report_html("sweep", {}, read);
  const auto begin = page.find("id=\"curves\"");
  REQUIRE(begin != string::npos);
  const string section = page.substr(begin, page.find("<h2", begin) - begin);
  std::size_t drawn = 0;
  for (std::size_t at = section.find("<g class=\"curve"); at != string::npos;
       at = section.find("<g class=\"curve", at + 1)) {
    ++drawn;
  }
  CHECK(drawn == 4);
  CHECK(has(section, "Over the operations of training"));
  for (const char* mark : {">20<", ">50<", "class=\"end\" x=\"438\" y=\"243\">100<", ">200k<"})
    CHECK(has(section, mark));
  CHECK(has(section, "Over the time of training"));
  CHECK(has(section, "dense"));
  CHECK(has(section, "mix"));
  auto later = read;  // the first seed was trained before there were curves
  later[2].curve.clear();
  later.push_back(read[2]), later.back().seed = 3;
  CHECK(has(report_html("sweep", {}, later), "id=\"curves\""));
  const Json json = parse_json(sweep_json(read), "sweep.json");
  CHECK(json["runs"].items()[1]["validations"].items()[0]["bits_per_byte"].number() == 2.5);
  CHECK(!json["means"].items()[0].contains("validations"));
  for (SweepRun& one : read) one.curve.resize(1);
  CHECK(!has(report_html("sweep", {}, read), "id=\"curves\""));  // one point is no curve
  write(curves, "a,b\n");
  check_message<FileError>([&] { read_sweep_curves(csv, read); }, "as sweep writes them");
  // What the disk hides is not missing: a sweep that is resumed would lose its curves.
  check_message<FileError>([&] { read_sweep_curves(folder / string(300, 'x'), read); }, "cannot be looked at");
}

TEST_CASE("a report of 100,000 steps stays small") {
  RunReport run{.name = "long"};
  for (Index step = 1; step <= 100000; ++step) {
    const double x = static_cast<double>(step), noise = std::sin(x * 12.9898) * 0.3;
    run.history.steps.push_back({step, step * 1000, x, 3 + noise, 1e-3, 1 + noise, 9000, 1, 0, 0.1 + noise / 10});
    if (step % 100 == 0) run.history.evaluations.push_back({step, step * 1000, x, 3 + noise / 9, 1.2, 0.1});
    ExpertLoads loads(8, std::vector<Index>(64));
    for (auto& mixture : loads) {
      for (std::size_t e = 0; e < 64; ++e) mixture[e] = static_cast<Index>(e * 7 + static_cast<std::size_t>(step)) % 13;
    }
    if (step % 50 == 0) run.history.loads.add(step, loads);
  }
  CHECK(report_html(run).size() < 5000000);
}

}  // namespace

}  // namespace tinymoe_test::run_report_tests
