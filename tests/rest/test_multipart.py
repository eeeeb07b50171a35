"""Forms while they arrive: any cut, any padding, and nothing without a bound."""

from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voicechat.errors import RemoteProtocolError, Status
from voicechat.server.rest.multipart import MAX_HEAD_BYTES, MAX_PREAMBLE_BYTES, MultipartReader

TYPE = "multipart/form-data; boundary=b"


def reading(
    body: bytes, sizes: list[int] | None = None
) -> tuple[Callable[[], Awaitable[bytes]], list[bytes]]:
    """A body that comes in pieces of these sizes, then all at once; and what is left of
    it.
    """
    pieces: list[bytes] = []
    for size in sizes or []:
        pieces.append(body[:size])
        body = body[size:]
    pieces = [piece for piece in [*pieces, body] if piece]

    async def read() -> bytes:
        return pieces.pop(0) if pieces else b""

    return read, pieces


async def fields(
    body: bytes, sizes: list[int] | None = None, content_type: str = TYPE
) -> list[tuple[str, bytes]]:
    read, left = reading(body, sizes)
    form = MultipartReader(content_type, read)
    found = []
    while (part := await form.next_part()) is not None:
        content = b""
        while piece := await part.read_piece():
            content += piece
        found.append((part.name, content))
    assert left == []
    return found


def part(name: str, content: bytes, more: bytes = b"") -> bytes:
    head = b'--b\r\nContent-Disposition: form-data; name="%s"\r\n%s\r\n' % (name.encode(), more)
    return head + content + b"\r\n"


END = b"--b--\r\n"
CONTENTS = [
    b"",
    b"hello",
    b"\r\n--",
    b"\r\n--bc\r\n",
    b"--b",
    b"\r\n\r\n",
    bytes(200_000),
    b"\n" * 5000,
]


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("size", [1, 7, 1000, 65_536])
async def test_the_contents_come_out_as_they_were_put_in(content: bytes, size: int) -> None:
    body = part("data", b"{}") + part("audio_file", content, b"Content-Type: audio/wav\r\n") + END
    sizes = [size] * (len(body) // size if size > 1 or len(body) < 20_000 else 20_000)
    assert await fields(body, sizes) == [("data", b"{}"), ("audio_file", content)]


@settings(max_examples=60)
@given(st.binary(max_size=300), st.lists(st.integers(1, 40), max_size=30))
async def test_any_content_in_any_cut(content: bytes, sizes: list[int]) -> None:
    if b"\n--b" in content:
        return
    assert await fields(part("a", content) + END, sizes) == [("a", content)]


async def test_lenient_writers_are_understood() -> None:
    assert await fields(b"hello\r\n" + part("a", b"1") + b"--b--") == [("a", b"1")]
    assert await fields((part("a", b"1") + END).replace(b"\r\n", b"\n")) == [("a", b"1")]
    assert await fields(b"--b  \r\n\r\n1\r\n" + END + b"\r\nbye") == [("", b"1")]
    quoted = 'multipart/form-data; boundary="b"'
    assert await fields(part("a", b"1") + END, content_type=quoted) == [("a", b"1")]
    assert await fields(END) == []


BROKEN = {
    "no boundary": (b"", "multipart/form-data", "boundary should have 1 to 70"),
    "a long boundary": (b"", f"multipart/form-data; boundary={'b' * 71}", "boundary should have"),
    "nothing": (b"", TYPE, "ends before its closing boundary"),
    "no end": (part("a", b"1"), TYPE, "ends before its closing boundary"),
    "a preamble of lines": (b"\n" * 100_000 + part("a", b"1") + END, TYPE, "outside its parts"),
    "a preamble of one line": (b"x" * 100_000 + part("a", b"1") + END, TYPE, "outside its parts"),
    "an epilogue": (part("a", b"1") + END + b"\n" * 100_000, TYPE, "behind its last part"),
    "a head of lines": (
        b"--b\r\n" + b"a: b\r\n" * 10_000 + b"\r\n1\r\n" + END,
        TYPE,
        "head of a part",
    ),
    "a head of one line": (b"--b\r\na: " + b"b" * 100_000, TYPE, "head of a part"),
    "a form within": (
        b"--b\r\nContent-Type: multipart/mixed\r\n\r\n1\r\n" + END,
        TYPE,
        "form within",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_what_breaks_the_rules_is_refused(name: str) -> None:
    body, content_type, reason = BROKEN[name]
    with pytest.raises(RemoteProtocolError, match=reason) as refused:
        await fields(body, [1000] * (len(body) // 1000), content_type)
    assert refused.value.status is Status.MALFORMED


@pytest.mark.parametrize("filler", [b"\n", b"\r\n--b", b"\r\n--", b"x"])
async def test_what_comes_before_the_parts_is_read_no_further_than_its_bound(filler: bytes) -> None:
    read, left = reading(filler * 500_000, [4096] * 100)
    with pytest.raises(RemoteProtocolError):
        await MultipartReader(TYPE, read).next_part()
    assert len(left) >= 100 - (MAX_PREAMBLE_BYTES + MAX_HEAD_BYTES) // 4096 - 2
