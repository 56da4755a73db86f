"""Random changes of a training batch, on the device, drawn from the run's own generator."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from ..config import AugmentConfig

MARKER_SIDE = (0.05, 0.2)
"""Smallest and largest side of an erased rectangle, as a fraction of the canvas."""


def augment(images: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Flip, rotate, scale, shift, change grey values, blank a marker-sized rectangle.

    Args:
        images: (N, 1, H, W) float32 in [0, 1].
        config: Ranges.
        generator: On the CPU: the same seed gives the same batch on every device.

    Returns:
        The same shape and range; what comes into view from outside is 0.
    """
    n = len(images)

    def draw(low: float, high: float) -> Tensor:
        return torch.rand(n, generator=generator) * (high - low) + low

    angle = torch.deg2rad(draw(-config.rotate_deg, config.rotate_deg))
    scale = draw(*config.scale)
    flip = torch.where(draw(0, 1) < config.flip, -1.0, 1.0)
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    shift_x, shift_y = (2 * draw(-config.shift, config.shift) for _ in range(2))
    theta = torch.stack([cos * flip, -sin, shift_x, sin * flip, cos, shift_y], 1).view(n, 2, 3)
    grid = affine_grid(theta.to(images.device), list(images.shape), align_corners=False)
    moved = grid_sample(images, grid, align_corners=False)

    def per_image(values: Tensor) -> Tensor:
        return values.to(images.device).view(n, 1, 1, 1)

    gamma = per_image(torch.exp(draw(-config.gamma, config.gamma)))
    contrast = per_image(draw(1 - config.contrast, 1 + config.contrast))
    brightness = per_image(draw(1 - config.brightness, 1 + config.brightness))
    toned = moved.clamp_min(0).pow(gamma)
    middle = toned.mean((1, 2, 3), keepdim=True)
    toned = ((toned - middle) * contrast + middle) * brightness
    return _erase(toned.clamp(0, 1), config.erase, generator)


def _erase(images: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Blank one rectangle in some pictures: lead markers must not decide."""
    height, width = images.shape[2:]
    for image in images:
        chance, h, w, y, x = torch.rand(5, generator=generator).tolist()
        if chance >= probability:
            continue
        low, high = MARKER_SIDE
        rows, columns = (
            math.ceil((low + (high - low) * s) * n) for s, n in ((h, height), (w, width))
        )
        top, left = int(y * (height - rows)), int(x * (width - columns))
        image[:, top : top + rows, left : left + columns] = 0
    return images
