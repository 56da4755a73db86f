"""Chunks on Ray clusters of one and two nodes: the rows of a single run, whatever is lost."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from bundles import write_png
from command_line import ROOT, fxpipe
from run_outputs import output_contents

ray = pytest.importorskip("ray")

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:ray.*", "ignore::FutureWarning:ray.*", "ignore::ResourceWarning"
)

OPTIONS = ("--studies", "folder", "--device", "cpu", "--set", "isolate=false")
PICTURES, CHUNK = 48, 4


@pytest.fixture
def cluster(monkeypatch):
    """A cluster of two nodes with one processor each, of which this process is a part."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    running = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    running.add_node(num_cpus=1)
    running.wait_for_nodes()
    yield running
    ray.shutdown()
    running.shutdown()


@pytest.fixture
def place(place) -> Path:
    """A working folder with weights, pictures, a text, and a plan of 13 chunks."""
    for i in range(PICTURES):
        write_png(place / f"in/{i % 5}/{i:02}.png", {"hand": 0.9}, {"hand": 0.02 * i})
    (place / "in" / "notes.txt").write_text("no picture")
    assert fxpipe("plan", "--input", "in", "--chunk", CHUNK).exit_code == 0
    return place


def run(address: str, *words: object):
    return fxpipe("run", "--plan", "plan.sqlite", "--engine", f"ray://{address}", *OPTIONS, *words)


def merged_equals_a_single_run(place: Path) -> bool:
    assert fxpipe("merge", "--plan", "plan.sqlite", "--output", "merged", "--from", "results")
    assert fxpipe("run", "--input", "in", "--output", "whole", *OPTIONS).exit_code == 0
    return output_contents(place / "merged") == output_contents(place / "whole")


def test_node_that_is_lost_costs_no_row(place, cluster):
    def lose_a_node():
        while len(list((place / "results").glob("chunks/*/results"))) < 3:
            time.sleep(0.05)
        (second,) = cluster.worker_nodes
        cluster.remove_node(second, allow_graceful=False)

    thread = threading.Thread(target=lose_a_node)
    thread.start()
    result = run(cluster.address)
    thread.join()
    assert result.exit_code == 0, result.output
    assert "left to other processes" not in result.stdout
    assert merged_equals_a_single_run(place)
    again = run(cluster.address)
    assert "0 judged, 13 finished before" in again.stdout


def test_chunk_that_fails_is_named_and_the_others_are_judged(place, cluster):
    folder = place / "results/chunks/000002"
    folder.parent.mkdir(parents=True)
    folder.write_text("a file where a folder should be")
    result = run(cluster.address)
    assert result.exit_code == 3, result.output
    assert "chunk 2 failed" in result.stdout
    assert "12 judged" in result.stdout
    folder.unlink()
    assert "1 judged, 12 finished before" in run(cluster.address).stdout
    assert merged_equals_a_single_run(place)


def test_missing_cluster_is_an_error(place):
    result = run("127.0.0.1:1")
    assert result.exit_code == 3
    assert "found no Ray cluster" in result.stderr


@pytest.mark.parametrize("engine", ["dask", "ray:", "ray://", "ray://a b:1"])
def test_unknown_engine_is_refused(place, engine):
    result = fxpipe("run", "--plan", "plan.sqlite", "--engine", engine)
    assert result.exit_code == 2
    assert "expected local, ray or ray://HOST:PORT" in result.stderr
