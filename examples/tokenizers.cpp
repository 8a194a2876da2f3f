// Lets the programs read any BPE or Unigram tokenizer.json, and sentencepiece's models. Compiled once for all of them.

#include <tinymoe/text/pipeline/pipeline.hpp>
