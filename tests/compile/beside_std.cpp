// `using namespace tinymoe` beside `using namespace std`: an ordinary program with ordinary names of its own compiles.
#include <tinymoe/model.hpp>
#include <tinymoe/presets.hpp>

#include <algorithm>
#include <functional>
#include <iostream>
#include <map>
#include <numeric>
#include <random>
#include <string>
#include <tuple>
#include <vector>

using namespace tinymoe;
using namespace std;

int add(int a, int b) { return a + b; }
int sum(const vector<int>& v) { return accumulate(v.begin(), v.end(), 0); }
string pad(string text) { return text + " "; }
struct config {
  int drop = 0;
};

// Names that an ordinary program has for itself, as types and as functions.
template <class T>
struct Two {
  T first{}, second{};
};
struct Passes {};
struct Tally {
  int votes = 0;
};
struct Update {
  Tally tally;
};
struct MicroBatch {};
struct StepBatch {};
struct TokenSlots {};
struct WeightAverage {};
struct NamedRows {};
struct StoredTensorView {};
struct TokenizerParts {};
struct ParameterRun {};
struct TrainingCheckpoint {};
struct SessionCaches {};
struct Merge {
  int left = 0, right = 0;
};
struct Config {
  Merge merge;
  Update update;
};
const vector<string> part_names = {"head", "tail"};
constexpr size_t round_up(size_t size, size_t multiple) { return (size + multiple - 1) / multiple * multiple; }
vector<int> chunks_of(int n) { return vector<int>(static_cast<size_t>(n)); }
string optimizer_name(int) { return "none"; }
string random_words(int n) { return string(static_cast<size_t>(n), 'x'); }
template <class F>
void for_each_segment(F&& f) {
  f(1);
}

using Small = Transformer<Vocab<64>, Context<16>, Width<32>,
                          Layers<2, MoEBlock<RmsNorm, Attention<Heads<4>>, Router<4, 2>, Expert<Hidden<48>>>>>;

int main() {
  vector<int> numbers = {3, 1, 2};
  sort(numbers.begin(), numbers.end());
  const auto next = bind(add, placeholders::_1, 1);
  const auto ones = count(numbers.begin(), numbers.end(), 1);
  map<string, function<int(int)>> table{{"next", next}};
  mt19937 random(1);
  config c;
  Config settings;
  const Two<int> both{settings.merge.left, settings.update.tally.votes};
  for_each_segment(
      [&](int n) { cout << round_up(5, 4) << chunks_of(n).size() << optimizer_name(n) << random_words(n); });
  cout << both.first << part_names.front() << '\n';
  [[maybe_unused]] const tuple<Passes, MicroBatch, StepBatch, TokenSlots, WeightAverage, NamedRows> types;
  [[maybe_unused]] const tuple<StoredTensorView, TokenizerParts, ParameterRun, TrainingCheckpoint, SessionCaches>
      more;
  const auto [low, high] = minmax(1, 2);
  cout << sum(numbers) << pad("x") << ones << c.drop << table.at("next")(1) << max(low, high) << random() << '\n';
  Cpu device;
  Model<Small, Cpu> model(device, Seed{1});
  cout << count<Small>().total << '\n';
}
