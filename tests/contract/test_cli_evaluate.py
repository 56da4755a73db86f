"""``fxpipe evaluate`` as its users meet it, and its figures computed anew by scikit-learn."""

from __future__ import annotations

import hashlib
import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bundles import GATE, for_all, standard_specs, write_png
from click.testing import CliRunner, Result
from sklearn import metrics
from tables import sample
from tiny_networks import write_bundles

from pipeline.cli import main
from pipeline.config import RunConfig
from pipeline.domain import REGIONS
from pipeline.engine import run
from pipeline.runtime.session import load_bundles
from stages.data.index import read_index, write_index

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


def fxpipe(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)


def painted_table(folder: Path) -> Path:
    """Pictures that ask for every kind of answer, one of them broken."""
    random = np.random.default_rng(0)
    samples = []

    def add(
        name: str, split: str, regions: str, label: int | None, shown, fractures, strange=0.1,
        **changes,
    ):  # fmt: skip
        path = write_png(folder / "pictures" / name, shown, fractures, strange)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        kind = "" if label is None else "fracture"
        values = {"split": split, "regions": regions, "label": label, "label_kind": kind}
        samples.append(sample(str(path), **values, **{"sha256": digest, **changes}))

    for n in range(36):
        region, label = REGIONS[n % 3], int(random.random() < 0.5)
        cells = {r: float(np.clip(random.normal(0.4 + 0.2 * label, 0.1), 0, 1)) for r in REGIONS}
        changes = {
            "group": f"g{n // 2}" if n < 24 else f"t{n}",
            "flags": "hardware" if n % 5 == 0 else "",
            "boxes": ((0.2, 0.25, 0.6, 0.5),) if label else (),
        }
        shown = {region: 0.7 + 0.005 * n}
        add(f"{n}.png", "test" if n < 24 else "train", region, label, shown, cells, **changes)
    odd = ("test", "elbow;hand", 1, {"elbow": 0.8, "hand": 0.9}, {"elbow": 0.46, "hand": 0.7})
    add("both.png", *odd, boxes=((0.1, 0.1, 0.2, 0.2),))
    add("doubt.png", "test", "hand", 1, {"hand": 0.9}, {"hand": 0.47})
    add("knee.png", "test", "none", None, {}, {"hand": 0.9})
    add("astray.png", "test", "none", 1, {"shoulder": 0.8}, {"shoulder": 0.9})
    add("refused.png", "test", "hand", 1, {"hand": 0.3}, {"hand": 0.9})
    add("unknown.png", "test", "unknown", None, {"hand": 0.95}, {"hand": 0.2})
    add("foot.png", "test", "none", None, {"hand": 0.95}, {"hand": 0.9}, strange=0.9)
    add("odd.png", "test", "hand", 0, {"hand": 0.94}, {"hand": 0.1}, strange=0.85)
    add("out.png", "excluded", "hand", 0, {"hand": 0.91}, {"hand": 0.2}, flags="truncated")
    broken = folder / "pictures/broken.png"
    whole = (folder / "pictures/both.png").read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    samples.append(sample(str(broken), split="test", label=1))
    write_index(samples, folder / "index.csv")
    return folder / "index.csv"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder in which the painted table was evaluated with the painted bundles."""
    home = tmp_path_factory.mktemp("evaluated")
    table = painted_table(home)
    write_bundles(home / "weights")
    result = fxpipe(
        *("evaluate", "--index", table, "--weights", home / "weights", "--output", home / "out"),
        *("--device", "cpu", "--batch-size", 5, "--prevalence", 0.1, "--prevalence", 0.3),
    )
    assert result.exit_code == 1, result.output  # one picture is broken
    (home / "stdout").write_text(result.stdout)
    return home


@pytest.fixture(scope="module")
def predictions(place) -> pd.DataFrame:
    """As a stranger reads them."""
    return pd.read_csv(place / "out/predictions.csv")


@pytest.fixture(scope="module")
def evaluation(place) -> dict:
    return json.loads((place / "out/evaluation.json").read_text())


def test_every_file_is_there(place):
    assert {path.name for path in (place / "out").iterdir()} == FILES


def test_the_terminal_shows_figures_baselines_counts_and_intended_use(place):
    text = (place / "stdout").read_text()
    assert text.splitlines()[0] == (
        f"weights: {place / 'weights'}, fp32 on cpu, trained as test of 2026-01-01"
    )
    for word in (
        "33 pictures of split test; the table has", "12 train", "1 excluded", "majority",
        "look-up", "end to end", "hand: AUC", "ECE", "[0.", "33 in all:", "1 wrong route",
        "1 failed", "2 rightly, 2 wrongly", "1 no truth", "refused by", "AUC by density",
        "index.html", "not a medical device",
    ):  # fmt: skip
        assert word in text, word


def test_every_row_of_the_split_is_there_once_and_ends_once(predictions, evaluation):
    assert len(predictions) == predictions["path"].nunique() == 33
    ends = evaluation["end_to_end"]["all"]["counts"]
    assert ends == predictions["category"].value_counts().reindex(list(ends)).to_dict()
    assert sum(ends.values()) == 33
    named = predictions.set_index("path")["category"]
    for name, end in (
        ("broken", "failed"), ("knee", "unsupported"), ("astray", "wrong route"),
        ("refused", "unsupported"), ("unknown", "no truth"), ("both", "right"),
        ("doubt", "wrong decision"), ("foot", "unsupported"), ("odd", "unsupported"),
    ):  # fmt: skip
        assert named[f"pictures/{name}.png"] == end
    assert evaluation["end_to_end"]["all"]["uncertain"]["wrong decision"] >= 1
    lost = predictions.set_index("path").loc["pictures/broken.png"]
    assert "cannot decode" in lost["error"]
    assert lost[["p_hand", "fracture_hand", "twin"]].isna().all()


def test_gate_and_router_are_told_apart(place, evaluation):
    refused = evaluation["gate"]["refused"]
    # Refused by the gate: a foot, and an odd hand; by the router: a knee, and a hand.
    assert refused["supported"]["pictures"] == 28
    assert refused["supported"]["counts"] == {"gate": 1, "router": 1, "both": 0, "either": 2}
    assert refused["unsupported"]["pictures"] == 3
    assert refused["unsupported"]["counts"] == {"gate": 1, "router": 1, "both": 0, "either": 2}
    assert set(evaluation["gate"]["auc"]) == {"router", "density", "both"}
    assert evaluation["facts"]["gate"]["threshold"] == GATE.threshold
    table = pd.read_csv(place / "out/gate.csv").set_index(["figure", "by"])
    assert table.loc[("unsupported refused", "either"), "count"] == 2
    auc = evaluation["gate"]["auc"]["density"]["value"]
    assert table.loc[("auc", "density"), "value"] == pytest.approx(auc)
    page = (place / "out/index.html").read_text(encoding="utf-8")
    assert "by the density gate (regardless of the router)" in page


def assert_as_run(table: Path, weights: Path, predictions: pd.DataFrame) -> None:
    """Every row of the split says what ``fxpipe run`` says of its picture."""
    config = RunConfig(device="cpu", batch_size=4)
    paths = [s.path for s in read_index(table).samples if s.split == "test"]
    outcomes = list(run(paths, load_bundles(weights, config), config))
    assert len(outcomes) == len(predictions)
    specialists = [name for name in (*REGIONS, "all") if f"verdict_{name}" in predictions]
    for outcome, (_, row) in zip(outcomes, predictions.iterrows(), strict=True):
        assert str(row["path"]).endswith(outcome.image.path.name)
        assert row["status"] == outcome.status.value
        assert row["error"] == outcome.error or (pd.isna(row["error"]) and outcome.error is None)
        fired = outcome.region.fired if outcome.region else ()
        assert ("" if pd.isna(row["fired"]) else row["fired"]) == ";".join(fired)
        if outcome.region:
            for region, p in outcome.region.probabilities.items():
                assert row[f"p_{region}"] == pytest.approx(p, abs=1e-6)
            assert row["density"] == pytest.approx(outcome.region.density, abs=1e-6)
            assert row["density_threshold"] == outcome.region.density_threshold
        told = {name: row[f"verdict_{name}"] for name in specialists}
        told = {name: verdict for name, verdict in told.items() if not pd.isna(verdict)}
        assert told == {f.region: f.verdict.value for f in outcome.findings}
        for finding in outcome.findings:
            found = row[f"fracture_{finding.region}"]
            assert found == pytest.approx(finding.probability, abs=1e-6)


def test_the_end_to_end_answers_are_those_of_fxpipe_run(place, predictions):
    assert_as_run(place / "index.csv", place / "weights", predictions)


def test_one_specialist_for_the_regions_without_their_own(place, tmp_path):
    trunk, router, _, hand, _ = standard_specs()
    write_bundles(tmp_path / "weights", [trunk, router, hand, for_all()[1]])
    fxpipe(
        *("evaluate", "--index", place / "index.csv", "--weights", tmp_path / "weights"),
        *("--output", tmp_path / "out", "--device", "cpu", "--quiet"),
    )
    table = pd.read_csv(tmp_path / "out/predictions.csv")
    assert_as_run(place / "index.csv", tmp_path / "weights", table)
    assert table["fracture_elbow"].equals(table["fracture_all"])
    assert table["peak_x_shoulder"].equals(table["peak_x_all"])
    assert not table["fracture_hand"].equals(table["fracture_all"])
    assert table["verdict_elbow"].isna().all()
    evaluation = json.loads((tmp_path / "out/evaluation.json").read_text())
    ends = evaluation["end_to_end"]["all"]["counts"]
    assert sum(ends.values()) == 33
    assert (ends["failed"], ends["unsupported"], ends["wrong route"]) == (1, 4, 1)
    assert evaluation["fracture"]["elbow"]["in view"]["pictures"] == 9
    assert evaluation["region"]["accuracy"]["pictures"] > 0


def ece(labels: pd.Series, scores: pd.Series) -> float:
    """Straight from the definition."""
    bins = np.minimum((scores.to_numpy() * 10).astype(int), 9)
    gaps = [
        abs(scores.to_numpy()[bins == b].mean() - labels.to_numpy()[bins == b].mean())
        * (bins == b).sum()
        for b in set(bins)
    ]
    return sum(gaps) / len(bins)


def recomputed(y: pd.Series, p: pd.Series, calls: pd.Series) -> dict[str, float]:
    """The figures of a stage by scikit-learn, from two columns and a threshold."""
    sensitivity = metrics.recall_score(y, calls)
    specificity = metrics.recall_score(1 - y, 1 - calls)
    return {
        "auc": metrics.roc_auc_score(y, p),
        "average_precision": metrics.average_precision_score(y, p),
        "accuracy": metrics.accuracy_score(y, calls),
        "balanced_accuracy": metrics.balanced_accuracy_score(y, calls),
        "sensitivity": sensitivity,
        "specificity": specificity,
        "ppv": metrics.precision_score(y, calls),
        "npv": metrics.precision_score(1 - y, 1 - calls),
        "kappa": metrics.cohen_kappa_score(y, calls),
        "brier": metrics.brier_score_loss(y, p),
        "ece": ece(y, p),
        "ppv_at_0.1": sensitivity * 0.1 / (sensitivity * 0.1 + (1 - specificity) * 0.9),
        "npv_at_0.3": specificity * 0.7 / (specificity * 0.7 + (1 - sensitivity) * 0.3),
    }


def check(part: dict, y: pd.Series, p: pd.Series, calls: pd.Series) -> None:
    assert (part["pairs"], part["positives"]) == (len(y), int(y.sum()))
    assert part["pictures"] == len(set(y.index))
    assert part["positive_pictures"] == len(set(y.index[y == 1]))
    for name, value in recomputed(y, p, calls).items():
        figure = part["network"][name]
        assert figure["value"] == pytest.approx(value, abs=1e-12), name
        if figure["low"] is not None:
            assert figure["low"] - 1e-12 <= value <= figure["high"] + 1e-12


def test_scikit_learn_finds_the_same_fracture_figures(predictions, evaluation):
    judged = predictions[predictions["label"].notna() & (predictions["status"] != "failed")]
    seen, fired = {}, {}
    for region in REGIONS:
        shown = judged["regions"].str.split(";").map(lambda names, r=region: r in names)
        sent = judged["fired"].fillna("").str.split(";").map(lambda names, r=region: r in names)
        for rows, store, name in ((shown, seen, "in view"), (sent, fired, "routed")):
            part = judged[rows]
            columns = part["label"].astype(int), part[f"fracture_{region}"]
            store[region] = (*columns, (columns[1] >= part[f"threshold_{region}"]).astype(int))
            check(evaluation["fracture"][region][name], *store[region])
    for store, name in ((seen, "in view"), (fired, "routed")):
        pooled = [pd.concat(parts) for parts in zip(*store.values(), strict=True)]
        check(evaluation["fracture"]["pooled"][name], *pooled)


def test_scikit_learn_finds_the_same_routing_risk_and_subgroups(predictions, evaluation):
    readable = predictions[predictions["p_hand"].notna()]
    single = readable[readable["regions"].isin(REGIONS)]
    best = single[[f"p_{region}" for region in REGIONS]].idxmax(axis=1).str.removeprefix("p_")
    accuracy = metrics.accuracy_score(single["regions"], best)
    assert evaluation["region"]["accuracy"]["network"]["value"] == pytest.approx(accuracy)
    known = readable[readable["view_elbow"].notna()]
    auc = metrics.roc_auc_score(known["view_elbow"], known["p_elbow"])
    assert evaluation["region"]["regions"]["elbow"]["network"]["auc"]["value"] == pytest.approx(auc)

    judged = predictions[predictions["label"].notna() & predictions["in_view_probability"].notna()]
    judged = judged[judged["status"] != "failed"]
    hardware = judged[judged["flags"] == "hardware"]
    found = evaluation["subgroups"]["hardware"]["with"]
    check(
        found, hardware["label"].astype(int), hardware["in_view_probability"],
        hardware["in_view_call"].astype(int),
    )  # fmt: skip
    order = np.argsort(-judged["in_view_margin"].abs().to_numpy(), kind="stable")
    wrong = (judged["in_view_call"] != judged["label"]).to_numpy()[order]
    aurc = (np.cumsum(wrong) / np.arange(1, len(wrong) + 1)).mean()
    risk = evaluation["risk_coverage"]["pooled"]["network"]["value"]
    assert risk == pytest.approx(aurc, abs=0.02)  # cases of one sureness are taken together

    twin = judged[judged["regions"].str.contains("hand") & judged["twin_label"].notna()]
    looked_up = metrics.accuracy_score(twin["label"], twin["twin_label"])
    assert evaluation["fracture"]["hand"]["in view"]["look_up"]["accuracy"][
        "value"
    ] == pytest.approx(looked_up)
    hits = predictions["pointing_hit"].dropna()
    pointing = evaluation["pointing"]["pooled"]
    assert (pointing["pictures"], pointing["centre"]["network"]["value"]) == (
        len(hits), pytest.approx(hits.mean()),
    )  # fmt: skip


def test_the_page_stands_by_itself(place):
    page = (place / "out/index.html").read_text(encoding="utf-8")
    found: list[tuple[str, str]] = []

    class Links(HTMLParser):
        def handle_starttag(self, tag, attrs):
            found.extend((k, v or "") for k, v in attrs if k in ("src", "href"))

    Links().feed(page)
    assert len(found) == 4
    assert all(v.startswith("data:image/png;base64,") for _, v in found)
    for word in ("not a medical device", "33 pictures", "majority", "look-up", "Subgroups"):
        assert word in page
    assert "<script" not in page
    assert "None" not in page


def test_facts_name_everything_that_the_figures_depend_on(place, evaluation):
    facts = evaluation["facts"]
    digest = hashlib.sha256((place / "index.csv").read_bytes()).hexdigest()
    assert (evaluation["schema_version"], facts["table_digest"]) == (3, digest)
    assert set(facts["bundles"]) == {"trunk", "region", *(f"fracture-{r}" for r in REGIONS)}
    assert facts["operating_points"]["hand"]["name"] == "balanced"
    assert (facts["precision"], facts["device"], facts["split"]) == ("fp32", "cpu", "test")
    assert facts["seen_in_training"]["status"] == "unknown"
    assert str(place) not in json.dumps(evaluation)


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
def test_what_cannot_be_evaluated_says_why(place, monkeypatch, words, code, message):
    monkeypatch.chdir(place)
    result = fxpipe("evaluate", "--device", "cpu", *words)
    assert result.exit_code == code, result.output
    assert message in result.output


def test_another_operating_point_and_the_excluded_rows(place, tmp_path):
    fxpipe(
        *("evaluate", "--index", place / "index.csv", "--weights", place / "weights", "--quiet"),
        *("--output", tmp_path, "--device", "cpu", "--operating-point", "specific"),
        "--with-excluded",
    )  # fmt: skip
    table = pd.read_csv(tmp_path / "predictions.csv")
    assert len(table) == 34
    assert set(table["threshold_hand"].dropna()) == {0.95}
    assert set(table["split"]) == {"test", "excluded"}


def test_one_specialist_for_all_regions_on_a_set_without_regions(tmp_path):
    samples = []
    for n in range(16):
        label = n % 2
        path = write_png(tmp_path / f"{n}.png", {}, {"all": 0.35 + 0.02 * n + 0.1 * label})
        split = "test" if n < 12 else "train"
        boxes = ((0.0, 0.5, 0.25, 0.75),) if label else ()  # where the cell of all lies
        samples.append(sample(str(path), split=split, regions="unknown", label=label, boxes=boxes))
    write_index(samples, tmp_path / "index.csv")
    write_bundles(tmp_path / "weights", for_all())
    result = fxpipe(
        *("evaluate", "--index", tmp_path / "index.csv", "--weights", tmp_path / "weights"),
        *("--output", tmp_path / "out", "--device", "cpu"),
    )
    assert result.exit_code == 0, result.output
    assert "all: AUC" in result.stdout
    evaluation = json.loads((tmp_path / "out/evaluation.json").read_text())
    assert evaluation["region"] is evaluation["cross_region"] is None
    assert evaluation["facts"]["no_region_stage"] == "no region stage in these weights"
    table = pd.read_csv(tmp_path / "out/predictions.csv")
    check_all = table["label"], table["fracture_all"]
    calls = (table["fracture_all"] >= table["threshold_all"]).astype(int)
    part = evaluation["fracture"]["all"]["in view"]
    assert (part["pictures"], part["positives"]) == (12, 6)
    for name, value in recomputed(*check_all, calls).items():
        if name in part["network"]:
            assert part["network"][name]["value"] == pytest.approx(value, abs=1e-12)
    ends = evaluation["end_to_end"]["all"]["counts"]
    assert ends["right"] == int((calls == table["label"]).sum())
    assert sum(ends.values()) == ends["right"] + ends["wrong decision"] == 12
    pointing = evaluation["pointing"]["all"]
    assert (pointing["pictures"], pointing["centre"]["network"]["value"]) == (6, 1.0)
    page = (tmp_path / "out/index.html").read_text(encoding="utf-8")
    assert "Not measured: no region stage in these weights" in page
    assert page.count("data:image/png") == 3
    assert "None" not in page
    config = RunConfig(device="cpu")
    weights = load_bundles(tmp_path / "weights", config)
    outcomes = run([tmp_path / name for name in table["path"]], weights, config)
    for outcome, (_, row) in zip(outcomes, table.iterrows(), strict=True):
        (finding,) = outcome.findings
        assert (row["status"], row["verdict_all"]) == (outcome.status, finding.verdict)
        assert row["fracture_all"] == pytest.approx(finding.probability, abs=1e-6)


def test_labels_of_another_kind_are_an_answer_to_another_question(place, tmp_path):
    assert "the networks predict" not in (place / "out/index.html").read_text()
    table = (place / "index.csv").read_text().replace(",fracture,", ",abnormality,")
    # Beside the other table: its paths are relative to it.
    (place / "abnormal.csv").write_text(table)
    result = fxpipe(
        *("evaluate", "--index", place / "abnormal.csv", "--weights", place / "weights"),
        *("--output", tmp_path, "--device", "cpu"),
    )
    assert "The labels mean abnormality, the networks predict fracture" in result.stderr
    assert "The labels mean abnormality, the networks predict fracture" in result.stdout
    assert "the networks predict" in (tmp_path / "index.html").read_text()


def test_trained_bundles_on_pictures_that_they_have_seen(project, tmp_path):
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
