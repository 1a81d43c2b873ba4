"""Figures as single dots, for tests of whole commands: drawing takes most of the time of a study as small as theirs.

``test_page.py`` and ``test_report.py`` draw every figure. In a process that a test starts itself:
``import picture_cases; picture_cases.without_pictures()``, with the folder of this file in ``sys.path``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b550000000a49444154789c6360000000020001e5273dd40000000049454e44ae426082"
)
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"></svg>'
# The command, for ``python -c``, its figures dots.
COMMAND = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import picture_cases
picture_cases.without_pictures()
from fastencode.cli import main
"""


def without_pictures(put: Callable[[Any, str, Any], None] = setattr) -> None:
    """Every figure is made as ever, but its file is one dot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    put(FigureCanvasAgg, "print_png", lambda self, file, **_: file.write(PNG))
    put(FigureCanvasSVG, "print_svg", lambda self, file, **_: file.write(SVG))
