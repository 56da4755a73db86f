"""Failed pictures, multi-frame files, and errors that end a run."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from pathlib import Path

import numpy as np
import pytest
from bundles import for_all, standard_specs, write_png
from engine_runs import CPU, judge, mixed_files, open_bundles
from tiny_networks import write_bundles

from pipeline.domain import ImageRef, XrayImage
from pipeline.engine import run
from pipeline.errors import DeviceError, UnreadableImageError
from pipeline.io import MemoryBudget
from pipeline.outcome import Status
from pipeline.reading import in_process
from pipeline.runtime.network import Opened
from pipeline.runtime.session import load_bundles


def frames(good: int, then_fail: bool):
    """A replacement for ``decode`` that yields good frames, then optionally fails."""

    def decode(
        content: bytes, path: Path, sha256: str, room: MemoryBudget
    ) -> Generator[XrayImage, None, None]:
        for frame in range(good):
            pixels = np.full((8, 8), 0.5, np.float32)
            yield XrayImage(pixels, ImageRef(path, frame, sha256), 8, dicom={"Modality": "DX"})
        if then_fail:
            raise UnreadableImageError(f"frame {good} is broken")

    return decode


@pytest.mark.parametrize("then_fail", [False, True])
def test_one_outcome_for_each_frame(weights, tmp_path, monkeypatch, then_fail):
    (tmp_path / "cine.dcm").write_bytes(b"x")
    monkeypatch.setattr(in_process, "decode", frames(6, then_fail))
    outcomes = judge([tmp_path / "cine.dcm"], weights)
    assert [outcome.image.frame for outcome in outcomes] == list(range(6 + then_fail))
    assert all(outcome.header == {"Modality": "DX"} for outcome in outcomes[:6])
    assert [o.status is Status.FAILED for o in outcomes] == [False] * 6 + [True] * then_fail


def test_file_without_picture_gets_a_row(weights, tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"x")
    monkeypatch.setattr(in_process, "decode", frames(0, then_fail=False))
    (outcome,) = judge([tmp_path / "a"], weights)
    assert outcome.status is Status.FAILED
    assert outcome.image.frame is None


@pytest.mark.parametrize(
    ("wrong", "specs", "error"),
    [
        ("region", standard_specs(), "region stage"),
        ("fracture-hand", standard_specs(), "hand specialist"),
        ("fracture-all", for_all(), "all specialist"),
    ],
)
def test_network_output_nan_fails_the_picture(tmp_path, monkeypatch, wrong, specs, error):
    weights = open_bundles(tmp_path / "w", specs)
    original = Opened.evaluate

    def broken(self: Opened, names: list[str], inputs: np.ndarray) -> list[np.ndarray]:
        values = original(self, names, inputs)
        return [v * np.nan for v in values] if self.spec.name == wrong else values

    monkeypatch.setattr(Opened, "evaluate", broken)
    (outcome,) = judge([write_png(tmp_path / "a.png", {"hand": 0.9}, {"hand": 0.9})], weights)
    assert outcome.status is Status.FAILED
    assert error in str(outcome.error)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("gate", ["on", "off"])
def test_density_that_is_not_finite_fails_the_picture(tmp_path, monkeypatch, value, gate):
    config = CPU.model_copy(update={"gate": gate})
    weights = load_bundles(write_bundles(tmp_path / "w"), config)
    original = Opened.evaluate

    def broken(self: Opened, names: list[str], inputs: np.ndarray) -> list[np.ndarray]:
        outputs = zip(names, original(self, names, inputs), strict=True)
        return [np.full_like(v, value) if name == "density" else v for name, v in outputs]

    monkeypatch.setattr(Opened, "evaluate", broken)
    (outcome,) = judge([write_png(tmp_path / "a.png", {"hand": 0.9}, {"hand": 0.9})], weights)
    assert (outcome.status, outcome.findings) == (Status.FAILED, ())
    assert "the region stage gave no number for it" in str(outcome.error)


def test_device_error_in_a_lane_ends_the_run(weights, tmp_path, monkeypatch):
    def refuse(self: Opened, names: list[str], inputs: np.ndarray) -> list[np.ndarray]:
        raise DeviceError("out of memory")

    monkeypatch.setattr(Opened, "evaluate", refuse)
    with pytest.raises(DeviceError, match="out of memory"):
        judge(mixed_files(tmp_path, 18), weights)
    assert not [t for t in threading.enumerate() if t.name.startswith("fxpipe-")]


def test_error_of_the_source_ends_the_run_after_earlier_outcomes(weights, tmp_path):
    path = write_png(tmp_path / "a.png", {"hand": 0.9}, {})

    def source() -> Iterator[Path]:
        yield from [path] * 3
        raise OSError("the disk was removed")

    outcomes = run(source(), weights, CPU)
    assert [next(outcomes).status for _ in range(3)] == [Status.OK] * 3
    with pytest.raises(OSError, match="the disk was removed"):
        next(outcomes)
    assert not [t for t in threading.enumerate() if t.name.startswith("fxpipe-")]
