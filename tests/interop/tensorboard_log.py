"""TensorBoard reads what `train` logs, in one curve over a resumed run."""

import judge

accumulator, plugins = judge.need("tensorboard.backend.event_processing.event_accumulator",
                                 "tensorboard.backend.event_processing.plugin_event_accumulator")
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
bars = log.Histograms("experts/mixture_0")[-1].histogram_value
judge.check(len(bars.bucket) == 4 and sum(bars.bucket) == bars.num > 0, f"the experts' loads are {bars}")
story = log.Tensors("story")[-1].tensor_proto.string_val[0].decode("utf-8")
judge.check(len(story) > 10, f"the story is {story!r}")
start = log.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
judge.check(b"learning_rate" in start, "there are no hyperparameters")


def points(where):
    """The steps of the loss, by each of TensorBoard's readers."""
    old = accumulator.EventAccumulator(str(where), size_guidance={"scalars": 0})
    new = plugins.EventAccumulator(str(where), tensor_size_guidance={"scalars": 0})
    found = []
    for reader, of in ((old, lambda r: r.Scalars("train/loss")), (new, lambda r: r.Tensors("train/loss"))):
        reader.Reload()
        found.append([event.step for event in of(reader)])
    return found


# A run that goes on before its last step, as one that was killed does, and one that begins again: no step is there twice.
again = [train, "--embedded", 300, "--out", folder / "again", "--tensorboard", folder / "again-log"]
judge.run(*again, "--preset", "pocket", "--batch", 4, "--steps", 10)
judge.run("cp", "-r", folder / "again", folder / "kept")
judge.run(*again, "--resume", folder / "again", "--steps", 17)
judge.run("rm", "-r", folder / "again")
judge.run("mv", folder / "kept", folder / "again")
judge.run(*again, "--resume", folder / "again", "--steps", 20)
judge.check(points(folder / "again-log") == [list(range(1, 21))] * 2, f"a run that was killed: {points(folder / 'again-log')}")
judge.run(*again, "--preset", "pocket", "--batch", 4, "--steps", 6, "--overwrite")
judge.check(points(folder / "again-log") == [list(range(1, 7))] * 2, f"a run begun again: {points(folder / 'again-log')}")
print("ok")
