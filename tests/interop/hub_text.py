"""A folder that `train` wrote is a model to transformers with no further line: its greedy text is that of `sample`."""

import base64
import json
import pathlib

import judge

transformers, torch = judge.need("transformers", "torch")
train, sample = judge.program("train"), judge.program("sample")
folder = judge.new_folder() / "run"
judge.run(train, "--preset", "pocket", "--embedded", 300, "--batch", 4, "--steps", 60, "--out", folder)

tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
model = transformers.AutoModelForCausalLM.from_pretrained(folder)
judge.check(type(model).__name__ == "MixtralForCausalLM", f"the model is a {type(model).__name__}")
ids = tokenizer("Once upon a time")["input_ids"]
judge.check(ids[0] == tokenizer.bos_token_id == model.generation_config.bos_token_id, f"a text begins with {ids[0]}")
judge.check(tokenizer.eos_token_id == model.generation_config.eos_token_id, "the ends of a text differ")
judge.check(tokenizer.decode(ids, skip_special_tokens=True) == "Once upon a time", f"decoded: {tokenizer.decode(ids)!r}")
for prompt in ["Once upon a time", "One day, Tom", "", "The cat  sat.\nÉté 雪"]:
    ours = judge.run(sample, folder, "--prompt", prompt, "--temperature", 0, "--tokens", 40, "--quiet")[:-1]
    tokens = model.generate(**tokenizer(prompt, return_tensors="pt"), max_new_tokens=40, do_sample=False)
    theirs = tokenizer.decode(tokens[0], skip_special_tokens=True)
    judge.check(ours == theirs, f"after {prompt!r} tinymoe writes {ours!r}, transformers {theirs!r}")

# As transformers saves it, without a word of tinymoe's, it is still this preset.
foreign = judge.new_folder() / "foreign"
model.save_pretrained(foreign)
tokenizer.save_pretrained(foreign)
config = json.loads((foreign / "config.json").read_text())
(foreign / "config.json").write_text(json.dumps({key: value for key, value in config.items() if "tinymoe" not in key}))
arguments = ["--prompt", "One day, Tom", "--temperature", 0, "--tokens", 40, "--quiet"]
ours, theirs = judge.run(sample, folder, *arguments), judge.run(sample, foreign, *arguments)
judge.check(ours == theirs, f"from the folder of transformers: {theirs!r} instead of {ours!r}")

# A folder of somebody else, whose tokenizer puts nothing before a text.
content = json.loads((foreign / "tokenizer.json").read_text())
(foreign / "tokenizer.json").write_text(json.dumps({**content, "post_processor": None}))
tokenizer = transformers.AutoTokenizer.from_pretrained(foreign)
for prompt in ["Once upon a time", "One day, Tom"]:
    ids = tokenizer(prompt, return_tensors="pt")
    judge.check(ids["input_ids"][0, 0] != tokenizer.bos_token_id, f"transformers begins with {ids}")
    tokens = model.generate(**ids, max_new_tokens=40, do_sample=False)
    theirs = tokenizer.decode(tokens[0], skip_special_tokens=True)
    ours = judge.run(sample, foreign, "--prompt", prompt, "--temperature", 0, "--tokens", 40, "--quiet")[:-1]
    judge.check(ours == theirs, f"after {prompt!r} tinymoe writes {ours!r}, transformers {theirs!r}")

# The same with a tokenizer of others, whose file puts nothing before a text.
tokenizers = judge.need("tokenizers")
theirs = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>"))
theirs.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
theirs.decoder = tokenizers.decoders.Metaspace()
texts = ["Once upon a time, there was a cat. The cat was happy.", "One day, Tom saw a dog. They ran to the park."]
trainer = tokenizers.trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>", "<|endoftext|>"],
                                         initial_alphabet=[chr(i) for i in range(33, 127)])
theirs.train_from_iterator(texts, trainer)
theirs.save(str(folder.parent / "theirs.json"))
judge.run(train, "--preset", "pocket", "--embedded", 100, "--batch", 4, "--steps", 60, "--out", folder.parent / "other",
          "--tokenizer", folder.parent / "theirs.json")
tokenizer = transformers.AutoTokenizer.from_pretrained(folder.parent / "other")
model = transformers.AutoModelForCausalLM.from_pretrained(folder.parent / "other")
for prompt in ["Once upon a time", ""]:
    ours = judge.run(sample, folder.parent / "other", "--prompt", prompt, "--temperature", 0, "--tokens", 40, "--quiet")[:-1]
    tokens = model.generate(**tokenizer(prompt, return_tensors="pt"), max_new_tokens=40, do_sample=False)
    theirs = tokenizer.decode(tokens[0], skip_special_tokens=True)
    judge.check(ours == theirs, f"after {prompt!r} tinymoe writes {ours!r}, transformers {theirs!r}")

# A model of sentencepiece, of Llama 2's kind, has a tokenizer.json beside it; of another one `train` says why there is none.
cases = json.loads((pathlib.Path(__file__).parents[1] / "text" / "sentencepiece_cases.json").read_text())
for case in cases["models"]:
    model_file = folder.parent / f"{case['name']}.model"
    model_file.write_bytes(base64.b64decode(case["model"]))
    out = folder.parent / case["name"]
    said = judge.run(train, "--preset", "pocket", "--embedded", 60, "--batch", 4, "--steps", 60 if case["name"] == "llama2" else 1, "--out", out, "--tokenizer", model_file)
    judge.check((out / "tokenizer.model").read_bytes() == model_file.read_bytes(), f"{case['name']}: the model is another one")
    if case["name"] != "llama2":
        judge.check("note: transformers cannot read this tokenizer" in said, f"{case['name']}: train said {said!r}")
        judge.check(not (out / "tokenizer.json").exists(), f"{case['name']}: there is a tokenizer.json")
        continue
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    model = transformers.AutoModelForCausalLM.from_pretrained(out)
    for text, tokens, decoded in case["texts"]:
        if any(name in text for name in tokenizer.get_added_vocab()):
            continue
        ids = tokenizer(text)["input_ids"]
        judge.check(ids[1:] == tokens, f"{text!r}: transformers has {ids}, expected {tokens}")
        judge.check(ids[0] == model.generation_config.bos_token_id, f"a text begins with {ids[0]}")
        back = tokenizer.decode(ids, skip_special_tokens=True)
        judge.check(back == decoded, f"decoded {back!r}, expected {decoded!r}")
    for prompt in ["Once upon a time", "One day, Tom"]:
        ours = judge.run(sample, out, "--prompt", prompt, "--temperature", 0, "--tokens", 40, "--quiet")[:-1]
        tokens = model.generate(**tokenizer(prompt, return_tensors="pt"), max_new_tokens=40, do_sample=False)
        theirs = tokenizer.decode(tokens[0], skip_special_tokens=True)
        judge.check(ours == theirs or "\ufffd" in theirs, f"after {prompt!r} tinymoe writes {ours!r}, transformers {theirs!r}")
print("ok")
