#include <tinymoe/backend/cuda.hpp>

#include <iostream>

#include "story_teller.hpp"

int main() {
  try {
    tinymoe::CudaBfloat16 device;
    const tinymoe::Model<StoryTeller, tinymoe::CudaBfloat16> model(device, tinymoe::Seed{1337});
    tinymoe::Session session(model);
    const tinymoe::Token token = 1;
    std::cout << "on " << device.device().name << ": " << session.feed({&token, 1})[0] << '\n';
  } catch (const tinymoe::DeviceError& error) {
    std::cout << error.what() << '\n';
  }
}
