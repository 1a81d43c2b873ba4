"""Layer features of a speech model against the machine's own matrix products, a loop over single windows, and float32.

    python bench/speech.py [--size base|large] [--windows 8] [--batch 1 2 4 8] [--repeats 3]

The model has random weights (speed does not depend on them); how near bfloat16 comes is said for the shipped, trained model too.
Equality first: every row of a batch against the window alone. Then by turns, medians. Writes bench/results/speech.json.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import session
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from fastencode.speech.audio import write_audio
from fastencode.speech.config import ReadConfig
from fastencode.speech.extract import extract_features
from fastencode.speech.layers import SMALL_MODEL, SpeechEncoder
from fastencode.speech.store import read_features
from fastencode.speech.windows import find_windows

RATE = 16000
SIZES = {
    "base": {},
    "large": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "do_stable_layer_norm": True,
        "feat_extract_norm": "layer",
        "conv_bias": True,
    },
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="base")
    parser.add_argument("--windows", type=int, default=8, help="whole windows to read (%(default)s)")
    parser.add_argument("--context", type=float, default=16.0, help="seconds of past in a window, besides 0.1 (%(default)s)")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=session.RESULTS / "speech.json")
    return parser.parse_args()


def saved(folder: Path, size: str) -> Path:
    """wav2vec2 of a published size with random weights, as users have it."""
    torch.manual_seed(0)
    transformers.Wav2Vec2Model(transformers.Wav2Vec2Config(**SIZES[size])).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return folder


def matrix_rate(dtype: torch.dtype, device: str, side: int = 2048, seconds: float = 0.5) -> float:
    """Operations per second of square products, the best of several."""
    a = torch.randn(side, side, dtype=dtype, device=device)
    best, began = 0.0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        start = time.perf_counter()
        a @ a
        if a.is_cuda:
            torch.cuda.synchronize()
        best = max(best, 2 * side**3 / (time.perf_counter() - start))
    return best


def operations(encoder: SpeechEncoder, samples: int) -> float:
    """Multiplications and additions of one window: convolutions, linear maps and attention, as torch counts them.

    With gradients on, the convolutions are transformers' own: none is counted twice where ours overlap.
    """
    clip = torch.zeros(1, samples, device=encoder.device)
    with FlopCounterMode(display=False) as counter:
        encoder.layers(encoder.cnn(clip))
    return float(counter.get_total_flops())


@cache
def loaded(folder: Path) -> tuple[Any, Any]:
    """The model and its feature extractor as transformers has them."""
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    return model, transformers.AutoFeatureExtractor.from_pretrained(folder)


def one_by_one(folder: Path, audio: np.ndarray, stops: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """As published codes do it: transformers' extractor and whole model, one window at a time, (windows, layers, width)."""
    model, extractor = loaded(folder)
    rows = []
    with torch.inference_mode():
        for start, stop in zip(starts, stops, strict=True):
            inputs = extractor(audio[start:stop], sampling_rate=RATE, return_tensors="pt")
            rows.append(torch.stack([layer[0, -1] for layer in model(**inputs, output_hidden_states=True).hidden_states]).numpy())
    return np.stack(rows)


def by_turns(contestants: dict[str, Callable[[], Any]], repeats: int) -> dict[str, Any]:
    """Median seconds of each, after one turn that warms up."""
    spent: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(repeats + 1):
        for name, run in contestants.items():
            began = time.perf_counter()
            run()
            if turn:
                spent[name].append(time.perf_counter() - began)
    return {name: session.spread(values) for name, values in spent.items()}


