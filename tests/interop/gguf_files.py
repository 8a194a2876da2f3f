"""GGUF files of tinymoe's against their readers: the package gguf, and llama.cpp as llama-cpp-python has it."""

import ctypes
import json
import sys
import unicodedata

import judge

numpy, gguf, llama_cpp = judge.need("numpy", "gguf", "llama_cpp")

TEXT = "Once upon a time, there was a little girl named Lily."  # the tester's, too

# How far logits may be from tinymoe's, as a share of the largest. llama.cpp multiplies blocks by activations that it has rounded
# to 8 bits, and bfloat16 by bfloat16, so that a token may go to another expert: there it is the median of the tokens.
# Its GELU takes float16 in and out.
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.03, "q8_0": 0.2, "q4_0": 0.6}


@llama_cpp.llama_log_callback
def keep_quiet(level, text, data):
    if level == 4:  # an error
        sys.stderr.write(text.decode(errors="replace"))


llama_cpp.llama_log_set(keep_quiet, ctypes.c_void_p(0))


class Model:
    """A file in llama.cpp, on the CPU, with a cache in float32."""

    def __init__(self, path, context=64):
        options = llama_cpp.llama_model_default_params()
        options.n_gpu_layers = 0
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), options)
        judge.check(self.model, f"llama.cpp does not load {path.name}")
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)
        self.tokens = llama_cpp.llama_vocab_n_tokens(self.vocab)
        self.context = context

    def logits(self, tokens, more=0):
        """The logits after each token and after `more` of the most likely ones that follow, and those tokens."""
        options = llama_cpp.llama_context_default_params()
        options.n_ctx = options.n_batch = options.n_ubatch = self.context
        options.n_threads = options.n_threads_batch = 1
        options.type_k = options.type_v = 0  # float32
        options.flash_attn_type = 0
        context = llama_cpp.llama_init_from_model(self.model, options)
        rows, tokens, made = [], list(tokens), []
        while tokens:
            batch = llama_cpp.llama_batch_get_one((llama_cpp.llama_token * 1)(tokens.pop(0)), 1)
            judge.check(llama_cpp.llama_decode(context, batch) == 0, "llama.cpp does not decode")
            rows.append(numpy.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, -1), (self.tokens,)).copy())
            if not tokens and len(made) < more:
                made.append(int(rows[-1].argmax()))
                tokens.append(made[-1])
        llama_cpp.llama_free(context)
        return numpy.array(rows), made

    def encode(self, text):
        found = (llama_cpp.llama_token * 1000)()
        data = text.encode()
        count = llama_cpp.llama_tokenize(self.vocab, data, len(data), found, 1000, True, False)
        return list(found[:count])

    def decode(self, tokens):
        text = b""
        for token in tokens:
            piece = ctypes.create_string_buffer(256)
            count = llama_cpp.llama_token_to_piece(self.vocab, token, piece, 256, 0, False)
            text += piece.raw[:count]
        return text

    def greedy(self, tokens, count):
        """The most likely tokens after these, up to the one that ends a text."""
        made = self.logits(tokens, count)[1]
        ends = [i for i, token in enumerate(made) if llama_cpp.llama_vocab_is_eog(self.vocab, token)]
        return made[: ends[0]] if ends else made

    def close(self):
        llama_cpp.llama_model_free(self.model)


def check_tensors(path, kind, numbers):
    """The tensors of a file are those of the float32 file, rounded as the package gguf rounds them."""
    quantized = getattr(gguf.GGMLQuantizationType, {"float32": "F32", "bfloat16": "BF16"}.get(kind, kind.upper()))
    of_kind = 0
    for tensor in gguf.GGUFReader(path).tensors:
        wanted = numbers[tensor.name]
        if tensor.tensor_type != gguf.GGMLQuantizationType.F32:
            judge.check(tensor.tensor_type == quantized, f"{path.name}: {tensor.name} is {tensor.tensor_type.name}")
            wanted = gguf.quants.quantize(wanted, quantized)
            of_kind += 1
        judge.check((tensor.data == wanted).all(), f"{path.name}: {tensor.name} has other numbers")
    judge.check(kind == "float32" or of_kind > 0, f"{path.name}: has no tensor of {kind}")


