"""TextGrids in every form of Praat's, and what Praat takes for comments: as Praat itself reads the same files."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from fastencode.data.textgrid import Interval, read_textgrid
from fastencode.errors import FastencodeWarning, InputError
from textgrid_cases import LONG

SHORT = (
    'File type = "ooTextFile"\n"TextGrid"\n\n0\n2.5\n<exists>\n2\n"IntervalTier"\n"phone"\n0\n2.5\n3\n0\n0.5\n""\n0.5\n'
    '1.25\n"é "\n1.25\n2.5\n"say ""hi"""\n"TextTier"\n"beat"\n0\n2.5\n1\n0.75\n"x"\n'
)
CHRONOLOGICAL = '''"Praat chronological TextGrid text file"
0 2.5   ! Time domain.
2   ! Number of tiers.
"IntervalTier" "phone" 0 2.5
"TextTier" "beat" 0 2.5

! phone:
1 0 0.5
""

! phone:
1 0.5 1.25
"é "

! beat:
2 0.75
"x"

! phone:
1 1.25 2.5
"say ""hi"""
'''
# What Praat wrote with "Save as binary file...".
BINARY = bytes.fromhex(
    "6f6f42696e61727946696c650854657874477269640000000000000000400400000000000001000000020c496e74657276616c5469657200"
    "0570686f6e65000000000000000040040000000000000000000300000000000000003fe000000000000000003fe00000000000003ff40000"
    "00000000ffff000200e900203ff4000000000000400400000000000000087361792022686922085465787454696572000462656174000000"
    "00000000004004000000000000000000013fe8000000000000000178"
)
EXPECTED = {"phone": [Interval(0.5, 1.25, "é"), Interval(1.25, 2.5, 'say "hi"')], "beat": [Interval(0.75, 0.75, "x")]}


def read(tmp_path: Path, content: str | bytes, **options: bool) -> dict[str, list[Interval]]:
    path = tmp_path / "a.TextGrid"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_textgrid(path, **options)


