"""The page of a study: every table in its section, numbers as in the tables, figures as files, words that the numbers bear."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from fastencode.errors import InputError
from fastencode.study import figures
from fastencode.study.findings.summary import decider, number, quantity, summary
from fastencode.study.report.alts import alt_text
from fastencode.study.report.cautions import cautions
from fastencode.study.report.report import Map, write_report
from report_cases import BEFORE_AND_AFTER, LAYERS, Page, legend_labels, overlapping_texts, png_size, study_tables

LABELS = {one.model: one.label for one in BEFORE_AND_AFTER}
DRAWN = (
    "findings", "picture", "layers", "differences", "participants", "probes", "change", "mlp", "scaling", "seeds", "training",
)  # fmt: skip


def a_png() -> bytes:
    from matplotlib.figure import Figure

    return figures.png(Figure(figsize=(1, 0.5)))


def write(folder: Path, tables: dict, maps: tuple[Map, ...] = ()) -> Path:
    return write_report(
        folder, title="A study", lead="Words.", models=BEFORE_AND_AFTER, tables=tables, provenance={}, command="run", maps=maps
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page") / "out"
    write(
        folder,
        study_tables(),
        (Map("late-change", "Where it changes", "A caption.", "Most in the temporal lobe, 0.12.", a_png()),),
    )
    return folder


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return Page(folder / "index.html")


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what is not about pixels."""
    monkeypatch.setattr(figures, "png", lambda figure: bytes(24))
    monkeypatch.setattr(figures, "svg", lambda figure: b"")


def test_every_figure_is_a_png_and_an_svg_and_on_the_page(folder: Path, page: Page) -> None:
    files = {path.name for path in (folder / "figures").iterdir()}
    assert files == {f"{name}.{kind}" for name in DRAWN for kind in ("png", "svg")} | {"map-late-change.png"}
    for name in DRAWN:
        width, height = png_size(folder / "figures" / f"{name}.png")
        root = ElementTree.fromstring((folder / "figures" / f"{name}.svg").read_bytes())
        assert root.tag.endswith("svg") and width == (1600 if name == "picture" else 1536)
        points = [float(root.attrib[side].removesuffix("pt")) for side in ("width", "height")]
        assert points == pytest.approx([width * 72 / 160, height * 72 / 160], abs=1)
    shown = [base64.b64decode(image["src"].partition("base64,")[2]) for image in page.images]
    for name in DRAWN:
        both = [(folder / "figures" / f"{name}.{kind}").read_bytes() for kind in ("png", "svg")]
        assert min(both, key=len) in shown, name
    assert len(shown) == len(DRAWN) + 1


