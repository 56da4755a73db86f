"""Baseline without fxpipe: two complete float networks, one after the other.

The region network judges a picture, then the fracture network of the most probable region judges
the same picture again. The networks are those of the weights folder, assembled from trunk and head,
so the job is the same and only the implementation differs.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from ..domain import ANY_REGION, Array
from ..io import decode, read_file
from ..preprocess import PreprocessSpec, preprocess
from .rounds import JobResult

FILE = "two-pass.json"
"""File with a :class:`TwoPass`; the same folder contains the networks for the contender."""

Predict = Callable[[Array], Array]
"""(N, 1, H, W) float32 in [0, 1] → (N, K) float32 logits."""


class Whole(BaseModel):
    """One stage as a complete network, from picture to logits.

    Attributes:
        name: Name of its files, without suffix.
        labels: Names of the K outputs.
        temperature, bias: One value per label: probability = sigmoid(logit / temperature + bias).
        preprocess: Preprocessing of a picture.
        arch, stride_on: See :class:`stages.network.model.Network`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    labels: tuple[str, ...]
    temperature: tuple[float, ...]
    bias: tuple[float, ...]
    preprocess: PreprocessSpec
    arch: str
    stride_on: str

    def probabilities(self, logits: Array) -> Array:
        """(N, K) logits → (N, K) calibrated probabilities."""
        temperature, bias = np.array([self.temperature, self.bias], np.float32)
        scaled: Array = 1.0 / (1.0 + np.exp(-(logits / temperature + bias)))
        return scaled


class TwoPass(BaseModel):
    """The networks of two passes over a picture.

    Attributes:
        region: The first pass.
        fracture: The second pass, by region; ``all`` for one that judges every region.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    region: Whole
    fracture: Mapping[str, Whole]

    @property
    def stages(self) -> tuple[Whole, ...]:
        """All networks."""
        return (self.region, *self.fracture.values())

    @property
    def preprocessings(self) -> tuple[PreprocessSpec, ...]:
        """All preprocessings of the networks, without duplicates."""
        return tuple(dict.fromkeys(stage.preprocess for stage in self.stages))


@dataclass(frozen=True, slots=True)
class Answer:
    """Result of two passes over a picture.

    Attributes:
        regions: Probability of each region.
        region: The most probable one.
        fracture: Probability of a fracture; None if that region has no specialist.
    """

    regions: list[float]
    region: str
    fracture: float | None


class Naive:
    """Two passes over every picture, in one thread: a :class:`~.rounds.Contender`.

    Args:
        folder: Folder with :data:`FILE`.
        open_network: Opens one of its networks.
        batch_size: Number of pictures per call of a network.
        facts: Further facts about the contender.
    """

    def __init__(
        self, folder: Path, open_network: Callable[[Whole], Predict], batch_size: int,
        facts: Mapping[str, Any],
    ) -> None:  # fmt: skip
        self._networks = TwoPass.model_validate_json((folder / FILE).read_bytes())
        self._predict = {stage.name: open_network(stage) for stage in self._networks.stages}
        self._batch_size = batch_size
        self._facts = facts

    @property
    def facts(self) -> Mapping[str, Any]:
        """See :class:`~.rounds.Contender`."""
        sizes = [[spec.height_px, spec.width_px] for spec in self._networks.preprocessings]
        return {**self._facts, "batch_size": self._batch_size, "input_px": sizes}

    def session(self, paths: Sequence[Path]) -> None:
        """See :class:`~.rounds.Contender`: not known."""

    def do(self, paths: Sequence[Path], output: Path) -> JobResult:
        """See :class:`~.rounds.Contender`."""
        rows = looks = 0
        pictures = _prepared(paths, self._networks.preprocessings)
        with (output / "results.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["path", *self._networks.region.labels, "region", "fracture"])
            while batch := list(islice(pictures, self._batch_size)):
                names, arrays = zip(*batch, strict=True)
                for name, answer in zip(names, self.judge(arrays), strict=True):
                    writer.writerow([name, *answer.regions, answer.region, answer.fracture])
                    rows += 1
                    looks += answer.fracture is not None
        return JobResult(rows, looks)

    def judge(self, pictures: Sequence[Mapping[PreprocessSpec, Array]]) -> list[Answer]:
        """Two passes over some pictures.

        Args:
            pictures: For each picture, its (1, H, W) float32 array by preprocessing.
        """
        first = self._networks.region
        routed = self._probabilities(first, pictures)
        chosen = [first.labels[column] for column in routed.argmax(1)]
        fractures: list[float | None] = [None] * len(pictures)
        for region in dict.fromkeys(chosen):
            fracture = self._networks.fracture
            second = fracture.get(region) or fracture.get(ANY_REGION)
            if second is None:
                continue
            rows = [row for row, other in enumerate(chosen) if other == region]
            answers = self._probabilities(second, [pictures[row] for row in rows])[:, 0]
            for row, answer in zip(rows, answers.tolist(), strict=True):
                fractures[row] = answer
        return [Answer(*parts) for parts in zip(routed.tolist(), chosen, fractures, strict=True)]

    def _probabilities(
        self, stage: Whole, pictures: Sequence[Mapping[PreprocessSpec, Array]]
    ) -> Array:
        """(N, K) probabilities of one network, in one call."""
        stacked = np.stack([arrays[stage.preprocess] for arrays in pictures])
        return stage.probabilities(self._predict[stage.name](stacked))


def _prepared(
    paths: Sequence[Path], specs: Sequence[PreprocessSpec]
) -> Iterator[tuple[str, dict[PreprocessSpec, Array]]]:
    """Name of the file and preprocessed arrays of every picture."""
    for path in paths:
        content, sha256 = read_file(path)
        for image in decode(content, path, sha256):
            yield path.name, {spec: preprocess(image.pixels, spec)[0] for spec in specs}
