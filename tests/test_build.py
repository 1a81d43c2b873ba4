"""The package as others get it: sdist → wheel → an installation that is not the checkout, with and without a compiler.

Nothing is downloaded: the build runs without isolation, on the setuptools, Cython and NumPy of this environment.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path

import pytest

from house import CORE_LIBRARIES

ROOT = Path(__file__).resolve().parents[1]
# What the caller's environment must not decide here.
SWITCHES = (
    *("FASTENCODE_NO_EXT", "FASTENCODE_REQUIRE_EXT", "FASTENCODE_NATIVE", "CC", "CXX", "PYTHONPATH"),
    *("PIP_CONSTRAINT", "PIP_BUILD_CONSTRAINT", "PIP_REQUIREMENT", "PIP_TARGET", "PIP_USER"),
)
# setuptools runs this in the folder of the project; no other tool stands between.
HOOK = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"
NO_COMPILER = {"CC": "no-such-compiler", "CXX": "no-such-compiler"}

USE = """
import warnings
import numpy as np
import fastencode
from fastencode.kernels import cpu, cuda_source, lost
assert TARGET in fastencode.__file__, fastencode.__file__
y = np.arange(12.0).reshape(4, 3)
mean = cpu("moments")(y, y[None] + 1.0)[:2]
np.testing.assert_allclose(mean, [y.mean(0), y.mean(0) + 1])
assert all("__global__" in cuda_source(op) for op in ("moments", "lanczos", "hrf"))
print("lost:", lost("moments"))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always", fastencode.FastencodeWarning)
    X = np.random.default_rng(0).standard_normal((40, 3))
    for _ in range(2):
        fit = fastencode.ridge_cv(X, X[:, :2])
        assert fit.best_score.min() > 0.9
for warning in caught:
    if issubclass(warning.category, fastencode.FastencodeWarning) and "slower" in str(warning.message):
        print("warned:", warning.message)
"""


def run(*command: str | Path, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in SWITCHES} | variables
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)


def succeed(*command: str | Path, cwd: Path, **variables: str) -> str:
    done = run(*command, cwd=cwd, **variables)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def wheel_command(source: Path, into: Path) -> list[str | Path]:
    return [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--no-index", "-w", into, source]


def make_wheel(source: Path, into: Path, **variables: str) -> Path:
    succeed(*wheel_command(source, into), cwd=into.parent, **variables)
    (wheel,) = into.glob("fastencode_neuro-*.whl")
    return wheel


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def compiled(contents: set[str]) -> list[str]:
    return sorted(name for name in contents if name.endswith((".so", ".pyd", ".dylib")))


def use(wheel: Path, folder: Path, **variables: str) -> str:
    """Install a wheel into a folder of its own and run USE there, out of sight of the checkout.

    ``-S`` keeps the import hook of the editable installation away, which would find in the checkout what the wheel lacks.
    """
    target = folder / "installed"
    libraries = sorted({str(Path(find_spec(name).origin).parents[1]) for name in CORE_LIBRARIES})
    succeed(sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", target, wheel, cwd=folder)
    script = f"import sys; TARGET = {str(target)!r}; sys.path += {[str(target), *libraries]!r}\n" + USE
    return succeed(sys.executable, "-S", "-c", script, cwd=folder, **variables)


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source distribution, made from a copy of the tracked kind of files so that the checkout stays as it is."""
    copy = tmp_path_factory.mktemp("copy") / "fastencode"
    leave = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "results", "*-output")
    shutil.copytree(ROOT, copy, ignore=leave)
    (copy / "kernels" / "planted.so").touch()
    out = tmp_path_factory.mktemp("sdist")
    succeed(sys.executable, "-c", HOOK, "build_sdist", out, cwd=copy)
    (archive,) = out.glob("fastencode_neuro-*.tar.gz")
    return archive


