"""The tiled projection and loss beside ``torch.nn.Linear`` with the plain loss, by turns: time, and memory beyond the arguments.

    python bench/train_loss.py [--cases NAME ...] [--threads 2] [--repeats 9] [--no-compile]

One step is the forward and backward pass to the pooled states, the weights and the bias; in "…, step" cases AdamW's update of
the head too. *fastencode* is ``voxel_loss``, *plain* what users write, *compiled* that through ``torch.compile``. Each runs in a
process of its own on the same data; the order changes from turn to turn. Losses must agree. Writes results/train_loss.json:

- ``wall``, ``cpu``: seconds of the timed turns. ``times_plain``: the median over turns of its seconds by those of *plain* in the
  same turn; ``cpu_times_plain`` is that of the processor's time, which counts less of what else runs on the machine.
- ``extra_bytes``: the largest resident memory of a step, looked at every millisecond in a turn that is not timed, less that
  before. ``beyond_gradients_bytes``: less the gradients of weights and bias, which both must return. Small blocks that a warm-up
  step left with the allocator are in both numbers; in a fresh process the largest case has 3 MB beyond its gradients.
- ``must_move_bytes``: what a step in float32 has to move if caches hold one tile and no more. Tiled: weights and responses
  read, gradients written. Plain: weights read twice, gradients written, predictions written once and read twice by the loss and
  its gradient, responses read twice, the gradient by predictions written once and read three times. AdamW: gradients read,
  weights and both moments read and written; in the walk weights are read once for both, and the gradient never moves.
- ``share_of_multiplication``, ``share_of_memory``: operations per second as a share of the best rate of a square product in this
  run; bytes that must move per second as a share of the best rate of ``a += b`` in this run.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import threading
import time
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import session
import torch
import torch.multiprocessing as multiprocessing
from torch import nn

from fastencode.tune.head_step import HeadStep
from fastencode.tune.loss import voxel_loss

OURS, PLAIN, COMPILED = "fastencode", "plain", "compiled"


@dataclass(frozen=True)
class Case:
    """A batch of b rows, d wide, and v voxels."""

    b: int
    d: int
    v: int
    kind: str = "mse"
    half: bool = False  # pooled is bfloat16, as under autocast; weights are float32
    step: bool = False

    def bytes(self, how: str) -> int:
        weights, predictions = 4 * self.v * self.d, 4 * self.b * self.v
        if how == OURS:
            walks = 2 if self.kind == "spatial_r" else 1
            return walks * (weights + predictions) + (5 * weights if self.step else weights)
        return 3 * weights + 8 * predictions + (7 * weights if self.step else 0)


CASES = {
    "128 rows, 500 000 voxels": Case(128, 768, 500_000),
    "16 rows, 40 000 voxels": Case(16, 768, 40_000),
    "4 rows, 40 000 voxels": Case(4, 768, 40_000),
    "4 rows, bfloat16": Case(4, 768, 40_000, half=True),
    "128 rows, 40 000 voxels": Case(128, 768, 40_000),
    "16 rows, spatial_r": Case(16, 768, 40_000, "spatial_r"),
    "16 rows, temporal_r": Case(16, 768, 40_000, "temporal_r"),
    "16 rows, step": Case(16, 768, 40_000, step=True),
    "4 rows, step": Case(4, 768, 40_000, step=True),
    "128 rows, step": Case(128, 768, 40_000, step=True),
}


def plain(pooled: Any, weight: Any, bias: Any, responses: Any, kind: str, half: bool) -> Any:
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        predicted = nn.functional.linear(pooled, weight, bias)
    predicted = predicted.float()
    if kind == "mse":
        return nn.functional.mse_loss(predicted, responses)
    axis = 1 if kind == "spatial_r" else 0
    p, y = (one - one.mean(dim=axis, keepdim=True) for one in (predicted, responses))
    return (1 - nn.functional.cosine_similarity(p, y, dim=axis)).mean()


def contestant(pipe: Connection, how: str, case: Case, data: list[torch.Tensor], threads: int) -> None:
    """Answer every message with what a step took; "memory" samples its memory too."""
    torch.set_num_threads(threads)
    given, responses = [one.detach().clone() if case.step else one.detach() for one in data[:3]], data[3]
    for one in given:
        one.requires_grad_()
    if how == OURS:
        more: dict[str, Any] = {"step": HeadStep(given[1:], lr=1e-4)} if case.step else {}
        loss_of = partial(voxel_loss, kind=case.kind, **more)  # type: ignore[arg-type]
        optimizer = None
    else:
        loss_of = partial(torch.compile(plain) if how == COMPILED else plain, kind=case.kind, half=case.half)
        optimizer = torch.optim.AdamW(given[1:], lr=1e-4, fused=True) if case.step else None
    for one in data:
        one.sum()  # its pages are in the memory of this process from now on
    while do := pipe.recv():
        before, stop, peak = _resident(), threading.Event(), [0]
        watcher = threading.Thread(target=_watch, args=(stop, peak))
        if do == "memory":
            watcher.start()
        wall, cpu = time.perf_counter(), time.process_time()
        loss = loss_of(*given, responses)
        loss.backward()
        if optimizer is not None:
            optimizer.step()
        took = time.perf_counter() - wall, time.process_time() - cpu
        if do == "memory":
            stop.set()
            watcher.join()
        for one in given:
            one.grad = None
        pipe.send((*took, max(0, peak[0] - before), float(loss.detach())))
        del loss


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()


def _watch(stop: threading.Event, peak: list[int]) -> None:
    while not stop.wait(0.001):
        peak[0] = max(peak[0], _resident())


def measure(case: Case, names: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """All contestants by turns."""
    make = torch.Generator().manual_seed(0)
    sizes = ((case.b, case.d), (case.v, case.d), (case.v,), (case.b, case.v))
    data = [torch.empty(size).normal_(generator=make) for size in sizes]
    data[1] /= case.d**0.5
    data[0] = data[0].bfloat16() if case.half else data[0]
    for one in data:
        one.share_memory_()
    context, pipes, processes = multiprocessing.get_context("spawn"), {}, []
    for name in names:
        pipes[name], there = context.Pipe()
        processes.append(context.Process(target=contestant, args=(there, name, case, data, options.threads)))
        processes[-1].start()
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in names}
    for turn in range(options.repeats + 2):  # one warms up, one looks at memory
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            pipes[name].send("memory" if turn == 1 else "step")
            found[name].append(pipes[name].recv())
    for pipe, process in zip(pipes.values(), processes, strict=True):
        pipe.send("")
        process.join()
    return summary(case, found, options)


def summary(case: Case, found: dict[str, list[tuple[float, ...]]], options: argparse.Namespace) -> dict[str, Any]:
    operations = (8 if case.kind == "spatial_r" else 6) * case.b * case.d * case.v
    rows: dict[str, Any] = {"case": asdict(case), "operations": 6 * case.b * case.d * case.v, "contestants": {}}
    losses = [turns[0][3] for turns in found.values()]
    if max(losses) - min(losses) > (1e-2 if case.half else 1e-5) * abs(losses[0]):
        raise SystemExit(f"the losses differ: {dict(zip(found, losses, strict=True))}")
    for name, turns in found.items():
        timed, beside = turns[2:], found[PLAIN][2:]
        wall, cpu = [one[0] for one in timed], [one[1] for one in timed]
        seconds, done = statistics.median(wall), operations if name == OURS else rows["operations"]
        rows["contestants"][name] = {
            "wall": session.spread(wall),
            "cpu": session.spread(cpu),
            "times_plain": statistics.median(one[0] / other[0] for one, other in zip(timed, beside, strict=True)),
            "cpu_times_plain": statistics.median(one[1] / other[1] for one, other in zip(timed, beside, strict=True)),
            "extra_bytes": turns[1][2],
            "beyond_gradients_bytes": turns[1][2] - (0 if case.step and name == OURS else 4 * case.v * (case.d + 1)),
            "must_move_bytes": case.bytes(name),
            "share_of_multiplication": done / seconds / options.rates["multiplication"],
            "share_of_memory": case.bytes(name) / seconds / options.rates["memory"],
            "loss": turns[0][3],
        }
    ours, other = rows["contestants"][OURS], rows["contestants"][PLAIN]
    rows["beyond_gradients_by_extra_of_plain"] = ours["beyond_gradients_bytes"] / other["extra_bytes"]
    return rows


def rates(threads: int) -> dict[str, float]:
    """Operations per second of a square float32 product, bytes per second of ``a += b``: the best of several."""
    torch.set_num_threads(threads)
    a, x, y = torch.randn(2048, 2048), torch.randn(2**25), torch.randn(2**25)
    best = {"multiplication": 0.0, "memory": 0.0}
    for _ in range(15):
        for name, amount, run in (
            ("multiplication", 2 * 2048**3, lambda: torch.mm(a, a)),
            ("memory", 12 * 2**25, lambda: torch.add(x, y, out=x)),
        ):
            began = time.perf_counter()
            run()
            best[name] = max(best[name], amount / (time.perf_counter() - began))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES, metavar="NAME", help=", ".join(CASES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9, help="timed turns (%(default)s)")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--out", type=Path, default=session.RESULTS / "train_loss.json")
    options = parser.parse_args()
    options.rates = rates(options.threads)
    results: dict[str, Any] = {
        "case": "train_loss",
        **session.surroundings(options.threads),
        "rates": options.rates,
        "points": {},
    }
    for name in options.cases:
        names = [OURS, PLAIN, *([] if options.no_compile else [COMPILED])]
        again = rates(options.threads)
        options.rates.update({what: max(rate, options.rates[what]) for what, rate in again.items()})
        results["points"][name] = point = measure(CASES[name], names, options)
        session.write(results, options.out)
        print(f"{name}: beyond gradients {point['beyond_gradients_by_extra_of_plain']:.1%} of all that plain needs", flush=True)
        for who, one in point["contestants"].items():
            times = f"{one['wall']['median']:.3f} s, {one['times_plain']:.3f} x plain ({one['cpu_times_plain']:.3f} of its cpu)"
            shares = f"{one['share_of_multiplication']:.0%} of the rate of products, {one['share_of_memory']:.0%} of memory's"
            print(f"  {who:10s} {times}, {one['extra_bytes'] / 1e6:.0f} MB more, {shares}", flush=True)
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
