"""A speech encoder with heads from its state to voxels: what learns, what stays as it is, and what is saved.

    clips ─front()─► frames ─state()─► state ─head(who)─► responses
                CNN            transformer, pooled

Axis letters: b clip, n audio sample, f frame, c CNN channel, r row of responses, d width, v voxel.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import nn
from torch.utils.checkpoint import checkpoint

from fastencode.errors import InputError
from fastencode.speech.layers import SpeechEncoder
from fastencode.tune.adapters import add_adapters, dropouts, merged_weights, save_adapter
from fastencode.tune.config import TuneConfig
from fastencode.tune.heads import LOBES, LinearHead, Rows, delayed, scan_rows

__all__ = ["BrainModel", "Rows"]

SHARED = "shared"
"""Name of the head that all participants share."""


class BrainModel(nn.Module):
    """Predicts responses to scans from clips of sound.

    Parameters
    ----------
    encoder : SpeechEncoder
        wav2vec2, HuBERT, WavLM or Whisper, in float32; tuned in place. Only Whisper's encoder is used.
    config : TuneConfig
        What learns, which layer is read and how, and the seed.
    voxels : participant → number of voxels
        Each gets a head of its own, whose first weights depend on the seed and the name only; or all get one.
    tr : float
        Seconds from scan to scan.

    Attributes
    ----------
    encoder : SpeechEncoder
    backbone : transformers.PreTrainedModel
        ``encoder.model``: its parameters are named ``backbone.…``.
    heads : nn.ModuleDict
        Participant → head; ``shared`` alone with ``config.shared_head``.

    Raises
    ------
    InputError
        If the encoder is not in float32, there is no such layer, nothing of the model would learn that should, an adapter's
        target matches nothing, clips are longer than the model hears, participants who share a head have different numbers of
        voxels, or a name cannot be that of a head.
    MissingLibraryError
        If adapters are asked for and peft is not installed (extra ``tune``).
    """

    def __init__(self, encoder: SpeechEncoder, config: TuneConfig, voxels: Mapping[str, int], *, tr: float) -> None:
        super().__init__()
        if encoder.dtype != "float32":
            raise InputError(f"the weights are {encoder.dtype}: open the model with dtype float32, and set precision instead")
        if config.head_layer is not None and config.head_layer >= encoder.n_layers:
            raise InputError(
                f"head_layer={config.head_layer}: {encoder.name} has layers 0 (what the transformer receives)"
                f" to {encoder.n_layers - 1}"
            )
        encoder.frame_times(round(config.clip_seconds * encoder.sample_rate))
        self.encoder, self.config, self.tr = encoder, config, tr
        self.backbone = encoder.model
        self._cnn_learns = "cnn" in config.unfreeze
        self._choose_what_learns()
        width = encoder.width * (len(config.delays) if config.head == "delays" else 1)
        self.heads = nn.ModuleDict()
        for name, count in _sizes(voxels, config.shared_head).items():
            try:
                self.heads[name] = LinearHead(width, count, config.bottleneck, config.seed, name)
            except KeyError as error:
                raise InputError(f"a head cannot be called {name!r} ({error.args[0]}): rename the participant") from error
        self.heads.to(encoder.device)
        self.training_mode(False)

    def front(self, clips_bn: torch.Tensor) -> torch.Tensor:
        """Clips (b, n) → frames (b, f, c).

        Clips are as the model wants them: of zero mean and unit variance, where ``encoder.normalize``. Always in float32. Where
        the CNN is frozen there is no gradient, and frames are those of :func:`fastencode.speech.extract.extract_frames`.
        """
        with contextlib.nullcontext() if self._cnn_learns else torch.no_grad():
            return self.encoder.cnn(clips_bn).contiguous()

    def state(self, frames_bfc: torch.Tensor, n_samples: int, rows: Rows | None = None) -> torch.Tensor:
        """What heads read, (r, d) float32, one row for each row of responses.

        Parameters
        ----------
        frames_bfc : tensor
            From :meth:`front`, or kept of it.
        n_samples : int
            Samples in a clip: Whisper's frames always cover 30 s, and only those that carry the clip count.
        rows : Rows, optional
            For the head delays: where the clips lie.

        Returns
        -------
        tensor
            For the head pooled, the mean over the frames of each clip, r = b. For the head delays, the clips' last TRs resampled
            to scans, z-scored over the kept rows and the ``max(delays)`` rows before them, and delayed; r rows are kept.
        """
        times = self.encoder.frame_times(n_samples)
        with self.autocast():
            hidden = self.encoder.layer(frames_bfc, self.config.head_layer, self.call)
        sounding_bfd = hidden[:, : len(times)].float()
        if self.config.head == "pooled":
            return sounding_bfd.mean(dim=1)
        if rows is None:
            raise InputError("head=delays resamples consecutive clips: say where they lie (rows)")
        rows_td = scan_rows(sounding_bfd, times, n_samples / self.encoder.sample_rate, rows.ends, self.tr)
        return delayed(rows_td, self.config.delays, rows.keep)

    def autocast(self) -> torch.autocast:
        """A context in which the transformer computes in ``config.precision``."""
        device = torch.device(self.encoder.device).type
        return torch.autocast(device, torch.bfloat16, enabled=self.config.precision == "bfloat16")

    def head(self, who: str) -> LinearHead:
        """The head of a participant."""
        name = SHARED if self.config.shared_head else who
        if name not in self.heads:
            raise InputError(f"{who} has no head: there are those of {', '.join(self.heads)}")
        head = self.heads[name]
        assert isinstance(head, LinearHead)
        return head

    def predict(self, who: str, state_rd: torch.Tensor) -> torch.Tensor:
        """Responses (r, v) of a participant from the state."""
        return self.head(who)(state_rd)

    @property
    def halo(self) -> tuple[int, int]:
        """How many clips before and after those of a batch's responses :meth:`state` needs; fewer at the ends of a story."""
        return (LOBES + max(self.config.delays), LOBES) if self.config.head == "delays" else (0, 0)

    def training_mode(self, on: bool) -> None:
        """Turn on what is different while training, or turn it off.

        That is the adapters' dropout, the model's own with ``config.train_mode``, and computing activations again with
        ``config.checkpointing``.
        """
        self.eval()
        self.training = on  # of this module alone: :meth:`call` asks it
        if on and self.config.train_mode:
            self.backbone.train()  # no LayerDrop: the encoder calls every layer
        for dropout in dropouts(self.backbone) if self.config.trained == "lora" else ():
            dropout.train(on)

    def trained(self) -> dict[str, nn.Parameter]:
        """What learns: name → parameter, in an order that does not change."""
        return {name: value for name, value in self.named_parameters() if value.requires_grad}

    def groups(self) -> list[dict[str, Any]]:
        """The optimizer's two groups, ``{"name": …, "params": […]}``: backbone, which may have none, and heads."""
        trained = self.trained()
        heads = [value for name, value in trained.items() if name.startswith("heads.")]
        return [
            {"name": "backbone", "params": [value for name, value in trained.items() if not name.startswith("heads.")]},
            {"name": "heads", "params": heads},
        ]

    def layer_of(self, name: str) -> str:
        """Where a parameter of :meth:`trained` lies.

        ``layer-00`` makes what the transformer receives, ``layer-01`` is its first block; ``head``; ``other`` is the rest: the
        CNN, and the LayerNorm after the last block.
        """
        if name.startswith("heads."):
            return "head"
        inside = [number for start, number in self._layers.items() if name.startswith(start)]
        return f"layer-{inside[0]:02d}" if inside else "other"

    def frozen_hash(self) -> str:
        """SHA-256 of the CNN's weights (Whisper: of its two convolutions and its positions)."""
        return self.encoder.cnn_hash()

    def save(self, folder: Path) -> None:
        """Write the speech model as a Hugging Face folder. The model in memory stays as it is.

        Adapters are merged into the weights, and written to ``folder/adapter`` besides.
        """
        if self.config.trained == "lora":
            self.encoder.save(folder, merged_weights(self.backbone))
            save_adapter(self.encoder, self.config.lora, folder / "adapter")
        else:
            self.encoder.save(folder)

    def save_heads(self, folder: Path, voxels: Mapping[str, NDArray[Any]]) -> None:
        """Write each head as ``<participant>.safetensors``.

        Parameters
        ----------
        folder : Path
            Made if it is not there.
        voxels : participant → (v,) column indices of the data set
            Those that the head predicts. Of a shared head: the same for all participants.

        Raises
        ------
        InputError
            If a participant's are missing, or as many as the head does not have.
        """
        folder.mkdir(parents=True, exist_ok=True)
        for name in self.heads:
            head, index = self.head(name), _index(name, voxels, self.config.shared_head)
            if len(index) != len(head.weight):
                raise InputError(f"the head of {name} predicts {len(head.weight)} voxels, but {len(index)} are named")
            weights = {key: value.detach().cpu().contiguous() for key, value in head.state_dict().items()}
            save_file({**weights, "voxels": torch.from_numpy(index)}, folder / f"{name}.safetensors")

    def _choose_what_learns(self) -> None:
        """Set ``requires_grad`` of the whole speech model, add adapters, and note which layer each parameter lies in."""
        config, encoder = self.config, self.encoder
        self.backbone.requires_grad_(False)
        names = {module: name for name, module in self.backbone.named_modules()}
        self._layers = {f"backbone.{names[part]}.": number for number, part in encoder.parts() if number < encoder.n_layers}
        if config.trained == "lora":
            add_adapters(encoder, config.lora, config.head_layer, config.seed)
        learning = [part for _, part in encoder.parts(config.head_layer)] if config.trained == "full" else []
        if config.trained == "full" and not learning:
            raise InputError(f"head_layer=0: below it nothing of {encoder.name} learns: read a higher layer, or train the head")
        for module in (*learning, *(encoder.stem if self._cnn_learns else ())):
            module.requires_grad_(True)

    def call(self, block: nn.Module, *inputs: Any, **options: Any) -> Any:
        """A transformer layer; while training with ``config.checkpointing``, one whose activations are not kept."""
        if self.training and self.config.checkpointing and torch.is_grad_enabled():
            return checkpoint(block, *inputs, use_reentrant=False, **options)
        return block(*inputs, **options)


def _sizes(voxels: Mapping[str, int], shared: bool) -> dict[str, int]:
    """Head → its number of voxels."""
    if not shared:
        return dict(voxels)
    if len(set(voxels.values())) > 1:
        counts = ", ".join(f"{who} {count}" for who, count in voxels.items())
        raise InputError(f"participants who share a head need equal columns, not {counts}: map them to a common space first")
    return dict.fromkeys([SHARED] if voxels else [], max(voxels.values(), default=0))


def _index(name: str, voxels: Mapping[str, NDArray[Any]], shared: bool) -> NDArray[np.int64]:
    """The columns that a head predicts."""
    given = list(voxels.values()) if shared else [voxels[name]] if name in voxels else []
    if not given:
        raise InputError(f"the voxels of {name} are not named: give the columns that its head predicts")
    first = np.asarray(given[0], np.int64)
    if any(not np.array_equal(first, other) for other in given[1:]):
        raise InputError("participants who share a head have different columns: give all the same ones")
    return first
