"""``/users``, ``/session``, ``/rules``, ``/jobs``, ``/audit``, ``/quality``."""

from __future__ import annotations

import pytest
from sqlalchemy import update
from tiny_service import PASSWORD, Client, negative, positive, unsupported, until

from pipeline.service import audit_log
from pipeline.service import tables as t
from pipeline.service.database import insert_row

NEW = "another horse battery"


def add_user(admin, name, role="reader", **more):
    answer = admin.post("/users", json={"name": name, "role": role, "password": PASSWORD, **more})
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def test_users_are_added_and_changed(app, admin):
    number = add_user(admin, "anna", blind=True)
    user = admin.get(f"/users/{number}")
    assert user.json()["blind"]
    assert "password" not in user.text
    assert user.json() in admin.get("/users").json()
    anna = Client(app, "anna")
    assert anna.get("/session").json() == {"name": "anna", "role": "reader", "blind": True}
    changed = admin.patch(f"/users/{number}", json={"role": "auditor", "blind": False})
    assert (changed.json()["role"], changed.json()["blind"]) == ("auditor", False)
    assert anna.get("/session").status_code == 401  # a new role ends the login
    answer = admin.post("/users", json={"name": "anna", "role": "reader", "password": PASSWORD})
    assert answer.status_code == 409
    assert admin.patch("/users/9999", json={"blind": True}).status_code == 404


def test_change_of_a_changed_user_is_refused(admin):
    number = add_user(admin, "bert")
    first = admin.get(f"/users/{number}").headers["etag"]
    own = {"If-Match": first}
    changed = admin.patch(f"/users/{number}", json={"blind": True}, headers=own)
    assert changed.headers["etag"] != first
    answer = admin.patch(f"/users/{number}", json={"active": False}, headers=own)
    assert answer.status_code == 412
    assert admin.get(f"/users/{number}").json()["active"]
    own = {"If-Match": f'"other", {changed.headers["etag"]}'}
    assert admin.patch(f"/users/{number}", json={"active": False}, headers=own).is_success


def test_inactive_user_cannot_log_in(app, admin):
    number = add_user(admin, "carl")
    carl = Client(app, "carl")
    admin.patch(f"/users/{number}", json={"active": False})
    assert carl.get("/session").status_code == 401
    answer = carl.post("/session", json={"name": "carl", "password": PASSWORD})
    assert answer.status_code == 401


def test_last_administrator_cannot_be_removed(admin):
    number = next(one["id"] for one in admin.get("/users").json() if one["name"] == "admin")
    for change in ({"role": "reader"}, {"active": False}):
        assert admin.patch(f"/users/{number}", json=change).status_code == 409
    other = add_user(admin, "dora", "admin")
    assert admin.patch(f"/users/{other}", json={"role": "reader"}).is_success


def test_password_change_ends_other_sessions(app, admin):
    add_user(admin, "emil")
    here, elsewhere = Client(app, "emil"), Client(app, "emil")
    wrong = {"password": {"old": "not the password", "new": NEW}}
    assert here.patch("/session", json=wrong).status_code == 403
    right = {"password": {"old": PASSWORD, "new": NEW}, "blind": True}
    assert here.patch("/session", json=right).json()["blind"]
    assert here.get("/session").json()["blind"]
    assert elsewhere.get("/session").status_code == 401
    assert elsewhere.post("/session", json={"name": "emil", "password": NEW}).is_success


def test_only_an_administrator_switches_blind_reading_off(app, admin):
    number = add_user(admin, "kate")
    kate = Client(app, "kate")
    assert not kate.patch("/session", json={"blind": False}).json()["blind"]
    assert kate.patch("/session", json={"blind": True}).json()["blind"]
    for change in ({"blind": False}, {"blind": False, "password": {"old": PASSWORD, "new": NEW}}):
        answer = kate.patch("/session", json=change)
        assert (answer.status_code, "administrator" in answer.json()["detail"]) == (403, True)
    assert kate.get("/session").json()["blind"]
    assert kate.post("/session", json={"name": "kate", "password": PASSWORD}).is_success
    admin.patch(f"/users/{number}", json={"blind": False})
    assert not kate.get("/session").json()["blind"]
    assert admin.patch("/session", json={"blind": True}).json()["blind"]
    assert not admin.patch("/session", json={"blind": False}).json()["blind"]


def test_wrong_old_passwords_are_limited(app, admin):
    add_user(admin, "fred")
    fred = Client(app, "fred")
    wrong = {"password": {"old": "not the password", "new": NEW}}
    statuses = [fred.patch("/session", json=wrong).status_code for _ in range(12)]
    assert statuses == [403] * 10 + [429] * 2


def test_token_cannot_change_a_password(client, admin):
    secret = admin.post("/tokens", json={"name": "robot", "role": "reader"}).json()["secret"]
    answer = client().patch(
        "/session", json={"blind": True}, headers={"Authorization": f"Bearer {secret}"}
    )
    assert answer.status_code == 403


