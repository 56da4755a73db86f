"""Heatmaps: cells, contours and overlays, and their position in the source."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain import Heatmap, Placement, Rendered
from pipeline.heatmap import coloured, contours, on_picture, overlay, peak, to_heatmap
from pipeline.preprocess import Fit, PreprocessSpec, preprocess
from pipeline.render import MOST_PX, render

CANVAS = PreprocessSpec(frame="whole", height_px=64, width_px=64)


def spotted(height_px: int, width_px: int, top: int, left: int, fit: Fit = Fit.PAD) -> Heatmap:
    """Heatmap of a network that detects brightness, for a dark picture with one bright spot."""
    spec = PreprocessSpec(
        frame="whole", height_px=64, width_px=64, fit=fit, clip_percent=(0.0, 100.0)
    )
    pixels = np.zeros((height_px, width_px), np.float32)
    pixels[top : top + height_px // 10, left : left + width_px // 10] = 1.0
    array, placement = preprocess(pixels, spec)
    evidence = array[0].reshape(16, 4, 16, 4).mean((1, 3)) - np.float32(0.01)
    return to_heatmap(evidence, spec, placement)


def test_cells_are_relative_to_the_peak_and_not_negative():
    evidence = np.array([[4.0, -3.0], [1.0, 0.0]], np.float32)
    heatmap = to_heatmap(evidence, CANVAS, Placement(1.0, 1.0, 0, 0, (64, 64)))
    assert heatmap.cells.tolist() == [[1.0, 0.0], [0.25, 0.0]]
    assert heatmap.canvas_px == (64, 64)


def test_heatmap_without_positive_evidence_is_empty():
    heatmap = to_heatmap(
        np.full((3, 3), -2.0, np.float32), CANVAS, Placement(1.0, 1.0, 0, 0, (64, 64))
    )
    assert not heatmap.cells.any()
    assert contours(heatmap, 0.5) == []
    assert not on_picture(heatmap, 64, 64).any()


@pytest.mark.parametrize("fit", list(Fit))
@pytest.mark.parametrize(("height_px", "width_px"), [(100, 50), (50, 100), (640, 640), (33, 90)])
def test_spot_maps_to_its_position_in_the_source(fit, height_px, width_px):
    top, left = int(0.45 * height_px), int(0.4 * width_px)
    heatmap = spotted(height_px, width_px, top, left, fit)
    (y, x), (cell_y, cell_x) = peak(heatmap.cells, heatmap.canvas_px, heatmap.placement)
    assert top - cell_y <= y <= top + height_px / 10 + cell_y
    assert left - cell_x <= x <= left + width_px / 10 + cell_x

    drawn = on_picture(heatmap, height_px, width_px)
    assert drawn.shape == (height_px, width_px)
    row, column = np.unravel_index(drawn.argmax(), drawn.shape)
    assert abs(row - y) <= cell_y
    assert abs(column - x) <= cell_x

    (line,) = contours(heatmap, 0.5)
    assert np.array_equal(line[0], line[-1])
    assert line[:, 0].min() < y < line[:, 0].max()
    assert line[:, 1].min() < x < line[:, 1].max()


def test_peak_in_the_padding_is_outside_the_picture():
    placement = Placement(0.64, 0.64, 0, 16, (100, 50))
    cells = np.zeros((4, 4), np.float32)
    cells[0, 0] = 1
    centre, cell = peak(cells, (64, 64), placement)
    assert centre == pytest.approx((8 / 0.64, (8 - 16) / 0.64))
    assert cell == pytest.approx((25.0, 25.0))


def test_cropped_parts_are_not_coloured():
    """The two ends of a wide picture that is cropped are outside the canvas."""
    pixels = np.ones((50, 200), np.float32)
    _, placement = preprocess(
        pixels, PreprocessSpec(frame="whole", height_px=64, width_px=64, fit=Fit.CROP)
    )
    heatmap = to_heatmap(np.ones((4, 4), np.float32), CANVAS, placement)
    drawn = on_picture(heatmap, 50, 200)
    assert not drawn[:, :74].any()
    assert not drawn[:, 126:].any()
    assert (drawn[:, 76:124] == 1.0).all()


@given(
    st.integers(10, 90),
    st.integers(10, 90),
    st.sampled_from(list(Fit)),
    st.floats(0.05, 0.95),
    st.integers(0, 2**32 - 1),
)
def test_contours_are_closed_and_inside_the_picture(height_px, width_px, fit, level, seed):
    spec = PreprocessSpec(frame="whole", height_px=32, width_px=48, fit=fit)
    _, placement = preprocess(np.zeros((height_px, width_px), np.float32), spec)
    evidence = np.random.default_rng(seed).normal(size=(4, 6)).astype(np.float32)
    heatmap = to_heatmap(evidence, spec, placement)
    for line in contours(heatmap, level):
        assert np.array_equal(line[0], line[-1])
        assert (line >= 0.0).all()
        assert (line <= (height_px, width_px)).all()
    drawn = on_picture(heatmap, height_px, width_px)
    assert drawn.min() >= 0.0
    assert drawn.max() <= 1.0


def test_colours_increase_in_luminance_and_opacity():
    ramp = np.linspace(0.0, 1.0, 256, dtype=np.float32)[None]
    colours = coloured(ramp, 0.5)[0].astype(np.float64)
    luminance = colours[:, :3] @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) >= -1.0).all()  # rounding to 8 bits
    assert luminance[-1] - luminance[0] > 200
    assert (np.diff(colours[:, 3]) >= 0).all()
    assert (colours[0, 3], colours[-1, 3]) == (0, 128)


def test_overlay_changes_the_picture_only_where_there_is_evidence():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (200, 120)).astype(np.uint8)
    heatmap = spotted(200, 120, 90, 50)
    plain = np.asarray(overlay(Rendered(pixels), heatmap, 0.5, 0.6))
    assert plain.shape == (200, 120, 3)
    no_evidence = on_picture(heatmap, 200, 120) == 0.0
    assert no_evidence.mean() > 0.5
    assert (plain[no_evidence] == pixels[no_evidence][:, None]).all()
    assert (plain != pixels[..., None]).any()

    captioned = np.asarray(overlay(Rendered(pixels), heatmap, 0.5, 0.6, "hand fracture: positive"))
    assert captioned.shape[0] > 200
    assert (captioned[:200] == plain).all()
    assert captioned[200:].any()  # the caption


def test_very_large_picture_and_its_contour_are_halved_for_reports():
    pixels = np.zeros((4000, 2400), np.float32)
    pixels[:, 1200:] = 1.0
    rendered = render(pixels)
    assert (rendered.reduction, rendered.pixels.shape) == (2, (2000, 1200))
    assert (rendered.pixels[:, :600] == 0).all()
    assert (rendered.pixels[:, 600:] == 255).all()
    drawn = np.asarray(overlay(rendered, spotted(4000, 2400, 1800, 1000), 0.5, 0.0))
    line = np.argwhere((drawn == (0, 230, 230)).all(axis=2))
    assert 1600 / 2 < line[:, 0].min() < line[:, 0].max() < 2400 / 2
    assert 800 / 2 < line[:, 1].min() < line[:, 1].max() < 1440 / 2
    assert max(render(np.zeros((1, MOST_PX), np.float32)).pixels.shape) == MOST_PX
