"""align: devices and memory are checked first, used, and decide no result; times of features are read without their layers."""

from __future__ import annotations

import re
from pathlib import Path

import h5py
import numpy as np
import pytest

from align_cases import FIT, SKIP, TR, align, make_world
from fastencode.data.stories import Stories
from fastencode.study.brains import design, layer_scores, sources
from fastencode.study.brains.sources import LayerFolder

pytest.importorskip("jsonargparse", reason="the command needs the extra 'tune'")
pytest.importorskip("pandas", reason="the command needs the extra 'tune'")

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--device", "tpu"), "device='tpu' is not a device this package knows"),
        (("--device", "cuda:99"), "device='cuda:99'"),
        (("--memory", "4 apples"), "memory='4 apples'; pass bytes, text such as '2GB'"),
        (("--memory", "1kB"), "--memory=1000 bytes is too small to plan with: the smallest that works is"),
        (
            ("--align.delays", "1,45"),
            "--align.delays 1, 45 for three: the run of rows 0 to 38 has 39 rows, fewer than the delay 45",
        ),
        (("--lags", "3", "-60"), "--lags -60 for three: the run of rows 0 to 38 has 39 rows, fewer than the delay -60"),
        (("--align.block", "32"), "--align.block=32 for test: 62 rows make 1 whole blocks of 32: use shorter blocks"),
        (
            ("--test_story", "test", "later", "--align.block", "30"),
            "--align.block=30 for test, later: 46 rows make 1 whole blocks",
        ),
        (("--test_skip", "65"), "--align.block=8 for test: 1 rows make 0 whole blocks of 8"),
    ],
)
def test_what_cannot_be_had_is_said(world: Path, more: tuple[str, str], told: str, tmp_path: Path, capsys) -> None:
    """Before any work: responses are not read, and there is no folder."""
    for dry in ([], ["--dry-run"]):
        assert align(world, tmp_path / "out", *more, *dry) == 2
        assert told in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_memory_that_holds_the_plan_of_one_model_only_is_said_first(world: Path, tmp_path: Path, capsys) -> None:
    """By the rule of the fit itself: what it names as the smallest is enough to begin."""
    wide = tmp_path / "wide"
    wide.mkdir()
    for path in (world / "features" / "model").glob("*.h5"):
        with h5py.File(path) as narrow, h5py.File(wide / path.name, "w") as file:
            file["times"], file.attrs["key"] = narrow["times"][...], narrow.attrs["key"]
            file["features"] = np.tile(narrow["features"][...], 20)
    both = ("--features", str(world / "features" / "model"), str(wide), "--participants", "A", "--dry-run")
    assert align(world, tmp_path / "out", *both, "--memory", "30000") == 2
    least = int(re.search(r"memory=30000 bytes .* the smallest that works is (\d+) bytes", capsys.readouterr().err)[1])
    assert align(world, tmp_path / "out", *both, "--memory", str(least)) == 0
    assert align(world, tmp_path / "out", *both, "--memory", str(least - 1)) == 2
    assert align(world, tmp_path / "out", *both[:2], *both[3:], "--memory", "30000") == 0


def test_devices_and_memory_reach_the_solver_and_decide_no_result(world: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    asked = []

    def noted(function):
        def call(*args, **options):
            asked.append((function.__name__, options["device"], options["memory"]))
            return function(*args, **options)

        return call

    monkeypatch.setattr(design, "plan_ridge", noted(design.plan_ridge))
    monkeypatch.setattr(layer_scores, "partition_variance", noted(layer_scores.partition_variance))
    more = ["--partition", "time", "--residualize", "time", "--candidates", "2"]
    assert align(world, tmp_path / "a", *more) == 0
    assert set(asked) == {("plan_ridge", None, None), ("partition_variance", None, None)}
    asked.clear()
    assert align(world, tmp_path / "b", *more, "--device", "cpu", "--memory", "64MB") == 0
    assert set(asked) == {("plan_ridge", "cpu", "64MB"), ("partition_variance", "cpu", "64MB")}
    for name in ("scores.csv", "partition.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    asked.clear()
    assert align(world, tmp_path / "b", *more) == 0 and not asked, "finished fits stay finished"
    assert "memory: 64MB" not in (tmp_path / "b" / "config.yaml").read_text()


def test_no_layer_is_read_to_check_when_it_is(world: Path, monkeypatch) -> None:
    stories = Stories(world, tr=TR, test_story="test", test_skip=SKIP)

    def read(*_args, **_options):
        raise AssertionError("a layer was read")

    monkeypatch.setattr(sources, "read_features", read)
    found = LayerFolder(world / "features" / "model", stories, lobes=3, used=[*FIT, "test"])
    assert found.n_layers == 2 and found.key("one")["audio"] == "one"
    with pytest.raises(AssertionError, match="a layer was read"):
        found.rows("one", 0)


def test_a_dry_run_counts_stories_left_out_and_predictions(world: Path, tmp_path: Path, capsys) -> None:
    disk, plans = [], []
    for more in ((), ("--leave_one_out",), ("--leave_one_out", "--save_predictions")):
        assert align(world, tmp_path / "out", "--dry-run", *more) == 0
        said = capsys.readouterr().out
        disk.append(float(re.search(r"([\d.e-]+) GB on disk at most", said)[1]))
        plans.append(sum(int(count) for count in re.findall(r"(\d+) plans? of", said)))
    assert disk[0] < disk[1] < disk[2] and plans[1] == plans[2]
    stories = len(FIT) + 1  # all but the one that is scored
    assert plans[1] == plans[0] * (1 + stories), "one plan of all of them, and one without each"
