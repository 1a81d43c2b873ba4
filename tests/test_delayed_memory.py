"""Peak resident memory of fits on delayed copies, made and not made, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak resident memory is read from /proc")

CODE = """
    import json
    import sys
    import numpy as np
    import fastencode

    n, widths, v, copy = json.loads(sys.argv[1])
    rng = np.random.default_rng(0)
    bands = [rng.standard_normal((n, width), dtype=np.float32) for width in widths]
    Y = rng.standard_normal((n, v), dtype=np.float32)
    copies = [fastencode.delay(band[:64, :3], range(8), copy=False) for band in bands]
    given = {"alphas": [1.0, 1e3], "cv": 4}

    def fit(parts, Y):
        if len(parts) == 1:
            return fastencode.ridge_cv(parts[0], Y, **given)
        return fastencode.banded_ridge_cv(dict(zip("ab", parts)), Y, n_iter=3, random_state=0, **given)

    def status(field):
        with open("/proc/self/status") as lines:
            return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field + ":"))

    fit(copies, Y[:64])  # what is imported and allocated once
    before = status("VmHWM")
    parts = [fastencode.delay(band, range(8), copy=copy) for band in bands]
    found = fit(parts, Y)
    found.score(parts[0] if len(parts) == 1 else parts, Y)
    print(json.dumps([status("VmHWM") - before, found.stats["strategy"], sum(8 * band.nbytes for band in bands)]))
"""


def peak(n, widths, v, copy):
    """(bytes at the peak beyond what there was before, strategy, bytes of all copies)."""
    code, argument = textwrap.dedent(CODE), json.dumps([n, widths, v, copy])
    command = [sys.executable, "-W", "ignore", "-c", code, argument]
    env = {**os.environ, "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}  # each thread has blocks of its own
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    return json.loads(done.stdout)


@pytest.mark.parametrize("widths", [[12000], [7000, 5000]], ids=["ridge", "banded"])
def test_in_the_dual_neither_copies_nor_a_map_as_large_are_held(widths):
    (less, found, copies), (more, wanted, _) = (peak(300, widths, 20, copy) for copy in (False, True))
    assert found == wanted == "dual" and copies == 115_200_000
    assert less < 0.6 * copies and more > copies + 0.4 * less
    assert len(widths) > 1 or more < 1.6 * copies, "beside the copies of a ridge there is nothing as large"


@pytest.mark.parametrize("widths", [[24], [7, 5]], ids=["ridge", "banded"])
def test_in_the_primal_copies_are_not_held(widths):
    (less, found, copies), (more, wanted, _) = (peak(30_000, widths, 20, copy) for copy in (False, True))
    assert found == wanted == "primal" and copies == 8 * 4 * 30_000 * sum(widths)
    assert more - less > 0.3 * copies
