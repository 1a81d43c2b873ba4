"""The rules of the house: who imports what, how long a file may be, what the public names promise, what stays unloaded."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastencode
from house import ROOMS, RULES, breaches, circle, drawn, imports, modules, out_of_order

ROOT = Path(__file__).resolve().parents[1]
MODULES = modules(ROOT)
HOMES = fastencode._HOME_OF
LONGEST = 500


def read(module: str, source: str, is_package: bool = False) -> list[str]:
    return breaches(module, imports(source, module, is_package, HOMES, frozenset(MODULES)))


def test_the_reader_finds_the_house() -> None:
    assert {"", "errors", "kernels", "solve", "timing", "speech", "data", "world", "tune", "study", "runs", "cli"} <= set(MODULES)


@pytest.mark.parametrize("module", sorted(MODULES), ids=lambda name: name or "fastencode")
def test_imports_keep_the_rules(module: str) -> None:
    path = MODULES[module]
    broken = read(module, path.read_text(encoding="utf-8"), path.name == "__init__.py")
    assert not broken, "\n".join(broken)


def graph() -> dict[str, set[str]]:
    """What every module imports of the package, itself aside: a package's name stands for its __init__.py."""
    found = {}
    for module, path in MODULES.items():
        source, is_package = path.read_text(encoding="utf-8"), path.name == "__init__.py"
        found[module] = {item.name for item in imports(source, module, is_package, HOMES, frozenset(MODULES)) if item.ours}
    return found


def test_no_imports_go_in_a_circle() -> None:
    assert " → ".join(circle(graph())) == "", "cut it: move what both need to a file that imports neither"


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_within_a_room_are_ordered(room: str) -> None:
    inside = {name.split(".")[1] for name in MODULES if name.startswith(f"{room}.") and name.count(".") == 2}
    assert inside <= set(ROOMS[room]) <= {name.split(".")[1] for name in MODULES if name.startswith(f"{room}.")}


def test_rooms_within_a_room_import_only_what_comes_before_them() -> None:
    broken = []
    for module, path in MODULES.items():
        found = imports(path.read_text(encoding="utf-8"), module, path.name == "__init__.py", HOMES, frozenset(MODULES))
        broken += out_of_order(module, found)
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize(
    ("module", "source", "count"),
    [
        ("solve.plan.x", "from fastencode.solve.score.tiles import Reader", 1),
        ("solve.given.x", "def f():\n    from ..plan import basis", 1),
        ("solve.search.x", "from fastencode.solve.ridge import ridge_cv\nfrom fastencode.solve.given.folds import Fold", 1),
        ("solve.weights.x", "from ..score.tiles import Reader\nfrom .features import map_of\nfrom ...arrays import x", 0),
        ("solve.banded", "from fastencode.solve.search.search import run_search", 0),
        (
            "study.brains.x",
            "from fastencode.study.findings.means import mean_scores\nfrom fastencode.study.config import Contrast",
            1,
        ),
        (
            "study.inference.x",
            "def f():\n    from ..brains.tables import score_rows\n    from fastencode.study.word_rate import x",
            2,
        ),
    ],
)
def test_planted_imports_of_later_rooms_are_found(module: str, source: str, count: int) -> None:
    assert len(out_of_order(module, imports(source, module, False, HOMES, frozenset(MODULES)))) == count


def test_circles_are_found_and_named() -> None:
    one_way = {"a": {"b", "c"}, "b": {"c"}, "c": set[str]()}
    assert circle(one_way) == []
    assert circle({**one_way, "c": {"a"}}) in (["a", "c", "a"], ["c", "a", "c"], ["a", "b", "c", "a"], ["b", "c", "a", "b"])
    assert circle({"a": {"a"}}) == ["a", "a"]


