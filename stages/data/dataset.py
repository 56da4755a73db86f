"""Data set and batches of arrays, read and resized by the pipeline's own code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.domain import Array, Placement
from pipeline.io import decode, read_file
from pipeline.preprocess import PreprocessSpec, preprocess

from ..samples import Sample
from ..settings import AugmentConfig
from .augment import View, augment

MASK_STEP = 8
"""A fracture mask has one cell for this many px of the canvas, down and across."""


def read_array(sample: Sample, spec: PreprocessSpec) -> Array:
    """(1, H, W) float32 in [0, 1] of a sample's first (usually only) picture.

    Raises:
        ImageError: The file cannot be read; it is never replaced by another one.
    """
    return read_placed(sample, spec)[0]


def read_placed(sample: Sample, spec: PreprocessSpec) -> tuple[Array, Placement]:
    """As :func:`read_array`, with the placement of the picture on the canvas."""
    content, digest = read_file(sample.path)
    image = next(iter(decode(content, sample.path, digest)))
    return preprocess(image.pixels, spec)


def fracture_mask(sample: Sample, placement: Placement, spec: PreprocessSpec) -> Array:
    """(1, H / MASK_STEP, W / MASK_STEP) float32: 1 in cells that a marked fracture touches."""
    mask = np.zeros((1, spec.height_px // MASK_STEP, spec.width_px // MASK_STEP), np.float32)
    height, width = placement.source_shape
    for x0, y0, x1, y1 in sample.boxes:
        top, left = placement.to_canvas(y0 * height, x0 * width)
        bottom, right = placement.to_canvas(y1 * height, x1 * width)
        rows = slice(max(0, int(top / MASK_STEP)), max(0, int(np.ceil(bottom / MASK_STEP))))
        columns = slice(max(0, int(left / MASK_STEP)), max(0, int(np.ceil(right / MASK_STEP))))
        mask[:, rows, columns] = 1
    return mask


class RadiographDataset(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Pictures with their targets and fracture masks.

    Args:
        samples: Rows of the table.
        targets: (N, K) float32, NaN where unknown.
        spec: Preprocessing.
        sources: Random sources; None for preprocessed pictures without augmentation.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        targets: Array,
        spec: PreprocessSpec,
        sources: Sources | None = None,
    ) -> None:
        self.samples = samples
        self.targets = torch.from_numpy(targets)
        self.spec = spec
        self.sources = sources

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor, Tensor]:
        sample, target = self.samples[i], self.targets[i]
        if self.sources is None:
            array, placement = read_placed(sample, self.spec)
            mask = fracture_mask(sample, placement, self.spec)
            return torch.from_numpy(array), target, torch.from_numpy(mask)
        view = self.sources.view(sample, self.spec, i)
        mask = _coarse(view.mask)
        target = in_view(target, self.sources.fracture, view.close, sample, bool(mask.any()))
        return torch.from_numpy(view.canvas), target, torch.from_numpy(mask)


@dataclass(frozen=True, slots=True)
class Sources:
    """Augmentation of one epoch.

    Attributes:
        config: Ranges and probabilities.
        seed: Seed of the epoch; seed and row determine the view, in any process.
        fracture: (K,) bool: which outputs predict fractures.
    """

    config: AugmentConfig
    seed: int
    fracture: tuple[bool, ...]

    def view(self, sample: Sample, spec: PreprocessSpec, row: int) -> View:
        """A random view of one picture.

        Raises:
            ImageError: The file cannot be read.
        """
        content, digest = read_file(sample.path)
        image = next(iter(decode(content, sample.path, digest)))
        rng = np.random.default_rng([self.seed, row])
        return augment(image.pixels, sample.boxes, spec, self.config, rng)


def in_view(
    targets: Tensor, fracture: Sequence[bool], close: bool, sample: Sample, marked: bool
) -> Tensor:
    """The targets that still hold in an augmented view, NaN for the others.

    A close-up of a picture with several regions may show any of them. A fracture, and with it its
    types, may be out of view.

    Args:
        targets: (K,) targets of the picture.
        fracture: (K,) which of them are fractures.
        close: Whether the view is a close-up.
        sample: The picture.
        marked: Whether a marked fracture is in view.
    """
    is_fracture = torch.tensor(fracture)
    regions = targets[~is_fracture]
    several = close and int((regions != 0).sum()) > 1  # NaN counts: it may be in view
    fractured = bool((is_fracture & (targets == 1)).any())
    out_of_view = fractured and not marked and (bool(sample.boxes) or close)
    unknown = torch.where(is_fracture, torch.tensor(out_of_view), torch.tensor(several))
    return torch.where(unknown, torch.nan, targets)


def _coarse(mask: NDArray[np.bool_]) -> Array:
    """(1, H, W) bool → (1, H / MASK_STEP, W / MASK_STEP) float32: 1 if any pixel of a cell is."""
    _, height, width = mask.shape
    rows, columns = height // MASK_STEP, width // MASK_STEP
    cells = mask[:, : rows * MASK_STEP, : columns * MASK_STEP]
    touched = cells.reshape(1, rows, MASK_STEP, columns, MASK_STEP).max((2, 4))
    return np.asarray(touched, np.float32)


def batches(
    dataset: Dataset[tuple[Tensor, Tensor, Tensor]],
    batch_size: int,
    workers: int,
    order: Sequence[int] | None = None,
) -> DataLoader[tuple[Tensor, Tensor, Tensor]]:
    """Batches in the given order without an incomplete last one, or all in table order."""
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=order,
        drop_last=order is not None,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
    )
