"""Training, export, run and comparison of every system in configs/systems."""

import json
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from pipeline.cli import main
from pipeline.config import RunConfig
from pipeline.errors import ConfigError, UsageError
from pipeline.progress import Silent
from stages.data.index import read_index
from stages.experiments.compare_systems import measure
from stages.experiments.system_configs import SystemConfig, make_system, read_system

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "configs/systems").glob("*.toml"))

SMALL = (
    *(f"{part}.preprocess.{side}_px=64" for part in ("region", "fracture")
      for side in ("height", "width")),
    *(f"{part}.{word}" for part in ("region", "fracture")
      for word in ("optim.epochs=2", "optim.batch_size=8", "data.workers=0", "train.device='cpu'",
                   "train.precision='32-true'")),
    *("region.model.init='none'", "export.pictures=8", "export.calibration_pictures=8"),
)  # fmt: skip
INDEPENDENT = ("fracture.model.init='none'",)


def words(settings):
    return [word for setting in settings for word in ("--set", setting)]


@pytest.fixture(scope="module")
def compared(project, tmp_path_factory):
    """Output folder and printed texts of the comparison of all systems, in two commands."""
    output = tmp_path_factory.mktemp("comparison")
    others = [f for f in FILES if f.stem != "fxpipe"]
    index = str(project / "index.csv")
    outputs = []
    for files, settings in (
        (others, (*SMALL, "two-step-mura:fracture.model.init='none'")),
        ([ROOT / "configs/systems/fxpipe.toml"], [s for s in SMALL if ".preprocess." not in s or
                                                  s.startswith("region.")]),
    ):  # fmt: skip
        result = CliRunner().invoke(
            main,
            ["compare", *map(str, files), "--index", index, "--output", str(output), "--quiet",
             "--device", "cpu", *words(settings)],
            catch_exceptions=False,
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        outputs.append(result.output)
    return output, outputs


def test_shipped_systems():
    assert {file.stem for file in FILES} == {
        "two-step-mura", "cnn-plain", "cnn-small", "cnn-gap", "fxpipe",
    }  # fmt: skip


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_system_trains_two_epochs_exports_and_runs(compared, file, data):
    output, _ = compared
    folder = output / file.stem
    runs = sorted((folder / "runs").iterdir())
    routed = file.stem in ("two-step-mura", "fxpipe")
    assert len(runs) == (4 if routed else 1)
    for run in runs:
        assert len(json.loads((run / "metrics.json").read_text())) == 2, run
    result = CliRunner().invoke(
        main,
        ["run", "--input", str(data / "images"), "--weights", str(folder / "weights"),
         "--output", str(folder / "results"), "--device", "cpu"],
    )  # fmt: skip
    assert result.exit_code in (0, 1), result.output
    table = pd.read_csv(folder / "results/results.csv")
    assert len(table) == sum(1 for _ in (data / "images").iterdir())
    if not routed:
        judged = table[table["status"] == "ok"]
        assert set(judged["region"]) == {"all"}
        assert (table["status"] != "unsupported").all()


def test_independent_networks_share_no_trunk(compared):
    output, _ = compared
    kinds = {}
    for name in ("two-step-mura", "fxpipe"):
        manifest = json.loads((output / name / "weights/manifest.json").read_text())
        kinds[name] = [b["kind"] for b in manifest["bundles"] if b["precision"] == "fp16"]
    assert kinds["two-step-mura"].count("trunk") == 0
    assert kinds["fxpipe"].count("trunk") == 1


def test_comparison_has_a_row_per_system_with_baselines_interval_and_cost(compared):
    output, outputs = compared
    assert "| A: two-step ResNet50 |" in outputs[0]
    assert "majority class" in outputs[0]
    written = json.loads((output / "comparison.json").read_text())  # of the second command
    rows, origin = written["systems"], written["origin"]
    assert origin["table"].startswith("index.csv")
    assert "seed 7" in outputs[1]
    assert f"commit {origin['commit']}." in outputs[1]
    assert [row["folder"] for row in rows] == ["fxpipe"]
    row = rows[0]
    assert row["shared_groups"] == 0
    assert row["images_per_s"] > 0
    evaluated = json.loads((output / "fxpipe/evaluation/evaluation.json").read_text())
    expected = evaluated["fracture"]["pooled"]["in view"]["network"]["auc"]
    assert row["figures"]["fracture AUC"] == expected
    # 23.5 million parameters of the region network with four outputs, a layer4.2 for each
    # specialist, and the references of the density gate.
    assert 23.5e6 + 2 * 4.4e6 < row["cost"]["parameters"] < 23.6e6 + 3 * 4.6e6 + 0.7e6


def test_finished_system_is_reused_only_with_the_same_settings(compared, project):
    output, _ = compared
    index = read_index(project / "index.csv")
    file = ROOT / "configs/systems/cnn-gap.toml"
    system = read_system(file, (*SMALL, *INDEPENDENT))
    run = output / "cnn-gap/runs/fracture-all/best.safetensors"
    before = run.stat().st_mtime_ns
    assert make_system(output / "cnn-gap", system, index, Silent()) == output / "cnn-gap/weights"
    assert run.stat().st_mtime_ns == before
    other = read_system(file, (*SMALL, *INDEPENDENT, "fracture.optim.lr=0.5"))
    with pytest.raises(UsageError, match=r"with other settings; .*\n  optim\.lr: 0\.\d+ → 0\.5$"):
        make_system(output / "cnn-gap", other, index, Silent())


@pytest.mark.parametrize("stale", ["table", "bundle"])
def test_evaluation_of_other_files_is_not_reused(compared, project, stale):
    output, _ = compared
    folder = output / "cnn-gap"
    file = folder / "evaluation/evaluation.json"
    content = json.loads(file.read_text())
    expected = json.dumps(content["fracture"])
    content["fracture"]["pooled"]["in view"]["network"]["auc"]["value"] = 0.999
    if stale == "table":
        content["facts"]["table_digest"] = "0" * 64
    else:
        content["facts"]["bundles"]["fracture-all"]["sha256"] = "0" * 64
    file.write_text(json.dumps(content))
    index, config = read_index(project / "index.csv"), RunConfig(device="cpu")
    row = measure(folder, folder / "weights", "D", index, config, Silent())
    assert json.dumps(json.loads(file.read_text())["fracture"]) == expected
    assert row["figures"]["fracture AUC"]["value"] != 0.999


def test_split_by_picture_reports_the_number_of_shared_groups(project, tmp_path):
    result = CliRunner().invoke(
        main,
        ["compare", str(ROOT / "configs/systems/cnn-gap.toml"), "--index",
         str(project / "index.csv"), "--output", str(tmp_path), "--quiet", "--device", "cpu",
         "--split", "patient", "--split", "picture", *words((*SMALL, *INDEPENDENT))],
        catch_exceptions=False,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    by_patient, by_picture = json.loads((tmp_path / "comparison.json").read_text())["systems"]
    assert by_patient["shared_groups"] == 0
    assert by_picture["shared_groups"] > 0
    assert f"{by_picture['shared_groups']} of {by_picture['pictures']} test pictures" in (
        result.output
    )


def test_invalid_system_files_are_refused(tmp_path):
    for written, fault in (
        ('title = "x"\nregions = ["hand"]\n', r"has regions = \['all'\]"),
        ('title = "x"\n[fracture]\nregion_run = "runs/region"\n', "region_run is 'none'"),
        ("[region]\n", "no title"),
        ('title = "x"\n[region.optim]\nepoch = 1\n', "epochs"),
    ):
        (tmp_path / "system.toml").write_text(written)
        with pytest.raises(ConfigError, match=fault):
            read_system(tmp_path / "system.toml")


def test_region_settings_do_not_apply_to_systems_without_a_router():
    system = read_system(ROOT / "configs/systems/cnn-gap.toml", ["region.optim.epochs=3"])
    assert system.region is None
    routed = read_system(ROOT / "configs/systems/fxpipe.toml", ["region.optim.epochs=3"])
    assert routed.region is not None
    assert routed.region.optim.epochs == 3
    assert isinstance(routed, SystemConfig)


def test_settings_apply_to_one_system_by_its_name(tmp_path):
    from pipeline.cli.compare import by_system

    files = (ROOT / "configs/systems/cnn-gap.toml", ROOT / "configs/systems/fxpipe.toml")
    words = ("a=1", "cnn-gap:b='x:y'", "c='d:e'")
    assert dict(by_system(files, words)) == {
        files[0]: ["a=1", "c='d:e'", "b='x:y'"], files[1]: ["a=1", "c='d:e'"],
    }  # fmt: skip
    result = CliRunner().invoke(
        main, ["compare", str(files[0]), "--set", "cnn-plain:fracture.optim.epochs=2"]
    )
    assert result.exit_code == 2
    assert "no system cnn-plain" in result.output
