"""``/engines``, and recalibration from reviews: labels, new thresholds, comparison, promotion."""

from __future__ import annotations

import io
import zipfile
from functools import partial

import pytest
from click.testing import CliRunner
from tiny_networks import with_threshold, write_bundles
from tiny_service import Client, hand, positive, tiny_service, until

from pipeline.cli import main
from pipeline.service import tables as t


@pytest.fixture
def app(tmp_path):
    """A fresh service for each test."""
    with tiny_service(tmp_path) as opened:
        yield opened


def engines(client):
    return {one["id"]: one for one in client.get("/engines").json()}


def add(admin, weights):
    answer = admin.post("/engines", json={"weights": str(weights)})
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def judged_by(admin, number, count):
    return until(lambda: engines(admin)[number], lambda engine: engine["judged"] >= count)


def test_candidate_judges_old_and_new_pictures_and_is_promoted(app, admin, reader, tmp_path):
    old = reader.judged(hand(0.55))
    assert old["answer"] == "positive"
    (first,) = engines(reader)
    candidate = add(admin, with_threshold(tmp_path / "strict", 0.9))
    assert engines(reader)[candidate]["state"] == "candidate"
    new = reader.judged(hand(0.56))
    same = reader.judged(positive())
    judged_by(admin, candidate, 3)
    shown = reader.get(f"/pictures/{new['id']}").json()
    assert (shown["answer"], shown["results"][0]["engine"]) == ("positive", first)
    comparison = admin.get(f"/engines/{candidate}/comparison").json()
    assert (comparison["pictures"], comparison["agree"]) == (3, 1)
    changes = {one["picture"]: (one["before"], one["after"]) for one in comparison["changed"]}
    assert changes == dict.fromkeys((old["id"], new["id"]), ("positive", "uncertain"))

    assert admin.post(f"/engines/{candidate}/promote").status_code == 204
    assert {n: one["state"] for n, one in engines(reader).items()} == {
        first: "retired", candidate: "active",
    }  # fmt: skip
    shown = until(
        lambda: reader.get(f"/pictures/{old['id']}").json(),
        lambda body: body["answer"] == "uncertain",
    )
    assert [one["engine"] for one in shown["results"]] == [candidate]
    assert reader.judged(hand(0.57))["answer"] == "uncertain"
    assert reader.get(f"/pictures/{same['id']}").json()["answer"] == "positive"
    until(lambda: engines(reader), lambda found: not found[first]["loaded"])
    with app.state.service.database.read() as connection:
        kept = connection.execute(t.result.select().where(t.result.c.engine_id == first)).all()
    assert len(kept) == 3

    assert admin.post(f"/engines/{first}/promote").status_code == 204  # and back
    until(
        lambda: reader.get(f"/pictures/{old['id']}").json(),
        lambda body: body["answer"] == "positive",
    )


def test_picture_that_the_new_engine_has_not_judged_keeps_its_result(
    app, admin, reader, tmp_path, monkeypatch
):
    monkeypatch.setattr("pipeline.service.engine_table.BACKFILL_PICTURES", 1)
    old, newer = reader.judged(hand(0.55)), reader.judged(hand(0.56))
    candidate = add(admin, with_threshold(tmp_path / "strict", 0.9))
    judged_by(admin, candidate, 1)
    admin.post(f"/engines/{candidate}/promote")
    until(
        lambda: reader.get(f"/pictures/{newer['id']}").json(),
        lambda body: body["answer"] == "uncertain",
    )
    kept = reader.get(f"/pictures/{old['id']}").json()
    assert (kept["answer"], len(kept["results"])) == ("positive", 1)


def picture(reader, number):
    return reader.get(f"/pictures/{number}").json()


def test_waiting_pictures_are_queued_for_the_promoted_engine(app, admin, reader, tmp_path):
    candidate = add(admin, with_threshold(tmp_path / "strict", 0.9))
    numbers = [reader.send_file(hand(0.55)) for _ in range(12)]
    assert admin.post(f"/engines/{candidate}/promote").status_code == 204
    for number in numbers:
        body = until(
            partial(picture, reader, number),
            lambda body: body["answer"] == "uncertain",
        )
        assert len(body["results"]) == 1
    assert engines(reader)[candidate]["waiting"] == 0


