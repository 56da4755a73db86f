"""The contract of a fused graph: every stage of a weights folder in one ONNX file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from .bundle import DENSITY, BundleSpec, Contract, Digest, Kind, Precision
from .preprocess import PreprocessSpec

Group = Literal["region", "fracture"]
PORTS = ("logits", "probabilities", "evidence")


class FusedSpec(Contract):
    """What is embedded in a fused graph.

    The graph takes ``image`` (N, 1, H, W) in [0, 1]. For ``region`` (when there is a region stage)
    and for ``fracture`` it gives ``…_logits`` and ``…_probabilities`` (N, K), and ``…_evidence``
    (N, K, h, w) if there is any; for ``region`` ``…_density`` (N,) too if it has a density gate.

    Attributes:
        schema_version, kind: Of this model.
        name, precision, preprocess: See :class:`pipeline.bundle.BundleSpec`.
        stages: The region stage, if there is one, then the specialists. Each contract is that of
            the bundle it was made of, except that it takes the image, and that it speaks of a
            heatmap only if this graph gives the evidence.
        columns: Of the outputs: the regions that the region stage tells, and the region whose
            specialist each column of ``fracture`` is. For readers that know JSON only.
        sources: SHA-256 of the file of each bundle that it was made of, by name.
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
        """None, as in a complete network: the trunks are inside."""

    @property
    def groups(self) -> dict[Group, tuple[BundleSpec, ...]]:
        """The stages that share their outputs."""
        routers = tuple(stage for stage in self.stages if stage.kind is Kind.REGION)
        judges = tuple(stage for stage in self.stages if stage.kind is not Kind.REGION)
        return {"region": routers, "fracture": judges} if routers else {"fracture": judges}

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
        """A spec that is built is one that can be run."""
        judges = self.groups["fracture"]
        if self.stages[-len(judges) :] != judges or len(self.stages) > len(judges) + 1:
            raise ValueError("the stages are at most one router, then one specialist or more")
        faults = []
        if any(len(stage.labels) != 1 or stage.kind is not Kind.FRACTURE for stage in judges):
            faults.append("a specialist is a fracture stage with one label")
        for field in ("precision", "preprocess"):
            if any(getattr(stage, field) != getattr(self, field) for stage in self.stages):
                faults.append(f"every stage has the {field} of the whole")
        if any(stage.input != "image" or stage.trunk for stage in self.stages):
            faults.append("every stage takes the image")
        if len({stage.heatmap for stage in judges}) > 1:
            faults.append("all specialists give evidence, or none")
        if (columns := columns_of(self.stages)) != self.columns:
            faults.append(f"columns are {dict(self.columns)}, the stages have {columns}")
        if faults:
            raise ValueError("; ".join(faults))
        return self


def _ports(stage: BundleSpec) -> tuple[str, ...]:
    mapped = PORTS if stage.heatmap else PORTS[:-1]
    return mapped if stage.density is None else (*mapped, DENSITY)


def columns_of(stages: tuple[BundleSpec, ...]) -> dict[Group, tuple[str, ...]]:
    """What :attr:`FusedSpec.columns` says of some stages."""
    routers = [stage for stage in stages if stage.kind is Kind.REGION]
    judged = tuple(str(stage.region) for stage in stages if stage.kind is not Kind.REGION)
    return {"region": routers[0].labels, "fracture": judged} if routers else {"fracture": judged}
