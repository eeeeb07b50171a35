"""A person with a microphone and a loudspeaker in one room, before a whole
conversation, in virtual time.

The voice detection is the real model, each frame judged as it comes instead of with
those of others; everything else of the server is as it runs. The person's side is a
duplex sound card: every 20 ms it plays what has come and records what sounds.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.voice.sounds import RATE_HZ, Samples, in_a_room, speak, to_pcm
from voicechat.client import (
    CanceledMessage,
    PlaybackBuffer,
    ReplyAudioMessage,
    ReplyTextMessage,
    ServerMessage,
    parse_message,
)
from voicechat.dialects.base import Connection
from voicechat.dialects.speech_chat.rules import SpeechChat
from voicechat.providers.interfaces import (
    AudioChunk,
    ChatModel,
    SpeechRecognizer,
    SpeechSynthesizer,
    VoiceOptions,
)
from voicechat.session.effects import SessionMetric
from voicechat.session.types import TurnDetection
from voicechat.testing.harness import ConversationHarness
from voicechat.testing.scripted import ScriptedModel, ScriptedRecognizer
from voicechat.testing.socket import MemorySocket, Sent
from voicechat.voice.detector import FrameScore, OnScore
from voicechat.voice.listener import Listener, StreamFrames, score
from voicechat.voice.silero import FRAME_BYTES, FRAME_MS, VoiceModel, find_model
from voicechat.voice.silero_network import open_silero

BLOCK_MS = 20
BLOCK_SAMPLES = RATE_HZ * BLOCK_MS // 1000
FORMAT = "PCM_16000HZ_MONO_16BIT"
ROOM_TONE_DB = -70
ROOM = in_a_room(np.eye(1, RATE_HZ * 150 // 1000)[0])
"""What a room makes of a click."""


class InlineDetector:
    """Judges each frame where it is pushed, and tells on the loop's next turn."""

    turn_judge = None
    background_db = 0.0

    def __init__(self) -> None:
        self.model = open_silero(find_model())

    def open_stream(self, on_score: OnScore) -> "InlineEar":
        return InlineEar(self.model, on_score)


class InlineEar:
    turn_open = False

    def __init__(self, model: VoiceModel, on_score: OnScore) -> None:
        self._model = model
        self._on_heard = on_score
        self._listener = Listener()
        self._pending = b""
        self._audio_ms = 0
        self._closed = False
        self._gap = False

    def push(self, pcm: bytes) -> None:
        self._pending += pcm
        while len(self._pending) >= FRAME_BYTES:
            frame, self._pending = self._pending[:FRAME_BYTES], self._pending[FRAME_BYTES:]
            self._audio_ms += FRAME_MS
            ((probability,),) = score(
                self._model, [StreamFrames(self._listener, (frame,), self._gap)]
            ).probabilities
            self._gap = False
            asyncio.get_running_loop().call_soon(
                self._tell, FrameScore(self._audio_ms, probability)
            )

    gather_ms = 0
    preferred_until_s = 0.0

    def note_gap(self, at_ms: int) -> None:
        self._gap = True

    def close(self) -> None:
        self._closed = True

    def _tell(self, heard: FrameScore) -> None:
        if not self._closed:
            self._on_heard(heard)


