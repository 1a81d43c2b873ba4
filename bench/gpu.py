"""Everything that needs an NVIDIA card, in one call: what is there, the tests that skip without one, the measurements.

    python bench/gpu.py                             with what is installed
    python bench/gpu.py --install gpu-cuda12x       first: pip install -e '.[test,bench,gpu-cuda12x]' (or gpu-cuda13x)
    python bench/gpu.py --install here              first: pip install -e . without its dependencies (a machine without network)
    python bench/gpu.py --scale 0.1                 a smoke run of the measurements
    python bench/gpu.py --tests-only

A failing test stops it before anything is measured; ``--measure-anyway`` goes on. Ends with the paths of the results.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = ("tests/test_gpu.py", "tests/test_kernels.py")
LOOK = """
import sys
from fastencode.devices import find_device
from fastencode.solve.score.device_moments import moments_by
seen = 0
for library in ("cupy", "torch"):
    try:
        device = find_device("cuda", library)
        if device.library == library:
            print(f"{device.describe()}, moments: {moments_by(device)}")
            seen += 1
    except Exception as error:
        print(f"{library}: {error}")
sys.exit(not seen)
"""


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--install", choices=("gpu-cuda12x", "gpu-cuda13x", "here"), help="install the checkout first")
    parser.add_argument("--tests-only", action="store_true", help="measure nothing")
    parser.add_argument("--measure-anyway", action="store_true", help="even where a test failed")
    parser.add_argument("--cases", nargs="+", default=["himalaya", "huth"], help="of bench/run.py (%(default)s)")
    parser.add_argument("--scale", type=float, default=1.0, help="of bench/run.py (%(default)g)")
    parser.add_argument("--repeats", type=int, default=3, help="of bench/run.py (%(default)s)")
    parser.add_argument("--precision", choices=("exact", "fast"), default="exact", help="of bench/run.py (%(default)s)")
    parser.add_argument("--folder", type=Path, help="for the results, instead of bench/results")
    return parser.parse_args()


def run(what: str, *command: str) -> bool:
    """Run a command in the checkout, its output shown; whether it succeeded."""
    print(f"== {what}: {' '.join(command).partition(chr(10))[0]}", flush=True)
    began = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, check=False)
    print(f"== {what}: {'done' if done.returncode == 0 else f'FAILED ({done.returncode})'}, {time.perf_counter() - began:.1f} s")
    return done.returncode == 0


def install(which: str) -> bool:
    """The checkout, editable, with or without what it needs."""
    if which == "here":
        return run("install", sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "-e", ".")
    return run("install", sys.executable, "-m", "pip", "install", "-q", "-e", f".[test,bench,{which}]")


def measure(options: argparse.Namespace) -> bool:
    """Each case by itself, beside himalaya where that is installed; prints where the numbers went."""
    peers = ["--against", "himalaya"] if find_spec("himalaya") else []
    if not peers:
        print("== himalaya is not installed: measured without it (--install gpu-cuda12x brings it)")
    given = ["--device", "cuda", "--precision", options.precision]
    given += ["--scale", str(options.scale), "--repeats", str(options.repeats)]
    good, written = True, []
    for case in options.cases:
        out = []
        if options.folder is not None:
            options.folder.mkdir(parents=True, exist_ok=True)
            written.append(options.folder.resolve() / f"{case}-cuda.json")
            out = ["--out", str(written[-1])]
        good = run(f"measure {case}", sys.executable, "bench/run.py", case, *given, *peers, *out) and good
    found = [path for path in written if path.exists()] or sorted((ROOT / "bench" / "results").glob("*cuda*.json"))
    print("\n".join(["== results:", *(f"   {path}" for path in found)]))
    return good


def main() -> int:
    options = arguments()
    if options.install and not install(options.install):
        return 1
    if not run("devices", sys.executable, "-c", LOOK):
        print("== no CUDA device can be used: nothing was tested or measured")
        return 1
    tested = run("tests", sys.executable, "-m", "pytest", "-q", *TESTS)
    if options.tests_only or not (tested or options.measure_anyway):
        return int(not tested)
    return int(not (measure(options) and tested))


if __name__ == "__main__":
    sys.exit(main())
