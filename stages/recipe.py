"""One training run from settings to a described, finished folder.

A run folder holds ``config.json`` (stage, settings, data and versions, written first),
``metrics.json`` and ``curves.png`` by epoch, ``best.safetensors``, ``last.safetensors`` for
resuming, and at the end ``result.json`` (calibration, thresholds, test figures) beside
``predictions.csv``.
"""

from __future__ import annotations

import hashlib
import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from pipeline.bundle import MANIFEST_NAME, write_json
from pipeline.errors import ConfigError, UsageError
from pipeline.preprocess import PreprocessSpec
from pipeline.progress import Progress

from . import checkpoint
from .assess import assess
from .config import FractureConfig, RegionConfig, StageConfig
from .data.index import Index
from .initial import find_initial, read_shipped
from .model import Network
from .spec import StageSpec, fracture_stage, one_label_kind, region_stage
from .train import BEST, CONFIG, train, versions

log = logging.getLogger(__name__)
RESULT = "result.json"


def train_region(
    run: Path, index: Index, config: RegionConfig, resume: bool, progress: Progress
) -> None:
    """Train the router and the trunk that every specialist shares.

    Raises:
        UsageError: The run folder is in use, or holds another run.
        ConfigError: The initial weights or the table do not fit.
    """
    stage = region_stage()
    initial = find_initial(config.model.init, config.model.stride_on, stage.name)
    facts = {
        "target": one_label_kind(index.of("train")),
        "stride_on": initial.stride_on,
        "initial_weights": initial.name,
        "preprocess": config.preprocess.model_dump(mode="json"),
        "cut": config.model.cut,
    }
    open_run(run, stage, index, config, facts, resume)
    torch.manual_seed(config.train.seed)
    network = Network(
        stage.outputs, initial.stride_on, config.train.trainable_from, config.model.dropout
    )
    fresh = initial.load_into(network)
    _train_and_assess(run, stage, network, fresh, index, config.preprocess, config, progress)


def train_fracture(
    run: Path, index: Index, config: FractureConfig, resume: bool, progress: Progress
) -> None:
    """Fine-tune one region's specialist from the network of a region run.

    Raises:
        UsageError: The run folder is in use, or holds another run.
        ConfigError: The region run is missing or unfinished, or the table does not fit.
    """
    stage = fracture_stage(config.region)
    shipped = (config.region_run / MANIFEST_NAME).is_file()
    if shipped:
        initial, bundle = read_shipped(config.region_run, stage.name)
        spec = bundle.preprocess
        parent = {"run_digest": bundle.trunk, "index_digest": bundle.provenance.index_digest}
    else:
        parent = read_run(config.region_run)
        initial = find_initial(str(config.region_run), "auto", stage.name)
        spec = PreprocessSpec.model_validate(parent["preprocess"])
    facts = {
        "target": one_label_kind([s for s in index.of("train") if stage.selects(s)]),
        "stride_on": initial.stride_on,
        "initial_weights": initial.name if shipped else parent["initial_weights"],
        "preprocess": spec.model_dump(mode="json"),
        "cut": config.train.trainable_from,
        "region_run_digest": parent["run_digest"],
    }
    if parent["index_digest"] != index.digest:
        log.warning(
            "%s was trained on another table: pictures that it learned from may be tested here",
            config.region_run,
        )
    open_run(run, stage, index, config, facts, resume)
    torch.manual_seed(config.train.seed)
    network = Network(stage.outputs, initial.stride_on, config.train.trainable_from, config.dropout)
    initial.load_into(network)
    _train_and_assess(run, stage, network, (), index, spec, config, progress)


def _train_and_assess(
    run: Path, stage: StageSpec, network: Network, fresh: Any, index: Index,
    preprocess: PreprocessSpec, config: StageConfig, progress: Progress,
) -> None:  # fmt: skip
    train(run, stage, network, fresh, index, preprocess, config, progress)
    best, saved = checkpoint.load(run / BEST)
    network.load_state_dict(best)
    log.info("%s: best epoch %d; calibrating and testing", run, saved["epoch"])
    result = assess(run, stage, network, index, preprocess, config, progress)
    write_json(run / RESULT, {"best_epoch": saved["epoch"], **result})


def open_run(
    run: Path,
    stage: StageSpec,
    index: Index,
    config: StageConfig,
    facts: dict[str, Any],
    resume: bool,
) -> None:
    """Describe a run in its folder before anything is computed, or check that it is the same.

    Raises:
        UsageError: The folder holds a run and ``resume`` is off, or another run than this one.
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
    if file.is_file():
        if not resume:
            raise UsageError(
                f"{run}: holds a run already", "add --resume, or name another --output"
            )
        found = json.loads(file.read_text(encoding="utf-8"))
        changed = [key for key, value in described.items() if found.get(key) != value]
        if changed:
            differences = "; ".join(f"{k}: {found.get(k)!r} → {described[k]!r}" for k in changed)
            raise UsageError(f"{run}: is another run, it cannot be resumed: {differences}")
        return
    if resume:
        raise UsageError(f"{run}: no run to resume")
    run.mkdir(parents=True, exist_ok=True)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(file, {**described, "created": created, "versions": versions()})


def read_run(run: Path) -> dict[str, Any]:
    """What a run folder says of itself, with the digest of its best weights.

    Raises:
        ConfigError: It is no run, or it has no weights yet.
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
    """The best network of a run, ready to predict, and what the run says of itself.

    Raises:
        ConfigError: It is no run, or it has no weights yet.
    """
    described = read_run(run)
    network = Network(described["outputs"], described["stride_on"], "stem")
    network.load_state_dict(checkpoint.load(run / BEST)[0])
    return network.eval(), described
