"""Story data sets in both layouts, and each kind of damage with its own message."""

from __future__ import annotations

import json
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from fastencode.data import stories as stories_module
from fastencode.data.rois import read_rois
from fastencode.data.stories import Stories
from fastencode.data.textgrid import Interval, write_textgrid
from fastencode.errors import FastencodeWarning, InputError
from fastencode.speech.audio import write_audio
from fastencode.speech.silence import NON_SPEECH

pytest.importorskip("praatio", reason="transcripts need the extra 'tune'")
pytest.importorskip("soundfile", reason="sounds need the extra 'tune'")

LENGTHS = {"life": 60, "souls": 75, "wheretheressmoke": 311}
SOUND_RATE = 400  # Hz: long sounds in small files
VOXELS = {"UTS01": 23, "UTS02": 41}
WORDS = [(0.0, 0.5, "sp"), (0.5, 0.9, "I"), (0.9, 1.3, "{BR}"), (1.3, 2.0, "WENT"), (2.0, 2.2, "{NS} "), (2.2, 3.0, "HOME")]
PHONES = [(0.5, 0.9, "AY1"), (1.3, 1.5, "W"), (1.5, 1.7, "EH1"), (1.7, 1.8, "N"), (1.8, 2.0, "T"), (2.0, 2.2, "ns")]


def responses(participant: str, story: str, repeats: int = 0) -> np.ndarray:
    rng = np.random.default_rng([len(participant), VOXELS[participant], LENGTHS[story], repeats])
    shape = (LENGTHS[story] - 20, VOXELS[participant])
    return rng.standard_normal((repeats, *shape) if repeats else shape)


def seconds(story: str) -> int:
    return 2 * (LENGTHS[story] - 10)  # 10 s of silence before the sound and after it


def make_tree(root: Path, *, derivative: bool, **storage: object) -> Path:
    """Write a small data set in the layout of ds003020, or in the flat one."""
    base = root / "derivative" if derivative else root
    for participant in VOXELS:
        folder = base / "preprocessed_data" / participant
        folder.mkdir(parents=True)
        for story in LENGTHS:
            with h5py.File(folder / f"{story}.hf5", "w") as file:
                file.create_dataset("data", data=responses(participant, story), **storage)
                if story == "wheretheressmoke":
                    chunks = {"chunks": (1, *storage["chunks"])} if "chunks" in storage else {}
                    file.create_dataset("individual_repeats", data=responses(participant, story, 5), **(storage | chunks))
    (base / "TextGrids").mkdir()
    (root / "stimuli").mkdir()
    (base / "respdict.json").write_text(json.dumps(LENGTHS))
    for story in LENGTHS:
        write_textgrid(base / "TextGrids" / f"{story}.TextGrid", {"phone": PHONES, "word": WORDS}, 3.5)
        write_audio(root / "stimuli" / f"{story}.wav", 0.1 * np.sin(np.arange(SOUND_RATE * seconds(story))), SOUND_RATE)
    return root


