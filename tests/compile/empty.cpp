#include <tinymoe/model.hpp>

int main() {}
