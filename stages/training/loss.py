"""Loss functions of the training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor
from torch.nn import functional

from pipeline.domain import Array

from ..settings import FractureConfig, OptimConfig, StageConfig
from ..stage_spec import TARGETS, StageSpec

FOCUS = 2.0
"""Exponent of the focal loss, as recommended by its authors."""


@dataclass(frozen=True, slots=True)
class Criterion:
    """The loss of a batch, with weights from the training split.

    Attributes:
        optim: Settings of the loss.
        pos_weight: (K,) weight of the positives of each output.
        scale: (K,) weight of each output.
        decides: (K,) bool: which outputs decide on a fracture.
        exclusive: See :func:`masked_loss`.
    """

    optim: OptimConfig
    pos_weight: Tensor
    scale: Tensor
    decides: Tensor
    exclusive: int = 0

    @classmethod
    def of(cls, targets: Array, stage: StageSpec, config: StageConfig, fabric: Fabric) -> Criterion:
        """Make the loss of a stage.

        Args:
            targets: (N, K) targets of the training split.
            stage: The stage.
            config: Settings.
            fabric: Device.
        """
        optim = config.optim
        # In balanced sampling, positives are as frequent as negatives.
        power = optim.pos_weight_power if optim.sampling == "shuffle" else 0.0
        return cls(
            optim,
            loss_weights(targets, power).to(fabric.device),
            torch.tensor(output_weights(stage, config), device=fabric.device),
            torch.tensor([name in TARGETS for name in stage.outputs], device=fabric.device),
            stage.types.exclusive if stage.types else 0,
        )

    def __call__(
        self, logits: Tensor, evidence: Tensor | None, targets: Tensor, masks: Tensor
    ) -> Tensor:
        """Compute the loss.

        Args:
            logits: (N, K).
            evidence: (N, K, h, w), see :class:`stages.export.exported_head.Head`; None without a
                heatmap.
            targets: (N, K) in [0, 1], NaN where unknown.
            masks: (N, 1, H, W) in [0, 1]: marked fractures.
        """
        loss = masked_loss(logits, targets, self.pos_weight, self.scale, self.optim, self.exclusive)
        if self.optim.box_weight and evidence is not None:
            loss = loss + self.optim.box_weight * box_loss(evidence[:, self.decides], masks)
        return loss


def loss_weights(targets: Array, power: float) -> Tensor:
    """(K,) weight of the positives of each output: (negatives / positives) ** power."""
    positives, negatives = (targets == 1).sum(0), (targets == 0).sum(0)
    ratio = negatives / np.maximum(positives, 1)
    return torch.from_numpy((np.maximum(ratio, 1e-3) ** power).astype(np.float32))


def output_weights(stage: StageSpec, config: StageConfig) -> list[float]:
    """(K,) weight of each output in the loss; types share one, the auxiliary output has its own."""
    if stage.types is not None and isinstance(config, FractureConfig):
        count = len(stage.types.labels)
        shared = config.types_weight / (1 if stage.types.exclusive else count)
        return [1.0, *[shared] * count]
    auxiliary = getattr(config, "fracture_weight", 1.0)
    return [1.0 if label in stage.labels else auxiliary for label in stage.outputs]


def masked_loss(
    logits: Tensor, targets: Tensor, pos_weight: Tensor, scale: Tensor,
    optim: OptimConfig | None = None, exclusive: int = 0,
) -> Tensor:  # fmt: skip
    """Cross-entropy or focal loss: mean over the known targets of each output, sum over outputs.

    Mutually exclusive outputs have one softmax cross-entropy.

    Args:
        logits: (N, K).
        targets: (N, K) in [0, 1], NaN where unknown.
        pos_weight: (K,) weight of the positives.
        scale: (K,) weight of each output.
        optim: Kind of loss and smoothing; plain binary cross-entropy without it.
        exclusive: Number of mutually exclusive outputs, the last ones; their targets are known
            together or not at all, and they have one weight.
    """
    optim = optim or OptimConfig()
    if exclusive:
        first = slice(0, logits.shape[1] - exclusive)
        last = slice(first.stop, None)
        rest = masked_loss(
            logits[:, first], targets[:, first], pos_weight[first], scale[first], optim
        )
        return rest + scale[-1] * _exclusive_loss(logits[:, last], targets[:, last], optim)
    known = ~torch.isnan(targets)
    logits = logits.float()
    known_targets = torch.where(known, targets, 0.0)
    smooth = known_targets * (1 - 2 * optim.label_smoothing) + optim.label_smoothing
    losses = functional.binary_cross_entropy_with_logits(
        logits, smooth, pos_weight=pos_weight, reduction="none"
    )
    if optim.loss == "focal":
        losses = losses * (torch.sigmoid(logits) - known_targets).abs() ** FOCUS
    means = (losses * known).sum(0) / known.sum(0).clamp_min(1)
    return (means * scale).sum()


def _exclusive_loss(logits: Tensor, targets: Tensor, optim: OptimConfig) -> Tensor:
    """Softmax cross-entropy, mean over the pictures whose (N, T) targets are known."""
    known = ~torch.isnan(targets).any(1)
    known_targets = torch.where(known[:, None], targets, 0.0)
    smooth = known_targets * (1 - optim.label_smoothing) + optim.label_smoothing / targets.shape[1]
    losses = -(smooth * functional.log_softmax(logits.float(), 1)).sum(1)
    return (losses * known).sum() / known.sum().clamp_min(1)


def box_loss(evidence: Tensor, masks: Tensor) -> Tensor:
    """Distance of the evidence from the marked fractures.

    A softmax over the cells of the evidence map gives the share of each cell in the positive
    decision; the loss is -log of the share inside the marked cells, mean over the pictures that
    have any. It does not constrain the mean of the map, which is the decision. Boxes as supervision
    of a classifier's map: Li et al. 2018, arXiv 1711.06373.

    Args:
        evidence: (N, 1, h, w).
        masks: (N, 1, H, W) in [0, 1].
    """
    inside = functional.adaptive_max_pool2d(masks, evidence.shape[2:]).flatten(1)
    marked = inside.amax(1) > 0
    if not marked.any():
        return evidence.sum() * 0.0
    shares = functional.softmax(evidence.float().flatten(1), 1)
    return -torch.log((shares * inside).sum(1)[marked].clamp_min(1e-6)).mean()
