"""The convolutions of speech models as matrix products: transformers' own modules are the reference."""

from __future__ import annotations

from typing import Any

import pytest

from fastencode.speech import cnn
from fastencode.speech.families import Waveform

torch = pytest.importorskip("torch", reason="speech models need the extra 'tune'")
transformers = pytest.importorskip("transformers", reason="speech models need the extra 'tune'")


def random_model(norm: str, bias: bool, family: str = "Wav2Vec2", kernels: tuple[int, ...] = (10, 3, 3, 2)) -> Any:
    torch.manual_seed(5)
    config = getattr(transformers, f"{family}Config")(
        conv_dim=(6, 8, 7, 9),
        conv_kernel=kernels,
        conv_stride=(5, 2, 2, 2),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        feat_extract_norm=norm,
        conv_bias=bias,
    )
    model = getattr(transformers, f"{family}Model")(config).eval()
    for name, value in model.feature_extractor.named_parameters():
        if "norm" in name:  # else all 1 and 0
            torch.nn.init.uniform_(value, -1.0, 2.0)
    return model


def extractor(*settings: Any, **more: Any) -> Any:
    return random_model(*settings, **more).feature_extractor


@pytest.mark.parametrize("family", ["Wav2Vec2", "Hubert", "WavLM"])
@pytest.mark.parametrize(("norm", "bias"), [("group", False), ("group", True), ("layer", False), ("layer", True)])
@pytest.mark.parametrize("stretch", [1, 7, 1000])
def test_frames_are_transformers_own(monkeypatch, family, norm, bias, stretch):
    monkeypatch.setattr(cnn, "STRETCH", stretch)
    module = extractor(norm, bias, family)
    for n in (1237, 1200, 90):
        clips = torch.randn(2, n, generator=torch.Generator().manual_seed(n)) * torch.tensor([[1.0], [30.0]]) + 0.7
        with torch.inference_mode():
            theirs = module(clips).transpose(1, 2)
            ours = cnn.frames_of(module.conv_layers, clips)
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, rtol=0, atol=3e-6 * float(theirs.abs().max()) + 1e-6)


@pytest.mark.parametrize("kernels", [(10, 3, 3, 2), (5, 2, 2, 2), (3, 1, 5, 4)], ids=str)
def test_kernels_of_any_length_beside_the_stride(kernels):
    module = extractor("layer", True, kernels=kernels)
    clips = torch.randn(1, 3001, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(cnn.frames_of(module.conv_layers, clips), module(clips).transpose(1, 2), rtol=0, atol=1e-5)


@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_reduced_precision_is_as_near_as_transformers_is(norm, dtype):
    module, dtype = extractor(norm, True), getattr(torch, dtype)
    clips = torch.randn(2, 4000, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        exact = module(clips).transpose(1, 2)
        module.to(dtype)
        off = (module(clips.to(dtype)).transpose(1, 2).float() - exact).square().mean()
        ours = cnn.frames_of(module.conv_layers, clips.to(dtype))
        assert ours.dtype == dtype
        assert (ours.float() - exact).square().mean() < 1.2 * off


def test_a_silent_clip_and_one_frame():
    module = extractor("group", False)
    with torch.inference_mode():
        silence = cnn.frames_of(module.conv_layers, torch.zeros(1, 500))
        torch.testing.assert_close(silence, module(torch.zeros(1, 500)).transpose(1, 2))
        short = torch.randn(1, 65, generator=torch.Generator().manual_seed(3))
        assert cnn.frames_of(module.conv_layers, short).shape == module(short).transpose(1, 2).shape == (1, 1, 9)


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_clips_of_any_strides(norm):
    module, sound = extractor(norm, True), torch.randn(3, 4000, generator=torch.Generator().manual_seed(6))
    beside = torch.stack([sound, torch.ones_like(sound)], dim=2)
    with torch.inference_mode():
        expected = cnn.frames_of(module.conv_layers, sound)
        for clips in (sound.T.contiguous().T, beside[:, :, 0], torch.cat([sound, sound])[1:4].roll(1, 0)):
            assert torch.equal(cnn.frames_of(module.conv_layers, clips), expected)
        same = torch.full((1, 1), 0.3).expand(2, 900)
        torch.testing.assert_close(cnn.frames_of(module.conv_layers, same), module(same).transpose(1, 2), rtol=0, atol=1e-4)
        assert cnn.frames_of(module.conv_layers, sound[:0]).shape == module(sound[:0]).transpose(1, 2).shape


def test_the_norm_of_a_long_clip_takes_little_memory(monkeypatch):
    """It is added up over stretches, whose number makes no difference beyond rounding."""
    module, sizes = extractor("group", False), []
    clips = torch.randn(1, 50_000, generator=torch.Generator().manual_seed(7)) + 3

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = function(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                sizes.append(out.untyped_storage().nbytes())
            return out

    with torch.inference_mode():
        theirs = module(clips).transpose(1, 2)
        monkeypatch.setattr(cnn, "_ROWS", 333)
        with Sizes():
            ours = cnn.frames_of(module.conv_layers, clips)
    assert sizes and max(sizes) <= clips.untyped_storage().nbytes()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=3e-6 * float(theirs.abs().max()))


def test_gradients_go_through_transformers_modules():
    """What computes frames without gradients is not asked where they are wanted."""
    transformer = random_model("group", False)
    family = Waveform(transformer, transformers.Wav2Vec2FeatureExtractor())
    clips = torch.randn(1, 800, generator=torch.Generator().manual_seed(4))
    with_gradients = family.front(clips)
    with_gradients.sum().backward()
    assert transformer.feature_extractor.conv_layers[0].conv.weight.grad is not None
    with torch.no_grad():
        torch.testing.assert_close(family.front(clips), with_gradients.detach(), rtol=0, atol=2e-6)
