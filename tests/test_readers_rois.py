"""Regions of interest from every kind of file, beside nilearn; the way back to an image; each kind of damage with its message."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest

from fastencode.data.rois import BRAIN_TUNING_SETS, join_rois, overlaps, read_rois, to_image
from fastencode.errors import FastencodeWarning, InputError
from reader_cases import write_gifti, write_nifti

nibabel = pytest.importorskip("nibabel", reason="images need the extra 'neuro'")
maskers = pytest.importorskip("nilearn.maskers", reason="nilearn is not installed")
masking = pytest.importorskip("nilearn.masking", reason="nilearn is not installed")

AFFINE = np.array([[-2.5, 0.1, 0, 90], [0, 2.5, 0.2, -126], [0.1, 0, 2.5, -72], [0, 0, 0, 1]])
SHAPE = (5, 6, 7)


def listed(rois: dict[str, np.ndarray]) -> dict[str, list[int]]:
    assert all(v.dtype == np.intp and np.all(np.diff(v) > 0) for v in rois.values())
    return {name: v.tolist() for name, v in rois.items()}


@pytest.fixture
def brain() -> np.ndarray:
    return np.random.default_rng(0).random(SHAPE) < 0.6


@pytest.fixture
def mask(tmp_path: Path, brain: np.ndarray) -> Path:
    return write_nifti(tmp_path / "mask.nii.gz", brain.astype(np.uint8), AFFINE)


@pytest.fixture
def atlas() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 5, SHAPE).astype(np.int16) * np.int16(100)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_a_label_image_beside_nilearn(tmp_path: Path, mask: Path, brain: np.ndarray, atlas: np.ndarray, dtype: type) -> None:
    path = write_nifti(tmp_path / "atlas.nii.gz", atlas.astype(dtype), AFFINE)
    row = masking.apply_mask(nibabel.Nifti1Image(atlas[..., None].astype(float), AFFINE), nibabel.load(mask))[0]
    expected = {str(label): np.flatnonzero(row == label).tolist() for label in (100, 200, 300, 400)}
    ways = [mask, str(mask), nibabel.load(mask), brain, maskers.NiftiMasker(nibabel.load(mask)).fit()]
    for way in ways:
        assert listed(read_rois(path, way)) == expected
    assert listed(read_rois(path, mask, n_voxels=int(brain.sum()))) == expected
    names = {100: "V1", 300: "V2", 400: "V1", 999: "not there"}
    assert listed(read_rois(path, mask, names=names)) == {
        "V1": sorted(expected["100"] + expected["400"]),
        "200": expected["200"],
        "V2": expected["300"],
    }


def test_a_binary_image_and_one_more_axis(tmp_path: Path, brain: np.ndarray, atlas: np.ndarray) -> None:
    four = write_nifti(tmp_path / "brain.nii", brain[..., None].astype(np.float32) * 7, AFFINE)
    write_nifti(tmp_path / "left.V1.nii.gz", (atlas == 200).astype(np.uint8)[..., None] * 255, AFFINE)
    expected = np.flatnonzero(atlas[brain] == 200).tolist()
    assert listed(read_rois(tmp_path / "left.V1.nii.gz", four)) == {"left.V1": expected}
    assert listed(read_rois(tmp_path / "left.V1.nii.gz", four, names={255: "area"})) == {"area": expected}
    everywhere = np.ones(SHAPE, bool)
    assert listed(read_rois(str(tmp_path / "left.V1.nii.gz"), everywhere)) == {"left.V1": np.flatnonzero(atlas == 200).tolist()}


def test_arrays(tmp_path: Path, mask: Path, brain: np.ndarray, atlas: np.ndarray) -> None:
    total = int(brain.sum())
    labels = atlas[brain]
    by_label = {str(k): np.flatnonzero(labels == k).tolist() for k in (100, 200, 300, 400)}
    for name, array, expected in [
        ("bool.npy", labels == 300, {"bool": by_label["300"]}),
        ("zeros_and_ones.npy", (labels == 300).astype(np.int8), {"zeros_and_ones": by_label["300"]}),
        ("labels.npy", labels, by_label),
        ("floats.npy", labels.astype(np.float32), by_label),
        ("grid.npy", atlas, by_label),
        ("list.npy", np.array([7, 1, 3], dtype=np.uint8), {"list": [1, 3, 7]}),
    ]:
        np.save(tmp_path / name, array)
        assert listed(read_rois(tmp_path / name, mask)) == expected
        if name != "grid.npy":
            assert listed(read_rois(tmp_path / name, n_voxels=total)) == expected
    (tmp_path / "text.txt").write_text("# of the localizer\n4 2,9\n\n 3 # last\n")
    assert listed(read_rois(tmp_path / "text.txt", mask)) == {"text": [2, 3, 4, 9]}


def test_whole_numbers_for_all_voxels_are_read_in_the_one_way_they_can_be_meant(tmp_path: Path) -> None:
    """A list names no index twice: numbers that repeat are for the voxels. What may be both is refused, with the way out."""
    np.save(tmp_path / "a.npy", np.arange(12)[::-1])
    with pytest.raises(InputError, match=r"12 different whole numbers, .* may be indices, .* or labels, .* save a mask"):
        read_rois(tmp_path / "a.npy", n_voxels=12)
    np.save(tmp_path / "a.npy", np.ones(12, bool))  # both ways out
    (tmp_path / "a.json").write_text(json.dumps({"all": list(range(12)), "mask": [0, 1] * 6, "none": [0] * 12}))
    assert listed(read_rois(tmp_path / "a.npy", n_voxels=12)) == {"a": list(range(12))}
    with pytest.warns(FastencodeWarning, match="left out: none"):
        assert listed(read_rois(tmp_path / "a.json", n_voxels=12)) == {"all": list(range(12)), "mask": [1, 3, 5, 7, 9, 11]}
    (tmp_path / "a.txt").write_text("0 0 1\n")
    assert listed(read_rois(tmp_path / "a.txt", n_voxels=3)) == {"a": [2]}
    (tmp_path / "a.json").write_text('{"A": [0, 1]}')
    with pytest.raises(InputError, match=r"region 'A' holds \[0, 1\]: this may be a mask or indices; write true and false"):
        read_rois(tmp_path / "a.json", n_voxels=2)
    np.save(tmp_path / "a.npy", np.arange(5))
    cortex = np.array([1, 0, 1, 1, 1, 0], bool)  # as many vertices as labels is another length than as many columns
    np.save(tmp_path / "b.npy", np.array([1, 0, 1, 0, 0, 1]))
    assert listed(read_rois(tmp_path / "b.npy", cortex)) == {"b": [0, 1]}
    with pytest.raises(InputError, match="1 of 5 indices lie outside 0 … 3, the first 4"):
        read_rois(tmp_path / "a.npy", cortex)


def test_json_with_regions_of_regions(tmp_path: Path) -> None:
    table = {
        "temporal": ["A5", "belt"],
        "belt": ["LBelt", "MBelt"],
        "A5": [9, 3],
        "LBelt": [0, 1],
        "MBelt": [1, 2],
        "mask": [k == 4 for k in range(12)],
    }
    (tmp_path / "rois.json").write_text(json.dumps(table))
    rois = read_rois(tmp_path / "rois.json", n_voxels=12)
    assert list(rois) == list(table)
    assert listed(rois) == {
        "temporal": [0, 1, 2, 3, 9], "belt": [0, 1, 2], "A5": [3, 9], "LBelt": [0, 1], "MBelt": [1, 2], "mask": [4],
    }  # fmt: skip
    assert overlaps(rois) == {
        ("temporal", "belt"): 3, ("temporal", "A5"): 2, ("temporal", "LBelt"): 2, ("temporal", "MBelt"): 2,
        ("belt", "LBelt"): 2, ("belt", "MBelt"): 2, ("LBelt", "MBelt"): 1,
    }  # fmt: skip
    assert overlaps({name: rois[name] for name in ("A5", "belt", "mask")}) == {}
    assert overlaps({}) == {}


def test_surfaces(tmp_path: Path) -> None:
    """Two hemispheres with keys of their own; a vertex mask without the medial wall."""
    left, right = np.array([0, 2, 2, 1, 0, 1], np.int32), np.array([1, 0, 1, 3], np.int32)
    write_gifti(tmp_path / "L.x.label.gii", left, names={0: "???", 1: "L_A1_ROI", 2: "both"})
    write_gifti(tmp_path / "R.x.label.gii", right, names={0: "???", 1: "both", 3: "R_A1_ROI"})
    assert listed(read_rois(tmp_path / "L.x.label.gii")) == {"L_A1_ROI": [3, 5], "both": [1, 2]}
    pair = [tmp_path / "L.x.label.gii", tmp_path / "R.x.label.gii"]
    assert listed(read_rois(pair)) == {"L_A1_ROI": [3, 5], "both": [1, 2, 6, 8], "R_A1_ROI": [9]}
    cortex = np.array([0, 1, 0, 1, 1, 1, 1, 0, 0, 1], bool)
    assert listed(read_rois(pair, cortex)) == {"L_A1_ROI": [1, 3], "both": [0, 4], "R_A1_ROI": [5]}
    for kind in ("func", "shape"):
        path = write_gifti(tmp_path / f"V1.{kind}.gii", (left == 2).astype(np.float32))
        assert listed(read_rois(path, n_voxels=6)) == {"V1": [1, 2]}
    with pytest.raises(InputError, match=r"shape \(6,\), but there are 7 voxels: give this participant's file"):
        read_rois(path, n_voxels=7)
    write_gifti(tmp_path / "two.func.gii", left.astype(np.float32), left.astype(np.float32))
    with pytest.raises(InputError, match=r"two\.func\.gii holds 2 arrays, expected one"):
        read_rois(tmp_path / "two.func.gii")


def test_a_folder(tmp_path: Path, mask: Path, brain: np.ndarray, atlas: np.ndarray) -> None:
    folder = tmp_path / "rois"
    folder.mkdir()
    with pytest.raises(InputError, match="rois holds no file of regions"):
        read_rois(folder, mask)
    write_nifti(folder / "V1.nii.gz", (atlas == 100).astype(np.uint8), AFFINE)
    np.save(folder / "FFA.npy", np.flatnonzero(atlas[brain] == 200)[:3])
    (folder / "more.json").write_text('{"A1": [0, 5], "none": []}')
    (folder / "README.md").write_text("not a region")
    (folder / ".hidden.npy").write_text("not a region")
    with pytest.warns(FastencodeWarning, match="1 of 4 regions have no voxel among the columns and are left out: none") as caught:
        rois = read_rois(folder, mask)
    assert len(caught) == 1
    assert list(rois) == ["FFA", "V1", "A1"]
    assert rois["V1"].tolist() == np.flatnonzero(atlas[brain] == 100).tolist()
    (folder / "A1.txt").write_text("3")
    with pytest.raises(InputError, match=r"region 'A1' is defined twice, once more in .*more\.json"):
        read_rois(folder, mask)


def test_the_atlas_sets() -> None:
    assert {name: len(areas) for name, areas in BRAIN_TUNING_SETS.items()} == {
        "AG": 5, "LTC": 13, "IFG": 4, "MFG": 1, "primary auditory": 1, "early auditory": 6,
    }  # fmt: skip
    areas = sorted({area for members in BRAIN_TUNING_SETS.values() for area in members})
    rois = {f"{side}_{area}_ROI": np.array([2 * k + (side == "R")]) for k, area in enumerate(areas) for side in "LR"}
    rois |= {"L_V1_ROI": np.array([99])}
    joined = join_rois(rois, BRAIN_TUNING_SETS)
    assert list(joined) == list(BRAIN_TUNING_SETS)
    for name, members in BRAIN_TUNING_SETS.items():
        assert joined[name].tolist() == sorted(2 * areas.index(a) + side for a in members for side in (0, 1))
    plain = {"A1": [5, 1], "44": [2], "45": [2, 3], "L_44_ROI": [7], "lh.L_IFJa_ROI": [8]}
    assert listed(join_rois(plain, {"x": ["A1", "44"], "y": ["45", "44", "IFJa"]})) == {"x": [1, 2, 5], "y": [2, 3, 8]}
    assert listed(join_rois(plain, {"x": "44"})) == {"x": [2]}
    for use in (overlaps, lambda rois: join_rois(rois, {"x": ["b"]})):
        with pytest.raises(InputError, match="region 'b' is a mask: give the indices of its voxels"):
            use({"a": [0], "b": np.array([True, False])})
    with pytest.warns(FastencodeWarning, match="no such regions, the rest was joined: IFSp of IFG"):
        assert listed(join_rois(plain, {"IFG": ("44", "IFSp")})) == {"IFG": [2]}
    with pytest.raises(InputError, match=r"none of \['55b'\], which make up 'MFG', is a region: the regions are A1, 44"):
        join_rois(plain, {"MFG": ("55b",)})


VALUES = [
    np.float32([0.5, np.nan]),
    np.float64([-0.25, 1e300]),
    np.float16([0.5, 2]),
    np.array([-3, 2**31 - 1]),
    np.uint8([3, 255]),
    np.array([True, False]),
]


@pytest.mark.parametrize("ends", VALUES, ids=lambda v: str(v.dtype))
@pytest.mark.parametrize("k", [None, 1, 3])
def test_back_to_an_image_as_nilearn_does(mask: Path, brain: np.ndarray, ends: np.ndarray, k: int | None) -> None:
    shape = (int(brain.sum()),) if k is None else (k, int(brain.sum()))
    values = np.resize(ends, shape)
    image = to_image(values, mask)
    wider = {"float16": np.float32, "bool": np.uint8}.get(str(values.dtype), values.dtype)
    expected = masking.unmask(values.astype(wider), nibabel.load(mask))
    assert image.shape == expected.shape == SHAPE + shape[:-1]
    np.testing.assert_array_equal(image.affine, expected.affine)
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), np.asanyarray(expected.dataobj))
    image.to_filename(mask.with_name("values.nii.gz"))
    stored = nibabel.load(mask.with_name("values.nii.gz"))
    np.testing.assert_array_equal(stored.get_fdata()[brain].T, values)
    np.testing.assert_array_equal(stored.get_fdata()[~brain], 0)


def test_maskers_go_back_themselves(tmp_path: Path, mask: Path, brain: np.ndarray, atlas: np.ndarray) -> None:
    values = np.random.default_rng(0).standard_normal((2, brain.sum()))
    masker = maskers.NiftiMasker(nibabel.load(mask)).fit()
    for given in (values, values[0]):
        np.testing.assert_array_equal(to_image(given, masker).get_fdata(), to_image(given, mask).get_fdata())
    with pytest.raises(InputError, match=r"the NiftiMasker has not been fitted: call its fit\(\) first"):
        to_image(values, maskers.NiftiMasker(nibabel.load(mask)))
    with pytest.raises(InputError, match="NiftiMasker has not been fitted"):
        read_rois(mask, maskers.NiftiMasker())
    # A masker of regions: values are one for each region, and so are the columns.
    regions = maskers.NiftiLabelsMasker(nibabel.Nifti1Image(atlas, AFFINE), standardize=None).fit()
    image = to_image(np.array([[1.5, 2.5, 3.5, 4.5]]), regions).get_fdata().squeeze()
    np.testing.assert_allclose(image, np.where(atlas > 0, atlas / 100 + 0.5, 0))
    with pytest.raises(InputError, match="the columns of a NiftiLabelsMasker are regions already"):
        read_rois(mask, regions)


def test_what_cannot_go_back(tmp_path: Path, mask: Path, brain: np.ndarray) -> None:
    n = int(brain.sum())
    for shape in [(n - 1,), (n, 2), (1, 1, n), ()]:
        with pytest.raises(InputError, match=rf"values have shape .*, but the mask has {n} voxels"):
            to_image(np.zeros(shape), mask)
    with pytest.raises(InputError, match="mask is ndarray, which does not say where voxels lie"):
        to_image(np.zeros(n), brain)
    with pytest.raises(InputError, match="values reach 2147483648, too large for an image of int32"):
        to_image(np.full(n, 2**31), mask)
    with pytest.raises(InputError, match="is 0 everywhere: no voxel is inside"):
        to_image(np.zeros(n), write_nifti(tmp_path / "empty.nii", np.zeros(SHAPE)))
    holed = brain.astype(np.float32)
    holed[0, 0, :2] = np.nan
    with pytest.raises(InputError, match=r"holed\.nii holds 2 values that are NaN or infinite: set what is outside to 0"):
        to_image(np.zeros(n), write_nifti(tmp_path / "holed.nii", holed))


def test_images_that_do_not_fit(tmp_path: Path, mask: Path, atlas: np.ndarray) -> None:
    def write(data: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
        return write_nifti(tmp_path / "a.nii.gz", data, affine)

    floats = atlas.astype(np.float32)
    near, far, holed, part, below = AFFINE.copy(), AFFINE.copy(), floats.copy(), floats.copy(), atlas.copy()
    near[0, 3] += 5e-4
    far[0, 3] += 2.5
    holed[0, 0, 0], holed[1, 1, 1] = np.nan, np.inf
    part[2, 2, :3] = [0.25, 0.5, 1]
    below[0, 0, 0] = -1
    assert listed(read_rois(write(atlas, near), mask)) == listed(read_rois(write(atlas), mask))
    for data, affine, message in [
        (atlas, far, r"a\.nii\.gz lies elsewhere than the mask: their affines differ by up to 2\.5; resample it"),
        (atlas[:-1], AFFINE, r"a\.nii\.gz has shape \(4, 6, 7\), but the mask has shape \(5, 6, 7\): resample it"),
        (np.stack([atlas, atlas], -1), AFFINE, r"a\.nii\.gz has shape \(5, 6, 7, 2\): give one volume"),
        (holed, AFFINE, r"a\.nii\.gz holds 2 values that are NaN or infinite: set the background to 0"),
        (part, AFFINE, r"a\.nii\.gz holds 2 values that are not whole, the first 0\.25: .* compare a map of probabilities"),
        (below, AFFINE, r"a\.nii\.gz holds the label -1: labels are 0 \(background\) and above"),
        (0 * atlas, AFFINE, r"a\.nii\.gz holds no region with a voxel among the columns"),
    ]:
        with pytest.raises(InputError, match=message):
            read_rois(write(data, affine), mask)
    with pytest.raises(InputError, match=r"a\.nii\.gz is an image \(5, 6, 7\): give mask="):
        read_rois(write(atlas), n_voxels=100)
    with pytest.raises(InputError, match=r"the mask.* has \d+ voxels, the responses have 3"):
        read_rois(write(atlas), mask, n_voxels=3)
    with pytest.raises(InputError, match="mask is an array of uint8: give booleans"):
        read_rois(write(atlas), np.ones(SHAPE, np.uint8))
    whole = write(np.random.default_rng(0).integers(0, 9, SHAPE).astype(np.int16)).read_bytes()
    (tmp_path / "a.nii.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"a\.nii\.gz cannot be read"):
        read_rois(tmp_path / "a.nii.gz", mask)
    (tmp_path / "a.nii").write_text("no image")
    with pytest.raises(InputError, match=r"a\.nii cannot be read .*: it is damaged"):
        read_rois(tmp_path / "a.nii", mask)
    (tmp_path / "a.label.gii").write_text("<GIFTI")
    with pytest.raises(InputError, match=r"a\.label\.gii cannot be read"):
        read_rois(tmp_path / "a.label.gii", mask)
    axes = (nibabel.cifti2.ScalarAxis(["x"]), nibabel.cifti2.BrainModelAxis.from_mask(np.ones(4, bool), name="cortex_left"))
    nibabel.Cifti2Image(np.ones((1, 4), np.float32), axes).to_filename(tmp_path / "a.dscalar.nii")
    with pytest.raises(InputError, match="is Cifti2Image, not an image in space: .*separate a CIFTI file into GIFTI"):
        read_rois(tmp_path / "a.dscalar.nii", mask)


DAMAGES = [
    ("a.npy", np.ones(11, bool), r"a\.npy has shape \(11,\), but there are 12 voxels"),
    ("a.npy", np.array([3, 12, 40]), "2 of 3 indices lie outside 0 … 11, the first 12"),
    ("a.npy", np.array([3, -1]), "1 of 2 indices lie outside 0 … 11, the first -1"),
    ("a.npy", np.array([0, 0, 1, 1, 1]), r"2 voxels stand there more than once, the first 0: .*labels would need one for each"),
    ("a.npy", np.array(["3"]), "a.npy holds <U1: labels are whole numbers"),
    ("a.npy", "no array", "a.npy is not a NumPy array file"),
    ("a.json", '{"A": [1, 1]}', r"a\.json, region 'A': 1 voxels stand there more than once, the first 1"),
    ("a.json", '{"A": [12]}', r"region 'A': 1 of 1 indices lie outside"),
    ("a.json", '{"A": [0.5]}', r"region 'A' holds float64 of shape \(1,\): give whole numbers"),
    ("a.json", '{"A": [[1], [2, 3]]}', "region 'A' is a list of lists"),
    ("a.json", '{"A": [true, false]}', "region 'A': the mask has 2 entries, but there are 12 voxels"),
    ("a.json", '{"LBelt": [1], "A": ["LBel"]}', r"region 'A' contains 'LBel', which is not defined there: did you mean LBelt\?"),
    ("a.json", '{"A": ["x"]}', "contains 'x', which is not defined there: the regions are A"),
    ("a.json", '{"A": ["B"], "B": ["A"]}', r"region 'A' contains itself \(A > B > A\)"),
    ("a.json", '{"A": []}', "holds no region with a voxel"),
    ("a.json", '{"A": [1, true]}', r"region 'A' holds true or false beside other values"),
    ("a.json", '{"A": [1], "A": [2]}', r"a\.json names 'A' twice"),
    ("a.json", '["A"]', "is not a table of regions"),
    ("a.json", '{"A": 3}', "is not a table of regions"),
    ("a.json", '{"A"', "is not valid JSON"),
    ("a.json", b'{"\xe9": [1]}', "is not UTF-8: see line 1"),
    ("a.txt", "1\n2 x\n", "line 2: 'x' is not the index of a voxel"),
    ("a.txt", "1 -2\n", "line 1: '-2' is not the index"),
    ("a.mgz", b"x", "is of no kind that is read here"),
]


@pytest.mark.parametrize(("name", "content", "message"), DAMAGES)
def test_damaged_lists(tmp_path: Path, name: str, content: str | bytes | np.ndarray, message: str) -> None:
    path = tmp_path / name
    if isinstance(content, np.ndarray):
        np.save(path, content)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message):
        read_rois(path, n_voxels=12)


def test_lists_need_to_know_how_many_voxels_there_are(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("1 2")
    with pytest.raises(InputError, match=r"a\.txt is a list of indices: give mask= or n_voxels="):
        read_rois(tmp_path / "a.txt")
    with pytest.raises(InputError, match="are not all GIFTI"):
        read_rois([tmp_path / "a.txt", tmp_path / "b.txt"], n_voxels=3)
    with pytest.raises(InputError, match="path is an empty sequence"):
        read_rois([], n_voxels=3)
    for name in ("nowhere.npy", "nowhere"):
        with pytest.raises(InputError, match=f"{name} does not exist"):
            read_rois(tmp_path / name, n_voxels=3)
    (tmp_path / "link.nii").symlink_to("gone")
    with pytest.raises(InputError, match="datalad get"):
        read_rois(tmp_path / "link.nii", n_voxels=3)


def test_the_real_mask(shared_data: Path, tmp_path: Path) -> None:
    """530 voxels of a real slice: halves of it as a label image, and a real mean volume there and back."""
    folder = shared_data / "haxby"
    mask = nibabel.load(folder / "mask.nii.gz")
    halves = np.zeros(mask.shape, np.uint8)
    halves[:20], halves[20:] = 1, 2
    path = write_nifti(tmp_path / "halves.nii.gz", halves, mask.affine)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rois = read_rois(path, folder / "mask.nii.gz", n_voxels=530, names={1: "one", 2: "two"})
    bold = nibabel.load(folder / "bold.nii.gz").slicer[..., :20]
    masker = maskers.NiftiMasker(mask, standardize=None).fit()
    responses = masker.transform(bold)
    volumes = bold.get_fdata()
    for name, half in (("one", slice(0, 20)), ("two", slice(20, 40))):
        inside = np.asanyarray(mask.dataobj)[half] > 0
        np.testing.assert_allclose(responses[:, rois[name]], volumes[half][inside].T)
    assert sorted(np.concatenate(list(rois.values())).tolist()) == list(range(530)) and overlaps(rois) == {}
    ours, theirs = to_image(responses, folder / "mask.nii.gz"), masker.inverse_transform(responses)
    np.testing.assert_array_equal(ours.get_fdata(), theirs.get_fdata())
    np.testing.assert_array_equal(ours.affine, theirs.affine)
