"""The tissue mask, and heatmaps that are limited to the limb."""

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
"""Places (y, x) in px in the picture of :func:`plate`."""


def plate() -> np.ndarray:
    """(600, 500) float32: a forearm on an uneven background, a key, a white cassette edge."""
    y, x = np.mgrid[:600, :500]
    background = 0.10 + 0.02 * y / 600
    picture = Image.fromarray(np.asarray(background + 0.01 * np.sin(x / 40), np.float32))
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


def test_mask_contains_limb_and_fingers_but_not_key_edge_and_air():
    mask = tissue(plate())
    assert max(mask.shape) == LOOK_PX
    assert at(mask, LIMB)
    assert all(at(mask, (560, 213 + 22 * finger)) for finger in range(4))
    assert not any(at(mask, place) for place in (KEY, EDGE, (300, 60), (300, 440)))


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
@pytest.mark.parametrize("scale", [0.2, 1.0, 255.0])
def test_mask_does_not_depend_on_rotation_and_unit(turns, scale):
    mask = np.rot90(tissue(np.rot90(plate() * np.float32(scale), turns)), -turns)
    assert (mask != tissue(plate())).mean() < 0.005  # pixels at the edge


def test_mask_contains_a_faint_limb_next_to_a_bright_one():
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
def test_mask_is_full_if_no_limb_is_found(picture):
    assert tissue(np.asarray(picture, np.float32)).all()


@given(st.integers(1, 200), st.integers(1, 200), st.integers(0, 2**32 - 1))
def test_mask_of_any_picture(height, width, seed):
    mask = tissue(np.random.default_rng(seed).random((height, width), np.float32))
    assert mask.dtype == np.bool_
    assert mask.any()
    assert max(mask.shape) <= LOOK_PX


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("IMG*.jpg")), ids=lambda path: path.stem)
def test_mask_contains_the_bright_centre_of_a_radiograph(path):
    if path.stem == "IMG0004119":
        pytest.skip("this sample is truncated on purpose")
    pixels = np.asarray(Image.open(path).convert("L"), np.float32)
    mask = tissue(pixels)
    resized = np.asarray(Image.fromarray(mask).resize(pixels.shape[::-1]))
    height, width = pixels.shape
    inner = np.zeros(pixels.shape, np.bool_)
    inner[height // 6 : -height // 6, width // 6 : -width // 6] = True
    bones = inner & (pixels > np.percentile(pixels[inner], 85))
    assert resized[bones].mean() > 0.9
    assert mask.mean() < 0.95


# -------------------------------------------------------------------------------- heatmaps


def evidence(**places: float) -> np.ndarray:
    """(12, 12) float32, with the given value in the cell of each place."""
    cells = np.full((12, 12), -0.1, np.float32)
    _, placement = preprocess(plate(), SPEC)
    for name, value in places.items():
        y, x = placement.to_canvas(*{"key": KEY, "edge": EDGE, "limb": LIMB}[name])
        cells[int(y // 32), int(x // 32)] = value
    return cells


def heatmap(cells: np.ndarray, limb: np.ndarray | None):
    _, placement = preprocess(plate(), SPEC)
    return to_heatmap(cells, SPEC, placement, limb)


def test_evidence_outside_the_limb_is_not_drawn_but_counted():
    cells = evidence(key=3.0, edge=2.0, limb=1.0)
    unlimited, limited = heatmap(cells, None), heatmap(cells, tissue(plate()))
    assert (unlimited.cells > 0).sum() == 3
    assert unlimited.hidden == 0.0
    assert limited.hidden == pytest.approx(5.0 / 6.0)
    assert (limited.cells > 0).sum() == 1
    assert limited.cells.max() == 1.0  # relative to the maximum on the limb
    (line,) = contours(limited, 0.5)
    assert np.linalg.norm(line.mean(0) - LIMB) < 50  # px, about one cell


def test_overlay_equals_the_picture_if_all_evidence_is_outside_the_limb():
    limited = heatmap(evidence(key=3.0), tissue(plate()))
    assert (limited.hidden, limited.cells.max()) == (1.0, 0.0)
    grey = np.rint(plate() * 255).astype(np.uint8)
    drawn = np.asarray(overlay(Rendered(grey), limited, 0.5, 0.6))
    np.testing.assert_array_equal(drawn, np.repeat(grey[..., None], 3, 2))


def test_cell_at_the_edge_of_the_limb_is_kept():
    limb = np.zeros((96, 80), np.bool_)
    limb[:, :40] = True
    _, placement = preprocess(np.zeros((384, 320), np.float32), SPEC)
    cells = on_limb(limb, (12, 12), (384, 384), placement)
    # The picture starts one cell from the left edge of the canvas; the limb ends at its centre.
    assert cells[:, 1:6].all()
    assert not cells[:, 0].any()
    assert not cells[:, 6:].any()
    limb[:, 40:42] = True  # covers 4 of the 32 px of the next cell
    assert on_limb(limb, (12, 12), (384, 384), placement)[:, 6].all()
