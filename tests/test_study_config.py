"""Files of studies: what they mean, what is wrong with them, and the studies that come with the package."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pydantic", reason="files of studies need the extra 'tune'")
pytest.importorskip("yaml", reason="files of studies need the extra 'tune'")

from fastencode.errors import InputError
from fastencode.runs.studies.checks import check_study
from fastencode.runs.studies.config import Arm, StudyConfig
from fastencode.runs.studies.names import Names, corpus_of
from fastencode.runs.studies.reading import read_study, study_text, template_names
from fastencode.runs.studies.readings import models_of, readings_of
from fastencode.runs.studies.regions import with_functions
from fastencode.runs.studies.typed import problems_of
from fastencode.study.findings.measurements import BEYOND_LINEAR, MLP
from fastencode.tune.presets import preset


def problems(**given: Any) -> list[str]:
    found, study = problems_of(StudyConfig, given)
    assert found or study is not None
    return found


def study(**given: Any) -> StudyConfig:
    found, made = problems_of(StudyConfig, given)
    assert made is not None, found
    return made.resolved()


def test_a_misspelt_key_is_named_with_its_place_and_the_nearest() -> None:
    (line,) = problems(data={"storys": "d"})
    assert line == "data.storys: there is no such setting; did you mean stories?"
    (line,) = problems(arms=[{"name": "a"}, {"name": "b", "tuned": {}}])
    assert line == "arms[2].tuned: there is no such setting; did you mean tune?"


def test_all_problems_are_found_at_once() -> None:
    found = problems(
        titel="x",
        data={"tr": -1},
        arms=[{"name": "a", "seeds": ["one"], "tune": {}}, {"name": "b", "hours": [2.0]}],
        contrasts=[{"name": "c", "models": {"a": 1}}],
    )
    assert len(found) == 5
    said = "\n".join(found)
    assert "titel: there is no such setting; did you mean title?" in said
    assert "data: tr=-1" in said
    assert "arms[1].seeds[1]: give a whole number" in said and "'one'" in said
    assert "arms[2]: hours of b is set, but the arm is not tuned" in said
    assert "contrasts[1].measure: is missing" in said


def test_labels_of_mixed_type_are_refused() -> None:
    (line,) = problems(data={"participants": ["P1", 2]})
    assert line == "data.participants[2]: give text, got 2: put it in quotation marks"


def test_two_arms_of_one_name_are_refused() -> None:
    (line,) = problems(arms=[{"name": "a"}, {"name": "a", "tune": {}}])
    assert line == "two arms are called 'a': name each differently"


def test_what_is_left_open_follows_from_the_data() -> None:
    demo, real = study(), study(data={"stories": "folder"})
    assert (demo.data.test_story, demo.data.validation, demo.data.test_skip) == ("test", ("validation",), 0)
    assert (real.data.test_story, real.data.validation, real.data.test_skip) == ("wheretheressmoke", ("stagefright",), 40)
    assert dict(demo.models) == {"small": "small"} and dict(real.models) == {"wav2vec2": "facebook/wav2vec2-base"}
    tuned = Arm("tuned", tune={})
    assert real.tuning(tuned, 0) == replace(preset("interspeech2025").config(), keep=())
    assert demo.tuning(tuned, 0).epochs == 4 and demo.tuning(tuned, 0).learning_rate == 5e-4


def test_settings_of_an_arm_count_more_than_those_of_the_study_and_inner_ones_one_by_one() -> None:
    one = study(tune={"epochs": 7, "lora": {"rank": 2}})
    config = one.tuning(Arm("a", tune={"trained": "lora", "lora": {"dropout": 0.0}}), 3)
    assert (config.epochs, config.trained, config.lora.rank, config.lora.dropout, config.seed) == (7, "lora", 2, 0.0, 3)
    with pytest.raises(InputError, match=r"lora.rnak: there is no such setting; did you mean rank\?"):
        one.tuning(Arm("a", tune={"lora": {"rnak": 1}}), 0)


def test_seeds_of_a_permuted_arm_number_the_permutation_only() -> None:
    one, arm = study(), Arm("control", tune={"targets": "permuted"}, seeds=(1, 2))
    first, second = one.tuning(arm, 1), one.tuning(arm, 2)
    assert (first.permutation, second.permutation) == (1, 2)
    assert replace(second, permutation=1) == first and first.seed == one.tuning(Arm("t", tune={}), 0).seed


def test_conditions_are_arms_by_models_hours_and_epochs_and_seeds_are_inside_them() -> None:
    one = study(
        models={"a": "small", "b": "random:small"},
        arms=[
            {"name": "pretrained"},
            {"name": "tuned", "tune": {}, "model": "a", "hours": [0.5, 2], "epochs": [1, 4], "seeds": [0, 1]},
        ],
    )
    found = [(reading.name, reading.condition, reading.seed, reading.epoch) for reading in readings_of(one)]
    assert found[:2] == [("a-pretrained", "a-pretrained", 0, None), ("b-pretrained", "b-pretrained", 0, None)]
    assert found[2:6] == [
        ("tuned-0.5h-seed-0-epoch-1", "tuned-0.5h-epoch-1", 0, 1),
        ("tuned-0.5h-seed-1-epoch-1", "tuned-0.5h-epoch-1", 1, 1),
        ("tuned-0.5h-seed-0", "tuned-0.5h", 0, None),  # epoch 4 is the last one
        ("tuned-0.5h-seed-1", "tuned-0.5h", 1, None),
    ]
    assert len(found) == 10
    assert [one.model for one in models_of(readings_of(one))] == [
        "a-pretrained", "b-pretrained", "tuned-0.5h-epoch-1", "tuned-0.5h", "tuned-2h-epoch-1", "tuned-2h", "tuned",
    ]  # fmt: skip


def test_stages_have_an_owner() -> None:
    arms = [{"name": "p"}, {"name": "each", "tune": {}}, {"name": "all", "tune": {}, "together": True}]
    names = Names(study(arms=arms, probes={"tasks": ["word"]}), ("A", "B"))
    assert list(names.models) == ["models/A/each", "models/B/each", "models/everybody/all"]
    assert list(names.features) == ["features/everybody/p", "features/A/each", "features/B/each", "features/everybody/all"]
    assert list(names.probes)[-2:] == ["probes/word/everybody/mfcc", "probes/word/everybody/random"]
    assert list(names.changes) == ["change/A/each", "change/B/each", "change/everybody/all"]


def test_tasks_know_their_corpus() -> None:
    assert [corpus_of(task) for task in ("word", "phonemes", "label:emotion@mine")] == ["commands", "timit", "mine"]


@pytest.mark.parametrize("name", template_names())
def test_every_template_is_a_study_of_the_demo_and_of_a_folder(name: str) -> None:
    for stories in ("demo", "folder"):
        found, made = read_study(name, {"data": {"stories": stories}})
        assert made is not None, found
        made = made.resolved()
        assert made.data.stories == stories and made.contrasts
        names = Names(made, ("P1", "P2"))
        conditions = {reading.condition for reading in (*names.readings, *names.low_level)} | {*made.baselines}
        for contrast in made.contrasts:
            assert {*contrast.models, *([contrast.control] if contrast.control else [])} <= conditions
            networks = () if made.mlp is None else (MLP, BEYOND_LINEAR)
            assert contrast.measure in ("r", "r_normalized", "r_residual", *networks, *made.probes.tasks)
        assert check_study(made) == [] or stories == "folder"


def test_the_commented_template_shows_every_setting() -> None:
    text = study_text("study")
    for name in StudyConfig.__dataclass_fields__:
        assert f"\n{name}:" in text or f"\n# {name}:" in text or name == "world", name


def test_a_file_that_is_not_there_and_one_that_is_not_yaml(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean scaling-hours"):
        read_study("scaling-hour")
    path = tmp_path / "study.yaml"
    path.write_text("arms: [\n")
    with pytest.raises(InputError, match=r"study.yaml, line 2: not valid YAML"):
        read_study(path)
    path.write_text("- 1\n")
    with pytest.raises(InputError, match="contains no settings"):
        read_study(path)


def test_regions_of_a_function_are_made_of_areas_unless_they_are_there() -> None:
    areas = {"L_A1_ROI": np.array([0, 1]), "R_A1_ROI": np.array([9]), "55b": np.array([4]), "V1": np.array([5])}
    found = with_functions(areas)
    assert found["auditory"].tolist() == [0, 1, 9] and found["late_language"].tolist() == [4]
    assert {name: found[name] for name in areas} == areas
    assert with_functions({"auditory": np.array([7]), "A1": np.array([1])})["auditory"].tolist() == [7]
    assert set(with_functions({"V1": np.array([5])})) == {"V1"}
