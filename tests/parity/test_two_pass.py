"""The two-pass networks of the benchmark give the same outputs as fxpipe."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from pipeline.bench.onnx_loop import onnx_loop
from pipeline.bench.rounds import Contender
from pipeline.bench.two_pass import FILE, TwoPass
from pipeline.bundle import Precision
from pipeline.config import RunConfig
from pipeline.engine import run
from pipeline.errors import BundleError, ConfigError
from pipeline.io import decode, read_file
from pipeline.preprocess import preprocess
from pipeline.runtime.session import load_bundles
from pipeline.weights.manifest import read_manifest, write_manifest
from stages.export.two_pass_export import write_whole
from stages.export.two_pass_torch import torch_batched, torch_loop

ROOT = Path(__file__).parents[2]
PICTURES = [
    ROOT / "samples" / f"IMG000{number}.jpg" for number in ("0049", "0336", "0346", "1380")
]  # fmt: skip
HALF_PRECISION = 0.01
"""Largest difference in probability: fp16 graphs, compared with the same weights in float32."""
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """The shipped router and one specialist."""
    folder = tmp_path_factory.mktemp("weights")
    entries = {}
    for entry in read_manifest(ROOT / "weights").of(Precision.FP16):
        if entry.name in ("trunk", "region", "fracture-hand"):
            (folder / entry.file).parent.mkdir()
            shutil.copy(ROOT / "weights" / entry.file, folder / entry.file)
            entries[entry.name, entry.precision] = entry
    write_manifest(folder, entries)
    return folder


@pytest.fixture(scope="module")
def whole(weights, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    write_whole(weights, folder, {"safetensors", "onnx"})
    return folder


@pytest.fixture(scope="module")
def outcomes(weights):
    config = RunConfig(device="cpu", precision=Precision.FP16, looks=1)
    return list(run(PICTURES, load_bundles(weights, config), config))


@pytest.fixture(scope="module")
def arrays(whole):
    (spec,) = TwoPass.model_validate_json((whole / FILE).read_bytes()).preprocessings
    images = [next(decode(*_read(path))) for path in PICTURES]
    return [{spec: preprocess(image.pixels, spec)[0]} for image in images]


def _read(path):
    content, sha256 = read_file(path)
    return content, path, sha256


@pytest.fixture(scope="module")
def looped(whole, arrays):
    two_pass = torch_loop(whole, "cpu")
    return [two_pass.judge([picture])[0] for picture in arrays]


def test_two_passes_equal_the_shared_trunk(looped, outcomes):
    fractures = 0
    for answer, outcome in zip(looped, outcomes, strict=True):
        staged = list(outcome.region.probabilities.values())
        np.testing.assert_allclose(answer.regions, staged, atol=HALF_PRECISION)
        for finding in outcome.findings:
            if finding.region == answer.region:
                fractures += 1
                assert answer.fracture == pytest.approx(finding.probability, abs=HALF_PRECISION)
    assert fractures >= 2


def test_region_without_a_specialist_has_no_second_pass(looped):
    assert {answer.region for answer in looped if answer.fracture is None} == {"shoulder"}


@pytest.mark.parametrize("form", ["batched", "onnx"])
def test_batches_and_onnx_runtime_equal_the_loop(form, whole, arrays, looped):
    if form == "batched":
        answers = torch_batched(whole, "cpu", 8).judge(arrays)
    else:
        two_pass = onnx_loop(whole, "cpu")
        answers = [two_pass.judge([picture])[0] for picture in arrays]
    for answer, expected in zip(answers, looped, strict=True):
        assert answer.region == expected.region
        np.testing.assert_allclose(answer.regions, expected.regions, atol=TOLERANCE)
        assert (answer.fracture is None) == (expected.fracture is None)
        if expected.fracture is not None:
            assert answer.fracture == pytest.approx(expected.fracture, abs=TOLERANCE)


def test_run_writes_a_row_for_every_picture(whole, tmp_path):
    two_pass: Contender = torch_batched(whole, "cpu", 3)
    tally = two_pass.do(PICTURES, tmp_path)
    assert (tally.pictures, tally.looks, tally.parts_s) == (4, 3, {})
    lines = (tmp_path / "results.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "path,elbow,hand,shoulder,region,fracture"
    assert [line.split(",")[0] for line in lines[1:]] == [path.name for path in PICTURES]
    assert two_pass.facts["input_px"] == [[320, 320]]
    assert two_pass.session(PICTURES) is None


@pytest.mark.parametrize(
    ("bundles", "error", "message"),
    [
        (["trunk", "fracture-hand"], ConfigError, "0 region stages; two passes need exactly one"),
        ([], BundleError, "not found"),
    ],
)
def test_incomplete_weights_are_refused(weights, tmp_path, bundles, error, message):
    if bundles:
        entries = {(e.name, e.precision): e for e in read_manifest(weights).bundles}
        write_manifest(tmp_path, {k: e for k, e in entries.items() if e.name in bundles})
    with pytest.raises(error, match=message):
        write_whole(tmp_path, tmp_path, ["safetensors"])


def test_weights_in_int8_only_are_refused(tmp_path):
    entries = {
        (e.name, e.precision): e for e in read_manifest(ROOT / "weights").of(Precision.INT8)
    }  # fmt: skip
    write_manifest(tmp_path, entries)
    with pytest.raises(ConfigError, match="a float form is needed"):
        write_whole(tmp_path, tmp_path, ["safetensors"])
