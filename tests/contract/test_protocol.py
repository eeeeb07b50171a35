"""``protocol/`` against itself and against the dialects: schemas, examples, invalid
frames, status codes.
"""

import json
from collections.abc import Iterator
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from voicechat.dialects.base import Connection, Dialect, Endpoint, Tell
from voicechat.dialects.speech_chat.endpoint import SpeechChatEndpoint
from voicechat.dialects.speech_chat.rules import CANCELED, CLEARED, COMPLETED, FORGOTTEN, UPDATED
from voicechat.dialects.speech_chat.settings import read_chat_update
from voicechat.dialects.stream_speech.endpoint import StreamSpeechEndpoint
from voicechat.errors import RemoteProtocolError, Status
from voicechat.names import ServiceNames

PROTOCOL = Path(__file__).parents[2] / "protocol"
SESSION_ID = "4fzz0q"
"""The session of the examples' reply ids."""
SCHEMAS = ["speech-chat.client.json", "speech-chat.server.json", "stream-speech.server.json"]
NOT_IN_A_SCHEMA = {Status.NOT_FOUND}
"""What only a server can tell, because it depends on its configuration."""


def load(*parts: str) -> Any:
    return json.loads(PROTOCOL.joinpath(*parts).read_text("utf-8"))


@cache
def schema(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = load("schema", name)
    return loaded


def validator(name: str, definition: str | None = None) -> Draft202012Validator:
    whole = schema(name)
    if definition is None:
        return Draft202012Validator(whole)
    return Draft202012Validator({"$ref": f"#/$defs/{definition}", "$defs": whole["$defs"]})


def message_names(name: str) -> list[str]:
    return [option["$ref"].removeprefix("#/$defs/") for option in schema(name)["oneOf"]]


def open_dialect(name: str) -> Dialect:
    kinds: dict[str, type[Endpoint]] = {
        "speech_chat": SpeechChatEndpoint,
        "stream_speech": StreamSpeechEndpoint,
    }
    names = ServiceNames(frozenset({"default", "other"}))
    return kinds[name]().open(Connection(session_id=SESSION_ID, models=names)).dialect


def answers(dialect: Dialect, frame: str) -> list[dict[str, Any]]:
    """What the dialect says by itself to a frame, in words."""
    told = (r.frame for r in dialect.receive(frame, 0) if isinstance(r, Tell))
    return [json.loads(text) for text in told]


def server_schema(dialect: str) -> str:
    return f"{dialect.replace('_', '-')}.server.json"


EXAMPLES = sorted(PROTOCOL.glob("examples/*/*/*.json"))
INVALID = sorted(PROTOCOL.glob("invalid/*/*.json"))


def short(path: Path) -> str:
    return "/".join(path.with_suffix("").parts[-2:])


def is_from_the_client(example: Path) -> bool:
    return example.parent.name in message_names("speech-chat.client.json")


def test_there_is_no_python_in_the_contract() -> None:
    assert list(PROTOCOL.rglob("*.py")) == []


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_schemas_are_schemas_and_their_references_lead_somewhere(name: str) -> None:
    Draft202012Validator.check_schema(schema(name))
    definitions = schema(name)["$defs"]
    for reference in references(schema(name)):
        assert reference.removeprefix("#/$defs/") in definitions


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for child in value.values():
            yield from references(child)
    elif isinstance(value, list):
        for child in value:
            yield from references(child)


def test_the_status_codes_are_those_of_the_code() -> None:
    errors = load("errors.json")["errors"]
    assert {error["name"]: error["code"] for error in errors} == {
        status.name: int(status) for status in Status
    }
    for error in errors:
        assert error["http"] == (200 if error["code"] == 0 else error["code"] // 100)
        assert error["fatal"] in ("never", "on_connect", "always")
        assert bool(error["close_codes"]) == (error["fatal"] != "never")
        assert error["meaning"].endswith(".")
    assert schema("speech-chat.server.json")["$defs"]["status"]["enum"] == [
        error["code"] for error in errors
    ]


@pytest.mark.parametrize("example", EXAMPLES, ids=short)
def test_every_example_is_valid(example: Path) -> None:
    frame, kind = json.loads(example.read_text("utf-8")), example.parent.name
    name = (
        "speech-chat.client.json"
        if is_from_the_client(example)
        else server_schema(example.parent.parent.name)
    )
    validator(name).validate(frame)
    validator(name, kind).validate(frame)
    if kind == "chat.update" and isinstance(frame["message"], str):
        validator(name, "configuration").validate(json.loads(frame["message"]))


@pytest.mark.parametrize(
    "example", [path for path in EXAMPLES if is_from_the_client(path)], ids=short
)
def test_every_example_from_a_client_is_understood(example: Path) -> None:
    dialect = open_dialect(example.parent.parent.name)
    if example.parent.name != "chat.update":
        list(dialect.receive(b"\0\1", 0))  # what is allowed from the first audio on
    assert all(said["status"] == 0 for said in answers(dialect, example.read_text("utf-8")))


@pytest.mark.parametrize("path", INVALID, ids=short)
def test_every_invalid_frame_earns_its_status(path: Path) -> None:
    expected = json.loads(path.read_text("utf-8"))
    (said,) = answers(open_dialect("speech_chat"), expected["frame"])
    assert (said["event_type"], said["status"]) == (expected["answer"], expected["status"])
    assert said["message"]


@pytest.mark.parametrize("path", INVALID, ids=short)
def test_no_invalid_frame_passes_the_schema(path: Path) -> None:
    expected = json.loads(path.read_text("utf-8"))
    if expected["status"] in NOT_IN_A_SCHEMA:
        return
    try:
        frame = json.loads(expected["frame"], parse_constant=_refuse, parse_float=_finite)
    except ValueError:
        return
    if _is_textual_trouble(frame):
        return
    client = validator("speech-chat.client.json")
    if client.is_valid(frame):
        configuration = json.loads(frame["message"])
        assert not validator("speech-chat.client.json", "configuration").is_valid(configuration)


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text} is infinite")
    return value


def _is_textual_trouble(frame: Any) -> bool:
    """Whether a frame is valid by shape, and refused for its text: nesting, half a
    surrogate pair, an inner no-JSON.
    """
    if isinstance(frame, dict) and frame.get("event_type") == "ping":
        return True
    return isinstance(frame, dict) and frame.get("message") in ("{", "")


VALUES: list[Any] = [
    None,
    "",
    True,
    False,
    0,
    1,
    -1,
    0.5,
    2.5,
    50,
    8000,
    "pcm",
    "x",
    [],
    ["x"],
    [{}],
    {},
    {"type": "text"},
]


def places(value: Any) -> Iterator[tuple[str, ...]]:
    """Yield the path of every property that a schema of objects names."""
    for option in (value, *value.get("anyOf", [])):
        if "$ref" in option:
            option = schema("speech-chat.client.json")["$defs"][
                option["$ref"].removeprefix("#/$defs/")
            ]
        for name, child in option.get("properties", {}).items():
            yield (name,)
            yield from ((name, *rest) for rest in places(child))


@pytest.mark.parametrize("place", list(places({"$ref": "#/$defs/configuration"})), ids=".".join)
def test_schema_and_dialect_agree_on_every_field_of_the_configuration(
    place: tuple[str, ...],
) -> None:
    connection = Connection(models=ServiceNames(frozenset({"pcm", "x"})))
    for value in VALUES:
        configuration: dict[str, Any] = {
            "create_transcription_task_req": {},
            "chat_completion_with_voice_output_req": {
                "chat_completion_req": {},
                "speech_synthesis_req": {},
            },
        }
        parent: Any = configuration
        for name in place[:-1]:
            parent = parent.setdefault(name, {})
        parent[place[-1]] = value
        try:
            read_chat_update(configuration, connection)
            accepted = True
        except RemoteProtocolError:
            accepted = False
        assert accepted == validator("speech-chat.client.json", "configuration").is_valid(
            configuration
        ), value


def test_the_invalid_frames_reach_every_status_that_reading_a_message_can_give() -> None:
    statuses = {json.loads(path.read_text("utf-8"))["status"] for path in INVALID}
    assert statuses == {
        Status.MALFORMED,
        Status.UNKNOWN_EVENT,
        Status.INVALID_PARAMETER,
        Status.NOT_FOUND,
    }


def test_every_message_has_an_example_a_schema_and_a_place_in_the_readme_and_the_index() -> None:
    readme = PROTOCOL.joinpath("README.md").read_text("utf-8")
    index = load("asyncapi.json")["channels"]
    with_example = {(path.parent.parent.name, path.parent.name) for path in EXAMPLES}
    for dialect, channel, schemas in (
        ("speech_chat", "speechChat", ["speech-chat.client.json", "speech-chat.server.json"]),
        ("stream_speech", "streamSpeech", ["stream-speech.server.json"]),
    ):
        for name in chain.from_iterable(map(message_names, schemas)):
            assert (dialect, name) in with_example
            assert name in index[channel]["messages"]
            assert name in readme or name == "ready"


def test_every_answer_of_the_code_is_in_the_contract() -> None:
    answers = {UPDATED, COMPLETED, CLEARED, FORGOTTEN, CANCELED, "chat.created", "pong"}
    assert answers <= set(message_names("speech-chat.server.json"))


def test_every_reference_of_the_index_leads_somewhere() -> None:
    index = load("asyncapi.json")
    for reference in references(index):
        file, _, pointer = reference.partition("#/")
        target: Any = index if not file else load(*file.removeprefix("./").split("/"))
        for part in pointer.split("/"):
            assert part in target, reference
            target = target[part]


def test_the_readme_names_every_status_and_close_code() -> None:
    readme = PROTOCOL.joinpath("README.md").read_text("utf-8")
    for error in load("errors.json")["errors"]:
        assert f"| {error['code']} |" in readme
        for code in error["close_codes"]:
            assert str(code) in readme
