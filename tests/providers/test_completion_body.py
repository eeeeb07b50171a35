import pytest

from voicechat.providers.completion_body import MAX_JSON_BYTES, CompletionBody
from voicechat.providers.sse import SseError


def read(body: bytes, cuts: int = 1 << 20) -> tuple[list[str], bool]:
    answer = CompletionBody()
    texts = [
        text
        for start in range(0, len(body), cuts)
        for text in answer.push_bytes(body[start : start + cuts])
    ]
    return texts + answer.finish_body(), answer.cut_off


@pytest.mark.parametrize(
    ("body", "texts"),
    [
        (b'data: {"a": 1}\n\ndata: [DONE]\n\n', ['{"a": 1}', "[DONE]"]),
        (b'\r\n\r\ndata: {"a": 1}\r\n\r\n', ['{"a": 1}']),
        (b'data: {"a": 1}', ['{"a": 1}']),
        (b"data: [DONE]", ["[DONE]"]),
        (b'{"a": 1}', ['{"a": 1}']),
        (b'\xef\xbb\xbf \n {"a": [\n1]}\n', ['\n {"a": [\n1]}\n']),
        (b'[{"error": "x"}]', ['[{"error": "x"}]']),
        (b'{"a": 1}\n{"a": 2}\n', ['{"a": 1}', '{"a": 2}']),
        (b"", []),
        (b" \n", []),
    ],
)
def test_the_first_byte_says_what_a_body_is(body: bytes, texts: list[str]) -> None:
    for cuts in (1 << 20, 1):
        found, cut_off = read(body, cuts)
        assert [text.strip() for text in found] == [text.strip() for text in texts]
        assert not cut_off


@pytest.mark.parametrize("body", [b'data: {"a": 1}\n\ndata: {"a', b'data: {"a": 1}\n\nda'])
def test_a_body_that_ends_in_the_middle_of_an_event_was_cut_off(body: bytes) -> None:
    assert read(body) == (['{"a": 1}'], True)


@pytest.mark.parametrize("start", [b"{", b"x"])
def test_a_body_without_bounds_is_refused(start: bytes) -> None:
    with pytest.raises(SseError):
        read(start + b"x" * (MAX_JSON_BYTES + 1), 1 << 16)
