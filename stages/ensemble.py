"""Ensembles: several exported fracture networks made into one specialist, without training.

The ensemble is a bundle of its own: a tiny graph that takes the calibrated probabilities of its
members and gives their mean, under the same contract as any other. Its members lie beside it in
the weights folder, bit for bit as they were exported but for their names.
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
from pipeline.runtime.ensemble import why_no_heatmap, why_not_together
from pipeline.weights.manifest import write_manifest

from .calibrate import DEFAULT_POINT
from .data.index import Index
from .export import stamp
from .new_folder import NewFolder, keep_notice, refuse_used
from .recalibrate import Recalibrated, Wanted, recalibrate
from .shelf import (
    Bundle,
    Shelf,
    common_precisions,
    judges,
    members_of,
    read_shelf,
    specialist,
    trunk_of,
)

log = logging.getLogger(__name__)

EDGE = 1e-7
"""Added to both odds of a mean probability, so that its log odds stay finite at 0 and 1."""
OPSET, IR_VERSION = 20, 9


@dataclass(frozen=True, slots=True)
class Pick:
    """A bundle that is to be a member.

    Attributes:
        weights: Its folder.
        bundle: Its name; None for the specialist that looks at the ensemble's region there.
    """

    weights: Path
    bundle: str | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """Which ensemble is wanted.

    Attributes:
        region: Whose specialist it becomes; ``all`` for one that looks at every region.
        members: Two or more.
        base: Weights folder that gives everything else; None for the first member's.
    """

    region: str
    members: tuple[Pick, ...]
    base: Path | None = None


@dataclass(frozen=True, slots=True)
class Made:
    """What came of it.

    Attributes:
        name: Of the ensemble's bundle.
        members: New name of each member to where it was taken from, in words.
        precisions: In which the new folder is complete.
        no_heatmap: Why there is none; None when there is one.
        calibrated: Operating points, and on how many pictures.
    """

    name: str
    members: Mapping[str, str]
    precisions: tuple[Precision, ...]
    no_heatmap: str | None
    calibrated: Recalibrated


def mean_graph(members: int) -> onnx.ModelProto:
    """(N, M) float32 ``members`` → their mean as (N, 1) ``logits``, and as ``probabilities``.

    Temperature and bias are held as in every stage, so that an ensemble can be calibrated. A
    probability that is no number stays none.
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
    taken, *given = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in ports.items()
    )
    graph = helper.make_graph(
        [helper.make_node(kind, inputs, [output]) for kind, inputs, output in steps],
        "ensemble",
        [taken],
        given,
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
        index: Table; the ensemble's operating points come from one of its splits.
        order: Which ensemble.
        target: New folder.
        wanted: Targets and split.
        config: Device and precision that compute the predictions.
        progress: Advanced once a labelled picture of the split.

    Raises:
        UsageError: The target holds something already, or there are fewer than two members.
        ConfigError: The members do not answer the same question, no precision is common to all,
            or the table has too few pictures for operating points.
        BundleError: A weights folder is damaged, or has no such bundle.
    """
    refuse_used(target)
    if len(order.members) < 2:
        raise UsageError(f"{len(order.members)} member, wanted two or more: `--member` each")
    base = order.base or order.members[0].weights
    shelves = {folder: read_shelf(folder) for folder in {base, *(p.weights for p in order.members)}}
    chosen = [_picked(shelves[pick.weights], pick, order.region) for pick in order.members]
    specs = [_single(pick, bundle) for pick, bundle in zip(order.members, chosen, strict=True)]
    name = f"{specs[0].target}-{order.region}"
    members = {f"{name}-{place}": bundle for place, bundle in enumerate(chosen, start=1)}
    spec = _contract(name, order.region, dict(zip(members, specs, strict=True)), index)
    _refuse_strangers(spec, order, chosen, specs)
    if any(member.types for member in specs):
        log.warning("an ensemble tells no types of fracture: its members' are left out")
    for pick, bundle in zip(order.members, chosen, strict=True):
        if bundle.spec.provenance.index_digest != index.digest:
            log.warning(
                "%s of %s was not trained with %s: whether it has seen these pictures cannot be "
                "told from here", bundle.spec.name, pick.weights, index.source,
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
        found = recalibrate(
            index, folder.place, target, points_only, config, progress, only=order.region
        )
    sources = dict(zip(members, _sources(chosen, order), strict=True))
    return Made(name, sources, precisions, why_no_heatmap(specs), found[order.region])


def _single(pick: Pick, bundle: Bundle) -> FractureSpec:
    """The contract of what can be a member.

    Raises:
        ConfigError: It is something else.
    """
    if isinstance(bundle.spec, FractureSpec):
        return bundle.spec
    raise ConfigError(
        f"--member {pick.weights}: {bundle.spec.name} is an ensemble itself, wanted single "
        "fracture networks"
    )


def _refuse_strangers(
    spec: EnsembleSpec, order: Order, chosen: Sequence[Bundle], specs: Sequence[FractureSpec]
) -> None:
    """Members answer the question of the ensemble, and each brings an answer of its own.

    Raises:
        ConfigError: They do not.
    """
    seen: set[str] = set()
    for pick, bundle, own in zip(order.members, chosen, specs, strict=True):
        if reason := why_not_together(spec, own):
            raise ConfigError(f"--member {pick.weights}: {reason}")
        digests = {entry.sha256 for entry, _ in bundle.files.values()}
        if seen & digests:
            raise ConfigError(f"--member {pick.weights}: {bundle.spec.name} is a member already")
        seen |= digests


def _sources(chosen: Sequence[Bundle], order: Order) -> list[str]:
    return [
        f"{bundle.spec.name} of {pick.weights}"
        for bundle, pick in zip(chosen, order.members, strict=True)
    ]


def _picked(shelf: Shelf, pick: Pick, region: str) -> Bundle:
    """The bundle that is meant.

    Raises:
        BundleError: There is none.
    """
    there = judges(shelf)
    name = pick.bundle or specialist(shelf, region) or specialist(shelf, ANY_REGION)
    if name not in there:
        raise BundleError(
            f"{pick.weights}: no {name or f'specialist for {region}'} there; fracture bundles "
            f"are {', '.join(there) or 'none'}",
            "name one with `--member WEIGHTS:BUNDLE`",
        )
    return shelf[name]


def _contract(
    name: str, region: str, specs: Mapping[str, FractureSpec], index: Index
) -> EnsembleSpec:
    """The ensemble's contract, but for its precision, its members' files and its thresholds."""
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
    shelves: Mapping[Path, Shelf], base: Path, order: Order, members: Mapping[str, Bundle]
) -> dict[str, Bundle]:
    """Everything of the new folder but the ensemble itself, under the names it will have there.

    Of the base goes what only served the region's old specialist; a trunk that members bring is
    there once, under a name that is free.
    """
    shelf = shelves[base]
    old = specialist(shelf, order.region)
    left = {name: b for name, b in shelf.items() if name != old}
    serving = {name for b in left.values() for name in members_of(b.spec)}
    gone = set(members_of(shelf[old].spec)) - serving if old else set()
    left = {name: b for name, b in left.items() if name not in gone}
    trunks = {n: b.spec.trunk for n, b in left.items() if isinstance(b.spec, TrunkSpec)}
    used = {b.spec.trunk for name, b in left.items() if name not in trunks}
    left = {n: b for n, b in left.items() if n not in trunks or trunks[n] in used}
    added = list(members.items())
    there = {trunks[name] for name in left if name in trunks}
    for name, bundle in members.items():
        trunk = bundle.spec.trunk
        if trunk is None or trunk in there:
            continue
        brought = trunk_of(trunk, bundle, shelves[bundle.folder])
        taken = {*left, *(key for key, _ in added)}
        own = brought.spec.name
        added.append((own if own not in taken else f"trunk-{name}", brought))
        there.add(trunk)
    gathered = {**left, **dict(added)}
    if len(gathered) < len(left) + len(added):
        needed = ", ".join(name for name, _ in added if name in left)
        raise ConfigError(f"{base}: other bundles have names that are needed: {needed}")
    return gathered


def _write(
    folder: NewFolder, bundles: Mapping[str, Bundle], spec: EnsembleSpec,
    members: Iterable[str], precision: Precision,
) -> None:  # fmt: skip
    """Write everything of one precision, the ensemble last: it names its members' files."""
    digests = {
        name: folder.add(bundle.spec, name, precision, bundle.content(precision, name))
        for name, bundle in bundles.items()
    }
    held = {name: digests[name] for name in members}
    own = spec.changed(precision=precision, members=held)
    folder.add(own, own.name, precision, stamp(mean_graph(len(held)), own))