@pytest.fixture(params=[True, False], ids=["derivative", "flat"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return make_tree(tmp_path / "ds", derivative=request.param)


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "ds", derivative=False)


def test_what_is_there(tree: Path) -> None:
    data = Stories(tree)
    assert data.participants == ["UTS01", "UTS02"]
    assert data.stories("UTS02") == sorted(LENGTHS)
    assert data.train_stories("UTS01") == ["life", "souls"]
    assert data.train_stories("UTS01", exclude=("souls",)) == ["life"]
    assert data.train_stories("UTS01", exclude="souls") == ["life"]
    assert data.train_stories("UTS01", exclude=["wheretheressmoke"]) == ["life", "souls"]
    assert [data.n_voxels(p) for p in data.participants] == [23, 41]
    assert len(data.audio("life")) == 16000 * 100
    assert len(data.audio("life", sample_rate=8000)) == 8000 * 100
    assert [w.label for w in data.words("life")] == ["I", "WENT", "HOME"]
    assert data.words("life")[1] == Interval(1.3, 2.0, "WENT")
    assert [p.label for p in data.phones("life")] == ["AY1", "W", "EH1", "N", "T"]
    fewer = Stories(tree, non_speech=NON_SPEECH | {"{Went}", "t"})
    assert [w.label for w in fewer.words("life")] == ["I", "HOME"] and len(fewer.phones("life")) == 4
    assert [w.label for w in Stories(tree, non_speech="home").words("life")] == ["sp", "I", "{BR}", "WENT", "{NS}"]
    assert data.rois("UTS01") == {}
    assert repr(data).startswith("Stories(")


def test_rows_and_their_times(tree: Path) -> None:
    data = Stories(tree)
    assert data.n_rows("life") == 40
    np.testing.assert_array_equal(data.row_times("life"), 2.0 * np.arange(40) + 10)
    np.testing.assert_array_equal(data.row_times("life", middle=True), 2.0 * np.arange(40) + 11)
    np.testing.assert_allclose(Stories(tree, tr=1.5).row_times("life"), 1.5 * (np.arange(40) + 5))
    # The real test story: n = 311, features [50:-5] of n − 5, responses [40:] of n − 20, 251 rows either way.
    features = np.arange(311 - 5)
    rows = data.usable_rows("wheretheressmoke")
    assert len(features[50:-5]) == len(np.arange(data.n_rows("wheretheressmoke"))[rows]) == 251
    # Feature row i spans [2i − 10, 2i − 8) s, so both cuts begin at the same time.
    assert 2 * features[50:-5][0] - 10 == data.row_times("wheretheressmoke")[rows][0] == 90
    assert data.usable_rows("life") == slice(0, 40)


def test_a_wrong_tr_shows_in_the_sound(flat: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for story in LENGTHS:
            Stories(flat, tr=2.0045).audio(story)  # what some papers print
    for tr, story, fitting in [(1.5, "life", "2 s"), (3.0, "life", "2 s"), (0.72, "wheretheressmoke", "2 s")]:
        with pytest.warns(FastencodeWarning, match=rf"{story}\.wav lasts .* check tr \(a TR of {fitting} would fit\)"):
            Stories(flat, tr=tr).audio(story)
    write_audio(flat / "stimuli" / "life.wav", 0.1 * np.sin(np.arange(SOUND_RATE * seconds("souls"))), SOUND_RATE)
    message = r"life\.wav lasts 130\.0 s, but respdict\.json leaves it 50 TRs of 2 s, 100 s: .* whether this is the story's sound"
    with pytest.warns(FastencodeWarning, match=message):
        Stories(flat).audio("life")


STORAGE = [{}, {"chunks": (16, 5)}, {"chunks": (7, 9), "compression": "gzip"}, {"chunks": (40, 1)}]


@pytest.mark.parametrize("storage", STORAGE, ids=["contiguous", "chunked", "gzip", "columns"])
@pytest.mark.parametrize("block", [1, 700, 32 << 20])
def test_responses_and_repeats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: dict[str, object], block: int) -> None:
    monkeypatch.setattr(stories_module, "_BLOCK_BYTES", block)
    data = Stories(make_tree(tmp_path / "ds", derivative=True, **storage))
    whole = responses("UTS02", "life")
    mask = np.zeros(41, dtype=bool)
    mask[[3, 4, 17, 30]] = True
    for voxels in (None, mask, np.flatnonzero(mask), [30, 3, 3, 40, 0], np.arange(41)[::-1], [7], np.zeros(41, bool), []):
        picked = slice(None) if voxels is None else np.asarray(voxels, dtype=None if len(voxels) else int)
        got = data.responses("UTS02", "life", voxels=voxels)
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, whole[:, picked].astype(np.float32))
    np.testing.assert_array_equal(data.responses("UTS02", "life", dtype=float), whole)
    repeats = responses("UTS01", "wheretheressmoke", 5)
    got = data.repeats("UTS01", "wheretheressmoke", voxels=[20, 1])
    assert got.shape == (5, 291, 2)
    np.testing.assert_array_equal(got, repeats[..., [20, 1]].astype(np.float32))
    np.testing.assert_array_equal(data.repeats("UTS01", "wheretheressmoke"), repeats.astype(np.float32))


