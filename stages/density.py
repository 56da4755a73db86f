"""The density gate: is a picture like those that the networks were trained on?

The pooled feature maps of a picture are compared with those of training pictures that show a
supported region: the mean cosine similarity to the nearest of them (deep nearest neighbours, Sun
et al. 2022, arXiv 2204.06507), at two depths of the network together, because strangers that one
depth misses are seen at another (arXiv 2309.01488).

The references are stored in a projection on their main directions, but a picture's length counts
whole: what a picture has outside of these directions makes it less similar to all of them. So the
values are nearly those in all directions. Features are neither centred nor standardised: on the
first network that was trained with random sources, the similarity of centred or standardised ones
told unsupported validation pictures from supported ones, all in random views, with AUC .949 to
.959, that of plain ones with .963, and the length of what lies outside of the projection with .88.

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
from sklearn.utils.extmath import randomized_svd
from torch import Tensor, nn

from pipeline.bundle import Density
from pipeline.domain import Array
from pipeline.errors import ConfigError

from . import checkpoint
from .config import DensityConfig

FILE = "density.safetensors"
_ARRAYS = ("projection", "references")
STEPS = 10_000
"""Of the similarity inside the graph: its last digits depend on the number of pictures that are
compared at once, and rows shall not."""

LEFT_OUT = 0.01
"""Share of the training rows that are no references."""

SCALE = 1.0 / 16.0
"""Of features inside the graph, so that the sum of their squares fits into half precision."""


@dataclass(frozen=True, slots=True)
class FittedDensity:
    """A fitted density gate.

    Attributes:
        projection: (F, D) float32, from pooled features to their main directions; its columns
            are orthonormal.
        references: (R, D) float32: training pictures, of length 1 before the projection.
        contract: What goes into the bundle.
    """

    projection: Array
    references: Array
    contract: Density


class DensityGate(nn.Module):
    """:func:`similarity` as a module, for the graph of a region stage."""

    projection: Tensor
    references: Tensor

    def __init__(self, fitted: FittedDensity) -> None:
        super().__init__()
        self.neighbours = fitted.contract.neighbours
        self.register_buffer("projection", torch.tensor(fitted.projection))
        # (D, R): so that the graph multiplies by it as it is.
        self.register_buffer("references", torch.from_numpy(fitted.references.T.copy()))

    def forward(self, features: Tensor) -> Tensor:
        """(N, F) pooled features → (N,) mean similarity to the nearest references."""
        scaled = features * SCALE
        length = scaled.square().sum(1, keepdim=True).sqrt()
        # No guard against a length of 0: what is no number is refused.
        placed = (scaled @ self.projection) / length
        found = torch.topk(placed @ self.references, self.neighbours, dim=1).values.mean(1)
        return (found * STEPS).round() / STEPS


def fit_density(
    training: Array, validation: Array, config: DensityConfig, seed: int = 0
) -> FittedDensity:
    """Fit projection, references and threshold.

    The references are training rows that lie evenly where any do (greedy k-centre, Gonzalez 1985,
    doi 10.1016/0304-3975(85)90224-5): a random choice would hold rare kinds of pictures for less
    familiar than frequent ones. The training rows that are least like the others are left out
    before, or odd pictures would be chosen first. The threshold, and from where a picture is far,
    are quantiles over the validation rows.

    Args:
        training: (N, F) float32 pooled features of training pictures that show a supported
            region.
        validation: (M, F) likewise of validation pictures, as they are and augmented.
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
    if not training.std(0).any():
        raise ConfigError("density gate: the network gives the same features for every picture")
    lengths = np.linalg.norm(training, axis=1, keepdims=True)
    if not (lengths.all() and np.linalg.norm(validation, axis=1).all()):
        raise ConfigError("density gate: the features of a picture have no direction")
    dimensions = min(config.dimensions, training.shape[1], len(training))
    _, _, directions = randomized_svd(training / lengths, dimensions, random_state=seed)
    projection = np.ascontiguousarray(directions.T, np.float32)
    projected, compared = (_placed(rows, projection) for rows in (training, validation))
    typical = _typical(projected, config.neighbours, LEFT_OUT)
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
    return FittedDensity(projection, references, contract)


def similarity(features: Array, fitted: FittedDensity) -> Array:
    """(N, F) pooled features → (N,) float32 mean similarity to the nearest references.

    What is no number in the features, or has no direction, gives no number.
    """
    projected = _placed(features, fitted.projection)
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
        graph: With the names that :class:`DensityGate` has in a :class:`stages.head.Head`.
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
    """The (N, D) rows without the share that is least like its nearest others."""
    nearest = min(neighbours + 1, len(rows))  # each is its own nearest
    parts = [_nearest(part, rows, nearest) for part in np.array_split(rows, len(rows) // 512 + 1)]
    likeness = np.concatenate(parts)
    kept = np.sort(likeness.argsort()[int(left_out * len(rows)) :])
    typical: Array = rows[kept]
    return typical


def _spread(rows: Array, count: int, seed: int) -> Array:
    """``count`` of (N, D) rows, each the least like those chosen before it."""
    chosen = [int(np.random.default_rng(seed).integers(len(rows)))]
    likeness = rows @ rows[chosen[0]]
    while len(chosen) < min(count, len(rows)):
        likeness[chosen[-1]] = np.inf  # also where there are copies, each is chosen once
        chosen.append(int(likeness.argmin()))
        likeness = np.maximum(likeness, rows @ rows[chosen[-1]])
    spread: Array = rows[np.sort(chosen)]
    return spread


def _placed(features: Array, projection: Array) -> Array:
    """(N, D) float32: of length 1 before the projection."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        lengths = np.linalg.norm(features, axis=1, keepdims=True)
        placed: Array = ((features @ projection) / lengths).astype(np.float32)
    return placed


def _nearest(rows: Array, references: Array, neighbours: int) -> Array:
    """(N,) mean over the ``neighbours`` largest similarities of each row."""
    with np.errstate(invalid="ignore"):
        similar = rows @ references.T
    nearest = np.partition(similar, -neighbours, axis=1)[:, -neighbours:]
    mean: NDArray[np.float32] = nearest.mean(1)
    return mean
