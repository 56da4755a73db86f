"""Thresholds for studies, from a training run on a table with studies to the bundle."""

import json

import pytest
from click.testing import CliRunner
from PIL import Image
from tables import picture, sample

from pipeline.cli import main
from pipeline.config import RunConfig
from pipeline.runtime.session import load_bundles
from stages.data.index import write_index
from stages.samples import Sample

SMALL = (
    *("preprocess.height_px=64", "preprocess.width_px=64", "train.arch=cnn_gap"),
    *("train.device=cpu", "train.precision=32-true", "data.workers=0", "optim.epochs=1"),
    "optim.batch_size=16",
)


def fxpipe(*words):
    result = CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on studies of two pictures; in a positive study one picture is positive."""
    home = tmp_path_factory.mktemp("studies")
    samples: list[Sample] = []
    for split, studies in (("train", 20), ("val", 24), ("test", 6)):
        for n in range(studies):
            for k in range(2):
                label = int(n % 2 == 0 and k == 0)
                path = home / f"{split}-{n}-{k}.png"
                Image.fromarray(picture("hand", bool(label), seed=len(samples))).save(path)
                study = f"{split}/s{n}"
                samples.append(sample(str(path), split=split, label=label, sha256=path.name,
                                      group=study, study=study))  # fmt: skip
    write_index(samples, home / "index.csv")
    fxpipe(
        *("train-stage", "fracture", "--region", "all", "--init", "none", "--quiet"),
        *("--index", home / "index.csv", "--output", home / "runs/all", "--allow-leaks"),
        *(word for setting in SMALL for word in ("--set", setting)),
    )
    return home


def test_points_fitted_to_validation_studies_are_exported(trained):
    result = json.loads((trained / "runs/all/result.json").read_text())
    assert result["no_study_points"] == ""
    rule = result["study_points"]["balanced"]["rule"]
    assert "the validation split: the highest probability in each of 24 studies" in rule
    fxpipe(
        *("export", "--run", trained / "runs/all", "--index", trained / "index.csv"),
        *("--weights", trained / "weights", "--precision", "fp32"),
        *("--set", "pictures=8", "--set", "calibration_pictures=8"),
    )
    spec = load_bundles(trained / "weights", RunConfig(device="cpu")).fracture["all"].spec
    stored = {name: point.model_dump(mode="json") for name, point in spec.study_points.items()}
    assert stored == result["study_points"]
    fxpipe("cards", "--weights", trained / "weights")
    (card,) = trained.glob("weights/*/README.md")
    assert "For whole studies" in card.read_text()


def test_result_states_that_the_table_has_no_studies(project):
    result = json.loads((project / "runs/hand/result.json").read_text())
    assert (result["study_points"], result["no_study_points"]) == (
        {}, "the table has no studies",
    )  # fmt: skip
