#pragma once
/// @file
/// The text room: from stories to batches of tokens. Reading order:
///
///     unicode, pre_tokenizer     text into pieces
///     tokenizer                  pieces into tokens and back; tokenizer.json
///     story_source, corpus       stories from memory, a function, a file
///     known_stories              those that a vocabulary without bytes can encode
///     stories                    an embedded corpus, for use without a network
///     bpe_trainer                a tokenizer from stories
///     token_data                 all stories as tokens in a mapped file
///     batches, padded_batches    what a training step reads
///     evaluation_windows         what an evaluation reads

#include "tinymoe/text/batches.hpp"
#include "tinymoe/text/bpe_trainer.hpp"
#include "tinymoe/text/corpus.hpp"
#include "tinymoe/text/evaluation_windows.hpp"
#include "tinymoe/text/known_stories.hpp"
#include "tinymoe/text/padded_batches.hpp"
#include "tinymoe/text/pre_tokenizer.hpp"
#include "tinymoe/text/stories/stories.hpp"
#include "tinymoe/text/story_source.hpp"
#include "tinymoe/text/token_data.hpp"
#include "tinymoe/text/tokenizer.hpp"
#include "tinymoe/text/unicode.hpp"
