"""The limb is inside, and what is no limb is not; no heatmap shows what lies off it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from pipeline.domain import Rendered
from pipeline.heatmap import contours, on_limb, overlay, to_heatmap
from pipeline.preprocess import PreprocessSpec, preprocess
from pipeline.tissue import LOOK_PX, tissue

SAMPLES = Path(__file__).parents[3] / "samples"
SPEC = PreprocessSpec(height_px=384, width_px=384, frame="whole")
KEY, EDGE, LIMB = (60, 60), (590, 60), (300, 250)
"""Places (y, x) in the picture below."""


def plate() -> np.ndarray:
    """(600, 500) grey: a forearm on an uneven ground, a key, and the white edge of a cassette."""
    y, x = np.mgrid[:600, :500]
    ground = 0.10 + 0.02 * y / 600
    picture = Image.fromarray(np.asarray(ground + 0.01 * np.sin(x / 40), np.float32))
    pen = ImageDraw.Draw(picture)
    pen.polygon([(200, 0), (300, 0), (285, 520), (215, 520)], fill=0.3)
    pen.polygon([(235, 0), (265, 0), (260, 500), (240, 500)], fill=0.8)
    for finger in range(4):
        pen.rectangle((208 + 22 * finger, 500, 218 + 22 * finger, 570), fill=0.3)
    pen.ellipse((45, 40, 75, 70), fill=1.0)
    pen.rectangle((55, 70, 64, 110), fill=1.0)
    pen.rectangle((0, 580, 500, 600), fill=1.0)
    return np.asarray(picture)


def at(mask: np.ndarray, place: tuple[int, int]) -> bool:
    return bool(mask[place[0] * mask.shape[0] // 600, place[1] * mask.shape[1] // 500])


def test_a_limb_with_its_fingers_is_tissue_and_key_edge_and_air_are_not():
    mask = tissue(plate())
    assert max(mask.shape) == LOOK_PX
    assert at(mask, LIMB)
    assert all(at(mask, (560, 213 + 22 * finger)) for finger in range(4))
    assert not any(at(mask, place) for place in (KEY, EDGE, (300, 60), (300, 440)))


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
@pytest.mark.parametrize("scale", [0.2, 1.0, 255.0])
def test_turned_and_in_any_unit(turns, scale):
    found = np.rot90(tissue(np.rot90(plate() * np.float32(scale), turns)), -turns)
    assert (found != tissue(plate())).mean() < 0.005  # pixels at the rim


def test_a_faint_limb_beside_a_bright_one_is_tissue():
    picture = plate().copy()
    picture[:500, 400:] = 1.0  # a trunk, or a plaster
    mask = tissue(picture)
    assert at(mask, LIMB)
    assert at(mask, (560, 213))


@pytest.mark.parametrize(
    "picture",
    [np.zeros((50, 40)), np.full((50, 40), 0.7), 1.0 - plate(), np.full((1, 1), 0.3)],
    ids=["black", "blank", "inverted", "one"],
)
def test_where_nothing_is_known_all_is_tissue(picture):
    assert tissue(np.asarray(picture, np.float32)).all()


@given(st.integers(1, 200), st.integers(1, 200), st.integers(0, 2**32 - 1))
def test_any_picture_has_a_mask(height, width, seed):
    mask = tissue(np.random.default_rng(seed).random((height, width), np.float32))
    assert mask.dtype == np.bool_
    assert mask.any()
    assert max(mask.shape) <= LOOK_PX


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("IMG*.jpg")), ids=lambda path: path.stem)
def test_the_bright_middle_of_a_radiograph_is_tissue(path):
    if path.stem == "IMG0004119":
        pytest.skip("this sample is truncated on purpose")
    pixels = np.asarray(Image.open(path).convert("L"), np.float32)
    mask = tissue(pixels)
    shown = np.asarray(Image.fromarray(mask).resize(pixels.shape[::-1]))
    height, width = pixels.shape
    inner = np.zeros(pixels.shape, np.bool_)
    inner[height // 6 : -height // 6, width // 6 : -width // 6] = True
    bones = inner & (pixels > np.percentile(pixels[inner], 85))
    assert shown[bones].mean() > 0.9
    assert mask.mean() < 0.95


# -------------------------------------------------------------------------------- heatmaps


def evidence(**places: float) -> np.ndarray:
    """(12, 12), with a value in the cell of each place."""
    cells = np.full((12, 12), -0.1, np.float32)
    _, placement = preprocess(plate(), SPEC)
    for name, value in places.items():
        y, x = placement.to_canvas(*{"key": KEY, "edge": EDGE, "limb": LIMB}[name])
        cells[int(y // 32), int(x // 32)] = value
    return cells


def heatmap(cells: np.ndarray, limb: np.ndarray | None):
    _, placement = preprocess(plate(), SPEC)
    return to_heatmap(cells, SPEC, placement, limb)


def test_what_lies_off_the_limb_is_not_drawn_and_its_share_is_told():
    cells = evidence(key=3.0, edge=2.0, limb=1.0)
    everything, shown = heatmap(cells, None), heatmap(cells, tissue(plate()))
    assert (everything.cells > 0).sum() == 3
    assert everything.hidden == 0.0
    assert shown.hidden == pytest.approx(5.0 / 6.0)
    assert (shown.cells > 0).sum() == 1
    assert shown.cells.max() == 1.0  # a share of the strongest place on the limb
    (line,) = contours(shown, 0.5)
    assert np.linalg.norm(line.mean(0) - LIMB) < 50  # a cell


def test_where_all_lies_off_the_limb_the_overlay_is_the_picture():
    shown = heatmap(evidence(key=3.0), tissue(plate()))
    assert (shown.hidden, shown.cells.max()) == (1.0, 0.0)
    grey = np.rint(plate() * 255).astype(np.uint8)
    drawn = np.asarray(overlay(Rendered(grey), shown, 0.5, 0.6))
    np.testing.assert_array_equal(drawn, np.repeat(grey[..., None], 3, 2))


def test_a_cell_at_the_skin_is_on_the_limb():
    limb = np.zeros((96, 80), np.bool_)
    limb[:, :40] = True
    _, placement = preprocess(np.zeros((384, 320), np.float32), SPEC)
    cells = on_limb(limb, (12, 12), (384, 384), placement)
    # The picture begins a cell from the left edge of the canvas; its limb ends in its middle.
    assert cells[:, 1:6].all()
    assert not cells[:, 0].any()
    assert not cells[:, 6:].any()
    limb[:, 40:42] = True  # an eighth of the next cell is 4 of 32 px
    assert on_limb(limb, (12, 12), (384, 384), placement)[:, 6].all()
