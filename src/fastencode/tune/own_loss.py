"""The speech model's own self-supervised loss on the sound that people heard: masked prediction.

    frames (b, f, c) ─► projection ─► spans of frames masked ─► transformer ─► of the masked frames (m, d): what was there?

"clusters": which of 100 clusters, found before tuning, the frame is in. HuBERT (Hsu et al. 2021) and WavLM (Chen et al. 2022)
learned so, and both predict masked clusters of the middle layer of a model pretrained before. Their published checkpoints hold
neither the clusters nor the classifier. So clusters are found again, and the classifier is a new linear map.

"contrastive": wav2vec 2.0's (Baevski et al. 2020), for checkpoints that hold its quantizer: which of 101 quantized frames.

Axis letters: b clip, f frame, c CNN channel, d width, m masked frame, n distractor, k cluster, g group of codes.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from fastencode.errors import InputError, require
from fastencode.speech.families import Call, first, plainly
from fastencode.speech.layers import SpeechEncoder
from fastencode.tune.masked import fit_clusters, nearest_cluster, span_mask

__all__ = ["KINDS", "OwnLoss"]

KINDS = ("clusters", "contrastive")

_PER_CLUSTER = 200  # frames at most that a cluster is found on


class OwnLoss(nn.Module):
    """Masked prediction by a wav2vec2, HuBERT or WavLM encoder.

    :meth:`fit` comes first, with the pretrained weights. What is to be predicted then stays as it is while the encoder is tuned:
    clusters, and a copy of the layers that they are made of, are buffers, which ``state_dict`` holds. ``parameters()`` are those
    of the classifier only (and of the mask, where the checkpoint has none); the encoder is not part of this module.

    Dropout is the encoder's own. What is masked depends on the generator alone.

    Parameters
    ----------
    encoder : SpeechEncoder
        With the weights that it begins with.
    kind : {"clusters", "contrastive"}
        What is predicted. For "contrastive", ``encoder.name`` must be a checkpoint with a quantizer, such as wav2vec2-base.
    clusters : int
        How many (100 in HuBERT's first iteration, 500 in its second).
    layer : int, optional
        What clusters are made of: 0 is the output of the CNN, k the output of transformer layer k of the encoder as it is now.
        By default half of the layers for HuBERT and WavLM (6 of 12, as base models were trained; large ones, with 24 layers, were
        trained on layer 9 of a base model), and 0 for wav2vec2, whose own loss quantizes the output of the CNN. With ``layer``
        above 0, the layers up to it are computed twice, once without gradient.
    mask_share : float
        Share of masked frames, on average. Published: .49 for wav2vec 2.0, .56 for HuBERT.
    mask_frames : int
        Frames in a span; 10 of 20 ms is what was published.
    seed : int
        Of the clusters and of the first weights. Torch's own generator is not used.

    Raises
    ------
    InputError
        For Whisper, a kind or layer that does not exist, or a checkpoint without a quantizer.

    Notes
    -----
    How "clusters" differs from wav2vec 2.0's loss: a frame is told from all clusters of the training sound by cross-entropy,
    not from 100 other masked frames of its clip by a contrast; clusters are k-means of standardized frames, not a product of two
    learned codebooks; they do not change while the model learns, so that no loss of diversity is needed.

    How it differs from HuBERT's: the classifier is linear, where HuBERT's compares a projection with an embedding of each cluster
    by their cosine; dimensions are standardized before k-means, because a few of them are large.
    """

    def __init__(
        self,
        encoder: SpeechEncoder,
        *,
        kind: str = "clusters",
        clusters: int = 100,
        layer: int | None = None,
        mask_share: float = 0.5,
        mask_frames: int = 10,
        seed: int,
    ) -> None:
        super().__init__()
        if encoder.longest is not None:
            raise InputError(
                f"{encoder.name} has no self-supervised loss: Whisper learned from transcripts; give a wav2vec2, HuBERT or WavLM"
                " model, or other targets and own_weight=0"
            )
        if kind not in KINDS:
            raise InputError(f"kind={kind!r}: choose {' or '.join(KINDS)}")
        if clusters < 2 or not 0 < mask_share < 1 or mask_frames < 1:
            raise InputError(
                f"clusters={clusters}, mask_share={mask_share}, mask_frames={mask_frames}: give at least 2 clusters, a share"
                " between 0 and 1 and at least 1 frame"
            )
        self._encoder, self._share, self._length = encoder, mask_share, mask_frames
        generator = torch.Generator().manual_seed(seed)
        self.predict = _Contrast(encoder) if kind == "contrastive" else _Clusters(encoder, layer, clusters, seed, generator)
        has_one = getattr(encoder.model, "masked_spec_embed", None) is not None
        # As transformers makes it where a checkpoint is without.
        self.mask_d = None if has_one else nn.Parameter(torch.rand(encoder.width, generator=generator))
        self.to(encoder.device)

    def fit(self, frames_bfc: torch.Tensor) -> None:
        """Find the clusters; for "contrastive" there is nothing to find.

        Parameters
        ----------
        frames_bfc : tensor, shape (b, f, c)
            The CNN's, of clips of the training stories; at most 200 frames of them for each cluster are used.

        Raises
        ------
        InputError
            If fewer frames differ than there are clusters, or one is not finite.
        """
        self.predict.fit(frames_bfc)

    def forward(self, frames_bfc: torch.Tensor, generator: torch.Generator, call: Call = plainly) -> torch.Tensor:
        """The loss of a batch.

        Parameters
        ----------
        frames_bfc : tensor, shape (b, f, c)
            The CNN's. They get no gradient, also where the CNN learns: the targets of wav2vec2 are made of them, and would become
            easy instead of being predicted.
        generator : torch.Generator
            Draws the masks, and the distractors of "contrastive".
        call : callable, optional
            Calls each transformer layer, as for :meth:`fastencode.speech.layers.SpeechEncoder.layer`.

        Returns
        -------
        tensor
            A scalar: the mean cross-entropy over masked frames, in nats.

        Raises
        ------
        InputError
            If the clusters were not found yet.
        """
        frames_bfc = frames_bfc.detach()
        draws_bf = torch.rand(frames_bfc.shape[:2], generator=generator, device=generator.device, dtype=torch.float64)
        mask_bf = torch.from_numpy(span_mask(draws_bf.cpu().numpy(), self._share, self._length))
        hidden_bfd = self._hidden(frames_bfc, mask_bf.to(frames_bfc.device), call)
        return self.predict(frames_bfc, hidden_bfd, mask_bf, generator)

    def _hidden(self, frames_bfc: torch.Tensor, mask_bf: torch.Tensor, call: Call) -> torch.Tensor:
        """The encoder's output where masked frames are all the same to it. transformers masks in training mode only."""
        model = self._encoder.model
        mask_d = model.masked_spec_embed if self.mask_d is None else self.mask_d

        def hide(_module: nn.Module, _inputs: Any, output: Any) -> Any:
            projected_bfd = first(output)
            hidden_bfd = torch.where(mask_bf[..., None], mask_d.to(projected_bfd.dtype), projected_bfd)
            return (hidden_bfd, *output[1:]) if isinstance(output, tuple) else hidden_bfd

        handle = model.feature_projection.register_forward_hook(hide)
        try:
            return self._encoder.layer(frames_bfc, None, call)
        finally:
            handle.remove()


class _Frozen(nn.Module):
    """A module that does not learn and stays in evaluation mode: its weights become buffers."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        for part in module.modules():
            for name, value in list(part.named_parameters(recurse=False)):
                delattr(part, name)
                part.register_buffer(name, value.detach().clone())
        self.module: Any = module
        self.train(False)

    def train(self, mode: bool = True) -> _Frozen:
        super().train(False)
        return self


class _Clusters(nn.Module):
    """The cluster that a masked frame is in, by a linear classifier."""

    mean_c: torch.Tensor
    scale_c: torch.Tensor
    centers_kc: torch.Tensor

    def __init__(self, encoder: SpeechEncoder, layer: int | None, clusters: int, seed: int, generator: torch.Generator) -> None:
        super().__init__()
        if layer is None:
            layer = 0 if encoder.model.config.model_type == "wav2vec2" else max(1, (encoder.n_layers - 1) // 2)
        if not 0 <= layer < encoder.n_layers:
            raise InputError(f"layer={layer}: {encoder.name} has 0 (the CNN) to {encoder.n_layers - 1}")
        self._layer, self._seed, self._fitted = layer, seed, False
        if layer:
            self._teacher = _lower_layers(encoder, layer)
            self.teacher = _Frozen(self._teacher.model)
        width = encoder.width if layer else int(encoder.model.config.conv_dim[-1])
        for name, shape in (("mean_c", (width,)), ("scale_c", (width,)), ("centers_kc", (clusters, width))):
            self.register_buffer(name, torch.full(shape, torch.nan))
        self.classify = nn.utils.skip_init(nn.Linear, encoder.width, clusters)
        for value in self.classify.parameters():
            nn.init.uniform_(value, -(encoder.width**-0.5), encoder.width**-0.5, generator=generator)

    def fit(self, frames_bfc: torch.Tensor) -> None:
        with torch.no_grad():
            points_nc = torch.cat([self._points(some).flatten(0, 1).cpu() for some in frames_bfc.split(8)])
            draw = torch.Generator().manual_seed(self._seed)
            points_nc = points_nc[torch.randperm(len(points_nc), generator=draw)[: _PER_CLUSTER * len(self.centers_kc)]]
            mean_c, sd_c = points_nc.mean(dim=0), points_nc.std(dim=0, correction=0)
            scale_c = torch.where(sd_c > 0, 1 / sd_c, 0.0)
            points_nc = ((points_nc - mean_c) * scale_c).to(self.centers_kc.device)
            self.centers_kc.copy_(fit_clusters(points_nc, len(self.centers_kc), self._seed))
            self.mean_c.copy_(mean_c)
            self.scale_c.copy_(scale_c)

    def forward(
        self, frames_bfc: torch.Tensor, hidden_bfd: torch.Tensor, mask_bf: torch.Tensor, _generator: torch.Generator
    ) -> torch.Tensor:
        self._fitted = self._fitted or bool(torch.isfinite(self.centers_kc).all())
        if not self._fitted:
            raise InputError("the clusters of the model's own loss were not found yet: call fit with frames of training clips")
        mask_bf = mask_bf.to(frames_bfc.device)
        with torch.no_grad():
            points_mc = (self._points(frames_bfc)[mask_bf] - self.mean_c) * self.scale_c
            with torch.autocast(frames_bfc.device.type, enabled=False):
                labels_m = nearest_cluster(points_mc, self.centers_kc)
        return nn.functional.cross_entropy(self.classify(hidden_bfd[mask_bf].float()).float(), labels_m)

    def _points(self, frames_bfc: torch.Tensor) -> torch.Tensor:
        frames_bfc = frames_bfc.to(self.mean_c.device)
        return (self._teacher.layer(frames_bfc, self._layer) if self._layer else frames_bfc).float()


def _lower_layers(encoder: SpeechEncoder, layer: int) -> SpeechEncoder:
    """A copy of what lies between the CNN and the output of a layer."""
    teacher = copy.deepcopy(encoder)
    del teacher.model.encoder.layers[layer:]
    del teacher.model.feature_extractor
    return teacher


class _Contrast(nn.Module):
    """The quantized frame that was masked, told from quantized frames elsewhere under the clip's mask.

    As in pretraining, with the quantizer as pretraining left it: fixed codes cannot become all the same, so the loss of diversity
    is left out.
    """

    def __init__(self, encoder: SpeechEncoder) -> None:
        super().__init__()
        if encoder.model.config.model_type != "wav2vec2":
            raise InputError(f"{encoder.name} is no wav2vec2 model: kind=contrastive is its loss; give kind=clusters")
        transformers = require("transformers", "tune")
        whole, report = transformers.Wav2Vec2ForPreTraining.from_pretrained(
            encoder.name, dtype=torch.float32, output_loading_info=True
        )
        needed = ("quantizer.", "project_q.", "project_hid.")
        if any(key.startswith(needed) for key in report["missing_keys"]):
            raise InputError(f"{encoder.name} holds no quantizer, only the encoder: give kind=clusters")
        self._distractors, self._temperature = whole.config.num_negatives, whole.config.contrastive_logits_temperature
        # Quantized are frames after the first LayerNorm, as pretraining left it.
        self.frozen = _Frozen(nn.ModuleList([whole.wav2vec2.feature_projection.layer_norm, whole.quantizer, whole.project_q]))
        self.project = whole.project_hid.train(False)

    def fit(self, frames_bfc: torch.Tensor) -> None:
        """Nothing: the codes came with the checkpoint."""

    def forward(
        self, frames_bfc: torch.Tensor, hidden_bfd: torch.Tensor, mask_bf: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        other_mn = distractors(mask_bf, self._distractors, generator).to(frames_bfc.device)
        mask_bf = mask_bf.to(frames_bfc.device)
        norm, quantize, project = self.frozen.module
        with torch.no_grad(), torch.autocast(frames_bfc.device.type, enabled=False):
            normed_mc = norm(frames_bfc[mask_bf].float())
            target_md = nn.functional.normalize(project(quantize(normed_mc[None])[0][0]), dim=1)
            code_mg = quantize.weight_proj(normed_mc).unflatten(1, (quantize.num_groups, -1)).argmax(dim=2)
            same_mn = (code_mg[other_mn] == code_mg[:, None]).all(dim=2)
        found_md = nn.functional.normalize(self.project(hidden_bfd[mask_bf]).float(), dim=1)
        cosine_mm = found_md @ target_md.T
        other_cosine_mn = cosine_mm.gather(1, other_mn).masked_fill(same_mn, -torch.inf)
        logits = torch.cat([cosine_mm.diagonal()[:, None], other_cosine_mn], dim=1) / self._temperature
        return nn.functional.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device))


def distractors(mask_bf: torch.Tensor, n: int, generator: torch.Generator) -> torch.Tensor:
    """For each masked frame n others of the same clip, (m, n), as places among all masked frames; itself where it is alone."""
    chosen, start = [], 0
    for count in mask_bf.sum(dim=1).tolist():
        here_m1 = torch.arange(count)[:, None]
        drawn_mn = torch.randint(max(count - 1, 1), (count, n), generator=generator, device=generator.device).cpu()
        chosen.append(start + (drawn_mn + (drawn_mn >= here_m1)).clamp(max=count - 1))
        start += count
    return torch.cat(chosen)
