"""Updates of the trainer against the straightforward loop: wav2vec2-base, whole-cortex heads, one participant and eight at once.

    python bench/train.py [--parts one half eight small] [--repeats 3] [--updates 3]

The loop is what anybody would write first: transformers' model, its frozen CNN under no_grad at every step, one participant,
nn.Linear, mse_loss, torch's AdamW as it comes. Ours is the trainer itself, from a data set on disk on, with the CNN's frames kept
from before (``frames_seconds`` says what they cost once). Weights are random: speed does not depend on them.

Equality first: losses of every update from the same first weights and the same batches. Then by turns: each turn is a process of
its own, its first update warms up, and the others count. Writes bench/results/train.json, of some parts train-PARTS.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import session
import torch
from train_worker import RATES, Tones

from fastencode.speech.config import ReadConfig
from fastencode.speech.extract import extract_frames
from fastencode.speech.layers import SMALL_MODEL, SpeechEncoder

PARTS = ("one", "half", "eight", "small")
NAIVE, EIGHT = "straightforward loop", "eight participants"
CLIP = ReadConfig("clip", tr=2.0, seconds=10.0, pool="mean")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--voxels", type=int, default=40_000)
    parser.add_argument("--people", type=int, default=8)
    parser.add_argument("--batch", type=int, default=4, help="clips of 10 s (%(default)s)")
    parser.add_argument("--updates", type=int, default=3, help="that count, in each turn (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each contestant (%(default)s)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--scale", type=float, default=1.0, help="below 1: the small model and a share of the voxels (smoke run)")
    parser.add_argument("--scratch", type=Path, help="where data and runs lie meanwhile: some gigabytes")
    parser.add_argument("--out", type=Path, help="bench/results/train.json, or train-PARTS.json, by default")
    options = parser.parse_args()
    parts = "" if options.parts == PARTS else "".join(f"-{part}" for part in options.parts)
    options.out = options.out or session.RESULTS / f"train{parts}.json"
    return options


def turn(folder: Path, kind: str, options: dict[str, Any]) -> dict[str, Any]:
    """One contestant's turn, in a process of its own."""
    threads = str(options["threads"])
    environment = {**os.environ, **{f"{library}_NUM_THREADS": threads for library in session.THREAD_VARIABLES}}
    worker = Path(__file__).with_name("train_worker.py")
    options = {**options, "run": f"run-{time.monotonic_ns()}"}
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, str(worker), str(folder), kind, json.dumps(options)], stdout=subprocess.PIPE, env=environment, text=True
    )
    subprocess.run(["rm", "-rf", str(folder / "runs" / options["run"])], check=True)
    if done.returncode:
        raise SystemExit(f"{kind} {options} ended with status {done.returncode}")
    return {**json.loads(done.stdout), "process_seconds": time.perf_counter() - began}


