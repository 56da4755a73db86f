"""The training loop, in plain sight. Lightning Fabric brings device and precision."""

from __future__ import annotations

import json
import logging
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn

from pipeline.bundle import write_json
from pipeline.domain import Array
from pipeline.errors import ConfigError
from pipeline.preprocess import PreprocessSpec
from pipeline.progress import Progress

from . import checkpoint
from .config import OptimConfig, StageConfig, TrainConfig
from .data.augment import augment
from .data.dataset import RadiographDataset, batches
from .data.index import Index
from .metrics import auc
from .model import Network
from .plots import plot_curves
from .spec import StageSpec

log = logging.getLogger(__name__)
BEST, LAST, CONFIG, METRICS = "best.safetensors", "last.safetensors", "config.json", "metrics.json"


@dataclass
class State:
    """Where a run stands; everything here is saved at the end of each epoch."""

    epoch: int = 0
    best: float | None = None
    best_epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Learner:
    """What a step of training changes: the network, its running average, and their drivers.

    ``model`` and ``stepper`` are network and optimizer as Fabric wraps them.
    """

    network: Network
    average: ModelEmaV3
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.OneCycleLR
    model: Any
    stepper: Any


def train(
    run: Path,
    stage: StageSpec,
    network: Network,
    fresh: Sequence[str],
    index: Index,
    preprocess: PreprocessSpec,
    config: StageConfig,
    progress: Progress,
) -> State:
    """Train a network into a run folder; goes on from its last epoch when there is one.

    Args:
        run: Folder, already described by :func:`stages.recipe.open_run`.
        stage: What is learned.
        network: With its initial weights; changed in place.
        fresh: Names of the weights that start random.
        index: Checked table; its ``train`` split is learned from, ``val`` selects the epoch.
        preprocess: Specification for every picture.
        config: Settings.
        progress: Advanced once a batch.

    Returns:
        The finished state; ``best.safetensors`` holds the averaged weights of the best epoch.

    Raises:
        ConfigError: The table has not enough pictures for the stage.
    """
    optim = config.optim
    fabric = make_fabric(config.train)
    learn = [sample for sample in index.of("train") if stage.selects(sample)]
    check = [sample for sample in index.of("val") if stage.selects(sample)]
    if len(learn) < optim.batch_size or not check:
        raise ConfigError(
            f"{index.source}: {len(learn)} training and {len(check)} validation pictures for "
            f"{stage.name}, wanted at least {optim.batch_size} (one batch) and 1"
        )
    data = RadiographDataset(learn, stage.targets(learn), preprocess)
    learner = make_learner(network, fresh, optim, len(learn) // optim.batch_size, fabric)
    state = State()
    if (run / LAST).is_file():
        state = resume(run, learner)
        log.info("%s: going on after epoch %d", run, state.epoch)
    while state.epoch < optim.epochs and state.epoch - state.best_epoch < optim.patience:
        loss = train_epoch(state.epoch, learner, data, stage, config, fabric, progress)
        row = validate(learner.average.module, stage, check, preprocess, config, fabric)
        rate = learner.schedule.get_last_lr()[0]
        state.epoch += 1
        finish_epoch(
            run, state, {"epoch": state.epoch, "train_loss": loss, "lr": rate, **row}, learner
        )
    return state


def make_learner(
    network: Network, fresh: Sequence[str], config: OptimConfig, steps: int, fabric: Fabric
) -> Learner:
    """The network on its device, with optimizer, schedule and average.

    Args:
        network: With its initial weights.
        fresh: Names of the weights that start random.
        config: Settings.
        steps: Of one epoch.
        fabric: Device and precision.
    """
    network.to(memory_format=torch.channels_last)
    optimizer = make_optimizer(network, fresh, config)
    peaks = [group["lr"] for group in optimizer.param_groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, peaks, steps * config.epochs, pct_start=config.warmup, cycle_momentum=False
    )
    model, stepper = fabric.setup(network, optimizer)  # moves the network to its device
    average = ModelEmaV3(network, config.ema_decay, use_warmup=True)
    return Learner(network, average, optimizer, schedule, model, stepper)


def train_epoch(
    epoch: int, learner: Learner, data: RadiographDataset, stage: StageSpec, config: StageConfig,
    fabric: Fabric, progress: Progress,
) -> float:  # fmt: skip
    """Show every training picture once; returns the mean loss.

    All randomness is drawn from seed and epoch, so that a resumed run repeats it exactly.
    """
    torch.manual_seed(config.train.seed + epoch)
    draws = torch.Generator().manual_seed(config.train.seed + epoch)
    weights = loss_weights(data.targets.numpy(), config.optim.pos_weight_power).to(fabric.device)
    scale = torch.tensor(output_weights(stage, config), device=fabric.device)
    order = torch.randperm(len(data), generator=draws).tolist()
    learner.model.train()
    losses = []
    for images, wanted in batches(data, config.optim.batch_size, config.data.workers, order):
        images = augment(images.to(fabric.device), config.augment, draws)
        images = images.contiguous(memory_format=torch.channels_last)
        loss = masked_loss(learner.model(images), wanted.to(fabric.device), weights, scale)
        fabric.backward(loss)
        fabric.clip_gradients(learner.model, learner.stepper, max_norm=config.optim.clip_norm)
        learner.stepper.step()
        learner.stepper.zero_grad()
        learner.schedule.step()
        learner.average.update(learner.network, step=learner.schedule.last_epoch)
        losses.append(float(loss.detach()))
        progress.advance()
    return float(np.mean(losses))


def make_fabric(config: TrainConfig) -> Fabric:
    """The device and precision that the settings ask for.

    Raises:
        ConfigError: A GPU was asked for and there is none.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("train.device is cuda, but torch sees no CUDA device")
    precision: Any = config.precision
    if precision == "auto":
        on_gpu = config.device != "cpu" and torch.cuda.is_available()
        native = torch.cuda.is_bf16_supported() if on_gpu else cpu_has_bf16()
        precision = "bf16-mixed" if native else "32-true"
    fabric = Fabric(accelerator=config.device, devices=1, precision=precision)
    fabric.launch()
    return fabric


def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 itself; emulated it is slower than float32."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def loss_weights(targets: Array, power: float) -> Tensor:
    """(K,) weight of the positives of each output: (negatives / positives) ** power."""
    positives, negatives = (targets == 1).sum(0), (targets == 0).sum(0)
    ratio = negatives / np.maximum(positives, 1)
    return torch.from_numpy((np.maximum(ratio, 1e-3) ** power).astype(np.float32))


def output_weights(stage: StageSpec, config: StageConfig) -> list[float]:
    """(K,) weight of each output in the loss; the auxiliary one has its own."""
    auxiliary = getattr(config, "fracture_weight", 1.0)
    return [1.0 if label in stage.labels else auxiliary for label in stage.outputs]


def masked_loss(logits: Tensor, targets: Tensor, pos_weight: Tensor, scale: Tensor) -> Tensor:
    """Binary cross-entropy, mean over the known targets of each output, summed over outputs."""
    known = ~torch.isnan(targets)
    losses = nn.functional.binary_cross_entropy_with_logits(
        logits.float(), torch.where(known, targets, 0.0), pos_weight=pos_weight, reduction="none"
    )
    means = (losses * known).sum(0) / known.sum(0).clamp_min(1)
    return (means * scale).sum()


def make_optimizer(
    network: Network, fresh: Sequence[str], config: OptimConfig
) -> torch.optim.AdamW:
    """AdamW; random weights learn faster, vectors (biases, norms) do not decay."""
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, weight in network.named_parameters():
        if weight.requires_grad:
            rate = config.fresh_lr if name in fresh else config.lr
            decay = config.weight_decay if weight.ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(weight)
    return torch.optim.AdamW(
        [{"params": p, "lr": rate, "weight_decay": decay} for (rate, decay), p in groups.items()]
    )


@torch.inference_mode()
def predict(
    network: nn.Module, dataset: RadiographDataset, batch_size: int, workers: int, fabric: Fabric
) -> Array:
    """(N, K) float32 logits of a data set, in its order."""
    network.eval()
    rows = []
    for images, _ in batches(dataset, batch_size, workers):
        images = images.to(fabric.device).contiguous(memory_format=torch.channels_last)
        with fabric.autocast():
            rows.append(network(images).float().cpu().numpy())
    return np.concatenate(rows)


def validate(
    network: nn.Module, stage: StageSpec, samples: Sequence[Any], preprocess: PreprocessSpec,
    config: StageConfig, fabric: Fabric,
) -> dict[str, Any]:  # fmt: skip
    """AUC of each output on the validation split, and their mean, which selects the epoch.

    A region run weighs routing and the auxiliary output alike: the trunk serves both.
    """
    targets = stage.targets(samples)
    dataset = RadiographDataset(samples, targets, preprocess)
    logits = predict(network, dataset, config.optim.batch_size, config.data.workers, fabric)
    scores = {
        f"auc_{name}": auc(targets[:, k], logits[:, k]) for k, name in enumerate(stage.outputs)
    }
    main = [scores[f"auc_{name}"] for name in stage.labels]
    extra = [scores[f"auc_{name}"] for name in stage.outputs if name not in stage.labels]
    parts = [
        np.mean(known) for part in (main, extra) if (known := [v for v in part if v is not None])
    ]
    loss = masked_loss(
        *map(torch.from_numpy, (logits, targets)), *[torch.ones(len(stage.outputs))] * 2
    )
    return {"val_loss": float(loss), **scores, "score": float(np.mean(parts)) if parts else None}


def finish_epoch(run: Path, state: State, row: dict[str, Any], learner: Learner) -> None:
    """Note the figures, keep the weights if they are the best, make the run resumable."""
    state.history.append(row)
    score = row["score"] if row["score"] is not None else -row["val_loss"]
    better = state.best is None or score > state.best
    if better:
        state.best, state.best_epoch = score, state.epoch
    shown = {key: round(value, 4) for key, value in row.items() if value is not None}
    log.info("epoch %d: %s", state.epoch, json.dumps(shown))
    average = learner.average.module
    if better:
        facts = {"epoch": state.epoch, "score": score}
        checkpoint.save(run / BEST, average.state_dict(), facts)
    tensors, extra = checkpoint.pack(learner.network, average, learner.optimizer)
    extra |= {"state": vars(state), "schedule": learner.schedule.state_dict()}
    checkpoint.save(run / LAST, tensors, extra)
    write_json(run / METRICS, state.history)
    plot_curves(state.history, run / "curves.png")


def resume(run: Path, learner: Learner) -> State:
    """Put a run back to the end of its last epoch."""
    tensors, saved = checkpoint.load(run / LAST)
    average = learner.average.module
    checkpoint.unpack(tensors, saved, learner.network, average, learner.optimizer)
    learner.schedule.load_state_dict(saved["schedule"])
    return State(**saved["state"])


def versions() -> dict[str, str]:
    """What computed a run."""
    names = ("fxpipe", "torch", "torchvision", "timm", "lightning", "numpy", "pillow")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}
