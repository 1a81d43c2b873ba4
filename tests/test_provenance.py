"""What decides a result: which code counts and which does not, settings as JSON, contents of files read once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from fastencode.errors import InputError
from fastencode.plain import plain
from fastencode.runs import provenance
from fastencode.runs.provenance import Code, Contents, digest

ROOT = Path(__file__).resolve().parents[1]
LAYER_SCORES = ["study.brains.layer_scores.score_layer", "solve.ridge.ridge_cv"]
# Digests of functions of a copy of the package, on one line, as often as asked; their modules are not imported.
DIGESTS = """
import sys
sys.path.insert(0, sys.argv[1])
from fastencode.runs.provenance import Code
def f(): ...
for line in sys.stdin:
    found, code = [], Code()
    for name in line.split():
        f.__module__, _, f.__qualname__ = f"fastencode.{name}".rpartition(".")
        found.append(code.of(f))
    print(*found, flush=True)
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package's sources, kernels inside, to be changed."""
    without = shutil.ignore_patterns("__pycache__", "small")
    shutil.copytree(ROOT / "src" / "fastencode", tmp_path / "fastencode", ignore=without)
    shutil.copytree(ROOT / "kernels", tmp_path / "fastencode" / "kernels", ignore=without)
    return tmp_path


@pytest.fixture
def digests(copy: Path) -> Iterator[Callable[[], list[str]]]:
    """Asks a process for the digests of ``LAYER_SCORES`` as the copy is now."""
    command = [sys.executable, "-c", DIGESTS, str(copy)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        assert process.stdin is not None and process.stdout is not None
        asked, told = process.stdin, process.stdout

        def ask() -> list[str]:
            asked.write(" ".join(LAYER_SCORES) + "\n")
            return told.readline().split()

        yield ask
        asked.close()


def changed(path: Path, old: str, new: str) -> None:
    """A source with its first ``old`` replaced, or with more at its end."""
    text = path.read_text(encoding="utf-8")
    assert old in text, f"{path} has no {old!r} to change"
    path.write_text(text.replace(old, new, 1) if old else text + new, encoding="utf-8")


def test_code_that_is_used_counts_and_words_about_it_do_not(copy: Path, digests: Callable[[], list[str]]) -> None:
    """In a real copy of the package, source by source: first what ought to change nothing, then what ought to."""
    before, package = digests(), copy / "fastencode"
    assert len(set(before)) == 2
    for path in ("study/figures/layers.py", "delayed.py", "solve/ridge.py", "kernels/fallback.py"):
        changed(package / path, '"""', '# A comment.\n"""Another docstring. ')
    changed(package / "study" / "figures" / "layers.py", "", "NEW = 1\n")  # no ridge is fitted with figures
    changed(package / "__init__.py", '"pearson":', '"new_name": "nowhere",\n    "pearson":')
    assert digests() == before
    for path in ("delayed.py", "solve/plan/basis.py", "kernels/product.pyx"):
        changed(package / path, "", "NEW = 1\n")
        after = digests()
        assert after[0] != before[0] and after[1] != before[1], path
        before = after
    changed(package / "study" / "inference" / "significance.py", "", "NEW = 1\n")
    after = digests()
    assert after[0] != before[0] and after[1] == before[1]


OWN = '''
"""A module of somebody's."""
from typing import TYPE_CHECKING
import helper, unused
from helper import one as first, two
if TYPE_CHECKING:
    import heavy

LIMIT = 3

def inner(x):
    """A docstring."""
    import late
    return x + LIMIT  # a comment

def stage(folder, x: Kind):
    def deeper():
        return inner(x)
    return first(deeper())

def other():
    return two() + unused.x

class Kind(Base):
    """Nothing else."""

class Base: ...
'''


def of(monkeypatch: pytest.MonkeyPatch, sources: dict[str, str], name: str = "stage", arguments: Sequence[object] = ()) -> str:
    """The digest of a function of the module ``own``, with the sources of this one and of what it may import."""

    def function() -> None: ...

    function.__module__, function.__qualname__ = "own.stages", name
    monkeypatch.setattr(provenance, "_source", sources.get)
    monkeypatch.setattr(provenance, "_file", lambda module: Path(f"{module}.py") if module in sources else None)
    return Code().of(function, arguments)


def test_of_its_own_module_a_function_counts_with_what_it_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    own = OWN.replace("import helper, unused", "import own.unused as unused").replace("from helper", "from own.helper")
    own = own.replace("import late", "from . import late").replace("import heavy", "import own.heavy")
    sources = {
        "own.stages": own,
        "own.helper": "import fastencode.base\none = two = 1",
        "own.unused": "x = 1",
        "own.late": "y = 1",
    }
    sources |= {"own.heavy": "z = 1", "fastencode.base": "w = 1"}
    before = of(monkeypatch, sources)
    for same in (
        {
            "own.stages": own.replace("# a comment", "")
            .replace("A docstring", "Other words")
            .replace("LIMIT = 3\n", "LIMIT = 3  \n\n")
        },
        {"own.stages": own.replace("return two() + unused.x", "return 5")},
        {"own.unused": "x = 2"},
        {"own.heavy": "z = 2"},
        {"own.helper": '"""New."""\nimport fastencode.base\none = two = 1'},
    ):
        assert of(monkeypatch, sources | same) == before, same
    for other in (
        {"own.stages": own.replace("LIMIT = 3", "LIMIT = 4")},
        {"own.stages": own.replace("x + LIMIT", "x - LIMIT")},
        {"own.stages": own.replace("class Base: ...", "class Base:\n    x = 1")},
        {"own.helper": "import fastencode.base\none = two = 2"},
        {"own.late": "y = 2"},
        {"fastencode.base": "w = 2"},
    ):
        assert of(monkeypatch, sources | other) != before, other
    assert of(monkeypatch, sources, "other") != before
    assert of(monkeypatch, sources | {"own.unused": "x = 2"}, "other") != of(monkeypatch, sources, "other")


def test_classes_of_arguments_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also inside lists, partials and objects: a stage may call what its module never names."""
    from fastencode.delayed import Delayed

    code, real = Code(), provenance._source
    inside: list[object] = [None, {"x": partial(print, Holder(Delayed(())))}]
    plainly, with_delayed = code.of(digest), code.of(digest, inside)
    assert plainly != with_delayed == code.of(partial(digest, inside))
    monkeypatch.setattr(provenance, "_source", lambda name: real(name) + ("\nNEW = 1" if name == "fastencode.delayed" else ""))
    assert Code().of(digest) == plainly and Code().of(digest, inside) != with_delayed


def test_classes_of_its_own_module_count_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage that gets a record of its own module is not made again for all else that is there."""
    sources = {"own.stages": "import own.figures\ndef stage(folder, record): ...\nclass Record: ...\ndef draw(): own.figures.x\n"}
    sources |= {"own.figures": "x = 1"}
    record = type("Record", (), {"__module__": "own.stages"})()
    before = of(monkeypatch, sources, arguments=[record])
    assert before != of(monkeypatch, sources)
    assert before == of(monkeypatch, sources | {"own.figures": "x = 2"}, arguments=[record])
    other = {"own.stages": sources["own.stages"].replace("class Record: ...", "class Record:\n    x = 1")}
    assert before != of(monkeypatch, sources | other, arguments=[record])


@dataclass
class Holder:
    inside: object


Holder.__module__ = "fastencode.files"  # one of ours that holds another


def test_settings_are_plain_or_refused() -> None:
    assert plain({"a": (1, 2.5, None, True), "b": Path("x/y"), "c": np.float32(0.5), "d": {3, 1}, 4: Holder("x")}) == {
        "a": [1, 2.5, None, True],
        "b": "x/y",
        "c": 0.5,
        "d": [1, 3],
        "4": {"inside": "x"},
    }
    rows = np.arange(6.0).reshape(2, 3)
    assert digest(rows) == digest(np.asfortranarray(rows)) == digest(rows.copy())
    others = [rows.T, rows.ravel(), rows.astype("f4"), rows + 1, np.arange(6).reshape(2, 3)]
    assert len({digest(value) for value in (rows, *others)}) == 6
    for wrong in (object(), len, np.array([None]), 1j, np.longdouble(1)):
        with pytest.raises(TypeError, match="settings hold a"):
            plain([wrong])
        assert plain([wrong], shown=True) in ([str(wrong)], [[None]])
    kinds = {"rows": rows, "bad": [np.float64("nan"), -np.inf], "names": {"b", "a", "c"}}
    assert plain(kinds, shown=True) == {"rows": [[0, 1, 2], [3, 4, 5]], "bad": [None, None], "names": ["a", "b", "c"]}
    exact = plain(kinds)
    assert exact["rows"]["shape"] == [2, 3] and np.isnan(exact["bad"][0]) and exact["names"] == ["a", "b", "c"]


def test_contents_are_read_once_until_they_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    real = provenance.sha256
    monkeypatch.setattr(provenance, "sha256", lambda path: (read.append(path), real(path))[1])
    file, known = tmp_path / "x", tmp_path / "known.json"
    file.write_text("contents")
    contents = Contents(known)
    first = contents.sha256(file)
    assert first == contents.sha256(file) and len(read) == 2, "what changed this moment may change again unseen"
    now = time.time_ns() + 10**10
    monkeypatch.setattr(provenance.time, "time_ns", lambda: now)
    assert contents.sha256(file) == first == contents.sha256(file) and len(read) == 3
    contents.save()
    assert Contents(known).sha256(file) == first and len(read) == 3
    times = (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    file.write_text("conTents")
    os.utime(file, ns=times)  # as long and as old as before: the system's own note of a change tells
    assert Contents(known).sha256(file) != first and len(read) == 4
    known.write_text("damaged")
    assert Contents(known).sha256(file) != first and len(read) == 5
    with pytest.raises(InputError, match="does not exist"):
        contents.sha256(tmp_path / "nothing")
