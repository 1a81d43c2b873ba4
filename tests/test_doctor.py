"""What doctor tells of machines with something broken, each breakage made on purpose."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from fastencode.cli import main
from fastencode.runs import doctor
from fastencode.runs.doctor import Check, examine, report


def checks(found: list[Check], name: str) -> Check:
    (only,) = [check for check in found if check.name == name]
    return only


def torch_of(version: str, cuda: str | None, cards: int = 0) -> ModuleType:
    """A stand-in for torch that sees so many cards."""
    made = ModuleType("torch")
    made.__dict__["__version__"] = version
    made.__dict__["version"] = SimpleNamespace(cuda=cuda)
    made.__dict__["cuda"] = SimpleNamespace(
        is_available=lambda: cards > 0,
        device_count=lambda: cards,
        mem_get_info=lambda index: (70 * 10**9 if index == 0 else 10**9, 80 * 10**9),
        get_device_capability=lambda index: (9, 0) if index == 0 else (7, 5),
        get_device_name=lambda index: f"Card {index}",
    )
    return made


def test_the_whole_on_this_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is wrong where this suite runs, and versions are those that are installed."""
    found = examine(tmp_path)
    assert [check for check in found if check.verdict == "wrong" or "could not be checked" in check.found] == []
    assert checks(found, "numpy").found == importlib.metadata.version("numpy")
    assert {"python", "fastencode", "threads", "kernels", "disk for runs", "Numba's cache", "torchaudio"} <= {
        c.name for c in found
    }
    assert {"ok", "look", "wrong"} >= {check.verdict for check in found}
    assert all(bool(check.advice) == (check.verdict != "ok") for check in found)
    pytest.importorskip("jsonargparse")
    assert main(["doctor", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert said.endswith(", 0 wrong\n") and str(tmp_path) in said


def test_a_wrong_line_is_exit_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("jsonargparse")
    (tmp_path / "file").touch()
    assert main(["doctor", "--out", str(tmp_path / "file" / "run")]) == 1
    said = capsys.readouterr().out
    assert "cannot be written" in said and "→ choose another folder" in said and "1 wrong" in said


def test_libraries_that_are_missing_or_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever importing them raises, the others are told."""
    errors: dict[str, BaseException] = {"torch": OSError("libcudart.so.12: cannot open"), "peft": SystemExit("stop")}
    owners = {name: [name] for name in ("numpy", "scipy", "torch", "peft", "transformers")}
    monkeypatch.setattr(doctor, "packages_distributions", lambda: owners)
    monkeypatch.setattr(doctor, "version", lambda name: f"1.0-{name}")

    def broken(name: str) -> ModuleType:
        if name in errors:
            raise errors[name]
        return ModuleType(name)

    monkeypatch.setattr(doctor, "import_module", broken)
    modules: dict[str, Any] = {}
    found = list(doctor._libraries(modules))
    assert checks(found, "scipy") == Check("scipy", "ok", "1.0-scipy")
    torch = checks(found, "torch")
    assert torch.verdict == "wrong" and "cannot be imported (OSError: libcudart.so.12: cannot open)" in torch.found
    assert torch.advice == "pip install --force-reinstall torch" and checks(found, "peft").verdict == "wrong"
    assert checks(found, "numba").verdict == "wrong" and checks(found, "accelerate").verdict == "look"
    assert "[tune]" in checks(found, "accelerate").advice and checks(found, "cupy").verdict == "ok"
    assert [check.verdict for check in doctor._devices(modules)] == ["look"]


def test_torchaudio_beside_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def told(version: str, torch: ModuleType, error: Exception | None = None) -> Check:
        monkeypatch.setattr(doctor, "version", lambda name: version)
        monkeypatch.setattr(doctor, "_imported", lambda name: error or ModuleType(name))
        (check,) = doctor._torchaudio({"torch": torch})
        return check

    assert told("2.8.0+cpu", torch_of("2.8.0+cpu", None)).verdict == "ok"
    other = told("2.7.1", torch_of("2.8.0", "12.8"))
    assert other.verdict == "look" and "another version of torch" in other.found
    broken = told("2.8.0", torch_of("2.8.0+cpu", None), OSError("libcudart.so.12: cannot open"))
    assert broken.verdict == "wrong" and "pip uninstall torchaudio" in broken.advice
    assert "2.8.0 beside torch 2.8.0+cpu, a build without CUDA, cannot be imported" in broken.found


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    def told(torch: ModuleType, driver: bool) -> list[Check]:
        monkeypatch.setattr(shutil, "which", lambda name: "/bin/nvidia-smi" if driver else None)
        monkeypatch.setattr(doctor.Path, "exists", lambda path: driver)
        return list(doctor._devices({"torch": torch}))

    assert [check.verdict for check in told(torch_of("2.8.0+cpu", None), False)] == ["ok"]
    (idle,) = told(torch_of("2.8.0+cpu", None), True)
    assert idle.verdict == "look" and "install a CUDA build of torch" in idle.advice
    (hidden,) = told(torch_of("2.8.0", "12.8"), True)
    assert hidden.verdict == "look" and "CUDA_VISIBLE_DEVICES" in hidden.advice
    free, busy = told(torch_of("2.8.0", "12.8", cards=2), True)
    assert free == Check("cuda:0", "ok", "Card 0, 70.0 of 80.0 GB free, bfloat16")
    assert busy.verdict == "look" and "no bfloat16 of its own" in busy.found


def test_folders_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder below a file cannot be made, whoever asks."""
    (tmp_path / "file").touch()
    for variable in ("HF_HOME", "NUMBA_CACHE_DIR", "MPLCONFIGDIR"):
        monkeypatch.setenv(variable, str(tmp_path / "file" / "x"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    found = list(doctor._caches())
    assert [check.verdict for check in found] == ["look"] * 3
    for check, variable in zip(found, ("NUMBA_CACHE_DIR", "HF_HOME", "MPLCONFIGDIR"), strict=True):
        assert f"{tmp_path}/file/x" in check.found and f"set {variable}" in check.advice
        monkeypatch.setenv(variable, str(tmp_path / "new" / "folder"))
    assert [check.verdict for check in doctor._caches()] == ["ok"] * 3 and not (tmp_path / "new").exists()


def test_little_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    for free, verdict in ((5 * 10**8, "wrong"), (5 * 10**9, "look"), (10**11, "ok")):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: usage(10**12, 0, free))
        assert next(doctor._disk(tmp_path)).verdict == verdict


def test_more_threads_than_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert next(doctor._threads()).verdict == "ok"
    monkeypatch.setenv("OMP_NUM_THREADS", str(64 * (os.cpu_count() or 1)))
    (check,) = doctor._threads()
    assert check.verdict == "look" and "OMP_NUM_THREADS is more than there are" in check.advice


def test_kernels_that_were_not_compiled() -> None:
    """In processes of their own: a loaded extension stays."""
    code = "from fastencode.runs.doctor import _kernels; print(next(_kernels()))"
    for flags, verdict in (
        ({"FASTENCODE_NO_EXT": "1"}, "look"),
        ({"FASTENCODE_NO_EXT": "1", "FASTENCODE_REQUIRE_EXT": "1"}, "wrong"),
    ):
        env = {**os.environ, "FASTENCODE_REQUIRE_EXT": "", **flags}
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
        assert f"verdict='{verdict}'" in run.stdout and "FASTENCODE_NO_EXT is set" in run.stdout


def test_a_check_that_fails_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(modules: object) -> Any:
        raise RuntimeError("no such thing\nsecond line")
        yield

    monkeypatch.setattr(doctor, "_libraries", lambda modules: iter(()))
    monkeypatch.setattr(doctor, "_blas", fails)
    found = examine(tmp_path)
    assert checks(found, "BLAS").found == "could not be checked (RuntimeError: no such thing)"
    assert checks(found, "disk for runs").verdict in ("ok", "look")
    assert report([Check("a", "ok", "x"), Check("long", "look", "y", "do")]).splitlines() == [
        "ok     a     x",
        "look   long  y",
        "             → do",
        "",
        "1 ok, 1 look, 0 wrong",
    ]


def test_doctor_loads_no_library_before_it_asks_for_it() -> None:
    code = "import sys, fastencode.runs.doctor; print({'numpy', 'torch', 'tqdm'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
