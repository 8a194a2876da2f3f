"""The yardstick model in PyTorch, plainly and correctly written: what peer_torch.py, peer_torch_cuda.py and peer_check.py
share.

Import it before numpy and torch: it sets the environment of their libraries.
"""

import os
import sys

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


def story():
    """presets::StoryMixtral."""
    return Config(vocab=2048, width=128, layers=3, heads=4, kv_heads=2, experts=4, choices=2, hidden=256)


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


def make_optimizer(model, rate, **options):
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    return torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}],
        lr=rate,
        betas=(0.9, 0.95),
        eps=1e-8,
        **options,
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
