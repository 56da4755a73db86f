"""From rows of the table to batches of arrays, through the pipeline's own reader and resize."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.domain import Array
from pipeline.io import decode, read_file
from pipeline.preprocess import PreprocessSpec, preprocess

from .index import Sample


def read_array(sample: Sample, spec: PreprocessSpec) -> Array:
    """(1, H, W) float32 in [0, 1] of a sample's first (usually only) picture.

    Raises:
        ImageError: The file cannot be read; never is another one taken in its place.
    """
    content, digest = read_file(sample.path)
    image = next(iter(decode(content, sample.path, digest)))
    return preprocess(image.pixels, spec)[0]


class RadiographDataset(Dataset[tuple[Tensor, Tensor]]):
    """Pictures with their targets.

    Args:
        samples: Rows of the table.
        targets: (N, K) float32, NaN where unknown.
        spec: Preprocessing.
    """

    def __init__(self, samples: Sequence[Sample], targets: Array, spec: PreprocessSpec) -> None:
        self.samples = samples
        self.targets = torch.from_numpy(targets)
        self.spec = spec

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(read_array(self.samples[i], self.spec)), self.targets[i]


def batches(
    dataset: RadiographDataset, batch_size: int, workers: int, order: Sequence[int] | None = None
) -> DataLoader[tuple[Tensor, Tensor]]:
    """Batches in the given order with an incomplete last one left out, or all in table order."""
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=order,
        drop_last=order is not None,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
    )
