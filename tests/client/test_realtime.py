"""One client, two wires: the same conversation over both gives the same messages."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.openai_realtime.server import KEY, realtime_server
from voicechat.client import (
    CanceledMessage,
    ClientConversation,
    ClientRealtimeConversation,
    ErrorMessage,
    ForgottenMessage,
    ReplyAudioMessage,
    ReplyTextMessage,
    ServerMessage,
    ToolCallMessage,
    TranscriptMessage,
    TurnCompletedMessage,
    chat_settings,
    connect,
    connect_realtime,
)
from voicechat.session.types import ToolCall
from voicechat.testing.scripted import ScriptedModel

pytestmark = [pytest.mark.real_time, pytest.mark.long]

Either = ClientConversation | ClientRealtimeConversation
LAMP = {"name": "lamp", "description": "A lamp.", "parameters": {"type": "object"}}
WIRES = ("speech chat", "realtime")


@asynccontextmanager
async def talking(wire: str, url: str) -> AsyncIterator[Either]:
    if wire == "realtime":
        async with connect_realtime(url, key=KEY) as realtime:
            heard = {"turn_detection": None, "transcription": {"model": "whisper-1"}}
            tools = [{"type": "function", **LAMP}]
            await realtime.update({"audio": {"input": heard}, "tools": tools})
            yield realtime
    else:
        async with connect(url, key=KEY) as conversation:
            settings = chat_settings(
                input_format="pcm",
                sample_rate_hz=24_000,
                output_format="PCM_24000HZ_MONO_16BIT",
                tools=({"type": "function", "function": LAMP},),
            )
            await conversation.update(settings)
            yield conversation


async def turn(conversation: Either) -> list[ServerMessage]:
    """Receive until the turn has ended; answer calls."""
    messages: list[ServerMessage] = []
    async for message in conversation:
        messages.append(message)
        if isinstance(message, ToolCallMessage):
            await conversation.answer_tool(message.id, "it is on")
        if isinstance(message, TurnCompletedMessage):
            return messages
    raise AssertionError("the server hung up")


def told(messages: list[ServerMessage]) -> dict[str, Any]:
    """What both wires say of a turn."""
    return {
        "heard": [m.text for m in messages if isinstance(m, TranscriptMessage) and m.final],
        "text": "".join(m.content for m in messages if isinstance(m, ReplyTextMessage)),
        "audio": sum(len(m.payload) for m in messages if isinstance(m, ReplyAudioMessage)),
        "calls": [(m.name, m.arguments) for m in messages if isinstance(m, ToolCallMessage)],
        "canceled": any(isinstance(m, CanceledMessage) for m in messages),
        "errors": [m.message for m in messages if isinstance(m, ErrorMessage)],
    }


async def test_both_wires_tell_the_same(tmp_path: Path) -> None:
    model_of = {
        wire: ScriptedModel(
            (
                ("Hello there.",),
                (ToolCall(0, "call_a", "lamp", "{}"),),
                ("There is light.",),
                ("A long story. ", "It goes on and on. ", "And on."),
                ("Yes.",),
            ),
            delta_ms=300,
        )
        for wire in WIRES
    }
    talks: dict[str, list[dict[str, Any]]] = {}
    for wire in WIRES:
        async with (
            asyncio.timeout(120),
            realtime_server(tmp_path, model_of[wire]) as server,
            talking(wire, server.url) as conversation,
        ):
            for _ in range(9):
                await conversation.send_audio(b"\0\1" * 2400)
            await conversation.complete()
            spoken = told(await turn(conversation))
            await conversation.send_text("light please")
            typed = told(await turn(conversation))
            await conversation.send_text("tell me a story")
            await conversation.receive()
            async for message in conversation:
                if isinstance(message, ReplyAudioMessage):
                    break
            await conversation.cancel()
            cut = told(await turn(conversation))
            await conversation.clear_history()
            async for message in conversation:
                if isinstance(message, ForgottenMessage):
                    break
            await conversation.send_text("again")
            again = told(await turn(conversation))
            talks[wire] = [spoken, typed, {"canceled": cut["canceled"]}, again]
    assert talks["realtime"] == talks["speech chat"]
    spoken, typed, cut, again = talks["realtime"]
    assert spoken["heard"] == ["go somewhere"]
    assert spoken["text"] == "Hello there."
    assert spoken["audio"] > 0
    assert typed["calls"] == [("lamp", "{}")]
    assert cut["canceled"]
    assert again["text"] == "Yes."
    asked = {wire: model.requests[-1].messages for wire, model in model_of.items()}
    assert [m["content"] for m in asked["realtime"]] == ["again"]
    assert [m["content"] for m in asked["speech chat"]] == ["again"]
