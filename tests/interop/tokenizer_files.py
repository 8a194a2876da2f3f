"""Any BPE or Unigram tokenizer.json encodes and decodes as by the package tokenizers: each kind of its parts, on stories and on
random Unicode. As `tokenizer_files.py --cases` it writes tests/text/pipeline_cases.json, by which tests without Python
are judged; otherwise it checks that this file is what the package says today."""

import base64
import io
import json
import os
import pathlib
import random
import struct
import sys

import judge
from character_map import character_map

tokenizers = judge.need("tokenizers")
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
QWEN = LLAMA3.replace("{1,3}", "")
GPT4 = (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)"
        r"|\s+")
GPT4O = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
DEEPSEEK = [r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+",
            "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
            "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"]
QWEN35 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
BLOOM = " ?[^(\\s|[.,!?…。，、।۔،])]+"
THOUSANDS = r"\d{1,3}(?=(?:\d{3})*\b)"
EXPRESSIONS = [GPT2, LLAMA3, QWEN, GPT4, GPT4O, QWEN35, BLOOM, THOUSANDS, *DEEPSEEK, r"\s+", r"\w+", r"[0-9][0-9][0-9]", r"\p{Han}",
               r"(?<=\p{L})\p{N}", r"\s*\S+?", "", "a|b|", r"(?=\p{Lu})", r"\B", r"[^\S\n]{2,}", r"(?i:the|k)", r"\p{^Latin}+", r"\h+",
               r"[\w&&[^\d]]+", r"^\s|\s$", r"(?:ab?|b{2,})*?c", r"\p{M}+", r"[[:punct:][:digit:]]+"]
# Those that match between two characters. Where a normalizer puts text there, the package (0.23.3) loses count: the next part
# panics, or repeats text.
EMPTY_MATCHES = ["", "a|b|", r"(?=\p{Lu})", r"\B"]
BEHAVIORS = ["removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"]
P, N, D = pre_tokenizers, normalizers, decoders
byte_level = P.ByteLevel(add_prefix_space=False, use_regex=False)


def split(expression, behavior="isolated", invert=False):
    return P.Split(Regex(expression), behavior, invert)


def then_bytes(*steps):
    return P.Sequence([*steps, byte_level])


