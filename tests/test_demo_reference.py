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
import scipy.stats
import yaml

import reference
import reference_timing
from fastencode.cli import main
from fastencode.runs import tuning
from fastencode.study.blocks import interval
from fastencode.tune import training
from fastencode.tune.batches import batches_in_order
from speech_cases import saved_model

for library in ("jsonargparse", "espeakng_loader", "matplotlib"):
    pytest.importorskip(library, reason="the command needs the extra 'demo'")
pd = pytest.importorskip("pandas", reason="the command needs the extra 'demo'")
torch = pytest.importorskip("torch", reason="the command needs the extra 'demo'")
transformers = pytest.importorskip("transformers", reason="the command needs the extra 'demo'")

torch.set_num_threads(1)

STORIES, RATE, TR, SECONDS, BINS, HOP, MIDDLE = ("story01", "story02"), 16000, 2.0, 4.0, 4, 320, 29.5
DELAYS, ALPHAS, REGIONS = (1, 2, 3), (1.0, 30.0, 1000.0), ("auditory", "late_language", "silent")
EPOCHS, BATCH, PEAK, HEAD_PEAK, DECAY = 3, 8, 2e-4, 3e-3, 0.03
SEEDS = (1, 2, 3)
CONTROLS = tuple(f"control-seed-{seed}" for seed in SEEDS)
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


def of_seeds(out: Path) -> pd.DataFrame:
    """What seeds.csv says of each control's r: value, low and high by (participant, model, layer, region)."""
    each = pd.read_csv(out / "seeds.csv")
    assert len(each) == 2 * 3 * 3 * 3 and set(each["seed"]) == set(SEEDS)
    assert set(each["measure"]) == {"r"} and set(each["model"]) == {"control"}
    each["model"] += "-seed-" + each["seed"].astype(str)
    return each.set_index(["participant", "model", "layer", "region"]).sort_index()


def of_models(out: Path) -> pd.DataFrame:
    """scores.csv by (participant, model, layer, region); the control's rows are means over its seeds."""
    table = pd.read_csv(out / "scores.csv")
    assert len(table) == 2 * 3 * 3 * 3
    return table.set_index(["participant", "model", "layer", "region"]).sort_index()


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


def drawn(out: Path, name: str, who: str, layer: int, region: str) -> tuple[np.ndarray, float]:
    """A region's r on drawn blocks, and how many blocks there are, as a fit leaves them."""
    with h5py.File(out / "fits" / f"{name}-at-1-2-3" / who / f"layer-{layer:02d}" / "layer.h5") as file:
        # regions of a record: all voxels, then those of the table
        return file["draws"][:, 1 + REGIONS.index(region)], float(file["n_blocks"][()])


def test_the_control_is_the_mean_of_its_seeds(seen: Seen) -> None:
    """Scores and curves; the interval is that of the mean of the seeds' draws, which lie beside their scores."""
    each, one = of_seeds(seen.out), of_models(seen.out)[["r", "r_low", "r_high"]].xs("control", level="model")
    means = sum(each["value"].xs(arm, level="model") for arm in CONTROLS) / 3
    pd.testing.assert_series_equal(one["r"], means, rtol=0, atol=1e-12, check_names=False)
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


Sum = dict[tuple[str, str, int], float]
LATE, MIDDLE, EARLY = ("late_language", 2), ("late_language", 1), ("auditory", 0)


def less(one: str, other: str, where: tuple[str, int]) -> Sum:
    return {(one, *where): 1, (other, *where): -1}


# Name → weights of (model, region, layer), those of the same less the control, the limits, and the family.
EXPECTED: dict[str, tuple[Sum, Sum, float | None, float | None, str]] = {
    "late-rise": (less("tuned", "pretrained", LATE), less("tuned", "control", LATE), 0, None, "brains"),
    "early-kept": (less("tuned", "pretrained", EARLY), {}, -0.03, None, "brains"),
    "late-more-than-middle": (
        less("tuned", "pretrained", LATE) | less("pretrained", "tuned", MIDDLE),
        less("tuned", "control", LATE) | less("control", "tuned", MIDDLE),
        0,
        None,
        "",
    ),
    "control-flat": (less("control", "pretrained", LATE), {}, None, 0.03, ""),
    "above-control": (less("tuned", "control", LATE), {}, 0, None, ""),
    "silent-pretrained": ({("pretrained", "silent", layer): 1 / 3 for layer in range(3)}, {}, -0.02, 0.02, ""),
    "silent-tuned": ({("tuned", "silent", layer): 1 / 3 for layer in range(3)}, {}, -0.02, 0.02, ""),
}


