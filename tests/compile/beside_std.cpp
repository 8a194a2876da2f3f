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
#include <vector>

using namespace tinymoe;
using namespace std;

int add(int a, int b) { return a + b; }
int sum(const vector<int>& v) { return accumulate(v.begin(), v.end(), 0); }
string pad(string text) { return text + " "; }
struct config {
  int drop = 0;
};

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
  const auto [low, high] = minmax(1, 2);
  cout << sum(numbers) << pad("x") << ones << c.drop << table.at("next")(1) << max(low, high) << random() << '\n';
  Cpu device;
  Model<Small, Cpu> model(device, Seed{1});
  cout << count<Small>().total << '\n';
}