metaspace_decoder = D.Sequence([D.Replace("▁", " "), D.ByteFallback(), D.Fuse(), D.Strip(" ", 1, 0)])
llama_normalizer = N.Sequence([N.Prepend("▁"), N.Replace(" ", "▁")])
# name: (what the parts are, the model's settings)
KINDS = {
    "gpt2": (dict(pre=P.ByteLevel(add_prefix_space=False), dec=D.ByteLevel(), post=processors.ByteLevel()), {}),
    "prefix_space": (dict(pre=P.ByteLevel(add_prefix_space=True), dec=D.ByteLevel()), {}),
    "no_expression": (dict(pre=byte_level, dec=D.ByteLevel()), {}),
    "gpt2_split": (dict(pre=then_bytes(split(GPT2)), dec=D.ByteLevel()), {}),
    "gpt4": (dict(pre=then_bytes(split(GPT4)), dec=D.ByteLevel()), {}),
    "gpt4_removed": (dict(pre=then_bytes(split(LLAMA3, "removed", True)), dec=D.ByteLevel()), {}),
    "gpt4o": (dict(pre=then_bytes(split(GPT4O)), dec=D.ByteLevel()), {}),
    "llama3": (dict(pre=then_bytes(split(LLAMA3)), dec=D.ByteLevel()), dict(ignore_merges=True)),
    "qwen": (dict(norm=N.NFC(), pre=then_bytes(split(QWEN)), dec=D.ByteLevel()), {}),
    "qwen35": (dict(norm=N.NFC(), pre=then_bytes(split(QWEN35)), dec=D.ByteLevel()), {}),
    "deepseek": (dict(pre=then_bytes(*map(split, DEEPSEEK)), dec=D.ByteLevel()), {}),
    "nanogpt_moe": (dict(pre=P.Whitespace()), dict(unk_token="<|unknown|>")),
    "whitespace_split": (dict(pre=P.WhitespaceSplit(), dec=D.BPEDecoder("</w>")),
                         dict(unk_token="<unk>", end_of_word_suffix="</w>", fuse_unk=True)),
    "prefix": (dict(norm=N.Lowercase(), pre=P.Sequence([P.WhitespaceSplit(), P.Punctuation()]), dec=D.WordPiece("##")),
               dict(unk_token="<unk>", continuing_subword_prefix="##")),
    "metaspace": (dict(pre=P.Metaspace(), dec=D.Metaspace()), dict(unk_token="<unk>")),
    "metaspace_first": (dict(pre=P.Metaspace(prepend_scheme="first"), dec=D.Metaspace(prepend_scheme="first")),
                        dict(unk_token="<unk>", fuse_unk=True)),
    "metaspace_never": (dict(pre=P.Metaspace("_", "never", False), dec=D.Metaspace("_", "never")), {}),
    "metaspace_after": (dict(norm=N.Strip(), pre=P.Sequence([P.WhitespaceSplit(), P.Metaspace(prepend_scheme="first")])),
                        dict(unk_token="<unk>")),
    "llama2": (dict(norm=llama_normalizer, dec=metaspace_decoder),
               dict(unk_token="<unk>", byte_fallback=True, fuse_unk=True)),
    "few_bytes": (dict(norm=llama_normalizer, dec=metaspace_decoder), dict(unk_token="<unk>", byte_fallback=True)),
    "nfd": (dict(norm=N.NFD(), pre=P.Whitespace()), dict(unk_token="<unk>")),
    "nfkc": (dict(norm=N.NFKC(), pre=P.ByteLevel(add_prefix_space=False), dec=D.ByteLevel()), {}),
    "nfkd": (dict(norm=N.NFKD(), pre=P.ByteLevel(add_prefix_space=False), dec=D.ByteLevel()), {}),
    "lower": (dict(norm=N.Sequence([N.NFD(), N.StripAccents(), N.Lowercase(), N.Strip(False, True)]),
                   pre=P.BertPreTokenizer()), dict(unk_token="<unk>")),
    "replaced": (dict(norm=N.Sequence([N.Replace(Regex(r"\s{2,}|\p{Nd}+"), "·"), N.Replace("the", "THE"), N.Replace("a", "")]),
                      pre=then_bytes(P.Digits(False)), dec=D.Sequence([D.ByteLevel(), D.Replace("THE", "the")])), {}),
    "digits": (dict(pre=then_bytes(P.Digits(True), P.Punctuation("contiguous")), dec=D.ByteLevel()), {}),
    "punctuation": (dict(pre=P.Sequence([P.Punctuation("merged_with_next"), P.CharDelimiterSplit("e")])), {}),
    "characters": (dict(pre=P.Split("", "isolated"), dec=D.Fuse()), dict(unk_token="<unk>")),
    "merged_previous": (dict(pre=then_bytes(P.Split(" ", "merged_with_previous")), dec=D.ByteLevel()), {}),
    "merged_next": (dict(pre=then_bytes(split(r"\s", "merged_with_next")), dec=D.ByteLevel()), {}),
    "contiguous": (dict(pre=then_bytes(split(r"[\p{P}\p{S}]", "contiguous", True)), dec=D.ByteLevel()), {}),
    "inverted": (dict(pre=then_bytes(split(r"\w+|[^\w\s]+", "removed", True)), dec=D.ByteLevel()), {}),
    "byte_normalizer": (dict(norm=N.ByteLevel(), pre=split(r"Ġ?[^Ġ]+"), dec=D.ByteLevel()), {}),
    "bloom": (dict(pre=then_bytes(split(BLOOM)), dec=D.ByteLevel()), {}),
    "thousands": (dict(pre=then_bytes(split(THOUSANDS), P.Punctuation("contiguous")), dec=D.ByteLevel()), {}),
    "gemma": (dict(norm=N.Replace(" ", "▁"), pre=P.Split(" ", "merged_with_previous"), dec=metaspace_decoder),
              dict(unk_token="<unk>", byte_fallback=True, fuse_unk=True)),
    "anchors": (dict(pre=then_bytes(split(r"^.|.$|\b\w|(?<=\w)\W|(?<![a-z])\p{Lu}(?=[a-z])|(?>x+)y|\d+?\.|[[:punct:]]{2,3}")),
                     dec=D.ByteLevel()), {}),
}


# Clusters, longer and shorter strings, removed characters, spaces.
FEW_CHANGES = {"a": "b", "\r": " ", "\n": " ", "\t": " ", "\x01": "", "\x7f": "", "\u3000": " ", "\u2003": " ", "\xa0": " ", "ﬁ": "fi",
               "é": "e", "e\u0301": "é", "①": "1", "½": "1⁄2", "™": "tm", "©": "(c)", "각": "gag", "\u1100": "g", "क": "ka", "क\u094d": "k",
               "\u0600": "n", "\u0301": "'", "\u200d": "", "\u200c": "", "👩": "w", "🇩": "D", "ſ": "s", "İ": "i", "THE": "the", "漢字": "kanji"}


def fields(message):
    """The numbers and the bytes of a protobuf message's fields, as far as they have bytes."""
    at = 0

    def number():
        nonlocal at
        value, shift = 0, 0
        while True:
            value |= (message[at] & 127) << shift
            shift, at = shift + 7, at + 1
            if message[at - 1] < 128:
                return value

    while at < len(message):
        tag = number()
        size = {0: 0, 1: 8, 5: 4}.get(tag & 7)
        value = number() if size in (0, None) else 0
        end = at + (value if size is None else size)
        yield tag >> 3, message[at:end]
        at = end


def known_map(name):
    """A map of the package sentencepiece, or the small one where that is missing."""
    try:
        import sentencepiece
    except ImportError:
        return character_map(FEW_CHANGES)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(SENTENCES.split() * 9), model_writer=model, vocab_size=60,
                                             normalization_rule_name=name, minloglevel=2, hard_vocab_limit=False)
    return dict(fields(dict(fields(model.getvalue()))[3]))[2]  # normalizer_spec.precompiled_charsmap


