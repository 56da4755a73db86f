"""``/studies``, frames, legal holds."""

from __future__ import annotations

import base64
from io import BytesIO

import numpy as np
from bundles import paint
from factories import PATIENT_ID, dicom, dicom_file
from PIL import Image
from tiny_service import hand, negative, positive, unsupported

from pipeline.service import tables as t


def film(fracture, study, code):
    """A DICOM file of a hand."""
    pixels = paint({"hand": 0.9}, {"hand": fracture}, strange=code / 255).astype(np.uint16) * 257
    return dicom_file(dicom(pixels, StudyInstanceUID=study))


def test_study_has_its_pictures_and_the_most_urgent_answer(reader):
    first = reader.judged(film(0.1, "2.25.77", 1), "a.dcm")
    second = reader.judged(film(0.9, "2.25.77", 2), "b.dcm")
    assert first["study"] is None or first["study"] == second["study"]
    study = reader.get(f"/studies/{second['study']}").json()
    assert [one["id"] for one in study["pictures"]] == [first["id"], second["id"]]
    assert (study["answer"], study["rank"], study["states"]) == ("positive", 0, {"answered": 2})
    assert study["identity"]["PatientID"] == PATIENT_ID
    (listed,) = [
        one for one in reader.get("/studies").json()["studies"] if one["id"] == study["id"]
    ]
    assert (listed["pictures"], listed["answer"]) == (2, "positive")


def test_studies_are_ordered_and_paged(reader):
    for number, fracture in enumerate((0.1, 0.9, 0.48)):
        reader.judged(film(fracture, f"2.25.9{number}", 10 + number), "a.dcm")
    for order, key in (("urgency", "rank"), ("newest", "last_seen")):
        every = reader.get(f"/studies?order={order}").json()["studies"]
        values = [one[key] for one in every]
        assert values == sorted(values, reverse=order == "newest")
        pages, cursor = [], ""
        while cursor is not None:
            page = reader.get(f"/studies?order={order}&limit=1{cursor}").json()
            pages += page["studies"]
            cursor = page["next"] and f"&after={page['next']}"
        assert pages == every


def test_empty_study_is_deleted_with_its_identity(service, reader, admin):
    picture = reader.judged(film(0.9, "2.25.66", 20), "a.dcm")
    admin.delete(f"/pictures/{picture['id']}")
    assert reader.get(f"/studies/{picture['study']}").status_code == 404
    with service.database.read() as connection:
        row = connection.execute(t.study.select().where(t.study.c.id == picture["study"])).one()
    assert (row.uid, row.identity, row.pictures) == (None, None, 0)


def test_heatmap_of_a_judged_picture(reader):
    picture = reader.judged(positive())
    body = reader.get(f"/pictures/{picture['id']}/frames/0/heatmap").json()
    (finding,) = body["findings"]
    assert (finding["region"], finding["verdict"]) == ("hand", "positive")
    layer = finding["layer"]
    cells = base64.b64decode(layer["cells"])
    assert len(cells) == layer["rows"] * layer["columns"]
    assert max(cells) == 255
    assert layer["contour"].startswith("M")
    assert body["picture"] == {"height": 32, "width": 32}
    assert reader.get(f"/pictures/{picture['id']}/frames/1/heatmap").status_code == 404


def test_pixels_have_full_bit_depth(reader):
    picture = reader.judged(film(0.9, "2.25.55", 30), "deep.dcm")
    answer = reader.get(f"/pictures/{picture['id']}/frames/0/pixels")
    assert answer.headers["content-type"] == "image/png"
    image = Image.open(BytesIO(answer.content))
    assert image.mode.startswith("I")
    values = np.asarray(image)
    assert values.shape == (32, 32)
    assert (int(values.min()), int(values.max())) == (0, 65535)
    broken = reader.judged(positive()[:60], "broken.png")
    assert broken["results"][0]["status"] == "failed"
    assert reader.get(f"/pictures/{broken['id']}/frames/0/pixels").status_code == 404


def test_views_and_content(reader):
    content = negative()
    picture = reader.judged(content, "my “hand”.png")
    for name in ("view", "thumb"):
        answer = reader.get(f"/pictures/{picture['id']}/frames/0/{name}")
        assert Image.open(BytesIO(answer.content)).format == "JPEG"
    answer = reader.get(f"/pictures/{picture['id']}/content")
    assert answer.content == content
    assert answer.headers["content-disposition"].startswith("attachment; filename*=UTF-8''")


def test_messages_contain_the_name_of_the_arrival(reader):
    content = positive()[:61]
    reader.judged(content, "first.png")
    again = reader.judged(content, "second.png")
    (result,) = again["results"]
    assert result["error"].startswith("second.png: ")
    assert result["record"]["error"] == result["error"]


def test_held_picture_is_not_deleted(reader, admin):
    number = reader.judged(unsupported())["id"]
    assert admin.put(f"/pictures/{number}/hold").status_code == 204
    assert reader.get(f"/pictures/{number}").json()["held"]
    assert admin.delete(f"/pictures/{number}").status_code == 423
    assert admin.delete(f"/pictures/{number}/hold").status_code == 204
    assert admin.delete(f"/pictures/{number}").status_code == 204
    assert admin.put(f"/pictures/{number}/hold").status_code == 404


def test_worklist_filters(reader):
    picture = reader.judged(hand(0.48))
    listed = reader.get("/pictures?answer=uncertain&region=hand&state=answered").json()
    assert picture["id"] in [one["id"] for one in listed["pictures"]]
    listed = reader.get("/pictures?answer=uncertain&region=elbow").json()
    assert listed["pictures"] == []