def random_models():
    """Models of every kind, with random weights: all tensors arrive, and logits and tokens are the same."""
    folder = judge.new_folder()
    judge.run(judge.tester(), folder)
    facts = sorted(folder.glob("*.json"))
    judge.check(len(facts) >= 10, f"the tester made {len(facts)} models")
    for fact in facts:
        wanted = json.loads(fact.read_text())
        expected = numpy.array(wanted["logits"])
        read = gguf.GGUFReader(fact.with_suffix(".float32.gguf"))
        architecture = read.get_field("general.architecture").contents()
        judge.check(architecture == wanted["architecture"], f"{fact.name}: {architecture} is not {wanted['architecture']}")
        numbers = {tensor.name: numpy.array(tensor.data) for tensor in read.tensors}
        for kind, tolerance in TOLERANCE.items():
            path = fact.with_suffix(f".{kind}.gguf")
            check_tensors(path, kind, numbers)
            model = Model(path)
            judge.check(model.encode(TEXT) == wanted["tokens"], f"{path.name}: {model.encode(TEXT)} are other tokens")
            found, greedy = model.logits(wanted["tokens"], len(wanted["greedy"]) if kind == "float32" else 0)
            apart = abs(found[: len(expected)] - expected).max(axis=1) / abs(expected).max()
            apart = apart.max() if kind == "float32" else numpy.median(apart)
            print(f"{path.name}: logits differ by {apart:.2g} of {abs(expected).max():.3g}")
            if architecture == "gpt2":
                tolerance = max(tolerance, 1e-3)
            judge.check(apart < tolerance, f"{path.name}: logits differ by {apart:.3g} of the largest")
            judge.check(kind != "float32" or greedy == wanted["greedy"], f"{path.name}: greedy tokens are others")
            model.close()
    return folder


