"""Parsing of multipart messages in chunks of every size."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.service.multipart_related import (
    MultipartError,
    MultipartParser,
    PartBegins,
    PartData,
    PartEnds,
    content_type,
    encoded,
)


def parts(message, size, boundary="B"):
    parser = MultipartParser(boundary)
    found = []
    for start in range(0, len(message), size):
        for event in parser.feed(message[start : start + size]):
            if isinstance(event, PartBegins):
                found.append([event.headers, b"", False])
            elif isinstance(event, PartData):
                found[-1][1] += event.content
            else:
                assert isinstance(event, PartEnds)
                found[-1][2] = True
    parser.close()
    assert all(ended for _, _, ended in found)
    return [(headers, content) for headers, content, _ in found]


def message(contents):
    async def collect():
        async def once(content):
            yield content

        return b"".join(
            [piece async for piece in encoded([("a/b", once(c)) for c in contents], "B")]
        )

    return asyncio.run(collect())


@given(
    st.lists(st.binary(max_size=40) | st.sampled_from([b"\r\n", b"\r\n--", b"--", b"\r\n-"])),
    st.integers(1, 60),
)
def test_encoded_message_is_parsed(contents, size):
    contents = [content for content in contents if b"\r\n--B" not in content]
    read = parts(message(contents), size)
    assert read == [({"content-type": "a/b"}, content) for content in contents]


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_text_around_the_parts_is_skipped(size):
    text = b"before\r\n--B \t\r\nA: 1\r\nb : 2\r\n\r\nx\r\n--B\r\n\r\n\r\n--B--after"
    assert parts(text, size) == [({"a": "1", "b": "2"}, b"x"), ({}, b"")]


@pytest.mark.parametrize(
    "text", [b"", b"no boundary", b"--B\r\n\r\nx", b"--Bx\r\n", b"--B\r\nA: " + b"a" * 9000]
)
def test_malformed_messages(text):
    with pytest.raises(MultipartError):
        parts(text, 7)


def test_content_types():
    kind, parameters = content_type('Multipart/Related; TYPE="application/dicom"; boundary="a b"')
    assert kind == "multipart/related"
    assert parameters == {"type": "application/dicom", "boundary": "a b"}