def prepare(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The model, the data set, and the frames of its CNN."""
    from speech import saved

    if options.scale < 1:
        SpeechEncoder(SMALL_MODEL).save(folder / "model")
    else:
        saved(folder / "model", "base")
    voxels, rows = max(1, round(options.voxels * options.scale)), options.batch * (options.updates + 4)
    story = made(folder, "data", {f"P{i}": voxels for i in range(1, options.people + 1)}, {"story": rows}, noise=1.0)
    began = time.perf_counter()
    encoder = SpeechEncoder(folder / "model")
    extract_frames({"story": story.sound_file("story")}, encoder, folder / "frames", CLIP, show_progress=False)
    return {"voxels": voxels, "rows": rows, "frames_seconds_per_clip": (time.perf_counter() - began) / (rows + 5)}


def made(folder: Path, name: str, people: dict[str, int], rows: dict[str, int], noise: float) -> Tones:
    data = Tones(folder / name, people, rows)
    data.make(noise)
    (folder / f"{name}.json").write_text(json.dumps({"people": people, "rows": rows}), encoding="utf-8")
    return data


def contestants(part: str, options: argparse.Namespace) -> dict[str, tuple[str, dict[str, Any]]]:
    """Name → kind and options."""
    common = {"data": "data", "batch": options.batch, "updates": options.updates + 1, "threads": options.threads}
    alone = {**common, "people": ["P1"]}
    if part == "one":
        return {NAIVE: ("naive", alone), "float32": ("ours", alone)}
    if part == "half":
        return {NAIVE: ("naive", alone), "bfloat16": ("ours", {**alone, "settings": {"precision": "bfloat16"}})}
    eight = {**common, "people": [f"P{i}" for i in range(1, options.people + 1)]}
    return {
        NAIVE: ("naive", alone),
        EIGHT: ("ours", eight),
        f"{EIGHT}, fused step": ("ours", {**eight, "settings": {"fused_head_step": True}}),
    }


def check_equal(folder: Path, part: str, turns: dict[str, list[dict[str, Any]]], options: argparse.Namespace) -> dict[str, float]:
    """The largest relative difference of a loss from the loop's; stops the run where it is above 1e-5 in float32.

    With one participant, of all updates. With several, the first of two of them: from the second on all share a model. In
    bfloat16 the difference is only said.
    """

    def losses(row: dict[str, Any]) -> list[float]:
        return [update["losses"]["P1"] for update in row["updates"]]

    found = {}
    if part != "eight":
        alone = losses(turns[NAIVE][0])
        for name, rows in turns.items():
            if name != NAIVE:
                apart = np.abs(np.array(losses(rows[0])) / alone - 1).max()
                found[name] = float(apart)
                if part == "one" and not apart < 1e-5:
                    raise SystemExit(f"{name}: losses {losses(rows[0])}, those of the loop are {alone}: nothing was timed")
        return found
    first = turns[EIGHT][0]["updates"][0]["losses"]
    _, of_naive = contestants("eight", options)[NAIVE]
    for who, loss in list(first.items())[:: max(1, len(first) - 1)]:
        alone = turn(folder, "naive", {**of_naive, "people": [who], "updates": 1})["updates"][0]["losses"][who]
        found[who] = abs(loss / alone - 1)
        if not found[who] < 1e-5:
            raise SystemExit(f"{who}: the first loss is {loss}, that of the loop {alone}: nothing was timed")
    return found


def by_turns(folder: Path, part: str, options: argparse.Namespace) -> dict[str, Any]:
    """Equality in the first turns, which are the warm-up of the machine; then A B C A B C."""
    if part == "half" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        options = argparse.Namespace(**{**vars(options), "updates": 1, "repeats": 1})  # minutes each, and no need of more
    competing = contestants(part, options)
    turns = {name: [turn(folder, *one)] for name, one in competing.items()}
    equal = check_equal(folder, part, turns, options)
    print(f"{part}: relative differences of losses {equal}", flush=True)
    for _ in range(options.repeats - 1):
        for name, one in competing.items():
            turns[name].append(turn(folder, *one))
            print(f"{name}: {seconds(turns[name][-1])} s", flush=True)
    rows = {name: summary(name, found, options) for name, found in turns.items()}
    for row in rows.values():
        row["times_the_loop"] = row["pairs_per_second"] / rows[NAIVE]["pairs_per_second"]
    return {"largest_relative_difference_of_losses": equal, "contestants": rows}


def seconds(row: dict[str, Any], clock: str = "end") -> list[float]:
    """From the end of one update to that of the next, with what lies between; by the clock ``cpu``, of all threads together."""
    ends = [update[clock] for update in row["updates"]]
    return [round(float(one), 3) for one in np.diff(ends)]


def summary(name: str, turns: list[dict[str, Any]], options: argparse.Namespace) -> dict[str, Any]:
    each = [one for row in turns for one in seconds(row)]
    waited = sum(row["updates"][-1]["waited"] - row["updates"][0]["waited"] for row in turns)
    people = options.people if EIGHT in name else 1
    return {
        "update_seconds": session.spread(each),
        "update_cpu_seconds": session.spread([one for row in turns for one in seconds(row, "cpu")]),
        "medians_of_turns": [float(np.median(seconds(row))) for row in turns],
        "pairs_per_second": options.batch * people / float(np.median(each)),
        "share_waiting_for_data": waited / sum(each),
        "peak_bytes": max(row["peak"] for row in turns),
    }


def small(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The shipped model on planted responses for 200 updates: the validation loss in bfloat16 beside float32."""
    made(folder, "planted", {"P1": 60}, {"story": 80, "watched": 40}, noise=1.0)
    common = {"data": "planted", "batch": 4, "epochs": 10 if options.scale == 1 else 1, "threads": options.threads}
    rows = {
        name: turn(folder, "whole run", {**common, "settings": {"precision": name, "clip_seconds": 4.0}})
        for name in ("float32", "bfloat16")
    }
    losses = {name: row["updates"][-1]["validation_loss"] for name, row in rows.items()}
    last = rows["float32"]["updates"][-1]
    return {
        "updates": last["updates"],
        "mean_loss": last["mean_loss"],
        "validation_loss": losses,
        "bfloat16_over_float32": losses["bfloat16"] / losses["float32"] - 1,
        "validation_losses": {name: [one["validation_loss"] for one in row["updates"]] for name, row in rows.items()},
    }


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    results: dict[str, Any] = {"case": "train", **session.surroundings(options.threads)}
    results["versions"]["transformers"] = version("transformers")
    results["settings"] = {"batch": options.batch, "people": options.people, "clip_seconds": 10.0, **RATES}
    with tempfile.TemporaryDirectory(prefix="fastencode-bench-", dir=options.scratch) as name:
        folder = Path(name)
        results["settings"] |= prepare(folder, options)
        results["bfloat16_products_in_hardware"] = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
        for part in options.parts:
            print(f"{part}, {time.strftime('%H:%M:%S')}", flush=True)
            results[part] = small(folder, options) if part == "small" else by_turns(folder, part, options)
            session.write(results, options.out)
            for label, row in results[part].get("contestants", {}).items():
                rate, waiting, memory = row["pairs_per_second"], row["share_waiting_for_data"], row["peak_bytes"] / 1e9
                print(f"{label}: {row['update_seconds']['median']:.3g} s an update,", end=" ")
                print(f"{row['update_cpu_seconds']['median']:.3g} s of processors, {rate:.3g} pairs/s,", end=" ")
                print(f"{row['times_the_loop']:.2f} x, waiting {waiting:.2%}, {memory:.2f} GB", flush=True)
        if "small" in options.parts:
            print(results["small"])
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
