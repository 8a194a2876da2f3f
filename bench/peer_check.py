#!/usr/bin/env python3
"""Compares tinymoe with PyTorch: the logits of the same weights, then the losses and gradient norms of training steps.

Usage: bench_peer_check FOLDER && bench/peer_check.py FOLDER
"""

import json
import pathlib
import sys

import peer_model as peer  # first: it sets the environment of the libraries
import numpy as np
import torch


def load_safetensors(path):
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    header.pop("__metadata__", None)
    for name, tensor in header.items():
        begin, end = tensor["data_offsets"]
        assert tensor["dtype"] == "F32"
        yield name, np.frombuffer(body[begin:end], np.float32).reshape(tensor["shape"])


def main():
    folder = pathlib.Path(sys.argv[1])
    config = json.loads((folder / "config.json").read_text())
    model = peer.Model(
        peer.Config(
            vocab=config["vocab_size"],
            context=config["max_position_embeddings"],
            width=config["hidden_size"],
            layers=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            kv_heads=config["num_key_value_heads"],
            experts=config["num_local_experts"],
            choices=config["num_experts_per_tok"],
            hidden=config["intermediate_size"],
        )
    )
    tensors = load_safetensors(folder / "model.safetensors")
    model.load_state_dict({name[len("model.") :]: torch.from_numpy(values.copy()) for name, values in tensors})

    logits = torch.from_numpy(np.load(folder / "logits.npy"))
    batch, length = logits.shape[:2]
    size = batch * length
    text = torch.from_numpy(np.load(folder / "tokens.npy")).long()
    model.eval()
    with torch.no_grad():
        ours = model.logits(model.hidden(text[:size].view(batch, length))[0])
    difference, scale = (ours - logits).abs().max().item(), logits.abs().max().item()
    print(f"logits up to {scale:.3f}: max difference {difference:.2e}")
    failed = difference > 1e-4 * scale

    model.train()
    optimizer = peer.make_optimizer(model, 1e-3)
    for step, (loss, norm) in enumerate(np.load(folder / "reports.npy")):
        tokens = text[step * size : (step + 1) * size + 1]
        their_loss, their_norm = peer.train_step(
            model, optimizer, tokens[:-1].view(batch, length), tokens[1:].view(batch, length)
        )
        print(f"step {step + 1}: loss {loss:.6f} and {their_loss:.6f}, norm {norm:.6f} and {their_norm:.6f}")
        failed = failed or abs(loss - their_loss) > 1e-4 or abs(norm - their_norm) > 1e-3 * norm
    print("they differ" if failed else "they agree")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
