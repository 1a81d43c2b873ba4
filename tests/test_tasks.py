"""Tasks of probes: what is asked of TIMIT, Speech Commands and manifests, and what is refused."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fastencode.data.commands import read_commands
from fastencode.data.recordings import Recording
from fastencode.data.timit import FOLD, read_timit
from fastencode.errors import FastencodeWarning, InputError
from fastencode.speech.acoustics import mfcc
from fastencode.study.probing.labels import COEFFICIENTS, trajectories
from fastencode.study.probing.leakage import texts_of
from fastencode.study.probing.tasks import TASKS, Task, task_of
from task_cases import RATE, Listed, commands_like, listed, timit_like

soundfile = pytest.importorskip("soundfile", reason="sounds need the extra 'tune'")


@pytest.fixture(scope="module")
def timit(tmp_path_factory: pytest.TempPathFactory) -> Listed:
    root = timit_like(tmp_path_factory.mktemp("trees") / "timit")
    return listed(read_timit(root), root, "timit")


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Listed:
    root = commands_like(tmp_path_factory.mktemp("trees") / "commands")
    return listed(read_commands(root), root, "commands")


SHARES = (("train", 8), ("test", 2))  # of ten recordings, where a fifth is the test split


def spoken_by(n: int, labels: dict[str, list[str]], split: str = "train test") -> Listed:
    """A corpus of n recordings by two speakers of each split, labeled in turn."""
    recordings = {
        f"clip{k}": Recording(
            Path(f"clip{k}.wav"),
            {kind: values[k % len(values)] for kind, values in labels.items() if values[k % len(values)]},
            f"{split.split()[k * 2 // n]}-{k % 2}",
            split.split()[k * 2 // n],
        )
        for k in range(n)
    }
    return Listed("clips", "manifest", recordings)


def in_order(task: Task) -> tuple[np.ndarray, ...]:
    """The rows of a task where features hold its recordings backwards, one row each."""
    names = task.keys[::-1]
    return task.rows(names, [1] * len(names), np.zeros(len(names)))


def test_words(commands: Listed) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        task = task_of("word", commands)
    assert (task.kind, task.classes, task.frames) == ("classification", ("no", "tree", "yes"), False)
    assert Counter(task.split) == {"train": 36, "validation": 12, "test": 18}
    rows = in_order(task)
    assert list(rows.rows) == list(range(len(task.keys)))[::-1]
    for key, label, group, split in zip(task.keys, rows.labels, rows.groups, rows.split, strict=True):
        one = commands.recordings[key]
        assert (label, group, split) == (key.split("/")[0], one.speaker, one.split)


def test_sentence_types(timit: Listed) -> None:
    with pytest.warns(FastencodeWarning, match="two SA texts are in both splits"):
        task = task_of("sentence_type", timit)
    assert Counter(task.labels) == {"SA": 18, "SI": 18, "SX": 27} and task.classes == ("SA", "SI", "SX")
    assert {key.rpartition("/")[2][:2] for key in task.spared} == {"SA"} and len(task.spared) == 18
    without = task_of("sx_si", timit, allow=["texts"])  # texts that are allowed bring no third class
    assert Counter(without.labels) == {"SI": 18, "SX": 27} and not without.spared and not without.notes


def test_phonemes_of_an_utterance(timit: Listed) -> None:
    with pytest.warns(FastencodeWarning, match="32 labels are not in both train and test and are left out: ah, aw"):
        task = task_of("phonemes", timit)
    there = ("aa", "ae", "iy", "m", "s", "sh", "sil")  # what the tree is made of
    assert task.kind == "multilabel" and task.classes == there and task.labels.shape == (45, 7)
    assert not any(key.rpartition("/")[2].startswith("SA") for key in task.keys)
    for key, present in zip(task.keys, task.labels, strict=True):
        lines = timit.recordings[key].path.with_suffix(".PHN").read_text().splitlines()
        assert {name for name, one in zip(there, present, strict=True) if one} == {FOLD[line.split()[2]] for line in lines}
    with pytest.warns(FastencodeWarning):
        assert len(task_of("phonemes", timit, allow=["texts"]).keys) == 63  # the SA sentences, on request


def test_the_published_split_has_every_test_speaker_in_train(timit: Listed) -> None:
    with pytest.warns(FastencodeWarning, match="test speakers and texts are in the training split"):
        task = task_of("phonemes", timit, split="published", seed=3)
    train = {speaker for speaker, split in zip(task.groups, task.split, strict=True) if split == "train"}
    assert train == set(task.groups) and len(train) == 9
    assert Counter(task.split) == {"train": 54, "test": 9} and task.allowed == {"speakers", "texts"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FastencodeWarning)
        again, other = (task_of("phonemes", timit, split="published", seed=seed) for seed in (3, 4))
    assert again.split == task.split != other.split
    with pytest.raises(InputError, match="for phonemes and phones only, not for sx_si"):
        task_of("sx_si", timit, split="published")


def test_phones_at_the_middle_of_rows(timit: Listed) -> None:
    """Against a search through all phones for each row; rows that lie in no phone are left out."""
    with pytest.warns(FastencodeWarning, match="32 phones are not in both"):
        task = task_of("phones", timit)
    counts = [7 + k % 3 for k in range(len(task.keys))]
    times = np.concatenate([np.arange(count) * 0.09 + 0.05 for count in counts])
    cut = replace(task, phones=tuple(phones[1:] for phones in task.phones))  # the first 0.1 s are labeled no more
    rows = cut.rows(task.keys, counts, times)
    place, expected = 0, []
    for key, count in zip(task.keys, counts, strict=True):
        phones = cut.phones[task.keys.index(key)]
        for row in range(place, place + count):
            inside = [phone.label for phone in phones if phone.start <= times[row] < phone.end]
            expected += [(row, inside[0], timit.recordings[key].speaker, timit.recordings[key].split)] if inside else []
        place += count
    assert list(zip(rows.rows, rows.labels, rows.groups, rows.split, strict=True)) == expected
    assert 0 < len(expected) < len(times) - len(counts) + 1


def test_what_a_control_shuffles_as_one(timit: Listed) -> None:
    """The sentence of an utterance, the word of a frame; "" outside words."""
    texts = texts_of(timit)
    assert task_of("sx_si", timit).types is None
    task = task_of("sx_si", timit, texts=texts)
    assert task.types == tuple(texts[key] for key in task.keys) and list(in_order(task).types) == list(task.types)
    assert task_of("sx_si", timit, texts={task.keys[0]: "one of many"}).types is None
    with pytest.warns(FastencodeWarning):
        phones = task_of("phones", timit, texts=texts)
    times = np.tile(np.arange(8) * 0.1 + 0.05, len(phones.keys))
    rows = phones.rows(phones.keys, [8] * len(phones.keys), times)
    for row, word in zip(rows.rows, rows.types, strict=True):
        key, place = phones.keys[row // 8], row % 8
        lines = timit.recordings[key].path.with_suffix(".WRD").read_text().splitlines()
        inside = [line.split()[2] for line in lines if int(line.split()[0]) <= place * 1600 + 800 < int(line.split()[1])]
        assert [word] == (inside or [""])
    next(path for path in phones.paths).with_suffix(".WRD").rename(phones.paths[0].with_suffix(".old"))
    with pytest.warns(FastencodeWarning):
        assert task_of("phones", timit, texts=texts).words is None
    phones.paths[0].with_suffix(".old").rename(phones.paths[0].with_suffix(".WRD"))


def test_a_phone_that_no_row_of_train_meets_is_not_scored(timit: Listed) -> None:
    with pytest.warns(FastencodeWarning):
        task = task_of("phones", timit)
    blind = [
        phones if split == "test" else tuple(phone for phone in phones if phone.label != "sh")
        for phones, split in zip(task.phones, task.split, strict=True)
    ]
    times = np.tile(np.arange(8) * 0.1 + 0.05, len(task.keys))
    before, after = (each.rows(task.keys, [8] * len(task.keys), times) for each in (task, replace(task, phones=tuple(blind))))
    assert "sh" in before.labels[before.split == "test"] and "sh" not in after.labels
    np.testing.assert_array_equal(before.rows[before.labels != "sh"], after.rows)


def test_the_cepstra_of_an_utterance(timit: Listed) -> None:
    task = task_of("mfcc", timit, points=3)
    assert task.kind == "regression" and task.labels is None and len(task.classes) == 39
    assert task.classes[:2] == ("c1 at 1/3", "c1 at 2/3") and task.classes[-1] == "c0 at 3/3"
    paths = dict(zip(task.keys[:3], task.paths[:3], strict=True))
    found, lengths = trajectories(paths, 3), set()
    for row, path in zip(found, paths.values(), strict=True):
        sound = soundfile.read(path)[0]
        frames = mfcc(sound, RATE, energy="c0")
        n = len(frames)
        lengths.add(n % 3)
        for coefficient in range(13):
            for part in range(3):
                inside = [frames[f, coefficient] for f in range(n) if (f + 1) * 3 > part * n and f * 3 < (part + 1) * n]
                np.testing.assert_allclose(row[coefficient * 3 + part], np.mean(inside), rtol=1e-5, atol=1e-4)
    assert lengths == {0, 2}  # in some, neighboring parts share a frame
    whole = trajectories(paths, 1)
    assert task_of("mfcc", timit, points=1).classes == COEFFICIENTS == ("c1", *COEFFICIENTS[1:12], "c0")
    frames = mfcc(soundfile.read(task.paths[0])[0], RATE, energy="c0")
    np.testing.assert_allclose(whole[0], frames.mean(axis=0), rtol=1e-5, atol=1e-4)
    rows = task.rows(task.keys, [1] * len(task.keys), np.zeros(len(task.keys)), np.zeros((len(task.keys), 39)))
    assert rows.labels.shape == (45, 39)
    with pytest.raises(InputError, match="give the labels of each"):
        in_order(task)


def test_sounds_without_cepstra_are_counted(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "short.wav", np.zeros(100), RATE)
    sounds = {"short": tmp_path / "short.wav", "absent": tmp_path / "absent.wav"}
    with pytest.raises(InputError, match=r"2 of 2 recordings have no cepstra:\n  short: .*samples.*\n  absent: .*does not exist"):
        trajectories(sounds, 2)


def test_labels_in_any_language() -> None:
    clips = spoken_by(
        12, {"tunne": ["ilo", "喜び", "радость"], "много": ["а;б", " б ", "в ; а"], "äänekkyys": ["1.5", "-2e-1", "3"]}
    )
    one = task_of("label:tunne", clips)
    assert one.classes == ("ilo", "радость", "喜び") and list(one.labels) == ["ilo", "喜び", "радость"] * 4
    several = task_of("label:много", clips)
    assert several.kind == "multilabel" and several.classes == ("а", "б", "в")
    np.testing.assert_array_equal(several.labels[:3], [[1, 1, 0], [0, 1, 0], [1, 0, 1]])
    number = task_of("number:äänekkyys", clips)
    assert number.kind == "regression" and number.labels.dtype == np.float64
    np.testing.assert_array_equal(number.labels[:3], [[1.5], [-0.2], [3]])
    assert set(number.groups) == {"train-0", "train-1", "test-0", "test-1"}


def test_who_speaks_has_no_groups() -> None:
    clips = spoken_by(12, {"word": ["a", "b"]})
    shared = {key: replace(one, speaker=f"s{k % 3}") for k, (key, one) in enumerate(clips.recordings.items())}
    task = task_of("label:speaker", replace(clips, recordings=shared))
    assert task.groups is None and task.classes == ("s0", "s1", "s2") and task.kind == "classification"


def test_speakers_are_split_within_each_where_no_test_speaker_is_in_train() -> None:
    clips = spoken_by(40, {"word": ["a", "b"], "text": ["one two", "three"]})
    with pytest.warns(FastencodeWarning, match="a fifth of each speaker's recordings is used as the test split instead"):
        task = task_of("label:speaker", clips, seed=1)
    counts = Counter(zip(task.labels.tolist(), task.split, strict=True))
    assert counts == {(f"{part}-{k}", split): n for part in ("train", "test") for k in (0, 1) for split, n in SHARES}
    assert task.keys == tuple(clips.recordings) and task.groups is None and task.allowed == {"texts"}
    with pytest.warns(FastencodeWarning):
        assert task_of("label:speaker", clips, seed=2).split != task.split
    assert task_of("label:word", clips).split == tuple(one.split for one in clips.recordings.values())
    one_heard = {
        key: replace(one, speaker="train-0" if key == "clip39" else one.speaker) for key, one in clips.recordings.items()
    }
    with pytest.raises(InputError, match=r"2 test classes are not in the training split \(test-0, test-1\)"):
        task_of("label:speaker", replace(clips, recordings=one_heard))


def test_recordings_without_a_label_are_left_out_and_told() -> None:
    clips = spoken_by(12, {"mood": ["joy", "anger", ""]})
    with pytest.warns(FastencodeWarning, match="4 of 12 recordings do not have this label and are left out, the first 'clip2'"):
        task = task_of("label:mood", clips)
    assert len(task.keys) == 8 and set(task.labels) == {"joy", "anger"}
    assert task_of("label:mood", clips, keys=["clip0", "clip1", "clip9", "clip10"]).keys == ("clip0", "clip1", "clip9", "clip10")


@pytest.mark.parametrize(
    ("labels", "name", "message"),
    [
        ({"a": ["x", "y"]}, "label:b", r"no recording has a label 'b': the labels are a"),
        ({"a": ["x", "3"]}, "label:a", r"label:a mixes numbers and words: '3' \(clip1\) and 'x' \(clip0\)"),
        ({"a": ["2.5", "3"]}, "label:a", r"label:a holds '2.5' \(clip0\), which is not a class: use number:a"),
        ({"a": ["2.5", "nan"]}, "number:a", r"6 labels are not finite numbers, the first 'nan' \(clip1\)"),
        ({"a": ["x"]}, "label:a", r"the split train has one class, .*x"),
        ({"a": ["1"]}, "number:a", r"the split train has the same number everywhere"),
        ({"a": ["x", "x", "y", "x", "y", "x", *"xxxxxx"]}, "label:a", r"the split test has one class, .*x"),
        ({"a": [*"xyxyxy", *"xyzxyw"]}, "label:a", r"2 test classes are not in the training split \(w, z\)"),
        ({"a": ["x", "y"]}, "word", r"no recording has a label 'word'"),
        ({"a": ["x", "y"]}, "phonemes", r"phonemes is a task on TIMIT, but clips is a corpus of the kind 'manifest'"),
        ({"a": ["x", "y"]}, "phoneme", r"'phoneme' is no task: choose from mfcc, word, "),
        ({"a": ["x", "y"]}, "label", r"'label' is no task"),
        ({"a": ["x", "y"]}, "label:", r"'label:' is no task"),
        ({"a": ["x", "y"]}, "word:a", r"'word:a' is no task"),
    ],
)
def test_what_cannot_be_asked(labels: dict[str, list[str]], name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        task_of(name, spoken_by(12, labels))


def test_splits_that_are_missing() -> None:
    clips = spoken_by(12, {"a": ["x", "y"]}, "train train")
    with pytest.raises(InputError, match=r"no recording in the split test \(train 12, validation 0, test 0\)"):
        task_of("label:a", clips)
    none = {key: replace(one, split=None) for key, one in clips.recordings.items()}
    with pytest.raises(InputError, match="12 of 12 recordings of clips are in no split, the first 'clip0'"):
        task_of("label:a", replace(clips, recordings=none))


def test_penalties_need_a_second_speaker() -> None:
    clips = spoken_by(12, {"a": ["x", "x", "y"]})
    alone = {key: replace(one, speaker=one.split) for key, one in clips.recordings.items()}
    with pytest.raises(InputError, match="all training recordings are of the speaker 'train', but penalties"):
        task_of("label:a", replace(clips, recordings=alone))
    alone |= {f"clip{k}": replace(alone[f"clip{k}"], split="validation") for k in (4, 5)}
    assert task_of("label:a", replace(clips, recordings=alone)).split.count("validation") == 2


def test_labels_of_one_split_are_left_out() -> None:
    clips = spoken_by(12, {"a": [*["p;q", "q", "r;p"] * 2, *["p;s", "q", "p"] * 2]})
    with pytest.warns(FastencodeWarning, match="2 labels are not in both train and test and are left out: r, s"):
        task = task_of("label:a", clips)
    assert task.classes == ("p", "q") and task.labels.sum() == 4 + 4 + 4 + 2
    none = spoken_by(12, {"a": [*["p;q"] * 6, *["r;s"] * 6]})
    with pytest.raises(InputError, match="no label is in both the training and the test split"):
        task_of("label:a", none)


def test_features_of_other_recordings_or_of_frames(commands: Listed) -> None:
    task = task_of("word", commands)
    with pytest.raises(InputError, match=f"no features of 1 of 66 recordings of the task word, the first {task.keys[5]!r}"):
        task.rows([*task.keys[:5], *task.keys[6:]], [1] * 65, np.zeros(65))
    with pytest.raises(InputError, match=f"{task.keys[2]!r} has 3 rows of features, but the task word needs one"):
        task.rows(task.keys, [1, 1, 3, *[1] * 63], np.zeros(68))


def test_damaged_phone_labels_are_counted(tmp_path: Path) -> None:
    root = timit_like(tmp_path / "timit", speakers={"TRAIN": 2, "TEST": 2})
    for name in ("SX0.PHN", "SX1.PHN"):
        next(root.rglob(name)).write_text("0 100 zz\n")
    with pytest.raises(
        InputError, match=r"2 of 20 recordings have no phone labels that can be read:\n  TRAIN.*none of TIMIT's 61"
    ):
        task_of("phonemes", listed(read_timit(root), root, "timit"))


def test_every_named_task_exists(timit: Listed, commands: Listed) -> None:
    for name in TASKS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FastencodeWarning)
            name = {"label:KIND": "label:sex", "number:KIND": "number:sex"}.get(name, name)
            if name == "number:sex":
                with pytest.raises(InputError, match="not finite numbers"):
                    task_of(name, timit)
            else:
                assert task_of(name, commands if name == "word" else timit).name == name


def repeated(words: int, times: int, split: dict[str, str] | None = None) -> Listed:
    """Four speakers, two of each split, say each word so often; a word's class is its number modulo 3."""
    recordings = {}
    for who in range(4):
        for word in range(words):
            for k in range(times):
                of = "train" if who < 2 else "test"
                if split is not None and split[f"w{word}"] != of:
                    continue
                labels = {"word": f"w{word}", "class": "abc"[word % 3]}
                recordings[f"{who}/{word}/{k}"] = Recording(Path(f"{who}-{word}-{k}.wav"), labels, f"s{who}", of)
    return Listed("words", "manifest", recordings)


