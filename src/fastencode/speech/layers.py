"""Hugging Face speech encoders, opened at the seam that brain-tuning needs: the CNN that stays frozen, and the layers above it.

``frames = cnn(clips)`` never changes while a model is tuned, so it is computed once and kept; ``layers(frames)`` is what is
tuned and read. ``families.py`` knows where that seam is in each architecture.

Axis letters: b clip in a batch, n audio sample, f frame, c CNN channel, l layer, d width.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastencode.arrays import check_device
from fastencode.errors import InputError, require
from fastencode.speech.families import Call, Spectrogram, Waveform, plainly

if TYPE_CHECKING:
    import torch

__all__ = ["DTYPES", "SMALL_MODEL", "SpeechEncoder", "unit_variance"]

DTYPES = ("float32", "bfloat16", "float16")

SMALL_MODEL = Path(__file__).parent / "small"
"""Folder of the small Wav2Vec2 that ships with the package; its README.md says how it was made."""

_ON_HUB = re.compile(r"\w[\w.-]*/[\w.-]+")  # speech models there have owners

_FAMILIES: dict[str, type[Waveform] | type[Spectrogram]] = {
    "wav2vec2": Waveform,
    "hubert": Waveform,
    "wavlm": Waveform,
    "whisper": Spectrogram,
}


class SpeechEncoder:
    """A wav2vec2, HuBERT, WavLM or Whisper encoder with its input conventions.

    Parameters
    ----------
    name : str or path
        Local folder or hub name of a checkpoint, of any size.
    device : str, optional
        Where it computes, such as ``"cuda"``; the CPU by default.
    dtype : {"float32", "bfloat16", "float16"}
        What it computes in.
    random_weights : int, optional
        A seed: the checkpoint's shape and settings with weights drawn anew, as its training would begin; its own are not read.
        What such a model tells is told by the architecture alone.

    Attributes
    ----------
    model : transformers.PreTrainedModel
        In evaluation mode (no dropout, no LayerDrop, no masking).
    n_layers : int
        Number of layer outputs: the encoder's input and every transformer layer.
    width : int
    channels : int
        Of the CNN's frames.
    sample_rate : int
        In Hz.
    normalize : bool
        Whether the checkpoint wants clips of zero mean and unit variance.
    longest : int or None
        Most samples in a clip: 30 s for Whisper, whose frames always cover so much.

    Raises
    ------
    InputError
        If the checkpoint is missing, incomplete, damaged or of another architecture, or there is no such dtype or seed.
    DeviceError
        If the device does not exist.
    MissingLibraryError
        If torch or transformers is not installed (extra ``tune``).
    """

    def __init__(
        self,
        name: str | os.PathLike[str],
        *,
        device: str | None = None,
        dtype: str = "float32",
        random_weights: int | None = None,
    ) -> None:
        torch = require("torch", "tune")
        transformers = require("transformers", "tune")
        self.name = str(name)
        self.device, self.dtype = check_device(device), dtype
        if dtype not in DTYPES:
            raise InputError(f"dtype={dtype!r}: choose one of {', '.join(map(repr, DTYPES))}")
        config, extractor = _read_settings(transformers, self.name)
        if config.model_type not in _FAMILIES:
            raise InputError(f"{self.name} is a {config.model_type!r} model: give one of {', '.join(_FAMILIES)}")
        config.layerdrop = config.encoder_layerdrop = 0.0
        config.apply_spec_augment = False
        # A decoder, where there is one, stays: what was read can be saved as it came.
        if random_weights is None:
            model = _read_weights(transformers, self.name, config, getattr(torch, dtype))
        else:
            model = _draw_weights(transformers, config, random_weights).to(getattr(torch, dtype))
        self.model = model.eval().to(self.device)
        self._family = _FAMILIES[config.model_type](self.model, extractor)
        self._extractor = extractor
        self.n_layers, self.width, self.longest = self._family.n_layers, self._family.width, self._family.longest
        self.channels = self._family.channels
        self.sample_rate = int(extractor.sampling_rate)
        self.normalize = self._family.normalize

    def cnn(self, clips_bn: torch.Tensor) -> torch.Tensor:
        """Run the convolutional front end on clips of equal length, (b, n) → frames (b, f, c).

        Whisper's frames cover 30 s whatever n is: the first ``len(frame_times(n))`` carry the clip. Without gradients the
        convolutions of wav2vec2 and its kin are done by ``speech/cnn.py`` on a CPU: equal to rounding, in less time and memory.
        """
        return self._family.front(clips_bn)

    def layers(self, frames_bfc: torch.Tensor) -> list[torch.Tensor]:
        """Run the transformer: the encoder's input and the output of every layer, each (b, f, d).

        Equal to ``hidden_states`` of the whole model; for models with a final LayerNorm the last one is before it.
        """
        return list(self._family.states(frames_bfc))

    def last_layer(self, frames_bfc: torch.Tensor) -> torch.Tensor:
        """The encoder's output (b, f, d); for models with a final LayerNorm, after it."""
        return self._family.encode(frames_bfc)

    def layer(self, frames_bfc: torch.Tensor, number: int | None = None, call: Call = plainly) -> torch.Tensor:
        """One of :meth:`layers`, without computing those above it; by default :meth:`last_layer`.

        Parameters
        ----------
        frames_bfc : tensor
            From :meth:`cnn`.
        number : int, optional
            0 for what the transformer receives, to ``n_layers - 1``.
        call : callable, optional
            Calls each transformer layer, ``call(layer, hidden, …)``: where activations are to be computed again, for example.

        Raises
        ------
        InputError
            If there is no such layer.
        """
        if number is not None and not 0 <= number < self.n_layers:
            last = self.n_layers - 1
            raise InputError(f"{self.name} has no layer {number}: choose 0 (what the transformer receives) to {last}")
        return self._family.encode(frames_bfc, number, call)

    def through(self, hidden_bfd: torch.Tensor) -> list[torch.Tensor]:
        """The output of every transformer layer from what the transformer receives, (b, f, d); of any length, Whisper's too."""
        return list(self._family.through(hidden_bfd))

    def parts(self, number: int | None = None) -> list[tuple[int, torch.nn.Module]]:
        """The modules between the CNN's frames and a layer, each with the number of the first layer that it changes.

        Parameters
        ----------
        number : int, optional
            As for :meth:`layer`. A LayerNorm after the last layer counts as ``n_layers``.
        """
        return self._family.learns(number)

    @property
    def stem(self) -> list[torch.nn.Module]:
        """The convolutions below the transformer."""
        return self._family.stem

    def frame_times(self, n_samples: int) -> np.ndarray:
        """The middle of the stretch of audio under each frame of a clip, (f,) in s from the clip's start."""
        family = self._family
        if n_samples < family.field:
            raise InputError(f"a clip of {n_samples} samples is shorter than one frame of {self.name} ({family.field} samples)")
        if family.longest is not None and n_samples > family.longest:
            raise InputError(
                f"a clip of {n_samples / self.sample_rate:g} s is longer than the {family.longest / self.sample_rate:g} s that"
                f" {self.name} hears at once: use shorter clips or less context"
            )
        return (family.step * np.arange(family.n_frames(n_samples)) + family.middle) / self.sample_rate

    def freeze_cnn(self) -> None:
        """No gradient for the CNN; everything above it stays trainable."""
        self._family.freeze()

    def cnn_hash(self) -> str:
        """SHA-256 of the CNN's weights: equal before and after tuning."""
        return _hash_weights(self._family.frozen)

    def hash(self) -> str:
        """SHA-256 of all weights, of the configuration and of how sound is prepared: two models are the same if this is.

        Neither the folder nor the device counts; the dtype does, because weights are hashed as they are here.
        """
        settings = {**self.model.config.to_diff_dict(), "extractor": self._extractor.to_dict()}
        kept = {name: value for name, value in settings.items() if name not in ("_name_or_path", "transformers_version")}
        text = json.dumps(kept, sort_keys=True, default=str)
        return hashlib.sha256(f"{text}{_hash_weights([self.model])}".encode()).hexdigest()

    def save(self, folder: Path, weights: dict[str, torch.Tensor] | None = None) -> None:
        """Write the checkpoint as a Hugging Face folder that any program reads, with its own weights or others of these names."""
        self.model.save_pretrained(folder, state_dict=weights)
        self._extractor.save_pretrained(folder)


