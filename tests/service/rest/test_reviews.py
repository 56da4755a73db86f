"""``/results/{id}/reviews`` and ``/reviews``."""

from __future__ import annotations

import pytest
from sqlalchemy import update
from tiny_service import negative, positive, uncertain

from pipeline.service import tables as t


def review(client, result, verdict="fracture", **more):
    return client.post(f"/results/{result}/reviews", json={"verdict": verdict, **more})


def result_of(client, make=positive):
    picture = client.judged(make())
    return picture["id"], picture["results"][0]["id"]


@pytest.fixture
def blind(service):
    """Enables blind reading for the reader during a test."""

    def set_to(value):
        own = update(t.user).where(t.user.c.name == "reader")
        service.database.write(lambda c: c.execute(own.values(blind=value)))

    yield lambda: set_to(True)
    set_to(False)


def test_review_is_stored_and_shown_in_the_worklist(reader):
    picture, result = result_of(reader)
    answer = review(reader, result, "none", marks=[{"x": 3, "y": 4.5}], comment="a vessel")
    assert answer.status_code == 201
    stored = answer.json()
    assert (stored["verdict"], stored["reader"], stored["blind"]) == ("none", "reader", False)
    assert stored["marks"] == [{"x": 3.0, "y": 4.5}]
    assert reader.get(f"/results/{result}/reviews").json() == [stored]
    assert reader.get(f"/pictures/{picture}").json()["review"] == "none"
    (listed,) = reader.get("/reviews?mine=true").json()["reviews"]
    assert (listed["picture"], listed["answer"], listed["found_region"]) == (
        picture, "positive", "hand",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("make", "verdict"),
    [(positive, "fracture"), (negative, "none"), (uncertain, "unsure")],
)
def test_agreement_is_stored_as_the_answer(reader, make, verdict):
    _, result = result_of(reader, make)
    assert review(reader, result, "agree").json()["verdict"] == verdict


def test_later_review_supersedes_and_readers_can_disagree(reader, admin):
    picture, result = result_of(reader)
    first = review(reader, result, "none").json()
    second = review(reader, result, "fracture").json()
    assert second["supersedes"] == first["id"]
    assert reader.get(f"/pictures/{picture}").json()["review"] == "fracture"
    review(admin, result, "none")
    assert reader.get(f"/pictures/{picture}").json()["review"] == "disputed"
    review(admin, result, "fracture")
    assert reader.get(f"/pictures/{picture}").json()["review"] == "fracture"


def test_review_can_be_withdrawn_once(reader, admin):
    picture, result = result_of(reader)
    number = review(reader, result).json()["id"]
    assert admin.delete(f"/reviews/{number}").status_code == 404
    assert reader.delete(f"/reviews/{number}").status_code == 204
    assert reader.get(f"/pictures/{picture}").json()["review"] is None
    assert reader.delete(f"/reviews/{number}").status_code == 409
    newest = reader.get(f"/results/{result}/reviews").json()[-1]
    assert (newest["verdict"], newest["supersedes"]) == ("withdrawn", number)
    assert reader.delete(f"/reviews/{newest['id']}").status_code == 409


def test_old_review_cannot_be_withdrawn(service, reader):
    _, result = result_of(reader)
    number = review(reader, result).json()["id"]
    service.database.write(lambda c: c.execute(update(t.review).values(created_ms=1)))
    assert reader.delete(f"/reviews/{number}").status_code == 409


def test_answer_is_hidden_from_blind_reader_before_review(blind, reader, admin):
    picture, result = result_of(reader)
    other, _ = result_of(reader, negative)
    review(admin, result, "none")
    blind()
    body = reader.get(f"/pictures/{picture}").json()
    assert body["hidden"]
    assert {body[name] for name in ("answer", "region", "probability", "review")} == {None}
    (hidden,) = body["results"]
    assert {v for k, v in hidden.items() if k not in ("id", "engine", "frame", "hidden")} == {None}
    assert reader.get(f"/pictures/{picture}/frames/0/heatmap").status_code == 404
    assert reader.get(f"/results/{result}/reviews").json() == []
    listed = reader.get("/reviews").json()["reviews"]
    assert result not in [one["result"] for one in listed]
    for query in ("answer=positive", "region=hand"):
        listed = reader.get(f"/pictures?{query}").json()["pictures"]
        assert picture not in [one["id"] for one in listed]
    listed = reader.get("/pictures?order=urgency&limit=2").json()["pictures"]
    assert [one["id"] for one in listed] == [other, picture]  # newest first
    assert reader.get("/pictures?limit=1").json()["next"] == f"0-{other}"
    assert review(reader, result, "agree").status_code == 409
    assert review(reader, result, "fracture").json()["blind"]
    assert not review(reader, result, "agree").json()["blind"]
    assert reader.get(f"/pictures/{picture}").json()["answer"] == "positive"
    assert reader.get(f"/pictures/{picture}/frames/0/heatmap").status_code == 200
    listed = reader.get("/pictures?answer=positive").json()["pictures"]
    assert picture in [one["id"] for one in listed]


def test_review_of_a_missing_or_deleted_result_is_refused(reader, admin):
    picture, result = result_of(reader)
    assert review(reader, result + 1000).status_code == 404
    assert admin.delete(f"/pictures/{picture}").status_code == 204
    assert review(reader, result).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {"verdict": "withdrawn"},
        {"verdict": "fracture", "region": "knee"},
        {"verdict": "fracture", "marks": [{"x": -1, "y": 0}]},
        {"verdict": "fracture", "comment": "a\x00b"},
        {"verdict": "fracture", "other": 1},
    ],
)
def test_invalid_review_is_refused(reader, body):
    assert reader.post("/results/1/reviews", json=body).status_code == 422


def test_program_cannot_review(client, admin, reader):
    _, result = result_of(reader)
    secret = admin.post("/tokens", json={"name": "robot", "role": "reader"}).json()["secret"]
    answer = client().post(
        f"/results/{result}/reviews", json={"verdict": "none"},
        headers={"Authorization": f"Bearer {secret}"},
    )  # fmt: skip
    assert answer.status_code == 403


def test_reviews_are_paged_newest_first(reader):
    _, result = result_of(reader)
    numbers = [review(reader, result, v).json()["id"] for v in ("none", "fracture", "unsure")]
    page = reader.get("/reviews?mine=true&limit=2").json()
    assert [one["id"] for one in page["reviews"]] == numbers[:0:-1]
    rest = reader.get(f"/reviews?mine=true&limit=2&after={page['next']}").json()
    assert rest["reviews"][0]["id"] == numbers[0]


def test_same_file_received_again_has_the_review(reader):
    content = positive()
    result = reader.judged(content)["results"][0]["id"]
    review(reader, result, "none")
    again = reader.judged(content, "copy.png")
    assert again["review"] == "none"
