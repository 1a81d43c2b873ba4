"""Presets of published runs: their values by what the papers and codes say, and a name that is none."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields

import pytest

from fastencode.errors import InputError
from fastencode.tune import presets
from fastencode.tune.config import LoraConfig, TuneConfig
from fastencode.tune.presets import PRESETS, preset

ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_is_valid_and_says_where_it_comes_from(name: str) -> None:
    found = preset(name)
    config = found.config()
    assert isinstance(config, TuneConfig) and all(getattr(config, key) == value for key, value in found.settings.items())
    names = {name.partition(".")[0] for name in found.flat()}
    assert names == {"model", "validation", "exclude", "ceiling", *found.settings}
    assert "/" in found.model and found.validation and not set(found.validation) & {*found.exclude, "wheretheressmoke"}
    section = re.search(rf"^{name}\n((?:    .*\n|\n)+)", presets.__doc__ or "", re.MULTILINE)
    assert section is not None and "(C" in section[1]


def test_the_values_that_papers_and_codes_state() -> None:
    """Typed from the facts, not from the presets."""
    first, lora, wavlm = preset("interspeech2025"), preset("followup-lora"), preset("brainwavlm")
    config = first.config()
    assert first.model == "facebook/wav2vec2-base" and first.ceiling == 0.4
    assert first.validation == ("stagefright",) and first.exclude == ("life",)
    assert (config.learning_rate, config.head_learning_rate, config.weight_decay) == (5e-5, 1e-4, 0)
    assert (config.epochs, config.batch, config.order, config.clip_seconds) == (30, 128, "contiguous", 10)
    assert (config.schedule, config.warm_up, config.loss, config.trained, config.head) == ("linear", 0.1, "mse", "full", "pooled")
    assert config.patience > 0 and {5, 10, 20} <= set(config.keep) and not config.train_mode
    config = lora.config()
    assert config.trained == "lora" and config.lora == LoraConfig(8, 32.0, 0.1, ATTENTION) and config.shared_head
    assert config.learning_rate == config.head_learning_rate == 1e-4 and config.weight_decay == 0.01
    assert config.keep == (3, 5, 10, 20, 30) and config.schedule == "linear" and lora.ceiling < 0
    config = wavlm.config()
    assert config.lora == LoraConfig(4, 4.0, 0.1, ATTENTION[:3]) and (config.head_layer, config.bottleneck) == (9, 100)
    assert (config.head, config.delays, config.loss, config.batch, config.epochs) == ("delays", (1, 2, 3, 4), "spatial_r", 10, 20)
    assert config.learning_rate == config.head_learning_rate == 1e-4 and config.schedule == "constant" and config.train_mode
    assert wavlm.validation == ("fromboyhoodtofatherhood", "onapproachtopluto") and wavlm.model == "microsoft/wavlm-base-plus"


@pytest.mark.parametrize(
    ("name", "differs"),
    [
        ("interspeech2025", {"schedule": "epochs", "patience": 0, "normalize": "batch"}),
        ("followup-lora", {"schedule": "miscounted", "normalize": "batch", "keep": (0, 1, 2, 3, 4, 5, 10, 15, 20, 25, 30)}),
    ],
)
def test_a_twin_differs_from_its_text_where_the_code_does(name: str, differs: dict[str, object]) -> None:
    text, code = preset(name).config(), preset(f"{name}-code").config()
    values = {field.name: getattr(code, field.name) for field in fields(TuneConfig)}
    assert {key: value for key, value in values.items() if value != getattr(text, key)} == differs
    assert preset(name).model == preset(f"{name}-code").model


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("interspech2025", "did you mean interspeech2025"),
        ("followup_lora", "did you mean followup-lora"),
        ("brainwavlm-code", "the code of brainwavlm is not known to differ from its text; give brainwavlm"),
        ("xyz", "choose from interspeech2025, interspeech2025-code, followup-lora"),
    ],
)
def test_a_name_that_is_none(name: str, told: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"there is no preset {name!r}: {told}")):
        preset(name)


def test_presets_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        PRESETS["mine"] = preset("brainwavlm")  # type: ignore[index]
    with pytest.raises(TypeError):
        preset("brainwavlm").settings["epochs"] = 1  # type: ignore[index]


def test_presets_load_nothing_slow() -> None:
    code = "import sys, fastencode.tune.presets; print({'numpy', 'torch', 'jsonargparse'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
