"""The training loop: epochs, validation, checkpoints."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor

from pipeline.bundle import write_json
from pipeline.domain import Array
from pipeline.errors import ConfigError
from pipeline.preprocess import PreprocessSpec
from pipeline.progress import Progress

from ..data.dataset import RadiographDataset, Sources, batches
from ..data.feature_cache import Views, find_views
from ..data.mixup import mixup
from ..network import checkpoint
from ..network.model import Network
from ..samples import Index
from ..settings import OptimConfig, StageConfig
from ..stage_spec import StageSpec
from ..statistics.metrics import auc
from .batch_sheet import SHEET, draw_sheet
from .curves import plot_curves
from .environment import device_name, make_fabric
from .loss import Criterion, masked_loss
from .progress_output import EpochTable
from .sampling import draw_order, epoch_steps

log = logging.getLogger(__name__)
BEST, LAST, METRICS = "best.safetensors", "last.safetensors", "metrics.json"


@dataclass
class State:
    """Progress of a run, saved at the end of each epoch."""

    epoch: int = 0
    best: float | None = None
    best_epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Learner:
    """State that a training step changes: network, running average, optimizer and schedule.

    ``model`` and ``stepper`` are network and optimizer wrapped by Fabric.
    """

    network: Network
    average: ModelEmaV3
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    model: Any
    stepper: Any

    @property
    def averaged(self) -> Network:
        """The network with the averaged weights, the result of the run."""
        module = self.average.module
        assert isinstance(module, Network)  # noqa: S101  (for mypy)
        return module


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
    """Train a network into a run folder; continue after its last epoch if there is one.

    Args:
        run: Folder, already described by :func:`stages.training.run.open_run`.
        stage: The stage.
        network: Network with initial weights; changed in place.
        fresh: Names of the randomly initialised weights.
        index: Checked table; ``train`` is for training, ``val`` selects the epoch.
        preprocess: Preprocessing of every picture.
        config: Settings.
        progress: Advanced once per batch.

    Returns:
        The finished state; ``best.safetensors`` holds the averaged weights of the best epoch.

    Raises:
        ConfigError: The table has too few pictures for the stage, or the network has no heatmap for
            the box loss.
    """
    optim = config.optim
    if optim.box_weight and not network.heatmap:
        raise ConfigError(
            f"optim.box_weight is {optim.box_weight}, but {network.arch} has no heatmap for the "
            "box loss, expected 0"
        )
    fabric = make_fabric(config.train)
    learn = [sample for sample in index.of("train") if stage.selects(sample)]
    check = [sample for sample in index.of("val") if stage.selects(sample)]
    if len(learn) < optim.batch_size or not check:
        raise ConfigError(
            f"{index.source}: {len(learn)} training and {len(check)} validation pictures for "
            f"{stage.name}, expected at least {optim.batch_size} (one batch) and 1"
        )
    data = RadiographDataset(learn, stage.targets(learn), preprocess)
    views = find_views(network, stage, index, preprocess, config, fabric, progress)
    steps = epoch_steps(learn, optim)
    learner = make_learner(network, fresh, optim, steps, fabric)
    state = State()
    if (run / LAST).is_file():
        state = resume(run, learner)
        log.info("%s: continuing after epoch %d", run, state.epoch)
    epoch_pictures = steps * optim.batch_size
    device = device_name(fabric)
    log.info(
        "%s: %d training and %d validation pictures, at most %d epochs of %d batches of %d; %s in "
        "%s", run, len(learn), len(check), optim.epochs, epoch_pictures // optim.batch_size,
        optim.batch_size, device, fabric._precision.precision,
    )  # fmt: skip
    if state.epoch == 0:
        draws = torch.Generator().manual_seed(config.train.seed)
        order = draw_order(learn, optim, draws)
        data.sources = Sources(config.augment, config.train.seed, stage.concerns_fractures)
        draw_sheet(run / SHEET, data, order, stage.outputs, config, draws)
        log.info("see %s for examples of training pictures", run / SHEET)
    table = EpochTable(stage.outputs, optim.epochs, epoch_pictures, state.epoch)
    for line in table.head():
        log.info("%s", line)
    while state.epoch < optim.epochs and state.epoch - state.best_epoch < optim.patience:
        progress.expect(
            f"epoch {state.epoch + 1} of {optim.epochs}, {device}: pictures",
            epoch_pictures * optim.epochs, epoch_pictures * state.epoch, optim.batch_size,
        )  # fmt: skip
        began_s = time.perf_counter()
        loss = train_epoch(state.epoch, learner, data, views, stage, config, fabric, progress)
        trained_s = time.perf_counter() - began_s
        row = validate(learner.averaged, stage, check, preprocess, config, fabric, views)
        rate = learner.schedule.get_last_lr()[0]
        state.epoch += 1
        row = {"epoch": state.epoch, "train_loss": loss, "lr": rate, **row}
        better = finish_epoch(run, state, row, learner)
        log.info("%s", table.line(row, trained_s, better))
    return state


def make_learner(
    network: Network, fresh: Sequence[str], config: OptimConfig, steps: int, fabric: Fabric
) -> Learner:
    """Put the network on its device, with optimizer, schedule and average.

    Args:
        network: Network with initial weights.
        fresh: Names of the randomly initialised weights.
        config: Settings.
        steps: Steps of one epoch.
        fabric: Device and precision.
    """
    network.to(memory_format=torch.channels_last)
    optimizer = make_optimizer(network, fresh, config)
    schedule = make_schedule(optimizer, config, steps * config.epochs)
    model, stepper = fabric.setup(network, optimizer)  # moves the network to its device
    model.mark_forward_method("answer")
    average = ModelEmaV3(network, config.ema_decay, use_warmup=True)
    return Learner(network, average, optimizer, schedule, model, stepper)


def train_epoch(
    epoch: int, learner: Learner, data: RadiographDataset, views: Views | None, stage: StageSpec,
    config: StageConfig, fabric: Fabric, progress: Progress,
) -> float:  # fmt: skip
    """Train for one epoch; return the mean loss.

    All random numbers depend on seed and epoch, so that a resumed run is reproducible.
    """
    seed = config.train.seed + epoch
    torch.manual_seed(seed)
    draws = torch.Generator().manual_seed(seed)
    score = Criterion.of(data.targets.numpy(), stage, config, fabric)
    order = draw_order(data.samples, config.optim, draws)
    data.sources = Sources(config.augment, seed, stage.concerns_fractures)
    learner.model.train()
    losses = []
    source, workers = (
        (data, config.data.workers) if views is None else (views.drawn(data, draws), 0)
    )
    for images, targets, masks in batches(source, config.optim.batch_size, workers, order):
        images, targets, masks = (x.to(fabric.device) for x in (images, targets, masks))
        if views is None:
            with torch.no_grad(), fabric.autocast():
                images = learner.network.prefix(_channels_last(images)).float()
        images, targets, masks = mixup(images, targets, masks, config.augment.mixup, draws)
        # Explicit: on one device Fabric enters autocast only for calls of the module itself.
        with fabric.autocast():
            logits, evidence = learner.model.answer(_channels_last(images))
        loss = score(logits, evidence, targets, masks)
        fabric.backward(loss)
        fabric.clip_gradients(learner.model, learner.stepper, max_norm=config.optim.clip_norm)
        learner.stepper.step()
        learner.stepper.zero_grad()
        learner.schedule.step()
        learner.average.update(learner.network, step=learner.schedule.last_epoch)
        losses.append(float(loss.detach()))
        progress.advance()
    return float(np.mean(losses))


def _channels_last(maps: Tensor) -> Tensor:
    """The memory layout with the fastest convolutions."""
    return maps.contiguous(memory_format=torch.channels_last)


def make_optimizer(
    network: Network, fresh: Sequence[str], config: OptimConfig
) -> torch.optim.AdamW:
    """AdamW with a higher rate for random weights and no decay of vectors (biases, norms)."""
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, weight in network.named_parameters():
        if weight.requires_grad:
            rate = config.fresh_lr if name in fresh else config.lr
            decay = config.weight_decay if weight.ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(weight)
    return torch.optim.AdamW(
        [{"params": p, "lr": rate, "weight_decay": decay} for (rate, decay), p in groups.items()]
    )


def make_schedule(
    optimizer: torch.optim.Optimizer, config: OptimConfig, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Make the learning rate schedule over all steps of a run."""
    if config.schedule == "constant":
        return torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
    if config.schedule == "step":
        thirds = [steps // 3, 2 * steps // 3]
        return torch.optim.lr_scheduler.MultiStepLR(optimizer, thirds, 0.1)
    peaks = [group["lr"] for group in optimizer.param_groups]
    # With a rise of exactly one step, torch divides by zero.
    rise = min(max(config.warmup, 1.5 / steps), 0.9)
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, peaks, steps, pct_start=rise, cycle_momentum=False
    )


