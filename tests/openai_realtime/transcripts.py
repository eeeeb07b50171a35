"""Golden transcripts of the Realtime dialect: what a client says, and all that it is told.

``python -m tools.realtime_transcripts`` writes them anew into
``protocol/openai-realtime/transcripts``, after a change that is meant.
"""

import asyncio
import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.openai_realtime.client import MANUAL, PCM_BYTES_PER_MS, Event, RealtimeStage
from tests.openai_realtime.home import Home, mcp
from voicechat.session.types import ToolCall
from voicechat.testing.scripted import ScriptedModel, ScriptedRecognizer

FOLDER = Path(__file__).parents[2] / "protocol" / "openai-realtime" / "transcripts"
Line = dict[str, Any]
LAMP = {"type": "function", "name": "lamp", "parameters": {"type": "object"}}
CALL = ToolCall(0, "call_lamp", "lamp", '{"on": true}')
REPLIES: Mapping[str, Sequence[Sequence[str | ToolCall]]] = {
    "function-call": ((CALL,), ("There is ", "light.")),
    "mcp": ((CALL,), ("There is ", "light.")),
    "mcp-approval": ((CALL,), ("There is ", "light.")),
}
MODEL_REPLY = (("Hello there. ", "How are you?"),)


def said(text: str) -> Event:
    part = {"type": "input_text", "text": text}
    item = {"id": "item_of_mine", "type": "message", "role": "user", "content": [part]}
    return {"type": "conversation.item.create", "item": item}


def audio(length_ms: int) -> Event:
    pcm = b"\0\1" * (length_ms * PCM_BYTES_PER_MS // 2)
    return {"type": "input_audio_buffer.append", "audio": base64.b64encode(pcm).decode()}


UPDATE: Event = {"type": "session.update", "session": {"type": "realtime", **MANUAL}}
TEXT: Event = {"type": "response.create", "response": {"output_modalities": ["text"]}}


def naming(server: Event) -> Event:
    return {**UPDATE, "session": {**UPDATE["session"], "tools": [server]}}


SCENARIOS: Mapping[str, Sequence[tuple[Event, str]]] = {
    "manual-turn": (
        (UPDATE, "session.updated"),
        (audio(300), ""),
        (audio(300), ""),
        ({"type": "input_audio_buffer.commit"}, ""),
        ({"type": "response.create"}, "response.done"),
    ),
    "text-turn": (
        (UPDATE, "session.updated"),
        (said("hello"), "conversation.item.done"),
        (TEXT, "response.done"),
    ),
    "function-call": (
        ({**UPDATE, "session": {**UPDATE["session"], "tools": [LAMP]}}, "session.updated"),
        (said("light please"), ""),
        (TEXT, "response.done"),
        (
            {
                "type": "conversation.item.create",
                "item": {
                    "id": "item_of_output",
                    "type": "function_call_output",
                    "call_id": "call_lamp",
                    "output": "on",
                },
            },
            "",
        ),
        (TEXT, "response.done"),
    ),
    "mcp": (
        (naming(mcp(allowed_tools=["lamp"])), "mcp_list_tools.completed"),
        (said("light please"), ""),
        (TEXT, "response.mcp_call.completed"),
        (TEXT, "response.done"),
    ),
    "mcp-approval": (
        (naming(mcp(require_approval="always")), "mcp_list_tools.completed"),
        (said("light please"), ""),
        (TEXT, "response.done"),
        (
            {
                "type": "conversation.item.create",
                "item": {
                    "id": "item_of_approval",
                    "type": "mcp_approval_response",
                    "approval_request_id": "APPROVAL",
                    "approve": True,
                },
            },
            "response.mcp_call.completed",
        ),
        (TEXT, "response.done"),
    ),
    "out-of-band": (
        (UPDATE, "session.updated"),
        (said("hello"), ""),
        (
            {
                "type": "response.create",
                "response": {
                    "conversation": "none",
                    "output_modalities": ["text"],
                    "metadata": {"topic": "moderation"},
                    "instructions": "Is this polite?",
                },
            },
            "response.done",
        ),
    ),
    "truncate": (
        (UPDATE, "session.updated"),
        (said("hello"), ""),
        ({"type": "response.create"}, "response.done"),
        (
            {
                "type": "conversation.item.truncate",
                "item_id": "ITEM",
                "content_index": 0,
                "audio_end_ms": 300,
            },
            "conversation.item.truncated",
        ),
        ({"type": "conversation.item.retrieve", "item_id": "ITEM"}, "conversation.item.retrieved"),
    ),
    "errors": (
        (UPDATE, "session.updated"),
        ({"type": "nonsense", "event_id": "first"}, "error"),
        ({"type": "input_audio_buffer.commit", "event_id": "second"}, "error"),
        ({"type": "response.cancel", "event_id": "third"}, "error"),
        ({"type": "conversation.item.delete", "event_id": "4th", "item_id": "gone"}, "error"),
    ),
}
"""What the client says, and what it then waits for; empty: for nothing. ``ITEM`` is the
last message of the assistant, ``APPROVAL`` the last request for approval.
"""


async def play(name: str) -> list[Line]:
    """Play a scenario; return its lines, audio by its length."""
    stage = RealtimeStage(
        model=ScriptedModel(REPLIES.get(name, MODEL_REPLY)),
        recognizer=ScriptedRecognizer(("what time is it",)),
        tool_servers=Home().open,
        update=None,
    )
    lines: list[Line] = []
    async with stage:
        told = 0

        def note() -> None:
            nonlocal told
            lines.extend({"server": shortened(event)} for event in stage.events[told:])
            told = len(stage.events)

        await stage.until("conversation.created")
        for event, awaited in SCENARIOS[name]:
            note()
            said_now = with_item(event, stage)
            lines.append({"client": shortened(said_now)})
            count = len(stage.of(awaited))
            stage.say(said_now["type"], **{k: v for k, v in said_now.items() if k != "type"})
            if awaited:
                await stage.until(awaited, count + 1)
        await asyncio.sleep(60)
        note()
    return lines


def with_item(event: Event, stage: RealtimeStage) -> Event:
    made = stage.of("response.done")
    last_id = made[-1]["response"]["output"][-1]["id"] if made else ""
    if event.get("item_id") == "ITEM":
        return {**event, "item_id": last_id}
    item = event.get("item", {})
    if item.get("approval_request_id") == "APPROVAL":
        return {**event, "item": {**item, "approval_request_id": last_id}}
    return event


def shortened(event: Event) -> Event:
    """Write audio by its length: of no interest is what it sounds like."""
    name = {"response.output_audio.delta": "delta", "input_audio_buffer.append": "audio"}.get(
        event["type"]
    )
    if name is None:
        return event
    return {**event, name: f"({len(base64.b64decode(event[name]))} bytes)"}
