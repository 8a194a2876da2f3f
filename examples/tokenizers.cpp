// Lets the programs read any BPE tokenizer.json. Compiled once for all of them.

#include <tinymoe/text/pipeline/pipeline.hpp>
