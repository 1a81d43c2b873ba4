"""Measure fastencode beside what a user could run instead.

    python bench/run.py CASE [CASE ...] --against himalaya sklearn      one or more of the cases, or "all"
    python bench/run.py disk [--gigabytes 20]                           responses on disk, larger than the memory allowed
    python bench/run.py plan-regret                                     every strategy of every case, forced
    python bench/run.py accuracy                                        float32, float64 and "fast" against float64 by hand

Writes bench/results/<case>.json. Contestants that do not find the same thing stop the run before anything is timed.
"""

from __future__ import annotations

import argparse
import os
from functools import partial
from pathlib import Path

import cases
import measure
import session

OTHERS = ("disk", "plan-regret", "accuracy")


def arguments() -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [*cases.CASES, "all", *OTHERS]
    parser.add_argument("case", nargs="+", choices=known, metavar="CASE", help=", ".join(known))
    parser.add_argument("--against", nargs="*", default=[], choices=cases.BOTH, help="peers; a case runs those that can run it")
    parser.add_argument("--points", nargs="+", help="only these points of a case that has several, such as alphas-10")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="threads of every contestant (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="timed turns, after the first fit (%(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where we compute; with cuda himalaya does too")
    parser.add_argument("--precision", choices=("exact", "fast"), default="exact", help="ours (%(default)s)")
    parser.add_argument("--scale", type=float, default=1.0, help="every size times this: a smoke run, not a measurement")
    parser.add_argument("--full", action="store_true", help="full size even where the peers are expected to need too long")
    parser.add_argument("--limit", type=float, default=1200.0, help="seconds for each contestant, all its fits (%(default)g)")
    parser.add_argument("--out", type=Path, help="file for the results; one case only")
    parser.add_argument("--tmp", type=Path, help="folder for data while it is in use (the system's)")
    parser.add_argument("--gigabytes", type=float, default=20.0, help="disk: size of Y (%(default)g), times --scale")
    parser.add_argument("--format", choices=("hdf5", "memmap"), default="hdf5", help="disk: how Y is stored (%(default)s)")
    parser.add_argument("--memory", default="300MB", help="disk: memory= of ridge_cv (%(default)s)")
    options = parser.parse_args()
    if options.out and (len(options.case) > 1 or options.case == ["all"]):
        parser.error("--out is for one case")
    if options.repeats < 1 or options.threads < 1 or not options.scale > 0:
        parser.error("--repeats, --threads and --scale are positive")
    return options


def results_file(name: str, options: argparse.Namespace) -> Path:
    """Where the results of a case go. Only the plain measurement gets the plain name."""
    if options.out:
        return Path(options.out)
    marks = {
        "cuda": options.device == "cuda",
        "fast": options.precision == "fast",
        f"{options.threads}-threads": options.threads != (os.cpu_count() or 1),
        f"scale-{options.scale:g}": options.scale != 1,
    }
    return session.RESULTS / ("-".join([name, *(mark for mark, applies in marks.items() if applies)]) + ".json")


def main() -> None:
    options = arguments()
    say = partial(print, flush=True)
    names = list(cases.CASES) if "all" in options.case else options.case
    for name in names:
        results = {"case": name, **session.surroundings(options.threads), "device": options.device}
        results["limit_seconds"] = options.limit
        if name in OTHERS:
            if name == "disk":
                from disk import run
            elif name == "accuracy":
                from accuracy import run
            else:
                from regret import run
            results |= run(options, say)
        else:
            results["points"] = []
            for point in cases.CASES[name]:
                if options.points is None or point.name in options.points:
                    results["points"].append(measure.measure(point, options, say))
                    session.write(results, results_file(name, options))  # after every point: the next may take an hour
            say("")
            for point in results["points"]:
                say(measure.table(point))
        path = results_file(name, options)
        session.write(results, path)
        say(f"written: {path}")


if __name__ == "__main__":
    main()