PLANTED = [
    ("kernels.x", "from fastencode.errors import InputError", "kernels import nothing of ours"),
    ("kernels.x", "def f():\n    from .. import errors", "kernels import nothing of ours"),
    ("arrays", "from .solve import ridge", "base files"),
    ("errors", "from fastencode import r2", "base files"),
    ("solve.x", "import torch", "solve and timing stand"),
    ("solve.x", "def f():\n    import torch.nn as nn", "solve and timing stand"),
    ("solve.x", "from ..timing import lanczos", "solve and timing stand"),
    ("solve.x", "from .. import timing", "solve and timing stand"),
    ("solve.x", "import importlib\nimportlib.import_module('sklearn.base')", "solve and timing stand"),
    ("solve.x", "from importlib import import_module\nimport_module('..timing.delays', __package__)", "solve and timing stand"),
    ("timing.x", "from ..errors import require\ndef f():\n    require('transformers', 'tune')", "solve and timing stand"),
    ("timing.x", "from fastencode import ridge_cv", "solve and timing stand"),
    ("speech.x", "if TYPE_CHECKING:\n    from ..data.textgrid import Interval", "speech stands on base files"),
    ("data.x", "from fastencode.world.config import WorldConfig", "may import world"),
    ("tune.trainer", "from fastencode.world.tales import tell", "may import world"),
    ("world.x", "from fastencode.solve.ridge import ridge_cv", "world stands on data"),
    ("estimators", "from fastencode.study.inference import significance", "estimators wrap solvers and timing"),
    ("study.x", "from fastencode import RidgeCV", "nobody builds on estimators"),
    ("tune.x", "from ..solve.ridge import ridge_cv", "tune never imports the solvers"),
    ("tune.x", "from fastencode import ridge_cv", "tune never imports the solvers"),
    ("tune.x", "from .. import ridge_cv", "tune never imports the solvers"),
    ("tune.x", "import fastencode\nfastencode.ridge_cv", "name the room"),
    ("tune.x", "from ..study import alignment", "may import study"),
    ("study.x", "class A:\n    def f(self):\n        from ..tune.model import load", "may import study"),
    ("data.x", "from ..errors import require\ndef f():\n    require('fastencode.tune.clips', 'tune')", "may import study"),
    ("study.x", "from fastencode.runs.engine import Stage", "only cli may import runs"),
    ("runs.x", "from fastencode.cli.settings import DemoConfig", "nobody imports cli"),
    ("data.x", "def f():\n    from matplotlib import pyplot", "draw"),
    ("study.brains.design", "def f():\n    import matplotlib.pyplot as plt", "draw"),
    ("study.report.page", "def f():\n    require('matplotlib.figure', 'report')", "draw"),
    ("tune.card", "def f():\n    import matplotlib.figure", "draw"),
    ("data.x", "import pandas as pd", "inside a function"),
    ("speech.x", "try:\n    import torch\nexcept ImportError:\n    torch = None", "inside a function"),
    ("", "from . import study", "may import study"),
]


@pytest.mark.parametrize(("module", "source", "why"), PLANTED)
def test_planted_breaches_are_found(module: str, source: str, why: str) -> None:
    broken = read(module, source, is_package=module == "")
    assert any(why in line for line in broken), broken


def test_every_rule_is_broken_by_a_planted_breach() -> None:
    assert [rule.why for rule in RULES if not any(why in rule.why for _, _, why in PLANTED)] == []


INNOCENT = [
    ("kernels.x", "import numba\nfrom . import fallback"),
    ("solve.x", "import numpy as np\nfrom ..arrays import library\nfrom .. import kernels, __version__\nfrom .plan import x"),
    ("cli.x", "from ..tune import model\nfrom ..study import report\nimport fastencode"),
    ("runs.x", "from ..tune import model\nfrom fastencode.study.report import report"),
    ("study.figures", "def f():\n    import matplotlib.pyplot as plt"),
    ("study.figures.layers", "def f():\n    require('matplotlib.figure', 'report')"),
    ("tune.curves", "def f():\n    require('matplotlib.figure', 'report')"),
    ("study.x", "from ..solve.ridge import ridge_cv\nfrom .ceilings import noise_ceiling"),
    ("speech.x", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch"),
    ("tune.x", "from ..errors import require\ndef f():\n    require('torch', 'tune')\n    import pandas"),
    ("tune.x", "from torch import nn\nclass Head(nn.Module): ..."),
    ("estimators", "import sklearn.base\nfrom fastencode.solve.ridge import ridge_cv\nfrom fastencode.errors import InputError"),
    ("", "from importlib import import_module\nHOME = {'noise_ceiling': 'study.brains.ceilings'}"),
]


@pytest.mark.parametrize(("module", "source"), INNOCENT)
def test_innocent_imports_pass(module: str, source: str) -> None:
    assert read(module, source, is_package=module == "") == []


def test_no_file_is_too_long() -> None:
    files = [ROOT / "setup.py", *(p for room in ("src", "kernels", "tests", "bench") for p in (ROOT / room).rglob("*"))]
    code = [path for path in files if path.suffix in (".py", ".pyx", ".pxd", ".cu", ".cuh", ".hpp")]
    assert len(code) > len(MODULES)
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in code}
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}


