"""``/results/{id}/reviews`` and ``/reviews``."""

from __future__ import annotations

import pytest
from sqlalchemy import update
from tiny_service import NEGATIVE, POSITIVE, UNCERTAIN

from pipeline.service import tables as t


def review(client, result, verdict="fracture", **more):
    return client.post(f"/results/{result}/reviews", json={"verdict": verdict, **more})


def result_of(client, content=POSITIVE):
    picture = client.judged(client.send_file(content))
    return picture["id"], picture["results"][0]["id"]


def make_blind(service, name="reader"):
    service.database.write(
        lambda c: c.execute(update(t.user).where(t.user.c.name == name).values(blind=True))
    )


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
    ("content", "verdict"),
    [(POSITIVE, "fracture"), (NEGATIVE, "none"), (UNCERTAIN, "unsure")],
)
def test_agreement_is_stored_as_the_answer(reader, content, verdict):
    _, result = result_of(reader, content)
    assert review(reader, result, "agree").json()["verdict"] == verdict


def test_later_review_supersedes_and_different_readers_dispute(reader, admin):
    picture, result = result_of(reader)
    first = review(reader, result, "none").json()
    second = review(reader, result, "fracture").json()
    assert second["supersedes"] == first["id"]
    assert reader.get(f"/pictures/{picture}").json()["review"] == "fracture"
    review(admin, result, "none")
    assert reader.get(f"/pictures/{picture}").json()["review"] == "disputed"
    review(admin, result, "fracture")
    assert reader.get(f"/pictures/{picture}").json()["review"] == "fracture"


def test_withdrawal_ends_the_verdict_once(reader, admin):
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


def test_blind_reader_learns_nothing_before_his_review(service, reader, admin):
    picture, result = result_of(reader)
    other, _ = result_of(reader, NEGATIVE)
    review(admin, result, "none")
    make_blind(service)
    body = reader.get(f"/pictures/{picture}").json()
    assert body["hidden"]
    assert {body[name] for name in ("answer", "region", "probability", "review")} == {None}
    (hidden,) = body["results"]
    assert {v for k, v in hidden.items() if k not in ("id", "engine", "frame", "hidden")} == {None}
    assert reader.get(f"/pictures/{picture}/frames/0/heatmap").status_code == 404
    assert reader.get(f"/results/{result}/reviews").json() == []
    assert reader.get("/reviews").json()["reviews"] == []
    for query in ("answer=positive", "region=hand"):
        assert reader.get(f"/pictures?{query}").json()["pictures"] == []
    listed = reader.get("/pictures?order=urgency").json()["pictures"]
    assert [one["id"] for one in listed] == [other, picture]  # newest first
    assert reader.get("/pictures?limit=1").json()["next"] == f"0-{other}"
    assert review(reader, result, "agree").status_code == 409
    assert review(reader, result, "fracture").json()["blind"]
    assert not review(reader, result, "agree").json()["blind"]
    assert reader.get(f"/pictures/{picture}").json()["answer"] == "positive"
    assert reader.get(f"/pictures/{picture}/frames/0/heatmap").status_code == 200
    assert [p["id"] for p in reader.get("/pictures?answer=positive").json()["pictures"]] == [
        picture
    ]


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
    assert [one["id"] for one in rest["reviews"]] == numbers[:1]
    assert rest["next"] is None


def test_same_file_received_again_has_the_review(reader):
    _, result = result_of(reader)
    review(reader, result, "none")
    again = reader.judged(reader.send_file(POSITIVE, "copy.png"))
    assert again["review"] == "none"
