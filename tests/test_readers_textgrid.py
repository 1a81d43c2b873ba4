"""TextGrids: both forms, every encoding, what a round trip keeps, and each kind of damage."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from fastencode.data.textgrid import Interval, pick_tier, read_textgrid, spoken, write_textgrid
from fastencode.errors import FastencodeWarning, InputError
from textgrid_cases import LONG

pytest.importorskip("praatio", reason="TextGrids need the extra 'tune'")

SHORT = '''File type = "ooTextFile"
Object class = "TextGrid"

0
2.5
<exists>
2
"IntervalTier"
"phone"
0
2.5
3
0
0.5
""
0.5
1.25
"é "
1.25
2.5
"say ""hi"""
"TextTier"
"beat"
0
2.5
1
0.75
"x"
'''
EXPECTED = {"phone": [Interval(0.5, 1.25, "é"), Interval(1.25, 2.5, 'say "hi"')], "beat": [Interval(0.75, 0.75, "x")]}


@pytest.mark.parametrize("text", [LONG, SHORT], ids=["long", "short"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_forms_and_encodings(tmp_path: Path, text: str, encoding: str, newline: str) -> None:
    (tmp_path / "a.TextGrid").write_bytes(text.replace("\n", newline).encode(encoding))
    assert read_textgrid(tmp_path / "a.TextGrid") == EXPECTED
    everything = read_textgrid(tmp_path / "a.TextGrid", include_empty=True)
    assert everything["phone"] == [Interval(0.0, 0.5, ""), *EXPECTED["phone"]]


def test_latin_1_is_read_with_a_warning(tmp_path: Path) -> None:
    (tmp_path / "a.TextGrid").write_bytes(LONG.encode("latin-1"))
    with pytest.warns(FastencodeWarning, match=r"a\.TextGrid is not UTF-8"):
        assert read_textgrid(tmp_path / "a.TextGrid") == EXPECTED


def test_tiers_of_one_name(tmp_path: Path) -> None:
    (tmp_path / "a.TextGrid").write_text(LONG.replace('"beat"', '"phone"'), encoding="utf-8")
    assert list(read_textgrid(tmp_path / "a.TextGrid")) == ["phone", "phone_2"]


def test_tiers_by_name(tmp_path: Path) -> None:
    phone, beat = EXPECTED["phone"], EXPECTED["beat"]
    assert pick_tier(EXPECTED, "Beat") is beat
    for name in ("Lisa - beat", "lisa_BEAT", "1/beat ", "Laute-Beat"):
        assert pick_tier({name: beat, "phone": phone}, "beats", "beat") is beat
    assert pick_tier({"a - beat": phone, "beat": beat}, "beat") is beat, "the name alone counts more"
    assert pick_tier({"anything": beat}, "word", alone=True) is beat
    with pytest.raises(InputError, match=r"no tier named word or words, or ending so: the tiers are \['phone', 'beat'\]$"):
        pick_tier(EXPECTED, "word", "words", alone=True)
    with pytest.raises(InputError, match=r"the tiers \['Lisa - beat', 'Tom - beat'\] all end with beat; name one with word_tier"):
        pick_tier({"Lisa - beat": beat, "Tom - beat": beat}, "beat", option="word_tier")
    with pytest.raises(InputError, match=r"the tiers are \['swords'\]; name one with word_tier"):
        pick_tier({"swords": beat}, "words", option="word_tier")


def test_only_speech_is_spoken() -> None:
    labels = ["I", "sp", "SP ", "{BR}", "{ls}", "{NS} ", "", " ", "'s", "sentence_start", "spoon", "<sil>", "I "]
    assert [i.label for i in spoken(Interval(k, k + 1, w) for k, w in enumerate(labels))] == ["I", "'s", "spoon", "I "]
    assert [i.label for i in spoken([Interval(0, 1, "um"), Interval(1, 2, "sp")], non_speech=frozenset({"um"}))] == ["sp"]


def test_round_trip_is_exact(tmp_path: Path) -> None:
    tiers = {
        "word": [(1 / 3, 0.7, 'a "quoted" word'), (0.7, 0.7000001, "brief"), (1.1, 2.9999999999, "größer 你好")],
        "none": [],
        "phone": [(2.0, 3.0, "AA1"), (1.0, 2.0, "")],
    }
    write_textgrid(tmp_path / "a.TextGrid", tiers, 3.0)
    got = read_textgrid(tmp_path / "a.TextGrid")
    assert got == {
        "word": [Interval(*i) for i in tiers["word"]],
        "none": [],
        "phone": [Interval(2.0, 3.0, "AA1")],
    }
    whole = read_textgrid(tmp_path / "a.TextGrid", include_empty=True)
    for tier in whole.values():  # Praat needs tiers without gaps
        assert tier[0].start == 0
        assert tier[-1].end == 3
        assert all(a.end == b.start for a, b in itertools.pairwise(tier))
    assert [p.name for p in tmp_path.iterdir()] == ["a.TextGrid"]


def test_what_cannot_be_written(tmp_path: Path) -> None:
    for interval in [(1.0, 1.0, "a"), (-1.0, 1.0, "a"), (2.0, 4.0, "a"), (float("nan"), 1.0, "a")]:
        with pytest.raises(InputError, match=r"does not fit into 0 … 3\.0 s"):
            write_textgrid(tmp_path / "a.TextGrid", {"word": [interval]}, 3.0)
    with pytest.raises(InputError, match=r"'b' at 0\.900 s starts before 'a' ends at 1\.000 s"):
        write_textgrid(tmp_path / "a.TextGrid", {"word": [(0.9, 2.0, "b"), (0.0, 1.0, "a")]}, 3.0)
    assert not list(tmp_path.iterdir())


def test_small_overlaps_are_rounding_and_large_ones_are_errors(tmp_path: Path) -> None:
    path = tmp_path / "a.TextGrid"
    path.write_text(LONG.replace("xmin = 1.25", "xmin = 1.2495"), encoding="utf-8")
    assert read_textgrid(path)["phone"][1].start == 1.2495
    path.write_text(LONG.replace("xmin = 1.25", "xmin = 1.2"), encoding="utf-8")
    with pytest.raises(InputError, match=r"tier 'phone': 'say \"hi\"' at 1\.200 s starts before 'é' ends at 1\.250 s"):
        read_textgrid(path)
    path.write_text(LONG.replace("xmin = 1.25", "xmin = 2.75"), encoding="utf-8")
    with pytest.raises(InputError, match=r"runs from 2.75 to 2.5 s"):
        read_textgrid(path)
    path.write_text(LONG.replace("xmin = 0\n", "xmin = -0.25\n"), encoding="utf-8")
    assert read_textgrid(path, include_empty=True)["phone"][0] == Interval(-0.25, 0.5, "")
    path.write_text(LONG.replace("xmin = 0\n", "xmin = -0\n"), encoding="utf-8")
    assert read_textgrid(path) == EXPECTED


@pytest.mark.parametrize("text", [LONG, SHORT], ids=["long", "short"])
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.TextGrid"
    for end in range(1, len(text.rstrip()) - 1):
        path.write_text(text[:end], encoding="utf-8")
        with pytest.raises(InputError, match=r"TextGrid|empty"):
            read_textgrid(path)


@pytest.mark.parametrize("text", [LONG, SHORT], ids=["long", "short"])
@pytest.mark.parametrize("ends", ["\r\n", "\r"], ids=["Windows", "old Macs"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_line_ends_of_every_system(tmp_path: Path, text: str, ends: str, encoding: str) -> None:
    (tmp_path / "a.TextGrid").write_bytes(text.replace("\n", ends).encode(encoding))
    assert read_textgrid(tmp_path / "a.TextGrid") == EXPECTED


def test_json_that_is_no_textgrid(tmp_path: Path) -> None:
    path = tmp_path / "a.TextGrid"
    tier = '{"start": 0, "end": 1, "tiers": {"word": {"type": "IntervalTier", "entries": [%s]}}}'
    path.write_text(tier % '[0, 1, "a"]')
    assert read_textgrid(path) == {"word": [Interval(0.0, 1.0, "a")]}
    for text, words in [
        ('{"a": 1}', r"is not a whole TextGrid \(KeyError: 'tiers'\)"),
        ('{"tiers": 3}', "is not a whole TextGrid"),
        ("{", "is not a whole TextGrid"),
        (tier % '["x", 1, "a"]', r"tier 'word': .* is not a start, an end and a label"),
        (tier % "1", "is not a start, an end and a label"),
        (tier % "[]", "is not a start, an end and a label"),
    ]:
        path.write_text(text)
        with pytest.raises(InputError, match=words):
            read_textgrid(path)


def test_unusable_files(tmp_path: Path) -> None:
    path = tmp_path / "a.TextGrid"
    with pytest.raises(InputError, match="does not exist"):
        read_textgrid(path)
    path.write_text(" \n")
    with pytest.raises(InputError, match="is empty"):
        read_textgrid(path)
    path.write_text("word,start,end\n")
    with pytest.raises(InputError, match="is not a TextGrid: its first line is 'word,start,end'"):
        read_textgrid(path)
    path.write_bytes(LONG.encode("utf-16")[:-1])
    with pytest.raises(InputError, match="not valid utf-16"):
        read_textgrid(path)
    path.unlink()
    path.symlink_to(tmp_path / "gone")
    with pytest.raises(InputError, match="datalad get"):
        read_textgrid(path)