class SpokenSynthesizer:
    """Speaks with a real voice, in chunks of 100 ms, at once."""

    voices = ("en-us",)

    async def synthesize(self, text: str, voice: VoiceOptions) -> AsyncIterator[AudioChunk]:
        pcm = to_pcm(speak(text))
        for start in range(0, len(pcm), RATE_HZ // 5):
            yield AudioChunk(pcm[start : start + RATE_HZ // 5], RATE_HZ)


@dataclass(frozen=True, slots=True)
class Echo:
    """How the loudspeaker comes back into the microphone."""

    level_db: float
    delay_ms: int
    room: bool = True


@dataclass
class Stage:
    """One conversation. ``says`` puts sounds on the microphone's time line; ``at``
    waits for a time of it.
    """

    recognizer: SpeechRecognizer = field(default_factory=ScriptedRecognizer)
    model: ChatModel = field(default_factory=ScriptedModel)
    synthesizer: SpeechSynthesizer = field(default_factory=SpokenSynthesizer)
    detection: TurnDetection = field(default_factory=TurnDetection)
    echo: Echo | None = None
    report_every_ms: int | None = None
    jitter_ms: tuple[int, int] = (0, 0)
    """The loudspeaker starts a reply so much late: a uniform draw for each."""
    uplink_jitter_ms: int = 0
    """A block of the microphone takes up to so long to the server, in order."""
    interrupt_by_voice: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        self.socket = MemorySocket()
        self.facts: list[SessionMetric] = []
        self.mic_ms = 0
        self.played = np.zeros(0)
        self._random = np.random.default_rng(self.seed)
        self._voice = np.zeros(RATE_HZ * 120)
        self._parsed = 0
        self.messages: list[tuple[float, ServerMessage]] = []
        self._speaker = PlaybackBuffer(RATE_HZ)
        self._holds_ms = 0
        self._arrives_s = 0.0
        self._playing_id = ""
        self.muted_at_ms: int | None = None
        """From then on the microphone sends nothing."""

    @asynccontextmanager
    async def playing(self) -> AsyncIterator["Stage"]:
        harness = ConversationHarness(
            recognizer=self.recognizer,
            model=self.model,
            synthesizer=self.synthesizer,
            detector=InlineDetector(),
            interrupt_by_voice=self.interrupt_by_voice,
            dialect=SpeechChat(Connection(session_id="s")),
            socket=self.socket,
            facts=self.facts,
        )
        harness.send_frame(update(self.detection))
        async with harness, asyncio.TaskGroup() as tasks:
            card = tasks.create_task(self._sound_card())
            yield self
            card.cancel()

    # --- what the person does ---------------------------------------------------------

    def says(self, samples: Samples, at_ms: int) -> int:
        """Sound from ``at_ms`` of the microphone on; returns when it ends."""
        begin = at_ms * RATE_HZ // 1000
        self._voice[begin : begin + len(samples)] += samples
        return at_ms + len(samples) * 1000 // RATE_HZ

    async def at(self, mic_ms: int) -> None:
        while self.mic_ms < mic_ms:  # noqa: ASYNC110 - virtual time: polling costs nothing
            await asyncio.sleep(0.005)

    async def until(self, kind: type[ServerMessage], count: int = 1) -> int:
        """Wait for a message; returns when it was sent, in milliseconds of the
        microphone.
        """
        async with asyncio.timeout(60):
            while len(self.times(kind)) < count:  # noqa: ASYNC110 - virtual time
                await asyncio.sleep(0.001)
        return self.times(kind)[count - 1]

    def of(self, kind: type[Any]) -> list[Any]:
        self._read()
        return [message for _, message in self.messages if isinstance(message, kind)]

    def times(self, kind: type[Any]) -> list[int]:
        self._read()
        return [
            int((at_s - self._began_s) * 1000)
            for at_s, message in self.messages
            if isinstance(message, kind)
        ]

    # --- the sound card ---------------------------------------------------------------

    async def _sound_card(self) -> None:
        loop = asyncio.get_running_loop()
        self._began_s = loop.time()
        blocks = 0
        while True:
            blocks += 1
            await asyncio.sleep(self._began_s + blocks * BLOCK_MS / 1000 - loop.time())
            self._read()
            self._play()
            recorded = to_pcm(self._record((blocks - 1) * BLOCK_SAMPLES))
            if self.muted_at_ms is None or self.mic_ms < self.muted_at_ms:
                self._send(recorded)
            self.mic_ms = blocks * BLOCK_MS
            if self.report_every_ms and self.mic_ms % self.report_every_ms == 0:
                self._report()

    def _send(self, pcm: bytes) -> None:
        loop = asyncio.get_running_loop()
        late_s = self._random.uniform(0, self.uplink_jitter_ms / 1000)
        self._arrives_s = max(self._arrives_s + 1e-6, loop.time() + late_s)
        loop.call_at(self._arrives_s, self.socket.send_from_client, pcm)

    def _play(self) -> None:
        if self._holds_ms > 0:
            self._holds_ms -= BLOCK_MS
            pcm = bytes(2 * BLOCK_SAMPLES)
        else:
            pcm = self._speaker.take_audio(2 * BLOCK_SAMPLES)
        self.played = np.concatenate((self.played, np.frombuffer(pcm, "<i2").astype(np.float64)))

    def _record(self, begin: int) -> Samples:
        samples: Samples = self._voice[
            begin : begin + BLOCK_SAMPLES
        ] + self._random.standard_normal(BLOCK_SAMPLES) * (32768 * 10 ** (ROOM_TONE_DB / 20))
        if self.echo is not None:
            end = begin + BLOCK_SAMPLES - self.echo.delay_ms * RATE_HZ // 1000
            response = ROOM if self.echo.room else np.ones(1)
            wanted = BLOCK_SAMPLES + len(response) - 1
            played = self.played[max(0, end - wanted) : max(0, end)]
            echo = np.convolve(np.pad(played, (wanted - len(played), 0)), response, "valid")
            samples = samples + echo * 10 ** (self.echo.level_db / 20)
        return samples

    def _report(self) -> None:
        played = self._speaker.played
        if played is not None:
            report = {"event_type": "conversation.audio.played", "reply": int(played.reply_id)}
            self.socket.send_from_client(json.dumps({**report, "played_ms": played.played_ms}))

    @property
    def heard_ms(self) -> int:
        """Of the last reply, what the loudspeaker has really played."""
        return self._speaker.played.played_ms if self._speaker.played is not None else 0

    def _read(self) -> None:
        new: list[Sent] = self.socket.sent[self._parsed :]
        self._parsed = len(self.socket.sent)
        for sent in new:
            message = parse_message(sent.frame)
            if message is None:
                continue
            self.messages.append((sent.at_s, message))
            match message:
                case ReplyAudioMessage():
                    if message.reply_id != self._playing_id:
                        self._playing_id = message.reply_id
                        low_ms, high_ms = self.jitter_ms
                        self._holds_ms = int(self._random.integers(low_ms, high_ms + 1))
                    self._speaker.add_audio(message.payload, message.reply_id)
                case CanceledMessage():
                    self._speaker.clear()
                case _:
                    pass


def update(detection: TurnDetection) -> str:
    """The request for hands-free mode and binary audio."""
    settings = {
        "create_transcription_task_req": {
            "speech_recognition_param": {"format": "pcm", "sample_rate": RATE_HZ}
        },
        "chat_completion_with_voice_output_req": {
            "chat_completion_req": {"stream": True},
            "speech_synthesis_req": {"stream": True, "synthesis_param": {"format": FORMAT}},
        },
        "turn_detection": {
            "type": "server_vad",
            "min_interruption_ms": detection.min_interruption_ms,
            "min_interruption_words": detection.min_interruption_words,
            "silence_duration_ms": detection.silence_duration_ms,
        },
        "downlink": "binary",
    }
    return json.dumps({"event_type": "chat.update", "message": settings})


def reply_text(stage: Stage) -> str:
    return "".join(message.content for message in stage.of(ReplyTextMessage))
