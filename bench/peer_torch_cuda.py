"""peer_torch.py --device cuda: the yardstick model in PyTorch on a GPU, by the same recipe as tinymoe's: float32
weights, products in bfloat16 (autocast), fused AdamW, attention by scaled_dot_product_attention.

Two kinds of experts. "experts one by one" is the plain model of peer_model.py, whose host waits for the experts' tokens
in each layer. "grouped" sorts the tokens by expert and multiplies each bank by one grouped product, where this PyTorch
has one; without it, by a batched product of experts padded to twice the mean load, which is said.
"""

import json
import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn

import peer_model as peer

BFLOAT16 = torch.bfloat16


def grouped_product():
    """f(x (S, I), banks (E, I, O), ends of the experts' rows (E)) → (S, O), or None, and its name."""
    if hasattr(F, "grouped_mm"):
        return (lambda x, w, ends: F.grouped_mm(x, w, offs=ends)), "torch.nn.functional.grouped_mm"
    if hasattr(torch, "_grouped_mm"):
        return (lambda x, w, ends: torch._grouped_mm(x, w, offs=ends)), "torch._grouped_mm"
    return None, "padded batched products, as this PyTorch has no grouped ones"


class GroupedMixture(nn.Module):
    """peer_model.Mixture with the experts' weights in two banks."""

    product = None  # by grouped_product()

    def __init__(self, c):
        super().__init__()
        self.c = c
        self.gate = nn.Linear(c.width, c.experts, bias=False)
        self.w13 = nn.Parameter(torch.randn(c.experts, 2 * c.hidden, c.width) * c.width**-0.5)
        self.w2 = nn.Parameter(torch.randn(c.experts, c.width, c.hidden) * (c.hidden * 2 * c.layers) ** -0.5)

    def experts(self, x, product):
        gate, up = product(x, self.w13.to(x.dtype).transpose(1, 2)).chunk(2, -1)
        return product(F.silu(gate) * up, self.w2.to(x.dtype).transpose(1, 2))

    def route(self, flat):
        logits = self.gate(flat).float()
        probability = logits.softmax(-1)
        gate, chosen = probability.topk(self.c.choices, -1)
        return logits, probability, gate / gate.sum(-1, keepdim=True), chosen

    def forward(self, x):
        c, flat = self.c, x.reshape(-1, x.shape[-1])
        logits, probability, gate, chosen = self.route(flat)
        each = chosen.flatten()
        loads = (each[:, None] == torch.arange(c.experts, device=each.device)).sum(0)
        order = each.argsort(stable=True)
        rows = flat.to(BFLOAT16)[order // c.choices]
        if self.product is not None:
            out = self.experts(rows, lambda a, w: self.product(a, w, loads.cumsum(0).to(torch.int32)))
        else:
            out = self.padded(rows, each[order], loads)
        shares = torch.empty_like(out).index_copy(0, order, out).view(*chosen.shape, -1)
        y = (shares * gate[..., None].type_as(shares)).sum(1)
        balance = c.experts * (loads / each.numel() * probability.mean(0)).sum()
        losses = c.balance_weight * balance + c.z_weight * logits.logsumexp(-1).square().mean()
        return y.view_as(x), losses if self.training else 0.0

    def padded(self, rows, expert, loads):
        """Room for twice the mean load; what does not fit is dropped, which an untrained router rarely causes."""
        c, room = self.c, 2 * rows.shape[0] // self.c.experts
        place = torch.arange(rows.shape[0], device=rows.device) - (loads.cumsum(0) - loads)[expert]
        slot = torch.where(place < room, expert * room + place, c.experts * room)
        x = rows.new_zeros(c.experts * room + 1, c.width).index_copy(0, slot, rows)
        y = self.experts(x[:-1].view(c.experts, room, c.width), torch.bmm).view(-1, c.width)
        return torch.cat((y, y.new_zeros(1, c.width)))[slot]

    def one_token(self, flat):
        """Few tokens: the chosen experts' weights are looked up, so that the host need not know them."""
        _, _, gate, chosen = self.route(flat)
        gate_up = torch.einsum("nd,nkfd->nkf", flat, self.w13[chosen])
        low, up = gate_up.chunk(2, -1)
        y = torch.einsum("nkf,nkdf->nkd", F.silu(low) * up, self.w2[chosen])
        return (y * gate[..., None].type_as(y)).sum(1)


def make_model(c, grouped, device):
    model = peer.Model(c)
    if grouped:
        for layer in model.layers:
            layer.block_sparse_moe = GroupedMixture(c)
    return model.to(device)


class Clock:
    """The device's own clock; the host's where there is no device."""

    def __init__(self, device):
        self.device = device

    def milliseconds(self, work):
        if self.device != "cuda":
            started = time.perf_counter()
            work()
            return 1e3 * (time.perf_counter() - started)
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        work()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end)

    def median(self, work, warm, samples, times=1):
        for _ in range(warm):
            work()

        def several():
            for _ in range(times):
                work()

        return statistics.median(self.milliseconds(several) / times for _ in range(samples))


