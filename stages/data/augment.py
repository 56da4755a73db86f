"""Random changes of a training batch, on the device, drawn from the run's own generator."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample

from ..config import AugmentConfig

MARKER_SIDE = (0.05, 0.2)
"""Smallest and largest side of an erased rectangle, as a fraction of the canvas."""
LOCAL = 8
"""The neighbourhood of local contrast is this fraction of the canvas."""


def augment(
    images: Tensor, masks: Tensor, config: AugmentConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Move a batch and its fracture masks alike, change grey values, blank edges and markers.

    Args:
        images: (N, 1, H, W) float32 in [0, 1].
        masks: (N, 1, h, w) float32 in [0, 1]: where the fractures are, coarser or as fine.
        config: Ranges.
        generator: On the CPU: the same seed gives the same batch on every device.

    Returns:
        Images and masks of the same shapes and ranges (what comes into view from outside is 0),
        and (N,) bool: which pictures became close-ups.
    """
    theta, close = _placements(masks, config, generator)
    moved, moved_masks = (
        grid_sample(
            maps,
            affine_grid(theta.to(maps.device), list(maps.shape), align_corners=False),
            align_corners=False,
        )
        for maps in (images, masks)
    )
    toned = _tone(moved, config, generator)
    return _erase(_border(toned, config.border, generator), config, generator), moved_masks, close


def _placements(
    masks: Tensor, config: AugmentConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """(N, 2, 3) maps from the new canvas to the old one, and which of them are close-ups.

    A close-up is magnified around a fracture, or anywhere in a picture without a marked one,
    so that magnification says nothing about the label.
    """
    n = len(masks)

    def draw(low: float, high: float) -> Tensor:
        return torch.rand(n, generator=generator) * (high - low) + low

    angle = torch.deg2rad(draw(-config.rotate_deg, config.rotate_deg))
    scale = draw(*config.scale)
    flip = torch.where(draw(0, 1) < config.flip, -1.0, 1.0)
    shift = torch.stack([2 * draw(-config.shift, config.shift) for _ in range(2)], 1)
    close = torch.zeros(n, dtype=torch.bool)
    if config.zoom > 0:  # draws nothing otherwise
        close = draw(0, 1) < config.zoom
        zoomed, anywhere = draw(*config.zoom_scale), torch.rand(n, 2, generator=generator) - 0.5
        picks = torch.rand(n, generator=generator)
        for i in torch.nonzero(close).flatten().tolist():
            centre = _some_marked(masks[i, 0], float(picks[i]))
            centre = anywhere[i] if centre is None else centre + 0.3 * anywhere[i] / zoomed[i]
            limit = 1 - 1 / float(zoomed[i])
            scale[i], shift[i] = zoomed[i], centre.clamp(-limit, limit)
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    theta = torch.stack([cos * flip, -sin, shift[:, 0], sin * flip, cos, shift[:, 1]], 1)
    return theta.view(n, 2, 3), close


def _some_marked(mask: Tensor, pick: float) -> Tensor | None:
    """(x, y) in [-1, 1] of one marked cell of an (h, w) mask; None when there is none."""
    marked = torch.nonzero(mask.cpu() > 0)
    if len(marked) == 0:
        return None
    row, column = marked[int(pick * len(marked))].tolist()
    height, width = mask.shape
    return torch.tensor([(2 * column + 1) / width - 1, (2 * row + 1) / height - 1])


def _tone(images: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Gamma, contrast, brightness and local contrast of each picture."""
    n = len(images)

    def draw(low: float, high: float) -> Tensor:
        values = torch.rand(n, generator=generator) * (high - low) + low
        return values.to(images.device).view(n, 1, 1, 1)

    gamma = torch.exp(draw(-config.gamma, config.gamma))
    contrast = draw(1 - config.contrast, 1 + config.contrast)
    brightness = draw(1 - config.brightness, 1 + config.brightness)
    toned = images.clamp_min(0).pow(gamma)
    middle = toned.mean((1, 2, 3), keepdim=True)
    toned = ((toned - middle) * contrast + middle) * brightness
    if config.local_contrast > 0:
        size = images.shape[-1] // LOCAL // 2 * 2 + 1
        blurred = toned
        for kernel in ((size, 1), (1, size)):  # one way after the other: far less to add up
            margin = kernel[0] // 2, kernel[1] // 2
            blurred = avg_pool2d(blurred, kernel, 1, margin, count_include_pad=False)
        toned = toned + draw(0, config.local_contrast) * (toned - blurred)
    return toned.clamp(0, 1)


def _border(images: Tensor, largest: float, generator: torch.Generator) -> Tensor:
    """Blank a strip of random width along each edge: collimation must not decide."""
    if largest == 0:
        return images
    height, width = images.shape[2:]
    strips = torch.rand(len(images), 4, generator=generator) * largest
    for image, (top, bottom, left, right) in zip(images, strips.tolist(), strict=True):
        image[:, : int(top * height)] = 0
        image[:, height - int(bottom * height) :] = 0
        image[:, :, : int(left * width)] = 0
        image[:, :, width - int(right * width) :] = 0
    return images


def _erase(images: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Blank one rectangle in some pictures: lead markers must not decide."""
    height, width = images.shape[2:]
    for image in images:
        chance, h, w, y, x = torch.rand(5, generator=generator).tolist()
        if chance >= config.erase:
            continue
        low, high = MARKER_SIDE
        rows, columns = (
            math.ceil((low + (high - low) * s) * n) for s, n in ((h, height), (w, width))
        )
        top, left = int(y * (height - rows)), int(x * (width - columns))
        image[:, top : top + rows, left : left + columns] = 0
    return images


def mixup(
    images: Tensor, targets: Tensor, masks: Tensor, alpha: float, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Blend each picture (or feature map) with another of the batch (Zhang et al. 2018, arXiv
    1710.09412); what is unknown of either is unknown of the blend.

    Args:
        images: (N, …) pictures or feature maps.
        targets: (N, K) in [0, 1], NaN where unknown.
        masks: (N, 1, h, w) in [0, 1].
        alpha: Both parameters of the Beta distribution of the share; 0 changes nothing.
        generator: On the CPU.
    """
    if alpha == 0:
        return images, targets, masks
    order = torch.randperm(len(images), generator=generator)
    # Beta(a, a) from two gamma variables: torch's own sampler takes no generator.
    seed = int(torch.randint(2**31, (1,), generator=generator))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        share = float(torch.distributions.Beta(alpha, alpha).sample())
    share = max(share, 1 - share)  # the masks stay those of the stronger picture
    return (
        share * images + (1 - share) * images[order],
        share * targets + (1 - share) * targets[order],
        masks,
    )
