"""The Alice reader on a small copy of its layout, on damaged folders, and on the real one; checks of responses in general."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fastencode.data.brennan import Alice, MeanListener
from fastencode.data.checks import check_responses, constant_targets
from fastencode.data.textgrid import write_textgrid
from fastencode.errors import FastencodeWarning, InputError

pytest.importorskip("praatio", reason="transcripts need the extra 'tune'")


def test_constant_targets() -> None:
    rng = np.random.default_rng(0)
    Y = rng.standard_normal((50, 6))
    Y[:, 1] = 0
    Y[:, 2] = np.where(Y[:, 2] > 0, 0.1, np.nextafter(0.1, 1))  # what averaging or rescaling leaves of one value
    Y[:, 3] = 1e6 + 1e-3 * Y[:, 3]  # varies little, but varies
    Y[7, 4] = np.nan
    Y[:, 5] = -2.5
    np.testing.assert_array_equal(constant_targets(Y), [False, True, True, False, False, True])
    check = check_responses(Y, name="s1")
    assert [list(c) for c in (check.zero, check.constant, check.not_finite, check.unusable)] == [[1], [2, 5], [4], [1, 2, 4, 5]]
    assert not check.ok
    assert str(check) == "s1: of 6 responses 1 zero, 2 constant, 1 not finite"
    good = check_responses(Y[:, [0, 3]])
    assert good.ok
    assert str(good) == "responses: of 2 responses all vary and are finite"
    np.testing.assert_array_equal(constant_targets(np.full((9, 2), 7, dtype=np.int16)), [True, True])
    varying = (1e4 + rng.standard_normal((50, 1))).astype(np.float32)
    assert not constant_targets(varying).any()
    assert constant_targets(np.float32(0.1) * np.ones((50, 1), np.float32)).all()
    with pytest.raises(InputError, match=r"shape \(5,\)"):
        constant_targets(np.zeros(5))
    with pytest.raises(InputError, match=r"shape \(0, 3\)"):
        check_responses(np.zeros((0, 3)))


def make_folder(root: Path) -> Path:
    rng = np.random.default_rng(1)
    root.mkdir()
    for name in ("s01", "s02", "s03"):
        np.savetxt(root / f"{name}-timecourses.txt", 100 + rng.standard_normal((362, 6)))
        np.savetxt(root / f"{name}-rate.txt", rng.standard_normal(362))
        np.savetxt(root / f"{name}-sndpwr.txt", rng.standard_normal(362))
        np.savetxt(root / f"{name}-rp_run05.e02.txt", np.arange(372 * 6).reshape(372, 6))
    np.savetxt(root / "sept18-generic-predictors-x.txt", np.arange(372 * 12).reshape(372, 12), delimiter="\t")
    words = [(12.0, 13.0, "sp"), (13.0, 13.5, "Alice "), (13.5, 13.7, "'s"), (13.7, 14.0, "sp ")]
    words += [(14.0, 14.2, "did"), (14.2, 14.3, "n't")]
    write_textgrid(root / "chapter.TextGrid", {"word": words}, 20.0)
    return root


def test_a_small_folder(tmp_path: Path) -> None:
    alice = Alice(make_folder(tmp_path / "alice"))
    assert alice.listeners == ["s01", "s02", "s03"]
    assert alice.left_out == {}
    assert [w.label for w in alice.words] == ["Alice", "'s", "did", "n't"]
    assert alice.timecourses("s02").shape == (362, 6)
    assert alice.rate("s01").shape == alice.sound_power("s01").shape == (362,)
    assert alice.motion("s01").shape == (362, 6)
    assert alice.motion("s01")[0, 0] == 60
    assert alice.generic_predictors().shape == (362, 12)
    assert alice.generic_predictors()[0, 0] == 120
    assert alice.generic_predictors(all_scans=True).shape == (372, 12)
    assert len(alice.scan_times) == 372
    assert alice.scan_times[-1] == 742
    assert len(alice.scan_times[alice.discarded :]) == 362
    alice.timecourses("s01")[:] = 0  # a copy: what was read stays
    assert alice.timecourses("s01").all()
    assert "3 listeners, 0 left out" in repr(alice)
    with pytest.raises(InputError, match="no listener 's09': the listeners are"):
        alice.rate("s09")


@pytest.mark.parametrize(("validation", "test"), [(40, 400), (40, 322), (0, 100), (40, 0), (-1, 100)])
def test_parts_of_the_chapter_need_scans(tmp_path: Path, validation: int, test: int) -> None:
    alice = Alice(make_folder(tmp_path / "alice"))
    assert [MeanListener(alice, tmp_path / "a.wav", 40, 100).n_rows(run) for run in ("train", "validation", "test")] == [
        222,
        40,
        100,
    ]
    with pytest.raises(InputError, match="the chapter has 362 scans"):
        MeanListener(alice, tmp_path / "a.wav", validation, test)


@pytest.mark.parametrize(("value", "kind"), [(0.0, "6 zero"), (3.25, "6 constant"), (np.nan, "6 not finite")])
def test_what_is_not_data_is_left_out_and_named(tmp_path: Path, value: float, kind: str) -> None:
    root = make_folder(tmp_path / "alice")
    np.savetxt(root / "s02-timecourses.txt", np.full((362, 6), value))
    with pytest.warns(FastencodeWarning, match=f"s02: of 6 responses {kind}") as caught:
        alice = Alice(root)
    assert len(caught) == 1
    assert alice.listeners == ["s01", "s03"]
    assert list(alice.left_out) == ["s02"]
    with pytest.raises(InputError, match="'s02' was left out"):
        alice.timecourses("s02")


def test_damaged_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give the folder of the Alice data set"):
        Alice(tmp_path)
    root = make_folder(tmp_path / "alice")
    alice = Alice(root)
    for path, content, message, read in [
        ("s01-rate.txt", "1\n2\n", r"s01-rate.txt has shape \(2, 1\), expected \(362, 1\)", lambda: alice.rate("s01")),
        ("s01-rate.txt", "one\n", "not a table of numbers", lambda: alice.rate("s01")),
        ("s01-sndpwr.txt", "nan\n" * 362, "not finite", lambda: alice.sound_power("s01")),
        ("s01-timecourses.txt", "1 2 3 4 5 6\n" * 361, r"shape \(361, 6\)", lambda: Alice(root)),
    ]:
        (root / path).write_text(content)
        with pytest.raises(InputError, match=message):
            read()
    (root / "s01-rate.txt").unlink()
    with pytest.raises(InputError, match=r"s01-rate\.txt \(of the Alice data set\) does not exist"):
        alice.rate("s01")
    (root / "s01-rp_again.txt").write_text("")
    with pytest.raises(InputError, match=r"2 files s01-rp_\*.txt, expected one"):
        alice.motion("s01")
    for name in ("s01", "s02", "s03"):
        np.savetxt(root / f"{name}-timecourses.txt", np.zeros((362, 6)))
    with (
        pytest.warns(FastencodeWarning, match=r"s01.*s02.*s03"),
        pytest.raises(InputError, match="no listener with usable responses"),
    ):
        Alice(root)


def test_the_real_folder(shared_data: Path) -> None:
    files = {p.name.split("-")[0]: np.loadtxt(p) for p in (shared_data / "alice").glob("*-timecourses.txt")}
    flat = sorted(name for name, Y in files.items() if not Y.std(axis=0).all())
    with pytest.warns(FastencodeWarning, match="; ".join(f"{name}: of 6 responses" for name in flat)):
        alice = Alice(shared_data / "alice")
    assert len(flat) == 1
    assert sorted(alice.left_out) == flat
    assert alice.listeners == sorted(set(files) - set(flat))
    assert len(alice.listeners) == 27
    assert len(alice.words) == 2127
    assert sum(w.label.startswith("'") for w in alice.words) == 23
    assert alice.words[0].label == "Alice"
    assert all(w.label == w.label.strip() != "" for w in alice.words)
    for name in alice.listeners:
        assert alice.motion(name).shape == (362, 6)
        np.testing.assert_array_equal(alice.timecourses(name), files[name])


def test_a_listener_who_is_another_is_named(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "alice")
    first, second = sorted(root.glob("*-timecourses.txt"))[:2]
    second.write_bytes(first.read_bytes())
    names = [path.name.removesuffix("-timecourses.txt") for path in (second, first)]
    with pytest.warns(FastencodeWarning, match=f"{names[0]}: the responses to 1 of 1 runs are those of {names[1]}: the chapter"):
        Alice(root)