def unigram_kinds():
    few, nfkc, folded = character_map(FEW_CHANGES), known_map("nmt_nfkc"), known_map("nmt_nfkc_cf")
    metaspace = dict(pre=P.Metaspace(), dec=D.Metaspace())
    spaces = N.Replace(Regex(" {2,}"), " ")
    return {
        "t5": (dict(norm=N.Sequence([N.Precompiled(nfkc), N.Strip(False, True), N.Replace(Regex(" {2,}"), "▁")]), **metaspace), {"unigram": {}}),
        "xlm_r": (dict(norm=N.Precompiled(nfkc), pre=P.Sequence([P.WhitespaceSplit(), P.Metaspace()]), dec=D.Metaspace()), {"unigram": {}}),
        "albert": (dict(norm=N.Sequence([N.Replace("``", '"'), N.Replace("''", '"'), N.NFKD(), N.StripAccents(), N.Lowercase(),
                                         N.Precompiled(nfkc), spaces]), **metaspace), {"unigram": {}}),
        "mapped": (dict(norm=N.Precompiled(few), **metaspace), {"unigram": {}}),
        "mapped_first": (dict(norm=N.Precompiled(few), pre=P.Metaspace(prepend_scheme="first"), dec=D.Metaspace(prepend_scheme="first")),
                         {"unigram": {}}),
        "folded": (dict(norm=N.Sequence([N.Nmt(), N.Precompiled(folded)]), pre=P.Whitespace()), {"unigram": {}}),
        "nmt": (dict(norm=N.Nmt(), pre=P.Metaspace(prepend_scheme="first"), dec=D.Metaspace(prepend_scheme="first")), {"unigram": {}}),
        "unigram_bytes": (dict(norm=N.Replace(" ", "▁"), dec=metaspace_decoder), {"unigram": {"byte_fallback": True}}),
        "unigram_some_bytes": (dict(norm=N.Replace(" ", "▁"), dec=metaspace_decoder), {"unigram": {"byte_fallback": True}}),
        "unigram_byte_level": (dict(pre=P.ByteLevel(add_prefix_space=False), dec=D.ByteLevel()), {"unigram": {}}),
        "unigram_whole": (dict(), {"unigram": {}}),
    }


def random_kind(seed):
    """Parts that were drawn at random."""
    draw = random.Random(seed)
    mark = draw.choice(["▁", "▁", "_"])
    scheme = draw.choice(["always", "first", "never"])

    def splitter():
        pattern = draw.choice([" ", "e", "the", "▁", "."]) if draw.random() < 0.3 else Regex(draw.choice(EXPRESSIONS))
        return P.Split(pattern, draw.choice(BEHAVIORS), draw.random() < 0.3)

    def replacement(kind):
        expression = draw.choice(EXPRESSIONS)
        replaced = draw.choice([" ", "a", "e\u0301", Regex(expression), mark, "Ġ"])
        if kind is N and expression in EMPTY_MATCHES and isinstance(replaced, Regex):
            replaced = "e"
        return kind.Replace(replaced, draw.choice(["", " ", "▁", "xy", "é"]))

    norms = [lambda: draw.choice([N.NFC, N.NFD, N.NFKC, N.NFKD])(), N.Lowercase, N.StripAccents, lambda: replacement(N),
             lambda: N.Strip(draw.random() < 0.5, draw.random() < 0.7), lambda: N.Prepend(draw.choice(["▁", " ", "é", "xy"]))]
    pres = [splitter, splitter, P.Whitespace, P.WhitespaceSplit, lambda: P.Metaspace(mark, scheme, draw.random() < 0.6),
            lambda: P.Digits(draw.random() < 0.5), lambda: P.Punctuation(draw.choice(BEHAVIORS)), P.BertPreTokenizer,
            lambda: P.CharDelimiterSplit(draw.choice("e._ ")), lambda: P.FixedLength(length=draw.randrange(1, 6)),
            lambda: P.ByteLevel(add_prefix_space=draw.random() < 0.5, use_regex=draw.random() < 0.5)]
    decs = [D.ByteLevel, lambda: D.Metaspace(mark, scheme), D.Fuse, D.ByteFallback, lambda: replacement(D),
            lambda: D.Strip(draw.choice(" ▁a"), draw.randrange(3), 0), lambda: D.BPEDecoder(draw.choice(["</w>", "e"]))]
    parts = {}
    if chosen := [draw.choice(norms)() for _ in range(draw.randrange(4))]:
        parts["norm"] = N.Sequence(chosen)
    if chosen := [draw.choice(pres)() for _ in range(draw.randrange(4))]:
        parts["pre"] = P.Sequence(chosen) if len(chosen) > 1 or draw.random() < 0.5 else chosen[0]
    if chosen := [draw.choice(decs)() for _ in range(draw.randrange(4))]:
        parts["dec"] = D.Sequence(chosen)
    settings = {"ignore_merges": draw.random() < 0.2}
    if draw.random() < 0.7:
        settings |= {"unk_token": "<unk>", "fuse_unk": draw.random() < 0.5}
    if draw.random() < 0.3:
        settings["byte_fallback"] = True
    if draw.random() < 0.2:
        settings["end_of_word_suffix"] = "</w>"
    if draw.random() < 0.2:
        settings["continuing_subword_prefix"] = "##"
    return parts, settings


