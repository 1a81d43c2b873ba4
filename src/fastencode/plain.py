"""Values as JSON has them: exactly, for what a result depends on, or as they are shown to people."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["plain"]


def plain(value: Any, *, shown: bool = False) -> Any:
    """A value as JSON writes it: dataclasses as mappings, sets sorted, paths as text, NumPy's numbers as Python's.

    What a result depends on is written exactly, what is shown so that people and other programs can read it. Three kinds differ:

    - Of an array, a digest with dtype and shape decides; its values are shown, as a list.
    - NaN and the infinities decide as they are; JSON has none, so null is shown.
    - Any other kind is an error where it would decide: its text may be alike for two values, or differ from run to run. A page is
      not to fail for it, and shows that text.

    Raises
    ------
    TypeError
        If it is, or holds, anything else, and is not to be shown.
    """
    if isinstance(value, float) and shown and not math.isfinite(value):
        return None
    if isinstance(value, np.generic) and not isinstance(value.item(), np.generic):  # Python has none for a longdouble
        return plain(value.item(), shown=shown)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name), shown=shown) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): plain(item, shown=shown) for name, item in value.items()}
    if isinstance(value, list | tuple | range):
        return [plain(item, shown=shown) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((plain(item, shown=shown) for item in value), key=json.dumps)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.ndarray) and shown:
        return plain(value.tolist(), shown=True)
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        total = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        return {"array": total, "dtype": value.dtype.str, "shape": list(value.shape)}
    if shown:
        return str(value)
    raise TypeError(
        f"settings hold a {type(value).__name__}: give numbers, text, arrays, dataclasses, or lists or mappings of them"
    )
