"""Lanczos and delays inside the graph: the state is the design that the alignment makes of the same story, and backpropagates."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch", reason="tuning needs the extra 'tune'")
pytest.importorskip("transformers", reason="tuning needs the extra 'tune'")

import torch

from fastencode.errors import InputError
from fastencode.speech.audio import read_audio, write_audio
from fastencode.speech.config import ReadConfig
from fastencode.speech.extract import extract_features
from fastencode.speech.layers import unit_variance
from fastencode.study.brains.sources import LayerFolder
from fastencode.timing.clean import zscore
from fastencode.timing.delays import delay
from fastencode.tune.config import TuneConfig
from fastencode.tune.heads import LinearHead, delayed, scan_rows
from fastencode.tune.model import BrainModel, Rows
from tuned_model_cases import encoder_of


class OneStory:
    """A data set of one story whose scans begin at ``first`` TRs."""

    tr = 1.5

    def __init__(self, first: int, count: int) -> None:
        self._begins = self.tr * np.arange(first, first + count)

    def recording(self, run: str) -> str:
        return run

    def row_times(self, run: str, middle: bool = False) -> np.ndarray:
        return self._begins + (self.tr / 2 if middle else 0.0)

    def check_length(self, *_: object) -> None: ...


@pytest.fixture(scope="module", params=["wav2vec2", "wavlm large", "whisper"])
def story(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A story of 14 TRs: its layers as the alignment reads them, and its clips with the model that does the same."""
    folder, tr, seconds = tmp_path_factory.mktemp("story"), OneStory.tr, 3.0
    encoder = encoder_of(folder, request.param)
    rng = np.random.default_rng(7)
    loud = np.repeat(rng.random(round(14 * tr * 10)), 1600) ** 3  # another loudness every 0.1 s: layers vary
    write_audio(folder / "a.wav", loud * rng.standard_normal(len(loud)).clip(-1, 1), 16000)
    read = ReadConfig("clip", tr=tr, seconds=seconds, pool="newest")
    extract_features({"a": folder / "a.wav"}, encoder, folder / "layers", read, show_progress=False)
    sound = np.pad(read_audio(folder / "a.wav"), (round(seconds * 16000), 0))
    n, ends = round(seconds * 16000), tr * np.arange(1, 15)
    cut = np.stack([sound[(stop := round(end * 16000) + n) - n : stop] for end in ends])
    settings = {"head": "delays", "order": "contiguous", "delays": (1, 3), "head_layer": 1, "clip_seconds": seconds}
    model = BrainModel(encoder, TuneConfig(**settings), {"A": 5, "B": 7}, tr=tr)
    frames = model.front(torch.from_numpy(unit_variance(cut) if encoder.normalize else cut))
    return SimpleNamespace(folder=folder / "layers", model=model, frames=frames, ends=ends, n=n, seconds=seconds)


def designed(story: SimpleNamespace, first: int, count: int) -> np.ndarray:
    """Layer 1 at the scans, as the alignment has it."""
    return LayerFolder(story.folder, OneStory(first, count), lobes=3, used=["a"]).rows("a", 1)


def resampled(story: SimpleNamespace, some: slice) -> torch.Tensor:
    times = story.model.encoder.frame_times(story.n)
    hidden = story.model.encoder.layer(story.frames[some], 1)[:, : len(times)]
    return scan_rows(hidden, times, story.seconds, story.ends[some], OneStory.tr)


def assert_delayed(state: torch.Tensor, rows_td: np.ndarray, first: int) -> None:
    """Z-scored rows, delayed by 1 and 3, from row ``first`` on; as exact as float32 has the rows, in deviations."""
    exact = 1e-6 * np.abs(rows_td).max(axis=0) / rows_td.std(axis=0) + 1e-6
    wanted = delay(zscore(rows_td), (1, 3))[first:]
    assert (np.abs(state.detach().numpy() - wanted) <= np.tile(4 * exact, 2)).all()


def test_scans_are_those_of_the_alignment(story: SimpleNamespace) -> None:
    np.testing.assert_allclose(resampled(story, slice(None)).detach(), designed(story, 0, 14), rtol=1e-5, atol=1e-5)
    before, after = 3, 3  # scans that have all their sound
    np.testing.assert_allclose(
        resampled(story, slice(2, 12)).detach()[before:-after], designed(story, 5, 4), rtol=1e-5, atol=1e-5
    )
    assert story.model.halo == (3 + 3, 3)


def test_state_is_the_design_of_the_alignment(story: SimpleNamespace) -> None:
    state = story.model.state(story.frames, story.n, Rows(story.ends, slice(0, 14)))
    assert state.shape == (14, 32)
    assert_delayed(state, designed(story, 0, 14), 0)


def test_a_batch_with_its_halo_reads_what_the_whole_story_has(story: SimpleNamespace) -> None:
    """Rows 7 to 10; with delays 1 and 3 they read rows 4 on, over which the z-score is."""
    first, stop = 7, 11
    before, after = story.model.halo
    some = slice(first - before, stop + after)
    state = story.model.state(story.frames[some], story.n, Rows(story.ends[some], slice(before, before + stop - first)))
    assert_delayed(state, designed(story, 4, 7), 3)
    story.model.predict("A", state).square().sum().backward()
    assert all(value.grad is not None for name, value in story.model.trained().items() if not name.startswith("heads.B"))
    story.model.zero_grad()


def test_mistaken_rows(story: SimpleNamespace) -> None:
    with pytest.raises(InputError, match="say where they lie"):
        story.model.state(story.frames, story.n)
    with pytest.raises(InputError, match="14 clips but 3 ends"):
        story.model.state(story.frames, story.n, Rows(story.ends[:3], slice(0, 3)))
    with pytest.raises(InputError, match="consecutive scans, 1.5 s apart"):
        story.model.state(story.frames[:3], story.n, Rows(story.ends[[0, 2, 4]], slice(0, 3)))


def test_delays_backpropagate() -> None:
    """Bins, Lanczos, z-score and delays by finite differences; a constant column gets 0, not NaN."""
    rng = np.random.default_rng(0)
    hidden = torch.from_numpy(rng.standard_normal((6, 8, 2))).requires_grad_()
    times, ends = np.arange(8) * 0.25 + 0.1, 10 + 1.0 * np.arange(6)

    def state(hidden_bfd: torch.Tensor) -> torch.Tensor:
        return delayed(scan_rows(hidden_bfd, times, 2.0, ends, 1.0), (0, 2), slice(3, 5))

    assert torch.autograd.gradcheck(state, hidden)
    flat = torch.full((6, 8, 2), 3.0, requires_grad=True)
    rows = delayed(flat.mean(dim=1), (1,), slice(1, 6))
    rows.sum().backward()
    assert torch.equal(rows, torch.zeros(5, 2)) and torch.isfinite(flat.grad).all()


def test_heads_of_delays_are_as_wide_as_their_copies(story: SimpleNamespace) -> None:
    head = story.model.head("A")
    assert isinstance(head, LinearHead) and head.weight.shape == (5, 2 * story.model.encoder.width)
