"""A client of the Realtime protocol, in memory and in virtual time. Every event that it
is sent is checked against the strict models of OpenAI's own package.
"""

import asyncio
import base64
import json
from dataclasses import dataclass, field
from typing import Annotated, Any

from openai.types.realtime.realtime_server_event import RealtimeServerEvent
from pydantic import Field, TypeAdapter

from voicechat.dialects.base import Connection, Frame, Handshake
from voicechat.dialects.openai_realtime.endpoint import OpenAIRealtimeEndpoint
from voicechat.runtime.session_tools import OpenToolServer, no_tool_servers
from voicechat.session.agent import Agent
from voicechat.session.limits import SessionLimits
from voicechat.testing.harness import ScriptedHarness
from voicechat.testing.scripted import ScriptedModel, ScriptedRecognizer, ScriptedSynthesizer
from voicechat.voice.detector import FrameScore, OnScore
from voicechat.voice.silero import FRAME_BYTES, FRAME_MS

Event = dict[str, Any]
_MODELS: TypeAdapter[Any] = TypeAdapter(Annotated[RealtimeServerEvent, Field(discriminator="type")])
MANUAL = {"audio": {"input": {"turn_detection": None, "transcription": {"model": "whisper-1"}}}}
PCM_BYTES_PER_MS = 48


def judged(frame: Frame) -> Event:
    """Read an event. Raises when OpenAI's models refuse it."""
    event: Event = json.loads(frame)
    _MODELS.validate_python(event)
    return event


class LoudDetector:
    """Takes every sound for speech, and silence for none."""

    turn_judge = None
    background_db = 0.0

    def open_stream(self, on_score: OnScore) -> "LoudEar":
        return LoudEar(on_score)


class LoudEar:
    turn_open = False
    gather_ms = 0
    preferred_until_s = 0.0

    def __init__(self, on_score: OnScore) -> None:
        self._on_score = on_score
        self._pending = b""
        self._audio_ms = 0
        self._closed = False

    def push(self, pcm: bytes) -> None:
        self._pending += pcm
        while len(self._pending) >= FRAME_BYTES:
            frame, self._pending = self._pending[:FRAME_BYTES], self._pending[FRAME_BYTES:]
            self._audio_ms += FRAME_MS
            heard = FrameScore(self._audio_ms, float(any(frame)))
            asyncio.get_running_loop().call_soon(self._tell, heard)

    def note_gap(self, at_ms: int) -> None:
        self._audio_ms = at_ms

    def close(self) -> None:
        self._closed = True

    def _tell(self, heard: FrameScore) -> None:
        if not self._closed:
            self._on_score(heard)


@dataclass(kw_only=True)
class RealtimeStage:
    """One connection, with scripted providers."""

    model: ScriptedModel = field(default_factory=ScriptedModel)
    recognizer: ScriptedRecognizer = field(default_factory=ScriptedRecognizer)
    synthesizer: ScriptedSynthesizer = field(default_factory=ScriptedSynthesizer)
    agent: Agent = field(default_factory=Agent)
    others: dict[str, Agent] = field(default_factory=dict)
    """Agents that a prompt may name."""
    limits: SessionLimits = field(default_factory=SessionLimits)
    tool_servers: OpenToolServer = no_tool_servers
    query: dict[str, str] = field(default_factory=dict)
    update: dict[str, Any] | None = field(default_factory=lambda: MANUAL)
    """What the client sends first; None: nothing."""
    harness: ScriptedHarness = field(init=False)
    _judged: list[Event] = field(default_factory=list)

    async def __aenter__(self) -> "RealtimeStage":
        connection = Connection(
            session_id="s",
            agent=self.agent,
            handshake=Handshake(query=self.query),
            find_agent=lambda name, variables: (
                other.filled(variables) if (other := self.others.get(name)) else None
            ),
        )
        opening = OpenAIRealtimeEndpoint().open(connection)
        self.harness = ScriptedHarness(
            model=self.model,
            recognizer=self.recognizer,
            synthesizer=self.synthesizer,
            agent=self.agent,
            limits=self.limits,
            tool_servers=self.tool_servers,
            dialect=opening.dialect,
            detector=LoudDetector(),
            settings=opening.settings,
        )
        await self.harness.__aenter__()
        if self.update is not None:
            self.say("session.update", session=self.update)
            await self.until("session.updated")
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self.harness.__aexit__(*error)

    @property
    def events(self) -> list[Event]:
        """All events so far."""
        frames = self.harness.frames
        self._judged += [judged(frame) for frame in frames[len(self._judged) :]]
        return self._judged

    def of(self, kind: str) -> list[Event]:
        """All events of a type."""
        return [event for event in self.events if event["type"] == kind]

    def kinds(self, since: int = 0) -> list[str]:
        """The types of all events from number ``since`` on; repeated deltas count
        once.
        """
        kinds: list[str] = []
        for event in self.events[since:]:
            if not kinds or kinds[-1] != event["type"] or not event["type"].endswith(".delta"):
                kinds.append(event["type"])
        return kinds

    def say(self, kind: str, **fields: Any) -> None:
        """Send an event."""
        self.harness.send_frame(json.dumps({"type": kind, **fields}))

    def speak(self, length_ms: int = 900, *, silence: bool = False) -> None:
        """Send audio at once, 24 kHz samples; ``silence``: nobody speaks in it."""
        sample = b"\0\0" if silence else b"\0\1"
        for _ in range(length_ms // 100):
            audio = base64.b64encode(sample * (50 * PCM_BYTES_PER_MS)).decode()
            self.say("input_audio_buffer.append", audio=audio)

    async def talk(self, length_ms: int, *, silence: bool = False) -> None:
        """Send audio as a microphone does."""
        for _ in range(length_ms // 100):
            self.speak(100, silence=silence)
            await asyncio.sleep(0.1)

    async def until(self, kind: str, count: int = 1) -> Event:
        """Wait until ``count`` events of a type have come; return the last of them."""
        await self.harness.until(lambda: len(self.of(kind)) >= count)
        return self.of(kind)[count - 1]

    async def say_text(self, text: str, role: str = "user", **fields: Any) -> str:
        """Create a message item; return its id."""
        before = len(self.of("conversation.item.done"))
        part = {"type": "output_text" if role == "assistant" else "input_text", "text": text}
        item = {"type": "message", "role": role, "content": [part]}
        self.say("conversation.item.create", item=item, **fields)
        done = await self.until("conversation.item.done", before + 1)
        item_id: str = done["item"]["id"]
        return item_id

    async def respond(self, **response: Any) -> Event:
        """Ask for a response; return it when it is done."""
        before = len(self.of("response.done"))
        self.say("response.create", **({"response": response} if response else {}))
        done = await self.until("response.done", before + 1)
        found: Event = done["response"]
        return found

    async def error(self) -> Event:
        """Wait for an error that has not been waited for; return it."""
        event = await self.until("error", self._errors + 1)
        self._errors += 1
        found: Event = event["error"]
        return found

    _errors: int = 0

    def read(self, request: int = -1) -> list[tuple[str, Any]]:
        """What the model was asked: role and content of each message."""
        messages = self.model.requests[request].messages
        return [(str(message["role"]), message["content"]) for message in messages]
