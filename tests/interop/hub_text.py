"""A folder that `train` wrote is a model to transformers with no further line: its greedy text is that of `sample`."""

import json

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
print("ok")