ADDED = [AddedToken("<left>", lstrip=True), AddedToken("<right>", rstrip=True, normalized=False),
         AddedToken("<both>", lstrip=True, rstrip=True, normalized=True), AddedToken("Day", single_word=True, normalized=True),
         AddedToken("word", single_word=True, normalized=False), AddedToken("<a b>", normalized=False),
         AddedToken("<a", normalized=False), AddedToken("é", normalized=True), AddedToken("  ", normalized=False)]
SPECIAL = [AddedToken("<s>", special=True), AddedToken("</s>", special=True, lstrip=True),
           AddedToken("<pad>", special=True, normalized=True), AddedToken("<|im_end|>", special=True)]


def made(name, texts):
    parts, settings = KINDS[name]
    if "unigram" in settings:
        return made_unigram(name, texts)
    tokenizer = Tokenizer(models.BPE(**settings))
    tokenizer.pre_tokenizer = parts.get("pre")
    tokenizer.decoder = parts.get("dec")
    if "norm" in parts:
        tokenizer.normalizer = parts["norm"]
    unknown = [settings["unk_token"]] if "unk_token" in settings else []
    byte_like = "ByteLevel" in str(parts.get("pre")) or name == "byte_normalizer"
    extra = {k: settings[k] for k in ("continuing_subword_prefix", "end_of_word_suffix") if k in settings}
    trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=unknown, show_progress=False, limit_alphabet=200,
                                  initial_alphabet=P.ByteLevel.alphabet() if byte_like else [], **extra)
    tokenizer.train_from_iterator(texts, trainer)
    if "byte_fallback" in settings:  # the trainer gives no bytes
        description = json.loads(tokenizer.to_str())
        vocabulary = description["model"]["vocab"]
        for byte in range(256):
            if name == "llama2" or byte % 3:
                vocabulary["<0x%02X>" % byte] = len(vocabulary)
        tokenizer = Tokenizer.from_str(json.dumps(description))
    return finish(tokenizer, name)


def made_unigram(name, texts):
    parts, settings = KINDS[name]
    tokenizer = Tokenizer(models.Unigram())
    if "pre" in parts:
        tokenizer.pre_tokenizer = parts["pre"]
    if "norm" in parts:
        tokenizer.normalizer = parts["norm"]
    texts = texts if "pre" in parts else [word for text in texts[:60] for word in text.split(".")]
    tokenizer.train_from_iterator(texts, trainers.UnigramTrainer(vocab_size=700, special_tokens=["<unk>"], unk_token="<unk>",
                                  show_progress=False, initial_alphabet=P.ByteLevel.alphabet() if "Byte" in str(parts.get("pre")) else []))
    description = json.loads(tokenizer.to_str())
    model = description["model"]
    if "byte_fallback" in settings["unigram"]:
        model["byte_fallback"] = True
        model["vocab"] += [["<0x%02X>" % byte, -3.0] for byte in range(256) if name == "unigram_bytes" or byte % 3]
    model["vocab"] += [["the", -2.5], ["漢字", -7.25]]  # one stands twice
    tokenizer = Tokenizer.from_str(json.dumps(description))
    tokenizer.decoder = parts.get("dec")
    return finish(tokenizer, name)


def finish(tokenizer, name):
    """The tokenizer with added tokens and what the post-processor puts around a text."""
    seen = {("normalized", "")}  # of tokens that become one string the package finds any, and by an empty one it fails
    for token in ADDED + SPECIAL:
        looked_for = token.content
        if token.normalized and tokenizer.normalizer:
            looked_for = "normalized", tokenizer.normalizer.normalize_str(token.content)
        if looked_for not in seen:
            (tokenizer.add_special_tokens if token.special else tokenizer.add_tokens)([token])
        seen.add(looked_for)
    ids = [(t, tokenizer.token_to_id(t)) for t in ("<s>", "</s>")]
    if "post" in KINDS[name][0]:
        tokenizer.post_processor = KINDS[name][0]["post"]
    elif name in ("llama2", "qwen", "metaspace_first", "t5", "mapped"):
        template = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ids)
        tokenizer.post_processor = processors.Sequence([processors.ByteLevel(), template]) if name == "qwen" else template
    elif name == "prefix_space":
        tokenizer.post_processor = processors.RobertaProcessing(ids[1], ids[0])
    return tokenizer


def bare(name):
    """A kind's parts as JSON, with no vocabulary."""
    parts, settings = KINDS[name]
    tokenizer = Tokenizer(models.Unigram(**settings["unigram"]) if "unigram" in settings else models.BPE(**settings))
    tokenizer.pre_tokenizer, tokenizer.decoder = parts.get("pre"), parts.get("dec")
    if "norm" in parts:
        tokenizer.normalizer = parts["norm"]
    return json.loads(tokenizer.to_str())


