"""Manifests: every form and encoding gives the same recordings; real speech by speaker; each kind of damage has its message."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import pytest

from fastencode.data.manifest import read_manifest
from fastencode.data.recordings import Recording
from fastencode.errors import FastencodeWarning, InputError

ROWS = [
    {"audio": "clips/a 1.wav", "label": "iloinen", "speaker": "p1", "split": "train", "text": '"Hei, sinä", hän', "tr": "1.35"},
    {"audio": "clips/b.flac", "label": "悲しい", "speaker": "話者2", "split": "validation", "text": "一\n二\u2028行", "tr": "2"},
    {"audio": "clips/c.wav", "label": "حزين", "speaker": "متحدث", "split": "test", "text": "", "tr": "0.72"},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "clips").mkdir()
    for row in ROWS:
        (tmp_path / row["audio"]).touch()
    return tmp_path


def as_recordings(folder: Path, rows: Sequence[Mapping[str, str]] = ROWS) -> list[Recording]:
    return [
        Recording(folder / row["audio"], {k: row[k] for k in ("label", "text", "tr") if row[k]}, row["speaker"], row["split"])
        for row in rows
    ]


def write(folder: Path, text: str | bytes, name: str = "m.csv") -> Path:
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder / name


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_forms_and_encodings(folder: Path, encoding: str, newline: str) -> None:
    """Written by pandas and json; the cell with a line end inside is kept as it is."""
    expected = as_recordings(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for delimiter in ",;|":
            text = pd.DataFrame(ROWS).to_csv(index=False, sep=delimiter, lineterminator=newline)
            given = None if delimiter == "," else delimiter
            assert read_manifest(write(folder, text.encode(encoding)), delimiter=given) == expected
        lines = newline.join(json.dumps(row, ensure_ascii=row["split"] == "test") for row in ROWS)
        assert read_manifest(write(folder, lines.encode(encoding), "m.jsonl")) == expected
        flat = [row | {"text": row["text"].replace("\n", " ")} for row in ROWS]  # TSV has no quotes, so no line ends in cells
        text = newline.join("\t".join(row) for row in [list(ROWS[0]), *(row.values() for row in flat)])
        assert read_manifest(write(folder, text.encode(encoding), "m.tsv")) == as_recordings(folder, flat)


def test_columns_by_other_names(folder: Path) -> None:
    frame = pd.DataFrame(ROWS).rename(columns={"audio": "path", "speaker": "client_id", "split": "part"})
    frame["part"] = ["train", "DEV", "test"]
    path = write(folder, frame.to_csv())  # pandas writes an index, a column without a name
    recordings = read_manifest(
        path, audio="path", labels=("label", "tr"), speaker="client_id", split="part", splits={"dev": "validation"}
    )
    assert recordings == as_recordings(folder)
    for given, message in [
        ({}, r"no column 'audio', only \['path', 'label', .*, 'tr'\]: rename one, or say which it is with audio=$"),
        ({"audio": "path", "labels": "emotion"}, r"no column 'emotion', .* with labels=, or labels=\(\) if nothing is labeled"),
        ({"audio": "path"}, "no column 'speaker', .* with speaker=, or speaker=None if there is none"),
        ({"audio": "path", "speaker": None}, "no column 'split', .* with split=, or split=None if there is none"),
    ]:
        with pytest.raises(InputError, match=message):
            read_manifest(path, **given)


def test_what_is_not_there_and_what_is_there_twice(folder: Path) -> None:
    path = write(folder, "audio\nclips/a 1.wav\nclips/b.flac\n")
    recordings = read_manifest(path, labels=(), speaker=None, split=None)
    assert recordings == [Recording(folder / "clips/a 1.wav"), Recording(folder / "clips/b.flac")]
    # The speaker as what is to be found: a label and the speaker, too.
    path = write(folder, "audio,speaker\nclips/a 1.wav,x\nclips/b.flac,y\n")
    recordings = read_manifest(path, labels="speaker", split=None)
    assert [(r.speaker, dict(r.labels)) for r in recordings] == [("x", {"speaker": "x"}), ("y", {"speaker": "y"})]


def test_values_stay_text(folder: Path) -> None:
    row = '{"audio": "clips/c.wav", "label": 3, "tr": 1.50, "age": null, "ok": true, "words": [{"w": "é", "t": 0.10}]}'
    (recording,) = read_manifest(write(folder, row, "m.json"), speaker=None, split=None)
    assert dict(recording.labels) == {"label": "3", "tr": "1.50", "ok": "true", "words": '[{"w": "é", "t": "0.10"}]'}


def test_paths_start_at_the_manifest(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("lists")
    for start in (os.path.relpath(folder, elsewhere), str(folder)):
        path = write(elsewhere, f"audio\n{start}/clips/c.wav\n")
        (recording,) = read_manifest(path, labels=(), speaker=None, split=None)
        assert recording.path.samefile(folder / "clips" / "c.wav")


HEADER = "audio,label,speaker,split\n"
FIRST = "clips/a 1.wav,x,s1,train\n"
DAMAGES = [
    ("", r"m\.csv is empty"),
    (HEADER, "has a header and no rows"),
    (HEADER + FIRST + "\n,,,\n", "line 4 is empty: delete it"),
    (HEADER + FIRST + ",x,s2,train\n", "line 3: 'audio' is empty; fill it in"),
    (HEADER + FIRST + "clips/b.flac,,s2,train\n", "line 3: 'label' is empty"),
    (HEADER + FIRST + "clips/b.flac,x, ,train\n", "line 3: 'speaker' is empty"),
    (HEADER + FIRST + "clips/b.flac,x,s2,\n", "line 3: 'split' is empty"),
    (HEADER + FIRST + "clips/b.flac,x,s2,dev\n", "line 3: split 'dev' is none of train, validation, test; .*splits={'dev': "),
    (HEADER + FIRST + "clips/b.flac,x,y,s2,test\n", "line 3 has 5 cells, but the header has 4: put cells that contain ','"),
    (HEADER + FIRST + "clips/b.flac,x\n", "line 3 has 2 cells, but the header has 4"),
    (HEADER + '"clips/a\n1.wav",x,s1,train\n' + "clips/b.flac,x\n", "line 4 has 2 cells"),
    (HEADER + FIRST + '"clips/\nb.flac",x\n', "line 3 has 2 cells"),
    (HEADER + FIRST + "clips/../clips/a 1.wav,x,s2,test\n", "line 3: 'clips/../clips/a 1.wav' stands on line 2 already"),
    (HEADER + FIRST + "no.wav,x,s2,test\nclips,x,s3,test\n", r"2 of 3 files are missing, the first .*no\.wav on line 3; paths"),
    (HEADER + FIRST + '"clips/b.flac" x,x,s2,test\n', "line 3: .*check the quotation marks from there on"),
    (HEADER + FIRST + '"clips/b.flac,x,s2,test\n', "line 3: .*check the quotation marks"),
    ("audio,label,audio\n", "two columns 'audio'"),
    (HEADER.replace(",", ";") + FIRST.replace(",", ";"), "header 'audio;label;speaker;split', without a ',': give delimiter=';'"),
    (HEADER.replace(",", "\t") + FIRST.replace(",", "\t"), r"give delimiter='\\t'"),
    ('[{"audio": "clips/c.wav"}]', "is one JSON array: write one object on each line"),
    ('{"audio": "clips/c.wav"}\n{"audio":\n', r"line 2 is not JSON \(Expecting value, column 10\)"),
    ('{"audio": "clips/c.wav"}\n\n["clips/b.flac"]\n', "line 3 is no JSON object"),
    (b"audio,label\nclips/c.wav,tr\xe8s\n", r"is not UTF-8: see line 2, byte 26 of the file; save it as UTF-8"),
    ("audio,label\nx,y\n".encode("utf-16")[:-1], "is not UTF-16: see line"),
]


@pytest.mark.parametrize(("content", "message"), DAMAGES)
def test_damaged_manifests(folder: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_manifest(write(folder, content))


def test_other_refusals(folder: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.csv does not exist"):
        read_manifest(folder / "nowhere.csv")
    with pytest.raises(InputError, match="splits maps 'dev' to 'valid': the splits are train, validation, test"):
        read_manifest(folder / "nowhere.csv", splits={"dev": "valid"})
    (folder / "linked.wav").symlink_to(".git/annex/objects/linked.wav")
    with pytest.raises(InputError, match=r"1 of 2 files are missing, .* line 3; .*in a DataLad data set, run `datalad get"):
        read_manifest(write(folder, HEADER + FIRST + "linked.wav,x,s2,test\n"))
    (folder / "pointer.wav").write_text("/annex/objects/MD5E-s1--0.wav\n")
    (folder / "loop.wav").symlink_to("loop.wav")
    for name, words in [("pointer.wav", "a pointer to it: run `datalad"), ("loop.wav", "back to itself"), ("clips", "a folder")]:
        with pytest.raises(InputError, match=f"1 of 2 files are missing, .* line 3; .*{words}"):
            read_manifest(write(folder, HEADER + FIRST + f"{name},x,s2,test\n"))
    for delimiter in ("", ";;"):
        with pytest.raises(InputError, match=f"delimiter='{delimiter}': give the one character"):
            read_manifest(write(folder, HEADER + FIRST), delimiter=delimiter)


def test_a_speaker_in_two_splits(folder: Path) -> None:
    path = write(folder, HEADER + FIRST + "clips/b.flac,x,s1,TEST\nclips/c.wav,y,s2,train\n")
    with pytest.warns(FastencodeWarning, match="m.csv: 1 of 2 speakers stand in several splits, for example 's1' in train and"):
        assert [r.split for r in read_manifest(path)] == ["train", "test", "train"]


def test_real_spoken_digits(shared_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("soundfile", reason="sounds need the extra 'tune'")
    files = sorted((shared_data / "speech" / "digits").glob("*.wav"))
    table = pd.DataFrame([path.stem.split("_") for path in files], columns=["digit", "speaker", "take"])
    table["audio"] = [os.path.relpath(path, tmp_path) for path in files]
    table["split"] = table["speaker"].map(lambda name: "test" if name == "theo" else "train")
    for name in ("digits.csv", "digits.jsonl"):
        text = table.to_csv(index=False) if name.endswith("csv") else table.to_json(orient="records", lines=True)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # split by speaker
            recordings = read_manifest(write(tmp_path, text, name), labels="digit")
        assert len(recordings) == 240
        assert {r.speaker for r in recordings if r.split == "test"} == {"theo"}
        assert len({r.speaker for r in recordings}) == 6
        assert [r.labels["digit"] for r in recordings] == [path.name[0] for path in files]
        assert all(r.path.samefile(path) for r, path in zip(recordings, files, strict=True))
    assert 0.1 < len(recordings[0].audio()) / 16000 < 3
    table["split"] = ["test" if take == "6" else "train" for take in table["take"]]
    with pytest.warns(FastencodeWarning, match="6 of 6 speakers stand in several splits"):
        read_manifest(write(tmp_path, table.to_csv(index=False)), labels="digit")
