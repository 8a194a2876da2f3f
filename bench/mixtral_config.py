#!/usr/bin/env python3
"""What transformers' MixtralConfig makes of a config.json, beside what tinymoe makes of it.

    pip install transformers==4.46.3    (in one environment; transformers 5 in another)
    bench/mixtral_config.py             compares tests/checkpoint/mixtral_config.json with the transformers that is here
    bench/mixtral_config.py --write     writes what this version says into that file

Each case is a file {"model_type": "mixtral"} with a few fields. For each, tests/checkpoint/config.cpp checks that
tinymoe reads the values that one of the versions reads, or refuses the file. Without transformers it skips (exit 4).
"""
import json
import pathlib
import sys

TABLE = pathlib.Path(__file__).resolve().parent.parent / "tests/checkpoint/mixtral_config.json"
WHOLE = ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
         "num_key_value_heads", "num_local_experts", "num_experts_per_tok", "max_position_embeddings"]
REAL = ["rms_norm_eps", "attention_dropout", "router_aux_loss_coef", "router_jitter_noise", "initializer_range"]
FLAGS = ["tie_word_embeddings", "output_router_logits", "use_cache"]

LOADS = [
    {},
    *({name: value} for name, value in [
        ("vocab_size", 32000), ("hidden_size", 4096), ("intermediate_size", 14336), ("num_hidden_layers", 32),
        ("num_attention_heads", 32), ("num_key_value_heads", 8), ("head_dim", 128), ("head_dim", None),
        ("hidden_act", "silu"), ("hidden_act", "swish"), ("sliding_window", None), ("num_local_experts", 8),
        ("num_experts", 8), ("num_experts_per_tok", 2), ("tie_word_embeddings", False),
        ("max_position_embeddings", 131072), ("max_position_embeddings", 10**6), ("rms_norm_eps", 1e-6),
        ("rms_norm_eps", 1.0), ("rms_norm_eps", 1), ("attention_dropout", 0.25), ("attention_dropout", 0),
        ("router_aux_loss_coef", 0.02), ("router_aux_loss_coef", 0), ("router_jitter_noise", 0.0),
        ("output_router_logits", True), ("initializer_range", 0.5), ("use_cache", False), ("torch_dtype", "bfloat16"),
        ("torch_dtype", None), ("dtype", "float16"), ("architectures", ["MixtralForCausalLM"]), ("architectures", None),
        ("architectures", ["MixtralModel"]), ("is_causal", True),
        ("quantization_config", None), ("attention_bias", False), ("mlp_bias", None), ("pruned_heads", {}),
        ("transformers_version", "4.99"), ("temperature", 0.5), ("something", {"else": [1, None]}),
        ("rope_theta", 10000), ("rope_theta", 5e5), ("rope_parameters", None), ("rope_parameters", {}),
        ("rope_scaling", None), ("rope_scaling", {}), ("rope_parameters", {"rope_type": "default"}),
        ("rope_parameters", {"rope_type": "default", "rope_theta": 777.0}), ("rope_parameters", {"rope_theta": 777}),
        ("rope_scaling", {"type": "default", "rope_theta": 777.0})]),
    {"rope_theta": 5000.0, "rope_parameters": None},
    {"rope_theta": None, "rope_parameters": {"rope_theta": 777.0}},
    {"rope_theta": 777, "rope_parameters": {"rope_type": "default", "rope_theta": 777.0}},
    {"rope_theta": 777.0, "rope_parameters": {"rope_type": "default"}, "rope_scaling": None},
    {"rope_theta": 777.0, "rope_scaling": {"rope_type": "default"}},
    {"rope_theta": 777.0, "rope_parameters": {"rope_theta": 777.0}, "rope_scaling": {"type": "default"}},
    {"rope_parameters": {"rope_theta": 777.0}, "rope_scaling": {}},
    {"rope_parameters": {"rope_theta": 777.0}, "rope_scaling": {"rope_theta": 777}},
    {"rope_parameters": {"rope_theta": 1e6}, "rope_scaling": {"factor": None}},
]
REFUSED = [
    *({name: value} for name in WHOLE for value in [None, 7, -1, 0, 2.0, "8", True, [8], 10**30]),
    *({name: value} for name in REAL for value in [None, "0.1", True, [0.1]]),
    *({name: -1.0} for name in REAL if name != "initializer_range"),
    *({name: value} for name in FLAGS for value in [None, 0, 1, "false"]),
    *({"head_dim": value} for value in [0, 64, 128.0, "128", True]),
    *({"hidden_act": value} for value in [None, "gelu", "SiLU", "silu ", 1, ["silu"]]),
    *({"sliding_window": value} for value in [4096, 0, 4096.0, False, "4096"]),
    *({"num_experts": value} for value in [None, 4, 8.0]),
    *({"tie_word_embeddings": value} for value in [True]),
    *({"rope_theta": value} for value in [None, "1e6", True, 0, -1e6, [1e6], {}]),
    *({"rope_parameters": value} for value in [
        [], "default", 1e6, {"rope_theta": None}, {"rope_type": None}, {"rope_theta": "1e6"}, {"rope_theta": 0},
        {"rope_type": "linear", "factor": 2.0}, {"rope_type": "default", "factor": 2.0},
        {"rope_type": "yarn", "factor": 2.0}, {"rope_type": "dynamic", "factor": 2.0}, {"rope_type": "mine"},
        {"rope_type": "default", "type": "linear"}, {"rope_type": "default", "partial_rotary_factor": 0.5},
        {"full_attention": {"rope_type": "default", "rope_theta": 777.0}}]),
    *({"rope_scaling": value} for value in [
        {"type": "linear", "factor": 2.0}, {"rope_type": "llama3", "factor": 8.0}, {"factor": 2.0}, [1], "linear"]),
    {"rope_theta": 5.0, "rope_parameters": {"rope_type": "default", "rope_theta": 7.0}},
    {"rope_parameters": {"rope_theta": 5.0}, "rope_scaling": {"rope_type": "default", "rope_theta": 7.0}},
    *({"rope_parameters": {"rope_theta": 777.0}, "rope_scaling": value} for value in [
        {"rope_type": "default"}, {"type": "default"}, {"factor": None}]),
    {"rope_parameters": {"rope_type": "default"}, "rope_scaling": {"rope_theta": 777.0}},
    {"rope_theta": 5.0, "rope_parameters": {"rope_theta": 777.0}, "rope_scaling": {"rope_type": "default"}},
    {"rope_theta": None, "rope_parameters": {"rope_theta": 777.0}, "rope_scaling": {"rope_type": "default"}},
    *({"is_causal": value} for value in [False, None, 0, "true"]),
    *({name: value} for name, value in [
        ("router_jitter_noise", 0.1), ("attention_dropout", 1.0), ("model_type", None), ("model_type", "mistral"),
        ("model_type", "tinymoe"), ("torch_dtype", "int8"), ("torch_dtype", 2), ("dtype", "torch.float32"),
        ("architectures", ["MixtralForSequenceClassification"]), ("architectures", "MixtralModel"),
        ("quantization_config", {"quant_method": "gptq"}),
        ("attention_bias", True), ("mlp_bias", True), ("partial_rotary_factor", 0.5), ("norm_topk_prob", False),
        ("pruned_heads", {"0": [1]}), ("per_layer_config", {"0": {"hidden_act": "gelu"}}),
        ("layer_types", ["sliding_attention"]), ("auto_map", {"AutoModelForCausalLM": "mine.Model"}),
        ("logits_scaling", 8.0), ("final_logit_softcapping", 30.0), ("n_shared_experts", 1), ("clip_qkv", 8.0)]),
]


