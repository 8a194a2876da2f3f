#pragma once
/// @file
/// The text room: from stories to batches of tokens. Reading order:
///
///     unicode                      which code points are letters, numbers and spaces
///     merge_table, piece_table     the merges of a byte-pair encoding; numbers for byte strings
///     special_tokens               which tokens begin and end the texts of a model
///     tokenizer_kind               what each kind of tokenizer is
///     byte_level/                  GPT-2's kind: pieces, merges, tokenizer.json, vocab.json and merges.txt
///     llama2c/                     Llama 2's kind, of llama2.c: scores, tokenizer.bin, tokenizer.json
///     pipeline/                    any BPE tokenizer.json, for programs that include pipeline/pipeline.hpp
///     tokenizer                    the tokenizer that one holds, of any kind, and the encoder of many texts
///     story_source, corpus         stories from memory, a function, a file of text
///     story_files, corpora/        stories from files as people have them: JSON, gzipped, folders; an include of its own
///     selected_stories             a part of them; an include of its own
///     known_stories                those that a vocabulary without bytes can encode
///     stories/                     an embedded corpus, for use without a network
///     bpe_trainer                  a byte-level tokenizer from stories
///     token_file, encode_stories   stories as the tokens of a file, made by several threads
///     token_files                  stories that others have made tokens of; an include of its own
///     token_data, data_split       all stories as tokens, mapped or in memory; some of them held out
///     batches, padded_batches      what a training step reads
///     evaluation_windows           what an evaluation reads

#include "tinymoe/text/batches.hpp"
#include "tinymoe/text/bpe_trainer.hpp"
#include "tinymoe/text/corpus.hpp"
#include "tinymoe/text/data_split.hpp"
#include "tinymoe/text/evaluation_windows.hpp"
#include "tinymoe/text/known_stories.hpp"
#include "tinymoe/text/padded_batches.hpp"
#include "tinymoe/text/special_tokens.hpp"
#include "tinymoe/text/stories/stories.hpp"
#include "tinymoe/text/story_source.hpp"
#include "tinymoe/text/token_data.hpp"
#include "tinymoe/text/tokenizer.hpp"
#include "tinymoe/text/tokenizer_kind.hpp"
