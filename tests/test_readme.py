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
# Python blocks, each with the output that is shown under it, or none.
BLOCKS = re.findall(r"```python\n(.*?)```\n(?:\n```\n(.*?)```\n)?", README, re.DOTALL)
VOXELS = 1000  # of the README's Y, so of its mask too


def files(folder: Path) -> None:
    """What a reader would have: the files that the blocks name."""
    soundfile = pytest.importorskip("soundfile", reason="sounds need the extra 'tune'")
    soundfile.write(folder / "a.wav", tone(), 16000)
    (folder / "emotions.csv").write_text("audio,emotion,speaker,split\na.wav,joy,s1,test\n")
    commands_tree(folder / "speech_commands_v0.02")
    timit_tree(folder / "TIMIT")
    (folder / "rois").mkdir()
    inside = np.random.default_rng(0).permutation(12 * 10 * 10).reshape(12, 10, 10) < VOXELS
    write_nifti(folder / "mask.nii.gz", inside.astype(np.uint8))
    write_nifti(folder / "rois" / "V1.nii.gz", (np.arange(inside.size).reshape(inside.shape) > 600).astype(np.uint8))
    areas = sorted({area for members in BRAIN_TUNING_SETS.values() for area in members})
    for side in "LR":
        names = {0: "???", **{k: f"{side}_{area}_ROI" for k, area in enumerate(areas, 1)}}
        write_gifti(folder / f"{side}.glasser.label.gii", np.arange(len(areas) + 1, dtype=np.int32), names=names)


CHECKS = f"""
assert parts.unique.shape == (2, {VOXELS}) and parts.shared.shape == ({VOXELS},) and fit.gammas.shape == (2, {VOXELS})
assert recordings[0].labels == {{"emotion": "joy"}} and articulation.shape == (4, 25)
assert len(words) == {sum(map(len, COMMANDS.values()))} and len(timit) == 20
assert list(rois) == ["V1"] and len(language["AG"]) == 2 * 5
"""


def test_its_blocks_run_in_order_and_print_what_is_shown(tmp_path: Path) -> None:
    """All in one interpreter, as one would type them in; a warning that the page does not show is an error."""
    for library in ("nibabel", "sklearn"):
        pytest.importorskip(library, reason=f"{library} is not installed")
    files(tmp_path)
    script = tmp_path / "readme.py"
    script.write_text("".join(code for code, _ in BLOCKS) + CHECKS, encoding="utf-8")
    ran = subprocess.run([sys.executable, "-W", "error::UserWarning", script.name], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "".join(shown for _, shown in BLOCKS) and ran.stderr == ""
    assert len(BLOCKS) == README.count("```python") >= 8 and sum(bool(shown) for _, shown in BLOCKS) == 1
    assert (tmp_path / "scores.nii.gz").exists()


def test_its_options_exist(capsys: pytest.CaptureFixture[str]) -> None:
    from fastencode.cli import main

    shown = {}
    for command in ("align", "features", "train", "diagnose", "doctor", "probe", "run"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        shown[command] = capsys.readouterr().out.replace("_", "-")
    lines = re.findall(r"^fastencode-tune (\w+) (.*)$", README, re.MULTILINE)
    named = [(command, option) for command, rest in lines for option in re.findall(r"--[\w.-]+", rest)]
    named += [("align", option) for option in re.findall(r"^\| `(--[\w-]+)", README, re.MULTILINE)]
    assert len(named) >= 14 and [one for one in named if one[1] not in shown[one[0]]] == []


def test_what_it_links_to_is_here() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links and [link for link in links if "://" not in link and not (ROOT / link).exists()] == []


def test_its_commands_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"\bmake (\w+)", README)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
