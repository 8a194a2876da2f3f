#pragma once
/// @file
/// Architectures with a name: our own, and five published projects, each in the words of this library.
///
/// It is an include of its own, beside <tinymoe/model.hpp>. `presets::X` has the published sizes; a test checks the
/// published counts. `presets::pocket::X` has the same kinds of layers and options in two to seven million parameters,
/// and learns to tell stories in five minutes on two cores.
///
/// | header                    | architectures                                    | what is special in them         |
/// |---------------------------|--------------------------------------------------|---------------------------------|
/// | presets/story.hpp         | Story, StoryMixtral, StoryDense, Pocket,         | ours: the demo, tests, speed    |
/// |                           | Yardstick                                        |                                 |
/// | presets/minimixtral.hpp   | MiniMixtral, MiniMixtralReadme, MiniMixtralTrue  | sliding window, GQA, biases     |
/// | presets/nanogpt.hpp       | NanoGpt, NanoGptMoE, NanoGptMoEReleased          | dense beside noisy top-k        |
/// | presets/mymoe.hpp         | `MyMoE<F, Head>`                                 | top-1, capacity, jitter         |
/// | presets/sparse_moe.hpp    | SparseMoE                                        | sixteen experts, LayerNorm      |
/// | presets/deepseek_mini.hpp | DeepSeekMini                                     | shared and fine-grained experts |
/// | presets/llama2c.hpp       | `Llama2c<…>::Dense`, `Mixture<E, K>`; Characters | for upcycling                   |

#include "tinymoe/presets/deepseek_mini.hpp"
#include "tinymoe/presets/llama2c.hpp"
#include "tinymoe/presets/minimixtral.hpp"
#include "tinymoe/presets/mymoe.hpp"
#include "tinymoe/presets/nanogpt.hpp"
#include "tinymoe/presets/sparse_moe.hpp"
#include "tinymoe/presets/story.hpp"
