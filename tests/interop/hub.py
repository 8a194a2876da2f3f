"""The architectures of the hub, both ways: transformers' random checkpoints give the same logits, the same greedy tokens
and the same losses in training here, and what is saved here gives the same there."""

import json
import os
import pathlib

import judge

transformers, torch, safetensors = judge.need("transformers", "torch", "safetensors.torch")
tester = judge.tester()
root = judge.new_folder()
torch.manual_seed(3)
torch.set_num_threads(1)
tokens = [3, 250, 17, 17, 99, 4, 63, 201, 8, 0, 5, 77, 130, 2, 44, 259]

sizes = dict(vocab_size=260, hidden_size=32, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=32,
             rope_parameters={"rope_type": "default", "rope_theta": 5000.0})
mixture = dict(num_hidden_layers=3, intermediate_size=48, moe_intermediate_size=24, num_experts_per_tok=2)
configs = {
    "mixtral": transformers.MixtralConfig(**sizes, num_hidden_layers=1, intermediate_size=48, num_local_experts=4,
                                          sliding_window=6, eos_token_id=[2, 5]),
    "llama": transformers.LlamaConfig(**sizes, num_hidden_layers=2, intermediate_size=48, attention_bias=True, mlp_bias=True,
                                      tie_word_embeddings=True, rms_norm_eps=1e-4),
    "mistral": transformers.MistralConfig(**sizes, num_hidden_layers=2, intermediate_size=48, head_dim=16, sliding_window=6),
    "qwen2": transformers.Qwen2Config(**sizes, num_hidden_layers=2, intermediate_size=48, tie_word_embeddings=True),
    "qwen3": transformers.Qwen3Config(**sizes, num_hidden_layers=2, intermediate_size=48, head_dim=16),
    "qwen3_moe": transformers.Qwen3MoeConfig(**sizes, **mixture, num_experts=4, head_dim=8, mlp_only_layers=[1],
                                             use_sliding_window=True, sliding_window=6, norm_topk_prob=False),
    "glm4_moe": transformers.Glm4MoeConfig(**{**sizes, "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0,
                                                                           "partial_rotary_factor": 1.0}},
                                           **mixture, head_dim=8, n_routed_experts=6, n_shared_experts=2, use_qk_norm=True,
                                           attention_bias=True, first_k_dense_replace=1),
    # As GLM-4.5 is published: half of a head is rotated, and gates are scaled.
    "glm45": transformers.Glm4MoeConfig(**{**sizes, "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0,
                                                                        "partial_rotary_factor": 0.5}},
                                        **{**mixture, "num_hidden_layers": 2}, head_dim=8, n_routed_experts=6,
                                        n_shared_experts=1, use_qk_norm=False, attention_bias=True, first_k_dense_replace=1,
                                        routed_scaling_factor=2.5),
    "dots1": transformers.Dots1Config(**sizes, **{**mixture, "num_hidden_layers": 2}, head_dim=8, n_routed_experts=6,
                                      n_shared_experts=1, first_k_dense_replace=1, sliding_window=None,
                                      routed_scaling_factor=2.5),
    "qwen2_moe": transformers.Qwen2MoeConfig(**sizes, **{**mixture, "num_hidden_layers": 2}, num_experts=4,
                                             shared_expert_intermediate_size=40),
    "olmoe": transformers.OlmoeConfig(**sizes, num_hidden_layers=2, intermediate_size=24, num_experts=4, num_experts_per_tok=2),
    "olmoe_normalised": transformers.OlmoeConfig(**sizes, num_hidden_layers=2, intermediate_size=24, num_experts=4,
                                                 num_experts_per_tok=2, norm_topk_prob=True),
    "gpt2": transformers.GPT2Config(vocab_size=260, n_embd=32, n_layer=2, n_head=4, n_inner=48, n_positions=32,
                                    activation_function="gelu_new", resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
                                    bos_token_id=1, eos_token_id=2),
}


def numbers(name, command, folder, *rest):
    lines = judge.run(tester, name, command, folder, *rest).split("\n")
    return [[float(number) for number in line.split()] for line in lines if line]


def compare(name, folder, model, what):
    """Logits after each token to 1e-5 of the largest, and greedy tokens, of a folder here and a model there."""
    model.eval()
    with torch.no_grad():
        theirs = model(torch.tensor([tokens])).logits[0].double()
        greedy = model.generate(torch.tensor([tokens[:4]]), max_new_tokens=12, do_sample=False, eos_token_id=None,
                                pad_token_id=0)[0, 4:].tolist()
    ours = torch.tensor(numbers(name, "logits", folder, *tokens), dtype=torch.float64)
    error = ((ours - theirs).abs().max() / theirs.abs().max()).item()
    judge.check(error < 1e-5, f"{what} of {name}: the logits differ by {error}")
    mine = [int(number) for number in numbers(name, "greedy", folder, 12, *tokens[:4])[0]]
    judge.check(mine == greedy, f"{what} of {name}: greedy tokens are {mine}, transformers' {greedy}")
    return error


