"""RTVI over the dialect, in virtual time."""

import base64
import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.openai_realtime.client import LoudDetector
from voicechat.dialects.base import Connection
from voicechat.dialects.rtvi.endpoint import RTVIEndpoint
from voicechat.dialects.rtvi.frames import RawAudio, read_frame, write_audio, write_message
from voicechat.errors import RemoteProtocolError
from voicechat.session.agent import Agent
from voicechat.session.types import ToolCall
from voicechat.testing.harness import ScriptedHarness
from voicechat.testing.scripted import ScriptedModel, ScriptedRecognizer

Message = dict[str, Any]


@dataclass(kw_only=True)
class RTVIStage:
    model: ScriptedModel = field(default_factory=ScriptedModel)
    agent: Agent = field(default_factory=Agent)
    binary: bool = False
    harness: ScriptedHarness = field(init=False)

    async def __aenter__(self) -> "RTVIStage":
        connection = Connection(session_id="s", agent=self.agent, epoch_s=1_790_000_000)
        opening = RTVIEndpoint().open(connection)
        self.harness = ScriptedHarness(
            model=self.model,
            recognizer=ScriptedRecognizer(("what time is it",)),
            dialect=opening.dialect,
            settings=opening.settings,
            agent=self.agent,
            detector=LoudDetector(),
        )
        await self.harness.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self.harness.__aexit__(*error)

    def say(self, kind: str, **data: Any) -> None:
        text = json.dumps({"label": "rtvi-ai", "type": kind, "id": kind, "data": data})
        self.harness.send_frame(write_message(text) if self.binary else text)

    @property
    def messages(self) -> list[Message]:
        read = [f if isinstance(f, str) else read_frame(f) for f in self.harness.frames]
        return [json.loads(each) for each in read if isinstance(each, str)]

    @property
    def audio(self) -> list[RawAudio]:
        read = [read_frame(f) for f in self.harness.frames if isinstance(f, bytes)]
        return [each for each in read if isinstance(each, RawAudio)]

    def of(self, kind: str) -> list[Message]:
        return [message for message in self.messages if message["type"] == kind]

    async def until(self, kind: str, count: int = 1) -> Message:
        await self.harness.until(lambda: len(self.of(kind)) >= count)
        return self.of(kind)[count - 1]

    async def ready(self) -> None:
        self.say("client-ready", version="2.1.0", about={"library": "test"})
        await self.until("bot-ready")

    async def talk(self, length_ms: int, *, silence: bool = False) -> None:
        import asyncio

        pcm = (b"\0\0" if silence else b"\0\1") * 1600
        for _ in range(length_ms // 100):
            if self.binary:
                self.harness.send_frame(write_audio(pcm, 16_000))
            else:
                audio = base64.b64encode(pcm).decode()
                self.say("raw-audio", base64Audio=audio, sampleRate=16_000, numChannels=1)
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("binary", [False, True])
async def test_a_hands_free_turn(binary: bool) -> None:
    async with RTVIStage(binary=binary) as stage:
        await stage.ready()
        assert stage.of("bot-ready")[0]["data"]["version"].startswith("2.")
        assert stage.of("bot-ready")[0]["id"] == "client-ready"
        await stage.talk(1200)
        await stage.talk(4000, silence=True)
        await stage.until("bot-stopped-speaking")
        kinds = [message["type"] for message in stage.messages]
        wanted = [
            "user-started-speaking",
            "user-stopped-speaking",
            "user-llm-text",
            "bot-llm-started",
            "bot-llm-text",
            "bot-llm-stopped",
            "bot-tts-started",
            "bot-started-speaking",
            "bot-tts-stopped",
            "bot-stopped-speaking",
        ]
        found = [kind for kind in dict.fromkeys(kinds) if kind in wanted]
        assert set(found) == set(wanted)
        assert found[:4] == wanted[:4]
        assert found[-2:] == wanted[-2:]
        spoken = [message["data"]["text"] for message in stage.of("bot-tts-text")]
        assert spoken == ["Hello there.", "How are you?"]
        final = [m["data"] for m in stage.of("user-transcription") if m["data"]["final"]]
        assert [data["text"] for data in final] == ["what time is it"]
        if binary:
            assert {audio.sample_rate_hz for audio in stage.audio} == {24_000}
            assert sum(len(audio.pcm) for audio in stage.audio) >= 24 * 50 * 48
        else:
            assert stage.of("bot-tts-audio")


async def test_the_voice_interrupts() -> None:
    model = ScriptedModel((("This is a long story that goes on and on and on.",), ("Yes.",)))
    async with RTVIStage(model=model, agent=Agent(greeting="Hello! How can I help you?")) as stage:
        await stage.ready()
        await stage.until("bot-started-speaking")
        await stage.talk(600)
        await stage.until("bot-interrupted")
        kinds = [message["type"] for message in stage.messages]
        assert kinds.index("bot-stopped-speaking") < kinds.index("bot-interrupted")
        assert kinds.index("user-started-speaking") > kinds.index("bot-started-speaking")


async def test_texts_context_and_silence() -> None:
    async with RTVIStage() as stage:
        await stage.ready()
        stage.say("append-to-context", role="system", content="Be brief.")
        stage.say("send-text", content="hello", options={"audio_response": False})
        await stage.until("bot-llm-stopped")
        read = [(m["role"], m["content"]) for m in stage.model.requests[-1].messages]
        assert read == [("system", "Be brief."), ("user", "hello")]
        assert not stage.of("bot-started-speaking")
        stage.say("send-text", content="loud", options={"run_immediately": False})
        stage.say("send-text", content="now")
        await stage.until("bot-started-speaking")


LAMP = {"name": "lamp", "description": "A lamp.", "parameters": {"type": "object"}}


async def test_the_client_carries_out_a_function() -> None:
    agent = Agent(client_tools=({"type": "function", "function": LAMP},))
    calls = (ToolCall(0, "call_a", "lamp", '{"on": '), ToolCall(0, None, None, "true}"))
    model = ScriptedModel((calls, ("There is light.",), calls))
    async with RTVIStage(agent=agent, model=model) as stage:
        await stage.ready()
        stage.say("send-text", content="light please")
        asked = (await stage.until("llm-function-call-in-progress"))["data"]
        call_id = asked["tool_call_id"]
        assert (asked["function_name"], asked["arguments"]) == ("lamp", {"on": True})
        result = {"function_name": "lamp", "arguments": {}, "result": {"on": True}}
        stage.say("llm-function-call-result", tool_call_id="unknown", **result)
        assert (await stage.until("error-response"))["id"] == "llm-function-call-result"
        stage.say("llm-function-call-result", tool_call_id=call_id, **result)
        stopped = (await stage.until("llm-function-call-stopped"))["data"]
        assert (stopped["cancelled"], stopped["result"]) == (False, {"on": True})
        await stage.until("bot-stopped-speaking")
        assert stage.of("bot-tts-text")[0]["data"]["text"] == "There is light."
        assert stage.model.requests[-1].messages[-1]["content"] == '{"on":true}'
        stage.say("send-text", content="again")
        await stage.until("llm-function-call-in-progress", 2)
        stage.say("send-text", content="never mind")
        assert (await stage.until("llm-function-call-stopped", 2))["data"]["cancelled"]


async def test_what_is_wrong_is_answered() -> None:
    async with RTVIStage() as stage:
        stage.say("nonsense")
        assert (await stage.until("error-response"))["id"] == "nonsense"
        stage.say("client-message", t="order", d={})
        await stage.until("error-response", 2)
        stage.say("raw-audio", base64Audio="*", sampleRate=16_000, numChannels=1)
        await stage.until("error-response", 3)
        stage.harness.send_frame("{}")
        await stage.until("error")
        stage.say("client-ready", version="3.0.0")
        assert (await stage.until("error", 2))["data"]["fatal"]
        await stage.harness.until(lambda: stage.harness.socket.closed_with)


@pytest.mark.parametrize("frame", [b"\x12\xff", b"\x0b", b"\xff" * 12, b"\x22\x03\x0a\x01\xff"])
def test_no_bytes_are_read_as_a_frame_that_is_none(frame: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        read_frame(frame)
