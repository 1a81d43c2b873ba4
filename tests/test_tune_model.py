"""The model that is tuned: the state that heads read, what learns and what stays, and its heads, in memory and on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="tuning needs the extra 'tune'")
pytest.importorskip("transformers", reason="tuning needs the extra 'tune'")

import torch
import transformers
from safetensors.torch import load_file

from fastencode.errors import InputError
from fastencode.speech.audio import read_audio, write_audio
from fastencode.speech.config import ReadConfig
from fastencode.speech.extract import extract_frames
from fastencode.speech.layers import SpeechEncoder, unit_variance
from fastencode.speech.store import open_features
from fastencode.tune.config import LoraConfig, TuneConfig
from fastencode.tune.model import BrainModel
from speech_cases import saved_model
from tuned_model_cases import ALL, N, clips, encoder_of, kept, loss_of, model_of, step

# What is read


@pytest.mark.parametrize("kind", ALL)
def test_a_layer_is_the_one_of_all_and_those_above_are_not_computed(tmp_path: Path, kind: str) -> None:
    encoder, ran = encoder_of(tmp_path, kind), []
    for block in encoder._family.blocks:
        block.register_forward_hook(lambda *_: ran.append(1))
    with torch.no_grad():
        frames = encoder.cnn(clips())
        states = encoder.layers(frames)
        for number, state in enumerate(states):
            ran.clear()
            assert torch.equal(encoder.layer(frames, number), state) and len(ran) == number
        assert torch.equal(encoder.layer(frames), encoder.last_layer(frames))
    with pytest.raises(InputError, match=r"no layer 3: choose 0 \(what the transformer receives\) to 2"):
        encoder.layer(frames, 3)


@pytest.mark.parametrize("kind", ALL)
def test_pooled_state_is_the_mean_of_the_frames_with_sound(tmp_path: Path, kind: str) -> None:
    model, sound = model_of(tmp_path, kind), clips()
    whole = transformers.AutoModel.from_pretrained(model.encoder.name).eval()
    with torch.no_grad():
        if kind == "whisper":
            mel = transformers.WhisperFeatureExtractor()(list(sound.numpy()), sampling_rate=16000, return_tensors="pt")
            wanted = whole.encoder(mel.input_features).last_hidden_state[:, : -(-N // 320)]
        else:
            wanted = whole(sound).last_hidden_state
        state = model.state(model.front(sound), N)
    assert state.dtype == torch.float32 and state.shape == (3, 16)
    torch.testing.assert_close(state, wanted.mean(dim=1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["wav2vec2", "hubert large", "whisper"])
def test_frames_are_those_on_disk_to_the_last_bit(tmp_path: Path, kind: str) -> None:
    write_audio(tmp_path / "a.wav", 0.1 * np.random.default_rng(5).standard_normal(4 * N).clip(-5, 5), 16000)
    model, sound = model_of(tmp_path, kind), read_audio(tmp_path / "a.wav")
    read = ReadConfig("clip", tr=1.0, seconds=1.0)
    path = extract_frames({"a": tmp_path / "a.wav"}, model.encoder, tmp_path, read, show_progress=False, batch=2)["a"]
    cut = torch.from_numpy(sound[: 2 * N].reshape(2, N))  # NumPy's mean of a clip has other last bits than torch's
    made = model.front(unit_variance(cut) if model.encoder.normalize else cut)
    assert not made.requires_grad and made.is_contiguous()
    with open_features(path) as file:
        np.testing.assert_array_equal(made.numpy(), file["features"][:2])


def test_bfloat16_is_what_the_transformer_computes_in(tmp_path: Path) -> None:
    for kind in ALL:
        exact, rough = model_of(tmp_path / "a", kind), model_of(tmp_path / "b", kind, precision="bfloat16")
        frames = exact.front(clips())
        assert torch.equal(frames, rough.front(clips()))
        one, other = exact.state(frames, N), rough.state(frames, N)
        assert other.dtype == torch.float32 and 1e-5 < (one - other).detach().abs().max() < 0.1, kind
        loss_of(rough, frames).backward()
        assert all(value.dtype == value.grad.dtype == torch.float32 for value in rough.trained().values())


# What learns


@pytest.mark.parametrize("layer", [None, 1])
@pytest.mark.parametrize("kind", ALL)
def test_what_learns_is_what_moves_and_nothing_else(tmp_path: Path, kind: str, layer: int | None) -> None:
    model = model_of(tmp_path, kind, head_layer=layer)
    before, frozen = kept(model), model.frozen_hash()
    step(model)
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == set(model.trained()) and model.frozen_hash() == frozen
    layers = {model.layer_of(name) for name in moved}
    above, last = layer is None, kind == "whisper" or "large" in kind
    assert {"layer-01", "head"} <= layers and ("layer-02" in layers) == above and ("other" in layers) == (above and last)
    assert ("layer-00" in layers) == (kind != "whisper")
    frozen_parts = ("feature_extractor", "conv1", "conv2", "embed_positions", "decoder", "masked_spec_embed")
    assert not any(part in name for name in moved for part in frozen_parts)
    groups = model.groups()
    assert [group["name"] for group in groups] == ["backbone", "heads"]
    assert [id(p) for group in groups for p in group["params"]] == [id(p) for p in model.trained().values()]


@pytest.mark.parametrize("kind", ALL)
def test_the_cnn_learns_when_it_is_asked_to(tmp_path: Path, kind: str) -> None:
    model = model_of(tmp_path, kind, unfreeze=("cnn",), trained="head")
    positions = [value for name, value in kept(model).items() if "embed_positions" in name]
    frozen = model.frozen_hash()
    step(model)
    assert model.frozen_hash() != frozen
    assert {model.layer_of(name) for name in model.trained()} == {"other", "head"}
    after = [value for name, value in model.state_dict().items() if "embed_positions" in name]
    assert all(torch.equal(one, other) for one, other in zip(positions, after, strict=True))


def test_a_head_alone(tmp_path: Path) -> None:
    model = model_of(tmp_path, "hubert", trained="head", checkpointing=True)
    assert all(name.startswith("heads.") for name in model.trained()) and model.groups()[0]["params"] == []
    step(model)
    assert not model.state(model.front(clips()), N).requires_grad


def test_layers_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"head_layer=3: .* has layers 0 \(what the transformer receives\) to 2"):
        model_of(tmp_path, "wavlm", head_layer=3)
    with pytest.raises(InputError, match="below it nothing of .* learns"):
        model_of(tmp_path, "whisper", head_layer=0)
    with pytest.raises(InputError, match="no layer below it that could get an adapter"):
        model_of(tmp_path, "wavlm", head_layer=0, trained="lora")
    with pytest.raises(InputError, match="longer than the 30 s"):
        model_of(tmp_path, "whisper", clip_seconds=31.0)
    half = SpeechEncoder(saved_model(tmp_path / "half", "hubert"), dtype="bfloat16")
    with pytest.raises(InputError, match="the weights are bfloat16"):
        BrainModel(half, TuneConfig(), {"A": 1}, tr=2.0)


@pytest.mark.parametrize("kind", ALL)
def test_the_models_dropout_follows_train_mode(tmp_path: Path, kind: str) -> None:
    encoder = encoder_of(tmp_path, kind, dropout=0.3, attention_dropout=0.3, activation_dropout=0.3)
    quiet = BrainModel(encoder, TuneConfig(clip_seconds=1.0), {"A": 2}, tr=1.0)
    frames = quiet.front(clips())
    evaluated = quiet.state(frames, N)
    quiet.training_mode(True)
    assert torch.equal(quiet.state(frames, N), evaluated)
    loud = BrainModel(encoder, TuneConfig(clip_seconds=1.0, train_mode=True), {"A": 2}, tr=1.0)
    loud.training_mode(True)
    assert torch.equal(loud.front(clips()), frames), "the CNN has none"
    assert not torch.equal(loud.state(frames, N), evaluated)
    loud.training_mode(False)
    assert torch.equal(loud.state(frames, N), evaluated)


@pytest.mark.parametrize("trained", ["full", "lora"])
@pytest.mark.parametrize("kind", ALL)
def test_activations_computed_again_give_the_same_gradients(tmp_path: Path, kind: str, trained: str) -> None:
    """Also under dropout, whose draws are repeated."""
    found = []
    for again in (False, True):
        settings = {"trained": trained, "checkpointing": again, "lora": LoraConfig(dropout=0.3), "train_mode": True}
        model = model_of(tmp_path, kind, **settings)
        frames, held = model.front(clips()), []
        model.training_mode(True)
        torch.manual_seed(0)

        def pack(tensor: torch.Tensor, held: list[int] = held) -> torch.Tensor:
            held.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = loss_of(model, frames)
        before = sum(held)
        loss.backward()
        found.append((before, {name: value.grad for name, value in model.trained().items()}))
    (plain, gradients), (less, again) = found
    assert less < 0.6 * plain
    for name, gradient in gradients.items():
        torch.testing.assert_close(again[name], gradient, rtol=1e-5, atol=1e-8)


# Heads


def test_heads_follow_from_seed_and_name(tmp_path: Path) -> None:
    def weights(seed: int, *people: str, **settings: object) -> dict[str, torch.Tensor]:
        config = TuneConfig(clip_seconds=1.0, seed=seed, trained="lora", **settings)
        encoder, before = encoder_of(tmp_path, "hubert"), torch.get_rng_state()
        model = BrainModel(encoder, config, dict.fromkeys(people, 300), tr=1.0)
        assert torch.equal(torch.get_rng_state(), before), "torch's own generator is not used"
        return {name: value.detach() for name, value in model.trained().items()}

    one, other, third = weights(0, "A", "B"), weights(0, "B", "C"), weights(1, "B")
    shared = [name for name in one if name in other]
    assert len(shared) == 8 * 2 + 2 and all(torch.equal(one[name], other[name]) for name in shared)
    drawn = [name for name in shared if name in third and "lora_B" not in name]
    assert len(drawn) == 8 + 2 and not any(torch.equal(one[name], third[name]) for name in drawn)
    assert not torch.equal(one["heads.A.weight"], one["heads.B.weight"])
    like = torch.nn.Linear(16, 300)
    for name, reference in (("weight", like.weight), ("bias", like.bias)):
        value = one[f"heads.A.{name}"]
        assert value.shape == reference.shape and float(value.abs().max()) <= 0.25
        assert float(value.std()) == pytest.approx(0.25 / 3**0.5, rel=0.1)


def test_a_bottleneck_lies_between_state_and_voxels(tmp_path: Path) -> None:
    model = model_of(tmp_path, "hubert", bottleneck=4)
    head, state = model.head("A"), torch.randn(6, 16, generator=torch.Generator().manual_seed(0))
    assert head.weight.shape == (5, 4) and model.head("B").weight.shape == (7, 4)
    narrow = state @ head.bottleneck.weight.T + head.bottleneck.bias
    torch.testing.assert_close(head.reduce(state), narrow)
    torch.testing.assert_close(model.predict("A", state), narrow @ head.weight.T + head.bias)
    assert not torch.equal(head.bottleneck.weight, model.head("B").bottleneck.weight)
    assert head.bottleneck.weight.abs().max() <= 0.25 < head.weight.abs().max() <= 0.5
    assert {model.layer_of(name) for name in model.trained() if "bottleneck" in name} == {"head"}
    plain = model_of(tmp_path, "hubert").head("A")
    assert plain.reduce(state) is state


def test_one_head_for_all(tmp_path: Path) -> None:
    encoder = encoder_of(tmp_path, "hubert")
    config = TuneConfig(clip_seconds=1.0, shared_head=True)
    model = BrainModel(encoder, config, {"A": 5, "B": 5}, tr=1.0)
    assert list(model.heads) == ["shared"] and model.head("A") is model.head("B")
    with pytest.raises(InputError, match="equal columns, not A 5, B 7"):
        BrainModel(encoder, config, {"A": 5, "B": 7}, tr=1.0)
    model.save_heads(tmp_path / "heads", {"A": np.arange(5), "B": np.arange(5)})
    assert [path.name for path in (tmp_path / "heads").iterdir()] == ["shared.safetensors"]
    with pytest.raises(InputError, match="different columns"):
        model.save_heads(tmp_path / "heads", {"A": np.arange(5), "B": np.arange(1, 6)})


def test_heads_on_disk(tmp_path: Path) -> None:
    model = model_of(tmp_path, "hubert", bottleneck=3)
    voxels = {"A": np.array([4, 9, 10, 11, 30]), "B": np.arange(7)}
    model.save_heads(tmp_path / "run" / "heads", voxels)
    for who, index in voxels.items():
        found = load_file(tmp_path / "run" / "heads" / f"{who}.safetensors")
        assert set(found) == {"weight", "bias", "bottleneck.weight", "bottleneck.bias", "voxels"}
        assert found["voxels"].dtype == torch.int64 and found["voxels"].tolist() == index.tolist()
        assert all(torch.equal(found[name], value) for name, value in model.head(who).state_dict().items())
    with pytest.raises(InputError, match="head of B predicts 7 voxels, but 6 are named"):
        model.save_heads(tmp_path, {"A": np.arange(5), "B": np.arange(6)})
    with pytest.raises(InputError, match="voxels of B are not named"):
        model.save_heads(tmp_path, {"A": np.arange(5)})
    with pytest.raises(InputError, match="C has no head: there are those of A, B"):
        model.head("C")
    with pytest.raises(InputError, match=r"cannot be called 'sub\.1'"):
        BrainModel(model.encoder, TuneConfig(clip_seconds=1.0), {"sub.1": 5}, tr=1.0)