def test_a_masked_read_never_holds_the_story(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "preprocessed_data" / "a"
    folder.mkdir(parents=True)
    (tmp_path / "respdict.json").write_text('{"s": 420}')
    with h5py.File(folder / "s.hf5", "w") as file:
        file["data"] = np.random.default_rng(0).standard_normal((400, 20_000))  # 64 MB
    monkeypatch.setattr(stories_module, "_BLOCK_BYTES", 1 << 20)
    data = Stories(tmp_path)
    data.n_voxels("a")
    tracemalloc.start()
    got = data.responses("a", "s", voxels=np.arange(0, 20_000, 50))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert got.shape == (400, 400)
    assert peak < 6 << 20


@pytest.mark.parametrize("block", [200, 32 << 20], ids=["many blocks", "one block"])
def test_nan_voxels_are_counted_once_and_listed(flat: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(stories_module, "_BLOCK_BYTES", block)
    with h5py.File(flat / "preprocessed_data" / "UTS01" / "life.hf5", "r+") as file:
        file["data"][3, 5] = np.nan
        file["data"][:, 11] = np.nan
        file["data"][0, 12] = np.inf
    data = Stories(flat)
    with pytest.warns(FastencodeWarning, match="3 of 23 voxels") as caught:
        got = data.responses("UTS01", "life")
    assert len(caught) == 1
    assert np.isnan(got[3, 5])
    assert np.isfinite(got[2, 5])
    np.testing.assert_array_equal(data.nan_voxels("UTS01", "life"), [5, 11, 12])
    with pytest.warns(FastencodeWarning, match="1 of 2 voxels"):
        data.responses("UTS01", "life", voxels=[11, 6])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data.responses("UTS01", "life", voxels=[0, 1])


def test_regions(flat: Path) -> None:
    (flat / "rois").mkdir()
    (flat / "rois" / "UTS01.json").write_text(json.dumps({"AC": [4, 2], "none": [], "zeros and ones": [0, 0, 1] + [0] * 20}))
    (flat / "rois" / "UTS01").mkdir()
    mask = np.arange(23) > 20
    np.save(flat / "rois" / "UTS01" / "mask.npy", mask)
    np.save(flat / "rois" / "UTS01" / "list.npy", np.array([7, 1]))
    np.save(flat / "rois" / "UTS01" / "labels.npy", np.repeat([0, 5, 9], [20, 2, 1]))
    with pytest.warns(FastencodeWarning, match="1 of 3 regions have no voxel among the columns and are left out: none"):
        rois = Stories(flat).rois("UTS01")
    wanted = {"AC": [2, 4], "zeros and ones": [2], "mask": [21, 22], "list": [1, 7], "5": [20, 21], "9": [22]}
    assert {name: list(v) for name, v in rois.items()} == wanted
    with pytest.warns(FastencodeWarning, match="left out"):
        apart = read_rois(flat / "rois" / "UTS01.json", n_voxels=23) | read_rois(flat / "rois" / "UTS01", n_voxels=23)
    assert {name: list(v) for name, v in apart.items()} == wanted, "one rule, wherever regions lie"
    assert Stories(flat).rois("UTS02") == {}
    np.save(flat / "rois" / "UTS02.npy", np.array([7, 1]))
    (flat / "rois" / "UTS02.md").write_text("no regions")
    assert {name: list(v) for name, v in Stories(flat).rois("UTS02").items()} == {"UTS02": [1, 7]}, "of any kind"
    np.save(flat / "rois" / "UTS01" / "AC.npy", np.array([7, 1]))
    with pytest.warns(FastencodeWarning, match="left out"), pytest.raises(InputError, match="'AC' of UTS01 is defined twice"):
        Stories(flat).rois("UTS01")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"AC": [23]}', "0 … 22"),
        ('{"AC": [-1]}', "-1"),
        ('{"AC": [0.5]}', "float64"),
        ('["AC"]', "table of regions"),
        ("{", "not valid JSON"),
        ('{"AC": [[1], [2, 3]]}', "is a list of lists"),
        ('{"AC": [2, 2]}', "1 voxels stand there more than once"),
        ('{"AC": [1, true]}', "true or false beside other values"),
        ('{"AC": [1], "AC": [2]}', "names 'AC' twice"),
    ],
)
def test_damaged_regions(flat: Path, content: str, message: str) -> None:
    (flat / "rois").mkdir()
    (flat / "rois" / "UTS01.json").write_text(content)
    with pytest.raises(InputError, match=message):
        Stories(flat).rois("UTS01")
    (flat / "rois" / "UTS02").mkdir()
    np.save(flat / "rois" / "UTS02" / "m.npy", np.ones(40, bool))
    with pytest.raises(InputError, match=r"m\.npy has shape \(40,\), but there are 41 voxels"):
        Stories(flat).rois("UTS02")
    np.save(flat / "rois" / "UTS02" / "m.npy", np.arange(41)[::-1])
    with pytest.raises(InputError, match="41 different whole numbers, as many as there are voxels: they may be indices"):
        Stories(flat).rois("UTS02")
    (flat / "rois" / "UTS02" / "m.npy").write_bytes(b"no")
    with pytest.raises(InputError, match="not a NumPy array"):
        Stories(flat).rois("UTS02")


