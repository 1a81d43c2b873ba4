"""Labels that stand for no speech, in transcripts and among phones: shared by readers of transcripts and features of labels."""

from __future__ import annotations

__all__ = ["NON_SPEECH", "SILENT"]

NON_SPEECH = frozenset({"", "sp", "sil", "br", "lg", "ls", "ns", "cg", "sentence_start", "sentence_end"})
"""Labels of silence, breath, laughter, lip smack and noise, lower case and without braces."""

SILENT = NON_SPEECH | {"pau", "epi", "h#"}
"""Labels without articulation, lower case and without braces: those of TextGrids and TIMIT's pauses."""
