"""The output half of a study: verdicts, tables, figures and the page, on mock scores."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import stat
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fastencode.cli.output import _spent
from fastencode.errors import InputError
from fastencode.study import figures
from fastencode.study.conditions import conditions
from fastencode.study.findings.verdicts import Verdict, layer_thirds, overfitting, verdict_table
from fastencode.study.report import report
from fastencode.study.report.captions import CEILINGS
from fastencode.study.report.report import scores_table, write_report
from fastencode.style import COLORS
from report_cases import BEFORE_AND_AFTER, Page, legend_labels, overlapping_texts, png_size

VERDICTS = [
    Verdict.above("Late layers rise", (0.084, 0.061, 0.107), quantity="Δr, tuned − pretrained"),
    Verdict.within("Silent voxels stay at zero", (math.nan, math.nan, math.nan), 0.03),
]
MODELS = tuple(one.model for one in BEFORE_AND_AFTER)


def make_scores(participants=("S1", "S2"), regions=("auditory", "late_language", "silent"), layers=7, seed=0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    names = ["participant", "model", "layer", "region"]
    index = pd.MultiIndex.from_product([participants, MODELS, range(layers), regions], names=names)
    table = index.to_frame(index=False)
    table["n_voxels"] = 120
    table["ceiling"] = np.where(table["region"] == "silent", np.nan, 0.7)
    table["r"] = np.where(table["region"] == "silent", 0.0, 0.45) + 0.01 * rng.standard_normal(len(table))
    table["r_low"], table["r_high"] = table["r"] - 0.05, table["r"] + 0.05
    table["r_normalized"] = table["r"] / table["ceiling"]
    table["alpha_median"] = 10 ** rng.uniform(1, 4, len(table))
    return table.assign(at_edge=0.05)


def make_contrasts(scores: pd.DataFrame, first: str = "pretrained") -> pd.DataFrame:
    keys = ["participant", "layer", "region"]
    both = scores[scores["model"] != first].merge(
        scores.loc[scores["model"] == first, [*keys, "r"]], on=keys, suffixes=("", "_1")
    )
    difference = both["r"] - both["r_1"]
    table = both[["participant", "model", "layer", "region"]].assign(versus=first, difference=difference)
    return table.assign(low=difference - 0.02, high=difference + 0.02)


def make_means(scores: pd.DataFrame, contrasts: pd.DataFrame) -> pd.DataFrame:
    """Half as wide intervals as those of each participant."""
    parts = []
    for table, column, half in ((scores.assign(versus="0"), "r", 0.025), (contrasts, "difference", 0.01)):
        groups = table.groupby(["model", "layer", "region", "versus"], sort=False)[column]
        mean = groups.agg(["size", "mean"]).reset_index().rename(columns={"size": "participants"})
        parts.append(mean.assign(low=mean["mean"] - half, high=mean["mean"] + half))
    return pd.concat(parts, ignore_index=True)


def make_training(participants=("S1", "S2"), epochs=3) -> pd.DataFrame:
    index = pd.MultiIndex.from_product([participants, MODELS[1:], range(epochs + 1)], names=["participant", "model", "epoch"])
    table = index.to_frame(index=False)
    table["updates"] = table["epoch"] * 75
    table["train_loss"] = np.where(table["epoch"] == 0, np.nan, 1 - 0.1 * table["epoch"])
    return table.assign(validation_loss=1.0, validation_r=0.1, seconds=2.5)


def write(folder: Path, scores: pd.DataFrame | None = None, training: pd.DataFrame | None = None, **changed: object) -> Path:
    scores = make_scores(("S1",), ("auditory",), 2) if scores is None else scores
    tables = {"scores": scores, "training": make_training(("S1",)) if training is None else training}
    if {"r", "participant", "model"} <= set(scores.columns):
        contrasts = make_contrasts(scores)
        tables |= {"contrasts": contrasts, "means": make_means(scores, contrasts)}
    given: dict = {
        "title": "A study",
        "lead": "First words.\n\nSecond paragraph.",
        "models": BEFORE_AND_AFTER,
        "tables": tables,
        "verdicts": VERDICTS,
        "provenance": {"Python": "3.11", "settings": {"seed": 0, "tune": {"rate": 5e-4}}},
        "command": "fastencode-tune demo",
    }
    return write_report(folder, **(given | changed))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what is not about pixels: figures are made but not rendered, which takes most of the time."""
    monkeypatch.setattr(figures, "png", lambda figure: bytes(24))
    monkeypatch.setattr(figures, "svg", lambda figure: b"")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study") / "out"
    assert write(folder, scores=make_scores(), training=make_training(), notes="One seed only.") == folder / "index.html"
    return folder


