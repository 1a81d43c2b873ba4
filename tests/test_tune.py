"""Brain-tuning: it learns what can be learned, leaves the CNN alone, repeats itself, and joins participants as stated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastencode
from fastencode.errors import FastencodeError, InputError
from fastencode.tune.config import PretrainConfig, TuneConfig

pytest.importorskip("torch", reason="tuning needs the extra 'tune'")
pytest.importorskip("transformers", reason="tuning needs the extra 'tune'")

import torch
import transformers
from safetensors.torch import load_file

from fastencode.speech.layers import SpeechEncoder
from fastencode.tune.batches import batches_in_order, order_of_epoch
from fastencode.tune.lessons import Lessons, Sounds, cache_responses, choose_lessons, digests
from fastencode.tune.log import epochs, read_log, updates
from fastencode.tune.schedule import shares_of_peak
from fastencode.tune.trainer import brain_tune
from fastencode.tune.validation import Sums
from speech_cases import saved_model
from tune_cases import FIRST, RATE, TR, Tones, clip, normal, pooled

torch.set_num_threads(1)  # as the command does; two threads on a busy machine wait for each other

SETTINGS: dict[str, Any] = {
    "epochs": 3,
    "batch": 8,
    "learning_rate": 3e-3,
    "head_learning_rate": 1e-2,
    "clip_seconds": 2.0,
    "log_every": 2,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_model(tmp_path_factory.mktemp("model"), "wav2vec2", strides=(5, 8, 8))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Tones:
    return Tones(tmp_path_factory.mktemp("tones"))


def tuned(model: Path, data: Tones, out: Path, *, more: dict[str, Any] | None = None, **settings: Any) -> Path:
    config = TuneConfig(**{**SETTINGS, **settings})
    named = {"validation": ["watched"], "show_progress": False, **(more or {})}
    return brain_tune(SpeechEncoder(model), data, config, out, **named)


def weights(folder: Path) -> dict[str, Any]:
    return load_file(folder / "model" / "model.safetensors")


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


def test_tuning_learns_and_leaves_the_cnn_alone(model: Path, data: Tones, tmp_path: Path) -> None:
    out = tuned(model, data, tmp_path / "run", epochs=12)
    rows = epochs(out / "log.jsonl")
    assert [row["epoch"] for row in rows] == list(range(13)) and rows[0]["train_loss"] is None
    assert rows[-1]["updates"] == 12 * 5, "33 clips of two stories in batches of 8"
    assert rows[-1]["validation_loss"] < 0.75 * rows[-1]["mean_loss"] and rows[-1]["validation_r"] > 0.5
    assert rows[0]["validation_loss"] > 0.9 * rows[0]["mean_loss"]
    before, after = SpeechEncoder(model), SpeechEncoder(out / "model")
    assert before.cnn_hash() == after.cnn_hash() and read_log(out / "log.jsonl")[-1]["cnn_unchanged"] is True
    moved = {
        name
        for (name, old), new in zip(before.model.named_parameters(), after.model.parameters(), strict=True)
        if not torch.equal(old, new)
    }
    assert {name.split(".")[2] for name in moved if name.startswith("encoder.layers.")} == {"0", "1"}
    assert not any(name.startswith("feature_extractor.") for name in moved)
    changes = rows[-1]["weight_change"]
    assert changes["layer-01"] > 0 and changes["layer-02"] > 0 and rows[0]["weight_change"]["layer-01"] == 0
    assert changes["head"] > 0.01 and rows[0]["weight_change"]["head"] == 0, "heads begin at what is drawn again for them"
    assert not (out / "cache").exists() and (out / "curves.png").stat().st_size > 1000
    assert json.loads((out / "run.json").read_text())["finished"] is True


def test_the_same_seed_gives_the_same_weights(model: Path, data: Tones, tmp_path: Path) -> None:
    runs = [tuned(model, data, tmp_path / name, epochs=1, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1))]
    files = [(run / "model" / "model.safetensors").read_bytes() for run in runs]
    assert files[0] == files[1] != files[2]
    logs = [[{**row, "time": None} for row in read_log(run / "log.jsonl")] for run in runs]
    assert logs[0] == logs[1] != logs[2]
    heads = [(run / "heads" / "A.safetensors").read_bytes() for run in runs]
    assert heads[0] == heads[1] != heads[2]
    assert (runs[0] / "curves.png").read_bytes() == (runs[1] / "curves.png").read_bytes()


def test_the_saved_model_and_heads_predict_what_the_trainer_saw(model: Path, data: Tones, tmp_path: Path) -> None:
    out = tuned(model, data, tmp_path / "run", epochs=1)
    last = epochs(out / "log.jsonl")[-1]
    whole = transformers.AutoModel.from_pretrained(out / "model").eval()
    with torch.no_grad():
        state = pooled(whole, out / "model", [clip(data, "watched", TR * (row + FIRST + 1)) for row in range(12)])
    for who in ("A", "B"):
        head = load_file(out / "heads" / f"{who}.safetensors")
        assert head["voxels"].tolist() == list(range(data.people[who]))
        predicted = (state @ head["weight"].T + head["bias"]).numpy()
        wanted = normal(data.responses(who, "watched").astype(float))
        row = last["participants"][who]
        assert row["loss"] == pytest.approx(float(((predicted - wanted) ** 2).mean()), rel=1e-4)
        assert row["mean_loss"] == pytest.approx(1.0, rel=1e-5)
        r = [np.corrcoef(predicted[:, v], wanted[:, v])[0, 1] for v in range(wanted.shape[1])]
        assert row["r"] == pytest.approx(np.mean(r), abs=1e-4)
        assert row["quantiles"]["75"] == pytest.approx(np.percentile(r, 75), abs=1e-4)


def test_one_update_is_that_of_a_naive_loop(model: Path, tmp_path: Path) -> None:
    """Different voxels, stories and missing responses: the gradient of Σ share · mean squared error, and AdamW by hand."""
    heard = {"A": ("one", "watched"), "B": ("one", "two", "watched")}
    data = Tones(tmp_path / "data", heard=heard, stories={"one": 5, "two": 7, "watched": 4})
    holes = data.responses("B", "two")
    holes[2, 1] = np.nan
    np.save(data.folder / "B-two.npy", holes)
    out = tuned(model, data, tmp_path / "run", epochs=1, batch=12, weight_decay=0.1, log_every=1)
    (line,) = updates(out / "log.jsonl")
    encoder = SpeechEncoder(model)
    from fastencode.tune.model import BrainModel

    config = TuneConfig(**{**SETTINGS, "batch": 12, "epochs": 1})
    naive = BrainModel(encoder, config, {"A": 5, "B": 3}, tr=TR)
    (place,) = order_of_epoch([5, 7], 1, 12, config)
    rows = [(("one", "two")[run], row) for run, row in zip(place.runs.tolist(), place.rows.tolist(), strict=True)]
    state = pooled(encoder.model, model, [clip(data, run, TR * (row + FIRST + 1)) for run, row in rows])
    losses, shares = {}, {"A": 5 * 0.5 / 12, "B": (5 * 0.5 + 7) / 12}
    for who in "AB":
        mine = [place for place, (run, _) in enumerate(rows) if run in heard[who]]
        targets = {}
        for run in heard[who]:
            values = data.responses(who, run).astype(float)
            targets[run] = (values - np.nanmean(values, axis=0)) / np.nanstd(values, axis=0)
        wanted = torch.tensor(np.stack([targets[rows[place][0]][rows[place][1]] for place in mine]), dtype=torch.float32)
        predicted = naive.predict(who, state[mine])
        there = ~torch.isnan(wanted)
        losses[who] = ((predicted - wanted)[there] ** 2).mean()
    total = sum(shares[who] * losses[who] for who in "AB")
    total.backward()
    assert line["loss"] == pytest.approx(total.item(), rel=1e-5)
    assert line["losses"] == pytest.approx({who: loss.item() for who, loss in losses.items()}, rel=1e-5)
    after = weights(out)
    for name, p in encoder.model.named_parameters():
        if p.grad is None or name == "masked_spec_embed":
            continue
        # The first update of AdamW, at the only update's rate: the peak, since warm-up is one update.
        wanted = p.detach() * (1 - 3e-3 * 0.1) - 3e-3 * p.grad / (p.grad.abs() + 1e-8)
        certain = p.grad.abs() > 1e-5  # below, the sign of rounding decides
        torch.testing.assert_close(after[name][certain], wanted[certain], rtol=1e-4, atol=1e-5)
    head = load_file(out / "heads" / "B.safetensors")["weight"]
    p = naive.head("B").weight
    certain = p.grad.abs() > 1e-5
    wanted = p.detach() * (1 - 1e-2 * 0.1) - 1e-2 * p.grad / (p.grad.abs() + 1e-8)
    torch.testing.assert_close(head[certain], wanted[certain], rtol=1e-4, atol=1e-5)


def test_parts_of_a_batch_add_up_to_it(model: Path, data: Tones, tmp_path: Path) -> None:
    """Gradients of two batches of 4 before an update, and of one of 8."""
    one = tuned(model, data, tmp_path / "one", epochs=2, batch=8)
    two = tuned(model, data, tmp_path / "two", epochs=2, batch=4, accumulate=2)
    for a, b in zip(epochs(one / "log.jsonl"), epochs(two / "log.jsonl"), strict=True):
        assert a["updates"] == b["updates"] and a["validation_loss"] == pytest.approx(b["validation_loss"], rel=2e-4)
        assert a["epoch"] == 0 or a["train_loss"] == pytest.approx(b["train_loss"], rel=2e-4)
    other = tuned(model, data, tmp_path / "other", epochs=2, batch=4)
    assert epochs(other / "log.jsonl")[-1]["updates"] == 2 * epochs(one / "log.jsonl")[-1]["updates"] - 2


def test_heads_updated_in_the_walk_are_those_of_the_optimizer(model: Path, tmp_path: Path) -> None:
    """Participants who heard different stories: one is missing in some batches."""
    heard = {"A": ("one", "watched"), "B": ("one", "two", "watched")}
    data = Tones(tmp_path / "data", heard=heard)
    runs = [tuned(model, data, tmp_path / str(step), order="story", fused_head_step=step) for step in (False, True)]
    for a, b in zip(*(epochs(run / "log.jsonl") for run in runs), strict=True):
        assert a["validation_loss"] == pytest.approx(b["validation_loss"], rel=1e-4)
    heads = [load_file(run / "heads" / "A.safetensors")["weight"] for run in runs]
    torch.testing.assert_close(*heads, rtol=1e-3, atol=1e-3)
    assert updates(runs[1] / "log.jsonl")[0]["losses"].keys() <= {"A", "B"}


@pytest.mark.parametrize("family", ["wav2vec2", "whisper"])
def test_frames_from_the_cache_are_those_of_the_cnn(family: str, data: Tones, tmp_path: Path) -> None:
    if family == "whisper":  # each of its clips is a spectrum of 30 s
        data = Tones(tmp_path / "data", stories={"one": 5, "two": 3, "watched": 2})
    model = saved_model(tmp_path / "model", family, strides=(5, 8, 8))
    runs = [tuned(model, data, tmp_path / how, epochs=2, cnn_cache=how, batch=16) for how in ("on", "off")]
    assert same(*(weights(run) for run in runs))
    logs = [[{**row, "time": None} for row in read_log(run / "log.jsonl")] for run in runs]
    assert logs[0] == logs[1]


def test_controls_learn_other_targets_from_the_same_clips(model: Path, tmp_path: Path) -> None:
    data = Tones(tmp_path / "data", stories={"one": 60, "two": 50, "watched": 20})
    runs = {name: tuned(model, data, tmp_path / name, epochs=6, targets=name, shift_seconds=40.0)
            for name in ("brain", "permuted", "shifted")}  # fmt: skip
    r = {name: epochs(run / "log.jsonl")[-1]["validation_r"] for name, run in runs.items()}
    assert r["brain"] > 0.5 and abs(r["permuted"]) < 0.4 and abs(r["shifted"]) < 0.4
    assert len({epochs(run / "log.jsonl")[-1]["updates"] for run in runs.values()}) == 1
    stories = [[row["stories"] for row in updates(run / "log.jsonl")] for run in runs.values()]
    assert stories[0] == stories[1] == stories[2]


def test_other_losses_and_arms(model: Path, data: Tones, tmp_path: Path) -> None:
    joint = tuned(model, data, tmp_path / "joint", own_weight=0.1, word_weight=0.5, words=2)
    line = updates(joint / "log.jsonl")[0]
    parts = sum(line["losses"].values()) / 2 + 0.1 * line["own_loss"] + 0.5 * line["word_loss"]
    assert line["loss"] == pytest.approx(parts, rel=1e-4)
    first, last = (updates(joint / "log.jsonl")[place]["word_loss"] for place in (0, -1))
    assert 0 < last < first
    stimulus = tuned(model, data, tmp_path / "stimulus", targets="stimulus", epochs=4)
    rows = epochs(stimulus / "log.jsonl")
    assert rows[-1]["validation_loss"] < rows[0]["validation_loss"] and rows[-1]["participants"] == {}
    assert not list((stimulus / "heads").iterdir())
    other = tuned(model, data, tmp_path / "other", targets=f"model:{stimulus / 'model'}", epochs=4)
    rows = epochs(other / "log.jsonl")
    assert rows[-1]["updates"] == epochs(stimulus / "log.jsonl")[-1]["updates"] == 20
    assert rows[-1]["validation_loss"] < rows[-1]["mean_loss"]
    assert set(rows[-1]["participants"]) == {"A", "B"}


def test_early_stop_keeps_the_best_epoch(model: Path, data: Tones, tmp_path: Path) -> None:
    """The rate is so high that validation gets worse: it stops, and the model is the best epoch's."""
    out = tuned(model, data, tmp_path / "run", epochs=30, patience=2, keep=(1, 2, 3), save_total_limit=2, schedule="constant",
                head_learning_rate=0.05)  # fmt: skip
    rows = epochs(out / "log.jsonl")
    losses = [row["validation_loss"] for row in rows[1:]]
    best, end = int(np.argmin(losses)) + 1, read_log(out / "log.jsonl")[-1]
    assert len(losses) < 30 and len(losses) - best == 2
    assert end["why"] == "early stop" and end["epoch_kept"] == best
    kept = {int(path.name.removeprefix("epoch-")) for path in (out / "checkpoints").glob("epoch-*")}
    assert best in kept and len(kept) <= 3
    assert same(weights(out), load_file(out / "checkpoints" / f"epoch-{best}" / "model.safetensors"))
    SpeechEncoder(out / "checkpoints" / f"epoch-{best}")


