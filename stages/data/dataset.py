"""From rows of the table to batches of arrays, through the pipeline's own reader and resize."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.domain import Array, Placement
from pipeline.io import decode, read_file
from pipeline.preprocess import PreprocessSpec, preprocess

from .index import Sample

MASK_STEP = 8
"""A fracture mask has one cell for this many px of the canvas, down and across."""

TONES = ["AutoContrast", "Equalize", "PosterizeIncreasing", "ContrastIncreasing",
         "BrightnessIncreasing", "SharpnessIncreasing"]  # fmt: skip
"""The operations of timm's RandAugment that change only tone and keep bone bright."""


def read_array(sample: Sample, spec: PreprocessSpec) -> Array:
    """(1, H, W) float32 in [0, 1] of a sample's first (usually only) picture.

    Raises:
        ImageError: The file cannot be read; never is another one taken in its place.
    """
    return read_placed(sample, spec)[0]


def read_placed(sample: Sample, spec: PreprocessSpec) -> tuple[Array, Placement]:
    """As :func:`read_array`, with the place of the picture on the canvas."""
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
        magnitude: Of RandAugment's changes of tone, drawn from the process's own random state.
    """

    def __init__(
        self, samples: Sequence[Sample], targets: Array, spec: PreprocessSpec, magnitude: int = 0
    ) -> None:
        self.samples = samples
        self.targets = torch.from_numpy(targets)
        self.spec = spec
        self._change = randaugment(magnitude) if magnitude else None

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor, Tensor]:
        array, placement = read_placed(self.samples[i], self.spec)
        if self._change is not None:
            array = self._change(array)
        mask = fracture_mask(self.samples[i], placement, self.spec)
        return torch.from_numpy(array), self.targets[i], torch.from_numpy(mask)


def randaugment(magnitude: int) -> Callable[[Array], Array]:
    """Two random changes of tone (RandAugment, Cubuk et al. 2020, arXiv 1909.13719, by timm).

    Args:
        magnitude: 0 to 10.

    Returns:
        A function from (1, H, W) float32 in [0, 1] to the same; it sees 256 grey values.
    """
    from timm.data.auto_augment import rand_augment_transform

    change = rand_augment_transform(f"rand-m{magnitude}-n2-mstd0.5", {}, TONES)

    def apply(array: Array) -> Array:
        changed = change(Image.fromarray((array[0] * 255).round().astype(np.uint8)))
        toned: Array = (np.asarray(changed, np.float32) / np.float32(255))[None]
        return toned

    return apply


def batches(
    dataset: Dataset[tuple[Tensor, Tensor, Tensor]],
    batch_size: int,
    workers: int,
    order: Sequence[int] | None = None,
) -> DataLoader[tuple[Tensor, Tensor, Tensor]]:
    """Batches in the given order with an incomplete last one left out, or all in table order."""
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=order,
        drop_last=order is not None,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
    )
