"""Reference heatmap by gradients; tests compare the exported evidence with it."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def grad_cam(blocks: nn.Module, fc: nn.Module, x: Tensor, label: int) -> Tensor:
    """Gradient-weighted class activation map, before its rectification.

    Selvaraju et al. 2017, arXiv 1610.02391, equations 1 and 2 without ReLU: the feature maps
    weighted by the mean gradient of the logit.

    Args:
        blocks: Input → last feature map (N, C, h, w).
        fc: Mean feature (N, C) → logits (N, K).
        x: (N, …) input of ``blocks``.
        label: Column of the logits.

    Returns:
        (N, h, w). With mean pooling and a linear layer it equals the evidence divided by h · w.
    """
    with torch.enable_grad():
        maps = blocks(x).detach().requires_grad_(True)
        logits = fc(maps.mean((2, 3)))
        (gradient,) = torch.autograd.grad(logits[:, label].sum(), maps)
    cam: Tensor = (gradient.mean((2, 3), keepdim=True) * maps).sum(1).detach()
    return cam
