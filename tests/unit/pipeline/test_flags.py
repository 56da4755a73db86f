"""Flags: each is raised for its fault, and none on ordinary radiographs."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.domain import REGIONS
from pipeline.flags import NAMES, quality, reconcile
from pipeline.io.body_parts import BODY_PARTS, VIEWS, body_part
from pipeline.io.dicom_terms import WORDS, known

SAMPLES = Path(__file__).parents[3] / "samples"
SINGLE = ("IMG0000049", "IMG0000336", "IMG0000346", "IMG0000511", "IMG0000844", "IMG0001938")
DIVIDED = ("IMG0000270", "IMG0000282", "IMG0002287")


def sample(name: str) -> np.ndarray:
    return np.asarray(Image.open(SAMPLES / f"{name}.jpg").convert("L"), np.float32) / 255


def names(pixels: np.ndarray) -> set[str]:
    return {flag.name for flag in quality(np.asarray(pixels, np.float32))}


@pytest.mark.parametrize("name", SINGLE)
def test_ordinary_radiograph_has_no_flag(name):
    assert names(sample(name)) == set()


@pytest.mark.parametrize("name", SINGLE)
def test_inverted_radiograph(name):
    assert "inverted" in names(1.0 - sample(name))


@pytest.mark.parametrize("name", SINGLE)
def test_too_few_pixels(name):
    small = Image.fromarray(sample(name))
    small.thumbnail((199, 199))
    assert names(np.asarray(small)) == {"too-small"}


@pytest.mark.parametrize("name", SINGLE)
def test_small_field_on_a_large_black_plate(name):
    pixels = sample(name)
    height, width = pixels.shape
    plate = np.zeros((3 * height, 3 * width), np.float32)
    plate[height : 2 * height, width : 2 * width] = pixels
    assert "mostly-collimation" in names(plate)


@pytest.mark.parametrize("level", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("noise", [0.0, 0.05, 0.2])
def test_noise_without_a_picture_is_blank(level, noise):
    grey = np.random.default_rng(0).normal(level, noise, (500, 400))
    assert names(np.clip(grey, 0.0, 1.0)) == {"blank"}


@pytest.mark.parametrize("name", DIVIDED)
@pytest.mark.parametrize("turns", [0, 1])
def test_several_exposures_side_by_side_or_stacked(name, turns):
    assert names(np.rot90(sample(name), turns)) == {"several-exposures"}


def test_two_pictures_joined_side_by_side():
    left, right = sample("IMG0001360"), sample("IMG0001938")
    height = min(len(left), len(right))
    gap = np.zeros((height, 6), np.float32)
    both = np.concatenate([left[:height], gap, right[:height]], axis=1)
    assert names(both) == {"several-exposures"}


def test_reason_gives_the_actual_and_the_expected_value():
    (flag,) = quality(np.asarray(Image.fromarray(sample("IMG0000049")).resize((100, 120))))
    assert flag.name == "too-small"
    assert flag.reason == (
        "Few pixels: 100 x 120, and fine detail needs 200 or more on the shorter side"
    )


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 2**32 - 1), st.booleans())
def test_quality_accepts_any_picture(height, width, seed, flat):
    pixels = np.random.default_rng(seed).random((height, width), np.float32)
    assert names(pixels.round() * 0 if flat else pixels) <= set(NAMES)


@pytest.mark.parametrize(
    ("part", "fired", "differs"),
    [
        ("HAND", ("hand",), False),
        ("WRIST", ("hand",), False),
        ("HAND", ("elbow", "hand"), False),
        ("HAND", ("elbow",), True),
        ("HAND", (), True),
        ("FOREARM", ("elbow",), False),
        ("UPPERARM", ("hand",), True),
        ("LEFT HAND PA", ("shoulder",), True),
        ("ELBOW_LEFT", ("elbow",), False),
        ("KNEE", (), False),
        ("KNEE", ("elbow",), True),
        ("THORACIC SPINE", ("shoulder",), True),
        ("LOWERLIMB", (), False),
        ("CLAVICLE", ("shoulder",), False),
        ("EXTREMITY", ("hand",), False),
        ("QXYZ", (), False),
        ("", ("hand",), False),
        ("HAND", None, False),
    ],
)
def test_header_is_compared_with_the_router(part, fired, differs):
    flags = reconcile({"BodyPartExamined": part} if part else {}, fired)
    assert [flag.name for flag in flags] == ["body-part-differs"] * differs
    assert all(part in flag.reason for flag in flags)


def test_no_flag_without_a_header():
    assert reconcile(None, ("hand",)) == ()


def test_every_region_has_a_header_term():
    for region in REGIONS:
        assert BODY_PARTS[region.upper()] == ((region,), ())


def test_every_term_of_the_tables_is_read_from_the_header():
    assert set(BODY_PARTS) <= WORDS["BodyPartExamined"]
    assert set(VIEWS) <= WORDS["ViewPosition"]
    assert known("BodyPartExamined", "Thoracic Spine") == "THORACIC SPINE"
    assert known("BodyPartExamined", "Hand^Jane") is None


@pytest.mark.parametrize(
    ("part", "view", "named", "regions", "elsewhere"),
    [
        ("LEFT_HAND", "PA", {"hand"}, {"hand"}, False),
        ("FOREARM", "", set(), {"hand", "elbow"}, False),
        ("FOREARM WRIST", "AP", {"hand"}, {"hand", "elbow"}, False),
        ("", "SCAPHOID", {"hand"}, {"hand"}, False),
        ("", "AXILLARY", {"shoulder"}, {"shoulder"}, False),
        ("EXTREMITY", "MORTISE", set(), set(), True),
        ("HAND", "MORTISE", {"hand"}, {"hand"}, True),
        ("CHEST", "LATERAL", set(), set(), True),
        ("QXYZ", "AXIAL", set(), set(), False),
    ],
)
def test_body_part_of_a_header(part, view, named, regions, elsewhere):
    actual = body_part({"BodyPartExamined": part, "ViewPosition": view})
    assert (actual.named, actual.regions, actual.elsewhere) == (named, regions, elsewhere)
    assert bool(actual.said) == bool(regions or elsewhere)


@pytest.mark.parametrize(
    ("part", "named", "regions", "elsewhere"),
    [
        ("HAND", {"hand"}, {"hand"}, False),
        ("SHOULDER", set(), set(), True),
        ("CLAVICLE", set(), set(), True),
        ("HUMERUS", set(), {"elbow"}, False),
        ("HAND SHOULDER", {"hand"}, {"hand"}, True),
    ],
)
def test_region_unknown_to_the_router_is_elsewhere(part, named, regions, elsewhere):
    actual = body_part({"BodyPartExamined": part}, ("elbow", "hand"))
    assert (actual.named, actual.regions, actual.elsewhere) == (named, regions, elsewhere)


def test_header_with_a_region_unknown_to_the_router_matches_a_refusal():
    header = {"BodyPartExamined": "SHOULDER"}
    assert reconcile(header, (), ("elbow", "hand")) == ()
    assert [flag.name for flag in reconcile(header, (), REGIONS)] == ["body-part-differs"]


def test_terms_are_quoted_as_in_the_header():
    header = {"BodyPartExamined": "LEFT_FOOT", "ViewPosition": "MORTISE"}
    assert body_part(header).said == "LEFT_FOOT, MORTISE"
    (flag,) = reconcile(header, ("hand",))
    assert flag.reason.endswith("another body part: LEFT_FOOT, MORTISE, found hand")
