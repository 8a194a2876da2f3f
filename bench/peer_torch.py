#!/usr/bin/env python3
"""The yardstick model in PyTorch, plainly and correctly written: what bench_step and bench_decode are compared with.

Debian: apt-get install python3-torch libopenblas0-pthread
Usage:  bench/peer_torch.py [--steps N] [--tokens N] [--bfloat16]
        bench/peer_torch.py --device cuda [--output FILE]      what bench_cuda is compared with

It prints the same rows as those programs. PyTorch uses two threads as they do on two cores (--threads).
"""

import argparse
import os
import statistics
import sys
import time

# Some environments preset a processor of 2013 here, which cripples OpenBLAS; it is read when the library is loaded.
os.environ.pop("OPENBLAS_CORETYPE", None)

try:
    import torch
except ImportError:
    if any(argument.endswith("cuda") for argument in sys.argv):  # for who compares where there may be none
        print("skipped: this Python has no PyTorch")
        sys.exit(0)
    raise
import torch.nn.functional as F
from torch import nn


class Config:
    """presets::Yardstick of include/tinymoe/presets.hpp."""

    vocab, context, width, layers = 32000, 256, 512, 8
    heads, kv_heads = 8, 8
    experts, choices, hidden = 8, 2, 1408
    norm_epsilon, rope_theta = 1e-5, 10000.0
    balance_weight, z_weight = 0.01, 0.001

    def __init__(self, **values):
        for name, value in values.items():
            setattr(self, name, value)
        self.head_dim = self.width // self.heads


class RmsNorm(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(c.width))
        self.epsilon = c.norm_epsilon

    def forward(self, x):
        wide = x.float()
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.epsilon)).type_as(x) * self.weight


def rope_table(c, device=None):
    """cos and sin of each position, (context, head_dim / 2)."""
    half = c.head_dim // 2
    angle = torch.arange(c.context, dtype=torch.float64)[:, None] * c.rope_theta ** (
        -torch.arange(half, dtype=torch.float64) / half
    )
    return angle.cos().float(), angle.sin().float()


def rotate(x, cos, sin):
    """Rotate-half: x (B, heads, T, head_dim)."""
    low, high = x.chunk(2, -1)
    return torch.cat((low * cos - high * sin, high * cos + low * sin), -1)


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.q_proj = nn.Linear(c.width, c.heads * c.head_dim, bias=False)
        self.k_proj = nn.Linear(c.width, c.kv_heads * c.head_dim, bias=False)
        self.v_proj = nn.Linear(c.width, c.kv_heads * c.head_dim, bias=False)
        self.o_proj = nn.Linear(c.heads * c.head_dim, c.width, bias=False)

    def forward(self, x, cos, sin, cache=None):
        """x (B, T, D); `cache` is [keys, values] of past tokens, which this call extends."""
        c, (batch, length, _) = self.c, x.shape
        q = self.q_proj(x).view(batch, length, c.heads, c.head_dim).transpose(1, 2)
        k = self.k_proj(x).view(batch, length, c.kv_heads, c.head_dim).transpose(1, 2)
        v = self.v_proj(x).view(batch, length, c.kv_heads, c.head_dim).transpose(1, 2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if cache is not None:
            if cache[0] is not None:
                k, v = torch.cat((cache[0], k), 2), torch.cat((cache[1], v), 2)
            cache[:] = k, v
        group = c.heads // c.kv_heads
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        causal = length > 1
        if hasattr(F, "scaled_dot_product_attention") and k.shape[2] == length:
            out = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        else:
            logits = q @ k.transpose(2, 3) * c.head_dim**-0.5
            if causal:
                mask = torch.ones(length, k.shape[2], dtype=torch.bool).triu(1 + k.shape[2] - length)
                logits = logits.masked_fill(mask, float("-inf"))
            out = logits.softmax(-1) @ v
        return self.o_proj(out.transpose(1, 2).reshape(batch, length, -1))


class Expert(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.w1 = nn.Linear(c.width, c.hidden, bias=False)
        self.w3 = nn.Linear(c.width, c.hidden, bias=False)
        self.w2 = nn.Linear(c.hidden, c.width, bias=False)

    def forward(self, x):
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class Mixture(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.gate = nn.Linear(c.width, c.experts, bias=False)
        self.experts = nn.ModuleList(Expert(c) for _ in range(c.experts))

    def forward(self, x):
        """x (B, T, D) → y and the weighted router losses."""
        c, flat = self.c, x.reshape(-1, x.shape[-1])
        logits = self.gate(flat).float()
        probability = logits.softmax(-1)
        gate, chosen = probability.topk(c.choices, -1)
        gate = (gate / gate.sum(-1, keepdim=True)).type_as(flat)
        out = torch.zeros_like(flat)
        for e, expert in enumerate(self.experts):
            token, choice = torch.where(chosen == e)
            if len(token) > 0:
                share = expert(flat.index_select(0, token)) * gate[token, choice, None]
                out.index_add_(0, token, share.type_as(out))
        losses = 0.0
        if self.training:
            share = torch.bincount(chosen.flatten(), minlength=c.experts) / chosen.numel()
            balance = c.experts * (share * probability.mean(0)).sum()
            losses = c.balance_weight * balance + c.z_weight * logits.logsumexp(-1).square().mean()
        return out.view_as(x), losses


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.input_layernorm = RmsNorm(c)
        self.self_attn = Attention(c)
        self.post_attention_layernorm = RmsNorm(c)
        self.block_sparse_moe = Mixture(c)

    def forward(self, x, cos, sin, cache=None):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, cache)
        y, losses = self.block_sparse_moe(self.post_attention_layernorm(x))
        return x + y, losses


class Model(nn.Module):
    """The names of parameters are those of a Mixtral on the hub, less the prefix `model.`."""

    def __init__(self, c):
        super().__init__()
        self.c = c
        self.embed_tokens = nn.Embedding(c.vocab, c.width)
        self.layers = nn.ModuleList(Block(c) for _ in range(c.layers))
        self.norm = RmsNorm(c)
        cos, sin = rope_table(c)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                residual = name.endswith(("o_proj.weight", "w2.weight"))
                deviation = parameter.shape[1] ** -0.5 / ((2 * c.layers) ** 0.5 if residual else 1)
                nn.init.normal_(parameter, std=0.02 if name.startswith("embed") else deviation)

    def hidden(self, tokens, caches=None, position=0):
        """The last norm's output (B, T, D), and the router losses of all layers."""
        x, total = self.embed_tokens(tokens), 0.0
        cos, sin = (table[position : position + tokens.shape[1]] for table in (self.cos, self.sin))
        for i, layer in enumerate(self.layers):
            x, losses = layer(x, cos, sin, None if caches is None else caches[i])
            total = total + losses
        return self.norm(x), total

    def logits(self, hidden):
        return F.linear(hidden, self.embed_tokens.weight)


def make_optimizer(model, rate):
    matrices = [p for p in model.parameters() if p.dim() == 2]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    return torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}],
        lr=rate,
        betas=(0.9, 0.95),
        eps=1e-8,
    )


