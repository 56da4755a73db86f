"""File names of senders: nothing but folders and control characters is taken from them."""

from __future__ import annotations

import pytest

from pipeline.service.api.files import attachment, file_name

NAMES = [
    "<b>x.png", "<img src=x onerror=alert(1)>", "<x>", '"a".png', "a; filename=b.png", "a%20b.png",
    "100%.png", "it's.png", "a=b,c.png", "Hand übersicht.png", "手\u3000左.dcm", "a\xa0b.png",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_kept_as_it_is(name):
    assert file_name(attachment(name)["Content-Disposition"]) == name
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    assert file_name(f'attachment; filename="{quoted}"; size=3') == name


@pytest.mark.parametrize(
    ("header", "name"),
    [
        (None, "picture"),
        ("attachment", "picture"),
        ("attachment; filename=a.png", "a.png"),
        ('FILENAME = "a.png"', "a.png"),
        ("attachment; filename=a.png; filename*=UTF-8''%e2%82%ac.png", "€.png"),
        ("attachment; filename*=iso-8859-1'en'%A3.png", "£.png"),
        ("attachment; filename=a.png; filename*=hex''%ff", "a.png"),
        ('form-data; name="; filename=b.png"; filename=a.png', "a.png"),
        ('attachment; filename="a.png', '"a.png'),
        (r'attachment; filename="C:\films\a.png"', "a.png"),
        ("attachment; filename*=UTF-8''..%2F..%5Ca.png", "a.png"),
        ("attachment; filename*=UTF-8''a%00%0A%1B%C2%85.png", "a.png"),
        ("attachment; filename*=UTF-8''a%E2%80%AEgnp.exe", "agnp.exe"),
        ("attachment; filename*=UTF-8''%2F", "picture"),
        (f"attachment; filename={'a' * 2000}", "a" * 1024),
    ],
)
def test_folders_and_control_characters_are_removed(header, name):
    assert file_name(header) == name
