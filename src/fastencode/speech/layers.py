"""Hugging Face speech encoders, opened at the seam that brain-tuning needs: the CNN that stays frozen, and the layers above it.

``frames = cnn(clips)`` never changes while a model is tuned, so it is computed once and kept; ``layers(frames)`` is what is
tuned and read.

Axis letters: b clip in a batch, n audio sample, f frame, c CNN channel, l layer, d width.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastencode.errors import InputError, require
from fastencode.progress import progress

if TYPE_CHECKING:
    import torch

__all__ = ["SMALL_MODEL", "SpeechEncoder", "cut_clips", "layer_features"]

SMALL_MODEL = Path(__file__).parent / "small"
"""Folder of the small Wav2Vec2 that ships with the package; its README.md says how it was made."""

_SUPPORTED = ("wav2vec2", "hubert")


class SpeechEncoder:
    """A wav2vec2 or HuBERT encoder with its input conventions.

    Parameters
    ----------
    name : str or path
        Local folder or hub name of a checkpoint.

    Attributes
    ----------
    model : transformers.PreTrainedModel
        In evaluation mode (no dropout, no LayerDrop, no masking), float32.
    n_layers : int
        Number of layer outputs: the encoder's input and every transformer layer.
    width : int
    sample_rate : int
        In Hz.
    normalize : bool
        Whether the checkpoint wants clips of zero mean and unit variance.

    Raises
    ------
    InputError
        If the checkpoint is missing, incomplete, damaged or of another architecture.
    MissingLibraryError
        If torch or transformers is not installed (extra ``tune``).
    """

    def __init__(self, name: str | os.PathLike[str]) -> None:
        torch = require("torch", "tune")
        transformers = require("transformers", "tune")
        self.name = str(name)
        config, extractor = _read_settings(transformers, self.name)
        if config.model_type not in _SUPPORTED:
            raise InputError(
                f"{self.name} is a {config.model_type!r} model: brain-tuning takes {' or '.join(_SUPPORTED)} for now"
            )
        config.layerdrop = 0.0
        config.apply_spec_augment = False
        self.model = _read_weights(transformers, self.name, config, torch.float32).eval()
        self.n_layers = config.num_hidden_layers + 1
        self.width = config.hidden_size
        self.sample_rate = int(extractor.sampling_rate)
        self.normalize = bool(extractor.do_normalize)
        self._extractor = extractor
        self._kernels, self._strides = tuple(config.conv_kernel), tuple(config.conv_stride)

    def cnn(self, clips_bn: torch.Tensor) -> torch.Tensor:
        """Run the convolutional front end on clips of equal length, (b, n) → frames (b, f, c)."""
        return self.model.feature_extractor(clips_bn).transpose(1, 2)

    def layers(self, frames_bfc: torch.Tensor) -> list[torch.Tensor]:
        """Run the transformer: the encoder's input and the output of every layer, each (b, f, d).

        Equal to ``hidden_states`` of the whole model; for models with a final LayerNorm the last one is before it.
        """
        seen: list[torch.Tensor] = []
        stack = self.model.encoder.layers
        hooks = [stack[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))]
        hooks += [layer.register_forward_hook(lambda *call: seen.append(_first(call[2]))) for layer in stack]
        try:
            self.last_layer(frames_bfc)
        finally:
            for hook in hooks:
                hook.remove()
        return seen

    def last_layer(self, frames_bfc: torch.Tensor) -> torch.Tensor:
        """The encoder's output (b, f, d); for models with a final LayerNorm, after it."""
        hidden = _first(self.model.feature_projection(frames_bfc))
        return self.model.encoder(hidden).last_hidden_state

    def frame_times(self, n_samples: int) -> np.ndarray:
        """The middle of the stretch of audio under each frame of a clip, (f,) in s from the clip's start."""
        field, step = 1, 1
        for kernel, stride in zip(self._kernels, self._strides, strict=True):
            field += (kernel - 1) * step
            step *= stride
        if n_samples < field:
            raise InputError(f"a clip of {n_samples} samples is shorter than one frame of {self.name} ({field} samples)")
        return (step * np.arange((n_samples - field) // step + 1) + field / 2) / self.sample_rate

    def freeze_cnn(self) -> None:
        """No gradient for the CNN; everything above it stays trainable."""
        self.model.feature_extractor._freeze_parameters()

    def cnn_hash(self) -> str:
        """SHA-256 of the CNN's weights: equal before and after tuning."""
        digest = hashlib.sha256()
        for name, value in sorted(self.model.feature_extractor.state_dict().items()):
            digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def save(self, folder: Path) -> None:
        """Write the checkpoint as a Hugging Face folder that any program reads."""
        self.model.save_pretrained(folder)
        self._extractor.save_pretrained(folder)


def _first(output: Any) -> Any:
    """Modules return a tensor or a tuple that begins with it, depending on architecture and version."""
    return output[0] if isinstance(output, tuple) else output


def _read_settings(transformers: Any, name: str) -> tuple[Any, Any]:
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


def _line(error: Exception) -> str:
    """The first line of what another library says."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def cut_clips(audio: np.ndarray, ends: np.ndarray, *, seconds: float, sample_rate: int, normalize: bool) -> np.ndarray:
    """Cut the clip that ends at each time; what lies outside the recording is silence.

    Parameters
    ----------
    audio : ndarray, shape (n,), float32
        Mono.
    ends : ndarray, shape (b,)
        Clip ends in s from the start of the audio, 0 or more.
    seconds : float
        Length of every clip in s.
    sample_rate : int
        In Hz.
    normalize : bool
        Bring every clip to zero mean and unit variance, as wav2vec2's feature extractor does.

    Returns
    -------
    ndarray, shape (b, round(seconds * sample_rate)), float32

    Raises
    ------
    InputError
        If a clip ends before the audio begins.
    """
    length = round(seconds * sample_rate)
    stops = np.rint(np.asarray(ends) * sample_rate).astype(int)
    if (stops < 0).any():
        raise InputError(f"a clip ends at {np.min(ends):g} s, before the audio begins: give ends of 0 s or later")
    padded = np.concatenate(
        [np.zeros(length, np.float32), audio, np.zeros(max(0, max(stops, default=0) - len(audio)), np.float32)]
    )
    clips = np.stack([padded[stop : stop + length] for stop in stops]) if len(stops) else np.empty((0, length), np.float32)
    if normalize:
        clips -= clips.mean(axis=1, keepdims=True)
        clips /= np.sqrt(clips.var(axis=1, keepdims=True) + 1e-7)
    return clips


def layer_features(
    encoder: SpeechEncoder, frames: Sequence[np.ndarray], *, keep: slice, batch: int = 16, desc: str, show_progress: bool = True
) -> Iterator[np.ndarray]:
    """Read every layer of CNN frames.

    Parameters
    ----------
    encoder : SpeechEncoder
    frames : sequence of ndarray, each of shape (clips, f, c)
        CNN output of the clips of one run after the other.
    keep : slice
        The frames of each clip to keep: those whose past the clip holds.
    batch : int
        Clips at a time.
    desc : str
        What the progress bar says.
    show_progress : bool
        Whether it is drawn, on standard error.

    Yields
    ------
    ndarray, shape (layers, clips, kept frames, d), float32
        One for each run.
    """
    torch = require("torch", "tune")
    with progress(total=sum(map(len, frames)), desc=desc, unit="clip", enabled=show_progress) as bar, torch.inference_mode():
        for run_bfc in frames:
            parts = []
            for start in range(0, len(run_bfc), batch):
                hidden = encoder.layers(torch.from_numpy(np.array(run_bfc[start : start + batch])))
                parts.append(np.stack([h[:, keep].numpy() for h in hidden]))
                bar.update(parts[-1].shape[1])
            yield np.concatenate(parts, axis=1)
