"""align: devices and memory are checked first, used, and decide no result; times of features are read without their layers."""

from __future__ import annotations

from pathlib import Path

import pytest

from align_cases import FIT, SKIP, TR, align, make_world
from fastencode.data.stories import Stories
from fastencode.study import design, layer_scores, sources
from fastencode.study.sources import LayerFolder

pytest.importorskip("jsonargparse", reason="the command needs the extra 'tune'")
pytest.importorskip("pandas", reason="the command needs the extra 'tune'")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--device", "tpu"), "device='tpu' is not a device this package knows"),
        (("--device", "cuda:99"), "device='cuda:99'"),
        (("--memory", "4 apples"), "memory='4 apples'; pass bytes, text such as '2GB'"),
        (("--memory", "1kB"), "memory=1000 bytes is too small to plan with: the smallest that works is"),
    ],
)
def test_what_cannot_be_had_is_said(world: Path, more: tuple[str, str], told: str, tmp_path: Path, capsys) -> None:
    """Before any work where that can be known: there is no folder then."""
    assert align(world, tmp_path / "out", *more) != 0
    assert told in "".join(capsys.readouterr())
    assert (tmp_path / "out").exists() == (more[1] == "1kB")


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