def test_wrong_arguments(flat: Path) -> None:
    data = Stories(flat)
    with pytest.raises(InputError, match=r"'UTS09'.*UTS01.*UTS02"):
        data.stories("UTS09")
    with pytest.raises(InputError, match="did you mean souls"):
        data.n_rows("soulz")
    with pytest.raises(InputError, match="it lists 3 others"):
        data.n_rows("qqqq")
    with pytest.raises(InputError, match=r"\['soul'\] cannot be excluded"):
        data.train_stories("UTS01", exclude=["soul"])
    with pytest.raises(InputError, match="22 entries, but there are 23"):
        data.responses("UTS01", "life", voxels=np.ones(22, bool))
    with pytest.raises(InputError, match="23 voxels"):
        data.responses("UTS01", "life", voxels=[23])
    with pytest.raises(InputError, match=r"shape \(1, 2\)"):
        data.responses("UTS01", "life", voxels=[[1, 2]])
    with pytest.raises(InputError, match="int32"):
        data.responses("UTS01", "life", dtype=np.int32)
    with pytest.raises(InputError, match="was not repeated"):
        data.repeats("UTS01", "life")
    with pytest.raises(InputError, match="tr is 0"):
        Stories(flat, tr=0)
    with pytest.raises(InputError, match="test_skip is -1"):
        Stories(flat, test_skip=-1)
    with pytest.raises(InputError, match="leaves none of the 291"):
        Stories(flat, test_skip=291).usable_rows("wheretheressmoke")


