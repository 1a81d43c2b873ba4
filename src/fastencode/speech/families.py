"""The two families of speech encoders: what lies below the transformer, and what the transformer is called in each.

    waveform      wav2vec2, HuBERT, WavLM    seven convolutions over samples; frames for what is there
    spectrogram   Whisper                    log-mel spectrum of 30 s, two convolutions; always frames for 30 s

Both give ``front(clips_bn)`` → frames (b, f, c), which brain-tuning never changes, ``encode(frames)`` → the encoder's output
(b, f, d), ``blocks``, the modules whose outputs are the layers, and ``frozen``, the modules below them that have weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastencode.speech.cnn import frames_of, under_a_frame

if TYPE_CHECKING:
    import torch

__all__ = ["Spectrogram", "Waveform", "first"]


def first(output: Any) -> Any:
    """Modules return a tensor or a tuple that begins with it, depending on architecture and version."""
    return output[0] if isinstance(output, tuple) else output


class Waveform:
    """wav2vec2, HuBERT and WavLM. ``longest`` (samples in a clip) is None: there is no limit."""

    longest: int | None = None

    def __init__(self, model: Any, extractor: Any) -> None:
        self._model = model
        self.n_layers = int(model.config.num_hidden_layers) + 1
        self.width = int(model.config.hidden_size)
        self.normalize = bool(extractor.do_normalize)
        self.field, self.step = under_a_frame(model.config.conv_kernel, model.config.conv_stride)
        self.middle = self.field / 2

    @property
    def blocks(self) -> Sequence[Any]:
        return self._model.encoder.layers

    @property
    def frozen(self) -> list[Any]:
        return [self._model.feature_extractor]

    def freeze(self) -> None:
        self._model.feature_extractor._freeze_parameters()

    def n_frames(self, n_samples: int) -> int:
        return (n_samples - self.field) // self.step + 1

    def front(self, clips_bn: torch.Tensor) -> torch.Tensor:
        import torch

        clips_bn, extractor = clips_bn.to(self._model.dtype), self._model.feature_extractor
        if clips_bn.device.type == "cpu" and not torch.is_grad_enabled():
            return frames_of(extractor.conv_layers, clips_bn)
        return extractor(clips_bn).transpose(1, 2)

    def encode(self, frames_bfc: torch.Tensor) -> torch.Tensor:
        return self._model.encoder(first(self._model.feature_projection(frames_bfc))).last_hidden_state


class Spectrogram:
    """Whisper's encoder. It knows sound of 30 s only: shorter clips are followed by silence, whose frames are not counted."""

    def __init__(self, model: Any, extractor: Any) -> None:
        self._model = model
        self._extractor = extractor
        self.n_layers = int(model.config.encoder_layers) + 1
        self.width = int(model.config.d_model)
        self.normalize = False  # of the samples; what the extractor asks for, it does itself
        self.longest = int(extractor.n_samples)
        # Padded on both sides, spectrum and convolutions center frame i on sample i * step, and one sample is enough for a frame.
        self.step = 2 * int(extractor.hop_length)
        self.field, self.middle = 1, 0.0

    @property
    def blocks(self) -> Sequence[Any]:
        return self._model.encoder.layers

    @property
    def frozen(self) -> list[Any]:
        encoder = self._model.encoder
        return [encoder.conv1, encoder.conv2, encoder.embed_positions]

    def freeze(self) -> None:
        for module in (*self.frozen, self._model.decoder):
            module.requires_grad_(False)

    def n_frames(self, n_samples: int) -> int:
        return -(-n_samples // self.step)

    def front(self, clips_bn: torch.Tensor) -> torch.Tensor:
        from torch.nn.functional import gelu

        encoder = self._model.encoder
        spectrum = self._extractor(
            list(clips_bn.float().cpu().numpy()),
            sampling_rate=self._extractor.sampling_rate,
            return_tensors="pt",
            device=str(clips_bn.device),
            do_normalize=getattr(self._extractor, "do_normalize", False),
        ).input_features
        mel = spectrum.to(clips_bn.device, self._model.dtype)
        return gelu(encoder.conv2(gelu(encoder.conv1(mel)))).transpose(1, 2)

    def encode(self, frames_bfc: torch.Tensor) -> torch.Tensor:
        encoder = self._model.encoder
        hidden = frames_bfc + encoder.embed_positions.weight
        for block in encoder.layers:
            hidden = first(block(hidden, None))
        return encoder.layer_norm(hidden)
