"""Fake providers that yield what a test puts into their queues, and a player of golden
transcripts on the real runtime.

The results that a transcript scripts for recogniser, model and synthesiser reach the
session through the runtime's own streams, reply tasks and outbox. Times are virtual
(``VirtualTimeLoop``).
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, TypeVar

from voicechat.audio.encode import Encoder, Packets, open_encoder
from voicechat.audio.formats import OutputFormat, parse_output_format
from voicechat.errors import FailureKind, ProviderError
from voicechat.providers.interfaces import (
    AudioChunk,
    ChatRequest,
    RecognitionOptions,
    ReplyFinished,
    ReplyPart,
    TextDelta,
    VoiceOptions,
)
from voicechat.runtime.audio_input import shifted
from voicechat.runtime.encoding import EncodingThreads
from voicechat.session.events import DrainRequested, Transcribed
from voicechat.session.types import Transcript
from voicechat.testing.harness import ConversationHarness
from voicechat.testing.scripted import BYTES_PER_MS
from voicechat.testing.socket import MemorySocket
from voicechat.testing.transcripts import (
    AUDIO_RATE_HZ,
    GoldenTranscript,
    Line,
    client_frame,
    normalised,
    open_machine,
    recognition_event,
    speech_event,
    tool_call,
)
from voicechat.voice.detector import FrameScore, OnScore

T = TypeVar("T")

_Items = asyncio.Queue[T | ProviderError | None]


async def _items_of(items: "_Items[T]") -> AsyncIterator[T]:
    """Yield the items of the queue. None ends the iteration; an error is raised."""
    while (item := await items.get()) is not None:
        if isinstance(item, ProviderError):
            raise item
        yield item


class QueuedRecognizer:
    """Stream N, counted from 1, yields the items of ``items[N]``. ``opened`` is called
    with N when the stream begins.
    """

    def __init__(self, opened: Callable[[int], None] = lambda stream: None) -> None:
        self.items: defaultdict[int, _Items[Transcript]] = defaultdict(asyncio.Queue)
        self._on_open = opened
        self._opened = 0

    def recognize(
        self, audio: AsyncIterator[bytes], options: RecognitionOptions
    ) -> AsyncIterator[Transcript]:
        """Begin the next stream. The audio is not read."""
        self._opened += 1
        self._on_open(self._opened)
        return _items_of(self.items[self._opened])


class QueuedModel:
    """Reply N, counted from 1, yields the items of ``items[N]``. A request that ends
    with a tool's answer continues reply N.
    """

    def __init__(self) -> None:
        self.items: defaultdict[int, _Items[ReplyPart]] = defaultdict(asyncio.Queue)
        self.requests: list[ChatRequest] = []
        self.replies = 0

    def reply(self, request: ChatRequest) -> AsyncIterator[ReplyPart]:
        """Begin the next reply, or continue the last one after a tool's answer."""
        self.requests.append(request)
        self.replies += request.messages[-1]["role"] != "tool"
        return _items_of(self.items[self.replies])


class QueuedSynthesizer:
    """Sentence S of reply N yields the items of ``items[N, S]``."""

    def __init__(self, model: QueuedModel) -> None:
        self.items: defaultdict[tuple[int, int], _Items[AudioChunk]] = defaultdict(asyncio.Queue)
        self._model = model
        self._sentences: defaultdict[int, int] = defaultdict(int)

    @property
    def voices(self) -> tuple[str, ...]:
        """The only voice."""
        return ("directed",)

    def synthesize(self, text: str, voice: VoiceOptions) -> AsyncIterator[AudioChunk]:
        """Begin the next sentence of the current reply."""
        reply = self._model.replies
        sentence = self._sentences[reply]
        self._sentences[reply] += 1
        return _items_of(self.items[reply, sentence])