def test_damaged_trees(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a folder"):
        Stories(tmp_path / "nowhere")
    with pytest.raises(InputError, match="preprocessed_data is missing"):
        Stories(tmp_path)
    (tmp_path / "preprocessed_data" / "UTS01").mkdir(parents=True)
    with pytest.raises(InputError, match=r"respdict.json \(table of story lengths\) does not exist"):
        Stories(tmp_path)
    for content, message in [
        ("{", "not valid JSON"),
        ("[1]", "not a table"),
        ("{}", "not a table"),
        ('{"life": "60"}', "'life' has length '60'"),
        ('{"life": 20}', "length 20"),
        ('{"life": true}', "length True"),
    ]:
        (tmp_path / "respdict.json").write_text(content)
        with pytest.raises(InputError, match=message):
            Stories(tmp_path)
    (tmp_path / "respdict.json").write_text('{"life": 60}')
    with pytest.raises(InputError, match="UTS01 has no story"):
        Stories(tmp_path).n_voxels("UTS01")


def test_damaged_files(flat: Path) -> None:
    folder = flat / "preprocessed_data" / "UTS01"
    data = Stories(flat)
    with h5py.File(folder / "life.hf5", "w") as file:
        file["data"] = np.zeros((39, 23))
    with pytest.raises(InputError, match=r"life.hf5: data has 39 rows, but respdict.json gives life n = 60 and n − 20 = 40"):
        data.responses("UTS01", "life")
    with h5py.File(folder / "souls.hf5", "w") as file:
        file["data"] = np.zeros((55, 22))
    with pytest.raises(InputError, match=r"souls.hf5: 22 voxels, but .*life.hf5 has 23"):
        data.responses("UTS01", "souls")
    with h5py.File(folder / "souls.hf5", "w") as file:
        file["data"] = np.zeros(55)
    with pytest.raises(InputError, match=r"shape \(55,\)"):
        data.responses("UTS01", "souls")
    with h5py.File(folder / "souls.hf5", "w") as file:
        file["bold"] = np.zeros((55, 23))
    with pytest.raises(InputError, match=r"no data set 'data', only \['bold'\]"):
        data.responses("UTS01", "souls")
    (folder / "souls.hf5").write_bytes((folder / "wheretheressmoke.hf5").read_bytes()[:5000])
    with pytest.raises(InputError, match="not a whole HDF5 file"):
        data.responses("UTS01", "souls")
    (folder / "souls.hf5").unlink()
    with pytest.raises(InputError, match=r"souls.hf5 \(responses of UTS01 to 'souls', which is in respdict.*\) does not exist"):
        data.responses("UTS01", "souls")
    assert data.stories("UTS01") == ["life", "wheretheressmoke"]
    (flat / "stimuli" / "life.wav").unlink()
    with pytest.raises(InputError, match=r"life.wav \(sound of 'life'\) does not exist"):
        data.audio("life")
    (flat / "TextGrids" / "life.TextGrid").unlink()
    with pytest.raises(InputError, match=r"transcript of 'life'\) does not exist"):
        data.words("life")


def broken_chunk(path: Path) -> None:
    """A whole file, one chunk of which is not what was written."""
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=responses("UTS01", "life"), chunks=(8, 8), fletcher32=True)
        place = file["data"].id.get_chunk_info(3).byte_offset
    raw = bytearray(path.read_bytes())
    raw[place] ^= 0xFF
    path.write_bytes(raw)