def rewritten(source, target, half=True, without=()):
    """The file as the package gguf writes it: matrices in float16, and no word of tinymoe's."""
    read = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, read.get_field("general.architecture").contents())
    for field in read.fields.values():
        if field.name.startswith(("GGUF.", "tinymoe.", "general.architecture", *without)):
            continue
        kind = field.types[0]
        writer.add_key_value(field.name, field.contents(), kind, field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None)
    for tensor in read.tensors:
        data = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        writer.add_tensor(tensor.name, data.astype(numpy.float16) if half and data.ndim > 1 else data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def foreign_models(folder):
    """Files of the package gguf's: tinymoe's logits are llama.cpp's."""
    for name in ["mixtral", "mixtral_biases", "mixtral_narrow", "dense_biases", "dense_norms", "norms", "glm", "glm45", "gated",
                 "olmoe", "gpt2"]:
        path = folder / "foreign.gguf"
        rewritten(folder / f"{name}.float32.gguf", path)
        ours = json.loads(judge.run(judge.tester(), "--read", path, name))
        model = Model(path)
        judge.check(model.encode(TEXT) == ours["tokens"], f"{name}: tinymoe encodes to other tokens than llama.cpp")
        theirs = model.logits(ours["tokens"])[0]
        model.close()
        # llama.cpp rounds activations to float16 here.
        apart = numpy.median(abs(theirs - numpy.array(ours["logits"])).max(axis=1)) / abs(theirs).max()
        print(f"{name}, written by gguf: logits differ by {apart:.2g}")
        judge.check(apart < 4e-3, f"{name}, written by gguf: logits differ by {apart:.3g} of the largest")


def quantized_models(folder):
    """Files of llama.cpp's quantizer: tinymoe reads each of its formats as the numbers that the package gguf makes of it."""
    source, seen = folder / "wide.float32.gguf", set()
    for kind in ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K"]:
        path, plain = folder / f"wide.{kind}.gguf", folder / "plain.gguf"
        options = llama_cpp.llama_model_quantize_default_params()
        options.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
        options.nthread = 1
        made = llama_cpp.llama_model_quantize(str(source).encode(), str(path).encode(), ctypes.byref(options))
        judge.check(made == 0, f"llama.cpp makes no {path.name}")
        rewritten(path, plain, half=False)
        found = {tensor.tensor_type.name for tensor in gguf.GGUFReader(path).tensors}
        seen |= found
        ours, wanted = (
            numpy.array(json.loads(judge.run(judge.tester(), "--read", file, "wide"))["logits"]) for file in [path, plain]
        )
        apart = abs(ours - wanted).max() / abs(wanted).max()
        print(f"{path.name}, of {', '.join(sorted(found))}: logits differ by {apart:.2g}")
        judge.check(apart < 1e-5, f"{path.name}: logits differ by {apart:.3g} of the largest from those of its numbers")
    missing = {"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"} - seen
    judge.check(not missing, f"llama.cpp's quantizer made no {missing}")


def trained_model():
    """A model that train wrote: llama.cpp's greedy text is that of sample, from its file in float32."""
    train, sample, convert = judge.program("train"), judge.program("sample"), judge.program("convert")
    folder = judge.new_folder()
    judge.run(train, "--preset", "pocket", "--embedded", 300, "--batch", 4, "--steps", 60, "--out", folder / "run")
    judge.run(convert, folder / "run", folder / "run.gguf")
    model = Model(folder / "run.gguf")
    for prompt in ["Once upon a time", "One day, Tom", "", "The cat  sat.\nÉté 雪"]:
        ours = judge.run(sample, folder / "run", "--prompt", prompt, "--temperature", 0, "--tokens", 30, "--quiet")[:-1]
        theirs = prompt + model.decode(model.greedy(model.encode(prompt), 30)).decode(errors="replace")
        judge.check(ours == theirs, f"after {prompt!r} tinymoe writes {ours!r}, llama.cpp {theirs!r}")
    model.close()
    # Without its key no token stands before a text of GPT-2's kind: here as in llama.cpp.
    rewritten(folder / "run.gguf", folder / "none.gguf", half=False, without=["tokenizer.ggml.add_bos_token"])
    judge.run(convert, folder / "none.gguf", folder / "none")
    judge.run(convert, folder / "none", folder / "again.gguf")
    for path in [folder / "none.gguf", folder / "again.gguf"]:
        model = Model(path)
        tokens = model.encode("Once upon a time")
        judge.check(model.decode(tokens) == b"Once upon a time", f"{path}: begins with {tokens[0]}")
        ours = judge.run(sample, folder / "none", "--prompt", "Once upon a time", "--temperature", 0, "--tokens", 30, "--quiet")[:-1]
        theirs = "Once upon a time" + model.decode(model.greedy(tokens, 30)).decode(errors="replace")
        judge.check(ours == theirs, f"{path.name}: tinymoe writes {ours!r}, llama.cpp {theirs!r}")
        model.close()
    judge.refused("run.gguf: is there already", convert, folder / "run", folder / "run.gguf")


class Vocabulary:
    """The tokenizer of a file in llama.cpp."""

    def __init__(self, path):
        options = llama_cpp.llama_model_default_params()
        options.vocab_only = True
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), options)
        judge.check(self.model, f"llama.cpp does not load {path.name}")
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)

    def encode(self, text):
        data = text.encode()
        found = (llama_cpp.llama_token * (len(data) + 16))()
        count = llama_cpp.llama_tokenize(self.vocab, data, len(data), found, len(found), False, False)
        judge.check(count >= 0, f"llama.cpp does not encode {text!r}")
        return list(found[:count])

    def close(self):
        llama_cpp.llama_model_free(self.model)


