"""Labels that stand for no speech, in transcripts and among phones: what reads transcripts and what makes features of labels share."""

from __future__ import annotations

__all__ = ["NON_SPEECH", "SILENT"]

NON_SPEECH = frozenset({"", "sp", "sil", "br", "lg", "ls", "ns", "cg", "sentence_start", "sentence_end"})
"""Labels of silence, breath, laughter, lip smack and noise, lower case and without braces."""

SILENT = NON_SPEECH | {"pau", "epi", "h#"}
"""Labels without articulation, lower case and without braces: those of TextGrids and TIMIT's pauses."""
