"""Low-rank adapters (LoRA, through peft) in the layers of a speech model's transformer.

Two faults of published codes are kept out. WavLM hands the weights of its attention to torch and does not call its linear maps,
so that adapters around them would neither change anything nor learn: :func:`add_adapters` makes it call them, and refuses
adapters that no layer calls. And peft makes adapters in training mode, whatever mode the model is in: they begin in evaluation
here, and :func:`dropouts` are turned on while training only.

Axis letters: b clip, h attention head, f frame, d width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from fastencode.errors import InputError, require
from fastencode.speech.layers import SpeechEncoder
from fastencode.tune.config import LoraConfig
from fastencode.tune.seeds import seed_of_weights

__all__ = ["add_adapters", "dropouts", "merged_weights", "save_adapter"]

_NAME = "default"  # what peft calls an adapter that has no name


def add_adapters(encoder: SpeechEncoder, lora: LoraConfig, layer: int | None, seed: int) -> None:
    """Put adapters around linear maps of a transformer, in place; only they learn then.

    Parameters
    ----------
    encoder : SpeechEncoder
    lora : LoraConfig
        Rank, scale, dropout, and which linear maps.
    layer : int, optional
        Layers above this one get none.
    seed : int
        With the name of a map decides the first weights of its adapter, whose product is 0. Torch's own generator is not used.

    Raises
    ------
    InputError
        If there is no such linear map, or none that a layer calls.
    """
    peft = require("peft", "tune")
    names = _targets(encoder, lora.targets, layer)
    # Names in full, so that no map of a decoder or of a higher layer is meant.
    settings = {"r": lora.rank, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout, "target_modules": names}
    config = peft.LoraConfig(**settings, bias="none", base_model_name_or_path=encoder.name)
    with torch.random.fork_rng(devices=[encoder.device] if encoder.device.startswith("cuda") else []):
        peft.inject_adapter_in_model(config, encoder.model)
    for name, adapter in _adapters(encoder.model):
        weight = adapter.lora_A[_NAME].weight
        first = torch.empty(weight.shape)
        nn.init.kaiming_uniform_(first, a=math.sqrt(5), generator=torch.Generator().manual_seed(seed_of_weights(seed, name)))
        with torch.no_grad():
            weight.copy_(first)
    for dropout in dropouts(encoder.model):
        dropout.eval()
    for module in encoder.model.modules():
        if hasattr(module, "torch_multi_head_self_attention"):
            module.torch_multi_head_self_attention = MethodType(_called_attention, module)
    _check_called(encoder, names)


def dropouts(model: nn.Module) -> Iterator[nn.Module]:
    """The adapters' own dropout, of every adapter."""
    return (adapter.lora_dropout[_NAME] for _, adapter in _adapters(model))


def merged_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """The state of a model without adapters that does what this one does in evaluation; this one stays as it is."""
    state = {name.replace(".base_layer.", "."): value for name, value in model.state_dict().items() if ".lora_" not in name}
    with torch.no_grad():
        for name, adapter in _adapters(model):
            state[f"{name}.weight"] = adapter.get_base_layer().weight + adapter.get_delta_weight(_NAME)
    return state


def save_adapter(encoder: SpeechEncoder, lora: LoraConfig, folder: Path) -> None:
    """Write the adapter alone, as ``peft.PeftModel.from_pretrained`` reads it.

    WavLM needs ``merge_and_unload()`` then: transformers' attention does not call what peft puts around its maps.
    """
    peft = require("peft", "tune")
    adapters = dict(_adapters(encoder.model))
    settings = {"r": lora.rank, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout, "bias": "none"}
    config = peft.LoraConfig(**settings, base_model_name_or_path=encoder.name, inference_mode=True)
    config.target_modules = sorted(adapters)  # peft has a set, whose order is another in each process
    config.save_pretrained(str(folder))
    weights = {
        f"base_model.model.{name}.{part}.weight": getattr(adapter, part)[_NAME].weight.detach().cpu().contiguous()
        for name, adapter in adapters.items()
        for part in ("lora_A", "lora_B")
    }
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def _adapters(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Names of the linear maps that have an adapter, and what stands in their place."""
    layer = require("peft.tuners.lora", "tune").LoraLayer
    return ((name, module) for name, module in model.named_modules() if isinstance(module, layer))


def _targets(encoder: SpeechEncoder, targets: Sequence[str], layer: int | None) -> list[str]:
    """The linear maps in the transformer's layers up to one, of those names."""
    names = {module: name for name, module in encoder.model.named_modules()}
    blocks = [part for number, part in encoder.parts(layer) if 1 <= number < encoder.n_layers]
    if not blocks:
        raise InputError(
            f"head_layer=0: there is no layer below it that could get an adapter of {encoder.name}: read a higher one"
        )
    maps = [names[module] for block in blocks for module in block.modules() if isinstance(module, nn.Linear)]
    there = list(dict.fromkeys(name.rpartition(".")[2] for name in maps))
    if absent := [target for target in targets if target not in there]:
        raise InputError(f"lora.targets: layers of {encoder.name} have no linear map {absent[0]!r}: choose of {', '.join(there)}")
    return [name for name in maps if name.rpartition(".")[2] in targets]


def _called_attention(
    attention: Any, hidden_bfd: torch.Tensor, attention_mask: torch.Tensor | None, bias: torch.Tensor, *_: Any
) -> tuple[torch.Tensor, None]:
    """WavLM's attention with its four maps called; ``bias`` (b h, f, f) is added to the products of queries and keys."""
    shape = (*hidden_bfd.shape[:2], attention.num_heads, attention.head_dim)
    query, key, value = (
        project(hidden_bfd).view(shape).transpose(1, 2) for project in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    bias_bhff = bias.view(len(hidden_bfd), attention.num_heads, *bias.shape[1:]).to(query.dtype)
    if attention_mask is not None:
        bias_bhff = bias_bhff.masked_fill(attention_mask.ne(1)[:, None, None], -math.inf)
    dropped = attention.dropout if attention.training else 0.0
    mixed = scaled_dot_product_attention(query, key, value, attn_mask=bias_bhff, dropout_p=dropped)
    return attention.out_proj(mixed.transpose(1, 2).reshape(hidden_bfd.shape)), None


def _check_called(encoder: SpeechEncoder, names: Sequence[str]) -> None:
    """Raise an :class:`InputError` if an adapter is not called when its layer is: it would change nothing and learn nothing."""
    called: set[str] = set()
    adapters = dict(_adapters(encoder.model))
    hooks = [adapters[name].register_forward_hook(lambda *_, name=name: called.add(name)) for name in names if name in adapters]
    try:
        with torch.no_grad():
            encoder.through(torch.zeros((1, 2, encoder.width), device=encoder.device))
    finally:
        for hook in hooks:
            hook.remove()
    if idle := [name for name in names if name not in called]:
        version = require("transformers", "tune").__version__
        raise InputError(
            f"transformers {version} does not call {idle[0]}, so that an adapter there would change nothing: choose other"
            " lora.targets, or another version"
        )
