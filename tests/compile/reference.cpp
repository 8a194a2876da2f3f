// The unit of compile time and memory for price.sh: code of other libraries, which this project does not change.

#include <Eigen/Core>
#include <iostream>
#include <map>
#include <regex>
#include <string>
#include <vector>

int main(int count, char** words) {
  std::map<std::string, std::vector<std::string>> found;
  const std::regex pattern("([a-z]+)-([0-9]+)");
  for (int i = 0; i < count; ++i) {
    std::smatch match;
    const std::string word = words[i];
    if (std::regex_match(word, match, pattern)) found[match[1]].push_back(match[2]);
  }
  const Eigen::MatrixXf a = Eigen::MatrixXf::Random(count, 2 * count), b = Eigen::MatrixXf::Random(2 * count, count);
  const Eigen::MatrixXf c = a * b;
  std::cout << found.size() << (c.transpose() * a).sum() << '\n';
}
