"""Contract of a fused graph: all stages of a weights folder in one ONNX file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from .bundle import DENSITY, BundleSpec, Contract, Digest, Kind, Precision
from .preprocess import PreprocessSpec

Group = Literal["region", "fracture"]
PORTS = ("logits", "probabilities", "evidence")


class FusedSpec(Contract):
    """Contract embedded in a fused graph.

    The input is ``image`` (N, 1, H, W) in [0, 1]. The outputs for ``region`` (if there is a region
    stage) and ``fracture`` are ``…_logits`` and ``…_probabilities`` (N, K), and optionally
    ``…_evidence`` (N, K, h, w); for ``region`` also ``…_density`` (N,) if it has a density gate.

    Attributes:
        schema_version, kind: Version and kind of this contract.
        name, precision, preprocess: See :class:`pipeline.bundle.BundleSpec`.
        stages: The region stage, if there is one, then the specialists. Each contract is that of
            the original bundle, except that its input is the image, and that it declares a heatmap
            only if this graph has the evidence.
        columns: Regions of the output columns: the regions of the region stage, and the region of
            the specialist in each column of ``fracture``. For readers without this code.
        sources: SHA-256 of the file of each original bundle, by name.
    """

    schema_version: Literal[1] = 1
    kind: Literal[Kind.FUSED] = Kind.FUSED
    name: str = Field(pattern="^[a-z0-9][a-z0-9-]*$")
    precision: Precision
    preprocess: PreprocessSpec
    stages: tuple[BundleSpec, ...]
    columns: Mapping[Group, tuple[str, ...]]
    sources: Mapping[str, Digest]

    @property
    def trunk(self) -> None:
        """None, as in a complete network, because the graph contains the trunks."""

    @property
    def groups(self) -> dict[Group, tuple[BundleSpec, ...]]:
        """The stages that share their outputs."""
        routers = tuple(stage for stage in self.stages if stage.kind is Kind.REGION)
        specialists = tuple(stage for stage in self.stages if stage.kind is not Kind.REGION)
        return (
            {"region": routers, "fracture": specialists} if routers else {"fracture": specialists}
        )

    @property
    def outputs(self) -> dict[str, tuple[Group, str]]:
        """Group and port of every output of the graph, by name."""
        return {
            f"{group}_{port}": (group, port)
            for group, stages in self.groups.items()
            for port in _ports(stages[0])
        }

    @model_validator(mode="after")
    def _complete(self) -> FusedSpec:
        """Refuse contracts that cannot be run."""
        specialists = self.groups["fracture"]
        if (
            self.stages[-len(specialists) :] != specialists
            or len(self.stages) > len(specialists) + 1
        ):
            raise ValueError("the stages must be at most one router, then one or more specialists")
        faults = []
        if any(len(stage.labels) != 1 or stage.kind is not Kind.FRACTURE for stage in specialists):
            faults.append("a specialist must be a fracture stage with one label")
        for field in ("precision", "preprocess"):
            if any(getattr(stage, field) != getattr(self, field) for stage in self.stages):
                faults.append(f"every stage must have the {field} of the graph")
        if any(stage.input != "image" or stage.trunk for stage in self.stages):
            faults.append("the input of every stage must be the image")
        if len({stage.heatmap for stage in specialists}) > 1:
            faults.append("either all specialists or none must have evidence")
        if (columns := columns_of(self.stages)) != self.columns:
            faults.append(f"columns are {dict(self.columns)}, the stages have {columns}")
        if faults:
            raise ValueError("; ".join(faults))
        return self


def _ports(stage: BundleSpec) -> tuple[str, ...]:
    mapped = PORTS if stage.heatmap else PORTS[:-1]
    return mapped if stage.density is None else (*mapped, DENSITY)


def columns_of(stages: tuple[BundleSpec, ...]) -> dict[Group, tuple[str, ...]]:
    """Value of :attr:`FusedSpec.columns` for some stages."""
    routers = [stage for stage in stages if stage.kind is Kind.REGION]
    regions = tuple(str(stage.region) for stage in stages if stage.kind is not Kind.REGION)
    return {"region": routers[0].labels, "fracture": regions} if routers else {"fracture": regions}
