"""Ensembles: several exported fracture networks combined to one specialist, without training.

The ensemble is a bundle with a small graph: it takes the calibrated probabilities of its members
and returns their mean, with the same contract as any specialist. Its members are in the same
weights folder, unchanged except for their names.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from pipeline import version, versions_of
from pipeline.bundle import (
    EnsembleSpec,
    Estimate,
    FractureSpec,
    Precision,
    Provenance,
    StoredPoint,
    TrunkSpec,
)
from pipeline.config import RunConfig
from pipeline.domain import ANY_REGION
from pipeline.errors import BundleError, ConfigError, UsageError
from pipeline.progress import Progress
from pipeline.runtime.ensemble_network import why_no_heatmap, why_not_together
from pipeline.weights.manifest import write_manifest

from ..bundles.reader import (
    Bundle,
    BundlesByName,
    common_precisions,
    judges,
    members_of,
    read_bundles,
    specialist,
    trunk_of,
)
from ..bundles.stamp import stamp
from ..bundles.writer import NewFolder, keep_notice, refuse_used
from ..samples import Index
from ..statistics.calibration import DEFAULT_POINT
from .recalibrate import Recalibrated, Wanted, recalibrate

log = logging.getLogger(__name__)

EDGE = 1e-7
"""Added to p and 1 - p of a mean probability, so that its log odds stay finite at 0 and 1."""
OPSET, IR_VERSION = 20, 9


@dataclass(frozen=True, slots=True)
class Pick:
    """A bundle selected as a member.

    Attributes:
        weights: Weights folder of the bundle.
        bundle: Name of the bundle; None for the folder's specialist for the ensemble's region.
    """

    weights: Path
    bundle: str | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """The requested ensemble.

    Attributes:
        region: Region of the ensemble; ``all`` for every region.
        members: Two or more members.
        base: Weights folder of all other bundles; None for that of the first member.
    """

    region: str
    members: tuple[Pick, ...]
    base: Path | None = None


@dataclass(frozen=True, slots=True)
class Made:
    """The result of :func:`make_ensemble`.

    Attributes:
        name: Name of the ensemble's bundle.
        members: Description of the source of each member, by its new name.
        precisions: Precisions in which the new folder is complete.
        no_heatmap: Reason for a missing heatmap; None with a heatmap.
        calibrated: Operating points and numbers of pictures.
    """

    name: str
    members: Mapping[str, str]
    precisions: tuple[Precision, ...]
    no_heatmap: str | None
    calibrated: Recalibrated


def mean_graph(members: int) -> onnx.ModelProto:
    """Make a graph: (N, M) float32 ``members`` → mean as (N, 1) ``logits`` and ``probabilities``.

    Temperature and bias are stored as in every stage, so that an ensemble can be calibrated. NaN
    stays NaN.
    """
    constants: dict[str, NDArray[Any]] = {
        "axes": np.array([1], np.int64),
        "edge": np.array(EDGE, np.float32),
        "one": np.array(1, np.float32),
        "temperature": np.array([1], np.float32),
        "bias": np.array([0], np.float32),
    }
    steps = (
        ("ReduceMean", ["members", "axes"], "mean"),
        ("Sub", ["one", "mean"], "rest"),
        ("Add", ["mean", "edge"], "for"),
        ("Add", ["rest", "edge"], "against"),
        ("Div", ["for", "against"], "odds"),
        ("Log", ["odds"], "logits"),
        ("Div", ["logits", "temperature"], "scaled"),
        ("Add", ["scaled", "bias"], "calibrated"),
        ("Sigmoid", ["calibrated"], "probabilities"),
    )
    ports: dict[str, Sequence[str | int | None]] = {
        "members": ["N", members],
        "logits": ["N", 1],
        "probabilities": ["N", 1],
    }
    graph_input, *graph_outputs = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in ports.items()
    )
    graph = helper.make_graph(
        [helper.make_node(kind, inputs, [output]) for kind, inputs, output in steps],
        "ensemble",
        [graph_input],
        graph_outputs,
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = helper.make_opsetid("", OPSET)
    return helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)


def make_ensemble(
    index: Index, order: Order, target: Path, wanted: Wanted, config: RunConfig,
    progress: Progress,
) -> Made:  # fmt: skip
    """Write a weights folder in which a region's specialist is an ensemble.

    Args:
        index: Table; one of its splits provides the ensemble's operating points.
        order: The requested ensemble.
        target: New folder.
        wanted: Targets and split.
        config: Device and precision of the predictions.
        progress: Advanced once per labelled picture of the split.

    Raises:
        UsageError: The target already contains files, or there are fewer than two members.
        ConfigError: The members are not compatible, have no common precision, or the table has too
            few pictures for operating points.
        BundleError: A weights folder is damaged, or has no such bundle.
    """
    refuse_used(target)
    if len(order.members) < 2:
        raise UsageError(f"{len(order.members)} member, expected two or more (one `--member` each)")
    base = order.base or order.members[0].weights
    shelves = {
        folder: read_bundles(folder) for folder in {base, *(p.weights for p in order.members)}
    }
    chosen = [_picked(shelves[pick.weights], pick, order.region) for pick in order.members]
    specs = [_single(pick, bundle) for pick, bundle in zip(order.members, chosen, strict=True)]
    name = f"{specs[0].target}-{order.region}"
    members = {f"{name}-{place}": bundle for place, bundle in enumerate(chosen, start=1)}
    spec = _contract(name, order.region, dict(zip(members, specs, strict=True)), index)
    _check_members(spec, order, chosen, specs)
    if any(member.types for member in specs):
        log.warning("an ensemble has no fracture types: those of its members are omitted")
    for pick, bundle in zip(order.members, chosen, strict=True):
        if bundle.spec.provenance.index_digest != index.digest:
            log.warning(
                "%s of %s was not trained with %s: its training data may contain these pictures",
                bundle.spec.name, pick.weights, index.source,
            )  # fmt: skip
    bundles = _gathered(shelves, base, order, members)
    precisions = common_precisions(bundles)
    with TemporaryDirectory() as staging:
        folder = NewFolder(Path(staging))
        for precision in precisions:
            _write(folder, bundles, spec, members, precision)
        keep_notice(base, folder.place)
        write_manifest(folder.place, folder.entries)
        points_only = replace(wanted, points_only=True)
        calibrated = recalibrate(
            index, folder.place, target, points_only, config, progress, only=order.region
        )
    sources = dict(zip(members, _sources(chosen, order), strict=True))
    return Made(name, sources, precisions, why_no_heatmap(specs), calibrated[order.region])


def _single(pick: Pick, bundle: Bundle) -> FractureSpec:
    """The contract of a member, which must be a single network.

    Raises:
        ConfigError: The bundle is not a single fracture network.
    """
    if isinstance(bundle.spec, FractureSpec):
        return bundle.spec
    raise ConfigError(
        f"--member {pick.weights}: {bundle.spec.name} is an ensemble itself, expected single "
        "fracture networks"
    )


def _check_members(
    spec: EnsembleSpec, order: Order, chosen: Sequence[Bundle], specs: Sequence[FractureSpec]
) -> None:
    """Check that the members are compatible with the ensemble and different from each other.

    Raises:
        ConfigError: A member is incompatible or occurs twice.
    """
    seen: set[str] = set()
    for pick, bundle, member in zip(order.members, chosen, specs, strict=True):
        if reason := why_not_together(spec, member):
            raise ConfigError(f"--member {pick.weights}: {reason}")
        digests = {entry.sha256 for entry, _ in bundle.files.values()}
        if seen & digests:
            raise ConfigError(f"--member {pick.weights}: {bundle.spec.name} is already a member")
        seen |= digests


def _sources(chosen: Sequence[Bundle], order: Order) -> list[str]:
    return [
        f"{bundle.spec.name} of {pick.weights}"
        for bundle, pick in zip(chosen, order.members, strict=True)
    ]


def _picked(shelf: BundlesByName, pick: Pick, region: str) -> Bundle:
    """Select the bundle of a member.

    Raises:
        BundleError: There is no such bundle.
    """
    available = judges(shelf)
    name = pick.bundle or specialist(shelf, region) or specialist(shelf, ANY_REGION)
    if name not in available:
        raise BundleError(
            f"{pick.weights}: contains no {name or f'specialist for {region}'}; its fracture "
            f"bundles are {', '.join(available) or 'none'}",
            "name one with `--member WEIGHTS:BUNDLE`",
        )
    return shelf[name]


def _contract(
    name: str, region: str, specs: Mapping[str, FractureSpec], index: Index
) -> EnsembleSpec:
    """The ensemble's contract, except for precision, files of the members and thresholds."""
    first = next(iter(specs.values()))
    unknown = Estimate(value=None, note="not measured yet")
    half = StoredPoint(
        threshold=0.5, doubt_below=0.5, rule="none yet", sensitivity=unknown, specificity=unknown
    )
    return EnsembleSpec(
        name=name,
        precision=Precision.FP32,
        preprocess=first.preprocess,
        members=dict.fromkeys(specs, "0" * 64),
        labels=first.labels,
        heatmap=why_no_heatmap(list(specs.values())) is None,
        region=region,
        target=first.target,
        temperature=(1.0,),
        bias=(0.0,),
        operating_points={DEFAULT_POINT: half},
        default_point=DEFAULT_POINT,
        provenance=Provenance(
            fxpipe_version=version(),
            run="ensemble",
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            index_digest=index.digest,
            data="; ".join(dict.fromkeys(spec.provenance.data for spec in specs.values())),
            initial_weights="those of its members",
            versions=versions_of(("numpy", "onnx")),
            architecture=" + ".join(
                dict.fromkeys(spec.provenance.architecture for spec in specs.values())
            ),
            recipe={"members": {
                key: f"{spec.name}, run {spec.provenance.run} of {spec.provenance.created}"
                for key, spec in specs.items()
            }},
        ),
    )  # fmt: skip