@pytest.mark.parametrize("times", [1, 3])
def test_what_a_speaker_repeats_is_of_one_split(times: int) -> None:
    """Nearly the same sound in train and in test would tell the speaker; they are held out, and resampled, as one, too."""
    with pytest.warns(FastencodeWarning, match="a fifth of each speaker's recordings is used as the test split"):
        task = task_of("label:speaker", repeated(10, times))
    place = {}
    for key, split in zip(task.keys, task.split, strict=True):
        place.setdefault(key.rpartition("/")[0], set()).add(split)
    assert all(len(splits) == 1 for splits in place.values()) and list(place.values()).count({"test"}) == 4 * 2
    if times == 1:
        assert task.groups is None and task.unit == ""
    else:
        assert len(set(task.groups)) == 40 and task.groups[0] == "s0: w0" and task.unit == "words of a speaker"


def test_words_that_train_has_not_are_a_sample() -> None:
    """Words are resampled beside speakers where train has none of them and they decide the label, and only there."""
    unheard = repeated(9, 2, {f"w{k}": "train" if k < 3 else "test" for k in range(9)})
    task = task_of("label:class", unheard)
    assert task.items == tuple(key.split("/")[1].replace("", "w", 1) for key in task.keys) and task.types is None
    assert list(in_order(task).items) == [f"w{key.split('/')[1]}" for key in task.keys]
    assert task_of("label:class", unheard, texts={}).types == task.items, "a control gives all rows of a word one class"
    assert task_of("label:class", repeated(9, 2)).items is None
    moods = spoken_by(24, {"word": ["a", "b", "c"], "mood": ["calm", "calm", "angry", "angry"]})
    assert task_of("label:mood", moods, texts={}).items is None is task_of("label:mood", moods, texts={}).types
    assert task_of("word", repeated(9, 2)).items is None is task_of("label:word", repeated(9, 2)).items


def test_sentences_that_several_read_are_a_sample(timit: Listed) -> None:
    """All speakers of the test split read its SX texts, which train has not; with SA texts, which train has, none count."""
    with pytest.warns(FastencodeWarning, match="are not in both train and test"):
        task = task_of("phonemes", timit)
    assert task.items == tuple(key.rpartition("/")[2] for key in task.keys) and len({*task.items}) < len(task.items)
    assert task_of("mfcc", timit).items == task_of("sx_si", timit).items == task.items
    with pytest.warns(FastencodeWarning, match="SA texts"):
        assert task_of("sentence_type", timit).items is None
    with pytest.warns(FastencodeWarning):
        assert task_of("phonemes", timit, allow=["texts"]).items is None
