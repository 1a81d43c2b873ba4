"""fastencode-tune demo on a small world: every number of its tables once more, with naive code, from the files it leaves.

The targets and clips that models are tuned on, the optimizer's settings at every update, the features of one clip at a time,
the scores, and the answers to what was expected. And the same scores by ``features`` and ``align``, as a user gives them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml

import reference
import reference_timing
from demo_cases import CONTROLS, EXPECTED, LESS, PLACE, REGIONS, answers, drawn, of_models, of_seeds
from fastencode.cli import main
from fastencode.runs import tuning
from fastencode.study.inference.blocks import interval
from fastencode.tune import training
from fastencode.tune.batches import batches_in_order
from speech_cases import saved_model

for library in ("jsonargparse", "espeakng_loader", "matplotlib"):
    pytest.importorskip(library, reason="the command needs the extra 'demo'")
pd = pytest.importorskip("pandas", reason="the command needs the extra 'demo'")
torch = pytest.importorskip("torch", reason="the command needs the extra 'demo'")
transformers = pytest.importorskip("transformers", reason="the command needs the extra 'demo'")

torch.set_num_threads(1)

pytestmark = pytest.mark.usefixtures("no_pictures")

STORIES, RATE, TR, SECONDS, BINS, HOP, MIDDLE = ("story01", "story02"), 16000, 2.0, 4.0, 4, 320, 29.5
DELAYS, ALPHAS = (1, 2, 3), (1.0, 30.0, 1000.0)
EPOCHS, BATCH, PEAK, HEAD_PEAK, DECAY = 3, 8, 2e-4, 3e-3, 0.03
SETTINGS = {
    "controls": 3,
    "probes": False,
    "world": {
        "minutes": 2.8,
        "story_minutes": 1.4,
        "test_minutes": 2.0,
        "participants": [
            {"name": "A", "auditory": 5, "late_language": 6, "silent": 4, "gain": 1.5, "peak_delay": 6.0},
            {"name": "B", "auditory": 4, "late_language": 5, "silent": 3, "gain": 1.8, "peak_delay": 5.0},
        ],
    },
    "tune": {"epochs": EPOCHS, "batch": BATCH, "learning_rate": PEAK, "head_learning_rate": HEAD_PEAK, "weight_decay": DECAY},
    "align": {"bootstraps": 50, "delays": list(DELAYS), "alphas": list(ALPHAS), "folds": 2},
}
SETTINGS["tune"]["clip_seconds"] = SECONDS


class Rows:
    """CNN frames (rows, f, c) and responses (rows, v) of all rows of a run's training or validation, in order."""

    def __init__(self, sources: Any) -> None:
        parts = [sources.part(place) for place in batches_in_order(sources.n_rows, 1000)]
        self.frames = np.concatenate([part.clips.numpy() for part in parts])
        (who,) = sources.lessons.people
        assert all((part.targets[who][0].numpy() == np.arange(len(part.clips))).all() for part in parts)
        self.responses = np.concatenate([part.targets[who][1].numpy() for part in parts])


@dataclass
class Seen:
    """What the trainer was given and did: (participant arm) → all rows; learning rates and weight decays of every update."""

    out: Path
    given: dict[str, tuple[Rows, Rows]] = field(default_factory=dict)
    updates: dict[str, list[tuple[float, ...]]] = field(default_factory=dict)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_model(tmp_path_factory.mktemp("model"), "wav2vec2", strides=(5, 8, 8))


