"""``fxpipe evaluate --shifts`` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bundles import paint, standard_specs
from click.testing import Result
from command_line import fxpipe
from PIL import Image
from sklearn.metrics import roc_auc_score
from tables import sample
from tiny_networks import write_bundles

from pipeline.bundle import Estimate
from pipeline.config import RunConfig
from pipeline.domain import REGIONS
from pipeline.engine import run
from pipeline.runtime.session import load_bundles
from stages.data.index import read_index, write_index
from stages.evaluation.headlines import words
from stages.evaluation.shifts import SUITE_VERSION
from stages.evaluation.under_shift import FIGURES

FILES = ("predictions_shifts.csv", "shifts.csv")


def painted_table(folder: Path) -> Path:
    """Write 18 pictures of a supported region and 4 of none, in groups of two, and a broken one."""
    random = np.random.default_rng(1)
    samples = []
    for n in range(22):
        region, label = (*REGIONS, "none")[n % 3 if n < 18 else 3], n // 3 % 2
        cell = float(np.clip(random.normal(0.4 + 0.15 * label, 0.1), 0, 1))
        painted = {} if region == "none" else {region: 0.9}
        pixels = paint(painted, dict.fromkeys(REGIONS, cell))
        path = folder / f"{n}.png"
        folder.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
        known = None if region == "none" else label
        samples.append(
            sample(
                str(path), split="test", regions=region, label=known, group=f"g{n // 2}",
                label_kind="" if known is None else "fracture", sha256=f"{n * 7 % 22:02d}",
                boxes=((0.1, 0.2, 0.4, 0.3),) if known else (),
            )
        )  # fmt: skip
    broken = folder / "broken.png"
    broken.write_bytes((folder / "0.png").read_bytes()[:60])
    samples.append(sample(str(broken), split="test", label=1, sha256="99"))
    write_index(samples, folder / "index.csv")
    return folder / "index.csv"


def evaluate(place: Path, output: Path, *words: object) -> Result:
    return fxpipe(
        *("evaluate", "--index", place / "pictures/index.csv", "--weights", place / "weights"),
        *("--output", output, "--device", "cpu", *words),
    )


SUITE = ("--shifts", "--only-shifts", "200-px", "--only-shifts", "inversion")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("shifted")
    painted_table(home / "pictures")
    write_bundles(home / "weights")
    result = evaluate(home, home / "out", *SUITE)
    assert result.exit_code == 1, result.output  # one picture is broken
    (home / "stdout").write_text(result.stdout)
    return home


@pytest.fixture(scope="module")
def shifts(place) -> dict:
    return json.loads((place / "out/evaluation.json").read_text())["shifts"]


@pytest.fixture(scope="module")
def rows(place) -> pd.DataFrame:
    """The predictions under shift, read with plain pandas."""
    return pd.read_csv(place / "out/predictions_shifts.csv")


def test_every_picture_has_one_row_per_shift(rows):
    assert list(dict.fromkeys(rows["shift"])) == ["none", "inversion", "200-px"]
    assert (rows["shift"].value_counts() == 23).all()
    assert rows.groupby("shift")["path"].nunique().eq(23).all()
    assert (rows[rows["path"] == "broken.png"]["status"] == "failed").all()


def test_figures_match_the_rows(rows, shifts):
    assert shifts["suite_version"] == SUITE_VERSION
    assert (shifts["pictures"], shifts["groups"], shifts["cases"]) == (23, 12, 18)
    for name, part in rows.groupby("shift"):
        figures = {figure: each["value"] for figure, each in shifts["by_shift"][name].items()}
        read = part[part["status"] != "failed"]
        single, none = read[read["regions"].isin(REGIONS)], read[read["regions"] == "none"]
        best = single[[f"p_{region}" for region in REGIONS]].idxmax(axis=1).str.removeprefix("p_")
        assert figures["region_accuracy"] == pytest.approx((best == single["regions"]).mean())
        assert figures["answered"] == pytest.approx((single["status"] == "ok").mean())
        assert figures["let_in"] == pytest.approx((none["status"] == "ok").mean())
        score = np.array([row[f"fracture_{row['regions']}"] for _, row in single.iterrows()])
        bound = np.array([row[f"doubt_below_{row['regions']}"] for _, row in single.iterrows()])
        label = single["label"].to_numpy()
        assert figures["auc"] == pytest.approx(roc_auc_score(label, score))
        called = score >= bound
        assert figures["sensitivity_or_uncertain"] == pytest.approx(called[label == 1].mean())
        assert figures["specificity_or_uncertain"] == pytest.approx(1 - called[label == 0].mean())
        hands = (single["regions"] == "hand").to_numpy()
        assert figures["auc_hand"] == pytest.approx(roc_auc_score(label[hands], score[hands]))
    for figure in FIGURES:
        values = [shifts["by_shift"][name][figure]["value"] for name in ("inversion", "200-px")]
        assert shifts["mean"][figure]["value"] == pytest.approx(np.mean(values))


def test_shift_without_effect_has_the_figures_of_the_original_pictures(place, shifts):
    assert shifts["by_shift"]["200-px"] == shifts["by_shift"]["none"]  # they are smaller
    evaluation = json.loads((place / "out/evaluation.json").read_text())
    home = evaluation["fracture"]["pooled"]["in view"]["network"]
    for name in ("auc", "sensitivity", "specificity", "ece"):
        assert shifts["by_shift"]["none"][name] == home[name]


def test_inverted_pictures_are_not_routed_correctly(shifts):
    inverted = {name: each["value"] for name, each in shifts["by_shift"]["inversion"].items()}
    assert inverted["region_accuracy"] == 0.0
    assert inverted["let_in"] == 0.0  # the density gate refuses them
    home = {name: each["value"] for name, each in shifts["by_shift"]["none"].items()}
    assert (home["region_accuracy"], home["let_in"]) == (1.0, 0.0)


def test_shifted_pictures_have_the_outcomes_of_shifted_files(place, rows, tmp_path):
    inverted = rows[rows["shift"] == "inversion"].set_index("path")
    paths = [s.path for s in read_index(place / "pictures/index.csv").samples[:-1]]
    for path in paths:
        with Image.open(path) as picture:
            Image.fromarray(255 - np.asarray(picture)).save(tmp_path / path.name)
    config = RunConfig(device="cpu")
    outcomes = run(
        [tmp_path / path.name for path in paths], load_bundles(place / "weights", config), config
    )
    for outcome in outcomes:
        row = inverted.loc[outcome.image.path.name]
        assert row["status"] == outcome.status.value
        assert outcome.region is not None
        for region, p in outcome.region.probabilities.items():
            assert row[f"p_{region}"] == pytest.approx(p, abs=1e-6)
        for finding in outcome.findings:
            assert row[f"verdict_{finding.region}"] == finding.verdict.value


def test_terminal_and_page_show_the_shifts(place, shifts):
    text, page = (place / "stdout").read_text(), (place / "out/index.html").read_text()
    mean = words(Estimate(**shifts["mean"]["auc"]))
    for word in ("none (home)", "inversion", "200-px", "mean of 2", mean):
        assert word in text
    for word in ("Under shift", "none (home)", "inversion", "mean of 2"):
        assert word in page
    for output in (text, page):
        assert "suite 1, without tight-crop" in output
        assert "23 pictures, 18 cases (9 positive)" in output
    table = pd.read_csv(place / "out/shifts.csv")
    assert len(table) == 4 * len(FIGURES)


def write_cards_to(weights: Path) -> list[str]:
    """Write painted bundles with a folder for each card; returns the folders, the trunk first."""
    specs = standard_specs()
    for spec in specs:
        (weights / spec.name).mkdir(parents=True)
    write_bundles(weights, specs)
    return [spec.name for spec in specs]


def test_cards_show_the_shifts(place, tmp_path):
    folders = write_cards_to(tmp_path / "weights")
    file = place / "out/evaluation.json"
    result = fxpipe("cards", "--weights", tmp_path / "weights", "--evaluation", file)
    assert result.exit_code == 0, result.output
    answered = json.loads(file.read_text())["shifts"]["mean"]["answered"]
    for name in ("README.md", *(f"{folder}/README.md" for folder in folders[1:])):
        card = (tmp_path / "weights" / name).read_text()
        assert f"\n| mean of 2 | {words(Estimate(**answered))} | " in card
        assert card.count("\n| none (home) | ") == 2
        assert "Under shift: suite 1" in card
    assert "none (home)" not in (tmp_path / f"weights/{folders[0]}/README.md").read_text()
    without = json.loads(file.read_text()) | {"shifts": None}
    (tmp_path / "without.json").write_text(json.dumps(without))
    fxpipe(*("cards", "--weights", tmp_path / "weights", "--evaluation", tmp_path / "without.json"))
    assert "none (home)" not in (tmp_path / "weights/README.md").read_text()


def test_limited_pictures_are_reported_and_old_files_are_removed(place, tmp_path):
    result = evaluate(place, tmp_path, *SUITE, "--limit", 9)
    assert "9 pictures of 23 (first by SHA-256)" in result.stdout
    rows = pd.read_csv(tmp_path / "predictions_shifts.csv")
    chosen = sorted(read_index(place / "pictures/index.csv").samples, key=lambda s: s.sha256)[:9]
    for _, part in rows.groupby("shift"):
        assert set(part["path"]) == {s.path.name for s in chosen}
    assert all((tmp_path / name).is_file() for name in FILES)
    assert len(pd.read_csv(tmp_path / "predictions.csv")) == 23
    evaluate(place, tmp_path, "--quiet")
    assert not any((tmp_path / name).exists() for name in FILES)
    assert json.loads((tmp_path / "evaluation.json").read_text())["shifts"] is None
    assert "Under shift" not in (tmp_path / "index.html").read_text()


def test_suite_is_drawn_without_weights(place, tmp_path):
    sheet = tmp_path / "shifts.png"
    result = fxpipe(
        *("evaluate", "--index", place / "pictures/index.csv", "--weights", tmp_path / "no"),
        *("--output", tmp_path / "out", "--shifts", "--show", sheet),
    )
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{sheet}: every shift of 4 pictures\n"
    with Image.open(sheet) as picture:
        assert picture.size == (12 * 180, 4 * 180)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (("--limit", "3"), "need --shifts"),
        (("--only-shifts", "blur"), "need --shifts"),
        (("--show", "a.png"), "need --shifts"),
        (("--shifts", "--only-shifts", "fog"), "unknown shift fog; choose from tight-crop"),
    ],
)
def test_wrong_options_are_wrong_usage(place, tmp_path, options, fault):
    result = evaluate(place, tmp_path / "out", *options)
    assert result.exit_code == 2
    assert fault in result.output
    assert not (tmp_path / "out").exists()