def train_step(model, optimizer, tokens, targets):
    """One step; returns the cross-entropy and the norm of the gradients."""
    hidden, router_losses = model.hidden(tokens)
    loss = F.cross_entropy(model.logits(hidden).float().flatten(0, 1), targets.flatten())
    (loss + router_losses).backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item(), norm.item()


def row(figure, value, unit):
    print(f"| {figure} | {value:.1f} {unit} | | |", flush=True)


def time_training(model, arguments, kind):
    c, (batch, length) = model.c, (4, 256)
    model.train()
    optimizer = make_optimizer(model, 1e-4)
    seconds, optimizing = [], []
    step = optimizer.step

    def timed_step():
        started = time.perf_counter()
        step()
        optimizing.append(time.perf_counter() - started)

    optimizer.step = timed_step
    for i in range(-2, arguments.steps):
        tokens = torch.randint(c.vocab, (batch, length + 1))
        started = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=arguments.bfloat16):
            loss, _ = train_step(model, optimizer, tokens[:, :-1], tokens[:, 1:])
        if i >= 0:
            seconds.append(time.perf_counter() - started)
    median = statistics.median(seconds)
    print(f"step {median:.3f} s ({min(seconds):.3f} to {max(seconds):.3f} over {len(seconds)}), last loss {loss:.3f}")
    row(f"train, {kind}, {batch * length} tokens a step", batch * length / median, "tok/s")
    row("AdamW over the yardstick model", 1e3 * statistics.median(optimizing[2:]), "ms")


@torch.inference_mode()
def time_inference(model, arguments, kind):
    c = model.c
    model.eval()
    if arguments.bfloat16:
        model.bfloat16()
    tokens = torch.randint(c.vocab, (1, c.context))
    seconds = []
    for _ in range(arguments.repeats):
        caches = [[None, None] for _ in range(c.layers)]
        model.logits(model.hidden(tokens[:, :16], caches)[0][:, -1:])
        for at in range(16, 16 + arguments.tokens):
            started = time.perf_counter()
            model.logits(model.hidden(tokens[:, at : at + 1], caches, at)[0])
            seconds.append(time.perf_counter() - started)
    row(f"decode, {kind}, one stream", 1 / statistics.median(seconds), "tok/s")
    for figure, last in (("last logits", True), ("all logits", False)):
        seconds = []
        for _ in range(arguments.repeats + 1):
            started = time.perf_counter()
            hidden = model.hidden(tokens)[0]
            model.logits(hidden[:, -1:] if last else hidden)
            seconds.append(time.perf_counter() - started)
        row(f"prefill, {kind}, {figure}", c.context / statistics.median(seconds[1:]), "tok/s")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5, help="training steps to time; 0: none")
    parser.add_argument("--tokens", type=int, default=64, help="tokens to decode, at most 240")
    parser.add_argument("--repeats", type=int, default=3, help="of decoding and prefill")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--bfloat16", action="store_true", help="autocast in training, bfloat16 weights in decoding")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--output", help="with --device cuda: a file for the figures, as JSON")
    parser.add_argument("--tiny", action="store_true", help="with --output: a very small model, on the CPU too")
    arguments = parser.parse_args()
    if arguments.device == "cuda" or arguments.tiny:
        if arguments.device == "cuda" and not torch.cuda.is_available():
            print("skipped: PyTorch finds no GPU that it can use")
            return
        import peer_torch_cuda

        return peer_torch_cuda.run(arguments)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(1)
    kind = "bfloat16" if arguments.bfloat16 else "float32"
    model = Model(Config())
    parameters = sum(p.numel() for p in model.parameters())
    print(f"PyTorch {torch.__version__}: {parameters / 1e6:.1f}M parameters, {torch.get_num_threads()} threads")
    if arguments.steps > 0:
        time_training(model, arguments, kind)
    time_inference(model, arguments, kind)


if __name__ == "__main__":
    main()