@pytest.fixture(scope="module")
def seen(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """One whole run in this process, watched at its trainer."""
    root = tmp_path_factory.mktemp("run")
    (root / "settings.yaml").write_text(yaml.safe_dump(SETTINGS))
    found, tune, make, step, name = Seen(root / "out"), tuning.tune_lessons, training.make_sources, torch.optim.AdamW.step, []

    def watched_tune(*rest: Any, desc: str, **more: Any) -> Any:
        name[:] = [desc]
        return tune(*rest, desc=desc, **more)

    def watched_sources(*rest: Any, **more: Any) -> Any:
        train, validation = make(*rest, **more)
        found.given[name[0]] = Rows(train), Rows(validation)
        return train, validation

    def watched_step(optimizer: Any, *rest: Any) -> Any:
        groups = optimizer.param_groups
        found.updates.setdefault(name[0], []).append((*(g["lr"] for g in groups), *(g["weight_decay"] for g in groups)))
        return step(optimizer, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning, "tune_lessons", watched_tune)
        patch.setattr(training, "make_sources", watched_sources)
        patch.setattr(torch.optim.AdamW, "step", watched_step)
        given = ["--config", str(root / "settings.yaml"), "--out", str(found.out), "--jobs", "1", "--model", str(model)]
        assert main(["demo", *given]) == 0
    return found


def responses(out: Path, who: str, story: str, key: str = "data") -> np.ndarray:
    with h5py.File(out / "world" / "preprocessed_data" / who / f"{story}.hf5") as file:
        return file[key][:]


def normal(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(axis=0)) / x.std(axis=0)


def ends(rows: int) -> np.ndarray:
    """When the scan of each response row ended, in s: ds003020's rows begin five TRs after the sound."""
    return TR * (np.arange(rows) + 5) + TR


def clip(out: Path, story: str, end: float) -> np.ndarray:
    """The sound of the last seconds before a time; silence before it began."""
    import soundfile

    audio, rate = soundfile.read(out / "world" / "stimuli" / f"{story}.wav", dtype="float32")
    if rate != RATE:
        import soxr

        audio = soxr.resample(audio, rate, RATE, quality="HQ")
    n = round(SECONDS * RATE)
    return np.concatenate([np.zeros(n, np.float32), audio])[round(end * RATE) :][:n]


def inputs(folder: Path, heard: np.ndarray) -> Any:
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    return extractor(heard, sampling_rate=RATE, return_tensors="pt").input_values


def checkpoints(out: Path, model: Path) -> dict[tuple[str, str], tuple[Path, Path]]:
    """(participant, model) → its checkpoint, and the folder of its features."""
    found = {}
    for who in "AB":
        found[who, "pretrained"] = model, out / "features" / "everybody" / "pretrained"
        for arm in ("tuned", *CONTROLS):
            found[who, arm] = out / "models" / who / arm / "model", out / "features" / who / arm
    return found


def test_targets_are_the_responses_and_the_controls_are_theirs_no_more(seen: Seen, model: Path) -> None:
    """Row by row: tuned on z-scored responses to the clip; each control on those to another time, in an order of its own."""
    orders = {}
    for who in "AB":
        repeats = responses(seen.out, who, "test", "individual_repeats")
        voxels = np.flatnonzero((reference_timing.noise_ceiling(repeats) > 0.4) & reference_timing.agreeing(repeats))
        assert 5 < len(voxels) < repeats.shape[2]
        parts = [normal(responses(seen.out, who, story)[:, voxels]) for story in STORIES]
        wanted, validation = np.vstack(parts), normal(responses(seen.out, who, "validation")[:, voxels])
        tuned, watched = seen.given[f"{who} tuned"]
        np.testing.assert_allclose(tuned.responses, wanted, atol=1e-5)
        np.testing.assert_allclose(watched.responses, validation, atol=1e-5)
        for arm in CONTROLS:
            control, also_watched = seen.given[f"{who} {arm}"]
            np.testing.assert_allclose(also_watched.responses, validation, atol=1e-5)
            np.testing.assert_array_equal(control.frames, tuned.frames)
            orders[who, arm] = order_of(control.responses, wanted, [len(part) for part in parts])
        at = np.concatenate([ends(len(part)) for part in parts])
        whole = transformers.AutoModel.from_pretrained(model).eval()
        for row in (0, 7, len(parts[0]), len(wanted) - 1):
            story = STORIES[int(row >= len(parts[0]))]
            with torch.inference_mode():
                alone = whole.feature_extractor(inputs(model, clip(seen.out, story, at[row])))[0].T.numpy()
            np.testing.assert_allclose(tuned.frames[row], alone, atol=1e-4)
    assert len(orders) == 6 and all((a != b).mean() > 0.2 for a, b in combinations(orders.values(), 2)), "all in other orders"
    weights = {folder: (folder / "model.safetensors").read_bytes() for folder, _ in checkpoints(seen.out, model).values()}
    assert len(weights) == len(set(weights.values())) == 9


def order_of(targets: np.ndarray, wanted: np.ndarray, rows: list[int]) -> np.ndarray:
    """Which row of the true responses each row of a control's targets is; blocks of 15 rows of one story that moved."""
    distance = np.abs(targets[:, None] - wanted[None]).max(axis=2)
    order, n, block = distance.argmin(axis=1), len(wanted), 15
    assert (distance.min(axis=1) < 1e-5).all(), "the control's targets are responses"
    assert (np.abs(order - np.arange(n)) >= block).all(), "and none is that of its clip"
    first = [start for at, length in zip((0, rows[0]), rows, strict=True) for start in range(at, at + length, block)]
    for start, stop in zip(first, [*first[1:], n], strict=True):
        moved = order[start:stop]
        assert (np.diff(moved) == 1).all() and len({int(row) >= rows[0] for row in moved}) == 1, "blocks stay within stories"
    return order


def test_every_update_has_its_learning_rate_and_weight_decay(seen: Seen) -> None:
    """Warm-up over a tenth of the updates, then linear to 0: (s + 1) / 2 of the peak, then (24 - s) / 22 of it."""
    n = EPOCHS * 64 // BATCH
    assert n == 24
    shape = [0.5, 1.0] + [(24 - s) / 22 for s in range(2, 24)]
    assert list(seen.updates) == [f"{who} {arm}" for arm in ("tuned", *CONTROLS) for who in "AB"]
    for updates in seen.updates.values():
        wanted = [(PEAK * part, HEAD_PEAK * part, DECAY, DECAY) for part in shape]
        np.testing.assert_allclose(updates, wanted, rtol=1e-12)


@pytest.mark.parametrize("arm", ["pretrained", "tuned", "control-seed-2"])
def test_features_are_those_of_one_clip_at_a_time(seen: Seen, model: Path, arm: str) -> None:
    """Each clip alone through transformers: all layers' frames of its last TR in four bins, at the time of the frames."""
    checkpoint, folder = checkpoints(seen.out, model)["A", arm]
    whole = transformers.AutoModel.from_pretrained(checkpoint).eval()
    for story, clips in (("story01", (1, 2, 3, 20, 42)), ("test", (1, 30, 60))):
        with h5py.File(folder / f"{story}.h5") as file:
            values, times = file["features"][:], file["times"][:]
        assert values.shape == (BINS * {"story01": 42, "test": 60}[story], 3, 16)
        for k in clips:
            with torch.inference_mode():
                hidden = whole(inputs(checkpoint, clip(seen.out, story, k * TR)), output_hidden_states=True).hidden_states
            frames = torch.stack([layer[0] for layer in hidden], dim=1).numpy()
            since = SECONDS - (HOP * np.arange(len(frames)) + MIDDLE) / RATE  # from each frame's middle to the clip's end
            for b in range(BINS):
                inside = (since > 1.5 - 0.5 * b) & (since <= 2.0 - 0.5 * b)
                row = BINS * (k - 1) + b
                np.testing.assert_allclose(values[row], frames[inside].mean(axis=0), atol=3e-5)
                np.testing.assert_allclose(times[row], k * TR - since[inside].mean(), atol=1e-4)


def delayed(folder: Path, layer: int, story: str, rows: int) -> np.ndarray:
    with h5py.File(folder / f"{story}.h5") as file:
        values, times = file["features"][:, layer].astype(float), file["times"][:]
    at_scans = reference_timing.lanczos(values, times, ends(rows) - TR / 2)[0]
    return reference_timing.delay(normal(at_scans), DELAYS, np.zeros(rows))


def by_hand(out: Path, folder: Path, who: str, layer: int) -> dict[str, dict[str, float]]:
    """Region → what its row of scores.csv should hold: nothing but loops over stories, folds, penalties and voxels."""
    fit, test = [responses(out, who, story) for story in STORIES], responses(out, who, "test")
    ceiling = reference_timing.noise_ceiling(responses(out, who, "test", "individual_repeats"))
    X = np.vstack([delayed(folder, layer, story, len(part)) for story, part in zip(STORIES, fit, strict=True)])
    Y, X_test = np.vstack([normal(part) for part in fit]), delayed(folder, layer, "test", len(test))
    half = np.arange(len(X)) < len(fit[0])
    folds = [(np.flatnonzero(half == one), np.flatnonzero(half != one)) for one in (True, False)]
    cv = reference.cv_scores(X, Y, ALPHAS, folds, "pearson", True)
    best = len(ALPHAS) - 1 - cv[::-1].argmax(axis=0)
    r = []
    for v in range(test.shape[1]):
        coef, constant = reference.weights(X, Y[:, v], ALPHAS[best[v]], True)
        r.append(reference.pearson(test[:, v], X_test @ coef + constant))
    regions, rows = json.loads((out / "world" / "rois" / f"{who}.json").read_text()), {}
    for name in REGIONS:
        voxels = np.array(regions[name])
        known = voxels[ceiling[voxels] > 0]
        rows[name] = {
            "fit_rows": len(X),
            "n_voxels": len(voxels),
            "r": np.mean([r[v] for v in voxels]),
            "r_normalized": np.mean([r[v] for v in known]) / np.mean(ceiling[known]) if len(known) else np.nan,
            "ceiling": np.mean(ceiling[known]) if len(known) else np.nan,
            "alpha_median": np.median([ALPHAS[best[v]] for v in voxels]),
            "at_edge": np.mean([best[v] != 1 for v in voxels]),
        }
    return rows


def test_every_score_is_that_of_naive_code(seen: Seen, model: Path) -> None:
    """Each control's r, and of the control the mean over its seeds of every number."""
    table, each, controls = of_models(seen.out), of_seeds(seen.out), {}
    for (who, name), (_, folder) in checkpoints(seen.out, model).items():
        for layer in range(3):
            for region, row in by_hand(seen.out, folder, who, layer).items():
                if name in CONTROLS:
                    np.testing.assert_allclose(each["value"].loc[who, name, layer, region], row["r"], atol=5e-5, err_msg=region)
                    controls.setdefault((who, "control", layer, region), []).append(row)
                    continue
                found = table.loc[who, name, layer, region]
                np.testing.assert_allclose(found[list(row)].astype(float), list(row.values()), atol=5e-5, err_msg=region)
    for place, rows in controls.items():
        mean = pd.DataFrame(rows).mean(skipna=False)
        np.testing.assert_allclose(table.loc[place][list(mean.index)].astype(float), mean, atol=5e-5, err_msg=str(place))
    assert len(controls) == 2 * 3 * 3 and all(len(rows) == 3 for rows in controls.values())
    assert table["r"].max() > 0.1, "there is something to predict"


def test_the_control_is_the_mean_of_its_seeds(seen: Seen) -> None:
    """Scores and curves; the interval is that of the mean of the seeds' draws, which lie beside their scores."""
    each, one = of_seeds(seen.out), of_models(seen.out)[["r", "r_low", "r_high"]].xs("control", level="model")
    residuals = sum(of_seeds(seen.out, "r_residual")["value"].xs(arm, level="model") for arm in CONTROLS) / 3
    less = of_models(seen.out)["r"].xs(f"control{LESS}", level="model")
    pd.testing.assert_series_equal(less, residuals, rtol=0, atol=1e-12, check_names=False)
    means = sum(each["value"].xs(arm, level="model") for arm in CONTROLS) / 3
    pd.testing.assert_series_equal(one["r"], means, rtol=0, atol=1e-12, check_names=False)
    for (who, name, layer, region), r in each["value"].items():  # what each voxel scored stands by each seed
        voxels = json.loads((seen.out / "world" / "rois" / f"{who}.json").read_text())[region]
        with h5py.File(seen.out / "voxels" / f"{who}.h5") as file:
            assert file[f"{name}-at-1-2-3/r"][layer, voxels].mean() == pytest.approx(r, abs=1e-6)
    assert (each.groupby(["participant", "layer", "region"])["value"].std() > 1e-4).mean() > 0.5, "the controls are three models"
    for (who, layer, region), row in one.iterrows():
        draws, blocks = zip(*(drawn(seen.out, arm, who, layer, region) for arm in CONTROLS), strict=True)
        assert len(set(blocks)) == 1
        low, high = interval(row["r"], np.mean(draws, axis=0), blocks[0], correlation=True)
        np.testing.assert_allclose(row[["r_low", "r_high"]].astype(float), [low, high], atol=1e-9)
    curves = pd.read_csv(seen.out / "training.csv").set_index(["model", "participant", "epoch"]).sort_index()
    assert len(curves) == 2 * 2 * (1 + EPOCHS) and set(curves["updates"]) == {0, 8, 16, 24}
    for model, arms in (("tuned", ("tuned",)), ("control", CONTROLS)):
        for who in "AB":
            logs = [(seen.out / "models" / who / arm / "log.jsonl").read_text().splitlines() for arm in arms]
            logs = [[row for row in map(json.loads, log) if row["kind"] == "epoch"] for log in logs]
            for name in ("train_loss", "validation_loss", "validation_r"):
                wanted = np.mean([[row[name] for row in log] for log in np.array(logs)[:, 1:]], axis=0)
                found = curves.loc[model, who][name]
                np.testing.assert_allclose(found.loc[1:], wanted, rtol=0, atol=1e-12)
                assert np.isnan(found.loc[0]) == (name == "train_loss"), "no clip was learned from before the first update"


def test_what_was_expected_is_answered_by_stated_margins(seen: Seen) -> None:
    """Numbers, intervals and answers, from the fits' draws by hand."""
    findings = pd.read_csv(seen.out / "findings.csv").set_index("name")
    assert dict(findings["family"].fillna("")) == {name: family for name, (*_, family) in EXPECTED.items()}
    verdicts = json.loads((seen.out / "results.json").read_text())["verdicts"]
    assert len(verdicts) == len(EXPECTED) + 1
    for verdict, (name, (number, ends, answer)) in zip(verdicts, answers(seen.out).items(), strict=False):
        found = findings.loc[name]
        assert verdict["answer"] == found["answer"] == answer, name
        for said in ((verdict["measured"], verdict["low"], verdict["high"]), found[["value", "low", "high"]].astype(float)):
            np.testing.assert_allclose(said, [number, *ends], rtol=0, atol=1e-9, err_msg=name)
    over = "yes if the interval lies above 0 and that of tuned − control above 0, no if one of them lies below"
    family = "; at the levels of Holm's steps in the family 'brains'"
    assert [verdict["rule"] for verdict in verdicts] == [
        f"{over}{family}",
        f"yes if the interval lies above −0.03, no if below{family}",
        over,
        f"{over}{family}",
        "yes if the interval lies above 0, no if below",
        "yes if the interval lies below 0.03, no if above",
        "yes if the interval lies above 0, no if below",
        *["yes if the interval lies within ±0.02, no if outside"] * 2,
        "yes if the interval lies within ±0.05, no if outside",
    ]


def test_ceilings_are_compared_with_the_truth(seen: Seen) -> None:
    """The last expectation: estimated less true noise ceiling, its mean over voxels, each of which has noise of its own."""
    errors = []
    for who in "AB":
        with h5py.File(seen.out / "world" / "truth" / f"{who}.h5") as file:
            truth = file["ceiling"][:]
        estimate = reference_timing.noise_ceiling(responses(seen.out, who, "test", "individual_repeats"))
        errors += list((estimate - truth)[truth > 0])
    verdict, mean = json.loads((seen.out / "results.json").read_text())["verdicts"][-1], np.mean(errors)
    half = 1.96 * np.std(errors, ddof=1) / np.sqrt(len(errors))
    np.testing.assert_allclose(
        [verdict["measured"], verdict["low"], verdict["high"]], [mean, mean - half, mean + half], atol=1e-6
    )
    yes, no = mean - half > -0.05 and mean + half < 0.05, mean - half > 0.05 or mean + half < -0.05
    assert verdict["answer"] == ("yes" if yes else "no" if no else "undecided")


def test_the_numbers_are_those_of_features_and_align(seen: Seen, model: Path, tmp_path: Path) -> None:
    """What a user gives: two commands, on the same world, checkpoints, clips, delays, penalties and stories."""
    world, folders = seen.out / "world", []
    for name in ("pretrained", "tuned", *CONTROLS):
        folders.append(tmp_path / name)
        given = ["--audio", str(world / "stimuli"), "--model", str(checkpoints(seen.out, model)["B", name][0])]
        assert main(["features", *given, "--out", str(folders[-1]), "--read.seconds", str(SECONDS)]) == 0
    given = ["--stories", str(world), "--features", *map(str, folders), "--out", str(tmp_path / "scores")]
    given += ["--participants", "B", "--test_story", "test", "--test_skip", "0", "--exclude", "validation", "--ceiling", "-1"]
    given += ["--align.bootstraps", "50", "--align.folds", "2", "--baselines", "spectrum", "--residualize", "spectrum"]
    given += ["--align.delays", json.dumps(DELAYS), "--align.alphas", json.dumps(ALPHAS)]
    assert main(["align", *given]) == 0
    found = pd.read_csv(tmp_path / "scores" / "scores.csv").query("region != 'all'").set_index(PLACE).sort_index()
    assert len(found) == 2 * 5 * 3 * 3 + 3
    # Products of float32 by more than one thread differ in their last bits.
    close, table = {"rtol": 0, "atol": 2e-6}, of_models(seen.out)
    every = [f"{name}{suffix}" for name in CONTROLS for suffix in ("", LESS)]
    own = found.drop(index=every, level="model")
    pd.testing.assert_frame_equal(own, table.loc[list(own.index)][own.columns], **close)
    numbers = [name for name in found if found[name].dtype == float and not name.endswith(("_low", "_high"))]
    assert {"r", "r_normalized", "r_over_ceiling", "alpha_median", "significant"} <= set(numbers)
    for suffix, measure in (("", "r"), (LESS, "r_residual")):
        controls = found.loc[["B"], [f"{name}{suffix}" for name in CONTROLS], :, :]
        ends = controls[["r", "r_low", "r_high"]].set_axis(["value", "low", "high"], axis=1)
        ends = ends.rename(index=lambda name: name.removesuffix(LESS) if isinstance(name, str) else name, level="model")
        pd.testing.assert_frame_equal(ends, of_seeds(seen.out, measure).loc[list(ends.index)][ends.columns], **close)
        mean = controls[numbers].groupby(["participant", "layer", "region"]).agg(lambda column: column.mean(skipna=False))
        pd.testing.assert_frame_equal(mean, table.xs(f"control{suffix}", level="model").loc[["B"]][numbers], **close)