@pytest.mark.parametrize(
    "content",
    [
        LONG,
        SHORT,
        CHRONOLOGICAL,
        BINARY,
        "\n\n  " + LONG,
        LONG.replace(" = ", "="),
        LONG.replace(" = ", " ="),
        LONG.replace(" = ", "= ").replace("? <", "?<"),
        LONG.replace("xmax = 0.5", "xmax = 5e-1").replace("xmin = 0.5", "xmin = +0.5E+0"),
        LONG.replace("xmax = 0.5", "xmax = 1/2").replace("xmin = 0.5", "xmin = 50%"),
        LONG.replace("xmax = 0.5", 'xmax = ! 7 and a "quotation mark\n 0.5!and more'),
        LONG.replace("number = ", "time = "),
        LONG.replace('mark = "x"', 'mark = ! "no"\n"x"'),
        LONG.replace("\n", " ").replace('File" ', 'File"\n', 1),
        SHORT.replace('"phone"', '\n\n"phone"').replace('"beat"', '! "no"\n \n"beat"'),
        SHORT.replace("\n", " ").replace('File" ', 'File"\n', 1),
    ],
    ids=[
        "long",
        "short",
        "chronological",
        "binary",
        "empty first lines",
        "no spaces",
        "none after =",
        "none before =",
        "exponents",
        "fractions",
        "comments",
        "older points",
        "comment before a label",
        "one line",
        "empty lines before names",
        "short form on one line",
    ],
)
def test_every_form_reads_the_same(tmp_path: Path, content: str | bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(tmp_path, content) == EXPECTED
        assert read(tmp_path, content, include_empty=True)["phone"][0] == Interval(0.0, 0.5, "")


@pytest.mark.parametrize(
    "label",
    [
        *("xmin = 3", 'text = "x"', "<exists>", "! not a comment", "intervals: size = 4", 'class = "TextTier"', "item [2]:"),
        *("1 2 3", '"', '""', "a\nxmin = 7\nb", "xmin=0", "-5", "ooTextFile", "intervals [1]:"),
    ],
)
@pytest.mark.parametrize("form", [LONG, SHORT, CHRONOLOGICAL], ids=["long", "short", "chronological"])
def test_labels_that_look_like_syntax(tmp_path: Path, form: str, label: str) -> None:
    tiers = read(tmp_path, form.replace('"é "', '"' + label.replace('"', '""') + '"'))
    assert tiers == {**EXPECTED, "phone": [Interval(0.5, 1.25, label), EXPECTED["phone"][1]]}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_encodings_of_a_chronological_file(tmp_path: Path, encoding: str) -> None:
    assert read(tmp_path, CHRONOLOGICAL.encode(encoding)) == EXPECTED


@pytest.mark.parametrize(
    ("label", "encoding", "ends", "name"),
    [
        ("größer", "latin-1", "\n", "Latin-1"),
        ("größer", "mac_roman", "\r", "MacRoman"),
        ("café", "mac_roman", "\n", "MacRoman"),
        ("it’s – so", "cp1252", "\r\n", "Windows-1252"),
    ],
)
def test_eight_bit_encodings_are_told_apart(tmp_path: Path, label: str, encoding: str, ends: str, name: str) -> None:
    with pytest.warns(FastencodeWarning, match=rf"a\.TextGrid is not UTF-8: read as {name}; save it as UTF-8") as caught:
        tiers = read(tmp_path, LONG.replace("é ", label).replace("\n", ends).encode(encoding))
    assert tiers["phone"][0].label == label
    assert caught[0].filename == __file__


def test_tiers_without_labels_and_no_tiers(tmp_path: Path) -> None:
    head = 'File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = 0\nxmax = 2\n'
    assert read(tmp_path, head + "tiers? <absent>\n") == {}
    assert read(tmp_path, head + "tiers? <exists>\nsize = 0\nitem []:\n") == {}
    empty = 'class = "IntervalTier"\nname = "a"\nxmin = 0\nxmax = 2\nintervals: size = 0\n'
    assert read(tmp_path, head + "tiers? <exists>\nsize = 2\n" + empty + empty.replace('"a"', '""')) == {"a": [], "": []}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (LONG.replace("size = 3", "size = 4"), "line 28 has the string 'TextTier', where a time in tier 1 is needed"),
        (LONG.replace("size = 3", "size = 2"), "line 24 has the number '1.25', where the class of tier 2 is needed"),
        (LONG.replace("size = 1", "size = 2"), "it ends on line 36, where a time in tier 2 is needed"),
        (LONG.replace("size = 1", "size = 1.5"), "the number of labels in tier 2 on line 32 is 1.5, not a whole number"),
        (LONG.replace("size = 1", "size = -1"), "is -1, not a whole number"),
        (LONG.replace("0.75", "0.7.5"), "'0.7.5' on line 34 is not a number, where a time in tier 2 is needed"),
        (LONG.replace("0.75", "1/0"), "'1/0' on line 34 is not a number"),
        (LONG.replace('""hi"""', '"hi"'), "the quotation mark on line 26 has no partner"),
        (LONG.replace("TextTier", "Pitch"), "tier 2 is of class 'Pitch', neither IntervalTier nor TextTier"),
        (CHRONOLOGICAL.replace("2 0.75", "3 0.75"), "a label belongs to tier 3, but there are 2"),
        (CHRONOLOGICAL[:-2], "the quotation mark on line 21 has no partner"),
        (CHRONOLOGICAL[: CHRONOLOGICAL.rindex("! phone")], "tier 1 ends at 1.25 s of 2.5 s"),
        (BINARY[:-1], "it ends at byte 195, in the middle of a value"),
        (BINARY.replace(b"\x08TextGrid", b"\x05Sound"), "it holds a Sound, not a TextGrid: save the TextGrid alone"),
    ],
)
def test_damage_is_said_with_its_line(tmp_path: Path, content: str | bytes, words: str) -> None:
    with pytest.raises(InputError, match=r"a\.TextGrid is not a whole TextGrid .*" + words.replace("(", r"\(")):
        read(tmp_path, content)


def test_a_binary_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    for end in range(1, len(BINARY)):
        with pytest.raises(InputError, match="TextGrid"):
            read(tmp_path, BINARY[:end])


def test_more_than_announced_is_warned_about(tmp_path: Path) -> None:
    with pytest.warns(FastencodeWarning, match=r"announces 4 labels in 2 tiers, and more follows, which is not read"):
        assert read(tmp_path, LONG + '        points [2]:\n            number = 0.9\n            mark = "y"\n') == EXPECTED