def test_all_files_are_there_and_nothing_else(folder: Path) -> None:
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    kinds = ("layers", "differences", "participants", "training", "picture")
    drawn = {f"figures/{name}.{kind}" for name in kinds for kind in ("png", "svg")}
    tables = {f"{name}.csv" for name in ("scores", "means", "contrasts", "training", "warnings")}
    assert names == {"index.html", "results.json", "provenance.json", *tables, *drawn}
    assert all(stat.S_IMODE((folder / name).stat().st_mode) & stat.S_IRUSR for name in names)


def test_figures_are_wide_enough_to_read(folder: Path) -> None:
    assert png_size(folder / "figures" / "picture.png") == (1600, 600)
    for name in ("layers", "differences", "training"):
        width, height = png_size(folder / "figures" / f"{name}.png")
        assert width == 1536 and 400 < height < 2000


def test_page_is_self_contained_and_well_formed(folder: Path) -> None:
    page = Page(folder / "index.html")
    assert page.open == []
    assert len(page.loaded) == 6 and all(value.startswith("data:") for value in page.loaded)
    source = (folder / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|@import|url\(", re.sub(r"base64,[^\"]*", "", source))
    assert "script" not in page.tags


def test_page_says_what_was_measured(folder: Path) -> None:
    text = Page(folder / "index.html").text
    said = [
        "A study",
        "Second paragraph.",
        "One seed only.",
        "1 of 2 expectations held (1 undecided)",
        "✓ yes",
        "? undecided",
        "not measured",
    ]
    said += ["+0.084 [+0.061, +0.107]", "yes if the interval lies above 0, no if below"]
    said += ["late language", "late (4–6)", "tune.rate", "0.0005"]
    for words in said:
        assert words in text, words


def test_page_explains_ceilings_where_there_are_some(folder: Path, tmp_path: Path) -> None:
    assert CEILINGS in Page(folder / "index.html").text and "ceiling is above 0. " in CEILINGS
    write(tmp_path, scores=make_scores().assign(ceiling=np.nan), training=make_training())
    assert CEILINGS not in Page(tmp_path / "index.html").text


def test_csv_round_trip(folder: Path) -> None:
    pd.testing.assert_frame_equal(pd.read_csv(folder / "scores.csv"), make_scores(), check_exact=True, check_dtype=False)
    pd.testing.assert_frame_equal(pd.read_csv(folder / "training.csv"), make_training(), check_exact=True, check_dtype=False)


def test_json_round_trip_turns_nan_to_null_and_numpy_to_plain(tmp_path: Path, undrawn: None) -> None:
    numbers = {"alphas": np.logspace(0, 2, 3), "n": np.int64(3), "x": np.float32(0.5), "bad": [math.nan, math.inf]}
    rest = {"delays": (0, 1), "on": np.bool_(True), "path": Path("a/b"), "none": None}
    write(tmp_path, provenance={"settings": numbers | rest})

    def read(name: str) -> dict:
        return json.loads((tmp_path / name).read_text(encoding="utf-8"), parse_constant=lambda name: pytest.fail(name))

    numbers = {"alphas": [1, 10, 100], "n": 3, "x": 0.5, "bad": [None, None]}
    rest = {"delays": [0, 1], "on": True, "path": "a/b", "none": None}
    assert read("provenance.json") == {"command": "fastencode-tune demo", "settings": numbers | rest}
    verdicts = read("results.json")["verdicts"]
    assert verdicts[0] == dataclasses.asdict(VERDICTS[0]) and verdicts[1]["measured"] is None
    write(tmp_path, verdicts=())
    assert not (tmp_path / "results.json").exists(), "an earlier run's answers must not pass for this one's"


def test_strange_names_are_shown_not_obeyed(tmp_path: Path) -> None:
    evil = "<script>alert('x')</script>"
    scores = make_scores(participants=(evil, '$x^2$ & "co"'), regions=("a<b>", "{{ 7 * 7 }}"), layers=2)
    words = {
        "title": evil,
        "lead": evil,
        "notes": evil,
        "command": evil,
        "provenance": {evil: evil, "settings": {evil: {evil: evil}}},
    }
    verdict = Verdict(evil, 0, 0, 0, evil, "yes", evil)
    page = Page(write(tmp_path, **words, verdicts=[verdict], scores=scores, training=make_training((evil,))))
    assert "script" not in page.tags and "b" not in page.tags
    assert page.text.count(evil) >= 10
    assert "{{ 7 * 7 }}" in page.text and "a<b>" in page.text and '$x^2$ & "co"' in page.text


def test_missing_values_everywhere(tmp_path: Path) -> None:
    scores = make_scores(participants=("group",), layers=2)
    unknown = ["ceiling", "r_low", "r_high", "r_normalized", "alpha_median", "at_edge"]
    scores[unknown] = np.nan
    scores.loc[scores["region"] == "silent", "r"] = np.nan
    training = make_training(("group",)).assign(validation_loss=np.nan, validation_r=np.nan)
    text = Page(write(tmp_path, scores=scores, training=training)).text
    assert "nan" not in text.lower()
    assert "nan" not in scores_table(scores, BEFORE_AND_AFTER)


def test_what_cannot_be_drawn_is_left_out(tmp_path: Path, undrawn: None) -> None:
    write(tmp_path)
    further = {"scores": make_scores(layers=1), "further": make_training()}
    write(tmp_path, tables=further)
    assert (tmp_path / "further.csv").exists()
    write(tmp_path, tables={**further, "further": pd.DataFrame()})
    assert not (tmp_path / "further.csv").exists()
    scores = make_scores(layers=1)
    page = Page(write(tmp_path, scores=scores[scores["model"] == "pretrained"], training=make_training().iloc[:0], verdicts=[]))
    assert {path.stem for path in (tmp_path / "figures").iterdir()} == {"layers", "picture"}
    assert page.tags.count("img") == 2
    assert "expectations" not in page.text
    assert not (tmp_path / "training.csv").exists()


@pytest.mark.parametrize("column", ["r_low", "participant", "at_edge"])
def test_missing_column_is_named(tmp_path: Path, column: str) -> None:
    with pytest.raises(InputError, match=f"scores has no column '{column}'"):
        write(tmp_path, scores=make_scores().drop(columns=column))
    assert list(tmp_path.iterdir()) == []


def test_other_wrong_tables_are_refused(tmp_path: Path) -> None:
    scores, training = make_scores(), make_training()
    with pytest.raises(InputError, match="training has no column 'validation_r'"):
        write(tmp_path, training=training.drop(columns="validation_r"))
    with pytest.raises(InputError, match="the model 'finetuned'"):
        write(tmp_path, scores=scores.replace("tuned", "finetuned"))
    with pytest.raises(InputError, match="twice"):
        write(tmp_path, scores=pd.concat([scores, scores.iloc[:1]]))
    with pytest.raises(InputError, match="no rows"):
        write(tmp_path, scores=scores.iloc[:0])
    with pytest.raises(InputError, match=r"'nowhere'.*auditory"):
        write(tmp_path, picture_regions=["nowhere"])


def test_interrupted_write_leaves_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "index.html"
    page.write_text("old")

    def interrupt(source: object, target: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(report.os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        report._write(page, b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"] and page.read_text() == "old"


def test_input_tables_are_not_written_to(tmp_path: Path, undrawn: None) -> None:
    scores, training = make_scores(participants=(1, 2)), make_training((1, 2))
    before = scores.copy(), training.copy()
    write(tmp_path, scores=scores, training=training)
    pd.testing.assert_frame_equal(scores, before[0])
    pd.testing.assert_frame_equal(training, before[1])


@pytest.mark.parametrize("participants", [("S1",), ("S1", "a_participant_with_a_long_name")])
@pytest.mark.parametrize("models", [MODELS, ("pretrained",)])
def test_scores_table_fits_the_terminal_and_holds_the_means(participants: tuple[str, ...], models: tuple[str, ...]) -> None:
    scores = make_scores(participants, regions=("a", "a_region_whose_name_is_far_too_long_for_any_table"), layers=25)
    scores = scores[scores["model"].isin(models)]
    lines = scores_table(scores, BEFORE_AND_AFTER).splitlines()
    assert max(map(len, lines)) <= 100
    part = scores[(scores["participant"] == "S1") & (scores["region"] == "a")]
    place = lines.index("S1") + 1
    assert lines[place].split() == ["a", "0.70"]
    for line, one in zip(lines[place + 1 :], [one for one in BEFORE_AND_AFTER if one.model in models], strict=False):
        own = part[part["model"] == one.model]
        thirds = [own[own["layer"].isin(layers)]["r"].mean() for layers in (range(9), range(9, 16), range(16, 25))]
        label, *cells = line.replace("−", "-").split()
        assert label == one.label and [float(cell) for cell in cells] == pytest.approx(thirds, abs=6e-4)
    assert ("mean of 2 participants" in lines) == (len(participants) == 2)


def test_verdict_table_is_aligned_and_says_yes_and_no() -> None:
    long = Verdict("word " * 40, -1.5, -2, 12345.678, "rule " * 40, "no", "Δr " * 20)
    lines = verdict_table([*VERDICTS, long]).splitlines()
    assert max(map(len, lines)) <= 100
    start = lines[0].index("expectation")
    assert lines[2].startswith("yes        +0.084 [+0.061, +0.107]") and lines[2][start:] == "Late layers rise"
    assert lines[3][start:] == "rule: yes if the interval lies above 0, no if below" and "Δr, tuned − pretrained" in lines[3]
    assert lines[4].startswith("undecided  not measured")
    assert lines[-1] == "1 of 3 expectations held (1 did not, 1 undecided)"
    assert verdict_table([]) == "no expectation was stated"


def test_verdicts_claim_nothing_that_was_not_measured() -> None:
    with pytest.raises(InputError, match="nothing was measured"):
        Verdict("It rises", math.nan, 0, 1, "above 0", "yes")
    with pytest.raises(InputError, match="upside down"):
        Verdict("It rises", 0.5, 1, 0, "above 0", "yes")
    with pytest.raises(InputError, match="needs its rule"):
        Verdict("It rises", 0.5, 0, 1, " ", "yes")
    with pytest.raises(InputError, match="has the answer 'maybe'"):
        Verdict("It rises", 0.5, 0, 1, "above 0", "maybe")
    assert Verdict("It stays", -0.0001, math.nan, math.nan, "|r| < 1", "undecided").number == "0.000"


@pytest.mark.parametrize(
    ("interval", "above", "below", "within"),
    [
        ((0.01, 0.02), "yes", "yes", "yes"),
        ((-0.2, 0.3), "undecided", "undecided", "undecided"),  # wide: little data decides nothing
        ((-0.02, -0.01), "no", "yes", "yes"),
        ((0.04, 0.2), "yes", "no", "no"),
        ((-0.2, -0.04), "no", "yes", "no"),
        ((-0.02, 0.01), "undecided", "yes", "yes"),
        ((math.nan, math.nan), "undecided", "undecided", "undecided"),
    ],
)
def test_rules_have_three_answers(interval: tuple[float, float], above: str, below: str, within: str) -> None:
    number = (0.0, *interval)
    assert Verdict.above("It rises", number).answer == above
    assert Verdict.below("It does not rise", number, 0.03).answer == below
    assert Verdict.within("It stays", number, 0.03).answer == within


@pytest.mark.parametrize(
    ("n", "sizes"),
    [(1, {"only": 1}), (2, {"early": 1, "late": 1}), (3, {"early": 1, "middle": 1, "late": 1}), (4, {"early": 2, "late": 2}),
     (7, {"early": 3, "middle": 1, "late": 3}), (25, {"early": 9, "middle": 7, "late": 9})],
)  # fmt: skip
def test_layer_thirds(n: int, sizes: dict[str, int]) -> None:
    thirds = layer_thirds([*range(n), *reversed(range(n))])
    assert {name: len(part) for name, part in thirds.items()} == sizes
    assert [layer for part in thirds.values() for layer in part] == list(range(n))
    with pytest.raises(InputError, match="no layers"):
        layer_thirds([])


def test_panels_share_a_height_and_take_in_a_near_ceiling_only() -> None:
    scores = make_scores()
    scores["ceiling"] = scores["region"].map({"auditory": 0.55, "late_language": 0.95, "silent": np.nan})
    figure = figures.layers_figure(scores, BEFORE_AND_AFTER)
    axes = figure.axes
    assert [text.get_text() for text in figure.legends[0].get_texts()][-1] == "noise ceiling"
    heights = [np.ptp(ax.get_ylim()) for ax in axes]
    assert len(axes) == 6 and heights == pytest.approx([heights[0]] * 6)
    expected = {"auditory": (1, []), "late_language": (0, ["noise ceiling 0.95 ↑"]), "silent": (0, [])}
    for ax, region in zip(axes, ["auditory", "late_language", "silent"] * 2, strict=True):
        low, high = ax.get_ylim()
        dashed = [line for line in ax.get_lines() if line.get_color() == "black"]
        assert (len(dashed), [text.get_text() for text in ax.texts]) == expected[region]
        part = scores[scores["region"] == region]
        assert low < part["r_low"].min() and part["r_high"].max() < high < low + 0.3


def test_legend_names_only_what_is_drawn() -> None:
    far = make_scores(layers=2).assign(ceiling=0.95)
    for scores in (far, far.assign(ceiling=np.nan)):
        legend = figures.layers_figure(scores, BEFORE_AND_AFTER).legends[0]
        assert [text.get_text() for text in legend.get_texts()] == ["pretrained", "brain-tuned", "control"]


def change(scores: pd.DataFrame):
    contrasts = make_contrasts(scores)
    means = make_means(scores, contrasts)
    return figures.differences_figure(means[means["versus"] != "0"], contrasts, BEFORE_AND_AFTER)


def layers(scores: pd.DataFrame):
    return figures.layers_figure(scores, BEFORE_AND_AFTER)


def pictured(scores: pd.DataFrame):
    means = make_means(scores, make_contrasts(scores))
    return figures.picture(means[means["versus"] == "0"], scores, list(scores["region"].unique()), BEFORE_AND_AFTER)


def test_differences_figure_draws_the_mean_of_the_differences() -> None:
    from matplotlib.colors import to_hex

    scores = make_scores()
    ax = change(scores).axes[1]
    r = scores[scores["region"] == "late_language"].pivot_table(index="layer", columns="model", values="r")
    thick = {line.get_color(): line for line in ax.get_lines() if line.get_linewidth() > 2}
    for one in BEFORE_AND_AFTER[1:]:
        np.testing.assert_allclose(thick[one.color].get_ydata(), r[one.model] - r["pretrained"], atol=1e-12)
    bands = {to_hex(band.get_facecolor()[0]): band.get_paths()[0].get_extents() for band in ax.collections}
    for one in BEFORE_AND_AFTER[1:]:
        change_l = r[one.model] - r["pretrained"]
        assert bands[one.color].intervaly == pytest.approx([change_l.min() - 0.01, change_l.max() + 0.01])


def test_a_single_layer_has_a_line_and_a_band_to_see() -> None:
    scores = make_scores(layers=1)
    for ax in (*change(scores).axes, *layers(scores).axes, *pictured(scores).axes):
        left, right = ax.get_xlim()
        colored = [line for line in ax.get_lines() if line.get_color() in COLORS]
        assert colored and ax.collections
        for line in colored:
            assert 0.5 * (right - left) < np.ptp(line.get_xdata()) < right - left and np.ptp(line.get_ydata()) == 0
        for band in ax.collections:
            assert 0.5 * (right - left) < band.get_paths()[0].get_extents().width < right - left


def test_any_list_of_models_is_shown_in_its_order(tmp_path: Path) -> None:
    """Nine models, one of a single layer: each has a pair of color and marker, every curve is solid, and all are named."""
    names = [f"model_{k} of $" for k in (3, 1, 2, 0, *range(4, 9))]
    columns = ["participant", "model", "layer", "region"]
    index = pd.MultiIndex.from_product([["S1"], names, range(3), ["auditory"]], names=columns)
    scores = index.to_frame(index=False).assign(n_voxels=7, ceiling=0.38, r=0.3, r_low=0.2, r_high=0.4, r_normalized=0.5)
    scores = scores.assign(alpha_median=10.0, at_edge=0.0)
    scores = scores[(scores["model"] != names[-1]) | (scores["layer"] == 0)]
    models = conditions(names)
    assert len({(one.color, one.marker) for one in models}) == 9 and len({one.color for one in models}) == len(COLORS)
    figure = figures.layers_figure(scores, models)
    drawn = [line for line in figure.axes[0].get_lines() if line.get_marker() in {one.marker for one in models}]
    assert [(line.get_color(), line.get_marker()) for line in drawn] == [(one.color, one.marker) for one in models]
    assert {line.get_linestyle() for line in drawn} == {"-"} and list(drawn[-1].get_xdata()) == [0, 1, 2]
    assert [label.replace("\\", "") for label in legend_labels(figure)] == [*names, "noise ceiling"]
    assert overlapping_texts(figure) == [] and not figure.axes[0].collections, "bands of nine models would hide each other"
    text = Page(write(tmp_path, scores=scores, models=models, tables={"scores": scores}, verdicts=())).text
    assert "bands would hide each other" in text and "A horizontal line is a model with one layer" in text
    table = text[text.index("Mean r over the early") :]
    assert sorted(names, key=table.index) == names
    with pytest.raises(InputError, match="'x' is listed twice"):
        conditions(["x", "y", "x"])


def test_overfitting_is_said_in_words(tmp_path: Path, undrawn: None) -> None:
    table = make_training(("S1",), epochs=3)
    tuned = table["model"] == "tuned"
    table.loc[tuned, "validation_loss"] = [1.0, 0.9, 0.95, 0.97]
    table.loc[~tuned, "validation_loss"] = [1.0, 0.9, 0.85, 0.8]
    said = overfitting(table, BEFORE_AND_AFTER)
    assert len(said) == 1 and said[0].startswith(
        "S1, brain-tuned: overfitted. Its validation loss was least after epoch 1 (0.900)"
    )
    assert "is 0.970 at the end" in said[0] and said[0] in Page(write(tmp_path, training=table)).text
    table.loc[tuned, "validation_loss"] = [0.8, 0.9, 0.95, 0.97]
    assert "least before the first update" in overfitting(table, BEFORE_AND_AFTER)[0]
    table["train_loss"] = 1.0  # a model that learns nothing does not overfit
    assert overfitting(table, BEFORE_AND_AFTER)[0].startswith("No model overfitted")


@pytest.mark.parametrize("draw", [layers, change, pictured])
@pytest.mark.parametrize(("participants", "regions", "n_layers"), [(1, 1, 1), (1, 6, 2), (2, 5, 25)])
def test_no_text_overlaps(draw, participants: int, regions: int, n_layers: int) -> None:
    names = tuple(f"a_rather_long_region_name_{k}" for k in range(regions))
    figure = draw(make_scores(tuple(f"participant_{k}" for k in range(participants)), names, n_layers))
    assert overlapping_texts(figure) == []


def test_overlaps_would_be_found() -> None:
    figure = change(make_scores())
    figure.axes[0].set_title("words " * 30)
    assert overlapping_texts(figure)


def test_equal_tables_give_equal_pictures() -> None:
    scores = make_scores(layers=3)
    assert figures.png(pictured(scores)) == figures.png(pictured(scores))


def test_seconds_of_stages_are_added_up_by_kind() -> None:
    seconds = {"world": 27.2, "models/A/tuned": 1.4, "models/A/control": 2.4, "fits/x/A/layer-00": 0.2}
    assert _spent(seconds) == "world 27, models 4 (2 of them), fits 0"
