"""The settings of ``fastencode-tune probe``. Imports nothing slow."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path

from fastencode.errors import InputError
from fastencode.runs.config import ProbeConfig

__all__ = ["ProbeRunConfig"]


@dataclass(frozen=True, kw_only=True)
class ProbeRunConfig(ProbeConfig):
    """What the layers of speech models know: linear probes of TIMIT, Speech Commands or any corpus, on its official test split.

    Attributes
    ----------
    corpus : Path
        Folder of TIMIT or of Speech Commands, or a manifest of any other corpus (CSV, TSV or JSON lines), with the columns audio,
        split, labels and, where it is known, speaker.
    features : tuple of Path
        Folders that ``fastencode-tune features --read.input utterance`` filled from this corpus, one for each model, identified
        by its folder's name.
    tasks : tuple of str
        mfcc, word, phonemes, phones (of features with --read.pool bins), sentence_type, sx_si; label:KIND for any label or column
        of a manifest, several labels with semicolons between them; number:KIND for numbers.
    out : Path
        Output folder. What is finished in it is reused: one probe of all layers for each task and model. The tables hold all that
        is finished with these settings.
    kind : {"auto", "timit", "commands", "manifest", "folder"}
        What the corpus is; auto: by what lies in it.
    words : tuple of str
        Of Speech Commands: these words only; all by default.
    jobs : int
        Probes that are fitted at the same time, each with its share of the processors.
    device : str, optional
        Where ridges are fitted, for mfcc and number:KIND, such as "cuda"; the CPU by default. All others are fitted there.
    dry_run : bool
        Only check everything and print what would be fitted. Nothing is made or written.
    reuse : bool
        Keep finished probes even if the code that makes them has changed. Other settings, labels or features still make them
        again.
    """

    corpus: Path
    features: tuple[Path, ...]
    tasks: tuple[str, ...]
    out: Path = Path("probe-output")
    kind: str = "auto"
    words: tuple[str, ...] = ()
    jobs: int = 1
    device: str | None = None
    dry_run: bool = False
    reuse: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, what in (("features", "folder of features"), ("tasks", "task")):
            if not getattr(self, name):
                raise InputError(f"{name} is empty: give at least one {what}")
        for name in ("features", "tasks", "words", "allow"):
            given = getattr(self, name)
            if twice := sorted({str(item) for item in given if given.count(item) > 1}):
                raise InputError(f"{name} names {twice[0]} more than once: name each once")
        names = [Path(os.path.abspath(folder)).name for folder in self.features]
        if len(set(names)) < len(names):
            shared = next(folder for folder in names if names.count(folder) > 1)
            raise InputError(f"two feature folders share the name {shared!r}; folder names identify models, so rename one")
        if self.jobs < 1:
            raise InputError(f"jobs={self.jobs}: give at least 1")

    def probing(self) -> ProbeConfig:
        """How probes are fitted, without corpus and folders."""
        return ProbeConfig(**{field.name: getattr(self, field.name) for field in fields(ProbeConfig)})
