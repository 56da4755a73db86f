"""Contact sheet of the first training batches of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from pipeline.domain import Array

from ..data.dataset import RadiographDataset, batches
from ..data.mixup import mixup
from ..settings import StageConfig

SHEET = "batches.png"
_BATCHES, _OF_EACH, _PER_ROW = 2, 16, 8
_TILE_INCHES = 1.6

Batch = tuple[Tensor, Tensor, Tensor]
"""(N, 1, H, W) pictures, (N, K) targets and (N, 1, h, w) fracture masks."""


def draw_sheet(
    target: Path, data: RadiographDataset, order: Sequence[int], outputs: Sequence[str],
    config: StageConfig, draws: torch.Generator,
) -> None:  # fmt: skip
    """Draw the first batches after augmentation, each picture with its targets.

    Marked fractures are outlined. With cached views the sheet shows other random views.

    Args:
        target: File to write, PNG.
        data: Training pictures, with their random sources.
        order: Row numbers of the first epoch.
        outputs: (K,) names of the targets.
        config: Settings.
        draws: Random state of the first epoch after it drew its order.
    """
    tiles = [
        [part[i] for part in batch]
        for batch in _first(data, order, config, draws)
        for i in range(min(len(batch[0]), _OF_EACH))
    ]
    rows = -(-len(tiles) // _PER_ROW)
    figure = Figure((_PER_ROW * _TILE_INCHES, rows * (_TILE_INCHES + 0.3)), layout="constrained")
    panels = np.atleast_2d(figure.subplots(rows, _PER_ROW)).ravel()
    for axes in panels:
        axes.set_axis_off()
    for axes, (image, targets, mask) in zip(panels, tiles, strict=False):
        axes.set_title(caption(targets.numpy(), outputs), fontsize=7)
        _draw(axes, image[0].numpy(), mask[0].numpy())
    figure.savefig(target, dpi=130)


def _first(
    data: RadiographDataset, order: Sequence[int], config: StageConfig, draws: torch.Generator
) -> Iterator[Batch]:
    """The first batches after mixup."""
    first = islice(batches(data, config.optim.batch_size, 0, order), _BATCHES)
    for images, targets, masks in first:
        yield mixup(images, targets, masks, config.augment.mixup, draws)


def _draw(axes: Axes, pixels: Array, marked: Array) -> None:
    height, width = pixels.shape
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=1, extent=(0, width, height, 0))
    if marked.min() < marked.max():
        x, y = (
            (np.arange(count) + 0.5) * length / count
            for count, length in zip(marked.shape[::-1], (width, height), strict=True)
        )
        axes.contour(x, y, marked, levels=[0.5], colors="orange", linewidths=1)


def caption(targets: Array, outputs: Sequence[str]) -> str:
    """The targets of a picture: ``hand, fracture``, ``elbow 0.7`` of a blend, ``hand?``.

    Args:
        targets: (K,) targets; NaN for unknown.
        outputs: (K,) their names.
    """
    labels = []
    for name, value in zip(outputs, targets, strict=True):
        if np.isnan(value):
            labels.append(f"{name}?")
        elif value > 0:
            labels.append(name if value == 1 else f"{name} {value:.1f}")
    return ", ".join(labels) or "nothing"
