"""What the README shows is what happens."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fastencode.data.rois import BRAIN_TUNING_SETS
from reader_cases import COMMANDS, commands_tree, timit_tree, tone, write_gifti, write_nifti

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_example_prints_what_is_shown() -> None:
    code, shown = re.search(r"```python\n(.*?)```\n\n```\n(.*?)```", README, re.DOTALL).groups()
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == shown


def test_what_it_links_to_is_here() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links and [link for link in links if "://" not in link and not (ROOT / link).exists()] == []


def test_its_commands_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"\bmake (\w+)", README)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_readers_it_shows_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nibabel", reason="images need the extra 'neuro'")
    soundfile = pytest.importorskip("soundfile", reason="sounds need the extra 'tune'")
    monkeypatch.chdir(tmp_path)
    soundfile.write("a.wav", tone(), 16000)
    Path("emotions.csv").write_text("audio,emotion,speaker,split\na.wav,joy,s1,test\n")
    commands_tree(Path("speech_commands_v0.02"))
    timit_tree(Path("TIMIT"))
    Path("rois").mkdir()
    inside = np.random.default_rng(0).random((4, 5, 6)) < 0.5
    write_nifti(Path("mask.nii.gz"), inside.astype(np.uint8))
    write_nifti(Path("rois", "V1.nii.gz"), (np.arange(120).reshape(4, 5, 6) > 60).astype(np.uint8))
    areas = sorted({area for members in BRAIN_TUNING_SETS.values() for area in members})
    for side in "LR":
        names = {0: "???", **{k: f"{side}_{area}_ROI" for k, area in enumerate(areas, 1)}}
        write_gifti(Path(f"{side}.glasser.label.gii"), np.arange(len(areas) + 1, dtype=np.int32), names=names)
    blocks = [block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "fastencode.data" in block]
    scope: dict = {"scores": np.arange(inside.sum(), dtype=float)}
    for block in blocks:
        exec(block, scope)
    assert len(blocks) == 2
    assert scope["recordings"][0].labels == {"emotion": "joy"}
    assert len(scope["words"]) == sum(map(len, COMMANDS.values())) and len(scope["timit"]) == 20
    assert list(scope["rois"]) == ["V1"] and len(scope["language"]["AG"]) == 2 * 5
    assert Path("scores.nii.gz").exists()
