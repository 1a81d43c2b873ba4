"""The loss of words: which words are known, when they were heard, and the loss itself, beside loops and torch's own functions."""

from __future__ import annotations

import numpy as np
import pytest

from fastencode.data.textgrid import Interval
from fastencode.errors import InputError

pytest.importorskip("torch", reason="tuning needs the extra 'tune'")

import torch

from fastencode.tune.word_loss import WordLoss, vocabulary, word_labels


def test_the_most_frequent_words_come_first_and_ties_by_name() -> None:
    runs = [["THE", "dog", "saw", "The", "{cat}"], ["cat", "the", "ant", " saw "], []]
    assert vocabulary(runs, 10) == ["the", "cat", "saw", "ant", "dog"]
    assert vocabulary(runs, 2) == ["the", "cat"]
    with pytest.raises(InputError, match="no words in 2 runs"):
        vocabulary([[], [""]], 3)
    with pytest.raises(InputError, match="words=0"):
        vocabulary(runs, 0)


def test_labels_are_those_of_a_loop() -> None:
    rng = np.random.default_rng(0)
    starts = np.sort(rng.uniform(-3, 60, 150)).round(1)  # edges of words meet edges of scans
    lengths = rng.choice([0.0, 0.1, 0.5, 5.0], 150)
    words = [Interval(s, s + n, str(w)) for s, n, w in zip(starts, lengths, rng.choice(list("abCDE"), 150), strict=True)]
    ends, tr, known = rng.permutation(np.arange(1, 30) * 1.5), 1.5, ["a", "c", "e", "z"]
    wanted = np.zeros((len(ends), 4), np.float32)
    for row, end in enumerate(ends):
        for start, stop, label in words:
            after_it_began = stop > end - tr or (start == stop == end - tr)
            if label.lower() in known and start < end and after_it_began:
                wanted[row, known.index(label.lower())] = 1
    found = word_labels(words, ends, tr, known)
    np.testing.assert_array_equal(found, wanted, strict=True)
    assert 0.2 < wanted[:, :3].mean() < 0.9 and not wanted[:, 3].any()


@pytest.mark.parametrize(
    ("start", "end", "heard"),
    [(0.0, 2.0, [1, 0, 0]), (1.9, 2.1, [1, 1, 0]), (2.0, 2.0, [0, 1, 0]), (-1.0, 0.0, [0, 0, 0]), (1.0, 5.0, [1, 1, 1])],
)
def test_a_scan_holds_its_beginning_and_not_its_end(start: float, end: float, heard: list[int]) -> None:
    assert word_labels([Interval(start, end, "a")], [2.0, 4.0, 6.0], 2.0, ["a"])[:, 0].tolist() == heard


def test_scans_that_cannot_be() -> None:
    with pytest.raises(InputError, match="tr is 0"):
        word_labels([], [2.0], 0.0, ["a"])
    with pytest.raises(InputError, match="scan 1 ends at nan s"):
        word_labels([], [2.0, np.nan], 2.0, ["a"])
    assert word_labels([], [], 2.0, ["a", "b"]).shape == (0, 2)


def test_the_loss_and_its_gradients_are_torchs() -> None:
    rng = np.random.default_rng(1)
    state = torch.from_numpy(rng.standard_normal((30, 12)).astype(np.float32)).requires_grad_()
    labels = torch.from_numpy((rng.random((30, 5)) < 0.2).astype(np.float32))
    loss = WordLoss(12, list("abcde"), seed=0)
    value = loss(state, labels)
    value.backward()
    p = 1 / (1 + np.exp(-(state.detach().numpy() @ loss.linear.weight.detach().numpy().T + loss.linear.bias.detach().numpy())))
    y = labels.numpy()
    assert float(value.detach()) == pytest.approx(-np.mean(y * np.log(p) + (1 - y) * np.log(1 - p)), rel=1e-5)
    error = (p - y) / y.size
    np.testing.assert_allclose(state.grad, error @ loss.linear.weight.detach().numpy(), atol=1e-7)
    np.testing.assert_allclose(loss.linear.weight.grad, error.T @ state.detach().numpy(), atol=1e-7)
    with torch.autocast("cpu", torch.bfloat16):
        assert loss(state, labels).dtype == torch.float32


def test_first_weights_come_from_the_seed_and_rates() -> None:
    before = torch.random.get_rng_state()
    a, b, c = (WordLoss(8, ["x", "y"], seed=s) for s in (0, 0, 1))
    assert torch.equal(before, torch.random.get_rng_state()), "torch's own generator is not used"
    assert torch.equal(a.linear.weight, b.linear.weight) and not torch.equal(a.linear.weight, c.linear.weight)
    assert 0.2 < float(a.linear.weight.detach().abs().max()) <= 8**-0.5
    begun = WordLoss(8, ["x", "y", "z"], seed=0, rates=[0.25, 0.5, 0.0])
    np.testing.assert_allclose(torch.sigmoid(begun.linear.bias.detach()), [0.25, 0.5, 1e-4], rtol=1e-4)
    # Rates alone are what is right without any sound: the entropy of the labels.
    labels = torch.tensor([[1, 1, 0], [0, 0, 0], [0, 1, 0], [0, 0, 0]], dtype=torch.float32)
    entropy = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75) + np.log(0.5)) / 3
    assert float(begun(torch.zeros(4, 8), labels).detach()) == pytest.approx(entropy, abs=1e-3)


def test_what_does_not_fit_together() -> None:
    with pytest.raises(InputError, match="vocabulary is empty"):
        WordLoss(8, [], seed=0)
    with pytest.raises(InputError, match=r"labels have shape \(3, 2\), but there are 4 rows and 2 words"):
        WordLoss(8, ["x", "y"], seed=0)(torch.zeros(4, 8), torch.zeros(3, 2))
    with pytest.raises(InputError, match=r"rates have shape \(1,\)"):
        WordLoss(8, ["x", "y"], seed=0, rates=[0.5])
