"""A self-hosted FunASR runtime: streaming Paraformer for partial results, a second pass
for final ones.
"""

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated

from pydantic import Field

from voicechat.errors import FailureKind, ProviderError
from voicechat.providers.audio_feed import AudioFeed
from voicechat.providers.funasr_protocol import (
    END_MESSAGE,
    FRAME_MS,
    PROVIDER,
    FunASRTranscripts,
    StreamProgress,
    begin_message,
    ending,
    read_message,
)
from voicechat.providers.interfaces import RecognitionOptions, RecognizerProvider
from voicechat.providers.lookahead_audio import BYTES_PER_MS, LookaheadAudio
from voicechat.providers.websocket_link import (
    LinkLostError,
    WebSocketLink,
    checked_url,
    open_link,
    tls_for,
)
from voicechat.session.types import Transcript

FRAME_BYTES = FRAME_MS * BYTES_PER_MS
LINGER_S = 1.0
"""An older Python server may still be working on another sentence when it closes one
after the end of the audio.
"""
PING_S = 1.0


class FunASRRecognizer(RecognizerProvider):
    """A `SpeechRecognizer`. Each stream has its own connection."""

    def __init__(
        self,
        url: str,
        begin: str,
        *,
        connect_s: float,
        silence_s: float,
        tls: ssl.SSLContext | None,
    ) -> None:
        """``begin``: the message that opens a stream. ``silence_s``: limit between
        messages after the end of the audio.
        """
        self._url = url
        self._begin = begin
        self._connect_s = connect_s
        self._silence_s = silence_s
        self._tls = tls
        self._links: set[WebSocketLink] = set()
        self._closed = False

    async def probe(self) -> None:
        """Open and drop a connection. Raises `ProviderError` as `recognize` for
        connecting.
        """
        link = await self._open()
        self._links.discard(link)
        link.abort()

    async def aclose(self) -> None:
        """Close all connections; streams in progress fail."""
        self._closed = True
        for link in self._links:
            link.abort()

    async def recognize(
        self, audio: AsyncIterator[bytes], options: RecognitionOptions
    ) -> AsyncGenerator[Transcript, None]:
        """Recognise one stream. Connects when the first audio arrives.

        Raises `ProviderError`: TIMEOUT (connecting, silence after the end of the audio,
        audio not accepted), CONNECTIVITY (refused, closed, the server's own failures),
        REJECTED (certificate), BROKEN (protocol error). Exceptions of ``audio`` are
        passed on. Cancelling drops the connection.
        """
        pieces = LookaheadAudio(audio)
        try:
            if await pieces.ended():
                return
            link = await self._open()
            feeding = AudioFeed(self._feed(link, pieces), link.abort)
            sentences = FunASRTranscripts()
            try:
                while (text := await self._next(link, feeding, sentences)) is not None:
                    message = read_message(text)
                    if (transcript := sentences.read_message(message, pieces.taken_ms)) is not None:
                        yield transcript
                    if feeding.done:
                        outlook = ending(message)
                        if outlook is StreamProgress.OVER:
                            break
                        link.expect_within(
                            LINGER_S if outlook is StreamProgress.PERHAPS else self._silence_s
                        )
                if (transcript := sentences.finish_sentence(pieces.taken_ms)) is not None:
                    yield transcript
            except LinkLostError:
                feeding.raise_failure()
                raise
            finally:
                self._links.discard(link)
                link.abort()
                await feeding.stop()
        finally:
            await pieces.aclose()

    async def _open(self) -> WebSocketLink:
        if self._closed:
            raise ProviderError(PROVIDER, FailureKind.CONNECTIVITY, "closed")
        link = await open_link(
            PROVIDER,
            self._url,
            connect_s=self._connect_s,
            send_s=self._silence_s,
            # The Python server refuses clients that do not offer it.
            subprotocols=("binary",),
            tls=self._tls,
        )
        self._links.add(link)
        return link

    async def _feed(self, link: WebSocketLink, pieces: LookaheadAudio) -> None:
        await link.send(self._begin)
        held = b""
        while (pcm := await pieces.take_audio()) is not None:
            held += pcm
            whole_bytes = len(held) - len(held) % FRAME_BYTES
            for start in range(0, whole_bytes, FRAME_BYTES):
                await link.send(held[start : start + FRAME_BYTES])
                await asyncio.sleep(
                    0
                )  # let other sessions run while audio is available without waiting
            held = held[whole_bytes:]
        if held:
            await link.send(held)
        await link.send(END_MESSAGE)
        link.expect_within(self._silence_s)

    async def _next(
        self, link: WebSocketLink, feeding: AudioFeed, sentences: FunASRTranscripts
    ) -> str | None:
        """Return the next message, or None when the server has sent the last one."""
        try:
            message = await link.receive()
        except ProviderError as error:
            silent = (
                error.kind is FailureKind.TIMEOUT and feeding.done and not sentences.in_sentence
            )
            if silent and await link.answers(PING_S):
                return None  # it is alive: an older server sends nothing for silence
            raise
        if isinstance(message, bytes):
            raise ProviderError(PROVIDER, FailureKind.BROKEN, "binary data in answer to audio")
        return message


def open_recognizer(
    *,
    url: str = "ws://127.0.0.1:10095",
    hotwords: str = "",
    itn: bool = True,
    verify_tls: bool = True,
    connect_ms: Annotated[int, Field(ge=1)] = 3_000,
    read_timeout_ms: Annotated[int, Field(ge=1)] = 10_000,
) -> FunASRRecognizer:
    """Open the recogniser.

    ``hotwords``: in the server's form: ``'{"阿里巴巴": 20}'`` for the C++ server,
    comma-separated words for the Python one. ``itn``: write numbers as digits (C++).
    ``verify_tls``: false for FunASR's self-signed certificate. ``connect_ms``: limit
    for TCP, TLS and handshake. ``read_timeout_ms``: limit for the last results. Raises
    `ConfigError` for an unusable URL.
    """
    return FunASRRecognizer(
        checked_url("url", url),
        begin_message(hotwords, itn),
        connect_s=connect_ms / 1000,
        silence_s=read_timeout_ms / 1000,
        tls=tls_for(url, verify=verify_tls),
    )
