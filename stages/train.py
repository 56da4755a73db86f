"""The training loop, in plain sight. Lightning Fabric brings devices, precision and processes."""

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
        run: Folder, already described by :func:`open_run`.
        stage: What is learned.
        network: With its initial weights; changed in place.
        fresh: Names of the weights that start random.
        index: Checked table; its ``train`` split is learned from, ``val`` selects the epoch.
        preprocess: Specification for every picture.
        config: Settings.
        progress: Advanced once a batch.

    Returns:
        The finished state; ``best.safetensors`` holds the averaged weights of the best epoch.
    """
    fabric = make_fabric(config.train)
    learn = [sample for sample in index.of("train") if stage.selects(sample)]
    check = [sample for sample in index.of("val") if stage.selects(sample)]
    if len(learn) < config.optim.batch_size or not check:
        raise ConfigError(
            f"{index.source}: {len(learn)} training and {len(check)} validation pictures for "
            f"{stage.name}, wanted at least {config.optim.batch_size} (one batch) and 1"
        )
    targets = stage.targets(learn)
    weights = loss_weights(targets, config.optim.pos_weight_power).to(fabric.device)
    scale = torch.tensor(output_weights(stage, config), device=fabric.device)
    data = RadiographDataset(learn, targets, preprocess)
    steps = len(learn) // (config.optim.batch_size * fabric.world_size)

    network.to(memory_format=torch.channels_last)
    optimizer = make_optimizer(network, fresh, config.optim)
    peaks = [group["lr"] for group in optimizer.param_groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, peaks, steps * config.optim.epochs, pct_start=config.optim.warmup,
        cycle_momentum=False,
    )  # fmt: skip
    average = ModelEmaV3(network, config.optim.ema_decay, use_warmup=True).to(fabric.device)
    model, stepper = fabric.setup(network, optimizer)
    state = State()
    if (run / LAST).is_file():
        state = resume(run, network, average, optimizer, schedule)
        log.info("%s: going on after epoch %d", run, state.epoch)

    while (
        state.epoch < config.optim.epochs and state.epoch - state.best_epoch < config.optim.patience
    ):
        torch.manual_seed(config.train.seed + state.epoch)
        draws = torch.Generator().manual_seed(config.train.seed + state.epoch)
        order = torch.randperm(len(learn), generator=draws).tolist()[
            fabric.global_rank :: fabric.world_size
        ]
        loader = batches(data, config.optim.batch_size, config.data.workers, order)
        model.train()
        losses = []
        for images, wanted in loader:
            images = augment(images.to(fabric.device), config.augment, draws)
            images = images.contiguous(memory_format=torch.channels_last)
            loss = masked_loss(model(images), wanted.to(fabric.device), weights, scale)
            fabric.backward(loss)
            fabric.clip_gradients(model, stepper, max_norm=config.optim.clip_norm)
            stepper.step()
            stepper.zero_grad()
            schedule.step()
            average.update(network, step=schedule.last_epoch)
            losses.append(float(loss.detach()))
            progress.advance()
        state.epoch += 1
        row = validate(average.module, stage, check, preprocess, config, fabric)
        row |= {
            "epoch": state.epoch,
            "train_loss": float(np.mean(losses)),
            "lr": schedule.get_last_lr()[0],
        }
        finish_epoch(run, state, row, network, average, optimizer, schedule, fabric)
    return state


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
    fabric = Fabric(
        accelerator=config.device,
        devices="auto" if config.device != "cpu" else 1,
        precision=precision,
    )
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


def finish_epoch(
    run: Path, state: State, row: dict[str, Any], network: Network, average: ModelEmaV3,
    optimizer: Any, schedule: Any, fabric: Fabric,
) -> None:  # fmt: skip
    """Note the figures, keep the weights if they are the best, make the run resumable."""
    state.history.append(row)
    score = row["score"] if row["score"] is not None else -row["val_loss"]
    better = state.best is None or score > state.best
    if better:
        state.best, state.best_epoch = score, state.epoch
    log.info(
        "epoch %d: %s",
        state.epoch,
        json.dumps({k: round(v, 4) for k, v in row.items() if v is not None}),
    )
    if fabric.global_rank != 0:
        return
    if better:
        checkpoint.save(
            run / BEST, average.module.state_dict(), {"epoch": state.epoch, "score": score}
        )
    tensors, extra = checkpoint.pack(network, average.module, optimizer)
    checkpoint.save(
        run / LAST, tensors, {**extra, "state": vars(state), "schedule": schedule.state_dict()}
    )
    write_json(run / METRICS, state.history)
    plot_curves(state.history, run / "curves.png")


def resume(
    run: Path, network: Network, average: ModelEmaV3, optimizer: Any, schedule: Any
) -> State:
    """Put a run back to the end of its last epoch."""
    tensors, saved = checkpoint.load(run / LAST)
    checkpoint.unpack(tensors, saved, network, average.module, optimizer)
    schedule.load_state_dict(saved["schedule"])
    return State(**saved["state"])


def versions() -> dict[str, str]:
    """What computed a run."""
    names = ("fxpipe", "torch", "torchvision", "timm", "lightning", "numpy", "pillow")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}
