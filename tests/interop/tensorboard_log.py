"""TensorBoard reads what `train` logs, in one curve over a resumed run."""

import judge

accumulator = judge.need("tensorboard.backend.event_processing.event_accumulator")
train = judge.program("train")
folder = judge.new_folder()
run = [train, "--embedded", 300, "--out", folder / "run", "--tensorboard", folder / "log", "--evaluate-every", 5]
judge.run(*run, "--preset", "pocket", "--batch", 4, "--steps", 10)
judge.run(*run, "--resume", folder / "run", "--steps", 15)

log = accumulator.EventAccumulator(str(folder / "log"), size_guidance={"tensors": 0, "scalars": 0, "histograms": 0})
log.Reload()
steps = [event.step for event in log.Scalars("train/loss")]
judge.check(steps == list(range(1, 16)), f"the curve has the steps {steps}")
judge.check([event.step for event in log.Scalars("validation/loss")] == [5, 10, 15], "not the evaluations' steps")
bars = log.Histograms("experts/mixture_1")[-1].histogram_value
judge.check(len(bars.bucket) == 4 and sum(bars.bucket) == bars.num > 0, f"the experts' loads are {bars}")
story = log.Tensors("story")[-1].tensor_proto.string_val[0].decode("utf-8")
judge.check(len(story) > 10, f"the story is {story!r}")
start = log.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
judge.check(b"learning_rate" in start, "there are no hyperparameters")
print("ok")