SENTENCES = ("The little dog didn't see the big tree. He said, \"I'm happy!\" They'll play in 2024 or 12,345 days. the cat's hat\n"
             "Once upon a time, there was a the and to they the little girl. She loved the red ball... \U0001f600 été 雪")


def small_models():
    """The vocabularies that the small cases share: of the byte alphabet, of characters and bytes, and with a prefix."""
    vocabularies = {}
    for name, splitter, alphabet in (("bytes", P.ByteLevel(add_prefix_space=False), P.ByteLevel.alphabet()),
                                     ("characters", P.Metaspace(), [])):
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = splitter
        first = [] if name == "bytes" else ["<unk>", "<|unknown|>"]
        tokenizer.train_from_iterator([SENTENCES * 2], trainers.BpeTrainer(vocab_size=len(alphabet) + len(first) + 110,
                                      special_tokens=first, show_progress=False, initial_alphabet=alphabet))
        model = json.loads(tokenizer.to_str())["model"]
        vocabularies[name] = {"vocab": model["vocab"], "merges": model["merges"]}
    vocabulary = vocabularies["characters"]["vocab"]
    for extra in ["_", "e</w>", "t</w>", "he</w>"] + ["<0x%02X>" % byte for byte in range(256)]:
        vocabulary.setdefault(extra, len(vocabulary))
    vocabularies["characters"]["merges"] += [["h", "e</w>"]]
    letters = sorted(set(SENTENCES.lower()))
    unigram = [["<unk>", 0.0], ["▁", -2.0]] + [[c, -4.0 - i / 8] for i, c in enumerate(letters) if c not in "zq"]
    unigram += [[t, -3.0 - len(t) / 4] for t in ("▁the", "the", "he", "▁t", "in", "ing", "er", "▁a", "▁the▁d", "fi", "tm", "Day")]
    vocabularies["unigram"] = {"vocab": unigram + [["<0x%02X>" % b, -9.0] for b in range(256)] + [["the", -5.5]], "unk_id": 0}
    names = ["<unk>"] + letters + ["##" + c for c in letters] + ["##he", "the"]
    vocabularies["prefix"] = {"vocab": {n: i for i, n in enumerate(names)}, "merges": [["##h", "##e"], ["t", "##he"]]}
    return vocabularies


def cases():
    """The small cases: how each was read, and what the package makes of some strings."""
    vocabularies = small_models()
    kinds = []
    KINDS.update({name: kind for name, kind in unigram_kinds().items() if name in ("mapped_first", "nmt", "unigram_bytes")})
    for number, name in enumerate(KINDS):
        description = bare(name)
        model = "bytes" if "ByteLevel" in json.dumps([description["pre_tokenizer"], description["normalizer"]]) else "characters"
        model = "prefix" if name == "prefix" else "unigram" if "unigram" in KINDS[name][1] else model
        settings = {k: v for k, v in description["model"].items() if k not in ("vocab", "merges", "unk_id")}
        tokenizer = finish(Tokenizer.from_str(json.dumps({**description, "model": {**settings, **vocabularies[model]}})), name)
        parts = json.loads(tokenizer.to_str())
        parts["model"] = settings
        del parts["added_tokens"]
        ids = [tokenizer.token_to_id(token.content) for token in ADDED + SPECIAL]
        found = [s for s in strings(SENTENCES * 3, 60, 100 + number) if len(s) < 40]
        texts = []
        for string in found[3 + number % 5:14:2] + sorted(found[14:], key=lambda s: -len(set(s)))[:10]:
            plain, full = expected(tokenizer, string)
            decoded = tokenizer.decode(full) if full else ""
            texts.append([string, plain, full] + ([decoded] if "\ufffd" not in decoded else []))
        kinds.append({"name": name, "vocabulary": model, "added": ids, "parts": parts, "texts": texts})
    fields = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")
    added = [{field: getattr(token, field) for field in fields} for token in ADDED + SPECIAL]
    return {"made": f"tests/interop/tokenizer_files.py --cases, tokenizers {tokenizers.__version__}",
            "added": added, "vocabularies": vocabularies, "kinds": kinds}


