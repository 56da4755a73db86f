"""The weights of the repository, run on its samples."""

from __future__ import annotations

import csv
import json
import tomllib
from pathlib import Path

import pytest
from command_line import run_python

from pipeline.bundle import FractureSpec, Kind, Precision, RegionSpec, TrunkSpec
from pipeline.config import RunConfig
from pipeline.domain import REGIONS
from pipeline.runtime.session import load_bundles
from pipeline.weights.manifest import read_manifest, read_verified

ROOT = Path(__file__).parents[2]
WEIGHTS = ROOT / "weights"


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Rows of a run on the samples, in a separate process that checks its imports."""
    output = tmp_path_factory.mktemp("results")
    code = (
        "import sys; from pipeline.cli import main\n"
        f"words = ['run', '--input', 'samples', '--output', {str(output)!r}, '--device', 'cpu', "
        "]\n"
        "try: main(words)\n"
        "except SystemExit as end: code = end.code\n"
        "loaded = {'torch', 'timm', 'torchvision', 'sklearn', 'stages'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
        "sys.exit(code)"
    )
    result = run_python(code, cwd=ROOT, env={"COLUMNS": "100"})
    assert result.returncode == 1, result.stderr  # one sample is truncated
    assert "not a medical device" in result.stdout
    with (output / "results.csv").open(newline="", encoding="utf-8") as file:
        return {row["path"]: row for row in csv.DictReader(file)}


def test_every_sample_has_a_row(rows):
    assert set(rows) == {path.name for path in (ROOT / "samples").iterdir()}


def test_truncated_sample_fails_and_knee_is_refused(rows):
    assert rows["IMG0004119.jpg"]["status"] == "failed"
    assert "truncated" in rows["IMG0004119.jpg"]["error"]
    assert rows["IMG0000221.jpg"]["status"] == "unsupported"
    assert rows["IMG0000221.jpg"]["verdict"] == ""
    assert [name for name, row in rows.items() if row["status"] == "failed"] == ["IMG0004119.jpg"]


@pytest.mark.parametrize(
    ("name", "region"),
    [
        ("IMG0000049.jpg", "hand"),
        ("IMG0001360.jpg", "elbow"),
        ("IMG0000346.jpg", "shoulder"),
        ("IM000001.dcm", "hand"),
    ],
)
def test_samples_are_routed_to_their_specialist(rows, name, region):
    assert rows[name]["status"] == "ok"
    assert rows[name]["regions"] == region
    assert rows[name]["region"] == region
    assert float(rows[name]["probability"]) <= 1
    assert set(json.loads(rows[name]["bundle_digests"])) == {
        *("trunk", "region", f"fracture-{region}")
    }


def test_inverted_dicom_sample_is_read_correctly(rows):
    """The file has 12 bits and inverted grey values; it was made from a normal hand."""
    assert float(rows["IM000001.dcm"]["p_hand"]) > 0.9


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.FP16])
def test_bundles_are_intact_and_complete(precision):
    manifest = read_manifest(WEIGHTS)
    assert precision in manifest.precisions
    for entry in manifest.of(precision):
        assert len(read_verified(WEIGHTS, entry)) == entry.size_bytes
    weights = load_bundles(WEIGHTS, RunConfig(device="cpu", precision=precision))
    assert set(weights.fracture) == set(REGIONS)
    assert len(weights.trunks) == 1


def test_manifest_lists_every_network_file():
    listed = {entry.file for entry in read_manifest(WEIGHTS).bundles}
    files = {p.relative_to(WEIGHTS).as_posix() for p in WEIGHTS.rglob("*.onnx")}
    assert files == listed


def test_weights_are_small():
    total = sum(p.stat().st_size for p in WEIGHTS.rglob("*") if p.is_file())
    assert total < 130e6


def test_stages_have_thresholds_and_operating_points():
    weights = load_bundles(WEIGHTS, RunConfig(device="cpu"))
    assert weights.region.spec.kind is Kind.REGION
    assert set(weights.region.spec.route_thresholds) == set(REGIONS)
    for stage in weights.fracture.values():
        points = stage.spec.operating_points
        assert set(points) == {"sensitive", "balanced", "specific"}
        assert points["sensitive"].threshold <= points["specific"].threshold
        assert points["balanced"].sensitivity.low is not None


def test_cards_match_the_files_and_contain_measured_figures():
    manifest = read_manifest(WEIGHTS)
    for entry in manifest.bundles:
        card = (WEIGHTS / entry.name / "README.md").read_text(encoding="utf-8")
        assert entry.sha256[:16] in card
        assert "Not measured yet" not in card
    gathered = (WEIGHTS / "README.md").read_text(encoding="utf-8")
    assert "## What was tried" in gathered
    for row in json.loads((WEIGHTS / "tried.json").read_text(encoding="utf-8")):
        assert f"| {row['name']} |" in gathered


@pytest.mark.parametrize("name", ["region", "fracture-hand", "fracture-elbow", "fracture-shoulder"])
def test_shipped_configs_are_the_recipe_of_the_weights(name):
    weights = load_bundles(WEIGHTS, RunConfig(device="cpu"))
    stages = {stage.spec.name: stage.spec for stage in weights.stages}
    file = "3-region-320-longer.toml" if name == "region" else "4-fracture.toml"
    config = tomllib.loads((ROOT / "configs/shipped" / file).read_text(encoding="utf-8"))
    # Paths of one machine do not affect the weights and are not recorded.
    recipe = json.loads(json.dumps(dict(stages[name].provenance.recipe)))
    assert "data" not in recipe
    assert "region_run" not in recipe
    assert "init" not in recipe.get("model", {})
    config.get("model", {}).pop("init", None)
    for section, values in config.items():
        for key, value in values.items():
            assert recipe[section][key] == value, (section, key)


def test_bundles_contain_no_path_of_a_machine():
    paths = [f"/{name}/".encode() for name in ("tmp", "home", "root", "site-packages")]
    for entry in read_manifest(WEIGHTS).bundles:
        content = read_verified(WEIGHTS, entry)
        assert not any(path in content for path in paths), entry.file


def test_contracts_have_the_type_of_their_kind():
    weights = load_bundles(WEIGHTS, RunConfig(device="cpu"))
    (trunk,) = weights.trunks.values()
    specs = [trunk.spec, *(stage.spec for stage in weights.stages)]
    assert [type(spec) for spec in specs] == [TrunkSpec, RegionSpec, *[FractureSpec] * 3]
    assert weights.has_types is False