class NoEncoding(EncodingThreads):
    """Passes samples through unencoded, without threads, so that the length of the
    audio is known in any requested format.
    """

    async def open(self, audio_format: OutputFormat) -> Encoder:
        """Return any encoder: it is never used."""
        return open_encoder(parse_output_format("PCM_16000HZ_MONO_16BIT"))

    async def encode(
        self, encoder: Encoder, pieces: Sequence[bytes], rate_hz: int, *, at_once: bool = False
    ) -> list[Packets]:
        """Return the samples, without the zero padding that only encoders need."""
        return [(pcm,) if any(pcm) else () for pcm in pieces]

    async def finish_encoder(self, encoder: Encoder) -> Packets:
        """Return nothing: no samples are buffered."""
        return ()


class SilentDetector:
    """Detects no speech: the transcript scripts the speech events."""

    turn_judge = None
    background_db = 0.0

    def open_stream(self, on_score: OnScore) -> "SilentStream":
        """Return a stream that reports silence."""
        return SilentStream(on_score)


class SilentStream:
    """Judges all audio to be silence, on the loop's next turn."""

    turn_open = False
    gather_ms = 0
    preferred_until_s = 0.0

    def __init__(self, on_score: OnScore) -> None:
        self._on_score = on_score
        self._bytes = 0
        self._closed = False

    def push(self, pcm: bytes) -> None:
        """Take audio."""
        self._bytes += len(pcm)
        judged = FrameScore(self._bytes // BYTES_PER_MS, 0.0)
        asyncio.get_running_loop().call_soon(self._tell, judged)

    def _tell(self, judged: FrameScore) -> None:
        if not self._closed:
            self._on_score(judged)

    def note_gap(self, at_ms: int) -> None:
        """Go on at ``at_ms``."""
        self._bytes = at_ms * BYTES_PER_MS

    def close(self) -> None:
        """Report nothing more."""
        self._closed = True


async def play_on_runtime(golden: GoldenTranscript) -> list[Line]:
    """Play the stimuli against a new conversation. Returns what the server sent, in the
    form of ``in_order``.
    """
    player = _RuntimePlayer(golden)
    async with player.harness:
        for line in golden.stimuli:
            await player.wait_until(int(line["at_ms"]))
            player.do(line)
            await asyncio.sleep(0)
    return player.followed


class _RuntimePlayer:
    def __init__(self, golden: GoldenTranscript) -> None:
        machine, dialect = open_machine(golden)
        self._recognizer, self._model = QueuedRecognizer(self._note_stream), QueuedModel()
        self._synthesizer = QueuedSynthesizer(self._model)
        self.harness = ConversationHarness(
            recognizer=self._recognizer,
            model=self._model,
            synthesizer=self._synthesizer,
            threads=NoEncoding(),
            detector=SilentDetector(),
            machine=machine,
            dialect=dialect,
            limits=golden.limits,
            socket=MemorySocket(answers_pings=False),
        )
        self._last_done = _last_done(golden)
        self._began_s = asyncio.get_running_loop().time()
        self._audio_ms = 0
        self._last_frame_ms = 0
        self._stream_began_ms: dict[int, int] = {}
        self._speech_from_ms: int | None = None
        """Hands-free: where the audio of the next recogniser stream begins."""

    @property
    def followed(self) -> list[Line]:
        """What the server sent, in the form of ``in_order``."""
        lines: list[Line] = [
            {"server": normalised(sent.frame)} for sent in self.harness.socket.sent
        ]
        if self.harness.socket.closed_with is not None:
            lines.append({"close": self.harness.socket.closed_with[0]})
        return in_order(lines)

    async def wait_until(self, at_ms: int) -> None:
        """Sleep until ``at_ms`` of virtual time, then run everything that is due."""
        delay_s = self._began_s + at_ms / 1000 - asyncio.get_running_loop().time()
        await asyncio.sleep(max(0.0, delay_s))
        for _ in range(20):
            await asyncio.sleep(0)

    def do(self, line: Line) -> None:
        """Apply one stimulus."""
        frame = client_frame(line)
        if frame is not None:
            self._last_frame_ms = int(line.get("client_audio_ms", 0)) or self._last_frame_ms
            self._audio_ms += int(line.get("client_audio_ms", 0))
            self.harness.socket.send_from_client(frame)
        elif "asr" in line:
            self._hear(line["asr"])
        elif "voice" in line:
            event = speech_event(line["voice"])
            self._speech_from_ms = event.at_ms
            self.harness.conversation.post(event)
        elif "llm" in line:
            self._think(line["llm"])
        elif "tts" in line:
            self._speak(line["tts"])
        elif "server_drain_ms" in line:
            deadline_ms = self.harness.conversation.now_ms + int(line["server_drain_ms"])
            self.harness.conversation.post(DrainRequested(deadline_ms))
        elif "disconnect" in line:
            self.harness.socket.disconnect()

    def _note_stream(self, stream: int) -> None:
        frame_began_ms = self._audio_ms - self._last_frame_ms
        self._stream_began_ms[stream] = (
            frame_began_ms if self._speech_from_ms is None else self._speech_from_ms
        )

    def _hear(self, said: Mapping[str, Any]) -> None:
        items = self._recognizer.items[int(said["stream"])]
        event = recognition_event(said)
        if isinstance(event, Transcribed):
            # A transcript has times of the connection, a recogniser those of its
            # stream.
            items.put_nowait(shifted(event.transcript, -self._stream_began_ms.get(event.stream, 0)))
        else:
            items.put_nowait(_failure(said) if "failed" in said else None)

    def _think(self, said: Mapping[str, Any]) -> None:
        items = self._model.items[int(said["reply"])]
        if "failed" in said:
            items.put_nowait(_failure(said))
        elif "finish" in said:
            items.put_nowait(ReplyFinished(said["finish"]))
            items.put_nowait(None)
        elif "tool_call" in said:
            items.put_nowait(tool_call(said["tool_call"]))
        else:
            items.put_nowait(TextDelta(said["text"]))

    def _speak(self, said: Mapping[str, Any]) -> None:
        reply = int(said["reply"])
        sentence = int(said.get("sentence", self._last_done.get(reply, 0)))
        items = self._synthesizer.items[reply, sentence]
        if "failed" in said:
            items.put_nowait(_failure(said))
        elif said.get("ended"):
            items.put_nowait(None)
        elif said.get("done"):
            # The runtime ends a reply's audio with its last sentence; a transcript
            # names the two apart.
            if sentence != self._last_done.get(reply):
                items.put_nowait(None)
        else:
            samples = int(said["audio_ms"]) * AUDIO_RATE_HZ // 1000
            items.put_nowait(AudioChunk(b"\x01\x01" * samples, AUDIO_RATE_HZ))


def in_order(lines: list[Line]) -> list[Line]:
    """Remove times and the model's requests from lines, and merge consecutive audio of
    a reply.

    A latency report does not separate audio: it follows the first audio, whose length
    depends on the runtime.
    """
    joined: list[Line] = []
    for line in lines:
        if "model_asked" in line:
            continue
        timeless = {key: value for key, value in line.items() if key != "at_ms"}
        before = len(joined) - 1
        if (
            before > 0
            and joined[before].get("server", {}).get("event_type") == "conversation.chat.latency"
        ):
            before -= 1
        message, last = timeless.get("server"), joined[before].get("server") if joined else None
        if message and last and "audio_ms" in message and "audio_ms" in last:
            joined[before] = {
                "server": {**last, "audio_ms": last["audio_ms"] + message["audio_ms"]}
            }
        else:
            joined.append(timeless)
    return joined


def _last_done(golden: GoldenTranscript) -> dict[int, int]:
    """For each reply, the number of its last sentence."""
    said = [line["tts"] for line in golden.stimuli if "tts" in line]
    return {int(line["reply"]): int(line["sentence"]) for line in said if line.get("done")}


def _failure(said: Mapping[str, Any]) -> ProviderError:
    kind = FailureKind.CONNECTIVITY if said.get("retryable") else FailureKind.BROKEN
    return ProviderError("directed", kind, "as the transcript says")
