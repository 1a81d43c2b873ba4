"""The tiled projection and loss beside ``nn.Linear`` with the plain loss, by turns: time, and memory beyond the arguments.

    python bench/train_loss.py [--shapes 128x768x500000 16x768x40000] [--kinds mse] [--threads 2] [--repeats 5] [--compile]

One step is the forward and backward pass to the pooled states, the weights and the bias. Each contestant runs in a process of its
own; its peak is the largest resident memory of a step less that before it. Bytes that a step must move: weights read twice, their
gradients written once, responses read once. Writes results/train_loss.json.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import session


def step(how: str, kind: str) -> Any:
    """A function of (pooled, weight, bias, responses) that makes one step and returns the loss."""
    import torch
    from torch import nn

    from fastencode.tune.loss import voxel_loss

    def ours(pooled: Any, weight: Any, bias: Any, responses: Any) -> Any:
        return voxel_loss(pooled, weight, bias, responses, kind=kind)

    def plain(pooled: Any, weight: Any, bias: Any, responses: Any) -> Any:
        predicted = nn.functional.linear(pooled, weight, bias)
        if kind == "mse":
            return nn.functional.mse_loss(predicted, responses)
        axis = 1 if kind == "spatial_r" else 0
        p, y = (one - one.mean(dim=axis, keepdim=True) for one in (predicted, responses))
        return (1 - nn.functional.cosine_similarity(p, y, dim=axis)).mean()

    made = {"ours": ours, "plain": plain}[how.removeprefix("compiled ")]
    return torch.compile(made) if how.startswith("compiled") else made


def contestant(pipe: Connection, how: str, kind: str, shape: tuple[int, int, int], threads: int) -> None:
    """Answer every message with (seconds, bytes, loss) of a step."""
    import torch

    torch.set_num_threads(threads)
    (b, d, v), make = shape, torch.Generator().manual_seed(0)
    pooled, weight = (torch.randn(*size, generator=make).requires_grad_() for size in ((b, d), (v, d)))
    bias, responses, run = torch.zeros(v, requires_grad=True), torch.randn(b, v, generator=make), step(how, kind)
    with torch.no_grad():
        weight /= d**0.5
    while pipe.recv():
        pooled.grad = weight.grad = bias.grad = None
        before, began = _resident(), time.perf_counter()
        loss = run(pooled, weight, bias, responses)
        loss.backward()
        pipe.send((time.perf_counter() - began, max(0, _peak() - before), float(loss.detach())))


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()


def _peak() -> int:
    """The largest resident memory so far: a later step's is known only if it exceeds all before, so the first one counts."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(shape: tuple[int, int, int], kind: str, names: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """All contestants by turns."""
    context, pipes, found = get_context("spawn"), {}, {name: [] for name in names}
    processes = []
    for name in names:
        here, there = context.Pipe()
        processes.append(context.Process(target=contestant, args=(there, name, kind, shape, options.threads)))
        processes[-1].start()
        there.close()
        pipes[name] = here
    for turn in range(options.repeats + 1):
        for name in names:
            pipes[name].send(True)
            seconds, peak, loss = pipes[name].recv()
            found[name].append((seconds, peak, loss))
            print(f"  turn {turn}: {name:14s} {seconds:8.3f} s  loss {loss:.6f}", flush=True)
    for pipe, process in zip(pipes.values(), processes, strict=True):
        pipe.send(False)
        process.join()
    b, d, v = shape
    plain = statistics.median(one[0] for one in found["plain"][1:])
    rows: dict[str, Any] = {"shape": shape, "kind": kind, "bytes": 4 * (3 * v * d + b * v), "operations": 6 * b * d * v}
    rows["prediction_bytes"], rows["gradient_bytes"] = 4 * b * v, 4 * v * d
    for name, turns in found.items():
        seconds = [one[0] for one in turns[1:]]
        rows[name] = {
            "seconds": session.spread(seconds),
            "times_plain": statistics.median(seconds) / plain,
            "gflops": rows["operations"] / statistics.median(seconds) / 1e9,
            "gigabytes_per_second": rows["bytes"] / statistics.median(seconds) / 1e9,
            "peak_bytes": turns[0][1],
            "loss": turns[0][2],
        }
    losses = [rows[name]["loss"] for name in names]
    if max(losses) - min(losses) > 1e-4 * abs(losses[0]):
        raise SystemExit(f"the losses differ: {dict(zip(names, losses, strict=True))}")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=["128x768x500000", "16x768x40000"], help="batch x width x voxels")
    parser.add_argument("--kinds", nargs="+", default=["mse", "temporal_r", "spatial_r"], help="losses (%(default)s)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="torch.compile of the plain form too")
    parser.add_argument("--out", type=Path, default=session.RESULTS / "train_loss.json")
    options = parser.parse_args()
    names, rows = ["ours", "plain", *(["compiled plain"] if options.compile else [])], []
    for text in options.shapes:
        shape = tuple(map(int, text.split("x")))
        for kind in options.kinds:
            print(f"{text}, {kind}", flush=True)
            rows.append(measure(shape, kind, names, options))  # type: ignore[arg-type]
            for name in names:
                one = rows[-1][name]
                seconds, peak = one["seconds"]["median"], one["peak_bytes"] / 1e6
                print(f"  {name:14s} {seconds:8.3f} s  {one['times_plain']:.3f} x plain  {peak:8.1f} MB")
    session.write({**session.surroundings(options.threads), "rows": rows}, options.out)
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
