"""The model's own loss: what is masked, what is to be predicted, that it is learned, and that it repeats itself."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from fastencode.errors import InputError

pytest.importorskip("torch", reason="tuning needs the extra 'tune'")
pytest.importorskip("transformers", reason="tuning needs the extra 'tune'")

import torch
import transformers

from fastencode.speech.layers import SpeechEncoder
from fastencode.tune.masked import fit_clusters, nearest_cluster, span_mask
from fastencode.tune.own_loss import OwnLoss, distractors
from speech_cases import saved_model

torch.set_num_threads(1)  # as the command does; two threads on a busy machine wait for each other
FAMILIES = ("wav2vec2", "hubert", "wavlm")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: saved_model(tmp_path_factory.mktemp(name), name) for name in FAMILIES}


def sounds(n: int, seed: int) -> torch.Tensor:
    """Clips of four tones that follow each other in a fixed order: what is masked can be told from what is around it."""
    rng = np.random.default_rng(seed)
    tones = (rng.integers(0, 4, (n, 1)) + np.arange(8)) % 4
    pitch = np.repeat(400.0 * 2**tones, 500, axis=1)
    phase = 2 * np.pi * np.cumsum(pitch, axis=1) / 16000
    return torch.from_numpy((np.sin(phase) + 0.05 * rng.standard_normal(pitch.shape)).astype(np.float32))


@torch.no_grad()
def frames_of(encoder: SpeechEncoder, n: int = 12, seed: int = 0) -> torch.Tensor:
    return encoder.cnn(sounds(n, seed))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_masks_cover_the_share_asked_for() -> None:
    mask = span_mask(np.random.default_rng(0).random((200, 250)), 0.4, 6)
    assert mask.shape == (200, 250) and mask.any(axis=1).all()
    assert mask[:, 10:].mean() == pytest.approx(0.4, abs=0.02)
    # Every run of masked frames that starts after the first frames and ends before the last is a whole span or several.
    edges = np.diff(mask.astype(int), axis=1, prepend=0, append=0)
    lengths = np.flatnonzero(edges[0] == -1) - np.flatnonzero(edges[0] == 1)
    assert (lengths[:-1] >= 6).all()
    assert span_mask(np.random.default_rng(0).random((3, 20)), 1e-9, 8).sum() == 3
    assert span_mask(np.zeros((2, 3)), 0.5, 8).all(), "spans longer than a clip"


def test_clusters_are_those_that_were_drawn() -> None:
    rng = np.random.default_rng(0)
    true = 10 * rng.standard_normal((12, 20))
    label = rng.integers(0, 12, 3000)
    points = torch.from_numpy((true[label] + rng.standard_normal((3000, 20))).astype(np.float32))
    centers = fit_clusters(points, 12, seed=1)
    distance = torch.cdist(torch.from_numpy(true).float(), centers)
    assert sorted(distance.argmin(dim=1).tolist()) == list(range(12)) and distance.min(dim=1).values.max() < 0.6
    np.testing.assert_array_equal(nearest_cluster(points, centers), torch.cdist(points, centers).argmin(dim=1))
    assert torch.equal(centers, fit_clusters(points, 12, seed=1))
    with pytest.raises(InputError, match="only 2 of 30 frames differ, fewer than 3 clusters"):
        fit_clusters(torch.eye(2).repeat(15, 1), 3, seed=0)
    with pytest.raises(InputError, match="NaN"):
        fit_clusters(torch.full((5, 2), torch.nan), 2, seed=0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layer", [None, 0, 2])
def test_the_loss_is_that_of_a_plain_computation(models: dict[str, Path], family: str, layer: int | None) -> None:
    """Masks given to transformers' own model, labels from SciPy's distances: the same cross-entropy."""
    from scipy.cluster.vq import vq

    encoder = SpeechEncoder(models[family])
    own = OwnLoss(encoder, clusters=7, layer=layer, seed=3)
    frames = frames_of(encoder)
    own.fit(frames)
    loss = float(own(frames, generator(5)).detach())
    mask = torch.from_numpy(span_mask(torch.rand(frames.shape[:2], generator=generator(5), dtype=torch.float64).numpy(), 0.5, 10))

    whole = transformers.AutoModel.from_pretrained(models[family]).eval()
    where = {"wav2vec2": 0, "hubert": 1, "wavlm": 1}[family] if layer is None else layer
    with torch.no_grad():
        every = whole(sounds(12, 0), output_hidden_states=True)
        points = (every.hidden_states[where] if where else whole.feature_extractor(sounds(12, 0)).transpose(1, 2)).numpy()
        hidden = whole(sounds(12, 0), mask_time_indices=mask).last_hidden_state[mask]
        points = (points - points.reshape(-1, points.shape[2]).mean(axis=0)) / points.reshape(-1, points.shape[2]).std(axis=0)
        labels, _ = vq(points[mask.numpy()], own.predict.centers_kc.numpy())
        wanted = torch.nn.functional.cross_entropy(own.predict.classify(hidden), torch.from_numpy(labels).long())
    assert len(set(labels.tolist())) > 3
    assert loss == pytest.approx(float(wanted), rel=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_training_lowers_the_loss_and_leaves_the_cnn_alone(models: dict[str, Path], family: str) -> None:
    encoder = SpeechEncoder(models[family])
    encoder.freeze_cnn()
    state = torch.random.get_rng_state()
    own = OwnLoss(encoder, clusters=6, mask_frames=4, seed=0)
    own.fit(frames_of(encoder))
    held_out = frames_of(encoder, seed=1)
    before, cnn = float(own(held_out, generator(99)).detach()), encoder.cnn_hash()
    learning = [p for p in encoder.model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam([{"params": learning, "lr": 3e-3}, {"params": own.parameters(), "lr": 1e-2}])
    draw = generator(1)
    for step in range(60):
        loss = own(encoder.cnn(sounds(8, 10 + step)), draw)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert torch.equal(state, torch.random.get_rng_state()), "torch's own generator is not used"
    assert float(own(held_out, generator(99)).detach()) < 0.75 * before
    for name, value in encoder.model.named_parameters():
        inside = name.startswith(("encoder.layers", "feature_projection", "masked_spec"))
        assert not inside or value.grad is not None, name
        assert not name.startswith("feature_extractor") or value.grad is None, name
    assert encoder.cnn_hash() == cnn


def test_frames_of_a_cnn_that_learns_get_no_gradient(models: dict[str, Path]) -> None:
    encoder = SpeechEncoder(models["wav2vec2"])
    own = OwnLoss(encoder, clusters=6, seed=0)
    own.fit(frames_of(encoder))
    own(encoder.cnn(sounds(4, 0)), generator()).backward()
    assert all(p.grad is None for p in encoder.model.feature_extractor.parameters())
    assert encoder.model.encoder.layers[0].attention.q_proj.weight.grad is not None


@pytest.mark.parametrize("family", ["wav2vec2", "hubert"])
def test_equal_generators_give_equal_losses(models: dict[str, Path], family: str) -> None:
    calls = itertools.count()

    def loss(seed: int, mask_seed: int) -> float:
        encoder = SpeechEncoder(models[family])
        own = OwnLoss(encoder, clusters=8, seed=seed)
        frames = frames_of(encoder)
        own.fit(frames)
        torch.manual_seed(next(calls))  # nothing depends on it: no dropout, in train() neither
        return float(own.train()(frames, generator(mask_seed)).detach())

    assert loss(0, 1) == loss(0, 1)
    assert len({loss(0, 1), loss(0, 2), loss(1, 1)}) == 3


@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoint_restores_targets_beside_a_tuned_encoder(models: dict[str, Path], family: str) -> None:
    """Also where the clusters are of a layer that has been tuned since: the copy of the layers comes from the checkpoint."""
    encoder = SpeechEncoder(models[family])
    own = OwnLoss(encoder, clusters=8, seed=0)
    frames = frames_of(encoder)
    own.fit(frames)
    with torch.no_grad():
        for value in encoder.model.encoder.parameters():
            value.add_(0.3 * torch.randn(value.shape, generator=generator(7)))
    wanted = own(frames, generator(3)).detach()
    again = OwnLoss(encoder, clusters=8, seed=4)
    with pytest.raises(InputError, match="call fit"):
        again(frames, generator(3))
    again.load_state_dict(own.state_dict())
    assert torch.equal(again(frames, generator(3)).detach(), wanted)
    learned = sum(p.numel() for p in own.parameters())
    assert learned == 8 * (encoder.width + 1), "the classifier alone"


def test_autocast_and_layers_that_are_called_otherwise(models: dict[str, Path]) -> None:
    from torch.utils.checkpoint import checkpoint

    encoder, called = SpeechEncoder(models["hubert"]), []

    def call(block: torch.nn.Module, *inputs: object, **options: object) -> object:
        called.append(block)
        return checkpoint(block, *inputs, use_reentrant=False, **options)

    own = OwnLoss(encoder, clusters=8, seed=0)
    frames = frames_of(encoder)
    own.fit(frames)
    plain = own(frames, generator(3))
    plain.backward()
    weight = encoder.model.encoder.layers[0].attention.q_proj.weight
    wanted, weight.grad = weight.grad, None
    loss = own(frames, generator(3), call)
    loss.backward()
    assert torch.equal(loss.detach(), plain.detach()) and called == list(encoder.model.encoder.layers)
    np.testing.assert_allclose(weight.grad, wanted, rtol=1e-5, atol=1e-8)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = own(frames, generator(3))
    assert rounded.dtype == torch.float32 and float(rounded.detach()) == pytest.approx(float(plain.detach()), rel=0.05)


def test_a_model_without_a_mask_gets_one(tmp_path: Path) -> None:
    """The shipped model is such a one."""
    encoder = SpeechEncoder(saved_model(tmp_path, "hubert"))
    del encoder.model.masked_spec_embed
    own = OwnLoss(encoder, clusters=8, seed=0)
    frames = frames_of(encoder)
    own.fit(frames)
    own(frames, generator()).backward()
    assert own.mask_d is not None and own.mask_d.shape == (16,) and own.mask_d.grad.abs().sum() > 0


def test_a_large_models_loss_and_lora(tmp_path: Path) -> None:
    """A final LayerNorm, and adapters that were added before: their targets are those of the model alone."""
    peft = pytest.importorskip("peft")
    folder = saved_model(tmp_path, "hubert", stable=True)
    plain, tuned = SpeechEncoder(folder), SpeechEncoder(folder)
    peft.inject_adapter_in_model(peft.LoraConfig(r=2, target_modules=["q_proj"]), tuned.model)
    losses = []
    for encoder in (plain, tuned):
        own = OwnLoss(encoder, clusters=8, seed=0)
        frames = frames_of(encoder)
        own.fit(frames)
        losses.append(own(frames, generator(2)))
    assert float(losses[0].detach()) == pytest.approx(float(losses[1].detach()), rel=1e-5)
    losses[1].backward()
    adapters = [p for name, p in tuned.model.named_parameters() if "lora_B" in name]
    assert len(adapters) == 2 and all(p.grad is not None for p in adapters)


def test_what_has_no_such_loss(models: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no self-supervised loss"):
        OwnLoss(SpeechEncoder(saved_model(tmp_path, "whisper")), seed=0)
    encoder = SpeechEncoder(models["hubert"])
    with pytest.raises(InputError, match="kind='masked': choose clusters or contrastive"):
        OwnLoss(encoder, kind="masked", seed=0)
    with pytest.raises(InputError, match="layer=3: .* has 0 .* to 2"):
        OwnLoss(encoder, layer=3, seed=0)
    with pytest.raises(InputError, match=r"mask_share=1.0"):
        OwnLoss(encoder, mask_share=1.0, seed=0)
    with pytest.raises(InputError, match="is no wav2vec2 model"):
        OwnLoss(encoder, kind="contrastive", seed=0)
    with pytest.raises(InputError, match="holds no quantizer"):
        OwnLoss(SpeechEncoder(models["wav2vec2"]), kind="contrastive", seed=0)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretrained")
    small = transformers.Wav2Vec2Model.from_pretrained(saved_model(folder / "plain", "wav2vec2")).config
    torch.manual_seed(0)
    small.num_codevectors_per_group, small.codevector_dim, small.proj_codevector_dim, small.num_negatives = 5, 12, 10, 9
    whole = transformers.Wav2Vec2ForPreTraining(small)
    torch.nn.init.normal_(whole.quantizer.weight_proj.weight, std=3.0)
    torch.nn.init.normal_(whole.project_hid.weight, std=1.0)
    whole.save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return folder


def test_the_contrast_is_that_of_transformers(pretrained: Path) -> None:
    encoder = SpeechEncoder(pretrained)
    own = OwnLoss(encoder, kind="contrastive", seed=0)
    frames = frames_of(encoder)
    own.fit(frames)
    loss = float(own(frames, generator(6)).detach())
    draw = generator(6)
    mask = torch.from_numpy(span_mask(torch.rand(frames.shape[:2], generator=draw, dtype=torch.float64).numpy(), 0.5, 10))
    others = torch.zeros((*mask.shape, 9), dtype=torch.long)
    others[mask] = mask.flatten().nonzero()[:, 0][distractors(mask, 9, draw)]
    whole = transformers.Wav2Vec2ForPreTraining.from_pretrained(pretrained).eval()
    with torch.no_grad():
        found = whole(sounds(12, 0), mask_time_indices=mask, sampled_negative_indices=others)
    assert loss == pytest.approx(float(found.contrastive_loss) / int(mask.sum()), rel=1e-4)
    assert 0.5 < loss < 10


def test_the_contrast_is_learned(pretrained: Path) -> None:
    encoder = SpeechEncoder(pretrained)
    encoder.freeze_cnn()
    own = OwnLoss(encoder, kind="contrastive", seed=0)
    held_out = frames_of(encoder, seed=1)
    before, codes = float(own(held_out, generator(9)).detach()), own.predict.frozen.state_dict()
    codes = {name: value.clone() for name, value in codes.items()}
    optimizer = torch.optim.Adam([*(p for p in encoder.model.parameters() if p.requires_grad), *own.parameters()], lr=3e-3)
    draw = generator(1)
    for step in range(80):
        optimizer.zero_grad()
        own.train()(frames_of(encoder, 8, 10 + step), draw).backward()
        optimizer.step()
    assert float(own(held_out, generator(9)).detach()) < 0.8 * before
    assert all(torch.equal(value, codes[name]) for name, value in own.predict.frozen.state_dict().items())


def test_distractors_are_other_masked_frames_of_the_clip() -> None:
    mask = torch.zeros((3, 30), dtype=torch.bool)
    mask[0, 3:9] = mask[1, 5] = mask[2, ::2] = True
    clip = mask.nonzero()[:, 0]
    found = distractors(mask, 200, generator())
    assert found.shape == (22, 200) and (clip[found] == clip[:, None]).all()
    alone = clip == 1
    assert (found[~alone] != torch.arange(22)[~alone, None]).all() and (found[alone] == torch.arange(22)[alone, None]).all()
    assert set(found[8].tolist()) == set(range(7, 22)) - {8}, "each of the others"