class Peer:
    def __init__(self, arguments):
        self.device = arguments.device
        self.clock = Clock(self.device)
        self.path = arguments.output
        self.tiny = arguments.tiny
        self.c = peer.Config()
        self.batch = 256
        if self.tiny:
            self.c = peer.Config(vocab=512, context=64, width=64, layers=2, heads=4, kv_heads=4, experts=4, hidden=64)
            self.batch = 2
        self.tokens = self.batch * self.c.context
        self.product, self.product_name = grouped_product()
        GroupedMixture.product = staticmethod(self.product) if self.product else None
        name = torch.cuda.get_device_name() if self.device == "cuda" else "cpu"
        self.results = {"torch": torch.__version__, "device": name, "grouped": self.product_name, "figures": {}}
        print(f"PyTorch {torch.__version__} on {name}; grouped products: {self.product_name}", flush=True)
        print("| figure | measured | limit | share |\n|---|---|---|---|", flush=True)

    def figure(self, key, text, value, unit):
        peer.row(text, value, unit)
        self.results["figures"][key] = {"figure": text, "measured": value, "unit": unit}
        self.write()

    def write(self):
        if self.path:
            with open(self.path, "w") as file:
                json.dump(self.results, file, indent=2)

    def part(self, name, work):
        """What fails is left out, and the rest goes on: a compiler may be missing, memory may be short."""
        try:
            work()
        except Exception as error:
            why = (str(error).strip().splitlines() or [type(error).__name__])[0]
            print(f"left out: {name}: {why}", flush=True)
            self.results.setdefault("left_out", []).append({"part": name, "why": why})
            self.write()
        if self.device == "cuda":
            torch.cuda.empty_cache()

    def train(self, key, text, grouped, compiled):
        c = self.c
        model = make_model(c, grouped, self.device).train()
        optimizer = peer.make_optimizer(model, 1e-4, fused=self.device == "cuda")
        text_tokens = torch.randint(c.vocab, (self.batch, c.context + 1), device=self.device)

        def loss_of(tokens):
            with torch.autocast(self.device, BFLOAT16):
                hidden, router_losses = model.hidden(tokens[:, :-1])
                logits = model.logits(hidden)
            loss = F.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten())
            return loss + router_losses, loss

        forward = torch.compile(loss_of) if compiled else loss_of

        def step(parts):
            """In several micro-batches where the logits of all, 12 GB and more, are too many for the device."""
            total = 0.0
            for tokens in text_tokens.chunk(parts):
                whole, loss = forward(tokens)
                (whole / parts).backward()
                total = total + loss.detach() / parts
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            return total.item()

        parts = 1
        while True:
            try:
                step(parts)
                break
            except torch.cuda.OutOfMemoryError:
                optimizer.zero_grad(set_to_none=True)
                torch.cuda.empty_cache()
                parts *= 2
                if parts > self.batch:
                    raise
        milliseconds = self.clock.median(lambda: step(parts), 3, 5, 1 if self.tiny else 3)
        if parts > 1:
            text += f", in {parts} micro-batches for lack of memory"
        self.figure(key, text, 1e3 * self.tokens / milliseconds, "tok/s")
        if not compiled and not grouped:
            self.optimizer(model, optimizer)

    def optimizer(self, model, optimizer):
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter) * 1e-3
        self.figure("adamw", "AdamW, float32, fused", self.clock.median(optimizer.step, 3, 9), "ms")

    @torch.inference_mode()
    def decode_plain(self):
        """Caches that grow, experts one by one: peer_torch.py as it is, in bfloat16."""
        c, model = self.c, make_model(self.c, False, self.device).bfloat16().eval()
        tokens = torch.randint(c.vocab, (1, c.context), device=self.device)
        caches, seconds = [[None, None] for _ in range(c.layers)], []
        for at in range(c.context // 2):
            started = time.perf_counter()
            model.logits(model.hidden(tokens[:, at : at + 1], caches, at)[0]).float().cpu()
            seconds.append(time.perf_counter() - started)
        self.figure("decode_plain", "decode, bfloat16, one stream, plain", 1 / statistics.median(seconds), "tok/s")

    @torch.inference_mode()
    def decode_static(self, compiled):
        """A cache of fixed size and experts by look-up; started as one CUDA graph, of its own or the compiler's."""
        c, model = self.c, make_model(self.c, True, self.device).bfloat16().eval()
        heads = (1, c.context, c.heads, c.head_dim)
        keys = [torch.zeros(heads, dtype=BFLOAT16, device=self.device) for _ in range(c.layers)]
        values = [torch.zeros_like(k) for k in keys]
        token = torch.zeros(1, dtype=torch.long, device=self.device)
        place = torch.zeros(1, dtype=torch.long, device=self.device)
        order = torch.arange(c.context, device=self.device)

        def write(token, place):
            x = model.embed_tokens(token)
            cos, sin = model.cos[place].to(BFLOAT16), model.sin[place].to(BFLOAT16)
            seen = (order <= place)[None, None, None]
            for layer, key, value in zip(model.layers, keys, values):
                attention, normed = layer.self_attn, layer.input_layernorm(x)
                q, k, v = (f(normed).view(1, c.heads, c.head_dim) for f in (attention.q_proj, attention.k_proj, attention.v_proj))
                q, k = peer.rotate(q, cos[:, None], sin[:, None]), peer.rotate(k, cos[:, None], sin[:, None])
                key.index_copy_(1, place, k[None]), value.index_copy_(1, place, v[None])
                out = F.scaled_dot_product_attention(
                    q[:, :, None], key.transpose(1, 2), value.transpose(1, 2), attn_mask=seen
                )
                x = x + attention.o_proj(out.reshape(1, -1))
                x = x + layer.block_sparse_moe.one_token(layer.post_attention_layernorm(x))
            return model.logits(model.norm(x)).float()

        start = write
        if compiled:
            start = torch.compile(write, mode="reduce-overhead", fullgraph=True)
        elif self.device == "cuda":
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):
                    write(token, place)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                logits = write(token, place)

            def start(token, place):
                graph.replay()
                return logits

        text, seconds = torch.randint(c.vocab, (c.context,), device=self.device), []
        for turn in range(2):  # the first is warm-up
            for at in range(c.context // 2):
                started = time.perf_counter()
                token.copy_(text[at : at + 1]), place.fill_(at)
                start(token, place).cpu()
                if turn == 1:
                    seconds.append(time.perf_counter() - started)
        kind = "compiled" if compiled else "CUDA graph"
        key = "decode_compiled" if compiled else "decode_graph"
        figure = f"decode, bfloat16, one stream, fixed cache, {kind}"
        self.figure(key, figure, 1 / statistics.median(seconds), "tok/s")

    def run(self):
        train = f"train, bfloat16, {self.tokens} tokens a step"
        self.part("training, eager", lambda: self.train("train_eager", f"{train}, experts one by one", False, False))
        self.part("decoding, plain", self.decode_plain)
        self.part("decoding, graph", lambda: self.decode_static(False))
        self.part(
            "training, grouped, eager", lambda: self.train("train_grouped_eager", f"{train}, grouped", True, False)
        )
        self.part(
            "training, grouped, compiled",
            lambda: self.train("train_grouped_compiled", f"{train}, grouped, compiled", True, True),
        )
        self.part("decoding, compiled", lambda: self.decode_static(True))


def run(arguments):
    torch.manual_seed(1)
    torch.set_float32_matmul_precision("high")
    Peer(arguments).run()
