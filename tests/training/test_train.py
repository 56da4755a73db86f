"""Training: overfitting, resuming, run folders, frozen blocks, learning rate schedules."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import TINY
from tables import fracatlas_folder

from pipeline.config import load
from pipeline.errors import UsageError
from pipeline.preprocess import PreprocessSpec
from pipeline.progress import Silent
from stages.data.adapters.fracatlas import read_fracatlas
from stages.data.dataset import RadiographDataset
from stages.data.index import assign_splits, read_index, write_index
from stages.network import checkpoint
from stages.network.model import Network
from stages.samples import Index
from stages.settings import OptimConfig, RegionConfig
from stages.stage_spec import region_stage
from stages.statistics.metrics import auc
from stages.training.environment import make_fabric
from stages.training.loop import BEST, LAST, make_schedule, predict, train
from stages.training.run import train_region


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    home = tmp_path_factory.mktemp("few")
    samples = read_fracatlas(fracatlas_folder(home / "data", per_cell=6))
    splits = assign_splits(samples, seed=0, parts=3)
    write_index(
        [replace(s, split=x) for s, x in zip(samples, splits, strict=True)], home / "index.csv"
    )
    return read_index(home / "index.csv")


def settings(*more):
    return load(RegionConfig, None, [*TINY, "model.init=none", *more])


def test_network_overfits_sixteen_pictures(index, tmp_path):
    sixteen = index.of("train")[:16]
    validation = [replace(row, split="val") for row in sixteen]
    # An epoch has the sixteen pictures four times: here checkpoints take longer than steps.
    table = Index(index.source, index.digest, (*sixteen * 4, *validation))
    config = settings("optim.epochs=8", "optim.fresh_lr=1e-3", "model.dropout=0",
                      "augment.draw=none")  # fmt: skip
    stage = region_stage("fracture")
    torch.manual_seed(0)
    network = Network(stage.outputs, "conv2", "stem")
    fresh = list(network.state_dict())
    state = train(tmp_path, stage, network, fresh, table, config.preprocess, config, Silent())
    losses = [row["train_loss"] for row in state.history]
    assert losses[-1] < 0.15 * losses[0]
    network.load_state_dict(checkpoint.load(tmp_path / BEST)[0])
    targets = stage.targets(sixteen)
    dataset = RadiographDataset(sixteen, targets, config.preprocess)
    logits = predict(network, dataset, 8, 0, make_fabric(config.train))
    assert [auc(targets[:, k], logits[:, k]) for k in range(4)] == [1.0] * 4


def test_resumed_run_equals_an_uninterrupted_run(index, tmp_path, monkeypatch):
    config = settings("optim.epochs=3")
    train_region(tmp_path / "whole", index, config, False, Silent())

    class Interrupt(Silent):
        remaining = 5  # batches; the fifth is in the second epoch

        def advance(self):
            self.remaining -= 1
            if self.remaining == 0:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_region(tmp_path / "cut", index, config, False, Interrupt())
    assert 0 < len(json.loads((tmp_path / "cut/metrics.json").read_text())) < 3
    train_region(tmp_path / "cut", index, config, True, Silent())
    for name in (BEST, LAST):
        whole, cut = (checkpoint.load(tmp_path / run / name)[0] for run in ("whole", "cut"))
        assert whole.keys() == cut.keys()
        for key, value in whole.items():
            assert torch.equal(value, cut[key]), key
    assert (tmp_path / "whole/result.json").read_text() == (
        tmp_path / "cut/result.json"
    ).read_text()


def test_run_folder_is_not_overwritten_or_resumed_with_other_settings(index, tmp_path):
    (tmp_path / "run").mkdir()
    config = settings("optim.epochs=1")
    with pytest.raises(UsageError, match="no run to resume"):
        train_region(tmp_path / "run", index, config, True, Silent())
    train_region(tmp_path / "run", index, config, False, Silent())
    with pytest.raises(UsageError, match="already contains a run"):
        train_region(tmp_path / "run", index, config, False, Silent())
    with pytest.raises(UsageError, match="different run") as caught:
        train_region(tmp_path / "run", index, settings("train.seed=8"), True, Silent())
    differences = str(caught.value).splitlines()[1:]
    assert sorted(differences) == ["  optim.epochs: 1 → 14", "  train.seed: 7 → 8"]


def test_finished_run_has_config_metrics_curves_and_result(project):
    run = project / "runs/region"
    described = json.loads((run / "config.json").read_text())
    assert described["config"]["train"]["seed"] == 7
    assert described["versions"]["torch"] == torch.__version__.split("+")[0]
    history = json.loads((run / "metrics.json").read_text())
    assert [row["epoch"] for row in history] == [1, 2]
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    test = json.loads((run / "result.json").read_text())["test"]
    assert test["baseline_majority"]["value"] is not None


def test_frozen_trunk_does_not_change(project):
    region, _ = checkpoint.load(project / "runs/region" / BEST)
    hand, _ = checkpoint.load(project / "runs/hand" / BEST)
    before = [k for k in region if k.startswith("backbone.") and "layer4.2" not in k]
    assert len(before) > 200
    assert all(torch.equal(region[k], hand[k]) for k in before)
    assert not torch.equal(
        region["backbone.layer4.2.conv2.weight"], hand["backbone.layer4.2.conv2.weight"]
    )


def test_frozen_blocks_keep_their_statistics_in_training():
    network = Network(("a",), "conv2", "layer4.2")
    network.train()
    before = network.backbone.layer4[1].bn1.running_mean.clone()
    after_cut = network.backbone.layer4[2].bn1.running_mean.clone()
    network(torch.rand(4, 1, 64, 64))
    assert torch.equal(network.backbone.layer4[1].bn1.running_mean, before)
    assert not torch.equal(network.backbone.layer4[2].bn1.running_mean, after_cut)


def test_training_reads_pictures_as_the_pipeline_does(index):
    from pipeline.io import decode, read_file
    from pipeline.preprocess import preprocess
    from stages.data.dataset import read_array

    spec = PreprocessSpec(height_px=48, width_px=40)
    row = index.samples[0]
    content, digest = read_file(row.path)
    image = next(iter(decode(content, row.path, digest)))
    np.testing.assert_array_equal(read_array(row, spec), preprocess(image.pixels, spec)[0])


@pytest.mark.parametrize("schedule", ["one-cycle", "step", "constant"])
@pytest.mark.parametrize("steps", [1, 2, 5, 10, 60])
def test_every_schedule_has_valid_rates_for_any_number_of_steps(schedule, steps):
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.AdamW([weight], lr=1.0)
    config = load(OptimConfig, None, [f"schedule='{schedule}'"])
    scheduler = make_schedule(optimizer, config, steps)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step() if len(rates) < steps else None
    assert all(0 < rate <= 1 for rate in rates)
    if schedule == "step" and steps >= 10:
        assert [rates[0], rates[steps // 2], rates[-1]] == pytest.approx([1, 0.1, 0.01])
    if schedule == "one-cycle" and steps == 60:
        assert max(rates) == pytest.approx(1.0, abs=1e-3)
        assert rates[-1] < rates[0] < 0.1
    if schedule == "constant":
        assert set(rates) == {1.0}