def read(fields, version, config_class):
    """The values of a model that transformers would build from a file, or "refused"."""
    try:
        config = config_class.from_dict(json.loads(json.dumps({"model_type": "mixtral", **fields})))
        values = {name: getattr(config, name) for name in WHOLE + REAL + FLAGS + ["hidden_act", "sliding_window"]}
        rope = config.rope_parameters if version == 5 else {"rope_type": "default", "rope_theta": config.rope_theta}
        values.update(rope_theta=rope["rope_theta"], rope_type=rope["rope_type"])
        head = getattr(config, "head_dim", None) if version == 5 else None
        values["head_dim"] = head or config.hidden_size // config.num_attention_heads
    except Exception:
        return "refused"
    # Without types of its own, 4.46 fails later, in PyTorch.
    numbers = [values[name] for name in REAL + ["rope_theta"]]
    good = (all(type(values[name]) is int and values[name] > 0 for name in WHOLE + ["head_dim"]) and
            all(type(number) in (int, float) for number in numbers) and
            all(type(values[name]) is bool for name in FLAGS) and
            type(values["sliding_window"]) in (int, type(None)))
    return values if good else "refused"


def main():
    try:
        import transformers
    except ImportError:
        print("skipped: transformers is not installed")
        return 4
    transformers.logging.set_verbosity(transformers.logging.CRITICAL)
    version = int(transformers.__version__.split(".")[0])
    column = f"transformers {version}"
    table = json.loads(TABLE.read_text()) if TABLE.exists() else {"cases": []}
    known = {json.dumps(case["fields"], sort_keys=True): case for case in table["cases"]}
    plain = read({}, version, transformers.MixtralConfig)
    cases, differing = [], 0
    for fields, loads in [(fields, True) for fields in LOADS] + [(fields, False) for fields in REFUSED]:
        case = known.get(json.dumps(fields, sort_keys=True), {})
        values = read(fields, version, transformers.MixtralConfig)
        if fields and values != "refused":  # what it changes
            values = {name: value for name, value in values.items() if value != plain[name]}
        if case.get(column) != values:
            differing += 1
            print(f"{json.dumps(fields)}: transformers {transformers.__version__} reads {json.dumps(values)}, "
                  f"the table has {json.dumps(case.get(column))}")
        cases.append({**case, "fields": fields, "loads": loads, column: values})
    if "--write" in sys.argv[1:]:
        lines = ",\n".join("  " + json.dumps(case, sort_keys=True) for case in cases)
        TABLE.write_text(f'{{"cases": [\n{lines}\n]}}\n')
        print(f"wrote {len(cases)} cases for {column}")
        return 0
    print(f"{len(cases)} cases, {differing} differ")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
