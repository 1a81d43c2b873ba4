"""What tests of figures share."""

from __future__ import annotations


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
