"""Fingerprints and searches for near duplicates: rotated, mirrored, rescaled, recompressed."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.io import decode, read_file
from stages.data.near_duplicates import (
    SYMMETRIES,
    TWIN_LIKENESS,
    candidates,
    describe,
    fingerprint,
    nearest,
    squash,
    turn,
    verify,
)
from stages.data.rotated_duplicates import amplitudes, describe_rings, tilt_candidates, verify_tilt

FOLDER = Path(__file__).parents[4] / "samples"
TRUNCATED = "IMG0004119.jpg"
SAMPLES = sorted(path for path in FOLDER.glob("*.jpg") if path.name != TRUNCATED)


def pixels_of(path):
    content, digest = read_file(path)
    return next(iter(decode(content, path, digest))).pixels


def stored(image, quality):
    """(H, W) float32 in [0, 1] of an image after JPEG compression."""
    file = BytesIO()
    image.save(file, format="JPEG", quality=quality)
    return np.asarray(Image.open(file), np.float32) / np.float32(255)


@pytest.fixture(scope="module")
def arrays():
    return [pixels_of(path) for path in SAMPLES]


@pytest.fixture(scope="module")
def radiographs(arrays):
    return [Image.fromarray((pixels * 255).round().astype(np.uint8)) for pixels in arrays]


def transformed(pixels, symmetry):
    """Pixels after a symmetry: 0 to 3 quarter turns, from 4 on of the mirrored picture."""
    if symmetry >= 4:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(np.rot90(pixels, symmetry % 4))


def matches(arrays):
    """Pairs that the square comparison finds among pictures of one split."""
    looks = [describe(squash(pixels)) for pixels in arrays]
    prints = np.stack([coarse for coarse, _ in looks])
    details = np.stack([detail for _, detail in looks])
    return verify(*candidates(prints, ["one"] * len(arrays), 8), prints, details)


def tilted_matches(arrays):
    """Pairs that the comparison at any angle finds among pictures of one split."""
    rings = np.stack([describe_rings(squash(pixels), pixels.shape) for pixels in arrays])
    prints = np.stack([amplitudes(picture) for picture in rings])
    return verify_tilt(*tilt_candidates(prints, ["one"] * len(arrays), 4), rings)


def test_fingerprint_has_norm_1_and_mean_0(arrays):
    for pixels in arrays:
        coarse = fingerprint(pixels)
        assert coarse.shape == (256,)
        assert coarse.dtype == np.float32
        assert np.linalg.norm(coarse) == pytest.approx(1, abs=1e-5)
        assert coarse.mean() == pytest.approx(0, abs=1e-6)


def test_picture_of_one_grey_value_matches_nothing():
    flat = [np.full((40, 50), grey, np.float32) for grey in (0.0, 0.5, 0.7)]
    assert not fingerprint(flat[1]).any()
    assert matches(flat) == []
    assert tilted_matches(flat) == []


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**31), st.integers(1, 200), st.integers(1, 200), st.integers(0, SYMMETRIES - 1)
)
def test_nearest_is_found_in_every_orientation(seed, height, width, symmetry):
    random = np.random.default_rng(seed)
    pixels = random.random((height, width), np.float32)
    others = [fingerprint(random.random((60, 60), np.float32)) for _ in range(5)]
    references = np.stack([*others, fingerprint(pixels)])
    rows, cosines = nearest(fingerprint(transformed(pixels, symmetry))[None], references)
    if references[-1].any():
        assert rows.tolist() == [5]
        assert cosines[0] == pytest.approx(1, abs=1e-3)


def test_rotated_picture_has_the_rotated_fingerprint(arrays):
    for symmetry in range(SYMMETRIES):
        moved = fingerprint(transformed(arrays[0], symmetry))
        assert turn(fingerprint(arrays[0])[None], symmetry)[0] == pytest.approx(moved, abs=1e-4)


def test_nearest_does_not_depend_on_the_block_size(monkeypatch):
    random = np.random.default_rng(3)
    queries, references = (random.normal(size=(n, 256)).astype(np.float32) for n in (37, 53))
    rows, cosines = nearest(queries, references)
    monkeypatch.setattr("stages.data.near_duplicates.ROWS", 10)
    monkeypatch.setattr("stages.data.near_duplicates.COLUMNS", 7)
    in_blocks = nearest(queries, references)
    assert in_blocks[0].tolist() == rows.tolist()
    assert in_blocks[1] == pytest.approx(cosines)


def test_nearest_without_references_is_refused():
    with pytest.raises(ValueError, match="no reference"):
        nearest(np.zeros((1, 256), np.float32), np.zeros((0, 256), np.float32))


@pytest.mark.parametrize("symmetry", range(SYMMETRIES))
@pytest.mark.parametrize(("scale", "quality"), [(1.0, 95), (1.0, 40), (0.5, 90), (0.5, 40)])
def test_rotated_rescaled_and_recompressed_copies_are_found(radiographs, symmetry, scale, quality):
    image = radiographs[0]
    small = image.resize((round(image.width * scale), round(image.height * scale)))
    copy = transformed(stored(small, quality), symmetry)
    (match,) = matches([np.asarray(image, np.float32) / 255, copy])
    assert (match.first, match.second) == (0, 1)
    assert match.likeness > 0.95
    assert match.mirrored == (symmetry >= 4)
    assert match.degrees == 90 * (symmetry % 4)


def test_small_recompressed_mirror_image_of_every_sample_is_found(radiographs, arrays):
    copies = [stored(image.resize((200, 180)), 40)[:, ::-1].copy() for image in radiographs]
    pairs = {(match.first, match.second) for match in matches([*arrays, *copies])}
    assert pairs == {(i, i + len(arrays)) for i in range(len(arrays))}


def test_copy_with_other_brightness_and_contrast_is_found(arrays):
    (match,) = matches([arrays[1], (0.2 + 0.6 * arrays[1]).astype(np.float32)])
    assert match.likeness > 0.99
    assert match.how == ""


def test_distinct_radiographs_do_not_match(arrays):
    assert matches(arrays) == []
    assert tilted_matches(arrays) == []


def test_details_of_distinct_radiographs_differ_without_the_candidate_search(arrays):
    looks = [describe(squash(pixels)) for pixels in arrays]
    for i, (_, one) in enumerate(looks):
        for _, other in looks[:i]:
            moved = np.stack([turn(one[None], symmetry)[0] for symmetry in range(SYMMETRIES)])
            assert (moved @ other.astype(np.float32)).max() < TWIN_LIKENESS / 2


@pytest.mark.parametrize("degrees", [3, 17, 45, 200, 333])
@pytest.mark.parametrize("mirrored", [False, True])
def test_copy_rotated_by_any_angle_is_found_with_its_angle(radiographs, degrees, mirrored):
    image = radiographs[2]
    moved = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else image
    moved = moved.rotate(degrees, Image.Resampling.BILINEAR)
    (match,) = tilted_matches([np.asarray(image, np.float32) / 255, stored(moved, 70)])
    assert match.likeness > 0.94
    assert match.mirrored == mirrored
    assert match.degrees == pytest.approx(degrees, abs=1.5)
    assert match.how == ("mirrored, " if mirrored else "") + f"turned by {match.degrees:.0f}°"


def test_every_sample_rotated_twice_is_found(radiographs, arrays):
    copies = [
        stored(image.rotate(20 + 3 * i, Image.Resampling.BILINEAR).rotate(-35), 75)
        for i, image in enumerate(radiographs)
    ]
    pairs = {(match.first, match.second) for match in tilted_matches([*arrays, *copies])}
    assert pairs == {(i, i + len(arrays)) for i in range(len(arrays))}


def test_copies_in_the_same_split_do_not_hide_one_in_another_split(arrays):
    prints = np.stack([fingerprint(arrays[0])] * 12)
    first, second = candidates(prints, ["train"] * 11 + ["test"], 2)
    assert {int(i) for i in first[second == 11]} >= {0, 1}
    rings = describe_rings(squash(arrays[0]), arrays[0].shape)
    first, second = tilt_candidates(
        np.stack([amplitudes(rings)] * 12), ["train"] * 11 + ["test"], 2
    )
    assert 11 in second


def test_common_bright_edge_is_not_a_match():
    pictures = []
    for seed in range(6):
        pixels = np.random.default_rng(seed).normal(0.15, 0.03, (90, 90))
        pixels[:, 30:45] += 0.6
        pictures.append(np.clip(pixels, 0, 1).astype(np.float32))
    assert matches(pictures) == []
    assert tilted_matches(pictures) == []


@pytest.mark.parametrize(("degrees", "expand"), [(30, True), (45, True), (15, False)])
def test_distinct_radiographs_rotated_by_the_same_angle_do_not_match(radiographs, degrees, expand):
    rotated = [
        np.asarray(
            image.resize((300, 300)).rotate(degrees, Image.Resampling.BILINEAR, expand=expand),
            np.float32,
        )
        / 255
        for image in radiographs
    ]
    assert matches(rotated) == []
    assert tilted_matches(rotated) == []
