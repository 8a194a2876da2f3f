#!/usr/bin/env python3
"""A cost model of a training step on many GPUs: what shape to choose, and how efficient it is on paper.

    bench/scaling.py                              the proposals for 1, 8, 64, 512 and 1,024 GPUs, as tables in Markdown
    bench/scaling.py --model mixtral --gpus 64    one model, other numbers of GPUs
    bench/scaling.py --validate                   the model against published measurements
    bench/scaling.py --check                      tests the formulas by counting; exit 1 if one is wrong
    bench/scaling.py --svg docs/pictures/scaling.svg

Nothing here runs on a GPU and nothing is fitted to a row but two constants, which say so (PRODUCT_SHARE and
ALL_TO_ALL_SHARE). docs/benchmarks/scaling.md explains the model, its errors and its limits. Units are bytes, seconds,
operations; a tensor's size is in elements. Needs Python 3.8 and nothing else.
"""
import argparse
import dataclasses
import functools
import itertools
import math
import sys
import xml.dom.minidom
import xml.parsers.expat

# ---------------------------------------------------------------------------------------------------------------------
# Constants: of hardware generations, never of a row.


@dataclasses.dataclass(frozen=True, eq=False)
class Hardware:
    """A GPU in a node of `node` GPUs, and what is assumed of a run on it. Rates are of one GPU and one direction."""

    name: str
    peak: float  # operations/s of products in bfloat16, without sparsity
    memory: float  # bytes
    hbm: float  # bytes/s of the data sheet
    processors: int  # streaming multiprocessors: a product is dealt out to them in tiles
    nvlink_line: float  # bytes/s of the data sheet
    nvlink: float  # bytes/s that a collective reaches
    network: float  # bytes/s that a collective reaches through the GPU's own network card
    node: int = 8
    step: float = 9.6e-6  # seconds of a ring's step through the network (NCCL, see START)
    # Communication that runs beside compute takes processors from it: 24 of 132 (DeepEP, docs/legacy.md, set_num_sms).
    taken: float = 24 / 132
    # Standard deviation over mean of the experts' loads, measured here (docs/benchmarks/README.md: "vary by 5 %").
    loads: float = 0.05


GB = 1e9
# What of a link's rate is left: "450 GB/s is the line rate … an effective bandwidth of 370 GB/s" (NCCL's developers,
# https://github.com/NVIDIA/nccl-tests/issues/212); "for NDR at 400 Gbps 46-48 GB/s" of 50 (the same,
# https://github.com/NVIDIA/nccl-tests/issues/290).
NVLINK_SHARE = 370 / 450
NETWORK_SHARE = 47 / 50

HARDWARE = {
    # 989.5 TFLOP/s, 450 GB/s, 400 Gb/s: MoE Parallel Folding, section 4.1 (arXiv 2504.14960). 3.35 TB/s, 132
    # processors: https://glennklockwood.com/garden/processors/h100.
    "h100": Hardware("H100", 989.5e12, 80e9, 3.35e12, 132, 450 * GB, 450 * GB * NVLINK_SHARE, 50 * GB * NETWORK_SHARE),
    # The same processor with more memory (data sheet: 141 GB, 4.8 TB/s).
    "h200": Hardware("H200", 989.5e12, 141e9, 4.8e12, 132, 450 * GB, 450 * GB * NVLINK_SHARE, 50 * GB * NETWORK_SHARE),
    # H100 with a narrower NVLink: 200 GB/s by its data sheet, "~160 GB/s maximum"; "~50 GB/s" of network (DeepEP,
    # docs/legacy.md).
    "h800": Hardware("H800", 989.5e12, 80e9, 3.35e12, 132, 200 * GB, 160 * GB, 50 * GB * NETWORK_SHARE),
    # 312 TFLOP/s, 2.04 TB/s, 108 processors, 300 GB/s (data sheet); "8 x 200 Gbps HDR" as in Tutel's experiments.
    "a100": Hardware("A100", 312e12, 80e9, 2.04e12, 108, 300 * GB, 300 * GB * NVLINK_SHARE, 25 * GB * NETWORK_SHARE),
}

# Calibrated on one row of --validate: Megatron-Core's Mixtral 8x7B, 64 H100, 468 TFLOP/s. What a large product and
# attention reach of the peak inside of a training step.
PRODUCT_SHARE = 0.553
# Calibrated on one row: DeepEP 1.2.1, eight H100, width 7168, dispatch in bfloat16 at 335 GB/s, an eighth of which
# stays on the GPU. What an all-to-all within a node reaches of NVLink's line rate.
ALL_TO_ALL_SHARE = 335 * 7 / 8 / 450
# Assumed: what row kernels reach of the memory's rate, and the gap between two kernels.
HBM_SHARE = 0.8
KERNEL_GAP = 2e-6
KERNELS_FORWARD, KERNELS_BACKWARD = 14, 24  # of a layer
# A collective's start and a ring's step by NVLink: NCCL's own model of its rings (Ring/Simple in
# https://github.com/NVIDIA/nccl, src/graph/tuning.cc at 01afd20).
START, STEP_NVLINK = 8.4e-6, 3.4e-6
# Before a dispatch its counts are exchanged: 39 µs for the layout and 35 µs of waiting, measured on H100
# (NeMo Automodel, docs/deepep_vs_hybridep_benchmark.md). Backward knows the counts.
COUNTS = 74e-6
TILE = 128  # rows and columns of a product's tile: "128x128 tiles consistently perform on par or better" (MegaBlocks)
# AdamW: weights, gradients and two moments are read and written, a bfloat16 copy is written (bench/README.md).
ADAMW_BYTES = 34
# Assumed, bytes: CUDA's context, buffers of collectives and all-to-alls, experts with more tokens than the mean.
RESERVE = 8e9
NUMBER = 2  # bytes of an activation: bfloat16


# ---------------------------------------------------------------------------------------------------------------------
# What is trained, and on what shape.


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A decoder. Every `every`-th block is a mixture, the others have `dense_hidden`; experts 0 is a dense model."""

    name: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    head: int
    experts: int
    top_k: int
    hidden: int
    vocab: int
    context: int
    tied: bool = False
    shared_hidden: int = 0  # of a shared expert beside the routed ones
    dense_hidden: int = 0
    every: int = 1
    matrices: int = 3  # 3: SwiGLU; 2: GELU

    @functools.cached_property
    def mixtures(self):
        return self.layers // self.every if self.experts else 0

    @functools.cached_property
    def attention(self):
        """Parameters of one attention."""
        return 2 * self.width * self.head * (self.heads + self.kv_heads)

    @functools.cached_property
    def expert(self):
        """Parameters of one expert."""
        return self.matrices * self.width * self.hidden

    @functools.cached_property
    def expert_parameters(self):
        return self.mixtures * self.experts * self.expert

    @functools.cached_property
    def dense_parameters(self):
        """All but the routed experts: attention, norms, routers, shared experts, dense blocks, table and head."""
        blocks = self.layers * (self.attention + 2 * self.width) + self.width
        blocks += self.mixtures * (self.experts * self.width + self.matrices * self.width * self.shared_hidden)
        blocks += (self.layers - self.mixtures) * self.matrices * self.width * self.dense_hidden
        return blocks + (1 if self.tied else 2) * self.vocab * self.width

    @functools.cached_property
    def parameters(self):
        return self.dense_parameters + self.expert_parameters

    @functools.cached_property
    def active(self):
        """Parameters that a token meets, both vocabulary matrices included."""
        return self.dense_parameters + self.mixtures * self.top_k * self.expert

    def operations(self, causal=True):
        """Of a trained token: 6 for each weight of a matrix that it meets, and attention, half of it if causal."""
        weights = self.active - self.layers * 2 * self.width - self.width
        weights -= 0 if self.tied else self.vocab * self.width  # the table is read, not multiplied
        return 6 * weights + 12 * self.layers * self.context * self.heads * self.head * (0.5 if causal else 1)


@dataclasses.dataclass(frozen=True)
class Shape:
    """How GPUs share the work: tensor x pipeline x data ranks; a stage's ranks share experts in groups of `expert`."""

    gpus: int
    expert: int = 1
    pipeline: int = 1
    tensor: int = 1
    micro: int = 4096  # tokens of a micro-batch of one data-parallel rank
    recompute: bool = False  # each block's activations are computed again in backward
    masters: str = "all"  # float32 weights: on "all" ranks, as the library has it, or each on the rank of its "share"
    virtual: int = 1  # pieces of a stage (interleaved pipeline)
    once: bool = True  # a token is sent once to a node that has several of its experts, and summed there
    zero: int = 1  # 3: weights are gathered for each pass (FSDP); only for validation

    @property
    def data(self):
        return self.gpus // (self.tensor * self.pipeline)

    def possible(self, model, hardware):
        stage = self.data * self.tensor
        return (
            self.data >= 1
            and self.data * self.tensor * self.pipeline == self.gpus
            and stage % self.expert == 0
            and (self.expert == 1 or (model.experts and model.experts % self.expert == 0))
            and model.layers % (self.pipeline * self.virtual) == 0
            and model.heads % self.tensor == 0
            and self.tensor <= hardware.node
        )


