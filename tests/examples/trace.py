# usage: trace.py STORY.txt TRACE.npz TRACE.json: checks that both traces of one story say the same, and its text.
import json
import sys

import numpy as np

story = open(sys.argv[1], "rb").read()
trace = np.load(sys.argv[2])
lines = [json.loads(line) for line in open(sys.argv[3], encoding="utf-8")]
rows = len(trace["token"])
assert rows == len(lines) > 5, (rows, len(lines))
ends = trace["text_ends"]
assert bytes(trace["text_bytes"]) + b"\n" == story, bytes(trace["text_bytes"])
layers = sorted({int(name.split("_")[1]) for name in trace.files if name.startswith("layer_")})
for i, line in enumerate(lines):
    assert (line["story"], line["position"], line["token"]) == (0, i, trace["token"][i])
    assert line["generated"] == trace["generated"][i]
    text = bytes(trace["text_bytes"][ends[i] : ends[i + 1]])
    assert line.get("bytes", list(line["text"].encode())) == list(text)
    assert [layer["layer"] for layer in line["layers"]] in (layers, [])
    for layer in line["layers"]:
        arrays = [trace[f"layer_{layer['layer']}_{what}"][i] for what in ("experts", "gates", "logits")]
        taken = arrays[0] >= 0
        assert layer["experts"] == list(arrays[0][taken])
        assert np.array_equal(np.float32(layer["gates"]), arrays[1][taken])
        assert np.array_equal(np.float32(layer["logits"]), arrays[2])
        # The experts are those of the highest logits, and the gates are their softmax.
        assert sorted(np.argsort(-arrays[2])[: len(arrays[0])]) == sorted(arrays[0])
        weights = np.exp(arrays[2][arrays[0]] - arrays[2].max())
        assert np.allclose(arrays[1], weights / weights.sum(), atol=1e-5)
assert sum(not line["layers"] for line in lines) <= 1