def test_a_loss_that_is_not_finite_stops_and_names_the_place(model: Path, data: Tones, tmp_path: Path) -> None:
    with pytest.raises(FastencodeError, match=r"not finite in epoch 1, batch \d \((one|two).*lower learning_rate \(1e\+30\)"):
        tuned(model, data, tmp_path / "run", learning_rate=1e30, head_learning_rate=1e30)
    assert list((tmp_path / "run" / "checkpoints").glob("state-*")), "the last good state is there"


def test_a_run_with_other_settings_or_data_is_refused(model: Path, tmp_path: Path) -> None:
    data = Tones(tmp_path / "data")
    out = tuned(model, data, tmp_path / "run", epochs=1)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert tuned(model, data, out, epochs=1) == out, "finished: nothing to do"
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.name != ".run.lock"}
    with pytest.raises(InputError, match=r"settings\.learning_rate was 0\.003, now 0\.01"):
        tuned(model, data, out, epochs=1, learning_rate=0.01)
    with pytest.raises(InputError, match=r"settings\.epochs was 1, now 2 \(--extend-epochs"):
        tuned(model, data, out, epochs=2)
    with pytest.raises(InputError, match=r"voxels\.B was"):
        tuned(model, data, out, epochs=1, more={"voxels": {"A": np.arange(5), "B": np.arange(2)}})
    other = saved_model(tmp_path / "other", "wav2vec2", strides=(5, 8, 8), seed=4)
    with pytest.raises(InputError, match="model was"):
        tuned(other, data, out, epochs=1)
    np.save(data.folder / "A-one.npy", data.responses("A", "one") + 1)
    with pytest.raises(InputError, match=r"data\.A/one/A-one\.npy was"):
        tuned(model, data, out, epochs=1)
    (tmp_path / "full" / "model").mkdir(parents=True)
    with pytest.raises(InputError, match="holds model of something else"):
        tuned(model, data, tmp_path / "full", epochs=1)


