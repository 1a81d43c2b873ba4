"""The two families of speech encoders: what lies below the transformer, and what the transformer is called in each.

    waveform      wav2vec2, HuBERT, WavLM    seven convolutions over samples; frames for what is there
    spectrogram   Whisper                    log-mel spectrum of 30 s, two convolutions; always frames for 30 s

Both give ``front(clips_bn)`` → frames (b, f, c), which brain-tuning does not change unless it is asked to, ``states(frames)`` →
hidden state after hidden state (b, f, d), each computed when it is asked for, and ``encode(frames, until)`` → one of them, or
the encoder's output. ``stem`` are the modules below the transformer that learn when they are asked to, ``frozen`` all of them
that have weights, ``learns(until)`` those between the frames and hidden state ``until``, each with the number of the first state
that it changes.

The blocks are called here, not by transformers' encoders: these would compute the layers above the one that is asked for, and
leave layers out at random while training (LayerDrop). Tests compare every state with those encoders'.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from fastencode.speech.cnn import frames_of, under_a_frame

if TYPE_CHECKING:
    import torch

__all__ = ["Call", "Spectrogram", "Waveform", "first", "plainly"]

Call = Callable[..., Any]
"""Calls a block with what follows: ``call(block, hidden, **options)``; by default plainly."""


def first(output: Any) -> Any:
    """Modules return a tensor or a tuple that begins with it, depending on architecture and version."""
    return output[0] if isinstance(output, tuple) else output


def plainly(block: Any, *inputs: Any, **options: Any) -> Any:
    """What a block makes of its inputs."""
    return block(*inputs, **options)


class _Family:
    """What both have in common: one state after the other, as far as one is asked for."""

    _model: Any

    @property
    def blocks(self) -> Sequence[Any]:
        """The layers of the transformer."""
        return self._model.encoder.layers

    def states(self, frames_bfc: torch.Tensor, call: Call = plainly) -> Iterator[torch.Tensor]:
        """What the transformer receives, and the output of every block."""
        hidden = self.begin(frames_bfc)
        yield hidden
        yield from self.through(hidden, call)

    def encode(self, frames_bfc: torch.Tensor, until: int | None = None, call: Call = plainly) -> torch.Tensor:
        """State ``until``, without what lies above; by default the encoder's output."""
        hidden = frames_bfc
        for number, hidden in enumerate(self.states(frames_bfc, call)):
            if number == until:
                return hidden
        return self.end(hidden)

    def begin(self, frames_bfc: torch.Tensor) -> torch.Tensor:
        """What the transformer receives."""
        raise NotImplementedError

    def through(self, hidden_bfd: torch.Tensor, call: Call = plainly) -> Iterator[torch.Tensor]:
        """The output of every block."""
        raise NotImplementedError

    def end(self, hidden_bfd: torch.Tensor) -> torch.Tensor:
        """The encoder's output from that of the last block."""
        raise NotImplementedError


class Waveform(_Family):
    """wav2vec2, HuBERT and WavLM. ``longest`` (samples in a clip) is None: there is no limit."""

    longest: int | None = None

    def __init__(self, model: Any, extractor: Any) -> None:
        self._model = model
        self.n_layers = int(model.config.num_hidden_layers) + 1
        self.width, self.channels = int(model.config.hidden_size), int(model.config.conv_dim[-1])
        self.normalize = bool(extractor.do_normalize)
        self.field, self.step = under_a_frame(model.config.conv_kernel, model.config.conv_stride)
        self.middle = self.field / 2
        # Large models norm what leaves the last block, base models what enters the first.
        self._norm_last = bool(model.config.do_stable_layer_norm)

    @property
    def stem(self) -> list[Any]:
        return [self._model.feature_extractor]

    @property
    def frozen(self) -> list[Any]:
        return self.stem

    def learns(self, until: int | None = None) -> list[tuple[int, Any]]:
        encoder = self._model.encoder
        below = [self._model.feature_projection, encoder.pos_conv_embed, *([] if self._norm_last else [encoder.layer_norm])]
        above = [(self.n_layers, encoder.layer_norm)] if self._norm_last and until is None else []
        return [*((0, module) for module in below), *enumerate(self.blocks[:until], 1), *above]

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

    def begin(self, frames_bfc: torch.Tensor) -> torch.Tensor:
        encoder = self._model.encoder
        hidden = first(self._model.feature_projection(frames_bfc))
        hidden = hidden + encoder.pos_conv_embed(hidden)
        return encoder.dropout(hidden if self._norm_last else encoder.layer_norm(hidden))

    def through(self, hidden_bfd: torch.Tensor, call: Call = plainly) -> Iterator[torch.Tensor]:
        shared: dict[str, Any] = {}  # WavLM's first block makes the bias of relative positions for all
        for block in self.blocks:
            made = call(block, hidden_bfd, **shared)
            hidden_bfd = first(made)
            if self._model.config.model_type == "wavlm":
                shared = {"position_bias": made[1]}
            yield hidden_bfd

    def end(self, hidden_bfd: torch.Tensor) -> torch.Tensor:
        return self._model.encoder.layer_norm(hidden_bfd) if self._norm_last else hidden_bfd


class Spectrogram(_Family):
    """Whisper's encoder. It knows sound of 30 s only: shorter clips are followed by silence, whose frames are not counted."""

    def __init__(self, model: Any, extractor: Any) -> None:
        self._model = model
        self._extractor = extractor
        self.n_layers = int(model.config.encoder_layers) + 1
        self.width = self.channels = int(model.config.d_model)
        self.normalize = False  # of the samples; what the extractor asks for, it does itself
        self.longest = int(extractor.n_samples)
        # Padded on both sides, spectrum and convolutions center frame i on sample i * step, and one sample is enough for a frame.
        self.step = 2 * int(extractor.hop_length)
        self.field, self.middle = 1, 0.0

    @property
    def stem(self) -> list[Any]:
        return [self._model.encoder.conv1, self._model.encoder.conv2]

    @property
    def frozen(self) -> list[Any]:
        return [*self.stem, self._model.encoder.embed_positions]

    def learns(self, until: int | None = None) -> list[tuple[int, Any]]:
        above = [(self.n_layers, self._model.encoder.layer_norm)] if until is None else []
        return [*enumerate(self.blocks[:until], 1), *above]

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

    def begin(self, frames_bfc: torch.Tensor) -> torch.Tensor:
        from torch.nn.functional import dropout

        encoder = self._model.encoder
        return dropout(frames_bfc + encoder.embed_positions.weight, encoder.dropout, encoder.training)

    def through(self, hidden_bfd: torch.Tensor, call: Call = plainly) -> Iterator[torch.Tensor]:
        for block in self.blocks:
            hidden_bfd = first(call(block, hidden_bfd, None))
            yield hidden_bfd

    def end(self, hidden_bfd: torch.Tensor) -> torch.Tensor:
        return self._model.encoder.layer_norm(hidden_bfd)
