"""How each dialect shows its client a picture that was drawn."""

import json
from typing import Annotated, Any

import pytest
from openai.types.realtime.realtime_server_event import RealtimeServerEvent
from pydantic import Field, TypeAdapter

from tests.contract.test_protocol import validator
from tests.dialects.test_every_dialect import CONNECTION, ENDPOINTS
from voicechat.client.messages import PictureMessage, parse_message
from voicechat.dialects.base import Dialect, Tell
from voicechat.dialects.drawings import Drawing

URL = "http://127.0.0.1:8000/media/0123456789abcdef-0123456789abcdef0123456789abcdef.png"
DRAWN = Drawing(
    id="t1", prompt="a [cat]", address=URL, content_type="image/png", width=64, height=48
)
FAILED = Drawing(id="", prompt="a cat", failure="the service refused it")
DIALECTS = {endpoint.__module__.split(".")[2]: endpoint for endpoint in ENDPOINTS}


def opened(name: str) -> Dialect:
    return DIALECTS[name]().open(CONNECTION).dialect


def shown(dialect: Dialect, drawing: Drawing) -> list[Any]:
    reactions = list(dialect.show_drawing(drawing, 0))
    assert all(isinstance(reaction, Tell) for reaction in reactions)
    return [json.loads(each.frame) for each in reactions if isinstance(each, Tell)]


@pytest.mark.parametrize("name", DIALECTS)
def test_dialects_show_pictures_exactly_if_they_say_so(name: str) -> None:
    dialect = opened(name)
    assert bool(shown(dialect, DRAWN)) is dialect.shows_drawings
    assert bool(shown(dialect, FAILED)) is dialect.shows_drawings


def test_some_show_pictures_and_telephones_do_not() -> None:
    showing = {name for name in DIALECTS if opened(name).shows_drawings}
    assert showing == {"speech_chat", "openai_realtime", "rtvi", "xiaozhi"}


def test_speech_chat() -> None:
    dialect = opened("speech_chat")
    for drawing, message in (
        (DRAWN, PictureMessage("a [cat]", "t1", URL, "image/png", 64, 48)),
        (FAILED, PictureMessage("a cat", error="the service refused it")),
    ):
        (event,) = shown(dialect, drawing)
        validator("speech-chat.server.json", "conversation.picture").validate(event)
        assert parse_message(json.dumps(event)) == message


def test_realtime() -> None:
    dialect = opened("openai_realtime")
    models: TypeAdapter[Any] = TypeAdapter(
        Annotated[RealtimeServerEvent, Field(discriminator="type")]
    )
    added, done = shown(dialect, DRAWN)
    models.validate_python(added)
    models.validate_python(done)
    assert [added["type"], done["type"]] == ["conversation.item.added", "conversation.item.done"]
    assert added["item"]["content"] == [{"type": "output_text", "text": f"![a (cat)]({URL})"}]
    _, failed = shown(dialect, FAILED)
    assert failed["previous_item_id"] == added["item"]["id"]
    assert "could not be drawn: the service refused it" in failed["item"]["content"][0]["text"]
    delete = {"type": "conversation.item.delete", "item_id": added["item"]["id"]}
    told = [
        json.loads(each.frame)
        for each in dialect.receive(json.dumps(delete), 0)
        if isinstance(each, Tell)
    ]
    assert [event["type"] for event in told] == ["conversation.item.deleted"]


def test_rtvi() -> None:
    dialect = opened("rtvi")
    (message,) = shown(dialect, DRAWN)
    assert (message["label"], message["type"]) == ("rtvi-ai", "server-message")
    assert message["data"] == {
        "type": "picture",
        "id": "t1",
        "prompt": "a [cat]",
        "url": URL,
        "content_type": "image/png",
        "width": 64,
        "height": 48,
    }
    (message,) = shown(dialect, FAILED)
    assert message["data"]["error"] == "the service refused it"


def test_devices_write_the_link() -> None:
    dialect = opened("xiaozhi")
    (message,) = shown(dialect, DRAWN)
    assert (message["type"], message["state"], message["text"]) == ("tts", "sentence_start", URL)