def random_weights(model):
    """Weights that are large enough to tell mistakes apart, biases and buffers too."""
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point() and "inv_freq" not in name:
                tensor.copy_(torch.randn_like(tensor) * 0.3 + (1.0 if "norm.weight" in name or "ln_" in name else 0.0))
    return model


def losses(model, weight, steps=5):
    """Five steps of AdamW there."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0)
    ids = torch.tensor([tokens])
    result = []
    for _ in range(steps):
        out = model(ids[:, :-1], **({"output_router_logits": True} if weight else {}))
        loss = torch.nn.functional.cross_entropy(out.logits[0], ids[0, 1:])
        result.append(loss.item())
        (loss + (weight * out.aux_loss if weight else 0)).backward()
        optimizer.step()
        optimizer.zero_grad()
    return result


def in_half(name, model):
    """float16 and bfloat16, in shards with an index, and as transformers 4 writes config.json."""
    for dtype in (torch.float16, torch.bfloat16):
        folder = root / f"{name}-{dtype}".replace("torch.", "")
        half = type(model)(model.config)
        half.load_state_dict(model.state_dict())
        half.to(dtype).save_pretrained(folder, max_shard_size="20KB")
        judge.check((folder / "model.safetensors.index.json").exists(), f"{folder} has no shards")
        config = json.loads((folder / "config.json").read_text())
        config["torch_dtype"] = config.pop("dtype")
        rope = config.pop("rope_parameters", None)
        if rope:
            config["rope_theta"] = rope["rope_theta"]
            if "partial_rotary_factor" in rope:
                config["partial_rotary_factor"] = rope["partial_rotary_factor"]
        (folder / "config.json").write_text(json.dumps(config))
        loaded = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
        compare(name, folder, loaded, str(dtype))
    return folder


for name, config in configs.items():
    folder = root / name
    model = random_weights(transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")).float()
    model.save_pretrained(folder)
    error = compare(name, folder, model, "import")
    shards = in_half(name, model)
    # Out again: the same class computes the same from what was saved here; as another class, where there is a simpler one.
    judge.run(tester, name, "save", folder, root / f"{name}-saved")
    saved = transformers.AutoModelForCausalLM.from_pretrained(root / f"{name}-saved", attn_implementation="eager")
    compare(name, folder, saved, "export")
    # A balance loss of transformers' is K times ours, and taken over all layers together: here is one.
    weight = 0.05 if name == "mixtral" else 0.0
    theirs = losses(model, weight)
    ours = numbers(name, "train", folder, 5, 2 * weight, *tokens)[0]
    worst = max(abs(a / b - 1) for a, b in zip(ours, theirs))
    judge.check(worst < 1e-5, f"the losses of {name} are {ours}, transformers' {theirs}")
    print(f"{name}: logits to {error:.1e}, losses of five steps to {worst:.1e}, saved as {type(saved).__name__}")

for name, expected in {"glm4_moe_plain": "Glm4MoeForCausalLM", "glm4_moe_odd": "Glm4MoeForCausalLM",
                       "qwen2_moe_plain": "Qwen2MoeForCausalLM", "gpt2_plain": "GPT2LMHeadModel"}.items():
    folder = root / name
    judge.run(tester, name, "random", folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    judge.check(type(model).__name__ == expected, f"{name} is a {type(model).__name__}")
    error = compare(name, folder, model, "export")
    # As transformers saves it, it is still this model.
    model.save_pretrained(root / f"{name}-again")
    compare(name, root / f"{name}-again", model, "saved by transformers")
    print(f"{name}: logits to {error:.1e} as {expected}")

# The type that `describe` tells compiles, and has the counts that it tells.
describe = judge.program("describe")
program = ""
for name in configs:
    text = judge.run(describe, root / name, "--name", f"Hub_{name}")
    counts = [int(word.strip(",")) for word in text.split("\n")[1].split() if word.strip(",").isdigit()]
    stored = sum(tensor.numel() for tensor in safetensors.load_file(root / name / "model.safetensors").values())
    judge.check(counts[0] == stored, f"describe counts {counts[0]} parameters of {name}, the file has {stored}")
    program += text + f"static_assert(tinymoe::count<Hub_{name}>().total == {counts[0]});\n"
    program += f"static_assert(tinymoe::count<Hub_{name}>().active == {counts[1]});\n"
(root / "types.cpp").write_text(program)
judge.run(os.environ.get("CXX", "g++"), "-std=c++20", "-fsyntax-only", "-I", pathlib.Path(__file__).parents[2] / "include",
          root / "types.cpp")
published = {"MixtralForCausalLM": (transformers.MixtralConfig(), "46702792704"),  # 8x7B
             "Qwen3MoeForCausalLM": (transformers.Qwen3MoeConfig(num_hidden_layers=48, head_dim=128), "30532122624")}  # 30B-A3B
for name, (config, count) in published.items():
    config.save_pretrained(root / name)
    text = judge.run(describe, root / name)
    judge.check(f"// {count} parameters" in text, f"{name} of {count} parameters: {text}")

# What is wrong with a folder is said in a sentence that names the file.
def spoil(name, change, *parts):
    folder = root / "spoiled"
    judge.run("rm", "-rf", folder)
    judge.run("cp", "-r", shards if name == "gpt2" else root / name, folder)
    change(folder)
    said = judge.refused(parts[0], tester, name, "logits", folder, 1)
    for part in parts:
        judge.check(part in said, f"said {said!r} without {part!r}")


def edit(file, change):
    def edited(folder):
        content = json.loads((folder / file).read_text())
        change(content)
        (folder / file).write_text(json.dumps(content))
    return edited


index = "model.safetensors.index.json"
first = "model-00001-of-"
spoil("gpt2", lambda folder: next(folder.glob(first + "*")).unlink(), first, "is missing", index)
spoil("gpt2", edit(index, lambda content: content["weight_map"].update({"x": content["weight_map"]["transformer.wpe.weight"]})),
      index, "tensor x should be in", "does not have it")
spoil("gpt2", edit(index, lambda content: content["weight_map"].pop("transformer.wpe.weight")), index,
      "does not have the tensor transformer.wpe.weight")
spoil("gpt2", edit(index, lambda content: content["weight_map"].update({"transformer.wpe.weight": "../x.safetensors"})), index,
      "names of files beside it")
spoil("gpt2", edit(index, lambda content: content.pop("weight_map")), index, "weight_map")
spoil("qwen3_moe", edit("config.json", lambda content: content.update(model_type="qwen3_next")), "config.json", "qwen3_next")
spoil("qwen3_moe", edit("config.json", lambda content: content.update(norm_topk_prob=True)), "config.json",
      "normalised_gates is true", "false")
spoil("qwen3_moe", edit("config.json", lambda content: content.update(num_local_experts=8)), "config.json",
      "layer 0's experts is 8")
spoil("qwen3_moe", edit("config.json", lambda content: content.update(model_type="llama")), "config.json",
      "LlamaForCausalLM has no mixture of experts")
spoil("glm4_moe", edit("config.json", lambda content: content.update(routed_scaling_factor=2.5)), "config.json",
      "gate_scale is 2.5")
spoil("glm4_moe", edit("config.json", lambda content: content["rope_parameters"].update(partial_rotary_factor=0.5)),
      "config.json", "rotated is 4")
spoil("glm4_moe", edit("config.json", lambda content: content["rope_parameters"].update(partial_rotary_factor=0.4)),
      "config.json", "partial_rotary_factor is 0.4")
spoil("olmoe", edit("config.json", lambda content: content.update(clip_qkv=8.0)), "config.json", "clip_qkv is 8")
spoil("qwen2_moe", edit("config.json", lambda content: content.update(shared_expert_intermediate_size=48)), "config.json",
      "shared_hidden is 48")
spoil("llama", edit("config.json", lambda content: content["rope_parameters"].update(rope_type="llama3")), "config.json",
      "rope_type", "llama3")


judge.refused("describe: ", describe, root / "nowhere")
(root / "bert.json").write_text('{"model_type": "bert"}')
judge.refused('bert.json: model_type is "bert"; tinymoe reads mixtral, llama', describe, root / "bert.json")


def nan(folder):
    tensors = safetensors.load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.experts.2.up_proj.weight" if "model.layers.1.mlp.experts.2.up_proj.weight" in tensors
            else "model.norm.weight"].view(-1)[3] = float("nan")
    safetensors.save_file(tensors, folder / "model.safetensors", {"format": "pt"})


spoil("glm4_moe", nan, "model.safetensors", "model.layers.1.mlp.experts.2.up_proj.weight", "number 3 is nan")
print("ok")
