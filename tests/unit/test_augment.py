from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.preprocess import PreprocessSpec, preprocess
from stages.config import AugmentConfig
from stages.data.augment import augment, mixup
from stages.data.dataset import fracture_mask, randaugment
from stages.data.index import Sample

STILL = {
    "flip": 0, "rotate_deg": 0, "scale": (1, 1), "shift": 0, "brightness": 0, "contrast": 0,
    "gamma": 0, "erase": 0,
}  # fmt: skip


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def marked(side=64, at=(40, 48, 8, 16)):
    """A picture with a bright patch, and its mask at full size."""
    image = torch.zeros(1, 1, side, side)
    top, bottom, left, right = at
    image[..., top:bottom, left:right] = 1
    return image, (image > 0).float()


@pytest.mark.parametrize("seed", range(6))
def test_the_mask_moves_with_the_picture(seed):
    image, mask = marked()
    config = AugmentConfig(**{**STILL, "flip": 0.5, "rotate_deg": 90, "scale": (0.8, 1.5)})
    moved, moved_mask, _ = augment(image, mask, config, draws(seed))
    torch.testing.assert_close(moved, moved_mask)
    assert not torch.equal(moved, image)


def test_a_coarser_mask_moves_as_far():
    image, mask = marked(at=(32, 48, 0, 16))
    coarse = torch.nn.functional.max_pool2d(mask, 8)
    flipped, small, _ = augment(image, coarse, AugmentConfig(**{**STILL, "flip": 1}), draws())
    torch.testing.assert_close(torch.nn.functional.max_pool2d(flipped, 8), small)


def test_a_close_up_of_a_fracture_has_it_in_view_and_larger():
    image, mask = marked()
    zoom = AugmentConfig(**STILL, zoom=1, zoom_scale=(2, 2))
    for seed in range(10):
        moved, moved_mask, close = augment(image, mask, zoom, draws(seed))
        assert close.all()
        assert moved_mask.sum() > 2.5 * mask.sum()  # four times, less what is cut off
        torch.testing.assert_close(moved, moved_mask)


def test_close_ups_are_as_frequent_without_a_fracture():
    images = torch.rand(200, 1, 32, 32)
    masks = torch.zeros(200, 1, 4, 4)
    masks[:100, :, 1, 1] = 1
    *_, close = augment(images, masks, AugmentConfig(zoom=0.4), draws())
    assert abs(close[:100].float().mean() - close[100:].float().mean()) < 0.15
    assert 0.3 < close.float().mean() < 0.5


def test_borders_are_blanked_and_the_middle_is_not():
    images = torch.ones(8, 1, 40, 40)
    blanked, *_ = augment(images, images, AugmentConfig(**STILL, border=0.25), draws())
    assert (blanked[:, :, 10:30, 10:30] == 1).all()
    assert (blanked == 0).any()


def test_local_contrast_sharpens_edges_and_stays_in_range():
    image = torch.full((1, 1, 64, 64), 0.4)
    image[..., 32:] = 0.6
    sharper, *_ = augment(image, image, AugmentConfig(**STILL, local_contrast=2), draws())
    assert sharper[0, 0, 32, 32] > 0.6
    assert sharper[0, 0, 32, 31] < 0.4
    assert 0 <= sharper.min() <= sharper.max() <= 1


def test_mixup_blends_pictures_and_targets_and_keeps_unknown_unknown():
    images = torch.arange(4.0).view(4, 1, 1, 1)
    targets = torch.tensor([[0.0], [1.0], [float("nan")], [1.0]])
    masks = torch.rand(4, 1, 2, 2)
    mixed, wanted, same = mixup(images, targets, masks, 0.5, draws(3))
    assert torch.equal(same, masks)
    assert not torch.equal(mixed, images)
    assert torch.isnan(wanted[2]).all()
    known = wanted[~torch.isnan(wanted)]
    assert ((known >= 0) & (known <= 1)).all()
    first = mixup(images, targets, masks, 0.5, draws(3))[0]
    assert torch.equal(first, mixed)
    assert mixup(images, targets, masks, 0, draws())[0] is images


def test_randaugment_changes_tone_only():
    import random

    random.seed(1)
    np.random.seed(1)
    picture = np.zeros((1, 32, 32), np.float32)
    picture[:, 8:16, 20:28] = np.linspace(0.4, 0.9, 64, dtype=np.float32).reshape(8, 8)
    change = randaugment(6)
    results = [change(picture) for _ in range(12)]
    assert all(r.shape == picture.shape and r.dtype == np.float32 for r in results)
    assert all(r.min() >= 0 and r.max() <= 1 for r in results)
    assert any(not np.allclose(r, picture, atol=0.02) for r in results)
    for changed in results:  # bone stays where it is, and bright
        assert changed[0, 8:16, 20:28].mean() > changed[0, :8].mean()


def test_a_box_marks_its_cells_on_the_canvas():
    sample = Sample(
        Path("x.png"), "hand", 1, "fracture", "g", "", "train", "o", "", "0" * 64,
        ((0.5, 0.25, 1.0, 0.5),),
    )  # fmt: skip
    spec = PreprocessSpec(height_px=64, width_px=64)
    _, placement = preprocess(np.random.rand(100, 50).astype(np.float32), spec)
    mask = fracture_mask(sample, placement, spec)
    assert mask.shape == (1, 8, 8)
    # The picture is 32 px wide and lies in the middle: columns 16 to 48.
    rows, columns = np.nonzero(mask[0])
    assert (rows.min(), rows.max()) == (2, 3)
    assert (columns.min(), columns.max()) == (4, 5)
    assert fracture_mask(replace(sample, boxes=()), placement, spec).sum() == 0