def strings(stories, count, seed):
    draw = random.Random(seed)
    odd = ["\u0301", "\u0345", "\u0323", "é", "e\u0301", "\u1100\u1161\u11a8", "각", "ﬁ", "①", "²", "½", "ſ", "K", "İ", "ß", "Σς",
           "\u200c", "\u200d", "👩\u200d👩\u200d👧", "🇩🇪", "😀", "漢字", "ひらがな", "カタカナ", "한국어", "Привет", "שלום", "مرحبا", "नमस्ते",
           "\t", "\n", "\r\n", "\r", "\v", "\f", "\x85", "\xa0", "\u1680", "\u2003", "\u2028", "\u3000", "\ufeff", "\x00", "\x1b",
           "\x7f", "▁", "_", "·", "Ġ", "Ċ", "'s", "'LL", "'ſ", "'t", "'re", "n't", "  ", "   ", "123", "12345", "٣", "Ⅷ", "...", "?!", "-", "$", "<",
           "<0x41>", "THE", "the", "ǅ", "\u0378", "\ue000", "\U0010ffff", "\ufffd"]
    added = [t.content for t in ADDED + SPECIAL]
    pools = [(0x20, 0x7f), (0x80, 0x250), (0x300, 0x370), (0x370, 0x600), (0x900, 0xe00), (0x1100, 0x1200), (0x1e00, 0x2100),
             (0x2100, 0x2c00), (0x3000, 0x3400), (0x4e00, 0xa000), (0xac00, 0xd7a4), (0xf900, 0x10000), (0x10000, 0x1f000),
             (0x1f000, 0x20000), (0x20000, 0x110000), (0, 0xd800)]

    def one(kind):
        if kind == 0:
            begin = draw.randrange(len(stories) - 400)
            return stories[begin:begin + draw.randrange(1, 200)]
        if kind == 1:
            return draw.choice(odd)
        if kind == 2:
            return draw.choice(added)
        if kind == 3:
            return draw.choice([" ", "  ", "\n", " \n ", "", "x", "day", "a"])
        first, last = draw.choice(pools)
        return "".join(chr(c) for c in (draw.randrange(first, last) for _ in range(draw.randrange(1, 9))) if not 0xd800 <= c < 0xe000)

    yield from ["", " ", "  ", "a", " a", "\n", "<s>", "</s>", " <left>", "<a b>", "<a b", "\u0301", "▁", "é"]
    for _ in range(count):
        yield "".join(one(draw.choices(range(5), (3, 3, 1, 2, 2))[0]) for _ in range(draw.randrange(1, 7)))


def stories():
    beside = pathlib.Path(__file__).parents[2] / ".." / "shared" / "data"
    path = pathlib.Path(os.environ.get("TINYMOE_TEST_DATA", beside)) / "tinystories-valid.txt"
    if path.exists():
        return path.read_text()
    return judge.run(judge.tester(), "stories")


def unless_it_panics(f, *arguments):
    """f's result, or None where the package itself fails, as its lower case does of some replacements."""
    try:
        return f(*arguments)
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        return None


def expected(tokenizer, text):
    tokenizer.encode_special_tokens = True
    plain = tokenizer.encode(text, add_special_tokens=False).ids
    tokenizer.encode_special_tokens = False
    full = tokenizer.encode(text, add_special_tokens=True).ids
    return plain, full


# What differs from `spm_train`'s usual options.
SENTENCEPIECE = {
    "unigram": {}, "bpe": dict(model_type="bpe"),
    "unigram_bytes": dict(byte_fallback=True, normalization_rule_name="nfkc"),
    "llama2": dict(model_type="bpe", byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False, split_digits=True,
                   allow_whitespace_only_pieces=True),
    "bpe_plain": dict(model_type="bpe", add_dummy_prefix=False, normalization_rule_name="identity"),
    "unigram_plain": dict(add_dummy_prefix=False, remove_extra_whitespaces=False, normalization_rule_name="identity"),
    "unigram_folded": dict(normalization_rule_name="nmt_nfkc_cf", pad_id=3, unk_id=5, bos_id=1, eos_id=-1, unk_surface="?!"),
    "suffix": dict(treat_whitespace_as_suffix=True), "bpe_suffix": dict(model_type="bpe", treat_whitespace_as_suffix=True, byte_fallback=True),
    "symbols": dict(user_defined_symbols=["<sep>", "the", "▁the", "a", "abc", "é", "漢", "12", "▁▁", "Day ", "<a b>"], control_symbols=["<c>", "<left>"]),
    "bpe_symbols": dict(model_type="bpe", user_defined_symbols=["<sep>", "the", "▁the", "a", "abc", "é", "漢", "12", "▁▁"], control_symbols=["<c>"]),
    "crossing": dict(model_type="bpe", split_by_whitespace=False, split_by_number=False, split_by_unicode_script=False, max_sentencepiece_length=30),
    "unigram_crossing": dict(split_by_whitespace=False, split_by_number=False, split_by_unicode_script=False, remove_extra_whitespaces=False),
    "rules": dict(rules="61\t62\n41 42\t43\n63\t\n20\t20 20\n65 301\tE9\n1F600\t3A 29\n"),
    "bpe_rules": dict(model_type="bpe", rules="61\t62\n41 42\t43\n63\t\n9\t20\n", denormal="62\t61\n"),
    "fewer": dict(fewer=True), "bpe_fewer": dict(model_type="bpe", fewer=True),
}


def sentencepiece_model(sentencepiece, options, texts, folder, size=900):
    options = dict(options)
    fewer = options.pop("fewer", False)
    for key, option in (("rules", "normalization_rule_tsv"), ("denormal", "denormalization_rule_tsv")):
        if key in options:
            (folder / f"{key}.tsv").write_text(options.pop(key))
            options[option] = str(folder / f"{key}.tsv")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(texts), model_writer=model, vocab_size=size, hard_vocab_limit=False, minloglevel=2,
                                             num_threads=2, character_coverage=0.999, **options)
    if not fewer:
        return model.getvalue()
    proto, made = model.getvalue(), b""
    while proto[0] == 10 and proto[1] < 126:  # a piece; field 3 is its type, 5 is unused
        piece, proto = proto[2:2 + proto[1]], proto[2 + proto[1]:]
        piece += b"\x18\x05" if len(made) % 3 == 0 and b"\x18" not in piece else b""
        made += bytes([10, len(piece)]) + piece
    return made + proto


