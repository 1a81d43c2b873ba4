"""Shapes of the small models that ``pretrain.py`` makes, each with a classifier that only pretraining uses.

    wav2vec2, hubert   seven convolutions over samples, six transformer layers of width 96, 25 frames a second
    whisper            log-mel spectrum of 10 s (Whisper proper: 30 s), two convolutions, the same transformer and frame rate

transformers' Wav2Vec2Model and HubertModel of these shapes are one function: the weights of one fit the other and give the same
states. What tells the two small models apart is what they were taught, and so it is with the large ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastencode.speech.families import Spectrogram

__all__ = ["FIELD", "LAYERS", "RATE", "STRIDE", "WIDTH", "SmallModel", "SpectrumModel", "WaveModel", "small_model"]

RATE = 16000
STRIDE, FIELD = 640, 800  # samples between frames and under one frame: 25 frames a second
WIDTH, LAYERS = 96, 6
_HEADS, _INNER = 3, 384
_HEARD = 10  # seconds that the Whisper-shaped model hears at once: whole ones, transformers asks for it
_NO_DROPOUT = dict.fromkeys(("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout", "layerdrop"), 0.0)
_WAVES: dict[str, Any] = {
    "conv_dim": (64,) * 7,
    "conv_stride": (10, 2, 2, 2, 2, 2, 2),
    "conv_kernel": (20, 3, 3, 3, 3, 2, 2),
    "feat_extract_norm": "group",
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": _HEADS,
    "intermediate_size": _INNER,
    "num_conv_pos_embeddings": 32,
    "num_conv_pos_embedding_groups": 4,
    **_NO_DROPOUT,
}
_SPECTRA: dict[str, Any] = {
    "num_mel_bins": 80,
    "d_model": WIDTH,
    "encoder_layers": LAYERS,
    "encoder_attention_heads": _HEADS,
    "encoder_ffn_dim": _INNER,
    "max_source_positions": _HEARD * RATE // STRIDE,
    "dropout": 0.0,
    "apply_spec_augment": False,
    # The decoder is there because files of Whisper have one. It is as small as can be, and learns nothing.
    "decoder_layers": 1,
    "decoder_attention_heads": 1,
    "decoder_ffn_dim": 8,
    "vocab_size": 8,
    "max_target_positions": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}


class SmallModel(nn.Module):
    """An encoder, the classifier that is thrown away afterwards, and how sound is prepared.

    Attributes
    ----------
    encoder : transformers.PreTrainedModel
    lead : int
        Samples of silence before and after a clip under which its first and last frames reach.
    normalize : bool
        Whether clips are to have zero mean and unit variance.
    """

    encoder: Any
    classify: nn.Linear
    lead: int
    normalize: bool

    def forward(self, audio_bn: torch.Tensor, mask_bf: torch.Tensor) -> torch.Tensor:
        """Scores of every cluster at masked frames, (masked, clusters)."""
        raise NotImplementedError

    def n_frames(self, n_samples: int) -> int:
        """How many frames a clip has."""
        return (n_samples + 2 * self.lead - FIELD) // STRIDE + 1

    def save(self, folder: Path) -> None:
        """Write the encoder and how sound is prepared as a Hugging Face folder."""
        raise NotImplementedError


class WaveModel(SmallModel):
    """Wav2Vec2 or HuBERT."""

    lead, normalize = 0, True

    def __init__(self, family: str, clusters: int) -> None:
        import transformers

        super().__init__()
        name = {"wav2vec2": "Wav2Vec2", "hubert": "Hubert"}[family]
        self.encoder = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**_WAVES))
        self.classify = nn.Linear(WIDTH, clusters)

    def forward(self, audio_bn: torch.Tensor, mask_bf: torch.Tensor) -> torch.Tensor:
        hidden = self.encoder(audio_bn, mask_time_indices=mask_bf).last_hidden_state
        return self.classify(hidden[mask_bf])

    def save(self, folder: Path) -> None:
        from transformers import Wav2Vec2FeatureExtractor

        if hasattr(self.encoder, "masked_spec_embed"):
            del self.encoder.masked_spec_embed  # what stood in for a masked frame: only training looks at it
        self.encoder.config.mask_time_prob = 0.0
        self.encoder.config.apply_spec_augment = False
        self.encoder.save_pretrained(folder)
        Wav2Vec2FeatureExtractor(sampling_rate=RATE, do_normalize=True, return_attention_mask=False).save_pretrained(folder)


class SpectrumModel(SmallModel):
    """Whisper's encoder. Frame i is centered on sample i * STRIDE, so the first begins half a FIELD before the clip."""

    lead, normalize = FIELD // 2, False

    def __init__(self, clusters: int) -> None:
        from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

        super().__init__()
        self._extractor = WhisperFeatureExtractor(
            feature_size=_SPECTRA["num_mel_bins"], sampling_rate=RATE, hop_length=STRIDE // 2, chunk_length=_HEARD, n_fft=400
        )
        self.encoder = WhisperModel(WhisperConfig(**_SPECTRA))
        self.classify = nn.Linear(WIDTH, clusters)
        self.masked = nn.Parameter(torch.empty(WIDTH).uniform_())
        self._family = Spectrogram(self.encoder, self._extractor)

    def forward(self, audio_bn: torch.Tensor, mask_bf: torch.Tensor) -> torch.Tensor:
        frames = self._family.front(audio_bn)
        after_the_clip = frames.shape[1] - mask_bf.shape[1]
        mask_bf = nn.functional.pad(mask_bf, (0, after_the_clip))
        return self.classify(self._family.encode(torch.where(mask_bf[..., None], self.masked, frames))[mask_bf])

    def n_frames(self, n_samples: int) -> int:
        return self._family.n_frames(n_samples)

    def save(self, folder: Path) -> None:
        self.encoder.save_pretrained(folder)
        self._extractor.save_pretrained(folder)


def small_model(family: str, clusters: int) -> SmallModel:
    """A model of one of ``PretrainConfig``'s families with random weights; seed torch before."""
    return SpectrumModel(clusters) if family == "whisper" else WaveModel(family, clusters)
