"""What tests of figures share."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

from fastencode.study.conditions import conditions

BEFORE_AND_AFTER = conditions(("pretrained", "tuned", "control"), ("pretrained", "brain-tuned", "control"))


class Page(HTMLParser):
    """What a browser would load, show, and close."""

    VOID = frozenset({"meta", "link", "img", "br"})

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.images: list[dict[str, str]] = []
        self.rows: list[list[str]] = []  # cells of all rows of all tables
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        self.loaded += [named[name] for name in ("src", "href", "srcset", "data") if name in named]
        self.ids += [named["id"]] if "id" in named else []
        if tag == "img":
            self.images.append(named)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


def png_size(path: Path) -> tuple[int, int]:
    head = path.read_bytes()[:24]
    assert head.startswith(b"\x89PNG\r\n\x1a\n")
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")


def legend_labels(figure) -> list[str]:
    """The entries of a figure's legend as people read them, row by row."""
    figure.draw_without_rendering()
    texts = figure.legends[0].get_texts()
    boxes = {text.get_text(): text.get_window_extent() for text in texts}
    return sorted(boxes, key=lambda label: (-round(boxes[label].y0 / 5), boxes[label].x0))


def overlapping_texts(figure) -> list[tuple[str, str]]:
    """Pairs of texts that overlap, and texts that leave the figure. Ticks beyond the limits exist but are not drawn."""
    from matplotlib.text import Text

    figure.draw_without_rendering()
    ticks = [(t, a) for ax in figure.axes for a in (ax.xaxis, ax.yaxis) for t in (*a.get_major_ticks(), *a.get_minor_ticks())]
    undrawn = {t.label1 for t, a in ticks if not min(a.get_view_interval()) <= t.get_loc() <= max(a.get_view_interval())}
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip() and text not in undrawn]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    edge = figure.bbox.padded(0.5)
    outside = [(text, "the edge") for text, box in boxes if not (edge.contains(*box.min) and edge.contains(*box.max))]
    return outside + [(a, b) for k, (a, x) in enumerate(boxes) for b, y in boxes[:k] if x.shrunk(0.99, 0.99).overlaps(y)]


REGIONS = ("auditory", "late_language")
LAYERS = 4
FINDINGS = (
    # name, statement, measure, region, layers, models, (value, low, high), expect, limit, answer, reason, control
    ("rise", "Late layers rise", "r", "late_language", "late", "tuned − pretrained", (0.1, 0.07, 0.13), "above", 0.0, "yes",
     "", 0.012),
    ("keep", "Early layers stay", "r", "auditory", "early", "tuned − pretrained", (0.02, -0.02, 0.06), "within", 0.03,
     "undecided", "the interval holds the limit", None),
    ("word", "Words are easier", "word", "", "late", "tuned − pretrained", (0.05, 0.02, 0.08), "above", 0.0, "no",
     "the control shows it too", 0.049),
    ("level", "Nothing was expected of layer 3", "r", "auditory", "3", "tuned", (0.31, 0.28, 0.34), "", None, "", "", None),
)  # fmt: skip


