import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicechat.providers.sse import MAX_EVENT_BYTES, MAX_LINE_BYTES, SseError, SseParser


def parse(body: bytes, cuts: int = 1 << 20) -> list[str]:
    parser = SseParser()
    return [
        event
        for start in range(0, len(body), cuts)
        for event in parser.push_bytes(body[start : start + cuts])
    ]


@pytest.mark.parametrize(
    ("body", "events"),
    [
        (b"data: one\n\ndata: two\n\n", ["one", "two"]),
        (b"data:one\r\n\r\ndata: two\r\n\r\n", ["one", "two"]),
        (b"data: one\r\rdata: two\r\r", ["one", "two"]),
        (b"data: a\ndata: b\n\n", ["a\nb"]),
        (b"data:  two spaces\n\n", [" two spaces"]),
        (b": keep-alive\n\ndata: x\n: comment\n\n", ["x"]),
        (b"event: message\nid: 7\nretry: 10\ndata: x\n\n", ["x"]),
        (b"\xef\xbb\xbfdata: x\n\n", ["x"]),
        (b"data\n\n", [""]),
        (b"database: x\n\n", []),
        (b"data: whole\n\ndata: cut off", ["whole"]),
        (b"data: whole\n\ndata: cut off\n", ["whole"]),
        (b"\n\n\n", []),
        ("data: 你好 😀\n\n".encode(), ["你好 😀"]),
        (b"data: \xff\n\n", ["�"]),
    ],
)
def test_events(body: bytes, events: list[str]) -> None:
    assert parse(body) == events
    assert parse(body, cuts=1) == events


@pytest.mark.parametrize(
    ("body", "rest"),
    [
        (b"data: whole\n\n", None),
        (b"data: whole\n\ndata: last", "last"),
        (b"data: whole\n\ndata: last\n", "last"),
        (b"data: a\ndata: b", "a\nb"),
        (b"data: whole\n\n: a comment", None),
        (b"data: whole\n\nevent: done\nretry: 3", None),
        (b"data: whole\n\ndat", "dat"),
        (b"<html>", "<html>"),
        (b"", None),
    ],
)
def test_what_a_body_ended_in_the_middle_of(body: bytes, rest: str | None) -> None:
    parser = SseParser()
    parser.push_bytes(body)
    assert parser.finish_body() == ([rest] if rest else [])


@given(
    st.lists(
        st.sampled_from(
            [b"data: x", b"data:\xe4\xbd\xa0", b":c", b"\n", b"\r\n", b"\r", b"id: 1", b""]
        )
    ),
    st.integers(1, 7),
)
def test_the_cut_does_not_matter(parts: list[bytes], cuts: int) -> None:
    body = b"".join(parts)
    assert parse(body, cuts) == parse(body)


@given(st.binary())
def test_any_bytes_are_read(body: bytes) -> None:
    parse(body)


def test_an_event_is_given_as_soon_as_its_empty_line_is_there() -> None:
    parser = SseParser()
    assert parser.push_bytes(b"data: x\r\n") == []
    assert parser.push_bytes(b"\r") == ["x"]
    assert parser.push_bytes(b"\ndata: y\n\n") == ["y"]


def test_a_line_without_end_is_refused() -> None:
    parser = SseParser()
    for _ in range(MAX_LINE_BYTES // 1024):
        assert parser.push_bytes(b"x" * 1024) == []
    with pytest.raises(SseError):
        parser.push_bytes(b"x")


def test_an_event_without_end_is_refused() -> None:
    parser = SseParser()
    line = b"data: " + b"x" * (MAX_LINE_BYTES - 10) + b"\n"
    for _ in range(MAX_EVENT_BYTES // MAX_LINE_BYTES):
        assert parser.push_bytes(line) == []
    with pytest.raises(SseError):
        parser.push_bytes(line)


def test_events_without_an_empty_line_between_them_are_told_apart() -> None:
    parser = SseParser()
    assert parser.push_bytes(b'data: {"a": 1}\ndata: {"b": 2}\n') == ['{"a": 1}']
    assert parser.push_bytes(b"data: [DONE]\n") == ['{"b": 2}']
    assert parser.finish_body() == ["[DONE]"]


def test_an_event_in_several_lines_is_one() -> None:
    pretty = json.dumps({"a": [{"b": {}}, {"c": 1}]}, indent=1)
    lines = "".join(f"data: {line}\n" for line in pretty.splitlines())
    assert SseParser().push_bytes(f"{lines}\n".encode()) == [pretty]