@torch.inference_mode()
def predict(
    network: Network, dataset: RadiographDataset, batch_size: int, workers: int, fabric: Fabric,
    views: Views | None = None,
) -> Array:  # fmt: skip
    """Compute the (N, K) float32 logits of a data set, in its order.

    With views, the feature maps of the frozen blocks come from the cache.
    """
    network.eval()
    rows = []
    source = dataset if views is None else views.clean(dataset)
    for images, *_ in batches(source, batch_size, workers if views is None else 0):
        images = _channels_last(images.to(fabric.device))
        with fabric.autocast():
            logits = network(images) if views is None else network.answer(images)[0]
            rows.append(logits.float().cpu().numpy())
    return np.concatenate(rows)


def validate(
    network: Network, stage: StageSpec, samples: Sequence[Any], preprocess: PreprocessSpec,
    config: StageConfig, fabric: Fabric, views: Views | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Compute the AUC of each output on the validation split, and the mean that selects the epoch.

    A region run weights routing and the auxiliary output equally, because the trunk serves both. A
    fracture run weights the decision and the types equally.
    """
    targets = stage.targets(samples)
    dataset = RadiographDataset(samples, targets, preprocess)
    logits = predict(network, dataset, config.optim.batch_size, config.data.workers, fabric, views)
    scores = {
        f"auc_{name}": auc(targets[:, k], logits[:, k]) for k, name in enumerate(stage.outputs)
    }
    main = [scores[f"auc_{name}"] for name in stage.labels]
    extra = [scores[f"auc_{name}"] for name in stage.outputs if name not in stage.labels]
    parts = [
        np.mean(known) for part in (main, extra) if (known := [v for v in part if v is not None])
    ]
    ones = torch.ones(len(stage.outputs))
    exclusive = stage.types.exclusive if stage.types else 0
    loss = masked_loss(
        torch.from_numpy(logits), torch.from_numpy(targets), ones, ones, exclusive=exclusive
    )
    return {"val_loss": float(loss), **scores, "score": float(np.mean(parts)) if parts else None}


def finish_epoch(run: Path, state: State, row: dict[str, Any], learner: Learner) -> bool:
    """Record the figures, save the weights if they are the best, and make the run resumable.

    Returns:
        Whether the weights are the best.
    """
    state.history.append(row)
    score = row["score"] if row["score"] is not None else -row["val_loss"]
    better = state.best is None or score > state.best
    if better:
        state.best, state.best_epoch = score, state.epoch
    average = learner.average.module
    if better:
        facts = {"epoch": state.epoch, "score": score}
        checkpoint.save(run / BEST, average.state_dict(), facts)
    tensors, extra = checkpoint.pack(learner.network, average, learner.optimizer)
    extra |= {"state": vars(state), "schedule": learner.schedule.state_dict()}
    checkpoint.save(run / LAST, tensors, extra)
    write_json(run / METRICS, state.history)
    plot_curves(state.history, run / "curves.png")
    return better


def resume(run: Path, learner: Learner) -> State:
    """Restore a run to the end of its last epoch."""
    tensors, saved = checkpoint.load(run / LAST)
    average = learner.average.module
    checkpoint.unpack(tensors, saved, learner.network, average, learner.optimizer)
    learner.schedule.load_state_dict(saved["schedule"])
    return State(**saved["state"])
