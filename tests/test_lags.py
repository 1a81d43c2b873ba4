"""Every layer at single lags: means over layers and participants, their figure, and what the page says of them."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.stats

import reference
import reference_timing
from align_cases import ALPHAS, FIT, REGIONS, ROWS, SKIP, TR, align, make_world
from fastencode.study import figures
from fastencode.study.brains.layer_scores import LayerScores
from fastencode.study.brains.tables import Label
from fastencode.study.conditions import conditions
from fastencode.study.findings.means import lag_rows
from fastencode.study.inference.blocks import mean_draws
from fastencode.study.report import cells
from fastencode.study.report.captions import CAPTIONS, Drawn
from report_cases import overlapping_texts

pd = pytest.importorskip("pandas", reason="the command needs the extra 'tune'")
pytest.importorskip("matplotlib", reason="figures need the extra 'report'")

EMPTY = {field.name: np.zeros(0) for field in fields(LayerScores)}
COLUMNS = {"A": {"all": range(4), "here": range(2)}, "B": {"all": range(4)}}
BLOCKS = {"A": 12.0, "B": 9.5}


def made(n_layers: int = 4, lags: tuple[int, ...] = (0, 2, 1), model: str = "model", people: str = "AB") -> dict:
    rng, found = np.random.default_rng(len(model)), {}
    for lag in lags:
        for who in people:
            for layer in range(n_layers):
                r, draws = rng.uniform(-0.2, 0.8, len(COLUMNS[who])), rng.uniform(-0.2, 0.8, (30, len(COLUMNS[who])))
                given = EMPTY | {"region": r, "draws": draws, "n_blocks": np.array(BLOCKS[who])}
                found[Label(model, (lag,)), who, layer] = LayerScores(**given)
    return found


def test_rows_are_means_over_layers_and_people_with_their_intervals() -> None:
    found = made()
    table = pd.DataFrame(lag_rows(found, COLUMNS))
    assert list(table["lag"].unique()) == [0, 1, 2] and list(table["depth"].unique()) == ["all", "early", "late"]
    by = table.set_index(["depth", "lag", "region", "participant"])
    assert len(by) == 3 * 3 * (3 + 2) and by.index.is_unique

    def of(name: str, who: str, lag: int, place: int) -> np.ndarray:
        return np.mean([getattr(found[Label("model", (lag,)), who, layer], name)[..., place] for layer in layers], axis=0)

    for depth, layers in (("all", range(4)), ("early", (0, 1)), ("late", (2, 3))):
        for lag in range(3):
            for region, place, people in (("all", 0, "AB"), ("here", 1, "A")):
                for name, group in [*((who, who) for who in people), ("mean", people)]:
                    row = by.loc[depth, lag, region, name]
                    r = np.mean([of("region", who, lag, place) for who in group])
                    drawn = mean_draws([of("draws", who, lag, place) for who in group], [BLOCKS[who] for who in group])
                    spread = np.arctanh(drawn).std(ddof=1)
                    half = scipy.stats.t.ppf(0.975, min(BLOCKS[who] for who in group) - 1) * spread
                    assert row["participants"] == len(group) and row["layers"] == " ".join(map(str, layers))
                    ends = np.tanh(np.arctanh(r) + np.array([-half, half]))
                    np.testing.assert_allclose(row[["r", "r_low", "r_high"]].astype(float), [r, *ends])


def test_only_what_was_scored_at_every_lag_is_averaged() -> None:
    found = made()
    del found[Label("model", (2,)), "B", 3]
    table = pd.DataFrame(lag_rows(found, COLUMNS))
    people = table[table["participant"] != "mean"].groupby("depth")["participant"].agg(set).to_dict()
    assert people == {"all": {"A"}, "early": {"A", "B"}, "late": {"A"}}
    assert set(table.loc[table["depth"] == "late", "layers"]) == {"2 3"}


def test_one_lag_has_no_rows() -> None:
    others = {(Label("model", (1, 2)), "A", 0): None, (Label("model", (7,), ("time",)), "A", 0): None}
    assert lag_rows(made(lags=(1,)) | others, COLUMNS) == []
    alone = lag_rows(made(n_layers=1, people="A"), {"A": COLUMNS["A"]})
    assert {row["depth"] for row in alone} == {"all"} and {row["participant"] for row in alone} == {"A"}


def test_the_figure_draws_the_mean_of_each_third_and_a_single_layer_everywhere() -> None:
    table = pd.DataFrame(lag_rows(made(n_layers=6) | made(n_layers=1, model="flat"), COLUMNS))
    models = conditions(("model", "flat"))
    assert figures.depths(table) == ("early", "middle", "late")
    figure = figures.lags_figure(table, models)
    assert [ax.get_title() for ax in figure.axes] == [
        f"{region} · {depth}" for region in ("all", "here") for depth in ("early", "middle", "late")
    ]
    for ax in figure.axes:
        region, depth = ax.get_title().split(" · ")
        thick = {line.get_color(): line for line in ax.get_lines() if line.get_linewidth() > 2}
        for one, of in zip(models, (depth, "all"), strict=True):
            mine = (table["model"] == one.model) & (table["depth"] == of) & (table["region"] == region)
            wanted = table[mine & (table["participant"] == "mean")]
            line = thick[one.color]
            np.testing.assert_array_equal(line.get_xdata(), [0, 1, 2])
            np.testing.assert_allclose(line.get_ydata(), wanted.set_index("lag")["r"].loc[[0, 1, 2]])
            low, high = ax.get_ylim()
            assert low < wanted["r_low"].min() and wanted["r_high"].max() < high
        thin = [line for line in ax.get_lines() if line.get_alpha() == 0.4]
        assert len(thin) == (4 if region == "all" else 0), "one line for each person, where there are several"
    limits = [ax.get_ylim() for ax in figure.axes]
    assert limits[0] == limits[1] == limits[2] and limits[3] == limits[4] == limits[5]
    assert overlapping_texts(figure) == []


@pytest.mark.parametrize(("n_regions", "n_layers", "panels"), [(16, 9, 48), (17, 9, 17), (2, 1, 2)])
def test_too_many_panels_are_of_all_layers(n_regions: int, n_layers: int, panels: int) -> None:
    rows = [row for row in lag_rows(made(n_layers, people="A"), {"A": COLUMNS["A"]}) if row["region"] == "all"]
    table = pd.DataFrame([{**row, "region": f"a_rather_long_region_name_{k}"} for k in range(n_regions) for row in rows])
    figure = figures.lags_figure(table, conditions(["model"]))
    assert len(figure.axes) == panels and len(figures.depths(table)) * n_regions in (panels, 0)
    whole = table[(table["depth"] == "all") & (table["region"] == table["region"][0])]
    drawn = figure.axes[0].get_lines()
    is_whole = any(np.array_equal(line.get_ydata(), whole["r"]) for line in drawn)
    assert is_whole == (panels != 48) and overlapping_texts(figure) == []


def test_the_caption_says_which_layers() -> None:
    drawn = Drawn(n=3, bands="drawn", first="model", level=False, depths=("early", "middle", "late"))
    words = CAPTIONS["lags"][1](drawn)
    assert "mean over the early, middle and late layers of each model" in words and "n = 3 participants" in words
    assert "95 % intervals of the mean over these participants" in words
    words = CAPTIONS["lags"][1](drawn._replace(depths=("early", "late"), n=1))
    assert "the early and late layers" in words and "n = 1 participant. Bands: 95 % intervals of r" in words
    assert "mean over the layers of each model. Horizontal" in CAPTIONS["lags"][1](drawn._replace(depths=()))


def test_of_many_stories_the_page_shows_the_means(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"participant": "A", "model": "model", "layer": 0, "n_voxels": 3, "rows": 9, "r": 0.5, "standard_deviation": 0.1}
    stories = ("one", "two", "three", "mean")
    table = pd.DataFrame([{**row, "region": region, "story": story} for region in ("all", "here") for story in stories])

    def shown() -> tuple[str, list[str]]:
        found = cells.shown("leave_one_out", table, conditions(["model"]))
        assert "n = 1 participant, 3 stories. " in found["words"]
        return found["count"], [row[5] for row in found["rows"]]

    for most, count, left in ((8, "8", [*stories] * 2), (7, "2 of 8", ["mean"] * 2), (1, "8", [])):
        monkeypatch.setattr(cells, "SHOWN", most)
        assert shown() == (count, left)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("jsonargparse", reason="the command needs the extra 'tune'")
    return make_world(tmp_path_factory.mktemp("world"))


def normal(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(axis=0)) / x.std(axis=0)


def r_of_one_lag(world: Path, who: str, layer: int, lag: int) -> np.ndarray:
    """Correlations of the driven voxels by a naive ridge on features of one lag."""

    def design(story: str) -> np.ndarray:
        with h5py.File(world / "features" / "model" / f"{story}.h5") as file:
            values, times = file["features"][:, layer].astype(float), file["times"][:]
        rows = reference_timing.lanczos(values, times, TR * (np.arange(ROWS[story]) + 5.5))[0]
        return reference_timing.delay(normal(rows), (lag,), np.zeros(len(rows)))

    def heard(story: str) -> np.ndarray:
        with h5py.File(world / "preprocessed_data" / who / f"{story}.hf5") as file:
            return file["data"][:, REGIONS["driven"]]

    X, Y = np.vstack([design(story) for story in FIT]), np.vstack([normal(heard(story)) for story in FIT])
    runs = np.repeat(np.arange(len(FIT)), [ROWS[story] for story in FIT])
    folds = [(np.flatnonzero(runs != run), np.flatnonzero(runs == run)) for run in range(len(FIT))]
    best = len(ALPHAS) - 1 - reference.cv_scores(X, Y, ALPHAS, folds, "pearson", True)[::-1].argmax(axis=0)
    rs = []
    for v, y in enumerate(heard("test")[SKIP:].T):
        coef, constant = reference.weights(X, Y[:, v], ALPHAS[best[v]], True)
        rs.append(reference.pearson(y, (design("test") @ coef + constant)[SKIP:]))
    return np.array(rs)


@pytest.mark.usefixtures("no_pictures")
def test_align_writes_and_draws_several_lags_and_not_one(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert align(world, out, "--lags", "0,1,3", "--exclude", "later", "--permutations", "9") == 0
    table = pd.read_csv(out / "lags.csv").set_index(["participant", "lag", "depth", "region"])
    assert len(table) == 3 * 3 * 3 * 3 and (table.loc["mean"]["participants"] == 2).all()
    for lag in (0, 1, 3):
        each = [[r_of_one_lag(world, who, layer, lag).mean() for layer in range(2)] for who in "AB"]
        np.testing.assert_allclose(table.loc["A", lag, "late", "driven"]["r"], each[0][1], atol=2e-5)
        np.testing.assert_allclose(table.loc["mean", lag, "all", "driven"]["r"], np.mean(each), atol=2e-5)
    page, drawn = (out / "index.html").read_text(encoding="utf-8"), out / "figures" / "lags.png"
    assert drawn.exists() and "One lag at a time" in page and "(81 rows of lags.csv, rounded)" in page
    one = tmp_path / "one"
    assert align(world, one, "--lags", "1", "--exclude", "later", "--permutations", "9") == 0
    page = (one / "index.html").read_text(encoding="utf-8")
    assert not (one / "lags.csv").exists() and not (one / "figures" / "lags.png").exists() and "One lag at a time" not in page
