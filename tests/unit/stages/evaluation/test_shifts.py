"""The suite of shifts: the effect of each on a picture and on the marked fractures."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
from factories import bone, raster
from PIL import Image
from tables import sample

from pipeline.errors import OutputError
from stages.evaluation import shifts
from stages.evaluation.shift_sheet import draw_contact_sheet
from stages.evaluation.shifts import HOME, SHIFTS, SUITE, SUITE_VERSION, shifted

ROOT = Path(__file__).parents[4]
DIGEST, OTHER = "a" * 64, "b" * 64
MOVED = ("tight-crop", "wide-plate", "rotate-90", "200-px", "paper", "monitor")
DRAWN = ("wide-plate", "collimation", "low-contrast", "paper", "monitor")
"""Shifts that are randomised by the digest."""


def limb(height_px=227, width_px=187):
    """A picture, and the box of a bright spot in it."""
    pixels = 0.6 * bone(height_px, width_px)
    x0, y0, x1, y1 = 60, 90, 80, 120
    pixels[y0:y1, x0:x1] = 1.0
    return pixels, ((x0 / width_px, y0 / height_px, x1 / width_px, y1 / height_px),)


def inside_of(pixels, box):
    """The pixels in a box."""
    height, width = pixels.shape
    x0, y0, x1, y1 = (round(v * n) for v, n in zip(box, (width, height) * 2, strict=True))
    return pixels[y0:y1, x0:x1]


def test_names_of_the_suite():
    assert list(SUITE) == [
        "none", "tight-crop", "wide-plate", "rotate-90", "collimation", "inversion",
        "low-contrast", "blur", "jpeg-20", "200-px", "paper", "monitor",
    ]  # fmt: skip
    assert (HOME, *SHIFTS) == tuple(SUITE)


@pytest.mark.parametrize("name", SUITE)
@pytest.mark.parametrize("shape", [(227, 187), (64, 300), (7, 5), (1, 1)])
def test_every_shift_gives_pixels_from_0_to_1_and_boxes_within_the_picture(name, shape):
    pixels = bone(*shape)
    before = pixels.copy()
    boxes = ((0.1, 0.2, 0.4, 0.9), (0.0, 0.0, 1.0, 1.0))
    changed, moved = shifted(name, pixels, boxes, DIGEST)
    assert changed.dtype == np.float32
    assert changed.ndim == 2
    assert changed.flags["C_CONTIGUOUS"]
    assert 0 <= changed.min() <= changed.max() <= 1
    assert np.array_equal(pixels, before)
    assert len(moved) == 2
    for x0, y0, x1, y1 in moved:
        assert 0 <= x0 < x1 <= 1
        assert 0 <= y0 < y1 <= 1


@pytest.mark.parametrize("name", SUITE)
def test_shifts_are_reproducible_and_randomised_by_the_digest(name):
    pixels, boxes = limb()
    first, moved = shifted(name, pixels, boxes, DIGEST)
    repeated, boxes_repeated = shifted(name, pixels, boxes, DIGEST)
    assert np.array_equal(first, repeated)
    assert moved == boxes_repeated
    other, _ = shifted(name, pixels, boxes, OTHER)
    assert np.array_equal(first, other) == (name not in DRAWN)


@pytest.mark.parametrize("name", [name for name in SUITE if name != "inversion"])
def test_box_moves_with_the_fracture(name):
    pixels, boxes = limb()
    changed, (box,) = shifted(name, pixels, boxes, DIGEST)
    inside = inside_of(changed, box)
    assert inside.size
    assert inside.mean() > np.median(changed) + 0.1
    wrong = inside_of(changed, (1 - box[2], 1 - box[3], 1 - box[0], 1 - box[1]))
    assert inside.mean() > wrong.mean() + 0.1
    assert (box == boxes[0]) == (name not in MOVED[:3] + MOVED[4:])


def test_home_does_not_change_the_picture():
    pixels, boxes = limb()
    same, kept = shifted(HOME, pixels, boxes, DIGEST)
    assert np.array_equal(same, pixels)
    assert kept == boxes


def test_tight_crop_contains_limb_and_fractures_without_the_plate():
    pixels = np.full((400, 400), 0.05, np.float32)
    pixels[100:300, 220:280] = 0.6
    pixels[-20:] = 0.95  # a white rim
    cropped, _ = shifted("tight-crop", pixels, (), DIGEST)
    height, width = cropped.shape
    assert 195 <= height <= 225
    assert 55 <= width <= 80
    far = ((0.05, 0.4, 0.1, 0.5),)
    wider, (box,) = shifted("tight-crop", pixels, far, DIGEST)
    assert wider.shape[1] >= 0.65 * 400
    assert box[0] == pytest.approx(0, abs=0.01)


def test_wide_plate_is_dark_and_does_not_change_the_picture_on_it():
    pixels, _ = limb()
    plate, (box,) = shifted("wide-plate", pixels, ((0.0, 0.0, 1.0, 1.0),), DIGEST)
    assert plate.shape == (454, 374)
    assert np.array_equal(inside_of(plate, box), pixels)
    assert (plate == np.float32(0.03)).mean() > 0.7
    large, _ = shifted("wide-plate", np.zeros((3000, 1500), np.float32), (), DIGEST)
    assert large.shape == (2048, 1024)


def test_inversion_low_contrast_and_blur():
    pixels, _ = limb()
    inverted, _ = shifted("inversion", pixels, (), DIGEST)
    np.testing.assert_allclose(inverted, 1 - pixels)
    dull, _ = shifted("low-contrast", pixels, (), DIGEST)
    assert np.ptp(dull) < 0.5 * np.ptp(pixels)
    edges = [np.abs(np.diff(p / np.ptp(p))).max() for p in (dull, pixels)]
    assert edges[0] < 0.75 * edges[1]  # also after stretching the grey values
    blurred, _ = shifted("blur", pixels, (), DIGEST)
    assert np.abs(np.diff(blurred)).max() < 0.5 * np.abs(np.diff(pixels)).max()
    assert blurred.mean() == pytest.approx(pixels.mean(), abs=0.01)


def test_sizes_of_200_px_and_rotate_90():
    for shape, expected in (((908, 746), (200, 164)), ((150, 120), (150, 120))):
        assert shifted("200-px", np.zeros(shape, np.float32), (), DIGEST)[0].shape == expected
    assert shifted("rotate-90", np.zeros((30, 20), np.float32), (), DIGEST)[0].shape == (20, 30)


def test_rotate_90_is_counter_clockwise():
    pixels = np.zeros((40, 20), np.float32)
    pixels[:10, 10:] = 1  # at the top right
    turned, (box,) = shifted("rotate-90", pixels, ((0.5, 0.0, 1.0, 0.25),), DIGEST)
    assert turned[:10, :10].all()  # at the top left
    np.testing.assert_allclose(box, (0, 0, 0.25, 0.5), atol=1e-12)


def test_collimation_is_grey_outside_a_tilted_rectangle_that_contains_the_fractures():
    pixels = np.zeros((200, 200), np.float32)
    shut, _ = shifted("collimation", pixels, (), DIGEST)
    grey = shut == np.float32(0.45)
    assert 0.3 < grey.mean() < 0.5
    assert grey[0].all()
    first = grey.argmin(1)[60:140]
    assert first.min() > 0
    assert np.ptp(first) >= 5  # tilted
    kept, _ = shifted("collimation", pixels, ((0.0, 0.0, 0.1, 0.1),), DIGEST)
    assert not inside_of(kept, (0.0, 0.0, 0.1, 0.1)).any()


def test_paper_has_a_margin_and_monitor_has_moire():
    pixels = np.full((500, 400), 0.3, np.float32)
    paper, (sheet,) = shifted("paper", pixels, ((0.0, 0.0, 1.0, 1.0),), DIGEST)
    assert max(paper.shape) == 800
    assert paper[:20].mean() > 0.7  # a white margin
    assert inside_of(paper, (0.4, 0.4, 0.6, 0.6)).mean() == pytest.approx(0.4, abs=0.1)
    assert sheet[2] - sheet[0] < 0.9
    monitor, (screen,) = shifted("monitor", pixels, ((0.0, 0.0, 1.0, 1.0),), DIGEST)
    assert max(monitor.shape) == 800
    lit = inside_of(monitor, (0.3, 0.3, 0.7, 0.7))
    assert lit.std() > 0.02  # moire on a uniform grey
    assert screen[2] - screen[0] < 0.95


def test_results_of_this_suite_version_are_pinned():
    """Figures of one suite version must be comparable, so a change needs a new number."""
    pixels, boxes = limb()
    assert SUITE_VERSION == 1
    assert set(PINNED) == set(SHIFTS)
    for name, (shape, greys, corners) in PINNED.items():
        changed, (box,) = shifted(name, pixels, boxes, DIGEST)
        assert changed.shape == shape
        assert measured(changed) == pytest.approx(greys, abs=0.002), name
        assert sum(box) == pytest.approx(corners, abs=0.001), name


def measured(pixels):
    """Mean of each quarter of a picture, and ten times the mean step between adjacent pixels."""
    rows, columns = (np.array_split(range(n), 2) for n in pixels.shape)
    quarters = [float(pixels[np.ix_(r, c)].mean()) for r in rows for c in columns]
    return [*quarters, 10 * float(np.abs(np.diff(pixels)).mean())]


PINNED: dict[str, tuple[tuple[int, int], list[float], float]] = {
    "tight-crop": ((212, 67), [0.264, 0.204, 0.315, 0.294, 0.1], 1.751),
    "wide-plate": ((454, 374), [0.033, 0.047, 0.04, 0.091, 0.011], 2.159),
    "rotate-90": ((187, 227), [0.052, 0.069, 0.161, 0.21, 0.01], 2.176),
    "collimation": ((227, 187), [0.295, 0.219, 0.345, 0.21, 0.074], 1.674),
    "inversion": ((227, 187), [0.839, 0.949, 0.789, 0.933, 0.043], 1.674),
    "low-contrast": ((227, 187), [0.314, 0.27, 0.334, 0.277, 0.051], 1.674),
    "blur": ((227, 187), [0.161, 0.051, 0.211, 0.067, 0.043], 1.674),
    "jpeg-20": ((227, 187), [0.16, 0.051, 0.21, 0.067, 0.045], 1.674),
    "200-px": ((200, 165), [0.16, 0.051, 0.211, 0.066, 0.049], 1.674),
    "paper": ((800, 659), [0.469, 0.464, 0.485, 0.461, 0.232], 1.742),
    "monitor": ((800, 659), [0.2, 0.135, 0.215, 0.199, 0.068], 1.782),
}


def test_training_and_the_suite_do_not_import_each_other():
    for file in (ROOT / "stages").rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        names = {
            alias.name if isinstance(node, ast.Import) else f"{node.module}.{alias.name}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        if file.parent.name == "evaluation":
            assert not any("augment" in name or "dataset" in name for name in names), file
        else:
            assert not any(name.split(".")[-2:-1] == ["shifts"] for name in names), file
    assert Path(shifts.__file__).parent.name == "evaluation"


def test_contact_sheet_shows_each_kind_of_picture_once(tmp_path):
    rows = []
    for n, regions in enumerate(("hand", "hand", "shoulder", "none", "elbow;hand")):
        path = tmp_path / f"{n}.png"
        path.write_bytes(raster((bone(60, 50) * 255).astype(np.uint8), "PNG"))
        boxes = ((0.2, 0.2, 0.6, 0.6),) if n == 1 else ()
        rows.append(sample(str(path), regions=regions, boxes=boxes, sha256=str(n)))
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n")
    rows.append(sample(str(broken), regions="shoulder", sha256="0"))
    assert draw_contact_sheet(rows, tmp_path / "sheet.png") == 3
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (12 * 180, 3 * 180)
        first = np.asarray(sheet.crop((0, 14, 180, 180)))
    assert (first == 255).sum() > 100  # the box of the marked one of two hands
    with pytest.raises(OutputError, match="cannot write the file"):
        draw_contact_sheet(rows, tmp_path / "no/sheet.png")
