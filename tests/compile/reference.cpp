// The unit of compile time and memory for price.sh: code of the standard library, which this project does not change.

#include <algorithm>
#include <filesystem>
#include <functional>
#include <iostream>
#include <map>
#include <regex>
#include <string>
#include <vector>

// Texts of characters C that match a pattern, by their first part, from the longest list to the shortest.
template <class C>
std::size_t matches(const std::vector<std::basic_string<C>>& texts, const C* pattern) {
  using Text = std::basic_string<C>;
  std::map<Text, std::vector<Text>> found;
  const std::basic_regex<C> compiled(pattern);
  for (const Text& text : texts) {
    std::match_results<typename Text::const_iterator> match;
    if (!std::regex_match(text, match, compiled)) continue;
    found[match[1]].push_back(match[2]);
  }
  std::vector<std::pair<Text, std::vector<Text>>> lists(found.begin(), found.end());
  std::stable_sort(lists.begin(), lists.end(), [](auto& a, auto& b) { return a.second.size() > b.second.size(); });
  return lists.size();
}

int main(int count, char** words) {
  const std::vector<std::string> texts(words, words + count);
  std::vector<std::wstring> wide;
  for (const std::string& text : texts) wide.push_back(std::filesystem::path(text).wstring());
  const std::function<std::size_t()> all = [&] {
    return matches<char>(texts, "([a-z]+)-([0-9]+)") + matches<wchar_t>(wide, L"([a-z]+)-([0-9]+)");
  };
  std::cout << all() << '\n';
}
