"""The contract of a fused graph: every stage of a weights folder in one ONNX file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, TypeAdapter, model_validator

from .bundle import (
    Contract,
    Digest,
    FractureSpec,
    Kind,
    Name,
    Precision,
    RegionSpec,
    contract_in,
)
from .older_bundles import in_present_form
from .preprocess import PreprocessSpec

Group = Literal["region", "fracture"]
Part = RegionSpec | FractureSpec
"""What can be a part of a fused graph."""
_Part = Annotated[Annotated[Part, Field(discriminator="kind")], BeforeValidator(in_present_form)]


class FusedSpec(Contract):
    """What is embedded in a fused graph.

    The graph takes ``image`` (N, 1, H, W) in [0, 1]. For ``region`` (when there is a region stage)
    and for ``fracture`` it gives ``…_logits`` and ``…_probabilities`` (N, K), and ``…_evidence``
    (N, K, h, w) if there is any; for ``region`` ``…_density`` (N,) too if it has a density gate.

    Attributes:
        schema_version, kind: Of this model.
        name, precision, preprocess: See :class:`pipeline.bundle.NetworkSpec`.
        stages: The region stage, if there is one, then the specialists. Each contract is that of
            the bundle it was made of, except that it takes the image, looks once, tells no types,
            and speaks of a heatmap only if this graph gives the evidence.
        columns: Of the outputs: the regions that the region stage tells, and the region whose
            specialist each column of ``fracture`` is. For readers that know JSON only.
        sources: SHA-256 of the file of each bundle that it was made of, by name.
    """

    schema_version: Literal[1] = 1
    kind: Literal[Kind.FUSED] = Kind.FUSED
    name: Name
    precision: Precision
    preprocess: PreprocessSpec
    stages: tuple[_Part, ...]
    columns: Mapping[Group, tuple[str, ...]]
    sources: Mapping[str, Digest]

    @property
    def trunk(self) -> None:
        """None, as in a complete network: the trunks are inside."""

    @property
    def router(self) -> RegionSpec | None:
        """The stage that routes, if there is one."""
        return next((stage for stage in self.stages if isinstance(stage, RegionSpec)), None)

    @property
    def specialists(self) -> tuple[FractureSpec, ...]:
        """The others, in the order of their columns."""
        return tuple(stage for stage in self.stages if isinstance(stage, FractureSpec))

    @property
    def groups(self) -> dict[Group, tuple[Part, ...]]:
        """The stages that share their outputs."""
        specialists: dict[Group, tuple[Part, ...]] = {"fracture": self.specialists}
        return {"region": (self.router,), **specialists} if self.router else specialists

    @property
    def outputs(self) -> dict[str, tuple[Group, str]]:
        """Group and port of every output of the graph, by name."""
        return {
            f"{group}_{port}": (group, port)
            for group, stages in self.groups.items()
            for port in stages[0].outputs
        }

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], source: str) -> FusedSpec:
        """Read the contract back; see :func:`pipeline.bundle.read_contract`."""
        return contract_in(metadata, source, TypeAdapter(cls))

    @model_validator(mode="after")
    def _complete(self) -> FusedSpec:
        """A spec that is built is one that can be run."""
        judges = self.specialists
        if self.stages[-len(judges) :] != judges or len(self.stages) > len(judges) + 1:
            raise ValueError("the stages are at most one router, then one specialist or more")
        faults = []
        if any(stage.closer or stage.types for stage in judges):
            faults.append("a specialist looks once and tells no types")
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


def columns_of(stages: Sequence[Part]) -> dict[Group, tuple[str, ...]]:
    """What :attr:`FusedSpec.columns` says of some stages."""
    routed = next((stage.labels for stage in stages if isinstance(stage, RegionSpec)), None)
    judged = tuple(stage.region for stage in stages if isinstance(stage, FractureSpec))
    return {"fracture": judged} if routed is None else {"region": routed, "fracture": judged}
