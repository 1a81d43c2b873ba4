"""Small speech models from nothing, on synthetic stories: the Wav2Vec2 that ships with the package, one shaped as HuBERT is, and
one shaped as Whisper is.

All learn to predict clusters under span masks, as HuBERT does (Hsu et al. 2021). The Wav2Vec2 predicts clusters of MFCCs, the
first iteration of HuBERT; the HuBERT clusters of a hidden state of the shipped model, the second. The Whisper has Whisper's
spectrum, convolutions and encoder, but the Wav2Vec2's task: it learns no text, and its decoder learns nothing.

The audio is cut where the encoder's frames are, so that frame j of the encoder and frame j of what is predicted cover the same
samples.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fastencode.progress import progress
from fastencode.speech.acoustics import mfcc
from fastencode.speech.audio import resample
from fastencode.speech.layers import SMALL_MODEL, SpeechEncoder, unit_variance
from fastencode.tune.config import PretrainConfig
from fastencode.tune.masked import span_mask
from fastencode.tune.small_models import FIELD, LAYERS, RATE, STRIDE, WIDTH, SmallModel, small_model
from fastencode.world.espeak import SAMPLE_RATE
from fastencode.world.tales import VOICES, tell

__all__ = ["pretrain"]

_TAUGHT_BY = 4  # the hidden state of the shipped model whose clusters the HuBERT-shaped one predicts
_CHUNK = 30  # seconds that are read at once for that


@dataclass(frozen=True)
class _Corpus:
    """Stories as 16 kHz audio, with the cluster of every frame."""

    audio: list[np.ndarray]
    labels: list[np.ndarray]


def pretrain(config: PretrainConfig, folder: Path, *, show_progress: bool = True) -> None:
    """Make a small model from nothing and save it as a Hugging Face folder with a model card.

    Parameters
    ----------
    config : PretrainConfig
    folder : Path
        An existing folder; gets ``config.json``, ``preprocessor_config.json``, ``model.safetensors`` and ``README.md``. The
        weights depend on the seed, the machine and the number of threads.
    show_progress : bool
    """
    start = time.perf_counter()
    torch.manual_seed(config.seed)
    network = small_model(config.family, config.clusters)
    train, held_out = _corpora(config, network.lead, show_progress)
    history = _learn(network, train, config, show_progress)
    accuracy = _accuracy(network, held_out, config)
    network.save(folder)
    facts = {
        "seconds": round(time.perf_counter() - start),
        "threads": torch.get_num_threads(),
        "parameters": sum(p.numel() for p in network.encoder.parameters()),
        "final_loss": round(float(np.mean(history[-50:])), 3),
        "held_out_masked_accuracy": round(accuracy, 3),
    }
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    (folder / "README.md").write_text(_card(config, facts, digest), encoding="utf-8")


def _corpora(config: PretrainConfig, lead: int, show_progress: bool) -> tuple[_Corpus, _Corpus]:
    """Training and held-out stories of five minutes, the voices in turn; clusters come from the training stories only."""
    rng = np.random.default_rng([config.seed, 1])
    seconds = min(300.0, 60 * config.minutes)
    n_train = max(1, round(60 * config.minutes / seconds))
    n_all = n_train + max(1, n_train // 12)
    voices = [VOICES[i % len(VOICES)] for i in range(n_all)]
    stories = [tell(seconds, rng, voice=v) for v in progress(voices, desc="speaking", unit="story", enabled=show_progress)]
    audio = [resample(story.audio, SAMPLE_RATE, RATE) for story in stories]
    taught = _states(audio, show_progress) if config.family == "hubert" else [_cepstra(np.pad(a, lead)) for a in audio]
    labels = _clusters(taught, n_train, config.clusters, np.random.default_rng([config.seed, 2]))
    return _Corpus(audio[:n_train], labels[:n_train]), _Corpus(audio[n_train:], labels[n_train:])


def _cepstra(audio: np.ndarray) -> np.ndarray:
    return mfcc(audio, RATE, window=FIELD / RATE, hop=STRIDE / RATE, energy="c0", deltas=1)


@torch.no_grad()
def _states(audio: list[np.ndarray], show_progress: bool) -> list[np.ndarray]:
    """A hidden state of the shipped model at every frame, each story in chunks that follow each other without a gap."""
    teacher = SpeechEncoder(SMALL_MODEL)
    step = _CHUNK * RATE // STRIDE * STRIDE
    states = []
    for story in progress(audio, desc="listening", unit="story", enabled=show_progress):
        starts = range(0, len(story) - FIELD + 1, step)
        clips = [unit_variance(story[None, start : start + step + FIELD - STRIDE]) for start in starts]
        states.append(np.concatenate([teacher.layer(teacher.cnn(torch.from_numpy(c)), _TAUGHT_BY)[0].numpy() for c in clips]))
    return states


def _clusters(taught: list[np.ndarray], n_train: int, clusters: int, rng: np.random.Generator) -> list[np.ndarray]:
    from scipy.cluster.vq import kmeans2, vq

    pool = np.concatenate(taught[:n_train])
    mean, sd = pool.mean(0), pool.std(0)
    sample = pool[rng.permutation(len(pool))[: 400 * clusters]]
    centers, _ = kmeans2((sample - mean) / sd, clusters, iter=30, minit="++", rng=rng)
    return [vq((t - mean) / sd, centers)[0] for t in taught]


def _batch(model: SmallModel, corpus: _Corpus, config: PretrainConfig, rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
    """Random clips that begin on a frame, prepared as the model wants them, their labels and a mask."""
    n_samples = round(config.clip_seconds * RATE)
    n_frames = model.n_frames(n_samples)
    audio = np.empty((config.batch, n_samples), dtype=np.float32)
    labels = np.empty((config.batch, n_frames), dtype=np.int64)
    for row in range(config.batch):
        story = int(rng.integers(len(corpus.audio)))
        first = int(rng.integers((len(corpus.audio[story]) - n_samples) // STRIDE + 1))
        clip = corpus.audio[story][first * STRIDE : first * STRIDE + n_samples]
        audio[row] = (clip - clip.mean()) / np.sqrt(clip.var() + 1e-7) if model.normalize else clip
        labels[row] = corpus.labels[story][first : first + n_frames]
    mask = span_mask(rng.random((config.batch, n_frames)), config.mask_share, config.mask_frames)
    return torch.from_numpy(audio), torch.from_numpy(labels), torch.from_numpy(mask)


def _learn(network: SmallModel, corpus: _Corpus, config: PretrainConfig, show_progress: bool) -> list[float]:
    rng = np.random.default_rng([config.seed, 3])
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    warm_up = max(1, round(0.08 * config.steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm_up, (config.steps - step) / max(1, config.steps - warm_up))
    )
    history: list[float] = []
    network.train()
    with progress(total=config.steps, desc="pretraining", unit="step", enabled=show_progress) as bar:
        for _ in range(config.steps):
            audio, labels, mask = _batch(network, corpus, config, rng)
            loss = nn.functional.cross_entropy(network(audio, mask), labels[mask])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            history.append(loss.item())
            bar.set_postfix(loss=f"{np.mean(history[-50:]):.3f}", refresh=False)
            bar.update()
    return history


@torch.no_grad()
def _accuracy(network: SmallModel, corpus: _Corpus, config: PretrainConfig, n_batches: int = 20) -> float:
    """Share of masked frames of unheard stories whose cluster is predicted."""
    rng = np.random.default_rng([config.seed, 4])
    network.eval()
    network.encoder.train()  # transformers masks only in training mode; every dropout is 0
    hits = total = 0
    for _ in range(n_batches):
        audio, labels, mask = _batch(network, corpus, config, rng)
        hits += int((network(audio, mask).argmax(-1) == labels[mask]).sum())
        total += int(mask.sum())
    return hits / total


_TITLES = {"wav2vec2": "Wav2Vec2", "hubert": "HuBERT", "whisper": "Whisper"}
_SHAPES = {
    "wav2vec2": f"a 7-layer CNN (25 frames a second) and {LAYERS} transformer layers of width {WIDTH}",
    "hubert": f"a 7-layer CNN (25 frames a second) and {LAYERS} transformer layers of width {WIDTH}",
    "whisper": f"a log-mel spectrum, two convolutions (25 frames a second) and {LAYERS} transformer layers of width {WIDTH}",
}
_TASKS = {
    "wav2vec2": "self-supervised, HuBERT's first iteration: predict the k-means cluster of MFCC + Δ of masked frames",
    "hubert": f"self-supervised, HuBERT's second iteration: predict the k-means cluster of hidden state {_TAUGHT_BY} of\n"
    "  fastencode's small Wav2Vec2 at masked frames",
    "whisper": "self-supervised, unlike Whisper, which learns from text: predict the k-means cluster of MFCC + Δ of masked\n"
    "  frames. It hears 10 s at once. Its decoder is a stub that has learned nothing",
}


def _card(config: PretrainConfig, facts: dict[str, Any], digest: str) -> str:
    again = "" if config.family == "wav2vec2" else f" --pretraining.family {config.family}"
    return f"""---
library_name: transformers
license: bsd-3-clause
tags: [{config.family}, synthetic-speech]
---
# A small {_TITLES[config.family]} for fastencode's demo

{facts["parameters"]:,} parameters: {_SHAPES[config.family]}.
It knows synthetic speech only; use it for demonstrations and tests, not for research on real speech.

- **How**: {_TASKS[config.family]}.
- **On what**: {config.minutes:g} minutes of stories from a small grammar, spoken by espeak-ng in {len(VOICES)} voices.
- **How long**: {facts["seconds"]} seconds on {facts["threads"]} CPU thread(s); the last loss was {facts["final_loss"]}.
- **How well**: of the masked frames of unheard stories, {facts["held_out_masked_accuracy"]:.1%} get the right one of
  {config.clusters} clusters.
- **Make it again**: `fastencode-tune demo --pretrain{again}`. The same seed gives the same weights on the same machine and
  number of threads.
- **SHA-256 of model.safetensors**: `{digest}`

```json
{json.dumps(asdict(config), indent=2)}
```
"""
