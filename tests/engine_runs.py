"""Runs of the engine on painted pictures, with tiny networks on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from bundles import write_png
from tiny_networks import write_bundles

from pipeline.bundle import BundleSpec
from pipeline.config import RunConfig
from pipeline.engine import run
from pipeline.outcome import Outcome
from pipeline.runtime.session import Weights, load_bundles

CPU = RunConfig(device="cpu", intra_op_threads=1, workers=2, batch_size=4, isolate=False)


def judge(paths: list[Path], weights: Weights, **changes: object) -> list[Outcome]:
    """The outcomes of a run over these files; ``changes`` are settings of the run."""
    return list(run(paths, weights, CPU.model_copy(update=changes)))


def open_bundles(folder: Path, specs: list[BundleSpec] | None = None) -> Weights:
    """Write tiny networks for these contracts and open them; by default one of each stage."""
    return load_bundles(write_bundles(folder, specs), CPU)


def mixed_files(folder: Path, count: int) -> list[Path]:
    """Pictures with random cells; every fifth file, from index 3 on, is damaged or empty."""
    rng = np.random.default_rng(0)
    paths = []
    for i in range(count):
        path = folder / f"{i:03}.png"
        if i % 5 == 3:
            path.write_bytes(b"" if i % 2 else b"\x89PNG\r\n\x1a\n broken")
        else:
            cells = rng.uniform(0.2, 0.9, (2, 3)).tolist()
            names = ("elbow", "hand", "shoulder")
            regions, fractures = (dict(zip(names, row, strict=True)) for row in cells)
            write_png(path, regions, fractures)
        paths.append(path)
    return paths
