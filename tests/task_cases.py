"""What tests of probes share: trees shaped as TIMIT and Speech Commands, in which every sound is another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastencode.data.recordings import Recording

PHONE_TONES = {"sh": 2600.0, "iy": 500.0, "aa": 900.0, "m": 250.0, "s": 3500.0, "ae": 1300.0}
SHARED = {"SA1": ("sh", "iy", "m", "aa"), "SA2": ("ae", "s", "iy", "sh")}
RATE = 16000


@dataclass(frozen=True)
class Listed:
    """A corpus, as far as tasks look at one."""

    name: str
    kind: str
    recordings: Mapping[str, Recording]


def spoken(phones: Sequence[str], seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Phones as tones, one after another, in a little noise."""
    time = np.arange(round(seconds * RATE)) / RATE
    parts = [0.4 * np.sin(2 * np.pi * PHONE_TONES[phone] * rng.uniform(0.97, 1.03) * time) for phone in phones]
    sound = np.concatenate(parts)
    return sound + 0.01 * rng.standard_normal(len(sound))


def timit_like(root: Path, *, speakers: Mapping[str, int] | None = None, seed: int = 0, seconds: float = 0.1) -> Path:
    """A tree of TIMIT with two SA, two SI and three SX sentences for each speaker; SI sentences hold more phones.

    SX texts are read by several speakers of one split, SI texts by one. Silence (h#) stands at both ends of each.
    """
    import soundfile

    rng = np.random.default_rng(seed)
    names = list(PHONE_TONES)
    number = 0
    for split, count in (speakers or {"TRAIN": 6, "TEST": 3}).items():
        base = 0 if split == "TRAIN" else 200
        texts = {f"SX{base + k}": tuple(rng.choice(names, 3, replace=False)) for k in range(3)}
        for k in range(count):
            folder = root / split / f"DR{k % 2 + 1}" / f"{'FM'[k % 2]}{split[:2]}{chr(65 + k)}0"
            folder.mkdir(parents=True)
            number += 2
            own = {f"SI{500 + number + n}": tuple(rng.choice(names, 5)) for n in range(2)}
            for sentence, phones in {**SHARED, **own, **texts}.items():
                silence = 0.01 * rng.standard_normal(round(seconds * RATE))
                sound = np.concatenate([silence, spoken(phones, seconds, rng), silence])
                soundfile.write(folder / f"{sentence}.WAV", sound, RATE, format="NIST", subtype="PCM_16")
                step = round(seconds * RATE)
                labels = ["h#", *phones, "h#"]
                lines = [f"{n * step} {(n + 1) * step} {label}\n" for n, label in enumerate(labels)]
                (folder / f"{sentence}.PHN").write_text("".join(lines))
                (folder / f"{sentence}.WRD").write_text(f"{step} {2 * step} {phones[0]}a\n{2 * step} {4 * step} {phones[1]}b\n")
                (folder / f"{sentence}.TXT").write_text(f"0 {len(labels) * step} {sentence} says {' '.join(phones)}.\n")
    return root


def commands_like(root: Path, *, speakers: Sequence[int] = (6, 2, 3), seed: int = 0) -> Path:
    """A tree of Speech Commands: three words, spoken by so many speakers of train, validation and test."""
    import soundfile

    rng = np.random.default_rng(seed)
    words = {"yes": ("sh", "iy"), "no": ("m", "aa"), "tree": ("s", "ae")}
    lists: dict[str, list[str]] = {"validation": [], "testing": [], "train": []}
    for split, count in zip(("train", "validation", "testing"), speakers, strict=True):
        for _ in range(count):
            speaker = f"{rng.integers(16**8):08x}"
            for word, phones in words.items():
                (root / word).mkdir(parents=True, exist_ok=True)
                for k in range(2):
                    name = f"{word}/{speaker}_nohash_{k}.wav"
                    soundfile.write(root / name, spoken(phones, 0.1, rng), RATE, subtype="PCM_16")
                    lists[split].append(name)
    for split in ("validation", "testing"):
        (root / f"{split}_list.txt").write_text("".join(f"{name}\n" for name in lists[split]))
    return root


def listed(recordings: Sequence[Recording], root: Path, kind: str) -> Listed:
    """Recordings as a corpus, keyed by their paths below its folder, without suffix."""
    keys = [one.path.relative_to(root).with_suffix("").as_posix() for one in recordings]
    return Listed(root.name, kind, dict(zip(keys, recordings, strict=True)))
