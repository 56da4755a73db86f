"""Features of a finished region network, and the fit of its density gate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor

from pipeline.domain import REGIONS, Array
from pipeline.errors import ConfigError
from pipeline.preprocess import PreprocessSpec
from pipeline.progress import Progress

from .config import RegionConfig
from .data.dataset import RadiographDataset, Sources, batches
from .data.index import NONE, Index, Sample, Split
from .density import fit_density, save, similarity
from .metrics import share
from .model import Network
from .train import make_fabric

_SEED = 2000


def supported(index: Index, split: Split) -> list[Sample]:
    """The pictures of a split that certainly show a supported region."""
    return [s for s in index.of(split) if any(s.shows(region) for region in REGIONS)]


def check_supported(index: Index) -> None:
    """Check before the training that a density gate can be fitted after it.

    Raises:
        ConfigError: No training or no validation picture shows a supported region.
    """
    counts = {split: len(supported(index, split)) for split in ("train", "val")}
    if not all(counts.values()):
        raise ConfigError(
            f"{index.source}: {counts['train']} training and {counts['val']} validation pictures "
            f"certainly show {', '.join(REGIONS)}; the density gate needs some of both"
        )


def fit_gate(
    run: Path, network: Network, index: Index, preprocess: PreprocessSpec, config: RegionConfig,
    progress: Progress,
) -> dict[str, Any]:  # fmt: skip
    """Fit the density gate of a finished network, and save it in the run folder.

    The references are training pictures, and the threshold comes from the validation split; the
    test split is only measured.

    Args:
        run: Folder.
        network: Network with its best weights.
        index: Table.
        preprocess: Specification for every picture.
        config: Settings.
        progress: Advanced once per batch.

    Returns:
        JSON for ``result.json``: the contract, and by split the shares of supported and of
        unsupported pictures, not augmented, that the gate refuses, with 95 % intervals.

    Raises:
        ConfigError: No picture shows a supported region, or the features are not finite.
    """
    fabric = make_fabric(config.train)
    network.to(fabric.device).eval()
    cut, seed = network.place(config.model.cut), config.train.seed
    torch.manual_seed(seed)

    def features(samples: Sequence[Sample], views: range) -> Array:
        rows = [
            _depths(network, images, cut, fabric)
            for view in views
            for images in _view(samples, view, preprocess, config, progress)
        ]
        return np.concatenate(rows) if rows else np.zeros((0, 1), np.float32)

    views = range(1 + config.density.views)
    fitted = fit_density(
        features(supported(index, "train"), range(1)), features(supported(index, "val"), views),
        config.density, seed,
    )  # fmt: skip
    save(run, fitted, cut)
    result: dict[str, Any] = fitted.contract.model_dump(mode="json")
    splits: tuple[Split, ...] = ("val", "test")
    for split in splits:
        unsupported = [sample for sample in index.of(split) if sample.regions == NONE]
        result[split] = {}
        for name, samples in (("supported", supported(index, split)), ("unsupported", unsupported)):
            refused = np.zeros(0, bool)
            if samples:
                values = similarity(features(samples, range(1)), fitted)
                refused = ~(values >= fitted.contract.threshold)
            groups = [sample.group for sample in samples]
            result[split][f"{name}_refused"] = share(refused, groups).model_dump()
            result[split][f"{name}_pictures"] = len(samples)
    return result


def _view(
    samples: Sequence[Sample], view: int, preprocess: PreprocessSpec, config: RegionConfig,
    progress: Progress,
) -> Iterator[Tensor]:  # fmt: skip
    """(B, 1, H, W) pictures in the order of the samples; augmented if ``view`` is not 0."""
    blank = np.zeros((len(samples), 1), np.float32)
    # Different views than those for the calibration of the router.
    sources = Sources(config.augment, config.train.seed + _SEED + view, (False,)) if view else None
    data = RadiographDataset(samples, blank, preprocess, sources)
    for images, *_ in batches(data, config.optim.batch_size, config.data.workers):
        yield images
        progress.advance()


@torch.inference_mode()
def _depths(network: Network, images: Tensor, cut: str, fabric: Fabric) -> Array:
    """(B, F) float32."""
    images = images.to(fabric.device).contiguous(memory_format=torch.channels_last)
    with fabric.autocast():
        depths: Array = network.depths(images, cut).float().cpu().numpy()
    return depths