def test_no_test_module_imports_another() -> None:
    pattern = re.compile(r"^\s*(from|import) test_", re.MULTILINE)
    files = sorted((ROOT / "tests").glob("*.py"))
    assert [path.name for path in files if pattern.search(path.read_text(encoding="utf-8"))] == []


def test_the_picture_shows_every_module() -> None:
    """And no other: a file that was moved is drawn where it lies now."""
    picture = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## The house")[2].partition("###")[0]
    sources = [path for path in (ROOT / "kernels").iterdir() if path.suffix in (".pyx", ".cu", ".cuh", ".hpp")]
    files = {path.relative_to(ROOT).as_posix() for path in [*MODULES.values(), *sources]}
    drawn_as_a_whole = "src/fastencode/cli/"
    wanted = {name for name in files if not name.startswith(drawn_as_a_whole) and not name.endswith("/__init__.py")}
    shown = {name for name in drawn(picture) if name.startswith(("src/", "kernels/")) and not name.endswith("/__init__.py")}
    assert sorted(wanted - shown) == [], "draw them in CONTRIBUTING.md"
    assert sorted(shown - wanted) == [], "CONTRIBUTING.md draws what is not there"


def test_a_picture_is_read_by_folders() -> None:
    picture = """
one/        a room
  a.py b.py     two files (c.py is none)
                and more about them, in d.py too
  two/          a room inside
    a.py        another of that name
  e.py
three/  f.py
"""
    assert drawn(picture) == {"one/a.py", "one/b.py", "one/two/a.py", "one/e.py", "three/f.py"}


@pytest.mark.parametrize("name", fastencode.__all__)
def test_public_names_import_and_say_what_they_are(name: str) -> None:
    value = getattr(fastencode, name)
    if name == "__version__":
        assert value[0].isdigit()
        return
    assert callable(value)
    doc = inspect.getdoc(value) or ""
    assert len(doc) > 20, f"{name} has no docstring of its own"


def test_lazy_table_names_what_exists() -> None:
    for name, home in HOMES.items():
        assert name in importlib.import_module(f"fastencode.{home}").__all__, f"{home} does not list {name} in its __all__"


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = fastencode.no_such_name


STAYS_UNLOADED = ("torch", "transformers", "sklearn", "cupy", "matplotlib", "pandas")  # by whatever NumPy arrays go through

RUN = """
import json, sys
import numpy as np
import fastencode
after_import = sorted(sys.modules)
rng = np.random.default_rng(0)
X = rng.standard_normal((60, 5))
Y = X @ rng.standard_normal((5, 3))
for fit in (fastencode.ridge_cv(X, Y), fastencode.plan_ridge(X, device="cpu").fit(Y)):
    assert fit.coef.shape == (5, 3)
    fit.predict(X), fit.score(X, Y)
fastencode.r2(Y, Y), fastencode.pearson(Y, Y)
print(json.dumps([after_import, sorted(sys.modules)]))
"""


def test_numpy_input_loads_no_optional_library() -> None:
    """In a process of its own: in this one other tests have loaded them all."""
    run = subprocess.run([sys.executable, "-c", RUN], capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    after_import, after_fit = json.loads(run.stdout.splitlines()[-1])
    assert "numpy" in after_import
    assert "fastencode.solve" in after_fit
    assert [name for name in STAYS_UNLOADED if name in after_fit] == []
    assert [name for name in ("scipy", "numba", "h5py", "fastencode.solve") if name in after_import] == []
