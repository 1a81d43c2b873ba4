"""The small shipped model, from nothing: a Wav2Vec2 encoder learns to predict clusters of MFCCs under span masks (HuBERT's first
iteration, Hsu et al. 2021) on synthetic stories.

The audio is cut where the encoder's frames are, so that frame j of the encoder and frame j of the cepstra cover the same samples.
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
from fastencode.tune.config import PretrainConfig
from fastencode.tune.masked import span_mask
from fastencode.world.espeak import SAMPLE_RATE
from fastencode.world.tales import VOICES, tell

__all__ = ["pretrain"]

_RATE = 16000
_STRIDE, _FIELD = 640, 800  # samples between frames and under one frame: 25 frames a second
_WIDTH = 96
_ARCHITECTURE: dict[str, Any] = {
    "conv_dim": (64,) * 7,
    "conv_stride": (10, 2, 2, 2, 2, 2, 2),
    "conv_kernel": (20, 3, 3, 3, 3, 2, 2),
    "feat_extract_norm": "group",
    "hidden_size": _WIDTH,
    "num_hidden_layers": 6,
    "num_attention_heads": 3,
    "intermediate_size": 384,
    "num_conv_pos_embeddings": 32,
    "num_conv_pos_embedding_groups": 4,
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "feat_proj_dropout": 0.0,
    "layerdrop": 0.0,
}


@dataclass(frozen=True)
class _Corpus:
    """Stories as 16 kHz audio, with the cluster of every frame."""

    audio: list[np.ndarray]
    labels: list[np.ndarray]


def pretrain(config: PretrainConfig, folder: Path, *, show_progress: bool = True) -> None:
    """Make the small model from nothing and save it as a Hugging Face folder with a model card.

    Parameters
    ----------
    config : PretrainConfig
    folder : Path
        An existing folder; gets ``config.json``, ``preprocessor_config.json``, ``model.safetensors`` and ``README.md``. The
        weights depend on the seed, the machine and the number of threads.
    show_progress : bool
    """
    start = time.perf_counter()
    train, held_out = _corpora(config, show_progress)
    torch.manual_seed(config.seed)
    network = _Network(config.clusters)
    history = _learn(network, train, config, show_progress)
    accuracy = _accuracy(network, held_out, config)
    del network.encoder.masked_spec_embed  # what stood in for a masked frame: only training looks at it
    facts = {
        "seconds": round(time.perf_counter() - start),
        "threads": torch.get_num_threads(),
        "parameters": sum(p.numel() for p in network.encoder.parameters()),
        "final_loss": round(float(np.mean(history[-50:])), 3),
        "held_out_masked_accuracy": round(accuracy, 3),
    }
    _save(network.encoder, config, facts, folder)


class _Network(nn.Module):
    """The encoder and the classifier that is thrown away afterwards."""

    def __init__(self, clusters: int) -> None:
        from transformers import Wav2Vec2Config, Wav2Vec2Model

        super().__init__()
        self.encoder = Wav2Vec2Model(Wav2Vec2Config(**_ARCHITECTURE))
        self.classify = nn.Linear(_WIDTH, clusters)

    def forward(self, audio_bn: torch.Tensor, mask_bf: torch.Tensor) -> torch.Tensor:
        hidden = self.encoder(audio_bn, mask_time_indices=mask_bf).last_hidden_state
        return self.classify(hidden[mask_bf])


def _corpora(config: PretrainConfig, show_progress: bool) -> tuple[_Corpus, _Corpus]:
    """Training and held-out stories of five minutes, the voices in turn; clusters come from the training stories only."""
    rng = np.random.default_rng([config.seed, 1])
    seconds = min(300.0, 60 * config.minutes)
    n_train = max(1, round(60 * config.minutes / seconds))
    n_all = n_train + max(1, n_train // 12)
    voices = [VOICES[i % len(VOICES)] for i in range(n_all)]
    stories = [tell(seconds, rng, voice=v) for v in progress(voices, desc="speaking", unit="story", enabled=show_progress)]
    audio = [resample(story.audio, SAMPLE_RATE, _RATE) for story in stories]
    cepstra = [mfcc(a, _RATE, window=_FIELD / _RATE, hop=_STRIDE / _RATE, energy="c0", deltas=1) for a in audio]
    labels = _clusters(cepstra, n_train, config.clusters, np.random.default_rng([config.seed, 2]))
    return _Corpus(audio[:n_train], labels[:n_train]), _Corpus(audio[n_train:], labels[n_train:])


def _clusters(cepstra: list[np.ndarray], n_train: int, clusters: int, rng: np.random.Generator) -> list[np.ndarray]:
    from scipy.cluster.vq import kmeans2, vq

    pool = np.concatenate(cepstra[:n_train])
    mean, sd = pool.mean(0), pool.std(0)
    sample = pool[rng.permutation(len(pool))[: 400 * clusters]]
    centers, _ = kmeans2((sample - mean) / sd, clusters, iter=30, minit="++", rng=rng)
    return [vq((c - mean) / sd, centers)[0] for c in cepstra]


def _batch(corpus: _Corpus, config: PretrainConfig, rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
    """Random clips that begin on a frame, each of zero mean and unit variance, their labels and a mask."""
    n_samples = round(config.clip_seconds * _RATE)
    n_frames = (n_samples - _FIELD) // _STRIDE + 1
    audio = np.empty((config.batch, n_samples), dtype=np.float32)
    labels = np.empty((config.batch, n_frames), dtype=np.int64)
    for row in range(config.batch):
        story = int(rng.integers(len(corpus.audio)))
        first = int(rng.integers((len(corpus.audio[story]) - n_samples) // _STRIDE + 1))
        clip = corpus.audio[story][first * _STRIDE : first * _STRIDE + n_samples]
        audio[row] = (clip - clip.mean()) / np.sqrt(clip.var() + 1e-7)
        labels[row] = corpus.labels[story][first : first + n_frames]
    mask = span_mask(rng.random((config.batch, n_frames)), config.mask_share, config.mask_frames)
    return torch.from_numpy(audio), torch.from_numpy(labels), torch.from_numpy(mask)


def _learn(network: _Network, corpus: _Corpus, config: PretrainConfig, show_progress: bool) -> list[float]:
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
            audio, labels, mask = _batch(corpus, config, rng)
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
def _accuracy(network: _Network, corpus: _Corpus, config: PretrainConfig, n_batches: int = 20) -> float:
    """Share of masked frames of unheard stories whose cluster is predicted."""
    rng = np.random.default_rng([config.seed, 4])
    network.eval()
    network.encoder.train()  # transformers masks only in training mode; every dropout is 0
    hits = total = 0
    for _ in range(n_batches):
        audio, labels, mask = _batch(corpus, config, rng)
        hits += int((network(audio, mask).argmax(-1) == labels[mask]).sum())
        total += int(mask.sum())
    return hits / total


def _save(encoder: Any, config: PretrainConfig, facts: dict[str, Any], folder: Path) -> None:
    from transformers import Wav2Vec2FeatureExtractor

    encoder.config.mask_time_prob = 0.0
    encoder.config.apply_spec_augment = False
    encoder.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(sampling_rate=_RATE, do_normalize=True, return_attention_mask=False).save_pretrained(folder)
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    (folder / "README.md").write_text(_card(config, facts, digest), encoding="utf-8")


def _card(config: PretrainConfig, facts: dict[str, Any], digest: str) -> str:
    layers = _ARCHITECTURE["num_hidden_layers"]
    return f"""---
library_name: transformers
license: bsd-3-clause
tags: [wav2vec2, synthetic-speech]
---
# A small Wav2Vec2 for fastencode's demo

{facts["parameters"]:,} parameters: a 7-layer CNN (25 frames a second) and {layers} transformer layers of width {_WIDTH}.
It knows synthetic speech only; use it for demonstrations and tests, not for research on real speech.

- **How**: self-supervised, HuBERT's first iteration: predict the k-means cluster of MFCC + Δ of masked frames.
- **On what**: {config.minutes:g} minutes of stories from a small grammar, spoken by espeak-ng in {len(VOICES)} voices.
- **How long**: {facts["seconds"]} seconds on {facts["threads"]} CPU thread(s); the last loss was {facts["final_loss"]}.
- **How well**: of the masked frames of unheard stories, {facts["held_out_masked_accuracy"]:.1%} get the right one of
  {config.clusters} clusters.
- **Make it again**: `fastencode-tune demo --pretrain`. The same seed gives the same weights on the same machine and
  number of threads.
- **SHA-256 of model.safetensors**: `{digest}`

```json
{json.dumps(asdict(config), indent=2)}
```
"""