def tokenizers():
    """Tokenizers of the packages tokenizers and sentencepiece: their tokens are llama.cpp's from the file that tinymoe makes of them,
    and tinymoe's from the same file."""
    sentencepiece = judge.need("tokenizers", "sentencepiece")[1]
    import tokenizer_files as known

    folder = judge.new_folder()
    story = known.SENTENCES * 20
    # llama.cpp has other tables of Unicode, and no U+017F in 's.
    texts = [text for text in known.strings(story, 1500, 5) if "ſ" not in text and not any(unicodedata.category(c) in ("Cn", "Co", "Cs") for c in text)]
    (folder / "texts.json").write_text(json.dumps(texts))
    split, then_bytes = known.split, known.then_bytes
    digits = known.P.Digits(individual_digits=True)
    kinds = {
        "gpt-2": (known.P.ByteLevel(add_prefix_space=False), False),
        "llama-bpe": (then_bytes(split(known.LLAMA3)), True),
        "smaug-bpe": (then_bytes(split(known.LLAMA3, "removed", True)), False),
        "qwen2": (then_bytes(split(known.QWEN)), False),
        "qwen35": (then_bytes(split(known.QWEN35)), False),
        "starcoder": (known.P.Sequence([digits, known.P.ByteLevel(add_prefix_space=False)]), False),
        "deepseek-v3": (then_bytes(*map(split, known.DEEPSEEK)), False),
    }

    def compare(name, file, path, unigram=False):
        ours, again = (
            [json.loads(line) for line in judge.run(judge.tester(), "--encode", source, folder / "texts.json").split("\n")[:-1]]
            for source in [file, path]
        )
        judge.check(len(ours) == len(again) == len(texts), f"{name}: {len(ours)} texts")
        vocabulary = Vocabulary(path)
        for text, (tokens, decoded), (later, found) in zip(texts, ours, again):
            theirs = vocabulary.encode(text)
            # llama.cpp adds the scores of a unigram model in double precision: the same pieces may come in another order.
            same = theirs == tokens or (unigram and sorted(theirs) == sorted(tokens))
            judge.check(same, f"{name}: {text!r}: {theirs} of llama.cpp, {tokens} here")
            judge.check(later == tokens, f"{name}: {text!r}: {later} from the file, {tokens} before")
            judge.check(found == decoded, f"{name}: {found!r} from the file, {decoded!r} before")
        vocabulary.close()

    for name, (pre, ignores) in kinds.items():
        tokenizer = known.Tokenizer(known.models.BPE(ignore_merges=ignores))
        tokenizer.pre_tokenizer, tokenizer.decoder = pre, known.D.ByteLevel()
        trainer = known.trainers.BpeTrainer(vocab_size=900, show_progress=False, initial_alphabet=known.P.ByteLevel.alphabet())
        tokenizer.train_from_iterator([story], trainer)
        tokenizer.add_special_tokens(["<s>", "</s>"])
        tokenizer.add_tokens([known.AddedToken("<a b>", normalized=False)])
        tokenizer.save(str(folder / "tokenizer.json"))
        path = folder / f"{name}.gguf"
        judge.run(judge.tester(), "--export", folder / "tokenizer.json", path)
        found = gguf.GGUFReader(path).get_field("tokenizer.ggml.pre").contents()
        judge.check(found == name, f"{name} is written as {found}")
        compare(name, folder / "tokenizer.json", path)

    plain = dict(normalization_rule_name="identity", remove_extra_whitespaces=False)
    models = {name: (options, False) for name, options in known.SENTENCEPIECE.items()}
    models |= {name: (known.SENTENCEPIECE[name], True) for name in ["llama2", "unigram", "unigram_plain", "unigram_folded"]}
    models["no_prefix"] = (dict(model_type="bpe", byte_fallback=True, add_dummy_prefix=False, user_defined_symbols=["<sep>", "12"], **plain), True)
    for name, (options, exported) in models.items():
        options = options | ({"unk_surface": ""} if exported else {})  # llama.cpp writes nothing for what is unknown
        (folder / "tokenizer.model").write_bytes(known.sentencepiece_model(sentencepiece, options, story.split("\n"), folder))
        path = folder / f"{name}.gguf"
        if exported:
            judge.run(judge.tester(), "--export", folder / "tokenizer.model", path)
            compare(name, folder / "tokenizer.model", path, "model_type" not in options)
        else:
            judge.refused("which llama.cpp does not have", judge.tester(), "--export", folder / "tokenizer.model", path)
    print(f"{len(kinds)} kinds of tokenizer.json, {sum(e for _, e in models.values())} sentencepiece models, {len(texts)} texts")


models = random_models()
foreign_models(models)
quantized_models(models)
trained_model()
tokenizers()
print("ok")
