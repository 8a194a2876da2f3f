#pragma once
/// @file
/// The door to tinymoe: a whole Mixture-of-Experts language model as a type, trained and sampled.
///
/// The rooms, in the order in which data flows; each uses only those above it.
///
/// | room        | what is in it                                                                         |
/// |-------------|---------------------------------------------------------------------------------------|
/// | core/       | errors, options, bfloat16, tensor views, planned memory, counter-based random numbers |
/// | files/      | mapped files, crash-safe writing, JSON, safetensors, GGUF, .npy                       |
/// | text/       | byte-level BPE tokenizer, story corpus, token data, batches                           |
/// | backend/    | concept Backend, row kernels, Reference<T> (the oracle), Cpu, CpuBfloat16             |
/// | layers/     | embedding, norm, attention, router, expert, mixture, block, transformer, loss, Model  |
/// | checkpoint/ | config.json, weights and training state on disk, models of llama2.c, upcycling        |
/// | train/      | optimizers, schedules, Trainer, the feed of batches, observers, metrics               |
/// | sample/     | KV cache, sampler, generate                                                           |
/// | analysis/   | counts at compile time, tables                                                        |
///
/// Includes of their own, since not every program needs to compile them:
///
/// | include                         | what it brings                                           |
/// |---------------------------------|----------------------------------------------------------|
/// | <tinymoe/checkpoint/gguf.hpp>   | models as GGUF files, for llama.cpp                      |
/// | <tinymoe/presets.hpp>           | architectures with a name                                |
/// | <tinymoe/analysis/inspect.hpp>  | `inspect`: logits and routing as xtensor arrays          |
/// | <tinymoe/files/npy.hpp>         | `save_npy`, `load_npy`: xtensor arrays as NumPy has them |
/// | <tinymoe/backend/reference.hpp> | `Reference<T, M>`, the oracle, a backend of plain loops  |
/// | <tinymoe/backend/cuda.hpp>      | `Cuda`, an NVIDIA GPU as a backend                       |
/// | <tinymoe/mpi/mpi.hpp>           | `Mpi`, several processes that train one model            |

#include "tinymoe/analysis/count.hpp"
#include "tinymoe/analysis/report.hpp"
#include "tinymoe/backend/cpu.hpp"
#include "tinymoe/checkpoint/llama2c.hpp"
#include "tinymoe/checkpoint/upcycle.hpp"
#include "tinymoe/core/version.hpp"
#include "tinymoe/files/files.hpp"
#include "tinymoe/layers/activations.hpp"
#include "tinymoe/layers/model.hpp"
#include "tinymoe/sample/generate.hpp"
#include "tinymoe/text/text.hpp"
#include "tinymoe/train/trainer.hpp"
