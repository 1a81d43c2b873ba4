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
    """Probe what the layers of speech models encode: linear maps to labels of TIMIT, Speech Commands or any other corpus.

    Attributes
    ----------
    corpus : Path
        Folder of TIMIT or of Speech Commands, or a manifest of any other corpus: CSV, TSV or JSON lines with the columns audio,
        split, one for each label, and optionally speaker.
    features : tuple of Path
        Folders that ``fastencode-tune features --read.input utterance`` wrote for this corpus, one for each model. The folder's
        name is the name of the model.
    tasks : tuple of str
        mfcc, word, phonemes, phones (needs features with --read.pool bins), sentence_type, sx_si; label:KIND for any label or
        column of a manifest, in which semicolons separate several labels; number:KIND for numeric labels.
    out : Path
        Output folder. Finished probes in it are reused. The tables contain all finished probes with these settings.
    kind : {"auto", "timit", "commands", "manifest", "folder"}
        Format of the corpus; auto: detected from its files.
    words : tuple of str
        Words of Speech Commands to use. Default: all.
    jobs : int
        Number of processes; each fits one probe at a time.
    device : str, optional
        Device of ridge regressions, which mfcc and number:KIND use, such as "cuda". Default: CPU. Classifiers run on the CPU.
    dry_run : bool
        Only check everything and print what would be fitted.
    reuse : bool
        Reuse finished probes even if the code of fastencode has changed. Probes with other settings, labels or features are
        still fitted again.
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
        """The settings of fits and scores, without corpus and folders."""
        return ProbeConfig(**{field.name: getattr(self, field.name) for field in fields(ProbeConfig)})