def hold(value: object) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with h5py.File(path, "w") as file:
            file["data"] = value

    return write


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (broken_chunk, r"life\.hf5: data cannot be read to its end .*: it is damaged; fetch it again"),
        (hold(3.0), r"life\.hf5: data has shape \(\), expected \(rows, V\)"),
        (hold(np.ones(40)), r"data has shape \(40,\), expected"),
        (hold(np.ones((40, 0))), r"data has shape \(40, 0\), expected"),
        (hold(np.full((40, 23), b"a")), r"data holds \|S1: responses are real numbers"),
        (hold(np.ones((40, 23), complex)), "data holds complex128: responses are real numbers"),
        (lambda path: (path.unlink(), path.mkdir()), r"life\.hf5 .*is a folder: give one file"),
        (lambda path: (path.unlink(), path.symlink_to(path.name)), "a link that leads back to itself"),
        (lambda path: path.write_bytes(b""), "not a whole HDF5 file"),
    ],
)
def test_each_damage_of_responses_is_said(flat: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(flat / "preprocessed_data" / "UTS01" / "life.hf5")
    for read in (Stories(flat).responses, Stories(flat).nan_voxels):
        with pytest.raises(InputError, match=message):
            read("UTS01", "life")


def test_what_other_systems_leave_beside_the_data_is_none(flat: Path) -> None:
    folder = flat / "preprocessed_data" / "UTS01"
    (folder / "._life.hf5").write_bytes(b"Mac OS X")
    assert Stories(flat).stories("UTS01") == sorted(LENGTHS) and Stories(flat).n_voxels("UTS01") == 23


def test_the_table_of_lengths_in_other_shapes(flat: Path) -> None:
    table = flat / "respdict.json"
    for encoding in ("utf-8-sig", "utf-16"):
        table.write_bytes(json.dumps(LENGTHS).encode(encoding))
        assert Stories(flat).n_rows("life") == 40
    table.write_text('{"life": 60, "life": 61}')
    with pytest.raises(InputError, match=r"respdict\.json names 'life' twice"):
        Stories(flat)
    table.unlink()
    table.mkdir()
    with pytest.raises(InputError, match=r"respdict\.json .*is a folder"):
        Stories(flat)


def annex_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("../../.git/annex/objects/aa/bb/MD5E-s1--0.hf5")


def annex_pointer(path: Path) -> None:
    path.write_text("/annex/objects/MD5E-s1--0.hf5\n")


def annex_text(path: Path) -> None:
    path.write_text("../../.git/annex/objects/aa/bb/MD5E-s1--0.hf5/MD5E-s1--0.hf5")


@pytest.mark.parametrize("unfetch", [annex_link, annex_pointer, annex_text])
def test_unfetched_annex_files_say_what_to_run(flat: Path, unfetch: object) -> None:
    folder = flat / "preprocessed_data" / "UTS01"
    for path in (folder / "life.hf5", flat / "TextGrids" / "life.TextGrid", flat / "stimuli" / "life.wav"):
        unfetch(path)
    data = Stories(flat)
    for read, path in [
        (lambda: data.responses("UTS01", "life"), folder / "life.hf5"),
        (lambda: data.words("life"), flat / "TextGrids" / "life.TextGrid"),
        (lambda: data.audio("life"), flat / "stimuli" / "life.wav"),
    ]:
        with pytest.raises(InputError, match=rf"run `datalad get {path}` \(or `git annex get {path}`\)"):
            read()
    with pytest.warns(FastencodeWarning, match=f"1 of 3 stories of UTS01 .* run `datalad get {folder}`; left out: life"):
        assert data.stories("UTS01") == ["souls", "wheretheressmoke"]
    assert data.responses("UTS01", "souls").shape == (55, 23)  # what is here can be read without a word about the rest
    for story in ("souls", "wheretheressmoke"):
        unfetch(folder / f"{story}.hf5")
    with pytest.raises(
        InputError,
        match="3 of 3 stories of UTS01 are links or pointers without content: run `(datalad get|git lfs pull --include) .*UTS01`",
    ):
        data.stories("UTS01")
    (flat / "rois" / "UTS02").mkdir(parents=True)
    np.save(flat / "rois" / "UTS02" / "AC.npy", [1, 2])
    unfetch(flat / "rois" / "UTS02" / "AC.npy")
    with pytest.raises(InputError, match=r"run `datalad get .*AC\.npy`"):
        Stories(flat).rois("UTS02")
    unfetch(flat / "respdict.json")
    with pytest.raises(InputError, match=f"datalad get {flat / 'respdict.json'}"):
        Stories(flat)


def test_pointers_of_git_lfs_are_named_so(flat: Path) -> None:
    folder = flat / "preprocessed_data" / "UTS01"
    (folder / "life.hf5").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    with pytest.warns(
        FastencodeWarning, match=f"1 of 3 stories of UTS01 .* run `git lfs pull --include {folder}`; left out: life"
    ):
        Stories(flat).stories("UTS01")