def test_more_epochs_go_on_from_the_last(model: Path, data: Tones, tmp_path: Path) -> None:
    out = tuned(model, data, tmp_path / "run", epochs=1, schedule="constant")
    tuned(model, data, out, epochs=3, schedule="constant", more={"extend_epochs": True})
    whole = tuned(model, data, tmp_path / "whole", epochs=3, schedule="constant", warm_up=0.0)
    assert [row["epoch"] for row in epochs(out / "log.jsonl")] == [0, 1, 2, 3]
    assert same(weights(out), weights(whole)), "at a constant rate, nothing else differs"


def test_bad_data_is_named(model: Path, tmp_path: Path) -> None:
    data = Tones(tmp_path / "data")
    with pytest.raises(InputError, match="no participant 'C': there are A, B"):
        choose_lessons(data, participants=["C"])
    with pytest.raises(InputError, match="validation names 'nine', which none of A, B heard"):
        choose_lessons(data, validation=["nine"])
    with pytest.raises(InputError, match="A heard no story to learn from besides"):
        choose_lessons(data, validation=["watched"], exclude=["one", "two"])
    with pytest.raises(InputError, match="A has no voxel to learn"):
        choose_lessons(data, voxels={"A": np.arange(0), "B": np.arange(3)})
    data.test_story = "two"
    with pytest.raises(InputError, match="A would be validated on two, the test story"):
        choose_lessons(data, validation=["two"])
    data.test_story = "test"
    with pytest.raises(InputError, match="A has 2 weights for 5 voxels"):
        choose_lessons(data, weights={"A": np.ones(2, np.float32)})
    np.save(data.folder / "A-one.npy", data.responses("A", "one")[:-1])
    with pytest.raises(InputError, match="A has 19 rows of responses to one, expected 20"):
        tuned(model, data, tmp_path / "rows")
    np.save(data.folder / "A-one.npy", np.full((20, 5), np.nan, np.float32))
    with pytest.raises(InputError, match="A has no finite response to one"):
        tuned(model, data, tmp_path / "nan")
    short = Tones(tmp_path / "short")
    short.rows = {**short.rows, "one": 40}
    with pytest.raises(InputError, match=r"one\.wav lasts 50\.0 s, but the last scan of one ends at 90 s"):
        tuned(model, short, tmp_path / "sound")
    with pytest.raises(InputError, match="the head of shared|equal columns, not A 5, B 3"):
        tuned(model, Tones(tmp_path / "shared"), tmp_path / "head", shared_head=True)