def study_tables(participants: tuple[str, ...] = ("P1", "P2"), layers: int = LAYERS) -> dict:
    """Every table that a study's page has a section for, of three models, small and with round numbers where it can be."""
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(0)

    def product(**levels: object) -> pd.DataFrame:
        return pd.MultiIndex.from_product(list(levels.values()), names=list(levels)).to_frame(index=False)

    def noisy(table: pd.DataFrame, column: str, level: float, half: float) -> pd.DataFrame:
        values = (level + 0.05 * rng.standard_normal(len(table))).round(6)
        return table.assign(**{column: values, "low": values - half, "high": values + half})

    people, models, both = list(participants), ["pretrained", "tuned", "control"], ["tuned", "control"]
    scores = noisy(product(participant=people, model=models, layer=range(layers), region=REGIONS), "r", 0.4, 0.05)
    scores = scores.rename(columns={"low": "r_low", "high": "r_high"}).assign(n_voxels=100, ceiling=0.8, alpha_median=10.0)
    scores = scores.assign(r_normalized=scores["r"] / 0.8, at_edge=0.01)
    contrasts = noisy(product(participant=people, model=both, layer=range(layers), region=REGIONS), "difference", 0.02, 0.02)
    level = noisy(product(model=models, layer=range(layers), region=REGIONS, versus=["0"]), "mean", 0.4, 0.04)
    apart = noisy(product(model=both, layer=range(layers), region=REGIONS, versus=["pretrained"]), "mean", 0.02, 0.02)
    means = pd.concat([level, apart], ignore_index=True).assign(participants=len(people))
    whose = {"pretrained": [""], "tuned": people, "control": people}
    tasks = (("mfcc", "r2"), ("word", "accuracy"), ("label:emotion", "f1_macro"))
    rows = [(task, metric, model, who, layer) for task, metric in tasks
            for model in models for who in whose[model] for layer in range(layers)]  # fmt: skip
    probes = noisy(pd.DataFrame(rows, columns=["task", "metric", "model", "participant", "layer"]), "score", 0.5, 0.03)
    probes["baseline"] = probes["task"].map({"mfcc": 0.0, "word": 0.03, "label:emotion": 0.2})
    probes["control"] = np.where(probes["task"] == "word", 0.05, np.nan)
    probes = probes.assign(selectivity=probes["score"] - probes["control"], n_train=500, n_test=200, n_units=24, unit="speakers")
    probes = probes.assign(penalty=0.01, at_edge=False)
    change = product(participant=people, model=both, layer=range(layers), measure=["cka", "weight_change", "twonn"])
    each = product(measure=["r"], participant=people, model=both, seed=[0, 1, 2], layer=range(layers), region=["auditory"])
    seeds = noisy(each, "value", 0.3, 0.02)
    scaling = noisy(product(model=both, participant=people, region=REGIONS, hours=[1.0, 2.0, 4.0]), "r", 0.3, 0.03)
    zero = noisy(product(model=["pretrained"], participant=people, region=REGIONS, hours=[0.0]), "r", 0.3, 0.03)
    mlp = noisy(product(participant=people, model=models, layer=range(layers), region=REGIONS), "difference", 0.0, 0.02)
    training = product(participant=people, model=both, epoch=[0, 1, 2])
    columns = [
        "name",
        "statement",
        "measure",
        "region",
        "layers",
        "models",
        "number",
        "expect",
        "limit",
        "answer",
        "reason",
        "control",
    ]
    findings = pd.DataFrame(FINDINGS, columns=columns)
    for place, end in enumerate(("value", "low", "high")):
        findings[end] = [one[place] for one in findings["number"]]
    control = findings["control"].astype(float)
    findings = findings.assign(control_value=control, control_low=control - 0.01, control_high=control + 0.01)
    findings = findings.assign(unit="blocks", n_units=30, p=0.004, p_smallest=0.001, p_holm=0.012, family="main")
    return {
        "scores": scores,
        "means": means,
        "contrasts": contrasts.assign(versus="pretrained"),
        "findings": findings.drop(columns=["number", "control"]),
        "probes": probes,
        "change": change.assign(value=rng.uniform(0.5, 1, len(change)).round(6)),
        "mlp": mlp.assign(r_ridge=0.3, r_mlp=0.3 + mlp["difference"], settings="12 tried"),
        "scaling": pd.concat([scaling, zero], ignore_index=True),
        "seeds": seeds,
        "training": training.assign(updates=1, train_loss=0.9, validation_loss=1.0, validation_r=0.1, seconds=2.0),
        "diagnostics": pd.DataFrame(
            [
                {
                    "participant": people[0],
                    "model": "tuned",
                    "finding": "overfitting",
                    "evidence": "0.9, then 1.1",
                    "advice": "Stop earlier.",
                }
            ]
        ),
        "warnings": pd.DataFrame({"warning": ["3 voxels were dropped."]}),
    }