def test_rules_and_their_preview(service, admin, reader):
    old, held = reader.judged(positive())["id"], reader.judged(negative())["id"]
    own = t.arrival.c.id.in_((old, held))
    service.database.write(
        lambda c: c.execute(update(t.arrival).where(own).values(received_ms=86_400_000))
    )
    admin.put(f"/pictures/{held}/hold")
    rule = {"days": 365}
    assert admin.post("/rules/preview", json=rule).json() == {"pictures": 1}
    state = {"days": 365, "state": "failed"}
    assert admin.post("/rules/preview", json=state).json() == {"pictures": 0}
    answer = admin.post("/rules", json=rule)
    number, tag = answer.json()["id"], answer.headers["etag"]
    assert admin.get("/rules").json() == [answer.json()]
    match = {"If-Match": tag}
    assert admin.patch(f"/rules/{number}", json=state, headers=match).json()["state"] == "failed"
    assert admin.patch(f"/rules/{number}", json=state, headers=match).status_code == 412
    assert admin.delete(f"/rules/{number}").status_code == 204
    assert admin.delete(f"/rules/{number}").status_code == 404
    assert reader.get(f"/pictures/{old}").status_code == 200  # nothing was deleted


def job_of(admin, picture):
    sha256 = admin.get(f"/pictures/{picture}").json()["sha256"]
    jobs = admin.get("/jobs?limit=200").json()["jobs"]
    return next(one for one in jobs if one["sha256"] == sha256)


def test_failed_job_is_judged_again(admin, reader):
    broken = reader.judged(positive()[:65], "broken.png")
    job = job_of(admin, broken["id"])
    assert job["state"] == "done"
    again = admin.post(f"/jobs/{job['id']}/retry").json()
    assert (again["state"], again["attempt"]) == ("waiting", 0)
    (result,) = until(
        lambda: reader.get(f"/pictures/{broken['id']}").json()["results"], lambda found: found
    )
    assert result["status"] == "failed"
    assert admin.get(f"/jobs/{job['id']}").json()["attempt"] == 1
    fine = job_of(admin, reader.judged(positive())["id"])
    assert admin.post(f"/jobs/{fine['id']}/retry").status_code == 409
    assert admin.post(f"/jobs/{fine['id']}/cancel").status_code == 409
    assert admin.post("/jobs/99999/cancel").status_code == 404
    reader.post(f"/results/{result['id']}/reviews", json={"verdict": "unsure"})
    assert admin.post(f"/jobs/{job['id']}/retry").status_code == 409


def test_waiting_job_is_cancelled_and_queued_again(service, admin, reader, monkeypatch):
    monkeypatch.setattr(service.judging, "_yields", lambda: True)  # it claims no jobs now
    number = reader.send_file(positive())
    job = job_of(admin, number)["id"]
    assert admin.post(f"/jobs/{job}/cancel").json()["state"] == "cancelled"
    assert reader.get(f"/pictures/{number}").json()["state"] == "failed"
    assert admin.post(f"/jobs/{job}/retry").json()["state"] == "waiting"
    assert reader.get(f"/pictures/{number}").json()["state"] == "waiting"
    monkeypatch.undo()
    until(lambda: reader.get(f"/pictures/{number}").json(), lambda body: body["results"])


def test_jobs_are_paged(admin, reader):
    for _ in range(3):
        reader.judged(negative())
    page = admin.get("/jobs?limit=2&state=done").json()
    rest = admin.get(f"/jobs?limit=1&state=done&after={page['next']}").json()
    numbers = [one["id"] for one in page["jobs"] + rest["jobs"]]
    assert numbers == sorted(numbers, reverse=True)
    assert len(set(numbers)) == 3
    assert admin.get(f"/jobs/{numbers[0]}").json() == page["jobs"][0]


def test_changes_are_in_the_audit_log(service, admin, client):
    number = add_user(admin, "gina")
    admin.patch(f"/users/{number}", json={"password": NEW})
    entries = client("auditor").get("/audit").json()["entries"]
    changed = next(one for one in entries if one["action"] == "change user")
    assert (changed["subject"], changed["detail"]) == (f"user/{number}", {"password": "changed"})
    assert NEW not in str(entries)
    page = client("auditor").get("/audit?limit=1").json()
    assert page["entries"][0]["id"] == page["next"]
    with service.database.read() as connection:
        assert audit_log.first_fault(connection) is None


def test_quality_without_reviews(reader):
    reader.judged(positive())
    reader.judged(unsupported())
    figures = reader.get("/quality").json()
    week = figures["weeks"][-1]
    assert week["pictures"] >= 2
    assert week["positive"] >= 1
    assert week["unsupported"] >= 1
    assert not figures["drift"]["positive"]["warn"]


@pytest.mark.parametrize("path", ["/users", "/rules", "/jobs", "/audit"])
def test_reader_does_not_administrate(client, path):
    assert client("reader").get(path).status_code == 403


def test_readers_see_the_titles_of_receivers_but_not_their_addresses(service, admin, reader):
    peer = {"title": "PACS", "host": "10.0.0.9", "port": 104, "send": True}
    number = admin.post("/peers", json=peer).json()["id"]

    def queue(connection):
        study = insert_row(connection, t.study, key="sent", last_seen_ms=0)
        values = {"object_uid": "2.25.1", "sha256": "0" * 64, "source": "1" * 64, "kind": "report"}
        return insert_row(
            connection, t.outbox, peer_id=number, study_id=study, state="sent", next_ms=0,
            created_ms=0, **values,
        )  # fmt: skip

    service.database.write(queue)
    answer = reader.get("/outbox")
    (shown,) = answer.json()["objects"]
    assert (shown["peer"], shown["receiver"]) == (number, "PACS")
    assert peer["host"] not in answer.text
    assert reader.get("/peers").status_code == 403
