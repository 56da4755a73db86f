"""Disk cache of the output of frozen blocks for augmented pictures.

Training a network with frozen first blocks spends most of its time on their output. With a fixed
number of augmented views per picture, that output is computed once for all epochs and for all
folds of a cross-validation.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor
from torch.utils.data import Dataset

from pipeline.bundle import write_json
from pipeline.domain import Array
from pipeline.preprocess import PreprocessSpec
from pipeline.progress import Progress

from ..network.model import Network, Trunk, digest
from ..samples import Index, Sample
from ..settings import StageConfig
from ..stage_spec import StageSpec
from .dataset import RadiographDataset, Sources, batches

log = logging.getLogger(__name__)
DONE = "pictures.json"


@dataclass(frozen=True, slots=True)
class Views:
    """Feature maps of P pictures, unchanged and in V augmented views.

    Attributes:
        row_of: Row of each picture, by the SHA-256 of its file.
        maps: (P, 1 + V, C, h, w) float16, memory-mapped; view 0 is the unchanged picture.
        masks: (P, 1 + V, 1, H, W) float16 fracture masks of the views.
        targets: (P, 1 + V, K) float32, NaN if a target does not hold in a view.
    """

    row_of: Mapping[str, int]
    maps: Array
    masks: Array
    targets: Array

    def clean(self, data: RadiographDataset) -> Dataset[tuple[Tensor, Tensor, Tensor]]:
        """The unchanged pictures of a data set."""
        return _SelectedViews(self, data, [0] * len(data))

    def drawn(
        self, data: RadiographDataset, draws: torch.Generator
    ) -> Dataset[tuple[Tensor, Tensor, Tensor]]:
        """A random view of each picture of a data set."""
        views = torch.randint(1, self.maps.shape[1], (len(data),), generator=draws)
        return _SelectedViews(self, data, views.tolist())


class _SelectedViews(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """One view of each picture."""

    def __init__(self, views: Views, data: RadiographDataset, chosen: Sequence[int]) -> None:
        self._views, self._data, self._chosen = views, data, chosen

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor, Tensor]:
        views = self._views
        key = views.row_of[self._data.samples[i].sha256], self._chosen[i]
        maps, mask, targets = (
            torch.from_numpy(np.array(x[key])).float()
            for x in (views.maps, views.masks, views.targets)
        )
        return maps, targets, mask


def find_views(
    network: Network, stage: StageSpec, index: Index, preprocess: PreprocessSpec,
    config: StageConfig, fabric: Fabric, progress: Progress,
) -> Views | None:  # fmt: skip
    """The cached views of the settings, computed if missing; None if the cache is off.

    Args:
        network: With its initial weights; only its frozen blocks are used.
        stage: Selects the pictures.
        index: Table; pictures of training, validation and test split are cached.
        preprocess: Specification.
        config: Settings.
        fabric: Device and precision.
        progress: Advanced once per batch.
    """
    count = config.train.cached_views
    if count == 0:
        return None
    samples = [s for s in index.samples if s.split != "excluded" and stage.selects(s)]
    samples.sort(key=lambda sample: sample.sha256)  # folds of one table share a cache
    pictures = [sample.sha256 for sample in samples]
    key = {
        "arch": network.arch,
        "blocks": digest(Trunk(network, network.trainable_from), preprocess.model_dump_json()),
        # Mixup happens later, between views.
        "augment": config.augment.model_dump(mode="json", exclude={"mixup"}),
        "views": count,
        "seed": config.train.seed,
        "precision": fabric._precision.precision,
        "outputs": list(stage.outputs),
        **({"types": stage.types.activation} if stage.types else {}),
        "pictures": pictures,
    }
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    folder = config.data.cache / name
    if not (folder / DONE).is_file():
        log.info("%s: computing %d views of %d pictures", folder, count, len(samples))
        _make(folder, network, stage, samples, preprocess, config, fabric, progress)
        write_json(folder / DONE, key)
    maps, masks, targets = (
        np.load(folder / f"{part}.npy", mmap_mode="r") for part in ("maps", "masks", "targets")
    )
    return Views({sha: row for row, sha in enumerate(pictures)}, maps, masks, targets)


@torch.no_grad()
def _make(
    folder: Path, network: Network, stage: StageSpec, samples: Sequence[Sample],
    preprocess: PreprocessSpec, config: StageConfig, fabric: Fabric, progress: Progress,
) -> None:  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    network.to(fabric.device).to(memory_format=torch.channels_last).eval()
    views, size = 1 + config.train.cached_views, config.optim.batch_size
    data = RadiographDataset(samples, stage.targets(samples), preprocess)
    stores: dict[str, Array] = {}
    for view in range(views):
        if view:
            seed = config.train.seed + view
            data.sources = Sources(config.augment, seed, stage.concerns_fractures)
        start = 0
        for images, targets, masks in batches(data, size, config.data.workers):
            images = images.to(fabric.device)
            with fabric.autocast():
                maps = network.prefix(images.contiguous(memory_format=torch.channels_last))
            parts = {"maps": maps.half(), "masks": masks.half(), "targets": targets}
            for name, part in parts.items():
                array = part.contiguous().cpu().numpy()
                if name not in stores:
                    shape = (len(samples), views, *array.shape[1:])
                    stores[name] = np.lib.format.open_memmap(
                        folder / f"{name}.npy", "w+", array.dtype, shape
                    )
                stores[name][start : start + len(array), view] = array
            start += len(images)
            progress.advance()
    for store in stores.values():
        store.flush()  # type: ignore[attr-defined]
