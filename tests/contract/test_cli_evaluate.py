"""``fxpipe evaluate`` from the command line: output files, messages and options."""

from __future__ import annotations

import hashlib
import json
from html.parser import HTMLParser

import pandas as pd
import pytest
from command_line import fxpipe

from pipeline.domain import REGIONS

FILES = {
    *("index.html", "evaluation.json", "predictions.csv", "region.csv", "region_confusion.csv"),
    *("cross_region.csv", "fracture.csv", "subgroups.csv", "end_to_end.csv", "risk_coverage.csv"),
    *(
        "gate.csv",
        "pointing.csv",
        "roc.png",
        "reliability.png",
        "confusion.png",
        "risk_coverage.png",
    ),
}


def test_all_files_are_written(evaluated):
    assert {path.name for path in (evaluated / "out").iterdir()} == FILES


def test_terminal_shows_figures_baselines_counts_and_intended_use(evaluated):
    text = (evaluated / "stdout").read_text()
    assert text.splitlines()[0] == (
        f"weights: {evaluated / 'weights'}, fp32 on cpu, trained as test of 2026-01-01"
    )
    for word in (
        "33 pictures of split test; the table has", "12 train", "1 excluded", "majority",
        "look-up", "end to end", "hand: AUC", "ECE", "[0.", "33 in all:", "1 wrong route",
        "1 failed", "2 rightly, 2 wrongly", "1 no truth", "refused by", "AUC by density",
        "index.html", "not a medical device",
    ):  # fmt: skip
        assert word in text, word


def test_page_is_self_contained(evaluated):
    page = (evaluated / "out/index.html").read_text(encoding="utf-8")
    links: list[str] = []

    class Links(HTMLParser):
        def handle_starttag(self, tag, attrs):
            links.extend(value or "" for name, value in attrs if name in ("src", "href"))

    Links().feed(page)
    assert len(links) == 4
    assert all(link.startswith("data:image/png;base64,") for link in links)
    for word in ("not a medical device", "33 pictures", "majority", "look-up", "Subgroups"):
        assert word in page
    assert "<script" not in page
    assert "None" not in page


def test_facts_list_everything_that_affects_the_figures(evaluated, evaluation):
    facts = evaluation["facts"]
    digest = hashlib.sha256((evaluated / "index.csv").read_bytes()).hexdigest()
    assert (evaluation["schema_version"], facts["table_digest"]) == (3, digest)
    assert set(facts["bundles"]) == {"trunk", "region", *(f"fracture-{r}" for r in REGIONS)}
    assert facts["operating_points"]["hand"]["name"] == "balanced"
    assert (facts["precision"], facts["device"], facts["split"]) == ("fp32", "cpu", "test")
    assert facts["seen_in_training"]["status"] == "unknown"
    assert str(evaluated) not in json.dumps(evaluation)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--index", "none.csv"], 2, "none.csv: cannot be read"),
        (["--split", "val"], 2, "no rows of split val; the table has"),
        (["--split", "dev"], 2, "dev"),
        (["--prevalence", "1"], 2, "prevalence"),
        (["--operating-point", "lucky"], 2, "lucky"),
        (["--batch-size", "0"], 2, "batch_size"),
        (["--weights", "nowhere"], 3, "nowhere"),
        (["--output", "index.csv/out"], 2, "cannot be written"),
    ],
)
def test_wrong_usage_is_reported(evaluated, monkeypatch, words, code, message):
    monkeypatch.chdir(evaluated)
    result = fxpipe("evaluate", "--device", "cpu", *words)
    assert result.exit_code == code, result.output
    assert message in result.output


def test_operating_point_and_excluded_rows_can_be_chosen(evaluated, tmp_path):
    fxpipe(
        *("evaluate", "--index", evaluated / "index.csv", "--weights", evaluated / "weights"),
        *("--output", tmp_path, "--device", "cpu", "--operating-point", "specific"),
        *("--with-excluded", "--quiet"),
    )
    table = pd.read_csv(tmp_path / "predictions.csv")
    assert len(table) == 34
    assert set(table["threshold_hand"].dropna()) == {0.95}
    assert set(table["split"]) == {"test", "excluded"}


def test_other_kind_of_labels_is_reported(evaluated, tmp_path):
    assert "the networks predict" not in (evaluated / "out/index.html").read_text()
    table = (evaluated / "index.csv").read_text().replace(",fracture,", ",abnormality,")
    # In the folder of the other table, to which its paths are relative.
    (evaluated / "abnormal.csv").write_text(table)
    result = fxpipe(
        *("evaluate", "--index", evaluated / "abnormal.csv", "--weights", evaluated / "weights"),
        *("--output", tmp_path, "--device", "cpu"),
    )
    assert "The labels mean abnormality, the networks predict fracture" in result.stderr
    assert "The labels mean abnormality, the networks predict fracture" in result.stdout
    assert "the networks predict" in (tmp_path / "index.html").read_text()


def test_use_of_training_pictures_is_reported(project, tmp_path):
    result = fxpipe(
        *("evaluate", "--index", project / "index.csv", "--weights", project / "weights"),
        *("--output", tmp_path, "--device", "cpu", "--precision", "fp32", "--split", "all"),
    )
    assert result.exit_code == 0, result.output
    assert "The networks have seen these pictures" in result.stderr
    evaluation = json.loads((tmp_path / "evaluation.json").read_text())
    assert evaluation["facts"]["seen_in_training"]["status"] == "yes"
    assert "The networks have seen" in (tmp_path / "index.html").read_text()
    table = pd.read_csv(tmp_path / "predictions.csv")
    counts = evaluation["end_to_end"]["all"]["counts"]
    assert sum(counts.values()) == len(table) == evaluation["facts"]["pictures"]
    assert table.loc[table["split"] == "train", "twin"].isna().all()
    assert table.loc[table["split"] == "test", "twin"].notna().all()
