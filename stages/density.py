"""The density gate: is a picture like those that the networks were trained on?

The pooled feature maps of a picture are compared with those of training pictures that show a
supported region: the mean cosine similarity to the nearest of them (deep nearest neighbours, Sun
et al. 2022, arXiv 2204.06507) in a projection of two depths of the network, because strangers that
one depth misses are seen at another (arXiv 2309.01488).

:func:`fit_density` and :func:`similarity` take and give arrays and know nothing of pictures and
networks; :class:`DensityGate` is the same computation inside an exported graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from sklearn.decomposition import PCA
from torch import Tensor, nn

from pipeline.bundle import Density
from pipeline.domain import Array
from pipeline.errors import ConfigError

from . import checkpoint
from .config import DensityConfig

FILE = "density.safetensors"
_ARRAYS = ("projection", "offset", "references")
SCALE_FLOOR = 0.05
"""Channels that vary less than this share of the typical channel are not magnified further: what
they tell is the rounding of the network."""


@dataclass(frozen=True, slots=True)
class FittedDensity:
    """A fitted density gate.

    Attributes:
        projection: (F, D) float32, from pooled features to the projection.
        offset: (D,) float32, taken off after it.
        references: (R, D) float32, of length 1: projected training pictures.
        contract: What goes into the bundle.
    """

    projection: Array
    offset: Array
    references: Array
    contract: Density


class DensityGate(nn.Module):
    """:func:`similarity` as a module, for the graph of a region stage."""

    projection: Tensor
    offset: Tensor
    references: Tensor

    def __init__(self, fitted: FittedDensity) -> None:
        super().__init__()
        self.neighbours = fitted.contract.neighbours
        for name in ("projection", "offset"):
            self.register_buffer(name, torch.tensor(getattr(fitted, name)))
        # (D, R): so that the graph multiplies by it as it is.
        self.register_buffer("references", torch.from_numpy(fitted.references.T.copy()))

    def forward(self, features: Tensor) -> Tensor:
        """(N, F) pooled features → (N,) mean similarity to the nearest references."""
        projected = features @ self.projection - self.offset
        # No guard against a length of 0: what is no number is refused.
        unit = projected / projected.square().sum(1, keepdim=True).sqrt()
        return torch.topk(unit @ self.references, self.neighbours, dim=1).values.mean(1)


def fit_density(
    training: Array, validation: Array, config: DensityConfig, seed: int = 0
) -> FittedDensity:
    """Fit projection, references and threshold.

    Features are standardised and projected on their principal components. The references are
    training rows that lie evenly where any do (greedy k-centre, Gonzalez 1985, doi
    10.1016/0304-3975(85)90224-5): a random choice would hold rare kinds of pictures for less
    familiar than frequent ones. The share of the training rows that is least like the others is
    left out before, or what augmentation spoilt would be chosen first. The threshold, and from
    where a picture is far, are quantiles over the validation rows.

    Args:
        training: (N, F) float32 pooled features of training pictures that show a supported
            region, as they are and augmented.
        validation: (M, F) likewise of validation pictures.
        config: Sizes, and the share to refuse and to leave out. Where there are too few rows for
            what it asks, the dimensions, references and neighbours are as many as there can be.
        seed: Of the projection and of the first reference.

    Raises:
        ConfigError: There are fewer than 3 training rows or no validation row, a value is no
            number, or the features are the same for every picture or have no direction.
    """
    for name, rows, least in (("training", training, 3), ("validation", validation, 1)):
        if len(rows) < least:
            raise ConfigError(
                f"density gate: {len(rows)} {name} pictures show a supported region, wanted "
                f"{least} or more"
            )
        if not np.isfinite(rows).all():
            raise ConfigError(f"density gate: features of {name} pictures are no numbers")
    mean = training.mean(0, dtype=np.float64)
    spread = training.std(0, dtype=np.float64)
    if not spread.any():
        raise ConfigError("density gate: the network gives the same features for every picture")
    scale = np.maximum(spread, SCALE_FLOOR * float(np.sqrt(np.mean(spread**2))))
    dimensions = min(config.dimensions, training.shape[1], len(training) - 1)
    components = PCA(dimensions, svd_solver="randomized", random_state=seed).fit(
        ((training - mean) / scale).astype(np.float32)
    )
    projection = (components.components_.T / scale[:, None]).astype(np.float32)
    offset = (mean @ projection).astype(np.float32)
    projected, compared = (_unit(rows, projection, offset) for rows in (training, validation))
    if not (np.isfinite(projected).all() and np.isfinite(compared).all()):
        raise ConfigError("density gate: the features of a picture have no direction")
    typical = _typical(projected, config.neighbours, config.refused)
    references = _spread(typical, config.references, seed)
    count = len(references)
    neighbours = min(config.neighbours, count)
    scores = _nearest(compared, references, neighbours)
    threshold, far = (float(np.quantile(scores, q)) for q in (config.refused, config.far))
    contract = Density(
        dimensions=dimensions,
        references=count,
        neighbours=neighbours,
        threshold=float(np.clip(threshold, -1.0, 1.0)),
        refused=float(np.mean(scores < threshold)),
        far=float(np.clip(max(threshold, far), -1.0, 1.0)),
    )
    return FittedDensity(projection, offset, references, contract)


def similarity(features: Array, fitted: FittedDensity) -> Array:
    """(N, F) pooled features → (N,) float32 mean similarity to the nearest references.

    What is no number in the features, or has no direction in the projection, gives no number.
    """
    projected = _unit(features, fitted.projection, fitted.offset)
    return _nearest(projected, fitted.references, fitted.contract.neighbours)


def save(run: Path, fitted: FittedDensity, cut: str) -> None:
    """Write a density gate into a run folder, where ``fxpipe export`` finds it.

    Args:
        run: The folder.
        fitted: The gate.
        cut: First block of the head at whose input the features were pooled.
    """
    arrays = {name: torch.from_numpy(getattr(fitted, name)) for name in _ARRAYS}
    facts = {"cut": cut, "contract": fitted.contract.model_dump(mode="json")}
    checkpoint.save(run / FILE, arrays, facts)


def load(run: Path, cut: str) -> FittedDensity:
    """Read what :func:`save` wrote.

    Args:
        run: The folder.
        cut: Where the network is going to be cut.

    Raises:
        ConfigError: There is none, it cannot be read, or it was fitted at another cut.
    """
    if not (run / FILE).is_file():
        raise ConfigError(
            f"{run}: no {FILE}: the run is from before there was a density gate",
            "train the region stage again: `fxpipe train-stage region`",
        )
    tensors, facts = checkpoint.load(run / FILE)
    if facts["cut"] != cut:
        raise ConfigError(
            f"{run / FILE}: fitted to a network that is cut at {facts['cut']}, found one that is "
            f"cut at {cut}"
        )
    arrays = {name: tensors[name].numpy() for name in _ARRAYS}
    return FittedDensity(**arrays, contract=Density.model_validate(facts["contract"]))


def density_in(graph: onnx.ModelProto, contract: Density) -> FittedDensity:
    """The density gate inside the exported float graph of a region stage.

    Args:
        graph: With the names that :class:`DensityGate` has in a :class:`stages.model.Head`.
        contract: Of the stage.

    Raises:
        ConfigError: The graph does not carry it under these names.
    """
    held = {initializer.name: initializer for initializer in graph.graph.initializer}
    if lacking := [name for name in _ARRAYS if f"density.{name}" not in held]:
        raise ConfigError(
            f"no {' and no '.join(lacking)} of a density gate in the graph, wanted one exported "
            "by fxpipe"
        )
    found = {name: numpy_helper.to_array(held[f"density.{name}"]) for name in _ARRAYS}
    found["references"] = np.ascontiguousarray(found["references"].T)
    return FittedDensity(**found, contract=contract)


def _typical(rows: Array, neighbours: int, left_out: float) -> Array:
    """The (N, D) rows of length 1 without the share that is least like its nearest others."""
    nearest = min(neighbours + 1, len(rows))  # each is its own nearest
    parts = [_nearest(part, rows, nearest) for part in np.array_split(rows, len(rows) // 512 + 1)]
    likeness = np.concatenate(parts)
    kept = np.sort(likeness.argsort()[int(left_out * len(rows)) :])
    typical: Array = rows[kept]
    return typical


def _spread(rows: Array, count: int, seed: int) -> Array:
    """``count`` of (N, D) rows of length 1, each the least like those chosen before it."""
    chosen = [int(np.random.default_rng(seed).integers(len(rows)))]
    likeness = rows @ rows[chosen[0]]
    while len(chosen) < min(count, len(rows)):
        likeness[chosen[-1]] = np.inf  # also where there are copies, each is chosen once
        chosen.append(int(likeness.argmin()))
        likeness = np.maximum(likeness, rows @ rows[chosen[-1]])
    spread: Array = rows[np.sort(chosen)]
    return spread


def _unit(features: Array, projection: Array, offset: Array) -> Array:
    """(N, D) float32 of length 1."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        projected = features @ projection - offset
        unit: Array = projected / np.linalg.norm(projected, axis=1, keepdims=True)
    return unit


def _nearest(rows: Array, references: Array, neighbours: int) -> Array:
    """(N,) mean over the ``neighbours`` largest similarities of each row."""
    with np.errstate(invalid="ignore"):
        similar = rows @ references.T
    nearest = np.partition(similar, -neighbours, axis=1)[:, -neighbours:]
    mean: NDArray[np.float32] = nearest.mean(1)
    return mean
