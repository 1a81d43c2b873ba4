"""Series whose autocorrelation is known."""

from __future__ import annotations

import numpy as np
import scipy.signal


def autoregressive(rng, n, n_voxels, rho):
    """Series of variance 1 with autocorrelation rho^k at lag k."""
    noise = np.sqrt(1 - rho**2) * rng.standard_normal((n + 200, n_voxels))
    return scipy.signal.lfilter([1.0], [1.0, -rho], noise, axis=0)[200:]
