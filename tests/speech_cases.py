"""What tests of speech models share: a small random model, and the command where files may not grow."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="speech models need the extra 'tune'")
transformers = pytest.importorskip("transformers", reason="speech models need the extra 'tune'")

# The command, where no file may have more bytes than its first argument.
LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
from fastencode.cli import main
sys.exit(main(sys.argv[2:]))
"""


def saved_model(folder: Path, family: str, *, stable: bool = False, strides: tuple[int, ...] = (5, 4, 2), seed: int = 3) -> Path:
    """A random encoder of two layers, saved as users have them."""
    torch.manual_seed(seed)
    if family == "whisper":
        sizes = {"encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
        widths = {"d_model": 16, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "vocab_size": 10}
        tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
        transformers.WhisperModel(transformers.WhisperConfig(**sizes, **widths, **tokens)).save_pretrained(folder)
        transformers.WhisperFeatureExtractor().save_pretrained(folder)
        return folder
    name = {"wav2vec2": "Wav2Vec2", "hubert": "Hubert", "wavlm": "WavLM"}[family]
    config = getattr(transformers, f"{name}Config")(
        conv_dim=(8,) * 3,
        conv_kernel=(10, 3, 2),
        conv_stride=strides,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
        do_stable_layer_norm=stable,
        feat_extract_norm="layer" if stable else "group",
    )
    getattr(transformers, f"{name}Model")(config).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return folder