@dataclasses.dataclass(frozen=True)
class Group:
    """Ranks that take part in a collective: `local` of them in each of `nodes` nodes."""

    local: int
    nodes: int

    @property
    def size(self):
        return self.local * self.nodes


def group(size, stride, hardware):
    """The ranks 0, stride, 2 stride, … of a stage, whose ranks lie side by side in nodes."""
    local = max(1, min(size, hardware.node // stride))
    while size % local:
        local -= 1
    return Group(local, size // local)


# ---------------------------------------------------------------------------------------------------------------------
# Communication.


def scatter_bytes(size, ranks):
    """Bytes that a rank sends through NVLink and through the network in a reduce-scatter or an all-gather of `size`
    bytes: first within the node, then 1/local of it among the nodes. Together they are size (R - 1)/R."""
    within = size * (ranks.local - 1) / ranks.local
    between = size / ranks.local * (ranks.nodes - 1) / ranks.nodes
    return within, between


def scatter_time(size, ranks, hardware, calls=1):
    """Seconds of a reduce-scatter or an all-gather of `size` bytes in `calls` parts. Both levels run at the same time,
    on different parts; each call walks a ring in the node and one over the nodes."""
    if ranks.size == 1 or size == 0:
        return 0.0
    within, between = scatter_bytes(size, ranks)
    start = START + (ranks.local - 1) * STEP_NVLINK + (ranks.nodes - 1) * hardware.step
    return max(within / hardware.nvlink, between / hardware.network) + calls * start


def chance(experts, some, top_k):
    """Of a token choosing top_k of the experts at random: that at least one is among `some` of them."""
    return 1 - math.comb(experts - some, top_k) / math.comb(experts, top_k)


def dispatch_copies(model, ranks, once=True):
    """Copies of a token that a rank receives through NVLink and sends through the network, the mean of random choices.

    once: a token travels once to each other node with experts of its, to the GPU of the same place there, and from it
    once to each GPU that has some. Else each of the top_k copies goes by itself to the GPU of its expert."""
    size = ranks.size
    if size == 1:
        return 0.0, 0.0
    if not once:
        return model.top_k * (ranks.local - 1) / size, model.top_k * (size - ranks.local) / size
    on_rank = chance(model.experts, model.experts // size, model.top_k)
    on_node = chance(model.experts, model.experts // ranks.nodes, model.top_k)
    return size * on_rank * (ranks.local - 1) / ranks.local, (ranks.nodes - 1) * on_node


def dispatch_time(model, tokens, ranks, hardware, once=True):
    """Seconds of one dispatch, or of one combine, of `tokens` tokens of each rank. NVLink and network run together."""
    if ranks.size == 1:
        return 0.0
    within, between = dispatch_copies(model, ranks, once)
    token = tokens * model.width * NUMBER
    start = START + STEP_NVLINK + (hardware.step if ranks.nodes > 1 else 0)
    return max(within * token / (hardware.nvlink_line * ALL_TO_ALL_SHARE), between * token / hardware.network) + start


# ---------------------------------------------------------------------------------------------------------------------
# Compute: a roofline.


def product_time(rows, inner, columns, count, hardware):
    """Seconds of `count` products (rows, inner) x (inner, columns): whole waves of tiles, or the memory's traffic."""
    if rows <= 0:
        return 0.0
    tiles = count * math.ceil(rows / TILE) * math.ceil(columns / TILE)
    waves = math.ceil(tiles / hardware.processors)
    compute = waves * hardware.processors * TILE * TILE * 2 * inner / (hardware.peak * PRODUCT_SHARE)
    traffic = count * NUMBER * (rows * inner + inner * columns + rows * columns)
    return max(compute, traffic / (hardware.hbm * HBM_SHARE))


def products_time(products, hardware):
    """Forward and backward of products y = x W: backward has the gradients of x and of W."""
    forward = sum(product_time(m, k, n, c, hardware) for m, k, n, c in products)
    backward = sum(product_time(m, n, k, c, hardware) + product_time(k, m, n, c, hardware) for m, k, n, c in products)
    return forward, backward


def spread(model, ranks, loads):
    """The fullest rank's load over the mean, where loads of experts vary independently by `loads`."""
    if ranks == 1:
        return 1.0
    return 1 + loads / math.sqrt(model.experts / ranks) * math.sqrt(2 * math.log(ranks))


def layer_time(model, shape, tokens, hardware, mixture, balanced):
    """Seconds of one block's forward and backward on one GPU. With tensor parallelism attention has 1/tensor of the
    heads and all tokens; norms and experts have 1/tensor of the tokens (sequence parallelism)."""
    own = tokens / shape.tensor
    d = model.width
    q, kv = model.heads * model.head / shape.tensor, model.kv_heads * model.head / shape.tensor
    products = [(tokens, d, q + 2 * kv, 1), (tokens, q, d, 1)]
    # Row kernels, elements read and written by a token: two norms, two residual sums, RoPE.
    rows = own * 10 * d + tokens * 2 * (q + kv)
    gates = model.matrices - 1
    if mixture:
        local = model.experts // shape.expert
        load = own * model.top_k * (1 if balanced else spread(model, shape.expert, hardware.loads))
        products += [(load / local, d, gates * model.hidden, local), (load / local, model.hidden, d, local)]
        rows += 2 * (own + load) * d + load * (gates + 1) * model.hidden  # dispatch, combine, activation
        if model.shared_hidden:
            f = model.shared_hidden / shape.tensor
            products += [(tokens, d, gates * f, 1), (tokens, f, d, 1)]
            rows += tokens * (gates + 1) * f
    else:
        f = model.dense_hidden / shape.tensor
        products += [(tokens, d, gates * f, 1), (tokens, f, d, 1)]
        rows += tokens * (gates + 1) * f
    forward, backward = products_time(products, hardware)
    # Attention in one kernel: scores and values, half of them masked; backward has five such products for two.
    attention = 2 * model.context * q * tokens / (hardware.peak * PRODUCT_SHARE)
    moved = NUMBER * rows / (hardware.hbm * HBM_SHARE)
    forward += attention + moved + KERNELS_FORWARD * KERNEL_GAP
    backward += 2.5 * attention + 2 * moved + KERNELS_BACKWARD * KERNEL_GAP
    return forward, backward


def head_time(model, shape, tokens, hardware):
    """Seconds of logits and loss, forward and backward; stages of a pipeline are taken as equal: each has its part."""
    forward, backward = products_time([(tokens, model.width, model.vocab / shape.tensor, 1)], hardware)
    moved = NUMBER * 2 * tokens * model.vocab / shape.tensor / (hardware.hbm * HBM_SHARE)
    return (forward + moved) / shape.pipeline, backward / shape.pipeline


@functools.lru_cache(maxsize=None)
def passes_time(model, shape, tokens, hardware, balanced):
    """Seconds of compute of one micro-batch on one GPU, forward and backward."""
    mixtures, dense = model.mixtures / shape.pipeline, (model.layers - model.mixtures) / shape.pipeline
    forward, backward = head_time(model, shape, tokens, hardware)
    for count, mixture in [(mixtures, True), (dense, False)]:
        if count:
            f, b = layer_time(model, shape, tokens, hardware, mixture, balanced)
            forward, backward = forward + count * f, backward + count * (b + (f if shape.recompute else 0))
    return forward, backward


# ---------------------------------------------------------------------------------------------------------------------
# Memory.


def state_bytes(parameters, ranks, masters):
    """Bytes of weights, gradients and AdamW's moments on one of `ranks` ranks that hold the same parameters.

    "all": float32 weights, gradients and a bfloat16 copy on each, moments shared: 4 n (2 + 2/R) + 2 n (docs/scale.md).
    "share": float32 weights too are kept by the rank of their share alone: n (4 + 2) + 12 n/R."""
    if masters == "all":
        return 4 * parameters * (2 + 2 / ranks) + 2 * parameters
    return 6 * parameters + 12 * parameters / ranks


def activation_bytes(model, shape):
    """Bytes that backward reads, of the micro-batches in flight on the first stage: in bfloat16, logits in pieces."""
    own = shape.micro / shape.tensor
    d = model.width
    attention = 4 * d * own + shape.micro * (2 * model.heads + 2 * model.kv_heads) * model.head / shape.tensor
    mixture = own * (model.top_k * (2 * d + model.matrices * model.hidden) + model.matrices * model.shared_hidden)
    dense = own * model.matrices * model.dense_hidden
    block = NUMBER * (attention + (mixture if model.experts else dense))
    layers = model.layers / shape.pipeline
    flying = shape.pipeline + ((shape.pipeline - 1) / shape.virtual if shape.virtual > 1 else 0)
    if shape.recompute:
        return flying * layers * NUMBER * d * own + block
    return flying * layers * block


def memory(model, shape):
    """Bytes on one GPU: state of what all ranks hold, state of its experts, activations, reserve."""
    dense = model.dense_parameters / (shape.tensor * shape.pipeline)
    experts = model.expert_parameters / (shape.expert * shape.pipeline)
    copies = shape.data * shape.tensor // shape.expert
    state = state_bytes(dense, shape.data, shape.masters) + state_bytes(experts, copies, shape.masters)
    return state, activation_bytes(model, shape), RESERVE


def fits(model, shape, hardware):
    return sum(memory(model, shape)) <= hardware.memory


# ---------------------------------------------------------------------------------------------------------------------
# A step.

OVERLAPS = {
    "none": "nothing overlaps",
    "data": "gradients travel during the last backward, weights during the next forward",
    "all": "and a micro-batch is two halves, one of which computes while the other's tokens travel",
}


@dataclasses.dataclass(frozen=True)
class Step:
    """Seconds of a step of one GPU, by what they go to; `exposed` parts are what compute does not hide."""

    tokens: float  # of one GPU
    compute: float
    dispatch: float
    tensor: float
    handed: float  # to the next stage of a pipeline
    gradients: float
    weights: float
    optimizer: float
    slowed: float  # compute, by communication beside it
    bubble: float

    @property
    def total(self):
        return sum(dataclasses.astuple(self)[1:])

    @property
    def rate(self):
        """Tokens a second of one GPU."""
        return self.tokens / self.total


def bubble_time(pipeline, virtual, each):
    """Seconds that a stage waits in a pipeline of p stages, each in v pieces: (p - 1)/v of its time for a micro-batch.
    The number of micro-batches does not change it, so its share falls with them."""
    return (pipeline - 1) / virtual * each


def hidden_under(duration, window, least):
    """What is left of a communication of `duration` beside `window` seconds of compute, and what is hidden."""
    exposed = min(duration, max(duration - window, least))
    return exposed, duration - exposed


def step_time(model, shape, hardware, tokens, overlap="none", balanced=False):
    """The step of one GPU that trains `tokens` tokens: micro-batches in turn, gradients and weights once. What may
    overlap does so where that is faster."""
    layers = max(1, round(model.layers / shape.pipeline))
    halves = [1, 2] if overlap == "all" and shape.expert > 1 else [1]
    pieces = [layers] if shape.zero == 3 else [1] if overlap == "none" else sorted({1, 2, 4, 8, layers})
    ways = [(h, p) for h in halves for p in pieces if p <= layers]
    steps = (one_way(model, shape, hardware, tokens, overlap, balanced, *way) for way in ways)
    return min(steps, key=lambda step: step.total)


def one_way(model, shape, hardware, tokens, overlap, balanced, halves, pieces):
    """step_time with micro-batches in `halves` (2: one half computes while the other's tokens travel), gradients and
    weights in `pieces` (1: nothing of them is hidden)."""
    micro_batches = tokens * shape.tensor * shape.pipeline / shape.micro
    layers, mixtures = model.layers / shape.pipeline, model.mixtures / shape.pipeline

    forward, backward = passes_time(model, shape, shape.micro / halves, hardware, balanced)
    forward, backward = forward * halves, backward * halves

    # All-to-all: dispatch and combine, forward and backward; recomputing sends forward's again.
    ranks = group(shape.expert, 1, hardware)
    one = dispatch_time(model, shape.micro / shape.tensor / halves, ranks, hardware, shape.once) * halves
    counts = COUNTS * halves if shape.expert > 1 else 0
    dispatch, hidden = mixtures * ((6 if shape.recompute else 4) * one + counts), 0.0
    if halves == 2:
        dispatch, hidden = hidden_under(dispatch, forward + backward, dispatch / (2 * layers))

    # Tensor parallelism: attention gathers its input and scatters its output; backward does both and gathers again. A
    # shared expert or a dense network does the same.
    per_layer = 2 if not model.experts or model.shared_hidden or model.every > 1 else 1
    ranks = group(shape.tensor, 1, hardware)
    tensor = 5 * per_layer * layers * scatter_time(shape.micro * model.width * NUMBER, ranks, hardware)

    # A pipeline's stages lie in nodes of their own where there are several; each piece hands on what it computed.
    between = hardware.network if shape.gpus > hardware.node else hardware.nvlink
    handed = shape.micro / shape.tensor * model.width * NUMBER / between + START
    handed = 2 * shape.virtual * handed if shape.pipeline > 1 else 0.0
    handed, passed = (handed, 0.0) if overlap == "none" else hidden_under(handed, forward + backward - hidden, 0)

    # Gradients and weights, once a step; with zero 3 in every micro-batch, and weights for both passes.
    dense = model.dense_parameters / (shape.tensor * shape.pipeline)
    experts = model.expert_parameters / (shape.expert * shape.pipeline)
    data = group(shape.data, shape.tensor, hardware)
    copies = group(shape.data * shape.tensor // shape.expert, shape.expert, hardware)

    def both(size):
        parts = [(size * dense, data), (size * experts, copies)]
        if shape.expert == 1:  # the same ranks hold both
            parts = [(size * (dense + experts), data)]
        return sum(scatter_time(part, ranks, hardware, pieces) for part, ranks in parts)

    often = micro_batches if shape.zero == 3 else 1
    gradients = both(4) * often
    weights = both(2) * 2 * often if shape.zero == 3 else both(4 if shape.masters == "all" else 2)
    busy = hidden / 3  # of forward; twice that of backward
    beside = 0.0
    if overlap != "none" and pieces > 1:
        window = often * (1 - 1 / pieces)  # the last gradients and the first weights wait for nothing
        gradients, more = hidden_under(gradients, window * max(0, backward - 2 * busy), gradients / pieces)
        weights, most = hidden_under(weights, window * max(0, forward - busy), weights / pieces)
        beside = more + most

    own = dense / shape.data + experts / copies.size
    slowed = (hidden + passed) * hardware.taken
    return Step(
        tokens=tokens,
        compute=micro_batches * (forward + backward),
        dispatch=micro_batches * dispatch,
        tensor=micro_batches * tensor,
        handed=micro_batches * handed,
        gradients=gradients,
        weights=weights,
        optimizer=ADAMW_BYTES * own / (hardware.hbm * HBM_SHARE),
        slowed=micro_batches * slowed + beside * hardware.taken,
        bubble=bubble_time(shape.pipeline, shape.virtual, forward + backward + dispatch + tensor + handed + slowed),
    )


# ---------------------------------------------------------------------------------------------------------------------
# The search.

MODELS = {
    # presets::Yardstick (include/tinymoe/presets/story.hpp).
    "yardstick": Model("yardstick", 8, 512, 8, 8, 64, 8, 2, 1408, 32000, 256, tied=True),
    # The sizes of Mixtral 8x7B (arXiv 2401.04088), trained at 4,096 tokens.
    "mixtral": Model("8x7B", 32, 4096, 32, 8, 128, 8, 2, 14336, 32000, 4096),
    # The sizes of OLMoE-1B-7B (arXiv 2409.02060; docs.nvidia.com/nemo/megatron-bridge/latest/models/llm/olmoe.html).
    "fine": Model("64 experts", 16, 2048, 16, 16, 128, 64, 8, 1024, 50304, 4096),
}
# Tokens of one GPU in a step, for weak scaling. yardstick: bench_cuda's. Others: on 1,024 GPUs 16.8M a step, between
# MoE Parallel Folding's 4.2M (1,024 x 4,096) and the 33.5M of NeMo Automodel's DeepSeek-V3 (8,192 x 4,096), on as many.
TOKENS = {"yardstick": 65536, "mixtral": 16384, "fine": 16384}
# What a step of such a model has in published recipes: 256 x 2,048 tokens for 125M parameters (Megatron-DeepSpeed,
# examples_deepspeed/MoE/ds_pretrain_gpt_1.3B_MoE128.sh), 1,024 x 4,096 for 57B to 141B (MoE Parallel Folding).
USUAL = {"yardstick": 2**19, "mixtral": 2**22, "fine": 2**22}
GPUS = [1, 8, 64, 512, 1024]
AIM = 0.9


LIBRARY, NO_PIPELINE, ANY = "library", "no pipeline", "any"  # which shapes are searched


def shapes(model, hardware, gpus, tokens, kind):
    """All shapes that are possible, fit and divide the tokens. LIBRARY: those that the library has."""
    powers = [2**i for i in range(11)]
    experts = [1] if kind == LIBRARY else [e for e in powers if e <= max(1, model.experts)]
    stages = [1, 2, 4, 8] if kind == ANY else [1]
    masters = ["all"] if kind == LIBRARY else ["all", "share"]
    for expert, pipeline, master in itertools.product(experts, stages, masters):
        budget = tokens * pipeline
        pieces = [v for v in (1, 2, 4, 8) if v == 1 or (pipeline > 1 and model.layers % (pipeline * v) == 0)]
        for micro in (model.context * p for p in powers):
            if budget % micro or micro > 65536 or micro < min(2048, budget):
                continue  # fewer than 2,048 tokens leave a GPU idle
            for virtual in pieces:
                if virtual > 1 and budget // micro % pipeline:
                    continue  # an interleaved pipeline deals micro-batches out in groups of its length
                for recompute in (False, True):
                    shape = Shape(gpus, expert, pipeline, 1, micro, recompute, master, virtual)
                    if shape.possible(model, hardware) and fits(model, shape, hardware):
                        yield shape
                        break  # recomputing what fits is slower


def simplicity(overlap, shape):
    """Smaller is simpler: first what the library would have to learn, then what is smaller."""
    parts = (shape.pipeline > 1) + (shape.expert > 1) + (shape.masters != "all")
    parts += list(OVERLAPS).index(overlap) if shape.gpus > 1 else 0
    return parts, shape.recompute, shape.pipeline, shape.expert, shape.virtual, -shape.micro


@functools.lru_cache(maxsize=None)
def searched(model, hardware, gpus, tokens, overlap, kind=ANY):
    """Every shape with its step."""
    return [(s, step_time(model, s, hardware, tokens, overlap)) for s in shapes(model, hardware, gpus, tokens, kind)]


def fastest(model, hardware, gpus, tokens, overlap, kind=ANY):
    """Tokens a second of one GPU in the fastest shape; None where nothing fits."""
    return max((step.rate for _, step in searched(model, hardware, gpus, tokens, overlap, kind)), default=None)


def proposal(model, hardware, gpus, tokens):
    """The simplest of what is within 2 % of the fastest: overlap, shape and step. None where nothing fits."""
    top = fastest(model, hardware, gpus, tokens, "all")
    found = [(o, s, t) for o in OVERLAPS for s, t in searched(model, hardware, gpus, tokens, o)]
    return min((row for row in found if row[2].rate >= 0.98 * top), key=lambda row: simplicity(*row[:2]), default=None)


@functools.lru_cache(maxsize=None)
def base_rate(model, hardware, tokens):
    """The smallest power of two of GPUs on which the model fits, and the best rate of one GPU there."""
    for gpus in (2**i for i in range(11)):
        rate = fastest(model, hardware, gpus, tokens, "all")
        if rate:
            return gpus, rate
    return None


@functools.lru_cache(maxsize=None)
def ideal_rate(model, hardware):
    """Tokens a second of a GPU of unlimited memory that computes the model alone, without AdamW: no shape passes it."""
    sizes = [model.context * 2**i for i in range(9) if model.context * 2**i <= 65536]
    return max(micro / sum(passes_time(model, Shape(1), micro, hardware, True)) for micro in sizes)


def efficiency(model, hardware, gpus, tokens, overlap):
    """Against the fewest GPUs that hold the model. It passes 1 where those must recompute and more need not."""
    base, rate = base_rate(model, hardware, tokens), fastest(model, hardware, gpus, tokens, overlap)
    return None if base is None or rate is None else rate / base[1]


def share(model, hardware, gpus, tokens, overlap, kind=ANY):
    """Against the ideal GPU: the stricter figure, at most 1."""
    rate = fastest(model, hardware, gpus, tokens, overlap, kind)
    return None if rate is None else rate / ideal_rate(model, hardware)


# ---------------------------------------------------------------------------------------------------------------------
# Tables.


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows])


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def big(value):
    for unit, size in [("B", 1e9), ("M", 1e6), ("k", 1e3)]:
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.0f}"


def percent(value):
    return "" if value is None else f"{100 * value:.0f} %"


def say(shape):
    """EP: ranks that share experts; PP: stages x pieces of each; TP: ranks that share attention; DP: data parallel."""
    parts = []
    if shape.expert > 1:
        parts.append(f"EP {shape.expert}")
    if shape.pipeline > 1:
        parts.append(f"PP {shape.pipeline}" + (f" x {shape.virtual}" if shape.virtual > 1 else ""))
    if shape.tensor > 1:
        parts.append(f"TP {shape.tensor}")
    if shape.data > 1:
        parts.append(f"DP {shape.data}")
    return ", ".join(parts) or "one GPU"


def needs(shape, overlap):
    """What of a proposal the library does not have."""
    parts = [
        ("EP without the weights of others", shape.expert > 1),
        ("PP", shape.pipeline > 1),
        ("sharded masters", shape.masters != "all"),
        ("overlap of weights", shape.gpus > 1 and overlap == "data"),
        ("all overlaps", shape.gpus > 1 and overlap == "all"),
    ]
    return ", ".join(part for part, missing in parts if missing) or "nothing"


def proposals(model, hardware, gpus, tokens):
    """The tables of one model: shapes, their efficiency, and where a step's time goes."""
    base = base_rate(model, hardware, tokens)
    holds = f"The fewest {hardware.name}s that hold it: {base[0]}." if base else "No number up to 1,024 holds it."
    lines = [
        f"### {model.name}",
        "",
        f"{big(model.parameters)} parameters, a token meets {big(model.active)}; "
        f"{model.layers} layers, width {model.width}, {model.experts} experts of {model.hidden}, top-{model.top_k}, "
        f"context {model.context}. "
        f"{tokens:,} tokens a GPU in a step. {holds}",
        "",
    ]
    rows, shares, times = [], [], []
    for count in gpus:
        found = proposal(model, hardware, count, tokens)
        if found is None:
            rows.append([f"{count:,}", "does not fit", *[""] * 6])
            continue
        overlap, shape, step = found
        state, activations, reserve = memory(model, shape)
        micro_batches = int(tokens * shape.pipeline / shape.micro)
        rows.append([
            f"{count:,}",
            say(shape),
            f"{micro_batches} x {shape.micro:,}",
            "yes" if shape.recompute else "no",
            f"{(state + activations + reserve) / 1e9:.0f} GB ({state / 1e9:.0f} + {activations / 1e9:.0f})",
            number(step.rate),
            percent(step.rate * model.operations() / hardware.peak),
            needs(shape, overlap),
        ])
        at = (model, hardware, count, tokens)
        shares.append([
            f"{count:,}",
            *(percent(share(*at, o)) for o in OVERLAPS),
            *(percent(efficiency(*at, o)) for o in OVERLAPS),
            percent(share(*at, "all", NO_PIPELINE)) or "does not fit",
            percent(share(*at, "none", LIBRARY)) or "does not fit",
        ])
        parts = [step.total, step.compute, step.dispatch, step.gradients, step.weights, step.handed, step.optimizer]
        times.append([f"{count:,}", *(f"{1e3 * t:.1f}" for t in [*parts, step.slowed, step.bubble])])
    head = ["GPUs", "shape", "micro-batches x tokens", "recomputes", "memory (state + activations)"]
    lines += [table([*head, "tokens/s of a GPU", "of peak", "not in the library"], rows), ""]
    if shares:
        head = [f"{of}: {o}" for of in ("ideal", "fewest") for o in OVERLAPS]
        head += ["ideal: all, no pipeline", "ideal: none, the library's shapes"]
        lines += ["Efficiency of the fastest shape, against the ideal GPU and against the fewest GPUs:", ""]
        lines += [table(["GPUs", *head], shares), ""]
        head = ["step", "compute", "all-to-all", "gradients", "weights", "between stages", "AdamW", "slowed", "waits"]
        lines += ["Milliseconds of the proposed step; of communication what compute does not hide:", ""]
        lines += [table(["GPUs", *head], times), ""]
    return "\n".join(lines)


def usual_batch(names, hardware):
    """Efficiency against the ideal GPU at the usual tokens of a step, shared by more and more GPUs, all overlaps."""
    counts, rows = [2**i for i in range(11)], []
    for name in names:
        model, cells = MODELS[name], []
        for gpus in counts:
            tokens = USUAL[name] // gpus
            cells.append("" if tokens < model.context else percent(share(model, hardware, gpus, tokens, "all")))
        rows.append([f"{model.name}, {big(USUAL[name])} tokens", *cells])
    return table(["GPUs", *(f"{c:,}" for c in counts)], rows)


def batches(model, hardware, gpus, usual):
    """Efficiency against the ideal GPU by the tokens of a step, and in words the fewest tokens that reach the aim."""
    rows, least = [], {}
    for size in (model.context * 2**i for i in range(11)):
        if size > 262144:
            break
        values = [share(model, hardware, gpus, size, overlap) for overlap in OVERLAPS]
        for overlap, value in zip(OVERLAPS, values):
            if value is not None and value >= AIM:
                least.setdefault(overlap, size)
        mark = " (usual)" if size * gpus == usual else ""
        rows.append([f"{size:,}", big(size * gpus) + mark, *map(percent, values)])
    words = [
        f"{o}: {percent(AIM)} from {least[o]:,} tokens a GPU, {big(least[o] * gpus)} a step" if o in least
        else f"{o}: {percent(AIM)} is not reached"
        for o in OVERLAPS
    ]
    head = [f"{model.name}: tokens of a GPU", f"of a step on {gpus:,}", *OVERLAPS]
    return table(head, rows) + "\n\n" + "; ".join(words) + "."


def sensitivity(names, hardware):
    """Efficiency at 1,024 GPUs, all overlaps, if an input were another; the ideal GPU has that input, too."""
    half = {"network": hardware.network / 2}
    cases = [
        ("as stated", {}),
        ("compute half as fast", {"peak": hardware.peak / 2, "hbm": hardware.hbm / 2}),
        ("compute twice as fast", {"peak": hardware.peak * 2, "hbm": hardware.hbm * 2}),
        ("network half as fast", half),
        ("and NVLink", {**half, "nvlink": hardware.nvlink / 2, "nvlink_line": hardware.nvlink_line / 2}),
        ("a ring's step takes twice as long", {"step": hardware.step * 2}),
        ("experts' loads vary by 20 %", {"loads": 0.2}),
        ("communication takes no processors", {"taken": 0.0}),
        ("141 GB of memory", {"memory": 141e9}),
    ]
    rows = []
    for what, change in cases:
        changed = dataclasses.replace(hardware, **change)
        rows.append([what, *(percent(share(MODELS[n], changed, 1024, TOKENS[n], "all")) for n in names)])
    return table(["1,024 GPUs", *(MODELS[n].name for n in names)], rows)


def cpu_ranks():
    """Ranks on CPUs by what was measured here: 81 ms for a sum of 40M float32 on two ranks of one server, Open MPI 4.1
    (docs/scale.md); two cores train 22,000 tokens/s of story_mixtral, 500 of the yardstick (docs/benchmarks)."""
    bandwidth = 2 * 40e6 * 4 * (1 / 2) / 81e-3
    cases = [("story_mixtral, one core", 1_591_680, 11_000), ("yardstick, two cores", 163_226_112, 500)]
    rows = []
    for (name, parameters, rate), ranks in itertools.product(cases, (2, 4, 8)):
        sent = 2 * parameters * 4 * (ranks - 1) / ranks
        passes = [micro * 1024 / rate for micro in (1, 4, 16)]
        shares = [percent(seconds / (seconds + sent / bandwidth)) for seconds in passes]
        rows.append([name, ranks, f"{sent / 1e6:.0f} MB", f"{1e3 * sent / bandwidth:.1f} ms", *shares])
    head = ["model, a rank's cores", "ranks", "a rank sends", "takes", "1 micro-batch", "4", "16"]
    return f"At the {bandwidth / 1e9:.2f} GB/s that two ranks on one server were measured at:\n\n{table(head, rows)}"


# ---------------------------------------------------------------------------------------------------------------------
# Validation: published figures. The two that calibrate a constant say so.

MIXTRAL_22 = Model("Mixtral 8x22B", 56, 6144, 48, 8, 128, 8, 2, 16384, 32768, 4096)
MIXTRAL_G8 = Model("Mixtral 8x22B G8T8", 56, 6144, 48, 8, 128, 64, 8, 2048, 32768, 4096)
QWEN2 = Model("Qwen2 57B-A14B", 28, 3584, 28, 4, 128, 64, 8, 2560, 151936, 4096, shared_hidden=20480)
LLAMA_70 = Model("Llama3 8x70B", 80, 8192, 64, 8, 128, 8, 2, 28672, 128256, 4096)
QWEN3 = Model("Qwen3 30B-A3B", 48, 2048, 32, 4, 128, 128, 8, 768, 151936, 4096)
GPT_OSS = Model("GPT-OSS 120B", 36, 2880, 64, 8, 64, 128, 4, 2880, 201088, 4096)
OLMO = Model("dense 1.3B", 16, 2048, 16, 16, 128, 0, 0, 0, 50304, 4096, dense_hidden=8192)
# Models of the GPT-2 kind: GELU, the head is the table; every second block of the mixture is one.
MOE_128 = Model("1.3B+MoE-128", 24, 2048, 16, 16, 128, 128, 1, 8192, 50257, 2048, True, 0, 8192, 2, 2)
DENSE_7 = Model("dense 6.7B", 32, 4096, 32, 32, 128, 0, 0, 0, 50257, 2048, True, 0, 16384, 1, 2)
GPT_XS = Model("dense 46M", 6, 512, 8, 8, 64, 0, 0, 0, 51200, 1024, True, 0, 2048, 1, 2)
GPT_XL = Model("dense 1.3B", 24, 2048, 32, 32, 64, 0, 0, 0, 51200, 1024, True, 0, 8192, 1, 2)


@dataclasses.dataclass(frozen=True)
class Published:
    """A measured training step: `rate` is tokens/s of one GPU, `tokens` are those of one GPU in a step."""

    system: str
    model: Model
    hardware: str
    shape: Shape
    tokens: float
    overlap: str
    rate: float
    source: str

    def modelled(self):
        step = step_time(self.model, self.shape, HARDWARE[self.hardware], self.tokens, self.overlap, balanced=True)
        return step.rate


def folding(model, gpus, sequences, mfu, tensor, expert, pipeline):
    """Megatron-Core with parallel folding. Assumed, as its README recommends: micro-batches of one sequence, stages in
    pieces of one layer, overlap of gradients and weights. Its operations are taken to count attention in full."""
    shape = Shape(gpus, expert, pipeline, tensor, 4096, False, "share", model.layers // pipeline, once=False)
    rate = mfu * HARDWARE["h100"].peak / model.operations(causal=False)
    tokens = sequences * 4096 / gpus
    return Published("Megatron-Core, folding", model, "h100", shape, tokens, "data", rate, "Folding")


def steps_published():
    """Training steps; the loads were forced to be even, or tokens above an even load were dropped."""
    mixtral, fine = MODELS["mixtral"], MODELS["fine"]
    shape = Shape(64, 8, 4, 1, 4096, False, "share", 8, once=False)
    rate = 468e12 / mixtral.operations(causal=False)
    system = "Megatron-Core 0.9 (calibrates)"
    yield Published(system, mixtral, "h100", shape, 256 * 4096 / 64, "data", rate, "Megatron-Core, README")

    yield folding(MIXTRAL_22, 128, 256, 0.493, 2, 8, 8)
    yield folding(QWEN2, 64, 256, 0.390, 2, 4, 4)
    yield folding(MIXTRAL_G8, 128, 256, 0.288, 4, 8, 8)
    yield folding(LLAMA_70, 256, 256, 0.416, 8, 8, 16)
    for gpus, mfu in [(128, 0.522), (256, 0.507), (512, 0.489), (1024, 0.449)]:
        yield folding(MIXTRAL_22, gpus, 1024, mfu, 2, 8, 8)
    for gpus, mfu in [(64, 0.399), (128, 0.397), (256, 0.381), (512, 0.366), (1024, 0.334)]:
        yield folding(QWEN2, gpus, 1024, mfu, 2, 4, 4)
    for gpus, mfu in [(128, 0.300), (256, 0.293), (512, 0.267), (1024, 0.255)]:
        yield folding(MIXTRAL_G8, gpus, 1024, mfu, 4, 8, 8)
    for gpus, mfu in [(128, 0.437), (512, 0.427), (1024, 0.415)]:
        yield folding(LLAMA_70, gpus, 1024, mfu, 8, 8, 16)

    for sequences, micro, rate in [(1280, 1, 5993), (512, 4, 5630)]:  # recomputation is not stated: none assumed
        shape, tokens = Shape(64, 8, 4, 1, micro * 4096, masters="share"), sequences * 4096 / 64
        yield Published("Megatron Bridge", GPT_OSS, "h100", shape, tokens, "data", rate, "Bridge")

    for system, gpus, sequences, micro, rate, source in [
        ("NeMo Automodel", 8, 64, 4, 12040, "Automodel"),
        ("NeMo Automodel, DeepEP", 8, 16, 4, 12211, "Automodel, DeepEP"),
        ("NeMo Automodel, HybridEP", 8, 16, 4, 12885, "Automodel, DeepEP"),
        ("NeMo Automodel, DeepEP", 16, 16, 2, 11096, "Automodel, DeepEP"),
        ("NeMo Automodel, HybridEP", 16, 16, 2, 11976, "Automodel, DeepEP"),
    ]:
        shape = Shape(gpus, gpus, micro=micro * 4096, recompute=True, masters="share", zero=3)
        yield Published(system, QWEN3, "h100", shape, sequences * 4096, "data", rate, source)

    shape = Shape(128, micro=4 * 4096, masters="share", zero=3)  # micro-batches are not stated: four sequences assumed
    yield Published("OLMo with MegaBlocks", fine, "h100", shape, 8 * 4096, "data", 23600, "OLMoE, 4.1.1")
    yield Published("OLMo", OLMO, "h100", shape, 8 * 4096, "data", 37500, "OLMoE, 4.1.1")

    # Batches and recomputation are those of the example scripts of Megatron-DeepSpeed.
    shape = Shape(128, 128, micro=4 * 2048, recompute=True, masters="share", once=False)
    yield Published("DeepSpeed-MoE", MOE_128, "a100", shape, 4 * 2048, "none", 372 * 2048 / 128, "DeepSpeed, table 2")
    shape = Shape(128, micro=8 * 2048, recompute=True, masters="share")
    yield Published("DeepSpeed", DENSE_7, "a100", shape, 8 * 2048, "none", 70 * 2048 / 128, "DeepSpeed, table 2")

    for model, micro, mfu in [(GPT_XS, 64, 0.21), (GPT_XL, 8, 0.48)]:  # "between 21% and 48% … increasing with size"
        rate = mfu * HARDWARE["a100"].peak / model.operations(causal=False)
        shape = Shape(8, micro=micro * 1024)
        yield Published("Megatron-LM", model, "a100", shape, 64 * 1024, "none", rate, "MegaBlocks, 6.1")


def all_to_all_published():
    """What, hardware, ranks, width, GB/s, source. The bandwidths are logical: copies that stay are counted, too."""
    h100, h800 = HARDWARE["h100"], HARDWARE["h800"]
    for kind, values in [("dispatch", (153, 43, 58, 51)), ("combine", (158, 43, 57, 50))]:
        for ranks, value in zip((8, 16, 32, 64), values):
            yield f"DeepEP 1 {kind}", h800, ranks, 7168, value, "DeepEP 1"
    for ranks, values in [(16, (90, 81)), (32, (61, 61))]:
        for kind, value in zip(("dispatch", "combine"), values):
            yield f"DeepEP 2 {kind}", h100, ranks, 7168, value, "DeepEP 2"
    measured = {(7168, 8): (335, 326), (7168, 16): (84.9, 68.2), (2048, 8): (302, 287), (2048, 16): (58.9, 59.1)}
    for (width, ranks), values in measured.items():
        for kind, value in zip(("dispatch", "combine"), values):
            what = f"DeepEP 1.2.1 {kind}, bfloat16" + (" (calibrates)" if value == 335 else "")
            yield what, h100, ranks, width, value, "Automodel, DeepEP"


def logical_bandwidth(ranks, hardware):
    """GB/s as DeepEP counts them, of large messages: of R ranks in a node one copy in R stays on its GPU, of m nodes
    one in m stays in its node."""
    where = group(ranks, 1, hardware)
    if where.nodes == 1:
        return hardware.nvlink_line * ALL_TO_ALL_SHARE * ranks / (ranks - 1) / GB
    return hardware.network * where.nodes / (where.nodes - 1) / GB


def error(model, published):
    return f"{100 * (model / published - 1):+.0f} %"


def summary(what, errors):
    size = sorted(abs(e) for e in errors)
    median, largest, mean = size[len(size) // 2], max(errors, key=abs), sum(errors) / len(errors)
    words = f"median error {100 * median:.0f} %, largest {100 * largest:+.0f} %, mean {100 * mean:+.0f} %"
    return f"{len(errors)} {what}: {words}."


def validate():
    rows, errors = [], []
    for what, hardware, ranks, width, value, source in all_to_all_published():
        ours = logical_bandwidth(ranks, hardware)
        cells = [f"{value:g} GB/s", f"{ours:.0f} GB/s", error(ours, value), source]
        rows.append([what, hardware.name, ranks, width, *cells])
        if "calibrates" not in what:
            errors.append(ours / value - 1)
    # "When S = 128 MiB and m = 8 … intra-node All-to-All process takes ~600 µs for n = 8."
    a100 = HARDWARE["a100"]
    ours = 2**27 * 7 / 8 / (a100.nvlink_line * ALL_TO_ALL_SHARE) + START + STEP_NVLINK
    cells = ["600 µs", f"{1e6 * ours:.0f} µs", error(ours, 600e-6), "Tutel, A.2"]
    rows.append(["Tutel, all-to-all of 128 MiB", "A100", 8, "", *cells])
    errors.append(ours / 600e-6 - 1)
    head = ["what", "GPU", "ranks", "width", "published", "model", "error", "source"]
    lines = ["### All-to-all", "", table(head, rows), "", summary("all-to-alls", errors), ""]

    rows, errors, kept = [], [], {}
    for row in steps_published():
        ours = row.modelled()
        gpus = f"{row.shape.gpus:,} {HARDWARE[row.hardware].name}"
        cells = [number(row.rate), number(ours), error(ours, row.rate), row.source]
        rows.append([row.system, row.model.name, gpus, say(row.shape), *cells])
        if "calibrates" not in row.system:
            errors.append(ours / row.rate - 1)
        if "folding" in row.system:
            kept.setdefault((row.model.name, row.tokens * row.shape.gpus), []).append((row.shape.gpus, row.rate, ours))
    head = ["system", "model", "GPUs", "shape", "tokens/s of a GPU, published", "model", "error", "source"]
    lines += ["### Training steps", "", table(head, rows), "", summary("steps", errors), ""]

    rows, errors = [], []
    for (name, _), ((gpus, value, ours), *more) in kept.items():
        for count, later, our_later in more:
            shares = later / value, our_later / ours
            points = 100 * (shares[1] - shares[0])
            rows.append([name, f"{gpus} to {count:,}", *map(percent, shares), f"{points:+.0f}"])
            errors.append(points)
    lines += ["### What is left of a GPU's rate as GPUs are added, at 1,024 sequences of 4,096 tokens a step", ""]
    lines += [table(["model", "GPUs", "published", "model", "points"], rows), ""]
    lines += [f"Mean difference {sum(errors) / len(errors):+.1f} points, largest {max(errors, key=abs):+.1f}."]
    return "\n".join(lines)


# ---------------------------------------------------------------------------------------------------------------------
# The self-test: formulas against counting.


def ring(values, send):
    """A reduce-scatter on a ring: rank r begins with row r of `values` and ends with the sum of column r + 1. Calls
    `send` with the sender for each number that is sent; returns the sums by column."""
    ranks = len(values)
    held = [list(row) for row in values]
    for step in range(ranks - 1):
        moved = [(r, (r - step) % ranks, held[r][(r - step) % ranks]) for r in range(ranks)]
        for rank, column, value in moved:
            send(rank)
            held[(rank + 1) % ranks][column] += value
    return {(r + 1) % ranks: held[r][(r + 1) % ranks] for r in range(ranks)}


def count_scatter(local, nodes):
    """A reduce-scatter of one number for each of nodes x local ranks, first in each node, then among ranks of the same
    place. Returns how many numbers each rank sends within and between nodes, and whether the sums are right."""
    size = local * nodes
    data = [[rank * size + piece for piece in range(size)] for rank in range(size)]
    within, between, partial, sums = [0] * size, [0] * size, {}, {}

    def count(where, rank):
        where[rank] += 1

    for node, part in itertools.product(range(nodes), repeat=2):
        rows = [data[node * local + i][part * local : (part + 1) * local] for i in range(local)]
        for column, value in ring(rows, lambda i, n=node: count(within, n * local + i)).items():
            partial[node, part * local + column] = value
    for place in range(local):
        rows = [[partial[node, part * local + place] for part in range(nodes)] for node in range(nodes)]
        for part, value in ring(rows, lambda n, p=place: count(between, n * local + p)).items():
            sums[part * local + place] = value
    right = all(sums[piece] == sum(row[piece] for row in data) for piece in range(size))
    return set(within), set(between), right


def count_dispatch(experts, top_k, local, nodes, once):
    """Copies by NVLink and through the network for each token of a rank, over all choices and all senders."""
    size = local * nodes
    network = links = 0
    choices = list(itertools.combinations(range(experts), top_k))
    for sender, choice in itertools.product(range(size), choices):
        node, place = divmod(sender, local)
        targets = [expert * size // experts for expert in choice]
        if not once:
            network += sum(t // local != node for t in targets)
            links += sum(t // local == node and t != sender for t in targets)
            continue
        for other in {t // local for t in targets}:
            network += other != node
            entry = other * local + place  # where the copy arrives: the GPU of the same place
            links += sum(t != entry for t in set(targets) if t // local == other)
    return links / len(choices) / size, network / len(choices) / size


def simulate_pipeline(stages, micro_batches):
    """Time of a pipeline whose stages take 1 for a forward and 2 for a backward: all forwards, then all backwards."""
    ends = {}
    for m, s in itertools.product(range(micro_batches), range(stages)):
        ends["f", s, m] = max(ends.get(("f", s - 1, m), 0), ends.get(("f", s, m - 1), 0)) + 1
    for m, s in itertools.product(range(micro_batches), reversed(range(stages))):
        before = ends.get(("b", s, m - 1), ends["f", s, micro_batches - 1])
        ends["b", s, m] = max(ends.get(("b", s + 1, m), 0), before) + 2
    return max(ends.values())


def check():
    """Prints each test and returns how many failed."""
    failed = 0

    def test(what, holds):
        nonlocal failed
        failed += not holds
        print(f"{'ok    ' if holds else 'FAILED'} {what}")

    def near(a, b, relative=1e-12):
        return abs(a - b) <= relative * max(abs(a), abs(b), 1e-300)

    def rises(values):
        return all(a <= b + 1e-12 for a, b in zip(values, values[1:]))

    yardstick, mixtral, fine = (MODELS[name] for name in ("yardstick", "mixtral", "fine"))
    h100 = HARDWARE["h100"]

    holds = (yardstick.parameters, yardstick.active) == (163226112, 59417088)
    test("yardstick: 163,226,112 parameters, a token meets 59,417,088 (docs/presets.md)", holds)
    test("yardstick: 363 MFLOP a trained token", round(yardstick.operations() / 1e6) == 363)
    sizes = [mixtral.parameters, mixtral.active, fine.parameters, fine.active, QWEN3.parameters]
    test("published sizes: 46.7B, 12.9B, 6.9B, 1.3B, 30.5B", [round(n / 1e8) for n in sizes] == [467, 129, 69, 13, 305])
    sizes = [m.parameters for m in (MIXTRAL_22, QWEN2, GPT_OSS, MOE_128)]
    test("published sizes: 141B, 57B, 117B, 52B", [round(n / 1e9) for n in sizes] == [141, 57, 117, 52])

    for local, nodes in [(1, 1), (2, 1), (8, 1), (1, 4), (2, 2), (4, 3), (8, 4)]:
        within, between, right = count_scatter(local, nodes)
        want = scatter_bytes(local * nodes, Group(local, nodes))
        holds = right and (within, between) == ({round(want[0])}, {round(want[1])})
        holds &= near(sum(want), local * nodes - 1)
        test(f"reduce-scatter on {nodes} x {local} ranks: the sums, bytes within and between nodes", holds)

    cases = [(8, 2, 8, 1), (8, 2, 2, 2), (8, 3, 2, 4), (16, 4, 4, 2), (12, 3, 2, 3), (8, 1, 1, 8), (8, 8, 2, 2)]
    for experts, top_k, local, nodes in cases:
        model = dataclasses.replace(yardstick, experts=experts, top_k=top_k)
        holds = True
        for once in (True, False):
            formula = dispatch_copies(model, Group(local, nodes), once)
            counted = count_dispatch(experts, top_k, local, nodes, once)
            holds &= all(near(a, b, 1e-9) for a, b in zip(formula, counted))
        test(f"dispatch of {top_k} of {experts} experts on {nodes} x {local} ranks: copies by each link", holds)

    n = yardstick.parameters
    holds = all(near(memory(yardstick, Shape(r))[0], 4 * n * (2 + 2 / r) + 2 * n) for r in (1, 2, 8, 1024))
    test("memory of R ranks: 4 n (2 + 2/R) + 2 n, the formula of docs/scale.md", holds)
    for masters, copied, once in [("all", 10, 8), ("share", 6, 12)]:
        together = 64 * memory(mixtral, Shape(64, 8, 4, masters=masters))[0]
        want = copied * (16 * mixtral.dense_parameters + 2 * mixtral.expert_parameters) + once * mixtral.parameters
        test(f"memory of 64 GPUs, EP 8, PP 4, masters on {masters}: what is shared lies once", near(together, want))
    kept = [activation_bytes(mixtral, s) for s in (Shape(8, recompute=True), Shape(8), Shape(8, micro=8192))]
    test("activations: recomputing needs less, a longer micro-batch more", kept[0] < kept[1] < kept[2])

    cases = itertools.product((1, 2, 4, 8), (1, 2, 4, 16))
    holds = all(near(simulate_pipeline(p, m), 3 * m + bubble_time(p, 1, 3)) for p, m in cases)
    test("a pipeline's wait: simulated on 1 to 8 stages, 1 to 16 micro-batches", holds)

    took = product_time(16384, 8192, 16384, 1, h100) / (2 * 16384 * 8192 * 16384 / (h100.peak * PRODUCT_SHARE))
    test("a large product takes the stated share of the peak, but for its last wave", 1 <= took < 1.05)
    took, traffic = product_time(1, 4096, 4096, 64, h100), 64 * 2 * (4096**2 + 2 * 4096)
    test("products of one row take the time of reading their matrices", near(took, traffic / (h100.hbm * HBM_SHARE)))
    holds = True
    for model in MODELS.values():
        least = model.operations() * 65536 / (h100.peak * PRODUCT_SHARE)
        holds &= least <= sum(passes_time(model, Shape(1), 65536, h100, True)) * (1 + 1e-9)
    test("no model computes faster than its operations allow", holds)

    one = step_time(yardstick, Shape(1, micro=65536), h100, 65536)
    test("one GPU only computes and steps", one.total == one.compute + one.optimizer > 0)
    shape = Shape(64, 8, micro=4096, masters="share", recompute=True)
    step = step_time(fine, shape, h100, 16384)
    dense, experts = fine.dense_parameters, fine.expert_parameters / 8
    parts = [scatter_time(4 * dense, Group(8, 8), h100) + scatter_time(4 * experts, Group(1, 8), h100)]
    parts += [scatter_time(2 * dense, Group(8, 8), h100) + scatter_time(2 * experts, Group(1, 8), h100)]
    parts += [4 * 16 * (6 * dispatch_time(fine, 4096, Group(8, 1), h100) + COUNTS)]
    holds = all(near(a, b) for a, b in zip(parts, (step.gradients, step.weights, step.dispatch)))
    test("a step of 64 GPUs, EP 8: gradients 4 bytes, weights 2, six all-to-alls in each layer and micro-batch", holds)
    step, sent = step_time(yardstick, Shape(1024, micro=65536), h100, 65536), scatter_time(4 * n, Group(8, 128), h100)
    holds = step.gradients == step.weights == sent
    test("a step of 1,024 GPUs without EP: one sum of 4 n, one gathering of 4 n", holds)
    exposed = [hidden_under(10, window, 1) for window in (0, 4, 9, 20)]
    test("what is hidden and what is not are the whole", exposed == [(10, 0), (6, 4), (1, 9), (1, 9)])

    grown = [dataclasses.replace(shape, gpus=g) for g in (8, 16, 64, 256, 1024)]
    for overlap in OVERLAPS:
        steps = [step_time(fine, s, h100, 16384, overlap) for s in grown]
        holds = rises([t.total - t.optimizer for t in steps])
        test(f"more GPUs of one shape never make a step shorter but for AdamW ({overlap})", holds)
        rates = [step_time(fine, grown[-1], h100, t, overlap).rate for t in (4096, 8192, 16384, 65536)]
        test(f"more tokens of a GPU never lower its rate ({overlap})", rises(rates))
    cases = itertools.product((fine, mixtral), grown)
    holds = all(rises([-step_time(m, s, h100, 16384, o).total for o in OVERLAPS]) for m, s in cases)
    test("more overlap never makes a step longer", holds)
    slower = dataclasses.replace(h100, network=h100.network / 4)
    (a, b), (c, d) = ([step_time(fine, s, h, 16384).total for h in (h100, slower)] for s in (grown[0], grown[-1]))
    test("a slower network makes a step longer, but not in one node", a == b and c < d)

    for name, model in MODELS.items():
        at = (model, h100, base_rate(model, h100, TOKENS[name])[0], TOKENS[name])
        test(f"{model.name}: efficiency on the fewest GPUs is 1", near(max(efficiency(*at, o) for o in OVERLAPS), 1))
        holds, inside = True, True
        for gpus in GPUS:
            at = (model, h100, gpus, TOKENS[name])
            holds &= all((share(*at, o) or 0) <= 1 for o in OVERLAPS)
            holds &= rises([fastest(*at, "none", kind) or 0 for kind in (LIBRARY, NO_PIPELINE, ANY)])
            found = proposal(*at)
            if found:
                s, t = found[1:]
                inside &= s.possible(model, h100) and fits(model, s, h100) and t.rate >= 0.98 * fastest(*at, "all")
        test(f"{model.name}: no shape passes the ideal GPU, and a wider search finds nothing slower", holds)
        test(f"{model.name}: proposals divide what they share, fit, and are within 2 % of the fastest", inside)

    first = next(steps_published())
    holds = near(first.modelled(), first.rate, 5e-3) and near(logical_bandwidth(8, h100), 335, 5e-3)
    test("the two calibrated constants give the rows that they were taken from, within 0.5 %", holds)
    text = chart(h100)
    try:
        xml.dom.minidom.parseString(text.encode())
        test("the chart is well-formed and the same twice", text == chart(h100))
    except xml.parsers.expat.ExpatError as problem:
        test(f"the chart is well-formed: {problem}", False)
    print(f"{failed} failed" if failed else "all passed")
    return failed


# ---------------------------------------------------------------------------------------------------------------------
# The chart.

STYLE = """<style>
  text { font: 13px system-ui, sans-serif; fill: #1b1f24 }
  .s { font-size: 12px; fill: #4a5260 }
  .t { font-size: 15px; font-weight: 600 }
  .g { stroke: #dde2e8 }
  .l { fill: none; stroke-width: 2 }
  .d { stroke-dasharray: 6 5 }
</style>"""
COLOURS = {"yardstick": "#a9803a", "mixtral": "#4e8a5f", "fine": "#3f6ea8"}


def chart(hardware):
    """Efficiency against the ideal GPU by GPUs, as SVG: a line for each model with all overlaps, a dashed one: none."""
    wide, high, left, right, top, bottom = 820, 460, 62, 206, 60, 54
    counts, lines = [2**i for i in range(11)], []
    for name, model in MODELS.items():
        for overlap, style, words in [("none", "l d", ", no overlap"), ("all", "l", "")]:
            points = [(g, share(model, hardware, g, TOKENS[name], overlap)) for g in counts]
            lines.append((model.name + words, style, COLOURS[name], [p for p in points if p[1] is not None]))
    lowest = min((value for *_, points in lines for _, value in points), default=0)
    low = 5 if lowest >= 0.5 else 0  # tenths, where the axis begins

    def x(gpus):
        return f"{left + (wide - left - right) * math.log2(gpus) / 10:.1f}"

    def y(value, down=0):
        return f"{high - bottom - (high - top - bottom) * (10 * value - low) / (10 - low) + down:.1f}"

    def text(kind, across, down, words, more=""):
        return f'<text class="{kind}" x="{across}" y="{down}"{more}>{words}</text>'

    about = "Modelled efficiency of a training step against the number of GPUs"
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" width="{wide}" height="{high}" '
        f'role="img" aria-label="{about}">',
        f"<title>{about}</title>",
        STYLE,
        f'<rect width="{wide}" height="{high}" rx="8" fill="#ffffff"/>',
        text("t", left, 24, f"On paper: training on {hardware.name}s, solid with all overlaps, dashed with none"),
        text("s", left, 43, "tokens/s of a GPU, against a GPU of unlimited memory that computes alone"),
    ]
    for mark in (tenth / 10 for tenth in range(low, 11)):
        out.append(f'<line class="g" x1="{left}" x2="{wide - right}" y1="{y(mark)}" y2="{y(mark)}"/>')
        out.append(text("s", left - 8, y(mark, 4), percent(mark), ' text-anchor="end"'))
    out += [text("s", x(gpus), high - bottom + 20, f"{gpus:,}", ' text-anchor="middle"') for gpus in counts]
    middle = (left + wide - right) // 2
    out.append(text("s", middle, high - bottom + 40, "GPUs, eight in a node", ' text-anchor="middle"'))
    ends = f'x1="{left}" x2="{wide - right}" y1="{y(AIM)}" y2="{y(AIM)}"'
    out.append(f'<line {ends} stroke="#b0483f" stroke-dasharray="2 3"/>')
    out.append(text("s", left + 6, y(AIM, -5), f"the aim: {percent(AIM)}", ' style="fill:#b0483f"'))
    labels = []
    for words, style, colour, points in lines:
        if points:
            path = "M" + " L".join(f"{x(g)} {y(value)}" for g, value in points)
            out.append(f'<path class="{style}" stroke="{colour}" d="{path}"/>')
            out += [f'<circle cx="{x(g)}" cy="{y(value)}" r="2.6" fill="{colour}"/>' for g, value in points]
            labels.append((float(y(points[-1][1], 4)), f"{words}: {percent(points[-1][1])}", colour))
    place = 0.0
    for down, words, colour in sorted(labels):
        place = max(place + 15, down)
        out.append(text("s", wide - right + 10, f"{place:.1f}", words, f' style="fill:{colour}"'))
    return "\n".join([*out, "</svg>", ""])


# ---------------------------------------------------------------------------------------------------------------------


def gpu_count(text):
    try:
        value = int(text.replace(",", ""))
    except ValueError:
        raise argparse.ArgumentTypeError(f"a number of GPUs was expected, not '{text}'") from None
    if not 1 <= value <= 1024 or value & (value - 1):
        raise argparse.ArgumentTypeError(f"the number of GPUs must be a power of two from 1 to 1,024, not {text}")
    return value


def main():
    about = "A cost model of a training step on many GPUs: proposes a shape for each number of GPUs."
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--model", choices=sorted(MODELS), action="append", help="only this model (may be repeated)")
    parser.add_argument(
        "--gpus", type=gpu_count, nargs="+", default=GPUS, metavar="N", help="powers of two (default: 1 8 64 512 1024)"
    )
    parser.add_argument("--hardware", choices=sorted(HARDWARE), default="h100", help="the GPU (default: h100)")
    parser.add_argument("--tokens", type=int, metavar="N", help="tokens of a GPU in a step (default: the model's)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--validate", action="store_true", help="compare the model with published measurements")
    what.add_argument("--check", action="store_true", help="test the formulas by counting; exit 1 if one is wrong")
    what.add_argument("--svg", metavar="FILE", help="write the chart")
    options = parser.parse_args()
    hardware, names = HARDWARE[options.hardware], options.model or list(MODELS)

    if options.check:
        return int(check() > 0)
    if options.validate:
        print(validate())
        return 0
    if options.svg:
        try:
            with open(options.svg, "w", encoding="utf-8") as file:
                file.write(chart(hardware))
        except OSError as problem:
            parser.error(f"{options.svg}: {problem.strerror}")
        return 0

    for name in names:
        context = MODELS[name].context
        tokens = TOKENS[name] if options.tokens is None else options.tokens
        if tokens < context or tokens % context:
            parser.error(f"--tokens {tokens}: must be a multiple of the context of {name}, {context}")
        print(proposals(MODELS[name], hardware, options.gpus, tokens))
    print(f"### The usual tokens of a step on more and more GPUs\n\n{usual_batch(names, hardware)}\n")
    print("### How many tokens it takes on 1,024 GPUs\n")
    for name in names:
        print(batches(MODELS[name], hardware, 1024, USUAL[name]) + "\n")
    print(f"### If an input were another\n\n{sensitivity(names, hardware)}\n")
    print(f"### Ranks on CPUs\n\n{cpu_ranks()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
