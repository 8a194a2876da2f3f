#!/usr/bin/env python3
"""The models of peer_model.py, trained and decoded, and single products: what bench_step, bench_story, bench_decode and
bench_products are compared with.

PyPI:   pip install torch                                      brings a GPU's libraries, which the CPU does not need
Usage:  bench/peer_torch.py [--steps N] [--tokens N] [--type float32|bfloat16]
        bench/peer_torch.py --device cuda [--output FILE]      what bench_cuda is compared with

It prints the same rows as those programs. PyTorch has a thread for each core, as they have (--threads).
"""

import argparse
import os
import statistics
import time

import peer_model as peer  # first: it sets the environment of the libraries
import torch


def autocast(kind):
    return torch.autocast("cpu", torch.bfloat16, enabled=kind == "bfloat16")


def time_steps(model, kind, batch, steps):
    """Seconds of each training step, and of AdamW in it."""
    c = model.c
    model.train()
    optimizer = peer.make_optimizer(model, 1e-4)
    seconds, optimizing = [], []
    step = optimizer.step

    def timed_step():
        started = time.perf_counter()
        step()
        optimizing.append(time.perf_counter() - started)

    optimizer.step = timed_step
    for i in range(-2, steps):
        tokens = torch.randint(c.vocab, (batch, c.context + 1))
        started = time.perf_counter()
        with autocast(kind):
            loss, _ = peer.train_step(model, optimizer, tokens[:, :-1], tokens[:, 1:])
        if i >= 0:
            seconds.append(time.perf_counter() - started)
    median = statistics.median(seconds)
    print(f"step {median:.3f} s ({min(seconds):.3f} to {max(seconds):.3f} over {len(seconds)}), last loss {loss:.3f}")
    return median, statistics.median(optimizing[2:])


def time_training(model, kind, steps):
    batch = 4
    tokens = batch * model.c.context
    step, optimizer = time_steps(model, kind, batch, steps)
    peer.row(f"train, {kind}, {tokens} tokens a step", tokens / step, "tok/s")
    if kind == "float32":  # in bfloat16 PyTorch keeps no copy of the weights: the optimizer's work is the same
        peer.row("AdamW over the yardstick model, float32", 1e3 * optimizer, "ms")
    story = peer.Model(peer.story())
    step, _ = time_steps(story, kind, batch, 10 * steps)
    peer.row(f"train story_mixtral, {kind}", batch * story.c.context / step, "tok/s")


@torch.inference_mode()
def time_product(kind, experts, rows, outputs, inputs, seconds):
    """x (rows, inputs) times weights (outputs, inputs) for each expert; weights rotate through 64 MiB, as ours do."""
    form = getattr(torch, kind)
    size = experts * outputs * inputs * form.itemsize
    weights = [torch.randn(experts, outputs, inputs).to(form) for _ in range(1 + (64 << 20) // size)]
    x = torch.randn(experts, rows, inputs).to(form)
    y = torch.empty(experts, rows, outputs, dtype=form)
    times, until = [], time.perf_counter() + seconds
    while len(times) < 4 or time.perf_counter() < until:
        weight = weights[len(times) % len(weights)]
        started = time.perf_counter()
        for e in range(experts):
            torch.mm(x[e], weight[e].T, out=y[e])
        times.append(time.perf_counter() - started)
    rate = 2 * experts * rows * outputs * inputs / statistics.median(times[3:]) / 1e9
    beside = f" for each of {experts} experts" if experts > 1 else ""
    peer.row(f"product, {kind} {rows}x{outputs}x{inputs}{beside}", rate, "GFLOP/s")


@torch.inference_mode()
def time_inference(model, arguments, kind):
    c = model.c
    model.eval()
    if kind == "bfloat16":
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
    peer.row(f"decode, {kind}, one stream", 1 / statistics.median(seconds), "tok/s")
    for figure, last in (("last logits", True), ("all logits", False)):
        seconds = []
        for _ in range(arguments.repeats + 1):
            started = time.perf_counter()
            hidden = model.hidden(tokens)[0]
            model.logits(hidden[:, -1:] if last else hidden)
            seconds.append(time.perf_counter() - started)
        peer.row(f"prefill, {kind}, {figure}", c.context / statistics.median(seconds[1:]), "tok/s")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5, help="training steps to time; 0: none")
    parser.add_argument("--tokens", type=int, default=64, help="tokens to decode, at most 240")
    parser.add_argument("--repeats", type=int, default=3, help="of decoding and prefill")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument(
        "--type",
        choices=("float32", "bfloat16"),
        default="float32",
        help="bfloat16: autocast in training, bfloat16 weights in decoding",
    )
    parser.add_argument("--seconds", type=float, default=1, help="for a product by itself")
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
    kind = arguments.type
    model = peer.Model(peer.Config())
    parameters = sum(p.numel() for p in model.parameters())
    print(f"PyTorch {torch.__version__}: {parameters / 1e6:.1f}M parameters, {torch.get_num_threads()} threads")
    if arguments.steps > 0:
        time_training(model, kind, arguments.steps)
    time_inference(model, arguments, kind)
    shape = (1, 1024, 1536, 512) if kind == "float32" else (8, 256, 2816, 512)
    time_product(kind, *shape, arguments.seconds)


if __name__ == "__main__":
    main()