@pytest.fixture(scope="module")
def unpacked(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    (tree,) = folder.iterdir()
    return tree


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that a machine with a compiler builds: compiled once for this file."""
    return make_wheel(sdist, tmp_path_factory.mktemp("wheel") / "out", FASTENCODE_REQUIRE_EXT="1")


def package_files() -> set[str]:
    """Every file that an installation must have, by its path there: all modules, and the data that is in the checkout."""
    found = set()
    for prefix, folder in (("fastencode", ROOT / "src" / "fastencode"), ("fastencode/kernels", ROOT / "kernels")):
        for pattern in ("**/*.py", "py.typed", "speech/small/*", "study/*.html*", "*.cu", "*.cuh"):
            found |= {f"{prefix}/{path.relative_to(folder).as_posix()}" for path in folder.glob(pattern)}
    return found


def test_sdist_has_the_sources_and_nothing_built(unpacked: Path) -> None:
    documents = ("LICENSE", "Makefile", "constraints.txt", "docs/solver.md")
    for name in (*documents, "setup.py", "tests/test_build.py", "src/fastencode/py.typed"):
        assert (unpacked / name).is_file(), name
    assert {p.name for p in (ROOT / "kernels").glob("*.pyx")} == {p.name for p in (unpacked / "kernels").glob("*.pyx")} != set()
    assert [p for p in unpacked.rglob("*") if p.suffix in (".so", ".cpp", ".pyc")] == []


def test_wheel_has_every_module_kernel_and_data_file(wheel: Path) -> None:
    contents = names(wheel)
    wanted = package_files()
    assert {"fastencode/py.typed", "fastencode/kernels/moments.cu", "fastencode/kernels/moments.cuh"} <= wanted
    assert sorted(wanted - contents) == []
    libraries = {Path(name).name.split(".")[0] for name in compiled(contents)}
    assert libraries == {path.stem for path in (ROOT / "kernels").glob("*.pyx")}
    strangers = [name for name in contents if not name.startswith(("fastencode/", "fastencode_neuro-"))]
    assert strangers == []


def test_installed_wheel_works_compiled(wheel: Path, tmp_path: Path) -> None:
    said = use(wheel, tmp_path, FASTENCODE_REQUIRE_EXT="1")
    assert "lost: None" in said
    assert "warned:" not in said


def test_without_extension_on_request(sdist: Path, tmp_path: Path) -> None:
    wheel = make_wheel(sdist, tmp_path / "out", FASTENCODE_NO_EXT="1")
    assert compiled(names(wheel)) == []
    assert sorted(package_files() - names(wheel)) == []
    assert wheel.name.endswith("-none-any.whl")
    said = use(wheel, tmp_path)
    assert re.search(r"lost: .*moments.*slower", said), said
    assert said.count("warned:") == 1, said
    with pytest.raises(AssertionError, match="FASTENCODE_REQUIRE_EXT demands it"):
        use(wheel, tmp_path, FASTENCODE_REQUIRE_EXT="1")


def test_without_compiler(unpacked: Path, tmp_path: Path) -> None:
    wheel = make_wheel(unpacked, tmp_path / "out", **NO_COMPILER)
    assert compiled(names(wheel)) == []
    assert sorted(package_files() - names(wheel)) == []


def test_editable_without_compiler_drops_what_an_earlier_build_left(unpacked: Path, tmp_path: Path) -> None:
    leftover = unpacked / "kernels" / f"moments{EXTENSION_SUFFIXES[0]}"
    leftover.touch()
    succeed(sys.executable, "-c", HOOK, "build_editable", tmp_path, cwd=unpacked, **NO_COMPILER)
    assert len(list(tmp_path.glob("fastencode_neuro-*editable*.whl"))) == 1
    assert not leftover.exists()


def test_required_extension_without_compiler_is_an_error(unpacked: Path, tmp_path: Path) -> None:
    failed = run(*wheel_command(unpacked, tmp_path / "out"), cwd=tmp_path, FASTENCODE_REQUIRE_EXT="1", **NO_COMPILER)
    assert failed.returncode != 0
    said = failed.stdout + failed.stderr
    assert "FASTENCODE_REQUIRE_EXT is set, but fastencode.kernels.moments could not be compiled" in said
    assert "Install a C++ compiler" in said
    assert list(tmp_path.glob("out/*.whl")) == []


def test_contradicting_switches(unpacked: Path, tmp_path: Path) -> None:
    failed = run(*wheel_command(unpacked, tmp_path), cwd=tmp_path, FASTENCODE_REQUIRE_EXT="1", FASTENCODE_NO_EXT="1")
    assert failed.returncode != 0
    assert "contradict" in failed.stdout + failed.stderr