def nearness(full: np.ndarray, other: np.ndarray) -> list[float]:
    """Correlation of every layer over windows and width."""
    return [float(np.corrcoef(full[:, i].ravel(), other[:, i].ravel())[0, 1]) for i in range(full.shape[1])]


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    results: dict[str, Any] = {"case": "speech", **session.surroundings(options.threads), "size": options.size}
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="fastencode-bench-") as name:
        root = Path(name)
        model = saved(root / "model", options.size)
        whole = round((options.context + 0.1) * RATE)
        config = ReadConfig("window", context=options.context, stride=0.1)
        audio = 0.1 * rng.standard_normal(whole + (options.windows - 1) * round(0.1 * RATE)).clip(-5, 5).astype(np.float32)
        write_audio(root / "sound.wav", audio, RATE)
        windows = find_windows(len(audio), RATE, config)
        rows = np.arange(len(windows.times))[-options.windows :]
        encoders = {dtype: SpeechEncoder(model, dtype=dtype, device=options.device) for dtype in ("float32", "bfloat16")}
        audio = audio.astype(np.float32)
        reads = {
            f"{dtype}, batch {batch}": read_all(encoder, audio, config, rows, batch)
            for dtype, encoder in encoders.items()
            for batch in options.batch
        }
        alone = one_by_one(model, audio, windows.stops[rows], windows.starts[rows])
        for label, read in reads.items():
            found = read()
            if label.startswith("float32"):
                np.testing.assert_allclose(found, alone, rtol=0, atol=2e-4 * np.abs(alone).max())
        full, half = (reads[f"{dtype}, batch {options.batch[-1]}"]() for dtype in encoders)
        results["bfloat16_correlation_of_layers"] = {
            "random weights": nearness(full, half),
            "shipped model": shipped(audio, config, rows),
        }
        loop = {"one window at a time": lambda: one_by_one(model, audio, windows.stops[rows], windows.starts[rows])}
        rates = {dtype: [] for dtype in encoders}
        for dtype in rates:
            rates[dtype].append(matrix_rate(getattr(torch, dtype), options.device))
        results["seconds"] = by_turns({**loop, **reads}, options.repeats)
        for dtype in rates:
            rates[dtype].append(matrix_rate(getattr(torch, dtype), options.device))
        results["matrix_rate"] = {dtype: max(values) for dtype, values in rates.items()}
        # Counted last: what it allocates and gives back would stay in reach of the contestants, who then need no new memory.
        results["operations_per_window"] = operations(encoders["float32"], whole)
        done = results["operations_per_window"] * options.windows
        results["share_of_matrix_rate"] = {
            label: done / results["seconds"][label]["median"] / results["matrix_rate"][label.partition(",")[0]] for label in reads
        }
        results["file"] = end_to_end(root, encoders["float32"], config, options.batch[-1])
    session.write(results, options.out)
    for label, share in results["share_of_matrix_rate"].items():
        print(f"{label}: {results['seconds'][label]['median'] / options.windows:.3g} s a window, {share:.0%} of the matrix rate")
    print(f"one window at a time: {results['seconds']['one window at a time']['median'] / options.windows:.3g} s a window")
    print(f"from file to file: {results['file']}\nwritten: {options.out}")


def read_all(
    encoder: SpeechEncoder, audio: np.ndarray, config: ReadConfig, rows: np.ndarray, batch: int
) -> Callable[[], np.ndarray]:
    """A function that reads the rows in batches, as extraction does without the disk."""
    from fastencode.speech.extract import _heard, _kept_layers

    windows = find_windows(len(audio), encoder.sample_rate, config)
    clips, kept = _heard(encoder, audio, windows), _kept_layers(encoder, config, "float32")
    length = int(windows.stops[rows[0]] - windows.starts[rows[0]])

    @torch.inference_mode()
    def run() -> np.ndarray:
        parts = [kept.of(clips(rows[i : i + batch]), length) for i in range(0, len(rows), batch)]
        return torch.cat(parts).cpu().numpy()

    return run


def shipped(audio: np.ndarray, config: ReadConfig, rows: np.ndarray) -> list[float]:
    full, half = (
        read_all(SpeechEncoder(SMALL_MODEL, dtype=dtype), audio, config, rows, len(rows))() for dtype in ("float32", "bfloat16")
    )
    return nearness(full, half)


def end_to_end(root: Path, encoder: SpeechEncoder, config: ReadConfig, batch: int) -> dict[str, Any]:
    """From a sound file to a file of features, beside the same batches without decoding and disk."""
    from fastencode.speech.audio import read_audio

    seconds = 4.0
    write_audio(root / "short.wav", read_audio(root / "sound.wav")[: round(seconds * RATE)], RATE)
    audio = read_audio(root / "short.wav")
    windows = find_windows(len(audio), RATE, config)
    bare = [read_all(encoder, audio, config, rows, batch) for rows in windows.batches(batch)]
    for read in bare[:1]:
        read()
    began = time.perf_counter()
    for read in bare:
        read()
    computing = time.perf_counter() - began
    began = time.perf_counter()
    extract_features({"short": root / "short.wav"}, encoder, root / "out", config, batch=batch, show_progress=False)
    whole = time.perf_counter() - began
    values = read_features(root / "out" / "short.h5").values
    return {"windows": len(values), "compute_seconds": computing, "whole_seconds": whole, "overhead": whole / computing - 1}


if __name__ == "__main__":
    main()