def llama2c_file(model):
    """llama2.c's tokenizer.bin of a model of Llama 2's kind."""
    names = [model.id_to_piece(i) for i in range(model.piece_size())]
    names = [n if i < 3 else n.replace("▁", " ") for i, n in enumerate(names)]
    return struct.pack("<i", max(len(n.encode()) for n in names)) + b"".join(
        struct.pack("<fi", model.get_score(i), len(n.encode())) + n.encode() for i, n in enumerate(names))


def judge_sentencepiece(folder, text, texts, count):
    try:
        import sentencepiece
    except ImportError:
        return "no sentencepiece models, for want of the package"
    known = json.loads(MODELS.read_text())
    if known["made"].endswith(" " + sentencepiece.__version__):
        judge.check(with_answers(json.loads(MODELS.read_text())) == known, "sentencepiece_cases.json is another one")
    arguments, lists, judged = [], [], []
    for number, (name, options) in enumerate(SENTENCEPIECE.items()):
        proto = sentencepiece_model(sentencepiece, options, texts, folder)
        path = folder / f"{name}.model"
        path.write_bytes(proto)
        model = sentencepiece.SentencePieceProcessor(model_proto=proto)
        draw = random.Random(number)
        found = [s.encode() for s in strings(text, count, 1000 + number)]
        found += [draw.randbytes(draw.randrange(12)) + s[:9] + draw.randbytes(2) for s in found[::9]]
        found += ["<sep>abc the▁the ▁ ▁▁ aé漢12Day <a b><c><left>abcabcthe".encode(), b"a\0b", b"\0", b"AB ABab \t c cc"]
        tokens = [[draw.randrange(model.piece_size()) for _ in range(draw.randrange(9))] for _ in range(count)]
        tokens += [[draw.choice([0, 1, 2, model.piece_to_id("▁"), *t]) for _ in range(4)] + t for t in tokens[::3]]
        judge.write_things(folder / f"{name}.in", found)
        judge.write_things(folder / f"{name}.tokens", [struct.pack(f"<{len(t)}i", *t) for t in tokens])
        arguments += [path, folder / f"{name}.in", folder / f"{name}.out"]
        if "denormal" not in options:  # a text that is changed as a whole cannot be streamed
            lists += [path, folder / f"{name}.tokens", folder / f"{name}.texts"]
        judged.append((name, model, found, tokens))
        if name == "llama2":
            (folder / "llama2.bin").write_bytes(llama2c_file(model))
            judge.run(judge.tester(), "export", folder / "llama2.bin", folder / "exported.model")
            exported = sentencepiece.SentencePieceProcessor(model_file=str(folder / "exported.model"))
            for string in found:
                judge.check(exported.encode(string) == model.encode(string), f"exported: {string!r}")
            judge.run(judge.tester(), "export", path, folder / "again.model")
            judge.check((folder / "again.model").read_bytes() == proto, "a model is another one after it was saved")
    judge.run(judge.tester(), "encode", *arguments)
    judge.run(judge.tester(), "decode", *lists)
    total = 0
    for name, model, found, lists in judged:
        results = judge.things(folder / f"{name}.out")
        for string in found:
            data, back = next(results), next(results).decode(errors="replace")
            mine, right = list(struct.unpack(f"<{len(data) // 4}i", data)), model.encode(string)
            judge.check(mine == right, f"{name}.model: {string!r}: {mine}, expected {right}")
            text = model.decode(right) if right else ""
            judge.check(back == text or "\ufffd" in text, f"{name}.model: {string!r}: decoded {back!r}, expected {text!r}")
        total += len(found)
        if not (folder / f"{name}.texts").exists():
            continue
        results = judge.things(folder / f"{name}.texts")
        for tokens in lists:
            back, text = next(results).decode(errors="replace"), model.decode(tokens) if tokens else ""
            judge.check(back == text or "\ufffd" in text, f"{name}.model: {tokens}: decoded {back!r}, expected {text!r}")
    return f"{len(judged)} sentencepiece models, {total} strings"


CASES = pathlib.Path(__file__).parents[1] / "text" / "pipeline_cases.json"
MODELS = CASES.with_name("sentencepiece_cases.json")
SMALL_MODELS = {
    "unigram": dict(rules="61\t62\n41 42\t43\n63\t\n9\t20\n20AC\t65 75 72 6F\n", user_defined_symbols=["<sep>", "the", "é"], control_symbols=["<c>"]),
    "llama2": dict(model_type="bpe", byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False),
    "bpe_suffix": dict(model_type="bpe", treat_whitespace_as_suffix=True, fewer=True, normalization_rule_name="identity", user_defined_symbols=["the"]),
    "unigram_bytes": dict(byte_fallback=True, normalization_rule_name="identity", add_dummy_prefix=False, denormal="62\t61\n"),
}