def test_engines_persist_after_a_restart(tmp_path):
    """The weights of the command are those of the retired engine, which stays retired."""
    weights = write_bundles(tmp_path / "weights")
    with tiny_service(tmp_path, weights) as app:
        admin = Client(app, "admin")
        old = admin.judged(hand(0.55))
        candidate = add(admin, with_threshold(tmp_path / "strict", 0.9))
        judged_by(admin, candidate, 1)
        assert admin.post(f"/engines/{candidate}/promote").status_code == 204
    with tiny_service(tmp_path, weights) as app:
        admin = Client(app, "admin")
        states = {number: one["state"] for number, one in engines(admin).items()}
        assert states == {old["results"][0]["engine"]: "retired", candidate: "active"}
        (result,) = admin.judged(hand(0.56))["results"]
        assert (result["engine"], result["answer"]) == (candidate, "uncertain")
        until(
            lambda: admin.get(f"/pictures/{old['id']}").json(),
            lambda body: body["answer"] == "uncertain",
        )


def test_invalid_engine_requests_are_refused(admin, tmp_path):
    (active,) = engines(admin)
    assert admin.post("/engines", json={"weights": str(tmp_path / "none")}).status_code == 422
    weights = engines(admin)[active]["weights"]
    assert admin.post("/engines", json={"weights": weights}).status_code == 409
    assert admin.post(f"/engines/{active}/retire").status_code == 409
    for verb in ("promote", "retire"):
        assert admin.post(f"/engines/99/{verb}").status_code == 404
    assert admin.get("/engines/99/comparison").status_code == 404
    for number in range(2):
        add(admin, with_threshold(tmp_path / f"w{number}", 0.6 + number / 10))
    third = with_threshold(tmp_path / "third", 0.9)
    assert admin.post("/engines", json={"weights": str(third)}).status_code == 409
    candidate = max(engines(admin))
    assert admin.post(f"/engines/{candidate}/retire").status_code == 204
    until(lambda: engines(admin)[candidate], lambda engine: not engine["loaded"])
    assert engines(admin)[candidate]["state"] == "retired"
    add(admin, third)


def fxpipe(*words):
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.output


def test_thresholds_are_recalibrated_from_reviews(admin, reader, tmp_path):
    """Thresholds refitted on exported labels agree with the readers."""
    for n in range(44):
        cell = 0.51 + 0.006 * n  # all are positive; only the upper half is fractured
        picture = reader.judged(hand(round(cell * 255) / 255))
        assert picture["answer"] == "positive"
        verdict = "fracture" if n >= 22 else "none"
        result = picture["results"][0]["id"]
        reader.post(f"/results/{result}/reviews", json={"verdict": verdict})
    figures = reader.get("/quality").json()
    (region,) = figures["by_region"]
    assert (region["n"], region["positives"]) == (44, 22)
    assert (region["sensitivity"]["value"], region["specificity"]["value"]) == (1.0, 0.0)
    assert {one["verdict"]: one["count"] for one in figures["reasons"]} == {"none": 22}

    with zipfile.ZipFile(io.BytesIO(reader.get("/exports/labels").content)) as archive:
        archive.extractall(tmp_path / "labels")
    index, weights = tmp_path / "index.csv", tmp_path / "calibrated"
    fxpipe(
        "index", "--input", tmp_path / "labels/labels.csv", "--layout", "table",
        "--output", index, "--quiet",
    )  # fmt: skip
    output = fxpipe(
        "calibrate",
        "--input",
        index,
        "--split",
        "train",
        "--points-only",
        "--weights",
        tmp_path / "weights",
        "--output",
        weights,
        "--quiet",
    )
    assert "hand: " in output

    candidate = add(admin, weights)
    judged_by(admin, candidate, 44)
    comparison = admin.get(f"/engines/{candidate}/comparison").json()
    assert comparison["pictures"] == 44
    assert comparison["agree"] < 44
    assert admin.post(f"/engines/{candidate}/promote").status_code == 204

    def improved():
        (one,) = reader.get("/quality").json()["by_region"]
        return one

    after = until(improved, lambda one: one["specificity"]["value"] > 0.8)
    assert after["sensitivity"]["value"] > 0.8
    assert after["card"]["sensitivity"]["value"] is not None
