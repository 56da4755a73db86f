"""A finished region network: the fit of its density gate, and of the thresholds behind the gate."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor

from pipeline.domain import REGIONS, Array
from pipeline.errors import ConfigError
from pipeline.preprocess import PreprocessSpec
from pipeline.progress import Progress, Silent

from ..data.dataset import RadiographDataset, Sources, batches
from ..network.density import FittedDensity, fit_density, save, similarity
from ..network.model import Network
from ..samples import NONE, Index, Sample, Split
from ..settings import RegionConfig
from ..statistics.calibration import probabilities, route_labels, route_threshold
from ..statistics.metrics import share
from .assessment import route_figures
from .environment import make_fabric

log = logging.getLogger(__name__)

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


def fit_routes(
    run: Path, network: Network, index: Index, preprocess: PreprocessSpec, config: RegionConfig,
    result: Mapping[str, Any], fitted: FittedDensity,
) -> dict[str, Any]:  # fmt: skip
    """Choose the thresholds of the router behind its density gate.

    They are fitted to the validation pictures as they are and to the random views for the gate. A
    picture that the gate refuses has probability 0.

    Args:
        run: Folder of the run, for messages.
        network: Network with its best weights; its first outputs are the regions.
        index: Table.
        preprocess: Specification for every picture.
        config: Settings.
        result: Contains ``temperature`` and ``bias`` of the regions.
        fitted: The gate.

    Returns:
        JSON for ``result.json``: ``route_thresholds``, and ``test``, the figures of router and gate
        together on the test split.
    """
    fabric = make_fabric(config.train)
    network.to(fabric.device).eval()
    cut, count = network.place(config.model.cut), len(REGIONS)
    temperature, bias = (np.array(result[key], np.float32) for key in ("temperature", "bias"))

    def answers(samples: Sequence[Sample], views: range) -> tuple[Array, NDArray[np.bool_]]:
        """(N, R) probabilities, and (N,) whether the gate lets the picture pass."""
        rows = [
            (_outputs(network, images, fabric)[:, :count], _depths(network, images, cut, fabric))
            for view in views
            for images in _view(samples, view, preprocess, config, Silent())
        ]
        if not rows:
            return np.zeros((0, count), np.float32), np.zeros(0, bool)
        logits, features = (np.concatenate(parts) for parts in zip(*rows, strict=True))
        passes = similarity(features, fitted) >= fitted.contract.threshold
        return probabilities(logits, temperature, bias), passes

    views = range(1 + config.density.views)
    validation, test = index.of("val"), index.of("test")
    targets = np.tile(np.stack([s.region_vector() for s in validation]), (len(views), 1))
    scores, passes = answers(validation, views)
    labels, gated = route_labels(targets), np.where(passes[:, None], scores, np.float32(0))
    thresholds = {
        region: route_threshold(labels[:, k], gated[:, k]) for k, region in enumerate(REGIONS)
    }
    listed = ", ".join(f"{region} {value:.3f}" for region, value in thresholds.items())
    log.info("%s: router thresholds behind the gate: %s", run, listed)
    test_scores, test_passes = answers(test, range(1))
    figures = route_figures(test, test_scores, np.array([*thresholds.values()]), test_passes)
    return {"route_thresholds": thresholds, "test": figures}


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
    """(B, F) float32 pooled features."""
    images = images.to(fabric.device).contiguous(memory_format=torch.channels_last)
    with fabric.autocast():
        depths: Array = network.depths(images, cut).float().cpu().numpy()
    return depths


@torch.inference_mode()
def _outputs(network: Network, images: Tensor, fabric: Fabric) -> Array:
    """(B, K) float32 logits."""
    images = images.to(fabric.device).contiguous(memory_format=torch.channels_last)
    with fabric.autocast():
        logits: Array = network(images).float().cpu().numpy()
    return logits
