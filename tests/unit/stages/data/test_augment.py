"""Augmentation: geometry, grey values, close-ups, targets of what is out of view, mixup."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import bone
from scipy.ndimage import gaussian_filter

from pipeline.preprocess import PreprocessSpec, preprocess
from stages.data.augment import augment
from stages.data.dataset import fracture_mask, in_view
from stages.data.mixup import mixup
from stages.samples import Sample
from stages.settings import AugmentConfig

NAN = float("nan")

SPEC = PreprocessSpec(height_px=64, width_px=64, clip_percent=(0, 100))


def noise(size, sigma_px=0.0):
    """Gaussian-filtered noise in [0, 1]."""
    values = gaussian_filter(np.random.default_rng(0).random(size, np.float32), sigma_px)
    return (values - values.min()) / (values.max() - values.min())


def only(**changed):
    """Settings that switch off every augmentation except those given."""
    ranges = {"scale": (1, 1), "local_contrast": (0, 0)}
    names = set(AugmentConfig.model_fields) - {"zoom_scale", "draw", *ranges}
    return AugmentConfig(**{**dict.fromkeys(names, 0), **ranges, "whole": 1, **changed})


def drawn(pixels, boxes=(), seed=0, **changed):
    """A view with only the given augmentations."""
    return augment(pixels, boxes, SPEC, only(**changed), np.random.default_rng(seed))


def marked(side=128, box=(0.25, 0.5, 0.5, 0.75)):
    """A picture with a bright patch, and the box of the patch."""
    pixels = np.zeros((side, side), np.float32)
    x0, y0, x1, y1 = (round(edge * side) for edge in box)
    pixels[y0:y1, x0:x1] = 1
    return pixels, [box]


@pytest.mark.parametrize("size", [(64, 64), (50, 90), (300, 200)])
def test_view_without_augmentation_equals_the_preprocessed_picture(size):
    pixels = noise(size, max(size) / 16)
    expected, _ = preprocess(pixels, SPEC.model_copy(update={"frame": "whole"}))
    canvas = drawn(pixels).canvas
    assert canvas.shape == expected.shape
    assert canvas.dtype == np.float32
    # Edges of the picture may differ by half a pixel.
    assert np.abs(canvas - expected)[:, 4:-4, 4:-4].mean() < 0.03


def test_draw_flip_only_flips():
    pixels = noise((80, 80), 3)
    whole = SPEC.model_copy(update={"frame": "whole"})
    views = [
        augment(pixels, [], whole, AugmentConfig(draw="flip"), np.random.default_rng(seed)).canvas
        for seed in range(8)
    ]
    plain = augment(pixels, [], whole, AugmentConfig(draw="none"), np.random.default_rng(0)).canvas
    flipped = [np.allclose(view, plain[..., ::-1], atol=1e-3) for view in views]
    same = [np.allclose(view, plain, atol=1e-3) for view in views]
    assert any(flipped)
    assert any(same)
    assert all(a or b for a, b in zip(flipped, same, strict=True))


@pytest.mark.parametrize("seed", range(6))
def test_mask_is_transformed_with_the_picture(seed):
    pixels, boxes = marked()
    view = drawn(pixels, boxes, seed, flip=0.5, rotate_deg=90, scale=(0.8, 1.5), aspect=0.2)
    assert np.mean((view.canvas > 0.5) != view.mask) < 0.03
    assert np.mean(view.mask != drawn(pixels, boxes).mask) > 0.02


def test_limb_is_framed_unless_the_whole_picture_is_drawn():
    pixels = np.zeros((200, 200), np.float32)
    pixels[100:180, 20:80] = noise((80, 60), 2)
    framed, whole = drawn(pixels, whole=0).canvas, drawn(pixels).canvas
    assert (framed > 0.1).mean() > 2.5 * (whole > 0.1).mean()


def test_close_up_shows_the_fracture_enlarged():
    pixels, boxes = marked()
    for seed in range(10):
        view = drawn(pixels, boxes, seed, zoom=1, zoom_scale=(2, 2))
        assert view.close
        assert view.mask.sum() > 2.5 * drawn(pixels, boxes).mask.sum()  # without the part cut off


def test_close_ups_are_as_frequent_without_a_fracture():
    pixels, boxes = marked()
    with_box, without = (
        [drawn(pixels, given, seed, zoom=0.4).close for seed in range(150)] for given in (boxes, ())
    )
    assert np.mean(with_box) == np.mean(without)
    assert 0.3 < np.mean(without) < 0.5


@pytest.mark.parametrize("name", [
    "gamma", "curve", "brightness", "contrast", "blur", "resample", "noise", "jpeg", "coarse",
    "collimation", "rim", "text", "invert",
])  # fmt: skip
def test_each_setting_changes_grey_values_and_keeps_their_range(name):
    pixels = np.clip(bone(64, 64) + 0.1 * noise((64, 64)), 0, 1)
    before = drawn(pixels).canvas
    views = [drawn(pixels, (), seed, **{name: 0.9}).canvas for seed in range(5)]
    assert any(not np.allclose(view, before, atol=0.01) for view in views)
    assert all(0 <= view.min() <= view.max() <= 1 for view in views)
    assert all(view.shape == before.shape and view.dtype == np.float32 for view in views)


def test_markers_black_levels_and_local_contrast_change_some_views():
    pixels = bone(64, 64)
    before = drawn(pixels).canvas
    for changed in ({"marker": 1}, {"lift": 0.4}, {"local_contrast": (1, 1)}):
        views = [drawn(pixels, (), seed, **changed).canvas for seed in range(12)]
        same = [np.allclose(view, before) for view in views]
        assert any(same), changed
        assert not all(same), changed


def test_the_same_seed_draws_the_same_view():
    pixels = bone(90, 70)
    first, repeated, other = (
        augment(pixels, [], SPEC, AugmentConfig(), np.random.default_rng(seed)).canvas
        for seed in (1, 1, 2)
    )
    assert np.array_equal(first, repeated)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("size", [(1, 1), (3, 400), (400, 3), (40, 40)])
def test_pictures_of_any_shape_give_finite_views(size):
    pixels = np.random.default_rng(1).random(size, np.float32)
    for seed in range(8):
        view = augment(pixels, [], SPEC, AugmentConfig(), np.random.default_rng(seed))
        assert np.isfinite(view.canvas).all()


@pytest.mark.parametrize(
    ("targets", "close", "boxes", "marked", "expected"),
    [
        ([1, 0, 0, 1], False, True, True, [1, 0, 0, 1]),
        ([1, 0, 0, 1], True, True, False, [1, 0, 0, NAN]),  # the fracture is out of view
        ([1, 0, 0, 1], True, False, False, [1, 0, 0, NAN]),  # the position is unknown
        ([1, 0, 0, 1], False, False, False, [1, 0, 0, 1]),
        ([1, 1, 0, 0], True, False, False, [NAN, NAN, NAN, 0]),  # either may be out of view
        ([1, NAN, 0, 0], True, False, False, [NAN, NAN, NAN, 0]),
        ([0, 0, 0, NAN], True, False, False, [0, 0, 0, NAN]),
    ],
)
def test_targets_out_of_view_become_unknown(targets, close, boxes, marked, expected):
    sample = Sample(
        Path("x.png"), "elbow", 1, "fracture", "g", "", "train", "o", "", "0" * 64,
        ((0.1, 0.1, 0.2, 0.2),) if boxes else (),
    )  # fmt: skip
    targets, expected = torch.tensor(targets).float(), torch.tensor(expected).float()
    actual = in_view(targets, (False,) * 3 + (True,), close, sample, marked)
    torch.testing.assert_close(actual, expected, equal_nan=True)


def test_types_of_a_fracture_out_of_view_are_unknown():
    sample = Sample(Path("x.png"), "hand", 1, "fracture", "g", "", "train", "o", "", "0" * 64)
    targets = torch.tensor([1.0, 1.0, 0.0])  # the decision, then two types
    assert in_view(targets, (True,) * 3, True, sample, False).isnan().all()
    assert torch.equal(in_view(targets, (True,) * 3, True, sample, True), targets)


def test_mixup_blends_pictures_and_targets_and_keeps_unknown_targets():
    images = torch.arange(4.0).view(4, 1, 1, 1)
    targets = torch.tensor([[0.0], [1.0], [float("nan")], [1.0]])
    masks = torch.rand(4, 1, 2, 2)
    mixed, mixed_targets, same_masks = mixup(
        images, targets, masks, 0.5, torch.Generator().manual_seed(3)
    )
    assert torch.equal(same_masks, masks)
    assert not torch.equal(mixed, images)
    assert torch.isnan(mixed_targets[2]).all()
    known = mixed_targets[~torch.isnan(mixed_targets)]
    assert ((known >= 0) & (known <= 1)).all()
    first = mixup(images, targets, masks, 0.5, torch.Generator().manual_seed(3))[0]
    assert torch.equal(first, mixed)
    assert mixup(images, targets, masks, 0, torch.Generator())[0] is images


def test_box_marks_its_cells_on_the_canvas():
    sample = Sample(
        Path("x.png"), "hand", 1, "fracture", "g", "", "train", "o", "", "0" * 64,
        ((0.5, 0.25, 1.0, 0.5),),
    )  # fmt: skip
    spec = PreprocessSpec(height_px=64, width_px=64, frame="whole")
    _, placement = preprocess(np.random.rand(100, 50).astype(np.float32), spec)
    mask = fracture_mask(sample, placement, spec)
    assert mask.shape == (1, 8, 8)
    # The picture is 32 px wide and centred: columns 16 to 48.
    rows, columns = np.nonzero(mask[0])
    assert (rows.min(), rows.max()) == (2, 3)
    assert (columns.min(), columns.max()) == (4, 5)
    assert fracture_mask(replace(sample, boxes=()), placement, spec).sum() == 0
