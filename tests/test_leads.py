"""The first words of pages: each condition has its own, and no other's."""

from __future__ import annotations

import pytest

from fastencode.study.report.leads import alice_lead, align_lead, demo_lead

ALIGN = {
    "models": ("first", "second"),
    "residuals": False,
    "voxels": {"A": 5, "B": 7},
    "fitted": 3,
    "tests": ("test",),
    "ceiling": 0.05,
    "known": True,
    "split_half": False,
}
DEMO = {"minutes": 5.6, "voxels": {"A": 9}, "model": None, "made": False, "epochs": 4, "controls": 1, "ceiling": 0.4}
ALICE = {"listeners": 2, "left_out": (), "words": 10, "model": None, "epochs": 8, "controls": 3, "scans": 100}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "All repeats chose them, and they are scored on the mean of the same repeats"),
        ({"split_half": True}, "One half of the repeats chose them; they are scored on the mean of the other half"),
        ({"ceiling": -1}, "All voxels that vary are scored, whatever their noise ceiling"),
        ({"known": False}, "The test story was heard once, so no noise ceiling is known"),
        ({"known": False, "tests": ("test", "later")}, "Not every test story was repeated"),
    ],
)
def test_how_voxels_were_chosen_is_said_once(given: dict, said: str) -> None:
    endings = [align_lead(**ALIGN | one).split("\n\n")[1] for one in ({}, given)]
    assert said in endings[1] and (endings[0] == endings[1]) == (given == {})


def test_all_voxels_of_one_half_are_not_called_significant() -> None:
    words = align_lead(**ALIGN | {"split_half": True, "ceiling": -1}).split("\n\n")[1]
    assert words.startswith("All voxels that vary are scored, whatever their noise ceiling.") and "significant" not in words
    assert words.endswith(" They are scored on the mean of one half of the repeats.")


def test_what_was_fitted_and_scored() -> None:
    words = align_lead(**ALIGN)
    assert "on 3 stories says" in words and "of 2 participants (A: 5 voxels, B: 7 voxels)" in words
    assert "Scores are of the story “test”, which" in words and "Models: first, second.\n\n" in words
    words = align_lead(**ALIGN | {"tests": ("test", "later"), "fitted": 1, "voxels": {"A": 5}, "residuals": True})
    assert "on 1 story says" in words and "of 1 participant (A: 5 voxels)" in words
    assert "the stories “test”, “later” together, each z-scored by itself" in words and "“A less B” is the model A" in words


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "The small self-supervised wav2vec2 of the package is tuned"),
        ({"model": "x/y"}, "The model x/y is tuned"),
        ({"made": True}, "made from nothing on other synthetic stories, is tuned"),
    ],
)
def test_which_model_was_tuned(given: dict, said: str) -> None:
    assert said in demo_lead(**DEMO | given)
    assert "made" in given or said in alice_lead(**ALICE | given)


@pytest.mark.parametrize(
    ("follows", "driven", "world"),
    [
        ("meaning", "late-language voxels the semantic classes of the words, silent", ""),
        (
            "nothing",
            "late-language voxels the classes of words of other stories, which nobody hears",
            "the simulation without the effect",
        ),
        ("spectrum", "late-language voxels the spectrum of the sound as well", "the simulation with the opposite"),
    ],
)
def test_which_world_it_is(follows: str, driven: str, world: str) -> None:
    words = demo_lead(**DEMO | {"late_follows": follows})
    assert driven in words and world in words and words.count("This is the simulation") == bool(world)


def test_several_models_and_seeds_are_said() -> None:
    words = demo_lead(**DEMO | {"seeds": 3, "others": ("HuBERT", "Whisper")})
    assert "of the package and small models in the shapes of HuBERT and Whisper, made from nothing" in words
    assert "such stories, are each tuned on each brain for 4 epochs with 3 seeds, whose mean is shown; a control" in words
    assert "is tuned on each brain for 4 epochs; a control" in demo_lead(**DEMO)


def test_controls_and_files_that_are_no_data() -> None:
    assert "a control is tuned as long" in demo_lead(**DEMO) and "3 controls are tuned as long" in alice_lead(**ALICE)
    assert "seeds.csv has each" in alice_lead(**ALICE) and "seeds.csv" not in demo_lead(**DEMO), (
        "one control stands in scores.csv"
    )
    assert "6 minutes of synthetic stories" in demo_lead(**DEMO) and "(A with 9 voxels)" in demo_lead(**DEMO)
    assert "is not data: nobody." in alice_lead(**ALICE) and "is not data: S1, S2." in alice_lead(
        **ALICE | {"left_out": ["S1", "S2"]}
    )
