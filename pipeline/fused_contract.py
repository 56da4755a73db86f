"""Contract of a fused graph: all stages of a weights folder in one ONNX file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, TypeAdapter, model_validator

from .bundle import Contract, Digest, FractureSpec, Kind, Name, Precision, RegionSpec, contract_in
from .older_bundles import upgrade_contract
from .preprocess import PreprocessSpec

Group = Literal["region", "fracture"]
Part = RegionSpec | FractureSpec
"""Contracts that can be part of a fused graph."""
_Part = Annotated[Annotated[Part, Field(discriminator="kind")], BeforeValidator(upgrade_contract)]


class FusedSpec(Contract):
    """Contract embedded in a fused graph.

    The input is ``image`` (N, 1, H, W) in [0, 1]. The outputs for ``region`` (if there is a region
    stage) and ``fracture`` are ``…_logits`` and ``…_probabilities`` (N, K), and optionally
    ``…_evidence`` (N, K, h, w); for ``region`` also ``…_density`` (N,) if it has a density gate.

    Attributes:
        schema_version, kind: Version and kind of this contract.
        name, precision, preprocess: See :class:`pipeline.bundle.NetworkSpec`.
        stages: The region stage, if there is one, then the specialists. Each contract is that of
            the original bundle, except that its input is the image, that it has one look and no
            types, and that it declares a heatmap only if this graph has the evidence.
        columns: Regions of the output columns: the regions of the region stage, and the region of
            the specialist in each column of ``fracture``. For readers without this code.
        sources: SHA-256 of the file of each original bundle, by name.
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
        """None, as in a complete network, because the graph contains the trunks."""

    @property
    def router(self) -> RegionSpec | None:
        """The region stage; None if there is none."""
        return next((stage for stage in self.stages if isinstance(stage, RegionSpec)), None)

    @property
    def specialists(self) -> tuple[FractureSpec, ...]:
        """The specialists, in the order of their columns."""
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
        """Refuse contracts that cannot be run."""
        specialists = self.specialists
        if (
            self.stages[-len(specialists) :] != specialists
            or len(self.stages) > len(specialists) + 1
        ):
            raise ValueError("the stages must be at most one router, then one or more specialists")
        faults = []
        if any(stage.closer or stage.types for stage in specialists):
            faults.append("a specialist must have one look and no types")
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


def columns_of(stages: Sequence[Part]) -> dict[Group, tuple[str, ...]]:
    """Value of :attr:`FusedSpec.columns` for some stages."""
    routed = next((stage.labels for stage in stages if isinstance(stage, RegionSpec)), None)
    regions = tuple(stage.region for stage in stages if isinstance(stage, FractureSpec))
    return {"fracture": regions} if routed is None else {"region": routed, "fracture": regions}