def summed(out: Path, weights: Sum, correlation: bool) -> tuple[float, float, float]:
    """A weighted sum, the mean over participants: the number, its standard error, and degrees of freedom, from the fits' draws.

    Of a mean of correlations, number and error are those of its arctanh.
    """
    r, arms = of_models(out)["r"], {"pretrained": ("pretrained",), "tuned": ("tuned",), "control": CONTROLS}
    values, draws, blocks = [], [], []
    for who in "AB":
        values.append(sum(weight * r[who, name, layer, region] for (name, region, layer), weight in weights.items()))
        own, counts = 0.0, set()
        for (name, region, layer), weight in weights.items():
            several = [drawn(out, arm, who, layer, region) for arm in arms[name]]
            own = own + weight * np.mean([each for each, _ in several], axis=0)
            counts |= {count for _, count in several}
        (count,) = counts
        draws.append(own)
        blocks.append(count)
    covariance = np.cov(draws)
    stretch = 1 + 2 * covariance[0, 1] * (max(blocks) / min(blocks) - 1) / covariance.sum()  # blocks of two lengths
    drawn_b, value = np.mean(draws, axis=0), np.mean(values)
    drawn_b = drawn_b.mean() + np.sqrt(max(1, stretch)) * (drawn_b - drawn_b.mean())
    if correlation:
        value, drawn_b = np.arctanh(value), np.arctanh(drawn_b)
    return float(value), float(drawn_b.std(ddof=1)), min(blocks) - 1


def decided(out: Path, name: str) -> tuple[float, list[float], float, str]:
    """One expectation: the number, the ends of its .95 interval, the p of the answer that it leans to, and this answer."""
    weights, over, above, below, _ = EXPECTED[name]
    single = len({model for model, _, _ in weights}) == 1
    value, error, freedom = summed(out, weights, single)

    def p(of: tuple[float, float, float], limit: float) -> float:
        distance = abs(of[0] - (np.arctanh(limit) if single else limit))
        return float(2 * scipy.stats.t.sf(distance / of[1], of[2]))

    half = scipy.stats.t.ppf(0.975, freedom) * error
    shown = [value, value - half, value + half]
    number, *ends = np.tanh(shown) if single else shown
    main = (value, error, freedom)
    if above is not None and below is not None:  # within: both limits
        return number, ends, max(p(main, above), p(main, below)), "yes" if above < number < below else "no"
    tests = [(number - above if above is not None else below - number, p(main, above if above is not None else below))]
    if over:
        over_control = summed(out, over, False)
        tests.append((over_control[0], p(over_control, 0)))
    against = [p for beyond, p in tests if beyond < 0]
    return number, ends, min(against, default=max(p for _, p in tests)), "no" if against else "yes"


def test_what_was_expected_is_answered_by_stated_margins(seen: Seen) -> None:
    """Three layers: the first is early, the last late. Numbers, intervals and answers from the fits' draws, by hand.

    Two expectations are a family: the one of smaller p is compared with .05 / 2, the other with .05 if that one was decided.
    """
    findings = pd.read_csv(seen.out / "findings.csv").set_index("name")
    assert dict(findings["family"].fillna("")) == {name: family for name, (*_, family) in EXPECTED.items()}
    by_name = {name: decided(seen.out, name) for name in EXPECTED}
    first, second = sorted((name for name in EXPECTED if EXPECTED[name][-1]), key=lambda name: by_name[name][2])
    rates = {first: 0.025, second: 0.05 if by_name[first][2] < 0.025 else 0.025}
    verdicts = json.loads((seen.out / "results.json").read_text())["verdicts"]
    assert len(verdicts) == len(EXPECTED) + 1
    for verdict, (name, (number, ends, p, leans)) in zip(verdicts, by_name.items(), strict=False):
        found = findings.loc[name]
        assert verdict["answer"] == found["answer"] == (leans if p < rates.get(name, 0.05) else "undecided"), name
        for said in ((verdict["measured"], verdict["low"], verdict["high"]), found[["value", "low", "high"]].astype(float)):
            np.testing.assert_allclose(said, [number, *ends], rtol=0, atol=1e-9, err_msg=name)
    assert [verdict["rule"] for verdict in verdicts] == [
        "yes if the interval lies above 0 and that of tuned − control above 0, no if one of them lies below; "
        "at the levels of Holm's steps in the family 'brains'",
        "yes if the interval lies above −0.03, no if below; at the levels of Holm's steps in the family 'brains'",
        "yes if the interval lies above 0 and that of tuned − control above 0, no if one of them lies below",
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
    given += ["--align.bootstraps", "50", "--align.folds", "2"]
    given += ["--align.delays", json.dumps(DELAYS), "--align.alphas", json.dumps(ALPHAS)]
    assert main(["align", *given]) == 0
    place = ["participant", "model", "layer", "region"]
    found = pd.read_csv(tmp_path / "scores" / "scores.csv").query("region != 'all'").set_index(place).sort_index()
    assert len(found) == 5 * 3 * 3
    # Products of float32 by more than one thread differ in their last bits.
    close = {"rtol": 0, "atol": 2e-6}
    table, each = of_models(seen.out), of_seeds(seen.out)
    own = found.drop(index=list(CONTROLS), level="model")
    pd.testing.assert_frame_equal(own, table.loc[list(own.index)][own.columns], **close)
    controls = found.loc[["B"], list(CONTROLS), :, :]
    ends = controls[["r", "r_low", "r_high"]].set_axis(["value", "low", "high"], axis=1)
    pd.testing.assert_frame_equal(ends, each.loc[list(ends.index)][ends.columns], **close)
    numbers = [name for name in found if found[name].dtype == float and not name.endswith(("_low", "_high"))]
    assert {"r", "r_normalized", "r_over_ceiling", "alpha_median", "significant"} <= set(numbers)
    mean = controls[numbers].groupby(["participant", "layer", "region"]).agg(lambda column: column.mean(skipna=False))
    pd.testing.assert_frame_equal(mean, table.xs("control", level="model").loc[["B"]][numbers], **close)
