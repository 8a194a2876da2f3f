#pragma once

#include <tinymoe/analysis/inspect.hpp>
#include <tinymoe/model.hpp>

struct StoryTeller
    : tinymoe::Transformer<
          tinymoe::Vocab<64>, tinymoe::Context<16>, tinymoe::Width<32>,
          tinymoe::Layers<
              2, tinymoe::MoEBlock<tinymoe::RmsNorm, tinymoe::Attention<tinymoe::Heads<4>, tinymoe::KvHeads<2>>,
                                   tinymoe::Router<4, 2>, tinymoe::Expert<tinymoe::Hidden<48>>>>> {};

/// The first logit of a model drawn from `seed`, computed in the other file.
float first_logit(tinymoe::Seed seed);
