"""Scores of voxels in a file and as images, and back."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from fastencode.data.rois import read_rois
from fastencode.data.space import columns_of, to_surfaces
from fastencode.errors import InputError
from fastencode.study.brains.layer_scores import LayerScores, LeftOut
from fastencode.study.brains.maps import write_maps, write_voxels
from fastencode.study.brains.tables import Label
from fastencode.study.inference.significance import fdr

nibabel = pytest.importorskip("nibabel", reason="nibabel is not installed")


def scores(rng, n):
    """Of n voxels: the first half strong."""
    r = rng.uniform(-0.1, 0.1, n) + np.where(np.arange(n) < n // 2, 0.6, 0)
    p = np.where(np.arange(n) < n // 2, 0.001, rng.uniform(0.3, 1, n))
    none = np.zeros(1)
    return LayerScores(
        r, p, rng.uniform(1, 9, n), rng.integers(-1, 2, n), *[none] * 4, *[none[None]] * 2, np.array(9.0), np.zeros(2, bool)
    )


@pytest.fixture
def written(tmp_path):
    """40 columns; 12 entries of scores for some of them, the last of which does not count."""
    rng = np.random.default_rng(0)
    voxels, mapped = rng.permutation(40)[:12], np.arange(11)
    labels = [Label("tiny model", (1, 2)), Label("tiny model", (3,))]
    found = {(label, layer): scores(rng, 12) for label in labels for layer in range(3)}
    path = tmp_path / "sub-01.h5"
    write_voxels(path, found, mapped, voxels, 40, ceiling=np.linspace(0.1, 0.9, 12))
    return path, found, mapped, voxels


def test_the_file_holds_every_score_at_its_column(written):
    path, found, mapped, voxels = written
    rest = np.setdiff1d(np.arange(40), voxels[mapped])
    with h5py.File(path) as file:
        assert set(file) == {"ceiling", "tiny-model-at-1-2", "tiny-model-at-3"}
        np.testing.assert_allclose(file["ceiling"][...][voxels[mapped]], np.linspace(0.1, 0.9, 12)[:11])
        for (label, layer), one in found.items():
            group = file[label.folder]
            assert group.attrs["model"] == "tiny model" and group.attrs["delays"].tolist() == list(label.delays)
            assert group.attrs["layers"].tolist() == [0, 1, 2]
            for name in ("r", "p", "alpha", "at_edge"):
                values = group[name][layer]
                np.testing.assert_allclose(values[voxels[mapped]], getattr(one, name)[mapped], rtol=1e-6)
                assert (values[rest] == 0).all() if name == "at_edge" else np.isnan(values[rest]).all()
            np.testing.assert_allclose(group["p_fdr"][layer][voxels[mapped]], fdr(one.p[mapped]), rtol=1e-6)


def test_the_file_holds_each_story(tmp_path):
    """Of two test stories, the later of which was heard once; and of three stories left out, two of them in one layer only."""
    rng = np.random.default_rng(4)
    voxels, mapped, label, other = rng.permutation(40)[:12], np.arange(11), Label("tiny model", (1, 2)), Label("tiny model", (3,))
    keys = [(label, 0), (label, 2), (other, 0)]
    found, *each = ({key: scores(rng, 12) for key in keys} for _ in range(3))
    by_test, ceilings = dict(zip(("test", "later"), each, strict=True)), {"test": rng.uniform(size=12)}
    held_out = {(label, 0): ("one", "two", "three"), (label, 2): ("three",)}
    left_out = {key: LeftOut(*rng.uniform(size=(2, len(stories), 12))) for key, stories in held_out.items()}
    path = tmp_path / "sub-01.h5"
    write_voxels(path, found, mapped, voxels, 40, by_test=by_test, ceilings=ceilings, left_out=left_out, held_out=held_out)
    there, rest = voxels[mapped], np.setdiff1d(np.arange(40), voxels[mapped])
    with h5py.File(path) as file:
        assert set(file) == {"ceilings", label.folder, other.folder} and set(file["ceilings"]) == {"test"}
        np.testing.assert_allclose(file["ceilings/test"][...][there], ceilings["test"][mapped], rtol=1e-6)
        for (of, layer), one in found.items():
            group = file[of.folder]
            assert group.attrs["layers"].tolist() == ([0, 2] if of == label else [0])
            place = group.attrs["layers"].tolist().index(layer)
            np.testing.assert_allclose(group["r"][place][there], one.r[mapped], rtol=1e-6)
            for story, records in by_test.items():
                alone, record = group["test_stories"][story], records[of, layer]
                assert set(alone) == {"r", "p", "p_fdr"} and alone.attrs["layers"].tolist() == group.attrs["layers"].tolist()
                for name, values in (("r", record.r[mapped]), ("p", record.p[mapped]), ("p_fdr", fdr(record.p[mapped]))):
                    np.testing.assert_allclose(alone[name][place][there], values, rtol=1e-6)
                    assert np.isnan(alone[name][place][rest]).all()
        assert "leave_one_out" not in file[other.folder]
        of_stories = file[label.folder]["leave_one_out"]
        assert {story: of_stories[story].attrs["layers"].tolist() for story in of_stories} == {
            "one": [0],
            "two": [0],
            "three": [0, 2],
        }
        for story, layer, row in (("one", 0, 0), ("two", 0, 1), ("three", 0, 2), ("three", 2, 0)):
            place = of_stories[story].attrs["layers"].tolist().index(layer)
            for name in ("r", "alpha"):
                values = of_stories[story][name][place]
                np.testing.assert_allclose(values[there], getattr(left_out[label, layer], name)[row][mapped], rtol=1e-6)
                assert np.isnan(values[rest]).all()
    np.save(tmp_path / "mask.npy", np.ones(40, bool))
    names = {one.name for one in write_maps(tmp_path / "maps", path, tmp_path / "mask.npy")}
    assert names == {f"sub-01_{of.folder}_{what}_mask.func.gii" for of in (label, other) for what in ("r", "best-layer")}


def test_images_hold_them_at_their_place(written, tmp_path):
    path, found, mapped, voxels = written
    inside = np.zeros((4, 5, 3), bool)
    inside.ravel()[np.random.default_rng(1).permutation(60)[:40]] = True
    nibabel.Nifti1Image(inside.astype(np.uint8), np.diag([2.0, 2, 2, 1])).to_filename(tmp_path / "mask.nii.gz")
    made = write_maps(tmp_path / "maps", path, tmp_path / "mask.nii.gz")
    names = {f"sub-01_tiny-model-at-{delays}_{what}.nii.gz" for delays in ("1-2", "3") for what in ("r", "best-layer")}
    assert {one.name for one in made} == {"sub-01_ceiling.nii.gz", *names}
    label = next(iter(found))[0]
    r = nibabel.load(tmp_path / "maps" / "sub-01_tiny-model-at-1-2_r.nii.gz")
    assert r.shape == (4, 5, 3, 3)
    np.testing.assert_allclose(r.affine, np.diag([2.0, 2, 2, 1]))
    each = np.array([found[label, layer].r for layer in range(3)])
    np.testing.assert_allclose(r.get_fdata()[inside][voxels[mapped]], each.T[mapped], rtol=1e-6)
    best = nibabel.load(tmp_path / "maps" / "sub-01_tiny-model-at-1-2_best-layer.nii.gz").get_fdata()[inside]
    np.testing.assert_array_equal(best[voxels[:6]], each.argmax(axis=0)[:6])
    assert np.isnan(best[voxels[6:]]).all(), "no layer is significant there"


@pytest.mark.parametrize("one_file", [True, False])
def test_surfaces(written, tmp_path, one_file):
    path, found, mapped, voxels = written
    masks = [np.zeros(30, bool), np.zeros(25, bool)]
    masks[0][np.random.default_rng(2).permutation(30)[:22]] = masks[1][np.random.default_rng(3).permutation(25)[:18]] = True
    where = tmp_path / "sub-01"
    if one_file:
        where, masks = tmp_path / "sub-01.npy", [np.concatenate(masks)]
        np.save(where, masks[0])
    else:
        where.mkdir()
        for name, mask in zip(("lh", "rh"), masks, strict=True):
            np.save(where / f"{name}.npy", mask)
    made = [one for one in write_maps(tmp_path / "maps", path, where) if "at-3_r" in one.name]
    assert [one.name[len("sub-01_tiny-model-at-3_r_") :] for one in made] == (
        ["sub-01.func.gii"] if one_file else ["lh.func.gii", "rh.func.gii"]
    )
    back = np.concatenate(
        [np.array([a.data for a in nibabel.load(one).darrays])[:, mask] for one, mask in zip(made, masks, strict=True)], axis=1
    )
    label = list(found)[-1][0]
    np.testing.assert_allclose(back[:, voxels[mapped]], np.array([found[label, i].r for i in range(3)])[:, mapped], rtol=1e-6)
    assert np.isnan(nibabel.load(made[0]).darrays[0].data[~masks[0]]).all()
    (tmp_path / "rois.json").write_text('{"here": [0, 39]}')
    assert read_rois(tmp_path / "rois.json", where)["here"].tolist() == [0, 39] and columns_of(where, None).total == 40


def test_bad_masks_are_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty holds no \.npy file"):
        columns_of(tmp_path / "empty", None)
    np.save(tmp_path / "numbers.npy", np.arange(4))
    with pytest.raises(InputError, match="holds int64 of shape"):
        columns_of(tmp_path / "numbers.npy", None)
    (tmp_path / "broken.npy").write_bytes(b"no")
    with pytest.raises(InputError, match="is not a NumPy array file"):
        columns_of(tmp_path / "broken.npy", None)
    with pytest.raises(InputError, match="the masks have 3 vertices"):
        to_surfaces(np.zeros(4), [np.ones(3, bool)])


@pytest.mark.parametrize(("given", "stored"), [(bool, np.uint8), (np.int64, np.int32), (np.float64, np.float32)])
def test_whole_numbers_stay_whole(given, stored):
    (image,) = to_surfaces(np.array([1, 0, 1]).astype(given), [np.array([True, True, False, True])])
    assert image.darrays[0].data.dtype == stored and len(image.darrays[0].data) == 4