def _hash_weights(modules: Sequence[Any]) -> str:
    """SHA-256 of the names and bytes of all weights, in the order of their names."""
    torch = require("torch", "tune")
    digest = hashlib.sha256()
    for module in modules:
        for name, value in sorted(module.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _read_settings(transformers: Any, name: str) -> tuple[Any, Any]:
    if not Path(name).is_dir() and not _ON_HUB.fullmatch(name):  # no waiting for the hub over a typo
        raise InputError(f"model {name!r} is no folder here: give a folder with config.json, or owner/name on the hub")
    if Path(name).is_dir() and not (Path(name) / "config.json").exists():
        raise InputError(f"model {name!r} is a folder without config.json: give the one that holds it, or owner/name on the hub")
    try:
        config = transformers.AutoConfig.from_pretrained(name)
        extractor = transformers.AutoFeatureExtractor.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise InputError(
            f"model {name!r} cannot be loaded ({_line(error)}): give a folder with config.json, or a hub name"
        ) from error
    return config, extractor


def _read_weights(transformers: Any, name: str, config: Any, dtype: Any) -> Any:
    damaged = require("safetensors", "tune").SafetensorError
    try:
        return transformers.AutoModel.from_pretrained(name, config=config, dtype=dtype)
    except (OSError, ValueError, RuntimeError, damaged) as error:
        raise InputError(
            f"the weights of model {name!r} cannot be loaded ({_line(error)}): save or download them again"
        ) from error


def _draw_weights(transformers: Any, config: Any, seed: int) -> Any:
    """A model of this shape as its training would begin; the random numbers of the process are left as they were."""
    torch = require("torch", "tune")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**63:
        raise InputError(f"random_weights={seed!r}: give a seed, a whole number of 0 or more")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(seed))
        return transformers.AutoModel.from_config(config, dtype=torch.float32)


def _line(error: Exception) -> str:
    """The first line of what another library says."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def unit_variance(clips_bn: Any) -> Any:
    """Clips of zero mean and unit variance, as wav2vec2's feature extractor makes them; NumPy or torch, (b, n)."""
    centered = clips_bn - clips_bn.mean(axis=1, keepdims=True)
    return centered / ((centered * centered).mean(axis=1, keepdims=True) + 1e-7) ** 0.5
