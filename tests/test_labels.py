"""Rates of words and phones against plain loops, articulation against classes of phones written down by hand."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

import fastencode
import reference_timing as reference
from fastencode.data.brennan import Alice
from fastencode.data.textgrid import Interval
from fastencode.errors import FastencodeWarning, InputError
from fastencode.speech.labels import ARTICULATORY_FEATURES, SILENT, articulatory, event_rate
from fastencode.study.word_rate import word_features

VOWELS = "aa ae ah ao aw ay eh er ey ih iy ow oy uh uw"
CMU = f"{VOWELS} b ch d dh f g hh jh k l m n ng p r s sh t th v w y z zh".split()
TIMIT_CONSONANTS = "b d g p t k dx q bcl dcl gcl pcl tcl kcl jh ch s sh z zh f th v dh m n ng em en eng nx l r w y hh hv el"
TIMIT = f"{TIMIT_CONSONANTS} iy ih eh ey ae aa aw ay ah ao oy ow uh uw ux er ax ix axr ax-h pau epi h#".split()
# The same knowledge as the table's, the other way round: which of the 39 phones of English have a feature.
PHONES_WITH = {
    "bilabial": "b m p w",
    "labiodental": "f v",
    "dental": "dh th",
    "alveolar": "d l n r s t z",
    "postalveolar": "ch jh sh zh",
    "palatal": "y",
    "velar": "g k ng w",
    "glottal": "hh",
    "plosive": "b d g k p t",
    "nasal": "m n ng",
    "fricative": "dh f hh s sh th v z zh",
    "affricate": "ch jh",
    "lateral": "l",
    "approximant": "l r w y",
    "voiced": f"{VOWELS} b d dh g jh l m n ng r v w y z zh",
    "unvoiced": "ch f hh k p s sh t th",
    "high": "aw ay ey ih iy ow oy uh uw",
    "mid": "ah ao eh er ey ow oy",
    "low": "aa ae aw ay",
    "front": "ae ay eh ey ih iy oy",
    "central": "ah aw ay er",
    "back": "aa ao aw ow oy uh uw",
    "tap": "",
    "rounded": "ao aw ow oy uh uw",
    "rhotic": "er r",
}


def counted(times, values, new):
    """One new time and one event after the other."""
    out = np.zeros((len(new), *values.shape[1:]))
    for i in range(len(new)):
        before = new[i] - new[i - 1] if i else new[1] - new[0]
        after = new[i + 1] - new[i] if i + 1 < len(new) else new[-1] - new[-2]
        for j in range(len(times)):
            if new[i] - before / 2 <= times[j] < new[i] + after / 2:
                out[i] += values[j] / ((before + after) / 2)
    return out


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3)])
@pytest.mark.parametrize("irregular", [False, True])
def test_counts_equal_a_plain_loop(shape: tuple[int, ...], irregular: bool) -> None:
    rng = np.random.default_rng(len(shape))
    new = np.cumsum(rng.uniform(0.5, 3.0, 40)) if irregular else 3 + 2.0 * np.arange(40)
    times = rng.permutation(rng.uniform(-5, new[-1] + 10, 300))
    values = rng.standard_normal((300, *shape))
    np.testing.assert_allclose(event_rate(times, new, values=values), counted(times, values, new), atol=1e-12)
    np.testing.assert_allclose(event_rate(times, new), counted(times, np.ones(300), new), atol=1e-12)
    assert np.abs(event_rate(times, new) - counted(times, np.ones(300), new + 0.2)).max() > 0.1


def test_every_event_falls_into_one_interval() -> None:
    scans = 1 + 2.0 * np.arange(5)
    # Where scans begin: at its start an event belongs to a scan, at its end to the next one.
    np.testing.assert_array_equal(event_rate(2.0 * np.arange(-1, 7), scans), np.full(5, 0.5))
    np.testing.assert_array_equal(event_rate([3.9, 4.0, 4.1, 9.999, -0.001, 10.0], scans), [0, 0.5, 1.0, 0, 0.5])


def test_lanczos_equals_the_dense_form_and_the_study_of_word_rate() -> None:
    rng = np.random.default_rng(0)
    starts = np.sort(rng.uniform(0, 60, 120))
    new = 0.75 + 1.5 * np.arange(40)
    values = rng.standard_normal((120, 2))
    expected = reference.lanczos(values, starts, new)[0] / 1.5
    np.testing.assert_allclose(event_rate(starts, new, values=values, how="lanczos"), expected, atol=1e-12)
    words = [Interval(t, t + 0.25, "word") for t in starts]
    expected = word_features(words, new)[:, 0] / 1.5
    np.testing.assert_allclose(event_rate(starts + 0.125, new, how="lanczos"), expected, atol=1e-12)


@pytest.mark.parametrize("how", ["count", "lanczos"])
def test_dtypes_and_emptiness(how: str) -> None:
    scans = 1 + 2.0 * np.arange(4)
    values = np.ones((6, 2), np.float32)
    values.flags.writeable = False
    assert event_rate(np.arange(6), scans, values=values, how=how).dtype == np.float32
    assert event_rate(np.arange(6), scans, values=values.astype(np.int16), how=how).dtype == np.float64
    assert event_rate([], scans, how=how).tolist() == [0, 0, 0, 0]
    assert event_rate([], scans, values=articulatory([]), how=how).tolist() == [[0] * 25] * 4
    assert event_rate(np.arange(6), [], values=values, how=how).shape == (0, 2)
    assert event_rate([], [], how=how).shape == (0,)


def test_word_rate_of_a_real_chapter(shared_data: Path) -> None:
    pytest.importorskip("praatio", reason="transcripts need the extra 'tune'")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FastencodeWarning)  # one listener is left out: tests/test_readers_alice.py
        alice = Alice(shared_data / "alice")
    middles = alice.scan_times + alice.tr / 2
    offsets = np.array([w.end for w in alice.words if not w.label.startswith("'")])
    rate = event_rate(offsets, middles)
    np.testing.assert_array_equal(rate * alice.tr, np.histogram(offsets, np.append(alice.scan_times, 744.0))[0])
    assert rate.sum() * alice.tr == len(offsets) == len([w for w in alice.words if w.label[0] != "'"])
    assert not rate[: int(20 // alice.tr)].any()  # the chapter begins after 20 s
    # Counts under the hemodynamic response, as exact as 2 s can be, against the authors' own word rate.
    response = fastencode.hrf_convolve(rate, middles, alice.scan_times, dt=alice.tr)
    theirs = alice.generic_predictors(all_scans=True)[:, 0]
    assert np.corrcoef(response, theirs)[0, 1] > 0.97
    smooth = event_rate(offsets, middles, how="lanczos")
    assert np.corrcoef(smooth, rate)[0, 1] > 0.8
    assert smooth.sum() == pytest.approx(rate.sum(), rel=0.01)


@pytest.mark.parametrize("how", ["count", "lanczos"])
@pytest.mark.parametrize(
    ("times", "new", "values", "message"),
    [
        ([0.0, np.nan], [0.0, 1.0], None, r"times\[1\] is nan"),
        ([0.0], [0.0, np.inf], None, r"new_times\[1\] is inf"),
        ([0.0], [0.0, 2.0, 1.0], None, "from 2.0 to 1.0 at index 2: it must ascend"),
        ([0.0], [0.0, 1.0, 1.0], None, "from 1.0 to 1.0 at index 2"),
        ([0.0], [0.0], None, "one entry"),
        ([[0.0]], [0.0, 1.0], None, r"times has shape \(1, 1\)"),
        ([0.0, 1.0], [0.0, 1.0], [1.0], r"values has shape \(1,\) for 2 times"),
        ([0.0], [0.0, 1.0], 1.0, r"values has shape \(\) for 1 times"),
        ([0.0, 9.0], [0.0, 1.0], [[1.0], [np.nan]], r"values\[1, 0\] is nan"),
    ],
)
def test_bad_times_are_named(times: list, new: list, values: list | None, how: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        event_rate(times, new, values=values, how=how)


def test_unknown_way_to_count() -> None:
    with pytest.raises(InputError, match="how='sum': choose"):
        event_rate([0.0], [0.0, 1.0], how="sum")


def phones_with(feature: str, phones: list[str]) -> set[str]:
    column = articulatory(phones)[:, ARTICULATORY_FEATURES.index(feature)]
    assert set(column) <= {0.0, 1.0}
    return {phone for phone, has in zip(phones, column, strict=True) if has}


def test_features_are_those_of_the_chart() -> None:
    assert tuple(PHONES_WITH) == ARTICULATORY_FEATURES
    assert len(CMU) == 39
    assert articulatory(CMU).shape == (39, 25) and articulatory(CMU).dtype == np.float32
    for feature, phones in PHONES_WITH.items():
        assert phones_with(feature, CMU) == set(phones.split()), feature


def test_every_label_of_timit_is_known() -> None:
    assert len(set(TIMIT)) == 61
    vectors = dict(zip(TIMIT, articulatory(TIMIT), strict=True))
    assert {phone for phone, vector in vectors.items() if not vector.any()} == {"pau", "epi", "h#"}
    for pair in ("bcl b", "dcl d", "gcl g", "pcl p", "tcl t", "kcl k", "em m", "en n", "eng ng", "el l", "axr er", "ax ah"):
        one, other = pair.split()
        np.testing.assert_array_equal(vectors[one], vectors[other])
    spoken = [phone for phone in TIMIT if vectors[phone].any()]
    assert phones_with("voiced", spoken) ^ phones_with("unvoiced", spoken) == set(spoken)
    assert phones_with("tap", spoken) == {"dx", "nx"}
    assert phones_with("glottal", spoken) == {"q", "hh", "hv"}
    assert {"hv"} == phones_with("glottal", spoken) & phones_with("voiced", spoken)
    assert {"ux", "ix"} == phones_with("central", spoken) & phones_with("high", spoken) - {"ay", "aw"}
    heights = set.union(*(phones_with(height, spoken) for height in ("high", "mid", "low")))
    places = set.union(*(phones_with(place, spoken) for place in ARTICULATORY_FEATURES[:8]))
    assert places == set(TIMIT_CONSONANTS.split())
    assert heights == set(spoken) - places
    assert places == set.union(*(phones_with(manner, spoken) for manner in (*ARTICULATORY_FEATURES[8:14], "tap")))


def test_which_phones_of_english_are_not_told_apart() -> None:
    vectors = articulatory(CMU)
    same = [{a, b} for i, a in enumerate(CMU) for j, b in enumerate(CMU[:i]) if (vectors[i] == vectors[j]).all()]
    assert same == [{"ih", "iy"}, {"uh", "uw"}]


def test_labels_as_aligners_write_them() -> None:
    plain = articulatory(["ah", "hh", "er", "ax-h", "", "sp", "ns"])
    np.testing.assert_array_equal(articulatory(["AH0", " HH ", "ER2", "AX-H", " ", "sp", "{NS}"]), plain)
    assert not plain[4:].any() and plain[:4].any(axis=1).all()
    np.testing.assert_array_equal(articulatory(np.array(["AH1", "HH"])), plain[:2])
    assert articulatory([]).shape == (0, 25)
    assert not articulatory(["spn"], silent=SILENT | {"spn"}).any()
    ours = articulatory(["t"])
    ours[:] = 7
    assert articulatory(["t"]).max() == 1  # the table is not handed out


@pytest.mark.parametrize(
    ("phones", "message"),
    [
        (["T", "spn"], r"phones\[1\] is 'spn', which is neither ARPAbet nor a label of TIMIT: .* silent=SILENT \| \{'spn'\}"),
        (["{IG}", "AH0V", "T", "ig"], r"phones\[0\] is '\{IG\}', .*SILENT \| \{'ig', 'ah0v'\}"),
        (["ʃ"], r"phones\[0\] is 'ʃ'"),
        (["AH3"], r"phones\[0\] is 'AH3'"),
        (["AH00"], r"phones\[0\] is 'AH00'"),
        ("AH0", "the text 'AH0': give a list"),
        ([Interval(0.0, 0.1, "T")], r"phones\[0\] is Interval\(.*: give labels as text"),
        ([np.nan], r"phones\[0\] is nan: give labels as text"),
    ],
)
def test_unknown_phones_are_named(phones: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        articulatory(phones)


def test_labels_of_real_timit_and_their_rates(shared_data: Path) -> None:
    for path in sorted((shared_data / "timit").glob("*.phn")):
        entries = [line.split() for line in path.read_text().splitlines()]
        labels, starts = [label for *_, label in entries], np.array([int(start) for start, *_ in entries]) / 16_000
        vectors = articulatory(labels)
        assert set(labels) <= set(TIMIT)
        assert [label for label, vector in zip(labels, vectors, strict=True) if not vector.any()] == [
            label for label in labels if label in ("h#", "pau", "epi")
        ]
        seconds = 0.5 + np.arange(np.ceil(starts[-1]) + 1)
        rates = event_rate(starts, seconds, values=vectors)
        np.testing.assert_allclose(rates.sum(axis=0), vectors.sum(axis=0), rtol=1e-6)
        assert rates.dtype == np.float32
