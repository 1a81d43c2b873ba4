"""What tests of figures share."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path


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
