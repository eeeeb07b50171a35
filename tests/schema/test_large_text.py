"""Long texts are cut out of JSON, however it is divided."""

import json
import random
from typing import Annotated, Any

import pytest
from pydantic import ValidationError

from voicechat.errors import RemoteProtocolError, Status
from voicechat.schema import large_text
from voicechat.schema.checked import RequestModel, first_failure
from voicechat.schema.json_text import read_object
from voicechat.schema.large_text import (
    LARGE_BYTES,
    MOST_REST_BYTES,
    MOST_TEXTS,
    LargeText,
    LargeTextCutter,
    MayBeLarge,
    put_back,
)


def cut(content: bytes, sizes: random.Random | None = None) -> tuple[bytes, dict[str, LargeText]]:
    cutter = LargeTextCutter()
    at = 0
    while at < len(content):
        size = len(content) if sizes is None else sizes.choice((1, 2, 3, 7, 50))
        cutter.push(content[at : at + size])
        at += size
    return cutter.finish()


def whole(value: Any) -> Any:
    """Join long texts, as JSON reads them."""
    if isinstance(value, LargeText):
        return json.loads(b'"' + b"".join(value.pieces) + b'"')
    if isinstance(value, dict):
        return {name: whole(item) for name, item in value.items()}
    return [whole(item) for item in value] if isinstance(value, list) else value


PARTS = [
    "a" * 40,
    '"',
    "\\",
    "\\\\",
    '\\"',
    "/",
    "\n",
    "é",
    "猫" * 9,
    "😀",
    "",
    "x" * 25,
    "{",
    "]",
    ",",
]


def test_any_json_is_the_same_after_cutting_however_it_is_divided(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(large_text, "LARGE_BYTES", 20)
    rng = random.Random(5)
    cuts = 0
    for _ in range(300):
        texts = ["".join(rng.choices(PARTS, k=rng.randrange(6))) for _ in range(4)]
        value = {
            "a": texts[0],
            "b": [texts[1], {"c": texts[2], "d": 1.5}],
            "e": None,
            "f": texts[3],
        }
        content = json.dumps(value, ensure_ascii=rng.random() < 0.5).encode()
        rest, found = cut(content, rng)
        cuts += len(found)
        assert whole(put_back(read_object(rest), found)) == value
    assert cuts > 200


def test_slices_are_small_and_read_the_escape_of_a_slash() -> None:
    text = LargeText([b"ab\\", b"/cd" + b"x" * (3 * large_text.SLICE_BYTES) + b"\\", b"/\\/"])
    slices = list(text.slices())
    assert b"".join(slices) == b"ab/cd" + b"x" * (3 * large_text.SLICE_BYTES) + b"//"
    assert max(map(len, slices)) <= large_text.SLICE_BYTES + 1
    assert b"".join(LargeText([b"a\\"]).slices()) == b"a\\"


class Request(RequestModel):
    prompt: str
    image: Annotated[str | LargeText, MayBeLarge()] = ""


def test_only_fields_for_pictures_take_long_texts() -> None:
    long = "x" * (LARGE_BYTES + 1)
    rest, found = cut(json.dumps({"prompt": "p", "image": long}).encode())
    asked = Request.model_validate(put_back(read_object(rest), found))
    assert isinstance(asked.image, LargeText)
    assert b"".join(asked.image.slices()).decode() == long
    assert Request.model_validate({"prompt": "p", "image": "short"}).image == "short"
    assert Request.model_json_schema()["properties"]["image"]["anyOf"][0] == {"type": "string"}
    rest, found = cut(json.dumps({"prompt": long}).encode())
    with pytest.raises(ValidationError) as refused:
        Request.model_validate(put_back(read_object(rest), found))
    assert first_failure(refused.value) == f"prompt: a text of {LARGE_BYTES + 1} bytes is too long"
    with pytest.raises(ValidationError) as refused:
        Request.model_validate({"prompt": "p", "image": 7})
    assert first_failure(refused.value) == "image: 7 is not a text"


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"[" + b'"",' * (MOST_TEXTS + 1), Status.MALFORMED),
        (b"[" + b" " * (MOST_REST_BYTES + 1), Status.TOO_LARGE),
        (b'["' + b'","'.join([b"x" * LARGE_BYTES] * 21), Status.TOO_LARGE),
    ],
)
def test_what_is_parsed_is_bounded(content: bytes, status: Status) -> None:
    with pytest.raises(RemoteProtocolError) as refused:
        cut(content)
    assert refused.value.status is status


def test_an_unfinished_text_is_no_json() -> None:
    rest, _ = cut(b'{"image":"' + b"x" * (2 * LARGE_BYTES))
    with pytest.raises(RemoteProtocolError):
        read_object(rest)