def test_missing_responses_stay_missing(tmp_path: Path) -> None:
    data = Tones(tmp_path / "data")
    values = data.responses("A", "one")
    values[3, 1], values[:, 2], values[4, 0] = np.nan, np.nan, np.inf
    np.save(data.folder / "A-one.npy", values)
    lessons = choose_lessons(data, validation=["watched"])
    paths = [path for who in "AB" for run in data.rows for path in data.response_files(who, run)]
    files = {path: one["sha256"] for path, one in digests(paths, {}).items()}
    found = cache_responses(lessons, tmp_path / "cache", files)
    wanted = np.where(np.isfinite(values), values, np.nan).astype(float)
    with np.errstate(invalid="ignore"), pytest.warns(RuntimeWarning):
        wanted = (wanted - np.nanmean(wanted, axis=0)) / np.nanstd(wanted, axis=0)
    np.testing.assert_allclose(found["A", "one"], wanted, atol=1e-5)
    again = cache_responses(lessons, tmp_path / "cache", files)
    np.testing.assert_array_equal(again["A", "one"], found["A", "one"])


def test_correlations_from_sums_are_those_of_the_package() -> None:
    rng = np.random.default_rng(0)
    measured, predicted = rng.standard_normal((2, 30, 5)).astype(np.float32)
    measured[:, 1] = predicted[:, 2] = 3.0
    predicted[:, 3] = 2 - measured[:, 3]
    sums = Sums(5, "cpu")
    for rows in (slice(0, 7), slice(7, 30)):
        sums.add(torch.from_numpy(predicted[rows]), torch.from_numpy(measured[rows]))
    found = sums.correlation()
    np.testing.assert_allclose(found, fastencode.pearson(measured, predicted), atol=1e-6)
    assert found[1] == found[2] == 0 and found[3] < -0.999999
    holes = measured.copy()
    holes[::3, 0] = np.nan
    sums = Sums(5, "cpu")
    sums.add(torch.from_numpy(predicted), torch.from_numpy(holes))
    there = np.isfinite(holes[:, 0])
    assert sums.correlation()[0] == pytest.approx(np.corrcoef(predicted[there, 0], measured[there, 0])[0, 1], abs=1e-6)


