"""Whether there is memory for what a fit returns, before planning, with advice on what would fit (docs/solver.md, 6)."""

from __future__ import annotations

from fastencode.errors import InputError
from fastencode.limits import available_memory

__all__ = ["check_room"]


def check_room(rows: int, features: int, voxels: int, penalties: int, itemsize: int, weights: str | None, options: bool) -> None:
    """Raise ``InputError`` if the results of a fit do not fit in the memory that is free.

    Parameters
    ----------
    rows, features, voxels, penalties : int
    itemsize : int
        Bytes of a value.
    weights : {"primal", "dual", None}
        What the fit keeps: (features, voxels) weights, (rows, voxels) dual weights, or none.
    options : bool
        Whether the caller takes ``weights``, so that others may be advised.
    """
    free = available_memory()
    scores = itemsize * penalties * voxels
    sizes = {"primal": itemsize * features * voxels, "dual": itemsize * rows * voxels, None: 0}
    if free is None or sizes[weights] + scores <= free:
        return
    fitting = [name for name, size in sizes.items() if options and size < sizes[weights] and size + scores <= free]
    shown = {"dual": f"weights='dual' ({_size(sizes['dual'])}, of rows)", None: "weights=None (scores and penalties only)"}
    advice = [shown[name] for name in fitting if name in shown]
    per_voxel = (sizes[weights] + scores) // voxels
    fewer = int(0.9 * free / per_voxel)
    advice.append(f"at most {fewer} voxels at a time" if fewer else "fewer features")
    kind = {"primal": f"weights of {features} features", "dual": f"dual weights of {rows} rows", None: "scores"}[weights]
    raise InputError(
        f"{kind} for {voxels} voxels and scores of {penalties} penalties take {_size(sizes[weights] + scores)}, and "
        f"{_size(free)} of memory are free; pass {', or '.join(advice)}"
    )


def _size(count: int) -> str:
    """Bytes as text."""
    return f"{count / 1e9:.3g} GB" if count >= 1e8 else f"{count / 1e6:.3g} MB"
