"""Cached views: features of the frozen blocks, computed once and reused."""

import json
from dataclasses import replace

import pytest
import torch
from conftest import TINY
from tables import fracatlas_folder

from pipeline.config import load
from pipeline.progress import Silent
from stages.data.adapters.fracatlas import read_fracatlas
from stages.data.dataset import RadiographDataset
from stages.data.feature_cache import find_views
from stages.data.index import assign_splits, read_index, write_index
from stages.network.model import Network
from stages.settings import RegionConfig
from stages.stage_spec import region_stage
from stages.training.environment import make_fabric
from stages.training.loop import predict
from stages.training.run import train_region


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    home = tmp_path_factory.mktemp("views")
    samples = read_fracatlas(fracatlas_folder(home / "data", per_cell=6))
    splits = assign_splits(samples, seed=0, parts=3)
    write_index(
        [replace(s, split=x) for s, x in zip(samples, splits, strict=True)], home / "index.csv"
    )
    return read_index(home / "index.csv")


def settings(cache, *more):
    words = [word for word in TINY if "trainable_from" not in word]
    return load(
        RegionConfig, None,
        [*words, "model.init=none", "train.trainable_from=layer4.1", "train.cached_views=2",
         f"data.cache='{cache}'", *more],
    )  # fmt: skip


def test_predictions_from_cached_views_equal_those_of_the_network(index, tmp_path):
    config, stage = settings(tmp_path), region_stage("fracture")
    torch.manual_seed(0)
    network = Network(stage.outputs, "conv2", "layer4.1").eval()
    fabric = make_fabric(config.train)
    views = find_views(network, stage, index, config.preprocess, config, fabric, Silent())
    samples = [s for s in index.of("val") if stage.selects(s)]
    data = RadiographDataset(samples, stage.targets(samples), config.preprocess)
    whole, cached = (predict(network, data, 8, 0, fabric, v) for v in (None, views))
    # The cache is in half precision.
    torch.testing.assert_close(torch.tensor(cached), torch.tensor(whole), rtol=5e-3, atol=5e-3)


def test_views_are_computed_once_for_the_same_inputs_and_settings(index, tmp_path):
    class Count(Silent):
        batches = 0

        def advance(self):
            self.batches += 1

    stage = region_stage("fracture")
    network = Network(stage.outputs, "conv2", "layer4.1")
    fabric = make_fabric(settings(tmp_path).train)

    def batches(table, config):
        count = Count()
        find_views(network, stage, table, config.preprocess, config, fabric, count)
        return count.batches

    assert batches(index, settings(tmp_path)) > 0
    assert batches(index, settings(tmp_path)) == 0
    other_folds = replace(
        index, samples=tuple(replace(s, split="train" if s.split != "excluded" else s.split)
                             for s in reversed(index.samples)),
    )  # fmt: skip
    assert batches(other_folds, settings(tmp_path)) == 0
    assert batches(index, settings(tmp_path, "augment.rotate_deg=3")) > 0
    assert batches(index, settings(tmp_path, "train.cached_views=0")) == 0


def test_run_on_cached_views_reduces_the_loss(index, tmp_path):
    config = settings(
        tmp_path / "cache", "optim.epochs=2", "augment.zoom=0.5", "optim.box_weight=0.3"
    )
    train_region(tmp_path / "run", index, config, False, Silent())
    history = json.loads((tmp_path / "run/metrics.json").read_text())
    assert len(history) == 2
    assert history[1]["train_loss"] < history[0]["train_loss"]
