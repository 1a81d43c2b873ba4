"""Adapters learn in every family, drop inputs while training only, and what is saved of them predicts what was trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="tuning needs the extra 'tune'")
pytest.importorskip("transformers", reason="tuning needs the extra 'tune'")
pytest.importorskip("peft", reason="tuning needs the extra 'tune'")

import peft
import torch
import transformers
from safetensors.torch import load_file

from fastencode.errors import InputError
from fastencode.speech.layers import SpeechEncoder
from fastencode.tune import adapters
from fastencode.tune.config import LoraConfig, TuneConfig
from fastencode.tune.model import BrainModel
from tuned_model_cases import ALL, N, clips, encoder_of, kept, loss_of, model_of, step


@pytest.mark.parametrize("layer", [None, 1])
@pytest.mark.parametrize("kind", ALL)
def test_every_adapter_learns_and_has_an_effect(tmp_path: Path, kind: str, layer: int | None) -> None:
    more = ("fc1",) if kind == "whisper" else ("intermediate_dense",)
    lora = LoraConfig(rank=2, dropout=0.0, targets=(*LoraConfig().targets, *more))
    plain = model_of(tmp_path / "plain", kind, trained="head", head_layer=layer)
    model = model_of(tmp_path / "lora", kind, trained="lora", head_layer=layer, lora=lora)
    frames = model.front(clips())
    torch.testing.assert_close(model.state(frames, N), plain.state(frames, N), rtol=1e-5, atol=1e-5)
    loss_of(model, frames).backward()
    trained = [name for name in model.trained() if not name.startswith("heads.")]
    assert len(trained) == 5 * 2 * (1 if layer else 2) and not any("decoder" in name for name in trained)
    assert {model.layer_of(name) for name in trained} == ({"layer-01"} if layer else {"layer-01", "layer-02"})
    parameters = dict(model.named_parameters())
    for name in (name for name in trained if "lora_B" in name):
        value = parameters[name]
        assert float(value.grad.abs().max()) > 0, name
        with torch.no_grad():
            value.copy_(torch.randn(value.shape, generator=torch.Generator().manual_seed(0)))
            assert float((model.state(frames, N) - plain.state(frames, N)).abs().max()) > 1e-4, name
            value.zero_()


def test_wavlms_attention_is_transformers_attention(tmp_path: Path) -> None:
    """Output and gradients, where its maps are called instead of their weights taken; with padding as well."""
    for kind in ("wavlm", "wavlm large"):
        taken, called = (encoder_of(tmp_path / name, kind).model.encoder.layers[0].attention for name in ("a", "b"))
        called.torch_multi_head_self_attention = adapters._called_attention.__get__(called)
        hidden, real = clips()[:, : 7 * 16].reshape(3, 7, 16), torch.ones(3, 7, dtype=torch.long)
        real[1, 5:] = 0
        for mask in (None, real):
            outputs = []
            for attention in (taken, called):
                attention.zero_grad()
                given = hidden.clone().requires_grad_()
                out = attention(given, attention_mask=mask)[0]
                out.square().sum().backward()
                outputs.append([out.detach(), given.grad, *(value.grad for value in attention.parameters())])
            for one, other in zip(*outputs, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_adapters_that_nothing_calls_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapters, "MethodType", lambda _, module: type(module).torch_multi_head_self_attention.__get__(module))
    with pytest.raises(InputError, match=r"does not call encoder\.layers\.0\.attention\.k_proj"):
        model_of(tmp_path, "wavlm", trained="lora")


def test_targets_that_match_nothing(tmp_path: Path) -> None:
    for kind, known in (("hubert", "intermediate_dense, output_dense"), ("whisper", "fc1, fc2")):
        with pytest.raises(InputError, match=rf"no linear map 'query': choose of k_proj, v_proj, q_proj, out_proj, {known}"):
            model_of(tmp_path, kind, trained="lora", lora=LoraConfig(targets=("q_proj", "query")))


@pytest.mark.parametrize("train_mode", [False, True])
def test_dropout_of_adapters_is_on_while_training_only(tmp_path: Path, train_mode: bool) -> None:
    """With zeros in the model's own dropout, what differs is theirs."""
    none = {"hidden_dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0, "feat_proj_dropout": 0.0}
    config = TuneConfig(clip_seconds=1.0, trained="lora", lora=LoraConfig(dropout=0.5), train_mode=train_mode)
    model = BrainModel(encoder_of(tmp_path, "wav2vec2", **none), config, {"A": 5, "B": 7}, tr=1.0)
    step(model)
    frames = model.front(clips())
    evaluated = model.state(frames, N)
    assert torch.equal(model.state(frames, N), evaluated)
    model.training_mode(True)
    assert not torch.allclose(model.state(frames, N), evaluated)
    torch.manual_seed(1)
    one = model.state(frames, N)
    torch.manual_seed(1)
    assert torch.equal(one, model.state(frames, N)) and not torch.equal(one, model.state(frames, N))
    model.training_mode(False)
    assert torch.equal(model.state(frames, N), evaluated)


@pytest.mark.parametrize("trained", ["full", "lora"])
@pytest.mark.parametrize("kind", ALL)
def test_what_is_saved_predicts_what_was_trained(tmp_path: Path, kind: str, trained: str) -> None:
    """As our encoder reads it, as transformers does, and as peft reads the adapter above the model as it was."""
    model = model_of(tmp_path, kind, trained=trained)
    step(model)
    before, sound = kept(model), clips()
    with torch.no_grad():
        state = model.state(model.front(sound), N)
        model.save(tmp_path / "saved")
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert torch.equal(model.state(model.front(sound), N), state)
        read = [SpeechEncoder(tmp_path / "saved")]
        names = set(load_file(Path(model.encoder.name) / "model.safetensors"))
        assert set(load_file(tmp_path / "saved" / "model.safetensors")) == names
        assert (tmp_path / "saved" / "adapter").exists() == (trained == "lora")
        if trained == "lora":
            base = SpeechEncoder(model.encoder.name)
            around = peft.PeftModel.from_pretrained(base.model, tmp_path / "saved" / "adapter")
            assert around.peft_config["default"].base_model_name_or_path == model.encoder.name
            around.merge_and_unload()
            read.append(base)
        for encoder in read:
            assert encoder.cnn_hash() == model.frozen_hash()
            found = encoder.last_layer(encoder.cnn(sound))[:, : len(encoder.frame_times(N))].mean(dim=1)
            torch.testing.assert_close(found, state, rtol=1e-4, atol=1e-5)
    if kind != "whisper":
        whole = transformers.AutoModel.from_pretrained(tmp_path / "saved").eval()
        torch.testing.assert_close(whole(sound).last_hidden_state.mean(dim=1), state, rtol=1e-4, atol=1e-5)


def test_saved_twice_is_the_same_file(tmp_path: Path) -> None:
    model = model_of(tmp_path, "hubert", trained="lora")
    for name in "ab":
        model.save(tmp_path / name)
    for path in (tmp_path / "a").rglob("*"):
        other = tmp_path / "b" / path.relative_to(tmp_path / "a")
        assert path.is_dir() or path.read_bytes() == other.read_bytes(), path.name
    listed = json.loads((tmp_path / "a" / "adapter" / "adapter_config.json").read_text())["target_modules"]
    assert listed == sorted(listed) and len(listed) == 8