@pytest.mark.parametrize("order", ["shuffled", "story", "contiguous"])
def test_every_clip_is_heard_once_an_epoch(order: str) -> None:
    n_rows, config = (20, 13, 7), TuneConfig(order=order, seed=3)
    every = {(run, row) for run, n in enumerate(n_rows) for row in range(n)}
    orders = []
    for epoch in (1, 2):
        batches = order_of_epoch(n_rows, epoch, 6, config)
        heard = [(int(run), int(row)) for batch in batches for run, row in zip(batch.runs, batch.rows, strict=True)]
        assert len(heard) == 40 and set(heard) == every and max(map(len, batches)) == 6
        orders.append(heard)
        if order != "shuffled":
            assert all(len(set(batch.runs.tolist())) == 1 for batch in batches)
        steps = [np.diff(batch.rows) for batch in batches if len(batch) > 1]
        assert (order == "contiguous") == all((step == 1).all() for step in steps)
    assert orders[0] != orders[1]
    assert order_of_epoch(n_rows, 2, 6, config)[0].rows.tolist() == [
        row for _, row in orders[1][: len(order_of_epoch(n_rows, 2, 6, config)[0])]
    ]
    assert [len(batch) for batch in batches_in_order(n_rows, 8)] == [8, 8, 4, 8, 5, 7]


