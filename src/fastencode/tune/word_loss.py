"""A loss of words: which of the most frequent words were heard in the last scan, from the state that heads read.

Axis letters: r row (scan), d width of the state, w word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from fastencode.data.textgrid import Interval, plain_label
from fastencode.errors import InputError

__all__ = ["WordLoss", "vocabulary", "word_labels"]


def vocabulary(words: Sequence[Sequence[str]], n: int) -> list[str]:
    """The most frequent words.

    Parameters
    ----------
    words : sequence of sequence of str
        All words of each training run, one after the other; in any case, with or without braces.
    n : int
        How many; all, if there are fewer.

    Returns
    -------
    list of str
        In lower case, the most frequent first, equally frequent ones by name.

    Raises
    ------
    InputError
        If there is no word, or ``n`` is below 1.
    """
    if n < 1:
        raise InputError(f"words={n}: give at least 1")
    counts = Counter(plain for run in words for word in run if (plain := plain_label(word)))
    if not counts:
        raise InputError(f"there are no words in {len(words)} runs: a loss of words needs their transcripts; set word_weight=0")
    return sorted(counts, key=lambda word: (-counts[word], word))[:n]


def word_labels(intervals: Sequence[Interval], ends_s: ArrayLike, tr: float, vocabulary: Sequence[str]) -> NDArray[np.float32]:
    """Which words of the vocabulary were heard in each scan, in part or whole.

    Parameters
    ----------
    intervals : sequence of Interval
        Words of one run with their times in s.
    ends_s : array_like, shape (r,)
        When each scan ended, in s on the same clock, in any order. A scan lasts from ``end - tr`` until before ``end``.
    tr : float
        Repetition time in s.
    vocabulary : sequence of str
        From :func:`vocabulary`.

    Returns
    -------
    ndarray, shape (r, w), float32
        1 where the word's interval and the scan overlap, else 0. An interval without length counts where it lies.

    Raises
    ------
    InputError
        If ``tr`` is not positive, or an end is not finite.
    """
    if not 0 < tr < np.inf:
        raise InputError(f"tr is {tr}: give the repetition time in s, for example 2.0")
    ends_r = np.asarray(ends_s, dtype=np.float64)
    if not np.isfinite(ends_r).all():
        raise InputError(f"scan {int(np.argmin(np.isfinite(ends_r)))} ends at {ends_r[~np.isfinite(ends_r)][0]} s: give seconds")
    column = {word: place for place, word in enumerate(vocabulary)}
    labels_rw = np.zeros((len(ends_r), len(vocabulary)), dtype=np.float32)
    for start, end, label in intervals:
        if (place := column.get(plain_label(label))) is not None:
            began_before_end = (end > ends_r - tr) | ((end == start) & (start == ends_r - tr))
            labels_rw[(start < ends_r) & began_before_end, place] = 1.0
    return labels_rw


class WordLoss(nn.Module):
    """A linear map from the state to the words of a vocabulary, with binary cross-entropy.

    Rare words get no greater weight. Weights of absent / present scans reach 1000 for the rarest of 500 words: a few rows would
    make most of the gradient, and outputs would no longer be probabilities. Without them the loss is a proper score, and the bias
    soon holds how often each word occurs; ``rates`` gives it at once.

    Parameters
    ----------
    width : int
        Of the state.
    vocabulary : sequence of str
        One output for each.
    seed : int
        Of the first weights, uniform in ±1/√width as those of ``nn.Linear``. Torch's own generator is not used.
    rates : array_like, shape (w,), optional
        Share of training scans in which each word is heard, ``labels.mean(axis=0)``: the first bias is its log odds, so that
        learning begins with what is right without any sound.

    Attributes
    ----------
    vocabulary : list of str
    linear : nn.Linear

    Raises
    ------
    InputError
        If the vocabulary is empty, or rates do not fit it.
    """

    def __init__(self, width: int, vocabulary: Sequence[str], seed: int, rates: ArrayLike | None = None) -> None:
        super().__init__()
        if not vocabulary:
            raise InputError("the vocabulary is empty: a loss of words needs at least one word")
        self.vocabulary = list(vocabulary)
        self.linear = nn.utils.skip_init(nn.Linear, width, len(self.vocabulary))
        generator = torch.Generator().manual_seed(seed)
        for value in self.linear.parameters():
            nn.init.uniform_(value, -(width**-0.5), width**-0.5, generator=generator)
        if rates is not None:
            self._begin_at(np.asarray(rates, dtype=np.float64))

    def forward(self, state_rd: torch.Tensor, labels_rw: torch.Tensor) -> torch.Tensor:
        """The mean over rows and words of the binary cross-entropy, a scalar in nats; in float32 under autocast, too.

        Of 500 words most are absent from most scans, so that the loss of the rates alone is a few hundredths: weights of 10 and
        more beside a loss of z-scored responses near 1 are reasonable.

        Parameters
        ----------
        state_rd : tensor, shape (r, d)
        labels_rw : tensor, shape (r, w)
            From :func:`word_labels`.

        Raises
        ------
        InputError
            If they do not fit together.
        """
        if labels_rw.shape != (len(state_rd), len(self.vocabulary)):
            raise InputError(
                f"labels have shape {tuple(labels_rw.shape)}, but there are {len(state_rd)} rows and {len(self.vocabulary)} words"
            )
        logits_rw = self.linear(state_rd).float()
        return nn.functional.binary_cross_entropy_with_logits(logits_rw, labels_rw.to(logits_rw.device, torch.float32))

    @torch.no_grad()
    def _begin_at(self, rates_w: NDArray[np.float64]) -> None:
        if rates_w.shape != (len(self.vocabulary),) or not ((rates_w >= 0) & (rates_w <= 1)).all():
            raise InputError(
                f"rates have shape {rates_w.shape}: give a share between 0 and 1 for each of {len(self.vocabulary)} words"
            )
        rates_w = rates_w.clip(1e-4, 1 - 1e-4)  # a word that is never or always heard has no finite log odds
        self.linear.bias.copy_(torch.from_numpy(np.log(rates_w / (1 - rates_w))))
