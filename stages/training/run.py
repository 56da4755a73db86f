"""A training run, from settings to a finished run folder.

A run folder contains ``config.json`` (stage, settings, data and versions, written first),
``train.log``, ``batches.png`` (examples of training pictures), ``metrics.json`` and ``curves.png``
by epoch, ``best.safetensors``, ``last.safetensors`` for resuming, and at the end ``result.json``
(calibration, thresholds, test figures) and ``predictions.csv``; for a region run also
``density.safetensors``, the density gate.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from pipeline.bundle import MANIFEST_NAME, write_json
from pipeline.errors import ConfigError, UsageError
from pipeline.preprocess import PreprocessSpec
from pipeline.progress import Progress, Silent

from ..data.table_size import sample_size_warnings
from ..network import checkpoint
from ..network.checkpoint import CONFIG
from ..network.density import load as load_gate
from ..network.model import Network
from ..samples import Index
from ..settings import RESNET50, FractureConfig, RegionConfig, StageConfig, StartConfig, differences
from ..stage_spec import StageSpec, Types, check_types, fracture_stage, label_kind, region_stage
from .assessment import assess
from .environment import versions
from .initial_weights import Initial, find_initial, read_shipped
from .loop import BEST, LAST, train
from .progress_output import kept_log
from .region_thresholds import check_supported, fit_gate, fit_routes

log = logging.getLogger(__name__)
RESULT = "result.json"


def train_region(
    run: Path, index: Index, config: RegionConfig, resume: bool, progress: Progress
) -> None:
    """Train the router and the trunk that all specialists share.

    Raises:
        UsageError: The run folder is in use, or contains another run.
        ConfigError: The initial weights, the network or the table do not fit.
    """
    auxiliary = config.fracture_weight > 0.0
    target = label_kind(index.of("train"), config.mix_label_kinds) if auxiliary else None
    stage = region_stage(target)
    initial, spec = _independent(config, stage)
    network = _network(stage, config, initial, spec, config.train.arch, config.model.dropout)
    check_supported(index)
    facts = {
        **_facts(network, initial.name, spec),
        "target": target,
        "cut": network.place(config.model.cut),
    }
    open_run(run, stage, index, config, facts, resume)
    fresh = initial.load_into(network)
    _train_and_assess(run, stage, network, fresh, index, spec, config, progress)


def train_fracture(
    run: Path, index: Index, config: FractureConfig, resume: bool, progress: Progress
) -> None:
    """Train one region's specialist, from the network of a region run or independently.

    Raises:
        UsageError: The run folder is in use, or contains another run.
        ConfigError: The region run is missing or unfinished, or the network or the table do not
            fit.
    """
    samples = [s for s in index.of("train") if fracture_stage(config.region, "fracture").selects(s)]
    target = label_kind(samples, config.mix_label_kinds)
    types = Types(config.types, config.types_activation) if config.types else None
    stage = fracture_stage(config.region, target, types)
    check_types(stage, index)
    if config.independent:
        (initial, spec), arch = _independent(config, stage), config.train.arch
        origin, parent = initial.name, None
    else:
        initial, spec, origin, parent = _parent(config, stage, index)
        arch = initial.arch or RESNET50
        config = _inheriting(config, spec, arch, initial)
    network = _network(stage, config, initial, spec, arch, config.dropout)
    facts = {
        **_facts(network, origin, spec),
        "target": target,
        "types": types and asdict(types),
        "cut": network.trainable_from,
        "region_run_digest": parent,
    }
    open_run(run, stage, index, config, facts, resume)
    fresh = initial.load_into(network)
    # A network that starts from a run has one learning rate for all weights, new rows included.
    fresh = fresh if config.independent else []
    _train_and_assess(run, stage, network, fresh, index, spec, config, progress)


def _independent(
    config: RegionConfig | FractureConfig, stage: StageSpec
) -> tuple[Initial, PreprocessSpec]:
    """Initial weights and preprocessing of an independent network."""
    spec, arch, model = config.preprocess, config.train.arch, config.model
    canvas_px = (spec.height_px, spec.width_px)
    return find_initial(model.init, model.stride_on, stage.name, arch, canvas_px), spec


def _parent(
    config: FractureConfig, stage: StageSpec, index: Index
) -> tuple[Initial, PreprocessSpec, str, str]:
    """Initial state of a specialist: weights, preprocessing, their origin, and their digest.

    Raises:
        ConfigError: The settings contradict the existing network.
    """
    source = config.region_run
    if (source / MANIFEST_NAME).is_file():
        initial, bundle = read_shipped(source, stage.name)
        spec, origin = bundle.preprocess, initial.name
        digest, learned_from = str(bundle.trunk), bundle.provenance.index_digest
    else:
        described = read_run(source)
        spec = PreprocessSpec.model_validate(described["preprocess"])
        canvas_px = (spec.height_px, spec.width_px)
        arch = described.get("arch", RESNET50)
        initial = find_initial(str(source), "auto", stage.name, arch, canvas_px)
        origin, digest = described["initial_weights"], described["run_digest"]
        learned_from = described["index_digest"]
    defaults = FractureConfig()
    for name, requested, default, existing in (
        ("train.arch", config.train.arch, defaults.train.arch, initial.arch),
        ("preprocess", config.preprocess, defaults.preprocess, spec),
        ("model", config.model, defaults.model, defaults.model),
    ):
        if requested not in (default, existing):
            raise ConfigError(
                f"{name} is {requested}, but the network starts from {source}, which has its own",
                "leave it out, or train an independent network: --from none",
            )
    if learned_from != index.digest:
        log.warning(
            "%s was trained on another table: the test split may contain its training pictures",
            source,
        )
    return initial, spec, origin, digest


INHERITED = ("preprocess.", "model.", "train.arch")
"""Prefixes of settings that a specialist inherits with a network."""


def _inheriting(
    config: FractureConfig, spec: PreprocessSpec, arch: str, initial: Initial
) -> FractureConfig:
    """The settings, updated with those inherited from the initial network."""
    return config.model_copy(
        update={
            "preprocess": spec,
            "model": StartConfig(init=str(config.region_run), stride_on=initial.stride_on),
            "train": config.train.model_copy(update={"arch": arch}),
        }
    )


def _network(
    stage: StageSpec, config: StageConfig, initial: Initial, spec: PreprocessSpec, arch: str,
    dropout: float,
) -> Network:  # fmt: skip
    """Make the network of a run, with random weights."""
    torch.manual_seed(config.train.seed)
    canvas_px = (spec.height_px, spec.width_px)
    network = Network(
        stage.outputs, initial.stride_on, config.train.trainable_from, dropout, arch, canvas_px
    )
    if not network.heatmap:
        log.info("%s: no heatmap, because its decision is not linear in a feature map", arch)
    if len(network.blocks) == 1 and config.train.trainable_from != network.trainable_from:
        log.info("%s has no blocks at which it can be cut: all of it is trained", arch)
    return network


def _facts(network: Network, initial: str, spec: PreprocessSpec) -> dict[str, Any]:
    return {
        "arch": network.arch,
        "heatmap": network.heatmap,
        "stride_on": network.stride_on,
        "initial_weights": initial,
        "preprocess": spec.model_dump(mode="json"),
    }


def _train_and_assess(
    run: Path, stage: StageSpec, network: Network, fresh: Any, index: Index,
    preprocess: PreprocessSpec, config: StageConfig, progress: Progress,
) -> None:  # fmt: skip
    chosen = ([s for s in index.of(split) if stage.selects(s)] for split in ("train", "val"))
    with kept_log(run):
        warnings = sample_size_warnings(stage, *chosen)
        for warning in warnings:
            log.warning("%s: %s", run, warning)
        train(run, stage, network, fresh, index, preprocess, config, progress)
        best, saved = checkpoint.load(run / BEST)
        checkpoint.fill(network, best, run / BEST)
        log.info("%s: best epoch %d; calibrating and testing", run, saved["epoch"])
        result = assess(run, stage, network, index, preprocess, config, progress)
        if isinstance(config, RegionConfig):
            log.info("%s: fitting the density gate", run)
            result["density"] = fit_gate(run, network, index, preprocess, config, Silent())
            gate = load_gate(run, network.place(config.model.cut))
            result |= fit_routes(run, network, index, preprocess, config, result, gate)
        write_json(run / RESULT, {"best_epoch": saved["epoch"], **result, "warnings": warnings})


def open_run(
    run: Path,
    stage: StageSpec,
    index: Index,
    config: StageConfig,
    facts: dict[str, Any],
    resume: bool,
) -> None:
    """Write the description of a new run, or check that it matches the existing one.

    A run without a finished epoch starts again.

    Raises:
        UsageError: The folder contains a run and ``resume`` is off, or contains a different run.
    """
    described = {
        "stage": stage.name,
        "kind": stage.kind.value,
        "region": stage.region,
        "outputs": list(stage.outputs),
        "labels": list(stage.labels),
        "index": index.source.name,
        "index_digest": index.digest,
        **facts,
        "config": config.model_dump(mode="json"),
    }
    file = run / CONFIG
    if (run / LAST).is_file() and file.is_file():
        if not resume:
            raise UsageError(
                f"{run}: already contains a run", "add --resume, or name another --output"
            )
        existing = json.loads(file.read_text(encoding="utf-8"))
        # A setting that did not exist when the run started has its default.
        existing["config"] = {**type(config)().model_dump(mode="json"), **existing["config"]}
        changed_settings = list(changes({key: existing.get(key) for key in described}, described))
        if changed_settings:
            listed = "\n  ".join(changed_settings)
            raise UsageError(
                f"{run}: is a different run and cannot be resumed; differences:\n  {listed}",
                "resume it with its own settings, or name another --output",
            )
        return
    if resume and not file.is_file():
        raise UsageError(f"{run}: contains no run to resume")
    run.mkdir(parents=True, exist_ok=True)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(file, {**described, "created": created, "versions": versions()})


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """Yield ``optim.epochs: 14 → 20`` for each difference between two descriptions of a run."""
    messages = (
        f"{name.removeprefix('config.')}: {old!r} → {new!r}"
        for name, old, new in differences(before, after)
    )
    yield from dict.fromkeys(messages)  # preprocessing is both a setting and a fact


def read_run(run: Path) -> dict[str, Any]:
    """Read the description of a run, with the digest of its best weights.

    Raises:
        ConfigError: The folder is not a run, or has no weights yet.
    """
    try:
        described: dict[str, Any] = json.loads((run / CONFIG).read_text(encoding="utf-8"))
        described["run_digest"] = hashlib.sha256((run / BEST).read_bytes()).hexdigest()
    except (OSError, json.JSONDecodeError) as error:
        raise ConfigError(
            f"{run}: not a trained run: {error}", "train it first: `fxpipe train-stage region`"
        ) from error
    return described


def load_network(run: Path) -> tuple[Network, dict[str, Any]]:
    """Load the best network of a run, ready for inference, and the description of the run.

    Raises:
        ConfigError: The folder is not a run, or its weights are missing or broken.
    """
    described = read_run(run)
    spec = described["preprocess"]
    network = Network(
        described["outputs"], described["stride_on"], "stem",
        arch=described.get("arch", RESNET50), canvas_px=(spec["height_px"], spec["width_px"]),
    )  # fmt: skip
    checkpoint.fill(network, checkpoint.load(run / BEST)[0], run / BEST)
    return network.eval(), described