def test_clips_are_the_sound_before_each_scan_ended(model: Path, data: Tones, tmp_path: Path) -> None:
    encoder = SpeechEncoder(model)
    for normalize in ("clip", "batch"):
        sounds = Sounds(
            {"one": data.sound_file("one")}, encoder, tmp_path / normalize, TuneConfig(clip_seconds=5.0, normalize=normalize)
        )
        clips = sounds.read("one", np.array([2.0, 12.0, 30.0]))
        raw = np.stack([clip(data, "one", end, 5.0) for end in (2.0, 12.0, 30.0)])
        over = 1 if normalize == "clip" else None
        wanted = (raw - raw.mean(axis=over, keepdims=True)) / np.sqrt(raw.var(axis=over, keepdims=True) + 1e-7)
        np.testing.assert_allclose(clips, wanted, atol=2e-5)
    assert (raw[0, : 3 * RATE] == 0).all() and raw[0, 3 * RATE :].any()


def test_learning_rates_follow_the_schedule() -> None:
    linear = [shares_of_peak(s, 24, TuneConfig(epochs=3))[0] for s in range(24)]
    np.testing.assert_allclose(linear, [0.5, 1.0] + [(24 - s) / 22 for s in range(2, 24)])
    assert [shares_of_peak(s, 20, TuneConfig(schedule="constant"))[0] for s in (0, 1, 2, 19)] == [0.5, 1.0, 1.0, 1.0]
    by_epoch = [shares_of_peak(10 * e, 300, TuneConfig(schedule="epochs", epochs=30)) for e in range(30)]
    assert [round(one[0], 3) for one in by_epoch[:7]] == [0, 0.2, 0.4, 0.6, 0.8, 1.0, 0.96] and by_epoch[29][0] == 1 / 25
    np.testing.assert_allclose([one[1] for one in by_epoch], [max(0.8**e, 0.1) for e in range(30)])
    # What the published code does with 3 subjects, 30 epochs and 82 stories: 2 460 steps of 22 140.
    steps = [shares_of_peak(s, 2460, TuneConfig(schedule="miscounted", epochs=30), people=3, stories=82)[0] for s in range(2461)]
    assert int(np.argmax(steps)) == 2214 and round(steps[2460], 5) == 0.98765


def test_bad_settings_are_named() -> None:
    for name in ("epochs", "batch", "learning_rate", "clip_seconds"):
        with pytest.raises(InputError, match=f"{name} must be positive"):
            TuneConfig(**{name: 0})
    cases = {
        "choose linear, constant, epochs or miscounted": {"schedule": "cosine"},
        "choose brain, permuted, shifted, stimulus or model:FOLDER": {"targets": "noise"},
        "unfreeze names 'positions'": {"unfreeze": ("positions",)},
        "give order=contiguous": {"head": "delays"},
        "clip_norm cannot count it": {"fused_head_step": True, "clip_norm": 1.0},
        "keep names epoch 9": {"keep": (9,)},
        "cnn_cache=on keeps what unfreeze=cnn changes": {"cnn_cache": "on", "unfreeze": ("cnn",)},
    }
    for message, settings in cases.items():
        with pytest.raises(InputError, match=message):
            TuneConfig(**settings)
    with pytest.raises(InputError, match="mask_share"):
        PretrainConfig(mask_share=1.0)
    with pytest.raises(InputError, match="there is no run to learn from"):
        Lessons(None, {}, {}, {})  # type: ignore[arg-type]
