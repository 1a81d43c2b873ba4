"""What checks of data find: where, what was seen, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fastencode.errors import warn

__all__ = ["Finding", "halves", "warn_of"]


@dataclass(frozen=True)
class Finding:
    """One fault of a data set; ``str()`` of it is a line for people."""

    kind: str
    """What sort of fault: "unusable" of a run that is left out, "doubt" of one that is not; of responses "zero", "constant", "not
    finite", "spike", "outlier", "copy", "equal repeats", "shifted" and "not the mean"; of transcripts "word times" and "exchanged
    tiers"."""
    where: str
    """Whose, and which run: ``"P1, story01"``."""
    evidence: str
    """What was seen, with numbers."""
    remedy: str
    """What to do."""

    def __str__(self) -> str:
        return f"{self.where}: {self.evidence}; {self.remedy}"


def halves(message: str) -> tuple[str, str]:
    """What is wrong, and what to do, of a message that says both."""
    for mark in (": ", "; "):
        what, _, remedy = message.rpartition(mark)
        if what and " " in remedy:
            return what, remedy
    return message, "mend it"


def warn_of(findings: Iterable[Finding]) -> None:
    """A :class:`fastencode.errors.FastencodeWarning` for each."""
    for finding in findings:
        warn(str(finding))
