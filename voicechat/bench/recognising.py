"""Measures whether recognition delays other sessions: the embedded recogniser under
load, and a conversation that sends pings.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import cycle

from voicechat.audio.resample import RateConverter
from voicechat.bench.figures import Spread, spread
from voicechat.bench.resource_usage import usage_of
from voicechat.bench.script import FRAME_MS
from voicechat.bench.server import EMBEDDED, BenchServer, bench_server
from voicechat.client import ClientConversation, PongMessage, recognise_stream
from voicechat.client.connection import open_socket, socket_url
from voicechat.client.conversation import CHAT_PATH
from voicechat.client.recognition import ClientRecognitionStream
from voicechat.providers.espeak import open_synthesizer
from voicechat.providers.interfaces import PCM_RATE_HZ, VoiceOptions

SPEECH = (
    "He was a gentleman of good fortune, and he had a great many friends in the county. "
    "Go forward ten meters."
)
FRAME_BYTES = PCM_RATE_HZ * 2 * FRAME_MS // 1000
PING_GAPS_MS = (10, 17, 12, 20, 14, 11, 19, 13)
"""Uneven, because a constant interval could always miss periodic stalls."""
LAST_PONGS_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RecognisingFigures:
    """The results of the bench."""

    streams: int
    seconds: float
    ping: Spread | None
    pings: int
    unanswered: int
    sentences: int
    """Final sentences of all streams, which prove that recognition took place."""
    server_cores: float | None
    """CPU time per second of the server and its child processes; None if this system
    does not report it.
    """

    @property
    def sound(self) -> bool:
        """Whether every ping was answered and the streams were recognised."""
        return not self.unanswered and self.sentences > 0


@dataclass(slots=True)
class _Pings:
    """Pings are sent on schedule whether or not the last one was answered, so that a
    stall delays every ping within it.
    """

    sent_s: deque[float] = field(default_factory=deque)
    took_ms: list[float] = field(default_factory=list)


async def bench_recognising(
    streams: int, seconds: float, pcm: bytes | None, on_second: Callable[[], None]
) -> RecognisingFigures:
    """Recognise ``streams`` streams of ``pcm`` (s16le mono 16 kHz; synthesised speech
    if None) for ``seconds``.

    Raises BenchError if the server does not start or stop, ConnectionLostError if it
    drops a connection.
    """
    speech = pcm or await synthesised(SPEECH)
    pings, sentences = _Pings(), 0
    loop = asyncio.get_running_loop()
    async with bench_server(EMBEDDED, None) as server:
        before, begun_s = usage_of(server.pid), loop.time()
        end_s = begun_s + seconds
        async with asyncio.TaskGroup() as tasks:
            streaming = [tasks.create_task(_stream(server, speech, end_s)) for _ in range(streams)]
            tasks.create_task(_ping(server, pings, end_s))
            for _ in range(round(seconds)):
                await asyncio.sleep(1)
                on_second()
            after, took_s = usage_of(server.pid), loop.time() - begun_s
        sentences = sum(task.result() for task in streaming)
    return RecognisingFigures(
        streams=streams,
        seconds=seconds,
        ping=spread(pings.took_ms),
        pings=len(pings.took_ms) + len(pings.sent_s),
        unanswered=len(pings.sent_s),
        sentences=sentences,
        server_cores=(after.cpu_s - before.cpu_s) / took_s if before and after else None,
    )


async def synthesised(text: str) -> bytes:
    """Synthesise ``text`` with the embedded synthesiser: s16le mono 16 kHz."""
    synthesizer = open_synthesizer()
    converter = RateConverter(PCM_RATE_HZ)
    try:
        chunks = [chunk async for chunk in synthesizer.synthesize(text, VoiceOptions())]
    finally:
        await synthesizer.aclose()
    return (
        b"".join(converter.push_audio(chunk.pcm, chunk.rate_hz) for chunk in chunks)
        + converter.finish_stream()
    )


async def _stream(server: BenchServer, pcm: bytes, end_s: float) -> int:
    """Stream the speech repeatedly in real time. Returns the number of recognised
    sentences.
    """
    async with (
        recognise_stream(server.url, key=server.key, heartbeat=True) as stream,
        asyncio.TaskGroup() as tasks,
    ):
        saying = tasks.create_task(_say(stream, pcm, end_s))
        sentences = sum([1 async for result in stream if result.final and result.text])
        await saying
    return sentences


async def _say(stream: ClientRecognitionStream, pcm: bytes, end_s: float) -> None:
    loop = asyncio.get_running_loop()
    due_s = loop.time()
    for start in cycle(range(0, len(pcm), FRAME_BYTES)):
        if due_s >= end_s:
            break
        await stream.send_audio(pcm[start : start + FRAME_BYTES])
        due_s += FRAME_MS / 1000
        await asyncio.sleep(due_s - loop.time())
    await stream.finish_audio()


async def _ping(server: BenchServer, pings: _Pings, end_s: float) -> None:
    # Not `connect`: its keep-alive pings would be counted as well.
    url = socket_url(
        server.url,
        CHAT_PATH,
        dict.fromkeys(("model", "asr_easyllm_id", "tts_easyllm_id"), "default"),
    )
    async with open_socket(url, server.key) as socket, asyncio.TaskGroup() as tasks:
        conversation = ClientConversation(socket)
        answers = tasks.create_task(_take_pongs(conversation, pings))
        await _send_pings(conversation, pings, end_s)
        await asyncio.wait([answers], timeout=LAST_PONGS_S if pings.sent_s else 0)
        answers.cancel()


async def _send_pings(conversation: ClientConversation, pings: _Pings, end_s: float) -> None:
    loop = asyncio.get_running_loop()
    due_s = loop.time()
    for gap_ms in cycle(PING_GAPS_MS):
        if due_s >= end_s:
            return
        pings.sent_s.append(loop.time())
        await conversation.ping()
        due_s += gap_ms / 1000
        await asyncio.sleep(due_s - loop.time())


async def _take_pongs(conversation: ClientConversation, pings: _Pings) -> None:
    loop = asyncio.get_running_loop()
    while True:
        if isinstance(await conversation.receive(), PongMessage):
            pings.took_ms.append((loop.time() - pings.sent_s.popleft()) * 1000)
