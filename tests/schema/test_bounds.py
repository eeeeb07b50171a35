"""What a client's JSON may cost: bounded before it is parsed, and before it is
checked.
"""

import importlib
import json
import pkgutil
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

import voicechat.dialects
import voicechat.server.rest
from voicechat.dialects.base import Connection
from voicechat.dialects.speech_chat.settings import read_chat_update
from voicechat.errors import RemoteProtocolError, Status
from voicechat.schema import json_text
from voicechat.schema.chat_options import MAX_MESSAGES, ChatCompletion
from voicechat.schema.checked import MAX_KEYS, PassThroughModel, RequestModel, first_failure
from voicechat.schema.json_text import MAX_VALUES, read_json
from voicechat.server.rest.chat import CompletionRequest

SOME_MESSAGES = {"model": "default", "messages": [{"role": "user", "content": "hi"}]}


def test_the_first_wrong_item_ends_the_check() -> None:
    with pytest.raises(ValidationError) as failed:
        CompletionRequest.model_validate({"model": "default", "messages": [1] * MAX_MESSAGES})
    assert failed.value.error_count() == 1
    assert first_failure(failed.value) == "messages[0]: 1 is not an object"


def test_an_array_that_is_too_long_is_refused_before_its_items_are_looked_at() -> None:
    with pytest.raises(ValidationError) as failed:
        CompletionRequest.model_validate({"model": "default", "messages": [1] * (MAX_MESSAGES + 1)})
    told = f"messages: {MAX_MESSAGES + 1} messages are not between 1 and {MAX_MESSAGES}"
    assert first_failure(failed.value) == told


@pytest.mark.parametrize("place", ["request", "message", "tool"])
def test_an_object_has_only_so_many_keys(place: str) -> None:
    request: dict[str, Any] = json.loads(json.dumps(SOME_MESSAGES))
    many = {f"key{number}": number for number in range(MAX_KEYS + 1)}
    match place:
        case "request":
            request |= many
        case "message":
            request["messages"][0] |= many
        case _:
            request["tools"] = [{"type": "function", "function": {"name": "f"}} | many]
    with pytest.raises(ValidationError, match=f"keys are more than {MAX_KEYS}"):
        CompletionRequest.model_validate(request)


def test_a_configuration_has_only_so_many_messages() -> None:
    completion = {"messages": [{"role": "user", "content": "hi"}] * (MAX_MESSAGES + 1)}
    update = {
        "create_transcription_task_req": {},
        "chat_completion_with_voice_output_req": {
            "chat_completion_req": completion,
            "speech_synthesis_req": {},
        },
    }
    with pytest.raises(RemoteProtocolError, match=f"messages are more than {MAX_MESSAGES}"):
        read_chat_update(update, Connection())


def _request_models() -> Iterator[type[BaseModel]]:
    for package in (voicechat.server.rest, voicechat.dialects):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    waiting: list[type[BaseModel]] = [RequestModel, PassThroughModel]
    while waiting:
        model = waiting.pop()
        waiting += model.__subclasses__()
        yield model


@pytest.mark.parametrize("model", list(_request_models()), ids=lambda model: model.__qualname__)
def test_every_array_of_a_request_is_bounded(model: type[BaseModel]) -> None:
    for field, checked in _lists(model.__pydantic_core_schema__, model.__name__):
        assert checked.get("fail_fast"), f"{field}: stands without Items"


def _lists(schema: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(schema, dict):
        if schema.get("type") == "list":
            yield path, schema
        for name, inner in schema.items():
            yield from _lists(inner, f"{path}.{name}")
    elif isinstance(schema, (list, tuple)):
        for inner in schema:
            yield from _lists(inner, path)


def test_what_has_too_many_values_is_refused_before_it_is_parsed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(orjson, "loads", lambda _: pytest.fail("it was parsed"))
    for text in ("[" + "1," * MAX_VALUES + "1]", "{" + '"":[],' * MAX_VALUES + '"":1}'):
        with pytest.raises(RemoteProtocolError) as failed:
            read_json(text)
        assert failed.value.status is Status.MALFORMED


def test_what_stands_in_a_text_is_no_value() -> None:
    text = ',[{"\\,' * MAX_VALUES
    assert read_json(json.dumps([text])) == [text]


values = st.recursive(
    st.none() | st.integers(-9, 9) | st.text(alphabet='ab,[{"\\\n', max_size=8),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(alphabet='a,"\\', max_size=3), inner),
)


@given(values, st.integers(1, 5), st.integers(1, 12))
def test_values_are_counted_however_the_text_is_cut(
    value: object, piece_bytes: int, most: int
) -> None:
    number = _count(value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_text, "MAX_VALUES", most)
        patch.setattr(json_text, "_PIECE_BYTES", piece_bytes)
        if number > most:
            with pytest.raises(RemoteProtocolError):
                read_json(json.dumps(value))
        elif 2 * number <= most:  # an empty array counts as two
            assert read_json(json.dumps(value)) == value


def _count(value: object) -> int:
    if isinstance(value, dict):
        return 1 + sum(map(_count, value.values()))
    return 1 + sum(map(_count, value)) if isinstance(value, list) else 1


def test_what_passes_is_as_it_was() -> None:
    completion = ChatCompletion.model_validate(SOME_MESSAGES | {"unknown": [1, {"a": 2}]})
    assert completion.context() == ({"role": "user", "content": "hi"},)
    assert completion.given()["unknown"] == [1, {"a": 2}]