def test_nothing_is_requested_and_links_stay_on_the_page(folder: Path, page: Page) -> None:
    assert page.open == [] and "script" not in page.tags and len(page.ids) == len(set(page.ids))
    inside = [value[1:] for value in page.loaded if value.startswith("#")]
    assert len(inside) > 10 and set(inside) <= set(page.ids)
    assert all(value.startswith(("data:", "#")) for value in page.loaded)
    source = (folder / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|@import|url\(|//[a-z]", re.sub(r"base64,[^\"]*", "", source))
    for kind in folder.glob("figures/*.svg"):
        links = re.findall(r"(?:xlink:)?href=\"([^\"]*)\"", kind.read_text(encoding="utf-8"))
        assert all(link.startswith(("#", "data:")) for link in links)


def rounded(value: float) -> str:
    text = f"{value:.3f}".replace("-", "−")
    return "0.000" if text == "−0.000" else text


@pytest.mark.parametrize(
    ("name", "names", "numbers"),
    [
        ("probes", ["model", "participant", "layer"], ["score", "low", "high", "baseline"]),
        ("change", ["participant", "model", "layer"], ["value"]),
        ("scaling", ["model", "participant"], ["r", "low", "high"]),
        ("seeds", ["participant", "model", "seed", "layer"], ["value", "low", "high"]),
        ("mlp", ["participant", "model", "layer"], ["r_ridge", "r_mlp", "difference", "low", "high"]),
        ("means", ["model", "layer"], ["mean", "low", "high"]),
    ],
)
def test_numbers_on_the_page_are_those_of_the_table(page: Page, name: str, names: list[str], numbers: list[str]) -> None:
    """Each row of the table is a row of the page: its names and its rounded numbers, in that order."""
    table = study_tables()[name]
    there = {tuple(row) for row in page.rows}
    for _, row in table.iterrows():
        wanted = [LABELS.get(row[one], str(row[one])) for one in names] + [rounded(row[one]) for one in numbers]
        assert any(_holds(cells, wanted) for cells in there), (name, wanted)


def _holds(cells: tuple[str, ...], wanted: list[str]) -> bool:
    """Whether the wanted cells come in this order, others between them."""
    rest = iter(cells)
    return all(one in rest for one in wanted)


def test_csv_files_have_every_table_as_it_came(folder: Path) -> None:
    for name, table in study_tables().items():
        read = pd.read_csv(folder / f"{name}.csv", keep_default_na=False, na_values=[""], dtype={"layers": str, "versus": str})
        if name == "warnings":
            assert list(read["warning"])[: len(table)] == list(table["warning"])
            continue
        words = read.select_dtypes(exclude="number").columns
        pd.testing.assert_frame_equal(read.assign(**{one: read[one].fillna("") for one in words if one in table.columns})
                                      [table.columns], table.assign(**{one: table[one].fillna("") for one in words}),
                                      check_dtype=False, rtol=1e-12)  # fmt: skip


def test_findings_are_said_in_words_and_in_a_table(page: Page) -> None:
    text = " ".join(page.text.replace("\xa0", " ").split())
    for words in (
        "1 of 3 expectations held (1 did not, 1 undecided).",
        "Late layers rise: +0.100 [+0.070, +0.130] (correlation r, brain-tuned − pretrained, late layers, "
        "late language; n = 30 blocks, p = 0.004, Holm 0.012)",
        "The control shows +0.049 [+0.039, +0.059]. The control shows it too.",
        "Nothing was expected of layer 3: 0.310 [0.280, 0.340] (correlation r, brain-tuned, layers 3, auditory;",
        "about 16.0 times as many blocks would decide if the value stays.",
        "smallest p possible 0.001",
        "3 voxels were dropped.",
        "overfitting",
        "0.9, then 1.1",
        "Where it changes",
    ):
        assert words in text, words
    answers = [row[0] for row in page.rows if row and row[0][:1] in "✓✗?–" and len(row) == 4]
    assert answers == ["✓ yes", "? undecided", "✗ no", "– no expectation"]


@pytest.mark.parametrize(
    ("ends", "expect", "limit", "said"),
    [
        ((0.02, -0.02, 0.06), "above", 0.0, "0.080 wide and holds the limit 0: about 4.0 times as many blocks"),
        ((-0.02, -0.06, 0.02), "above", 0.0, "about 4.0 times"),
        ((0.02, -0.01, 0.05), "within", 0.03, "holds the limit 0.03: about 9.0 times"),
        ((0.0, -0.06, 0.06), "within", 0.03, "holds the limits −0.03 and 0.03: about 4.0 times"),
        ((0.001, -0.04, 0.04), "below", 0.0, "not likely to decide"),
        ((0.05, 0.02, 0.08), "above", 0.0, ""),  # it hangs on something else: the reason says on what
        ((0.05, 0.02, 0.08), None, None, "0.060 wide; more blocks would narrow it"),
        ((np.nan, np.nan, np.nan), "above", 0.0, ""),
    ],
)
def test_what_would_decide_follows_from_the_width(ends: tuple[float, ...], expect: str, limit: float, said: str) -> None:
    row = dict(zip(("value", "low", "high"), ends, strict=True), expect=expect, limit=limit, unit="blocks")
    found = decider(row)
    assert said in found and bool(said) == bool(found)


def test_numbers_of_differences_carry_their_sign() -> None:
    row = {"value": 0.5, "low": 0.4, "high": 0.6, "models": "tuned"}
    assert number(row) == "0.500 [0.400, 0.600]"
    assert number(row | {"models": "tuned − pretrained"}) == "+0.500 [+0.400, +0.600]"
    assert number(row | {"low": np.nan, "high": np.nan, "models": "wav2vec2-base - x"}) == "+0.500"
    assert number(row | {"models": "wav2vec2-base"}) == "0.500 [0.400, 0.600]"
    assert number(row | {"value": np.nan}) == "not measured"
    assert quantity({"measure": "word", "models": "tuned − control", "layers": "1 2", "region": ""}, LABELS) == (
        "word identity, brain-tuned − control, layers 1 2"
    )


def test_a_summary_without_expectations_counts_none() -> None:
    findings = study_tables()["findings"].iloc[3:]
    first, parts = summary(findings, LABELS)
    assert first == "" and [part.heading for part in parts] == ["Measured, nothing was expected"]


def test_every_image_says_its_numbers(page: Page) -> None:
    tables = study_tables()
    assert len(page.images) == len(DRAWN) + 1 and all(len(image["alt"]) > 20 for image in page.images)
    assert all({"width", "height"} <= set(image) for image in page.images)
    by_heading = {image["alt"].partition(".")[0]: image["alt"] for image in page.images}
    probes = tables["probes"]
    best = probes[(probes["task"] == "word") & (probes["model"] == "tuned")].groupby("layer")["score"].mean()
    assert f"brain-tuned at layer {best.idxmax()} {best.max():.3f}" in by_heading["What each layer encodes: probes"]
    assert "Late layers rise: +0.100 [+0.070, +0.130], yes." in by_heading["All expectations in one figure"]
    each = tables["contrasts"].query("model == 'tuned' and region == 'auditory'").groupby("participant")["difference"].mean()
    said = f"above 0 in {(each > 0).sum()} of 2 participants, from {each.min():+.3f} to {each.max():+.3f}".replace("-", "−")
    assert said in by_heading["Differences in each participant"]
    hours = tables["scaling"].query("model == 'tuned' and region == 'auditory'").groupby("hours")["r"].mean()
    assert f"goes from r {hours[1]:.3f} with 1 h to {hours[4]:.3f} with 4 h" in by_heading["More hours of data"]


def test_alt_texts_end(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = study_tables()
    many = pd.concat([tables["findings"].assign(name=str(k)) for k in range(9)])
    text = alt_text("findings", {"findings": many}, BEFORE_AND_AFTER)
    assert text.endswith("And so on for 24 more: see findings.csv.") and text.count("Late layers rise") == 3
    empty = {"scores": tables["scores"].assign(r=np.nan)}
    assert alt_text("layers", empty, BEFORE_AND_AFTER) == ""


def test_warnings_are_found_in_the_tables() -> None:
    tables = study_tables()
    assert cautions(tables, BEFORE_AND_AFTER) == ["3 voxels were dropped.", "No control with shuffled labels: MFCC, emotion."]
    found = tables["findings"].assign(p_smallest=0.25, n_units=3, unit="participants", control_value=np.nan)
    wrong = {
        "scores": tables["scores"][tables["scores"]["participant"] == "P1"].assign(
            at_edge=lambda table: np.where(table["region"] == "auditory", 0.5, 0.0),
            r=lambda table: table["r"].where(table["layer"] > 0),
        ),
        "findings": found,
        "probes": tables["probes"].assign(control=0.1, at_edge=tables["probes"]["layer"] == 0),
        "training": tables["training"],
        "seeds": tables["seeds"][tables["seeds"]["seed"] == 0],
    }
    text = "\n".join(cautions(wrong, BEFORE_AND_AFTER))
    for words in (
        "for pretrained in auditory (50%), brain-tuned in auditory (50%), control in auditory (50%)",
        "Probe penalties at the edge of the grid: MFCC (5 fits)",
        "Too few participants to test: with 3 of them no p can be smaller than 0.25, whatever the data. "
        "This concerns 4 findings.",
        "One participant (P1)",
        "One seed",
        "No control was measured beside “Late layers rise”.",
        "6 of 24 scores are unknown",
    ):
        assert words in text, words
    assert "late language" not in text and "shuffled" not in text
    fewer = tables["seeds"][(tables["seeds"]["model"] == "tuned") | (tables["seeds"]["seed"] == 0)]
    (said,) = cautions({"training": tables["training"], "seeds": fewer}, BEFORE_AND_AFTER)
    assert said.startswith("One seed of control: how far chance in training")
    kept = found[found["name"] == "rise"]
    for expect, limit, warned in (("within", 0.03, False), ("above", -0.03, False), ("below", 0.03, False), ("below", 0.0, True)):
        said = cautions({"findings": kept.assign(expect=expect, limit=limit)}, BEFORE_AND_AFTER)
        assert any("No control was measured" in text for text in said) == warned, (expect, limit)


@pytest.mark.parametrize(
    ("name", "spoil", "said"),
    [
        ("findings", lambda table: table.drop(columns="p_holm"), "findings has no column 'p_holm'"),
        ("findings", lambda table: table.assign(answer="maybe"), "findings holds the answer 'maybe': give yes, no or undecided"),
        ("findings", lambda table: table.assign(name="same"), r"findings holds \{'name': 'same'\} twice"),
        ("probes", lambda table: table.assign(model="other"), "probes holds the model 'other'"),
        ("probes", lambda table: pd.concat([table, table.iloc[:1]]), "probes holds .* twice"),
        ("change", lambda table: table.drop(columns="measure"), "change has no column 'measure'"),
        ("seeds", lambda table: table.drop(columns="seed"), "seeds has no column 'seed'"),
        ("scaling", lambda table: table.drop(columns="hours"), "scaling has no column 'hours'"),
        ("mlp", lambda table: table.drop(columns="settings"), "mlp has no column 'settings'"),
        ("diagnostics", lambda table: table.drop(columns="advice"), "diagnostics has no column 'advice'"),
        ("warnings", lambda table: table.rename(columns={"warning": "text"}), "warnings has no column 'warning'"),
    ],
)
def test_a_wrong_table_is_one_clear_error(tmp_path: Path, name: str, spoil, said: str) -> None:
    tables = study_tables()
    with pytest.raises(InputError, match=said):
        write(tmp_path, tables | {name: spoil(tables[name])})
    assert list(tmp_path.iterdir()) == []


def test_a_study_of_probes_alone_has_a_page(tmp_path: Path) -> None:
    page = Page(write(tmp_path, {"probes": study_tables()["probes"]}))
    assert len(page.images) == 1 and "Every probe" in page.text and "Mean r over" not in page.text
    with pytest.raises(InputError, match="nothing to report; give scores, or probes"):
        write(tmp_path, {"change": study_tables()["change"]})


def test_a_page_says_nothing_of_tables_that_it_has_not(tmp_path: Path, undrawn: None) -> None:
    tables = study_tables()
    write(tmp_path, tables, (Map("old", "x", "x", "x", a_bytes()),))
    page = Page(write(tmp_path, {"scores": tables["scores"]}))
    assert {path.stem for path in (tmp_path / "figures").iterdir()} == {"layers"}, "what an earlier run drew must not stay"
    for words in ("In short", "Before you believe", "probes", "Diagnostics", "Maps", "Parts of this page"):
        assert words not in page.text
    assert not (tmp_path / "findings.csv").exists() and not (tmp_path / "warnings.csv").exists()


def a_bytes() -> bytes:
    return b"\x89PNG\r\n\x1a\n" + bytes(24)


@pytest.mark.parametrize(
    ("maps", "said"),
    [
        ([Map("a/b", "x", "x", "x", a_bytes())], "maps has the name 'a/b'"),
        ([Map("a", "x", "x", "x", a_bytes())] * 2, "maps has the name 'a'"),
        ([Map("a", "x", "x", "x", b"<svg/>")], "the map 'a' has no PNG"),
    ],
)
def test_wrong_maps_are_refused(tmp_path: Path, undrawn: None, maps: list[Map], said: str) -> None:
    with pytest.raises(InputError, match=said):
        write(tmp_path, {"scores": study_tables()["scores"]}, tuple(maps))


# Figures.


def test_probes_draw_means_bands_baselines_and_controls() -> None:
    from matplotlib.colors import to_hex

    table = study_tables()["probes"]
    figure = figures.probes_figure(table, BEFORE_AND_AFTER)
    ax = figure.axes[1]
    assert ax.get_title() == "word identity" and ax.get_ylabel() == "accuracy"
    word = table[table["task"] == "word"]
    lines = ax.get_lines()
    thick = {line.get_color(): line for line in lines if line.get_linewidth() > 2}
    for one in BEFORE_AND_AFTER:
        own = word[word["model"] == one.model]
        np.testing.assert_allclose(thick[one.color].get_ydata(), own.groupby("layer")["score"].mean(), atol=1e-12)
        assert thick[one.color].get_marker() == one.marker
    dashed = [line for line in lines if line.get_linewidth() == 1.2 and line.get_ydata() == pytest.approx([0.03, 0.03])]
    dotted = [line for line in lines if line.get_linestyle() == ":"]
    assert len(dashed) == 1 and len(dotted) == 3 and {round(float(line.get_ydata()[0]), 9) for line in dotted} == {0.05}
    bands = {to_hex(band.get_facecolor()[0]): band.get_paths()[0].get_extents().intervaly for band in ax.collections}
    own = word[word["model"] == "tuned"].groupby("layer")[["low", "high"]].mean()
    assert bands[BEFORE_AND_AFTER[1].color] == pytest.approx([own["low"].min(), own["high"].max()])
    assert legend_labels(figure) == ["pretrained", "brain-tuned", "control", "baseline", "shuffled labels"]
    alone = figures.probes_figure(table[table["task"] == "mfcc"], BEFORE_AND_AFTER)
    assert "shuffled labels" not in legend_labels(alone)


def test_a_mean_that_the_table_has_is_drawn_as_it_is() -> None:
    table = study_tables()["probes"].query("task == 'word' and model == 'tuned'")
    mean = table[table["participant"] == "P1"].assign(participant="mean", score=0.9, low=0.85, high=0.95)
    ax = figures.probes_figure(pd.concat([table, mean]), BEFORE_AND_AFTER).axes[0]
    thick = [line for line in ax.get_lines() if line.get_linewidth() > 2]
    assert [list(line.get_ydata()) for line in thick] == [[0.9] * LAYERS]
    assert sum(line.get_linewidth() == 0.9 for line in ax.get_lines()) == 2, (
        "one thin line for each participant, none for the mean"
    )


def test_answers_differ_by_shape_and_stand_there_in_words() -> None:
    table = study_tables()["findings"]
    figure = figures.findings_figure(table)
    brains, probes = figure.axes
    words = [text.get_text().split("\n") for ax in figure.axes for text in ax.texts]
    assert words == [[number(row), said] for (_, row), said in zip(
        table.iloc[[0, 1, 3, 2]].iterrows(), ["yes", "undecided", "no expectation", "no"], strict=True)]  # fmt: skip
    at = [line for line in brains.get_lines() if len(line.get_xdata()) == 1 and line.get_marker() != "s"]
    markers = [line.get_marker() for line in at] + [line.get_marker() for line in probes.get_lines() if line.get_marker() == "X"]
    assert len(set(markers)) == 4
    assert [float(line.get_xdata()[0]) for line in at] == [0.1, 0.02, 0.31]
    spans = [sorted(map(float, line.get_xdata())) for line in brains.get_lines() if len(line.get_xdata()) == 2]
    assert [0.07, 0.13] in spans and [-0.02, 0.06] in spans
    shaded = [band.get_paths()[0].get_extents().intervalx for band in brains.collections]
    assert shaded[0][0] == 0 and shaded[1] == pytest.approx([-0.03, 0.03]) and len(shaded) == 2
    rows = list(brains.get_yticks())
    assert rows == sorted(rows) and brains.get_ylim()[0] > brains.get_ylim()[1], "the first expectation stands on top"


def test_hours_are_doublings_apart() -> None:
    table = study_tables()["scaling"]
    figure = figures.scaling_figure(table, BEFORE_AND_AFTER)
    ax = figure.axes[0]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["0", "1", "2", "4"]
    thick = {line.get_color(): line for line in ax.get_lines() if line.get_linewidth() > 2}
    own = table.query("region == 'auditory'").groupby(["model", "hours"])["r"].mean()
    for one in BEFORE_AND_AFTER[1:]:
        np.testing.assert_allclose(thick[one.color].get_xdata(), [0, 1, 2])
        np.testing.assert_allclose(thick[one.color].get_ydata(), own[one.model])
    np.testing.assert_allclose(thick[BEFORE_AND_AFTER[0].color].get_xdata(), [-1, 0, 1, 2])
    assert set(thick[BEFORE_AND_AFTER[0].color].get_ydata()) == {own["pretrained", 0.0]}


def test_change_has_a_panel_for_each_measure_and_logarithms_where_sizes_differ() -> None:
    table = study_tables()["change"]
    table.loc[table["measure"] == "weight_change", "value"] *= 10.0 ** table["layer"]
    ax = figures.change_figure(table, BEFORE_AND_AFTER).axes
    assert [one.get_yscale() for one in ax] == ["linear", "log", "linear"]
    cka = table[(table["measure"] == "cka") & (table["model"] == "tuned")].groupby("layer")["value"].mean()
    thick = [line for line in ax[0].get_lines() if line.get_linewidth() > 2 and line.get_color() == BEFORE_AND_AFTER[1].color]
    np.testing.assert_allclose(thick[0].get_ydata(), cka)


def test_each_seed_and_each_participant_has_its_own() -> None:
    tables = study_tables(("P1", "P2", "P3", "P4", "P5"))
    seeds = figures.seeds_figure(tables["seeds"], BEFORE_AND_AFTER)
    assert len(seeds.axes) == 1 and len(seeds.axes[0].get_lines()) == 6
    own = tables["seeds"].query("model == 'tuned' and seed == 0").groupby("layer")["value"].mean()
    np.testing.assert_allclose(seeds.axes[0].get_lines()[0].get_ydata(), own)
    each = figures.participants_figure(tables["contrasts"], ["late_language"], BEFORE_AND_AFTER)
    assert [ax.get_title() for ax in each.axes] == [f"late language · P{k}" for k in range(1, 6)]
    assert len({ax.get_ylim() for ax in each.axes}) == 1
    one = tables["contrasts"].query("participant == 'P5' and model == 'tuned' and region == 'late_language'")["difference"]
    assert any(np.array_equal(line.get_ydata(), one) for line in each.axes[4].get_lines())
    alone = tables["contrasts"].query("participant == 'P5'")
    assert figures.participants_figure(alone, ["late_language"], BEFORE_AND_AFTER) is None


@pytest.mark.parametrize(("people", "layers"), [(1, 1), (9, 25)])
def test_no_text_overlaps(people: int, layers: int) -> None:
    tables = study_tables(tuple(f"participant_{k}" for k in range(people)), layers)
    drawn = [
        getattr(figures, f"{name}_figure")(tables[name], BEFORE_AND_AFTER)
        for name in ("probes", "change", "mlp", "scaling", "seeds", "training")
    ]
    drawn.append(figures.participants_figure(tables["contrasts"], ["late_language"], BEFORE_AND_AFTER))
    long = tables["findings"].assign(statement="words of a statement that goes on and on and does not come to its end " * 3)
    drawn += [figures.findings_figure(tables["findings"]), figures.findings_figure(long)]
    assert [overlapping_texts(figure) for figure in drawn if figure is not None] == [[]] * (len(drawn) - (people == 1))


def test_findings_that_were_not_measured_are_drawn_and_said(tmp_path: Path) -> None:
    table = study_tables()["findings"].assign(answer="undecided", reason="no region")
    numbers = [
        "value",
        "low",
        "high",
        "p",
        "p_holm",
        "p_smallest",
        "n_units",
        "control_value",
        "control_low",
        "control_high",
        "limit",
    ]
    table[numbers] = np.nan
    page = Page(write(tmp_path, {"scores": study_tables()["scores"], "findings": table}))
    assert "nan" not in page.text.lower() and page.text.count("not measured") >= 8
    assert all("nan" not in image["alt"] for image in page.images)


def test_equal_tables_give_equal_files() -> None:
    one, two = (figures.change_figure(study_tables()["change"], BEFORE_AND_AFTER) for _ in range(2))
    assert (figures.png(one), figures.svg(one)) == (figures.png(two), figures.svg(two))


def octahedron() -> tuple[np.ndarray, np.ndarray]:
    corners = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], dtype=float) * 50
    faces = [[x, y, z] for x in (0, 1) for y in (2, 3) for z in (4, 5)]
    return corners, np.array(faces)


def test_surfaces_show_values_on_any_mesh() -> None:
    pytest.importorskip("nilearn", reason="nilearn is not installed")
    meshes = {"left": octahedron(), "right": octahedron()}
    figure = figures.surface_figure({side: np.linspace(-0.1, 0.2, 6) for side in meshes}, meshes, label="change of r ($)")
    titles = [ax.get_title() for ax in figure.axes[:4]]
    assert titles == ["left, lateral", "left, medial", "right, lateral", "right, medial"]
    assert figure.axes[4].get_ylim() == pytest.approx((-0.2, 0.2)), "blue and orange are equally far from zero"
    faces = [ax.collections[0].get_facecolors() for ax in figure.axes[:4]]
    assert all(len(np.unique(one.round(3), axis=0)) > 2 for one in faces)
    assert png_head(figures.png(figure))
    assert figures.svg(figure).count(b"<image") == 5, "triangles and the bar are pixels, words are not"
    bar = figure.axes[4].collections[0].get_cmap()(np.linspace(0, 1, 9))[:, :3] @ (0.2126, 0.7152, 0.0722)
    assert (np.diff(bar) > 0).all(), "the sign shows in black and white, too"
    one = figures.surface_figure({"left": np.full(6, np.nan)}, meshes, label="x", limit=1)
    assert len(one.axes) == 3
    with pytest.raises(InputError, match="left: 5 values for a mesh of 6 vertices"):
        figures.surface_figure({"left": np.ones(5)}, meshes, label="x")
    with pytest.raises(InputError, match="the hemisphere 'both'"):
        figures.surface_figure({"both": np.ones(6)}, meshes, label="x")
    with pytest.raises(InputError, match="values is empty"):
        figures.surface_figure({}, meshes, label="x")


def png_head(content: bytes) -> bool:
    return content.startswith(b"\x89PNG")


def test_findings_of_brains_and_of_probes_are_drawn_apart() -> None:
    table = study_tables()["findings"]
    one = table.head(1)
    rows = pd.concat([one.assign(measure="r_residual", region="late_language"), one.assign(measure="word", region="")])
    labels = [ax.get_xlabel() for ax in figures.findings_figure(rows).axes]
    assert [label.split()[0] for label in labels] == ["correlation", "probe"]
