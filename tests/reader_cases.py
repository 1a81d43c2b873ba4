"""Small data sets in the exact layouts of the real ones, written by the tests that read them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

SAMPLES = 8000  # half a second at 16 kHz
PHN = "0 1600 h#\n1600 2400 sh\n2400 3200 iy\n3200 4000 q\n4000 4800 ax-h\n4800 6000 dcl\n6000 6400 jh\n6400 7800 axr\n"
PHN += "7800 7900 h#\n"
WRD = "1600 3200 she\n3200 6400 had\n6000 7800 your\n"  # the last two share a phone, as in the corpus
TXT = "0 8000 She had your dark suit.\n"

TIMIT = {("TRAIN", "DR1"): ("FCJF0", "MDAC0"), ("TRAIN", "DR2"): ("MARC0",), ("TEST", "DR1"): ("MDAB0", "FAKS0")}
SENTENCES = ("SA1", "SI1411", "SX39", "SX129")


def tone(samples: int = SAMPLES, hertz: float = 300.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(samples) / 16000)


def timit_tree(root: Path, *, upper: bool = True, speakers: Mapping[tuple[str, str], tuple[str, ...]] = TIMIT) -> Path:
    """TIMIT as on its disc: sounds with a NIST SPHERE header, names in one case."""
    import soundfile

    case = str.upper if upper else str.lower
    for (split, region), names in speakers.items():
        for speaker in names:
            folder = root / case(split) / case(region) / case(speaker)
            folder.mkdir(parents=True)
            for sentence in SENTENCES:
                soundfile.write(folder / case(f"{sentence}.WAV"), tone(), 16000, format="NIST", subtype="PCM_16")
                for kind, text in (("PHN", PHN), ("WRD", WRD), ("TXT", TXT)):
                    (folder / case(f"{sentence}.{kind}")).write_text(text)
    return root


COMMANDS = {
    "yes": ("0a7c2a8d_nohash_0", "0a7c2a8d_nohash_1", "1b4c9b89_nohash_0", "ffd2ba2f_nohash_0"),
    "no": ("0a7c2a8d_nohash_0", "1b4c9b89_nohash_0", "1b4c9b89_nohash_1", "ffd2ba2f_nohash_0", "012c8314_nohash_0"),
    "tree": ("012c8314_nohash_0",),
}
LISTED = {"validation_list.txt": "1b4c9b89", "testing_list.txt": "ffd2ba2f"}


def commands_tree(root: Path) -> Path:
    """Speech Commands v0.02 as unpacked, the files beside the words included."""
    import soundfile

    for word, names in COMMANDS.items():
        (root / word).mkdir(parents=True)
        for name in names:
            soundfile.write(root / word / f"{name}.wav", tone(1600), 16000, subtype="PCM_16")
    for name, speaker in LISTED.items():
        lines = [f"{word}/{file}.wav" for word, files in COMMANDS.items() for file in files if file.startswith(speaker)]
        (root / name).write_text("".join(f"{line}\n" for line in lines))
    (root / "_background_noise_").mkdir()
    soundfile.write(root / "_background_noise_" / "running_tap.wav", tone(1600), 16000, subtype="PCM_16")
    for name in ("README.md", "LICENSE", ".DS_Store"):
        (root / name).write_text("…", encoding="utf-8")
    return root


def write_nifti(path: Path, data: np.ndarray, affine: np.ndarray | None = None) -> Path:
    import nibabel

    nibabel.Nifti1Image(data, np.diag([3.0, 3.0, 3.0, 1.0]) if affine is None else affine).to_filename(path)
    return path


def write_gifti(path: Path, *arrays: np.ndarray, names: Mapping[int, str] | None = None) -> Path:
    """Per-vertex data; with names, as labels."""
    import nibabel

    table = nibabel.gifti.GiftiLabelTable()
    for key, name in (names or {}).items():
        label = nibabel.gifti.GiftiLabel(key=key, red=0.5, green=0.5, blue=0.5, alpha=1.0)
        label.label = name
        table.labels.append(label)
    intent = "NIFTI_INTENT_LABEL" if names else "NIFTI_INTENT_SHAPE"
    darrays = [nibabel.gifti.GiftiDataArray(array, intent=intent) for array in arrays]
    nibabel.gifti.GiftiImage(darrays=darrays, labeltable=table).to_filename(path)
    return path