def _gathered(
    shelves: Mapping[Path, BundlesByName], base: Path, order: Order, members: Mapping[str, Bundle]
) -> dict[str, Bundle]:
    """All bundles of the new folder, except for the ensemble itself, by their new names.

    Bundles of the base that served only the region's previous specialist are removed; each trunk of
    a member is included once, under an unused name.
    """
    shelf = shelves[base]
    replaced = specialist(shelf, order.region)
    kept = {name: b for name, b in shelf.items() if name != replaced}
    serving = {name for b in kept.values() for name in members_of(b.spec)}
    unused = set(members_of(shelf[replaced].spec)) - serving if replaced else set()
    kept = {name: b for name, b in kept.items() if name not in unused}
    trunks = {n: b.spec.trunk for n, b in kept.items() if isinstance(b.spec, TrunkSpec)}
    used = {b.spec.trunk for name, b in kept.items() if name not in trunks}
    kept = {n: b for n, b in kept.items() if n not in trunks or trunks[n] in used}
    added = list(members.items())
    included = {trunks[name] for name in kept if name in trunks}
    for name, bundle in members.items():
        trunk = bundle.spec.trunk
        if trunk is None or trunk in included:
            continue
        trunk_bundle = trunk_of(trunk, bundle, shelves[bundle.folder])
        names = {*kept, *(key for key, _ in added)}
        trunk_name = trunk_bundle.spec.name
        added.append((trunk_name if trunk_name not in names else f"trunk-{name}", trunk_bundle))
        included.add(trunk)
    gathered = {**kept, **dict(added)}
    if len(gathered) < len(kept) + len(added):
        clashes = ", ".join(name for name, _ in added if name in kept)
        raise ConfigError(f"{base}: other bundles use the names of the members: {clashes}")
    return gathered


def _write(
    folder: NewFolder, bundles: Mapping[str, Bundle], spec: EnsembleSpec,
    members: Iterable[str], precision: Precision,
) -> None:  # fmt: skip
    """Write all bundles of one precision; the ensemble is last, as it refers to its members."""
    digests = {
        name: folder.add(bundle.spec, name, precision, bundle.content(precision, name))
        for name, bundle in bundles.items()
    }
    member_digests = {name: digests[name] for name in members}
    ensemble = spec.changed(precision=precision, members=member_digests)
    folder.add(ensemble, ensemble.name, precision, stamp(mean_graph(len(member_digests)), ensemble))
