"""A conversation on a memory socket, with scripted services: what the runtime's tests
are played on.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.chained import chained_model, chained_voice
from voicechat.dialects.base import Connection
from voicechat.dialects.speech_chat.rules import SpeechChat
from voicechat.providers.interfaces import ChatModel, SpeechSynthesizer
from voicechat.runtime.conversation import Conversation, SessionProviders
from voicechat.runtime.encoding import EncodingThreads
from voicechat.session.apology import Apology
from voicechat.session.effects import Fact
from voicechat.session.limits import SessionLimits
from voicechat.session.session import Session
from voicechat.session.vocabulary import ChatSettings, Settings, VoiceSettings
from voicechat.testing.scripted import ScriptedModel, ScriptedRecognizer, ScriptedSynthesizer
from voicechat.testing.socket import MemorySocket

SILENCE_100_MS = bytes(3200)


@dataclass
class Stage:
    recognizer: ScriptedRecognizer = field(default_factory=ScriptedRecognizer)
    model: ScriptedModel = field(default_factory=ScriptedModel)
    synthesizer: ScriptedSynthesizer = field(default_factory=ScriptedSynthesizer)
    limits: SessionLimits = field(default_factory=SessionLimits)
    output: str = "PCM_16000HZ_MONO_16BIT"
    lead_ms: int | None = None
    answers_tools: bool = False
    apology: Apology | None = None
    chained: bool = False
    """Model and synthesiser are chains of one, as configured services are: only chains
    time a service.
    """
    poll_s: float = 0.001
    """How exactly ``until`` sees when something came."""
    facts: list[Fact] = field(default_factory=list)
    socket: MemorySocket = field(default_factory=MemorySocket)

    @asynccontextmanager
    async def playing(self) -> AsyncIterator["Stage"]:
        """Run the conversation; at the end the client vanishes, and nothing may be
        left.
        """
        before = asyncio.all_tasks()
        settings = Settings(
            voice=VoiceSettings(format=self.output),
            lead_ms=self.lead_ms,
            chat=ChatSettings(answers_tools=self.answers_tools),
        )
        conversation = Conversation(
            Session(settings, self.limits, apology=self.apology),
            SpeechChat(Connection(session_id="s")),
            self.socket,
            self.cast(),
            limits=self.limits,
            observe=self.facts.append,
        )
        running = asyncio.get_running_loop().create_task(conversation.run())
        try:
            await asyncio.sleep(0)
            yield self
        finally:
            self.socket.disconnect()
            async with asyncio.timeout(2):
                await running
        assert asyncio.all_tasks() == before, "no task outlives its session"
        assert self.open_streams == 0, "no stream outlives it"

    def cast(self) -> SessionProviders:
        """Who serves the conversation."""
        model: ChatModel = self.model
        synthesizer: SpeechSynthesizer = self.synthesizer
        if self.chained:
            model = chained_model(model, self.limits)
            synthesizer = chained_voice(synthesizer, self.limits)
        return SessionProviders(
            recognizer=self.recognizer,
            models=lambda _: model,
            synthesizer=synthesizer,
            threads=EncodingThreads(),
        )

    @property
    def open_streams(self) -> int:
        """Of all providers."""
        return self.recognizer.open + self.model.open + self.synthesizer.open

    def say(self, event_type: str, **more: object) -> None:
        self.socket.send_from_client(json.dumps({"event_type": event_type, **more}))

    def speak(self, length_ms: int = 300) -> None:
        for _ in range(length_ms // 100):
            self.socket.send_from_client(SILENCE_100_MS)

    async def until(self, kind: str, count: int = 1) -> dict[str, Any]:
        """Wait until ``count`` messages of ``kind`` have been sent; give the last of
        them.
        """
        async with asyncio.timeout(100):
            while len(self.of(kind)) < count:  # noqa: ASYNC110 - virtual time: polling costs nothing
                await asyncio.sleep(self.poll_s)
        return self.of(kind)[count - 1]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in self.messages if kind_of(message) == kind]

    @property
    def messages(self) -> list[dict[str, Any]]:
        return [json.loads(sent.frame) for sent in self.socket.sent]

    @property
    def kinds(self) -> list[str]:
        return [kind_of(message) for message in self.messages]


def kind_of(message: dict[str, Any]) -> str:
    if "event_type" in message:
        return str(message["event_type"])
    if "is_sentence_end" in message:
        return "asr-final" if message["is_sentence_end"] else "asr"
    if "choices" in message:
        return "text-end" if message["choices"][0].get("finish_reason") else "text"
    return "audio" if message["status"] == "accepting" else "audio-end"
