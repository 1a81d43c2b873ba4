"""TIMIT in upper and lower case, with converted twins, damaged, and the real sample."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fastencode.data.textgrid import Interval
from fastencode.data.timit import (
    CORE_TEST_SPEAKERS,
    FOLD,
    PHONES,
    PHONES_39,
    read_phones,
    read_sentence,
    read_timit,
    read_words,
)
from fastencode.errors import FastencodeWarning, InputError
from reader_cases import PHN, SENTENCES, TXT, WRD, timit_tree, tone

soundfile = pytest.importorskip("soundfile", reason="sounds need the extra 'tune'")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return timit_tree(tmp_path / "timit")


@pytest.fixture
def one(tree: Path) -> Path:
    return tree / "TRAIN" / "DR1" / "FCJF0" / "SX39.WAV"


@pytest.mark.parametrize("upper", [True, False], ids=["upper case", "lower case"])
def test_a_tree(tmp_path: Path, upper: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recordings = read_timit(timit_tree(tmp_path, upper=upper))
    assert [(r.split, r.labels["region"], r.speaker) for r in recordings[::4]] == [
        ("train", "DR1", "FCJF0"),
        ("train", "DR1", "MDAC0"),
        ("train", "DR2", "MARC0"),
        ("test", "DR1", "FAKS0"),
        ("test", "DR1", "MDAB0"),
    ]
    assert [r.labels["sentence"] for r in recordings] == list(SENTENCES) * 5
    assert [r.labels["type"] for r in recordings[:4]] == ["SA", "SI", "SX", "SX"]
    assert [r.labels["sex"] for r in recordings[::4]] == ["F", "M", "M", "F", "M"]
    first = recordings[2]
    assert first.path == tmp_path / ("TRAIN/DR1/FCJF0/SX39.WAV" if upper else "train/dr1/fcjf0/sx39.wav")
    np.testing.assert_allclose(first.audio(), tone(), atol=1e-4)
    assert len(first.audio(sample_rate=8000)) == 4000
    assert read_sentence(first.path) == "She had your dark suit."
    assert read_words(first.path) == [Interval(0.1, 0.2, "she"), Interval(0.2, 0.4, "had"), Interval(0.375, 0.4875, "your")]
    phones = read_phones(first.path)
    assert " ".join(p.label for p in phones) == "h# sh iy q ax-h dcl jh axr h#"
    assert phones[1] == Interval(0.1, 0.15, "sh")
    folded = read_phones(first.path, fold=True)
    assert " ".join(p.label for p in folded) == "sil sh iy ah sil jh er sil"
    assert [(p.start, p.end) for p in folded] == [(p.start, p.end) for p in phones if p.label != "q"]


def test_records_are_small_and_can_be_sets(tree: Path) -> None:
    once, again = read_timit(tree), read_timit(tree)
    assert once == again and len({*once, *again}) == len(once) == 20
    with pytest.raises(AttributeError):
        once[0].split = "test"  # type: ignore[misc]


def test_the_folding_is_lee_and_hons() -> None:
    """Their table 2, the other way around: what each of the phones that vanish becomes."""
    merged = {"ao": "aa", "ax": "ah", "ax-h": "ah", "axr": "er", "hv": "hh", "ix": "ih", "el": "l", "em": "m", "en": "n"}
    merged |= {"nx": "n", "eng": "ng", "zh": "sh", "ux": "uw"}
    merged |= dict.fromkeys(["pcl", "tcl", "kcl", "bcl", "dcl", "gcl", "h#", "pau", "epi"], "sil")
    kept = "iy ih eh ey ae aa aw ay ah oy ow uh uw er l r w y hh m n ng jh ch b d g p t k dx s z sh f th v dh"
    assert {phone: phone for phone in kept.split()} | merged == FOLD
    assert len(PHONES) == len(set(PHONES)) == 61 and set(PHONES) == {*FOLD, "q"}
    assert len(PHONES_39) == 39 and set(PHONES_39) == {*kept.split(), "sil"} == set(FOLD.values())


def test_twins_count_once_and_the_original_is_taken(tree: Path, one: Path) -> None:
    for sentence in SENTENCES:
        soundfile.write(one.with_name(f"{sentence}.WAV.wav"), tone(hertz=900), 16000)
    soundfile.write(one.with_name("sx39.wav"), tone(hertz=900), 16000)
    recordings = read_timit(tree)
    assert len(recordings) == 20
    assert recordings[2].path == one
    np.testing.assert_allclose(recordings[2].audio(), tone(), atol=1e-4)
    for name in ("SX39.WAV", "sx39.wav"):
        one.with_name(name).unlink()
    copy = read_timit(tree)[2]
    assert copy.path == one.with_name("SX39.WAV.wav")
    np.testing.assert_allclose(copy.audio(), tone(hertz=900), atol=1e-4)
    assert read_phones(copy.path)[1] == Interval(0.1, 0.15, "sh")


def test_the_core_test_set(tmp_path: Path, tree: Path) -> None:
    with pytest.warns(FastencodeWarning, match="23 of the core test set's 24 speakers are not in TEST: FDHC0, FELC0"):
        recordings = read_timit(tree, core=True)
    assert [(r.speaker, r.labels["sentence"]) for r in recordings if r.split == "test"] == [
        ("MDAB0", "SI1411"),
        ("MDAB0", "SX39"),
        ("MDAB0", "SX129"),
    ]
    assert len([r for r in recordings if r.split == "train"]) == 12
    # The whole of it: 24 speakers, two men and one woman a region, 5 SX and 3 SI each.
    regions = [f"DR{k + 1}" for k in range(8)]
    women, men = (sorted(s for s in CORE_TEST_SPEAKERS if s[0] == sex) for sex in "FM")
    assert (len(women), len(men)) == (8, 16)
    core = [*zip(women, regions, strict=True), *zip(men, regions * 2, strict=True)]
    for speaker, region in [*core, ("FAKS0", "DR1"), ("MABC0", "DR2")]:
        folder = tmp_path / "whole" / ("TRAIN" if speaker == "MABC0" else "TEST") / region / speaker
        folder.mkdir(parents=True)
        for sentence in ("SA1", "SA2", *(f"SX{k}" for k in range(3, 8)), *(f"SI{k}" for k in range(500, 503))):
            (folder / f"{sentence}.WAV").touch()
            (folder / f"{sentence}.PHN").touch()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recordings = read_timit(tmp_path / "whole", core=True)
    assert Counter(r.labels["type"] for r in recordings if r.split == "test") == {"SX": 120, "SI": 72}


DAMAGES = [
    (read_phones, "PHN", "0 1600 h#\n1600 2400 sh\n2300 3200 iy\n", "line 3: 'iy' starts before 'sh' ends: correct the over"),
    (read_phones, "PHN", "0 1600 h#\n2400 1600 sh\n", "line 2: 'sh' runs from sample 2400 back to 1600"),
    (read_phones, "PHN", "0 1600 h#\n1600 2400 zz\n", "line 2: 'zz' is none of TIMIT's 61 phones"),
    (read_phones, "PHN", "0 1600 h#\n\n1600 8161 sh\n", r"line 3: 'sh' ends at 0\.510 s, but SX39\.WAV is only 0\.500 s long"),
    (read_phones, "PHN", "0 h#\n", "line 1: '0 h#' is not a start, an end"),
    (read_phones, "PHN", "-5 1600 h#\n", "'-5 1600 h#' is not a start, an end"),
    (read_phones, "PHN", "0 1.5 h#\n", "'0 1.5 h#' is not a start, an end"),
    (read_phones, "PHN", " \n", "SX39.PHN is empty"),
    (read_words, "WRD", "3200 6400 had\n1600 3200 she\n", "line 2: 'she' starts before 'had' starts: put the labels in order"),
    (read_words, "WRD", "1600 8200 she\n", "WRD, line 1: 'she' ends at"),
    (read_sentence, "TXT", "0 8000 She had.\n0 8000 Your suit.\n", "holds 2 lines, expected one"),
]


@pytest.mark.parametrize(("read", "kind", "content", "message"), DAMAGES)
def test_damaged_labels(one: Path, read: object, kind: str, content: str, message: str) -> None:
    one.with_suffix(f".{kind}").write_text(content)
    with pytest.raises(InputError, match=message):
        read(one)


KINDS = [(read_phones, "PHN", PHN), (read_words, "WRD", WRD), (read_sentence, "TXT", TXT)]


@pytest.mark.parametrize(("read", "kind", "text"), KINDS)
def test_label_files_in_other_encodings(one: Path, read: object, kind: str, text: str) -> None:
    path, expected = one.with_suffix(f".{kind}"), read(one)
    for encoding in ("utf-8-sig", "utf-16", "utf-16-be"):
        path.write_bytes(text.replace("\n", "\r\n").encode(encoding))
        assert read(one) == expected
    path.write_bytes(text.encode() + b"7900 8000 \xe9\n")
    with pytest.raises(InputError, match=rf"SX39\.{kind} is not UTF-8: see line {text.count(chr(10)) + 1}, byte"):
        read(one)


def test_a_label_may_end_within_one_frame_of_the_sounds_end(one: Path) -> None:
    one.with_suffix(".PHN").write_text("0 8160 h#\n")
    assert read_phones(one) == [Interval(0.0, 0.51, "h#")]
    soundfile.write(one, tone(4000), 8000, format="NIST", subtype="PCM_16")  # converted to 8 kHz: as long as before
    assert read_phones(one) == [Interval(0.0, 0.51, "h#")]
    soundfile.write(one, tone(4000), 16000, format="NIST", subtype="PCM_16")
    with pytest.raises(InputError, match=r"is only 0\.250 s long: the sound is cut off, or the labels are another recording's"):
        read_phones(one)
    one.write_bytes(b"no sound")
    with pytest.raises(InputError, match=r"SX39\.WAV cannot be decoded"):
        read_phones(one)


def test_missing_files(tree: Path, one: Path) -> None:
    for name in ("SX39.PHN", "SX129.PHN", "SX39.WRD"):
        one.with_name(name).unlink()
    with pytest.warns(FastencodeWarning, match=r"2 of 20 recordings have no phone labels, the first .*SX39\.WAV"):
        assert len(read_timit(tree)) == 20
    with pytest.raises(InputError, match=r"SX39\.WAV has no \.PHN beside it \(SX39\.PHN\)"):
        read_phones(one)
    with pytest.raises(InputError, match=r"has no \.WRD beside it"):
        read_words(one)
    one.with_name("SX39.PHN").symlink_to(".git/annex/objects/SX39.PHN")
    with pytest.raises(InputError, match=r"datalad get .*SX39\.PHN"):
        read_phones(one)
    one.unlink()
    with pytest.raises(InputError, match=r"1 sentences have labels and no sound, the first .*FCJF0/SX39"):
        read_timit(tree)
    with pytest.raises(InputError, match=r"SX39\.WAV does not exist"):
        read_phones(one)
    with pytest.raises(InputError, match="has no .TXT beside it"):
        read_sentence(tree / "nowhere" / "SX1.WAV")


def test_damaged_trees(tmp_path: Path, tree: Path) -> None:
    with pytest.raises(InputError, match="nowhere is not a folder"):
        read_timit(tmp_path / "nowhere")
    with pytest.raises(InputError, match=f"holds neither TRAIN nor TEST: give {tree}"):
        read_timit(tmp_path)
    with pytest.raises(InputError, match="neither TRAIN nor TEST: give the folder that holds them"):
        read_timit(tree / "TRAIN")
    (tmp_path / "empty" / "TRAIN").mkdir(parents=True)
    (tmp_path / "empty" / "test").mkdir(parents=True)
    with pytest.raises(InputError, match="hold no sentence"):
        read_timit(tmp_path / "empty")
    for folder, message in [
        ("TRAIN/DR9", "DR9 is not a dialect region, DR1 to DR8"),
        ("TRAIN/DR1/FCJF", r"FCJF is not a speaker \(F or M, three letters, a digit\)"),
    ]:
        (tree / folder).mkdir()
        with pytest.raises(InputError, match=message):
            read_timit(tree)
        (tree / folder).rmdir()
    odd = tree / "TRAIN" / "DR1" / "FCJF0" / "SX39_noisy.WAV"
    odd.touch()
    with pytest.raises(InputError, match=r"SX39_noisy\.WAV is not named as a sentence is"):
        read_timit(tree)
    odd.rename(odd.with_suffix(".zip"))  # files of other kinds are none of ours
    (odd.parent / ".DS_Store").touch()
    assert len(read_timit(tree)) == 20


def test_half_a_corpus_and_a_speaker_in_both_halves(tmp_path: Path) -> None:
    half = timit_tree(tmp_path / "half", speakers={("TEST", "DR1"): ("MDAB0",)})
    with pytest.warns(FastencodeWarning, match="half has no TRAIN: only half of the standard split is here"):
        assert {r.split for r in read_timit(half)} == {"test"}
    both = timit_tree(tmp_path / "both", speakers={("TRAIN", "DR1"): ("MDAB0", "FCJF0"), ("TEST", "DR1"): ("MDAB0",)})
    with pytest.warns(FastencodeWarning, match="1 of 2 speakers stand in several splits, for example 'MDAB0' in train and test"):
        read_timit(both)


def test_the_real_sample(shared_data: Path, tmp_path: Path) -> None:
    """Three sentences of one speaker: their labels by hand, alone and as a tree of links."""
    sample = shared_data / "timit"
    for split, speaker in (("train", "mmdm0"), ("test", "fxyz0")):  # which speaker it is, the sample does not say
        folder = tmp_path / split / "dr1" / speaker
        folder.mkdir(parents=True)
        for path in sample.glob("s*"):
            (folder / path.name).symlink_to(path)
    recordings = read_timit(tmp_path)
    assert [r.labels["sentence"] for r in recordings] == ["SA1", "SA2", "SI836"] * 2
    for recording in recordings:
        for read, kind in ((read_phones, "phn"), (read_words, "wrd")):
            rows = [line.split() for line in (sample / f"{recording.path.stem}.{kind}").read_text().splitlines()]
            labels = read(recording.path)
            assert labels == read(sample / recording.path.name)
            assert [label.label for label in labels] == [row[2] for row in rows]
            np.testing.assert_allclose([i[:2] for i in labels], np.array([row[:2] for row in rows], dtype=float) / 16000)
        assert read_phones(recording.path)[-1].end <= len(recording.audio()) / 16000
        assert {p.label for p in read_phones(recording.path, fold=True)} <= set(PHONES_39)
    assert " ".join(w.label for w in read_words(recordings[0].path)) == "she had your dark suit in greasy wash water all year"
    assert "q" in {p.label for p in read_phones(recordings[0].path)}
