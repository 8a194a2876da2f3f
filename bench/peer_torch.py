#!/usr/bin/env python3
"""The yardstick model of peer_model.py, trained and decoded: what bench_step and bench_decode are compared with.

Debian: apt-get install python3-torch libopenblas0-pthread
Usage:  bench/peer_torch.py [--steps N] [--tokens N] [--bfloat16]
        bench/peer_torch.py --device cuda [--output FILE]      what bench_cuda is compared with

It prints the same rows as those programs. PyTorch uses two threads as they do on two cores (--threads).
"""

import argparse
import os
import statistics
import time

import peer_model as peer  # first: it sets the environment of the libraries
import torch


def time_training(model, arguments, kind):
    c, (batch, length) = model.c, (4, 256)
    model.train()
    optimizer = peer.make_optimizer(model, 1e-4)
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
            loss, _ = peer.train_step(model, optimizer, tokens[:, :-1], tokens[:, 1:])
        if i >= 0:
            seconds.append(time.perf_counter() - started)
    median = statistics.median(seconds)
    print(f"step {median:.3f} s ({min(seconds):.3f} to {max(seconds):.3f} over {len(seconds)}), last loss {loss:.3f}")
    peer.row(f"train, {kind}, {batch * length} tokens a step", batch * length / median, "tok/s")
    peer.row("AdamW over the yardstick model", 1e3 * statistics.median(optimizing[2:]), "ms")


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
    model = peer.Model(peer.Config())
    parameters = sum(p.numel() for p in model.parameters())
    print(f"PyTorch {torch.__version__}: {parameters / 1e6:.1f}M parameters, {torch.get_num_threads()} threads")
    if arguments.steps > 0:
        time_training(model, arguments, kind)
    time_inference(model, arguments, kind)


if __name__ == "__main__":
    main()