def small_sentencepieces():
    """Small models, and what the package makes of some strings."""
    import sentencepiece
    folder, made = judge.new_folder(), []
    for number, (name, options) in enumerate(SMALL_MODELS.items()):
        size = 340 if "byte_fallback" in options else 90
        proto = sentencepiece_model(sentencepiece, options, SENTENCES.split("\n") * 3, folder, size)
        made.append({"name": name, "model": base64.b64encode(proto).decode()})
        found = [s for s in strings(SENTENCES * 3, 90, 300 + number) if len(s) < 40 and "\ufffd" not in s][3:30]
        made[-1]["texts"] = [[s] for s in found + ["  the AB c\tthe<sep>  é<c>€ ▁the ", "▁", "  "]]
    return {"made": f"tests/interop/tokenizer_files.py --cases, sentencepiece {sentencepiece.__version__}", "models": made}


def with_answers(cases):
    """The cases with the tokens and the text that the package gives."""
    import sentencepiece
    for case in cases["models"]:
        model = sentencepiece.SentencePieceProcessor(model_proto=base64.b64decode(case["model"]))
        for text in case["texts"]:
            tokens = model.encode(text[0])
            text[1:] = [tokens, model.decode(tokens) if tokens else ""]
    return cases


def write_cases():
    whole = cases()
    kinds = ",\n".join(json.dumps({**kind, "texts": 0}, ensure_ascii=True, separators=(",", ":"))[:-2] + "[\n"
                       + ",\n".join(json.dumps(t, separators=(",", ":")) for t in kind["texts"]) + "]}" for kind in whole["kinds"])
    rest = ",\n".join(f'"{key}": {json.dumps(whole[key], separators=(",", ":"))}' for key in ("made", "added", "vocabularies"))
    MODELS.write_text(json.dumps(with_answers(small_sentencepieces()), separators=(",", ":")).replace('{"name"', '\n{"name"') + "\n")
    CASES.write_text('{%s,\n"kinds": [\n%s]}\n' % (rest, kinds))


def main():
    if sys.argv[1:2] == ["--cases"]:
        return write_cases()
    if json.loads(CASES.read_text())["made"].endswith(" " + tokenizers.__version__):
        judge.check(json.loads(CASES.read_text()) == json.loads(json.dumps(cases())), "pipeline_cases.json is another one")
    kinds = int(os.environ.get("TINYMOE_JUDGE_KINDS", "40"))  # at random
    first = int(os.environ.get("TINYMOE_JUDGE_SEED", "0"))
    KINDS.update(unigram_kinds())
    KINDS.update({f"random {seed}": random_kind(seed) for seed in range(first, first + kinds)})
    text = stories()
    texts = text.split("<|endoftext|>")[:400]
    folder = judge.new_folder()
    count = int(os.environ.get("TINYMOE_JUDGE_STRINGS", "400"))  # of each kind
    others = judge_sentencepiece(folder, text, texts, count) if len(sys.argv) < 4 or sys.argv[3] == "sentencepiece" else ""
    if sys.argv[3:] == ["sentencepiece"]:
        return print("ok:", others)
    wanted = sys.argv[3:] or KINDS
    arguments, judged, panics = [], [], 0
    for number, name in enumerate(wanted):
        tokenizer = unless_it_panics(made, name, texts)
        if tokenizer is None:
            judge.check(name.startswith("random "), f"{name}: the package panics")
            panics += 1
            continue
        path = folder / f"{name}.json"
        tokenizer.save(str(path))
        tokenizer = Tokenizer.from_file(str(path))
        found = list(strings(text, count, first + number))
        judge.write_things(folder / f"{name}.in", [string.encode() for string in found])
        arguments += [path, folder / f"{name}.in", folder / f"{name}.out"]
        judged.append((name, tokenizer, found))
    judge.run(judge.tester(), "encode", *arguments)
    total = 0
    for name, tokenizer, found in judged:
        results = judge.things(folder / f"{name}.out")
        for string in found:
            ours = [list(struct.unpack(f"<{len(c) // 4}i", c)) for c in (next(results), next(results))]
            decoded = [next(results).decode(errors="replace"), next(results).decode(errors="replace")]
            theirs = unless_it_panics(expected, tokenizer, string)
            if theirs is None:
                judge.check(name.startswith("random "), f"{name}: the package panics at {string!r}")
                panics += 1
                continue
            for mine, right, back in zip(ours, theirs, decoded):
                judge.check(mine == right, f"{name}: {string!r}: {mine}, expected {right}")
                text = tokenizer.decode(right) if right else ""
                judge.check(back == text or "\ufffd" in text, f"{name}: {string!r}: decoded {back!r}, expected {text!r}")
            total += 1
    judge.check(panics <= total / 100, f"the package panics {panics} times beside {total} strings")
    print(f"ok: {len(judged)} kinds, {total} strings; the package itself failed {panics} times; {others}")


if __name__ == "__main__":
    main()
