"""fastencode: fast brain encoding models, and brain-tuning for speech models.

The public names are imported on first use (PEP 562), so that ``import fastencode`` stays cheap and loads no optional library.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

_HOME_OF = {
    "BandedFit": "solve.banded_fit",
    "BandedRidgeCV": "estimators.ridge",
    "Delay": "estimators.timing",
    "Detrend": "estimators.timing",
    "FastencodeError": "errors",
    "FastencodeWarning": "errors",
    "HRFConvolve": "estimators.timing",
    "InputError": "errors",
    "LanczosResample": "estimators.timing",
    "LanczosStream": "timing.lanczos",
    "RidgeCV": "estimators.ridge",
    "RidgeFit": "solve.ridge_fit",
    "RidgePlan": "solve.ridge_plan",
    "ZScore": "estimators.timing",
    "articulatory": "speech.labels",
    "banded_ridge_cv": "solve.banded",
    "chunk_bootstrap": "solve.given.folds",
    "delay": "timing.delays",
    "event_rate": "speech.labels",
    "hrf_convolve": "timing.hrf",
    "hrf_kernel": "timing.hrf",
    "lanczos": "timing.lanczos",
    "leave_one_run_out": "solve.given.folds",
    "mfcc": "speech.acoustics",
    "noise_ceiling": "study.brains.ceilings",
    "partition_variance": "solve.partition",
    "pearson": "solve.score.moments",
    "plan_ridge": "solve.ridge",
    "r2": "solve.score.moments",
    "ridge_cv": "solve.ridge",
    "sound_power": "speech.acoustics",
}

# Where the library is missing, asking for the name says which extra brings it; `import *` and help() must not trip over that.
_NEEDS = {name: "sklearn" for name, home in _HOME_OF.items() if home.startswith("estimators.")}

__all__ = ["__version__", *sorted(name for name in _HOME_OF if name not in _NEEDS or find_spec(_NEEDS[name]))]

try:
    __version__ = version("fastencode-neuro")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
