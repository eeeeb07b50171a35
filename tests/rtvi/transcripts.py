"""Golden transcripts of RTVI: what a client says, and all that it is told.

``python -m tools.realtime_transcripts`` writes them anew into
``protocol/rtvi/transcripts``, after a change that is meant.
"""

import asyncio
import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.rtvi.test_rtvi import RTVIStage
from voicechat.session.agent import Agent
from voicechat.session.types import ToolAnswer, ToolCall, ToolExchange, ToolOutcome
from voicechat.testing.scripted import ScriptedModel

FOLDER = Path(__file__).parents[2] / "protocol" / "rtvi" / "transcripts"
Line = dict[str, Any]
Said = tuple[str, dict[str, Any], str]
READY: Said = ("client-ready", {"version": "2.1.0", "about": {"library": "golden"}}, "bot-ready")
HELLO: Said = ("send-text", {"content": "hello"}, "bot-stopped-speaking")
LAMP = ToolExchange(
    (ToolCall(0, "call_lamp", "lamp", '{"on": true}'),),
    (ToolAnswer("it is on", ToolOutcome.ANSWERED, 5, "lamp"),),
)
SCENARIOS: Mapping[str, Sequence[Said]] = {
    "typed-turn": (READY, HELLO),
    "spoken-turn": (
        READY,
        ("AUDIO", {"speech_ms": 1200, "silence_ms": 4000}, "bot-stopped-speaking"),
    ),
    "interruption": (
        READY,
        ("send-text", {"content": "hello"}, "bot-started-speaking"),
        ("AUDIO", {"speech_ms": 600, "silence_ms": 0}, "bot-interrupted"),
    ),
    "greeting": (READY, ("WAIT", {}, "bot-stopped-speaking")),
    "context-and-text": (
        READY,
        ("append-to-context", {"role": "system", "content": "Be brief."}, ""),
        (
            "send-text",
            {"content": "hello", "options": {"audio_response": False}},
            "bot-llm-stopped",
        ),
    ),
    "tool": (READY, HELLO),
    "keys": (READY, ("dtmf", {"buttons": ["1", "2", "#"]}, "bot-stopped-speaking")),
    "errors": (
        READY,
        ("nonsense", {}, "error-response"),
        ("client-message", {"t": "order", "d": {}}, "error-response"),
        ("client-ready", {"version": "3.0.0"}, "error"),
    ),
}
"""What the client says, its data, and what it then waits for; empty: for nothing.
``AUDIO`` is what its microphone hears, ``WAIT`` nothing.
"""
LONG = (("This is a long story that goes on and on and on.",), ("Yes.",))
REPLIES: Mapping[str, Any] = {"interruption": LONG, "tool": ((LAMP, "There is light."),)}


async def play(name: str) -> list[Line]:
    """Play a scenario; return its lines, audio by its length."""
    agent = Agent(greeting="Hello! How can I help you?") if name == "greeting" else Agent()
    model = ScriptedModel(REPLIES.get(name, (("Hello there. ", "How are you?"),)))
    stage = RTVIStage(model=model, agent=agent)
    lines: list[Line] = []
    told = 0

    def note() -> None:
        nonlocal told
        lines.extend({"server": shortened(message)} for message in stage.messages[told:])
        told = len(stage.messages)

    async with stage:
        for kind, data, awaited in SCENARIOS[name]:
            note()
            count = len(stage.of(awaited))
            if kind == "AUDIO":
                lines.append({"client": {"type": "raw-audio", **data}})
                await stage.talk(data["speech_ms"])
                await stage.talk(data["silence_ms"], silence=True)
            elif kind != "WAIT":
                lines.append(
                    {"client": {"label": "rtvi-ai", "type": kind, "id": kind, "data": data}}
                )
                stage.say(kind, **data)
            if awaited:
                await stage.until(awaited, count + 1)
        await asyncio.sleep(60)
        note()
    return lines


def shortened(message: Line) -> Line:
    """Write audio by its length, and times as such."""
    data = message.get("data")
    if message["type"] == "bot-tts-audio":
        audio = base64.b64decode(message["data"]["audio"])
        data = {**message["data"], "audio": f"({len(audio)} bytes)"}
    elif message["type"] == "metrics" and "ttfb" in message["data"]:
        data = {"ttfb": [{**each, "value": "(seconds)"} for each in message["data"]["ttfb"]]}
    elif message["type"] == "user-transcription":
        data = {**message["data"], "timestamp": "(time)"}
    return message if data is None else {**message, "data": data}
