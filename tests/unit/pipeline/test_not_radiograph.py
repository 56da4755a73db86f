"""Detection of photographs, scans and screenshots of radiographs."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from factories import dicom, dicom_file
from not_radiographs import photographed_film, photographed_screen, scanned_print, screenshot
from PIL import Image

from pipeline.flags import quality
from pipeline.io import decode
from pipeline.not_radiograph import MOST_BEAT, MOST_GREY, beat, constant, signs

pytestmark = pytest.mark.slow

SAMPLES = Path(__file__).parents[3] / "samples"
NAMES = ("IMG0000049", "IMG0000336", "IMG0000346", "IMG0000511", "IMG0001938", "IMG0002503")


def sample(name: str) -> np.ndarray:
    return np.asarray(Image.open(SAMPLES / f"{name}.jpg").convert("L"))


def flags(image: Image.Image | np.ndarray, file_format: str = "JPEG", **options: object):
    """Flags of a picture after it was saved and read again: reason by name."""
    file = BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(file, file_format, **options)
    (read,) = decode(file.getvalue(), Path("x"), "")
    return {flag.name: flag.reason for flag in quality(read.pixels, read.colour)}


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("IMG*.jpg")), ids=lambda path: path.stem)
def test_radiograph_is_not_flagged(path):
    if path.stem == "IMG0004119":
        pytest.skip("this sample is truncated on purpose")
    picture = np.asarray(Image.open(path).convert("L"))
    for pixels in (picture, np.repeat(picture[..., None], 3, 2)):  # grey, and RGB of equal channels
        assert not {"not-a-radiograph", "grey-block"} & set(flags(pixels))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("made", "sign"),
    [
        (photographed_film, "colour"),
        (scanned_print, "colour"),
        (photographed_screen, "raster of a screen"),
        (screenshot, "frames of windows"),
        (screenshot, "text"),
        (lambda picture: screenshot(picture, dark=False), "frames of windows"),
    ],
)
def test_photograph_scan_and_screenshot_are_flagged(
    name: str, made: Callable[[np.ndarray], Image.Image], sign: str
):
    image = made(sample(name))
    reasons = flags(image, quality=85)
    assert sign in reasons["not-a-radiograph"]
    if sign != "colour":  # film and print are recognised by colour only
        assert sign in flags(image.convert("L"), quality=85)["not-a-radiograph"]


def test_screenshot_of_a_viewer_with_bars_at_the_top_only():
    picture = np.zeros((700, 900), np.uint8)
    hand = sample("IMG0000049")
    picture[200:600, 250:650] = hand[:400, :400]
    for top, grey in ((0, 60), (40, 90), (80, 70)):
        picture[top : top + 30] = grey
    assert "frames" in flags(picture)["not-a-radiograph"]


def test_photograph_in_a_secondary_capture():
    photo = photographed_film(sample("IMG0000049"))
    content = dicom_file(dicom(np.asarray(photo), Modality="OT"))
    (read,) = decode(content, Path("x.dcm"), "")
    assert read.colour > 0.5
    assert "colour" in next(signs(read.pixels, read.colour))
    grey = np.repeat(sample("IMG0000049")[..., None], 3, 2)
    (read,) = decode(dicom_file(dicom(grey, Modality="OT")), Path("x.dcm"), "")
    assert read.colour == 0.0


def test_labels_of_part_and_side_do_not_count_as_text():
    assert "not-a-radiograph" not in flags(sample("IMG0000844"))


@pytest.mark.parametrize("share", [0.0, 0.04, 0.06, 0.2, 0.6])
@pytest.mark.parametrize("level", [100, 128, 200])
def test_constant_grey_part_is_flagged(share, level):
    picture = sample("IMG0000511").copy()
    rows = round(share * len(picture))
    if rows:
        picture[-rows:] = level
    reasons = flags(picture, "PNG")
    assert ("grey-block" in reasons) == (share > MOST_GREY)
    if share > MOST_GREY:
        constant_share = constant((picture / 255).astype(np.float32))
        assert constant_share == pytest.approx(share, abs=0.02)
        assert f"{constant_share:.0%} of it is one constant grey" in reasons["grey-block"]


def test_constant_air_and_constant_white_are_not_flagged():
    picture = np.full((400, 400), 40, np.uint8)
    picture[:60] = 231
    picture[100:300, 150:250] = np.random.default_rng(0).integers(60, 200, (200, 100))
    assert "grey-block" not in flags(picture, "PNG")


@pytest.mark.parametrize("size", [(600, 600), (1200, 800), (500, 373)])
def test_constant_part_has_no_beat(size):
    picture = np.full(size, 140, np.uint8)
    picture[: size[0] // 3] = np.random.default_rng(0).integers(0, 256, (size[0] // 3, size[1]))
    with warnings.catch_warnings(action="error"):
        assert beat(picture) < MOST_BEAT
        assert beat(np.full(size, 9, np.uint8)) == 0.0


def test_tiny_pictures_have_no_signs():
    assert list(signs(np.zeros((1, 1), np.float32), 0.0)) == []
    assert constant(np.full((3, 900), 0.5, np.float32)) == 0.0
