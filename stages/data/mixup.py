"""Mixup of training pictures."""

from __future__ import annotations

import torch
from torch import Tensor


def mixup(
    images: Tensor, targets: Tensor, masks: Tensor, alpha: float, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Blend each picture (or feature map) with another of the batch (Zhang et al. 2018, arXiv
    1710.09412); a target that is unknown for either is unknown for the blend.

    Args:
        images: (N, …) pictures or feature maps.
        targets: (N, K) in [0, 1], NaN where unknown.
        masks: (N, 1, h, w) in [0, 1].
        alpha: Both parameters of the Beta distribution of the share; 0 changes nothing.
        generator: Random generator on the CPU.
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
