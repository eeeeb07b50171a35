"""How each protocol's clients are told the sources of a reply."""

import json
from typing import Any

from voicechat.dialects.base import Connection, Dialect, Tell
from voicechat.dialects.openai_realtime.endpoint import OpenAIRealtimeEndpoint
from voicechat.dialects.rtvi.endpoint import RTVIEndpoint
from voicechat.dialects.speech_chat.codec import ReplyWriter
from voicechat.providers.interfaces import ReplyFinished, TextDelta
from voicechat.server.rest.completion import Completion
from voicechat.session import notices as nt
from voicechat.session.types import Item, Source, SourcesCited

PETS = Source(index=1, kind="file", title="Pets", content="Dogs may stay.", url="https://v/1")
FOOD = Source(index=2, kind="qa", title="When?", content="At seven.", url="https://v/2")
PETS_REF = {
    "index": 1,
    "title": "Pets",
    "content": "Dogs may stay.",
    "type": "file",
    "url": "https://v/1",
}
FOOD_REF = {
    "index": 2,
    "title": "When?",
    "content": "At seven.",
    "type": "qa",
    "url": "https://v/2",
}
REPLY = (
    nt.ReplyText(1, "They may"),
    nt.ReplySources(1, (PETS,)),
    nt.ReplyText(1, ", at seven"),
    nt.ReplySources(1, (PETS, FOOD)),
    nt.ReplyTextFinished(1, "stop"),
)


def test_chunks_of_a_conversation_have_refs_where_they_occur_and_all_at_the_end() -> None:
    writer = ReplyWriter("s", 0, "m")
    choices = [json.loads(str(writer.write(notice)))["choices"][0] for notice in REPLY]
    assert [choice.get("refs") for choice in choices] == [
        None,
        [PETS_REF],
        None,
        [PETS_REF, FOOD_REF],
        [PETS_REF, FOOD_REF],
    ]
    assert [choice["delta"]["content"] for choice in choices] == [
        "They may",
        "",
        ", at seven",
        "",
        "",
    ]
    next_reply = json.loads(str(writer.write(nt.ReplyTextFinished(2, "stop"))))
    assert "refs" not in next_reply["choices"][0]


def test_chat_completions_have_refs_where_they_occur_and_all_at_the_end() -> None:
    completion = Completion("c", 0, "m", with_nulls=False)
    parts = (
        TextDelta("They may[1]"),
        SourcesCited((PETS,)),
        TextDelta(", at seven[1][2]"),
        SourcesCited((PETS, FOOD)),
        ReplyFinished("stop"),
    )
    chunks = [chunk for part in parts for chunk in completion.add_part(part)]
    refs = [chunk["choices"][0].get("refs") for chunk in (*chunks, completion.last_chunk())]
    assert refs == [None, [PETS_REF], None, [PETS_REF, FOOD_REF], [PETS_REF, FOOD_REF]]
    [choice] = completion.answer()["choices"]
    assert choice["refs"] == [PETS_REF, FOOD_REF]
    assert choice["message"]["content"] == "They may[1], at seven[1][2]"


def test_a_completion_without_sources_has_no_refs() -> None:
    completion = Completion("c", 0, "m", with_nulls=True)
    list(completion.add_part(TextDelta("Hello")))
    assert "refs" not in completion.answer()["choices"][0]
    assert "refs" not in completion.last_chunk()["choices"][0]


def _frames(dialect: Dialect, *notices: nt.Notice) -> list[dict[str, Any]]:
    told = [reaction for notice in notices for reaction in dialect.notify(notice, 9)]
    return [json.loads(each.frame) for each in told if isinstance(each, Tell)]


def test_realtime_clients_get_them_in_fields_of_events_that_they_know() -> None:
    dialect = OpenAIRealtimeEndpoint().open(Connection(session_id="s")).dialect
    dialect.open(0)
    told = _frames(
        dialect,
        nt.ReplyBegun(1, 0),
        *REPLY,
        nt.ReplyAudioFinished(1, ("They may, at seven",)),
        nt.ReplyEnded(
            1, nt.Outcome.SPOKEN, (Item("item_1", {"role": "assistant", "content": "x"}, 1),)
        ),
    )
    deltas = [event for event in told if event["type"] == "response.output_audio_transcript.delta"]
    assert [(event["delta"], event.get("refs")) for event in deltas] == [
        ("They may", None),
        ("", [{**PETS_REF, "offset": 8}]),
        (", at seven", None),
        ("", [{**PETS_REF, "offset": 18}, {**FOOD_REF, "offset": 18}]),
    ]
    everything = [
        {**PETS_REF, "offset": 8},
        {**PETS_REF, "offset": 18},
        {**FOOD_REF, "offset": 18},
    ]
    by_type = {event["type"]: event for event in told}
    assert by_type["response.content_part.done"]["part"]["refs"] == everything
    assert by_type["response.output_item.done"]["item"]["content"][0]["refs"] == everything
    assert by_type["response.done"]["response"]["output"][0]["content"][0]["refs"] == everything


def test_rtvi_clients_get_a_message_of_the_server() -> None:
    dialect = RTVIEndpoint().open(Connection(session_id="s")).dialect
    messages = [
        event["data"] for event in _frames(dialect, *REPLY) if event["type"] == "server-message"
    ]
    assert messages == [
        {"type": "refs", "refs": [PETS_REF]},
        {"type": "refs", "refs": [PETS_REF, FOOD_REF]},
    ]
