"""Connections that are cut between a client and a whole server: what comes back, and
what is not lost.
"""

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.client.cutting_proxy import cutting_proxy
from tests.rest.live import KEY, serving_live
from voicechat.client import (
    Backoff,
    CompletedMessage,
    ConnectionLostError,
    Reconnected,
    TurnCompletedMessage,
    UpdatedMessage,
    chat_settings,
    resuming,
    stay_connected,
    stay_recognising,
)
from voicechat.client.resuming import RetransmitBuffer
from voicechat.errors import AdmissionError
from voicechat.providers.interfaces import RecognitionOptions
from voicechat.session.types import Transcript

pytestmark = pytest.mark.real_time

QUICK = Backoff(first_s=0.01, longest_s=0.05, give_up_s=5.0)
BLOCK_BYTES = 3200


def digest(block: bytes) -> str:
    return hashlib.sha256(block).hexdigest()[:12]


class DigestRecognizer:
    """Says of each tenth of a second of audio what it was: a byte lost or doubled shows
    in all the rest.
    """

    async def recognize(
        self, audio: AsyncIterator[bytes], options: RecognitionOptions
    ) -> AsyncIterator[Transcript]:
        heard, position_ms = bytearray(), 0
        async for piece in audio:
            heard += piece
            while len(heard) >= BLOCK_BYTES:
                yield Transcript(digest(bytes(heard[:BLOCK_BYTES])), position_ms, position_ms + 100)
                del heard[:BLOCK_BYTES]
                position_ms += 100


@pytest.mark.parametrize("seed", [1, 2])
async def test_no_audio_and_no_result_is_lost_or_doubled_however_often_the_connection_is_cut(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resuming, "PING_EVERY_BYTES", 8_000)
    monkeypatch.setattr(resuming, "KEPT_BYTES", 30_000)
    chance = random.Random(seed)
    blocks = [chance.randbytes(BLOCK_BYTES) for _ in range(120)]
    async with (
        serving_live(tmp_path, recognizer=DigestRecognizer()) as live,
        cutting_proxy(live.url) as proxy,
        stay_recognising(proxy.url, key=KEY, heartbeat=True, backoff=QUICK) as stream,
        asyncio.TaskGroup() as tasks,
    ):

        async def speak() -> None:
            for block in blocks:
                cut = chance.randrange(BLOCK_BYTES)
                await stream.send_audio(block[:cut])
                await stream.send_audio(block[cut:])
                await asyncio.sleep(0)
            await stream.finish_audio()

        _ = tasks.create_task(speak())
        results: list[str] = []
        async with asyncio.timeout(120):
            async for result in stream:
                results.append(result.text)
                # Cut in the middle of the audio; what follows the end of the audio is
                # the server's to keep.
                if len(results) < 100 and chance.random() < 0.1:
                    proxy.cut()
        assert results == [digest(block) for block in blocks]
        assert proxy.connections > 3


async def test_a_session_that_the_server_has_forgotten_is_said(tmp_path: Path) -> None:
    async with (
        serving_live(tmp_path, recognizer=DigestRecognizer(), limits={"resume_ms": 1}) as live,
        cutting_proxy(live.url) as proxy,
        stay_recognising(proxy.url, key=KEY, backoff=Backoff(first_s=0.2, give_up_s=5)) as stream,
    ):
        await stream.send_audio(bytes(2 * BLOCK_BYTES))
        _ = await anext(stream)
        proxy.cut()
        with pytest.raises(ConnectionLostError, match="forgotten"):
            _ = [result async for result in stream]
        with pytest.raises(ConnectionLostError, match="forgotten"):
            await stream.send_audio(b"\0\0")


async def test_a_stream_that_is_refused_is_not_tried_again(tmp_path: Path) -> None:
    async with serving_live(tmp_path) as live, cutting_proxy(live.url) as proxy:
        with pytest.raises(ConnectionLostError, match="a valid key"):
            async with stay_recognising(proxy.url, key="wrong", backoff=QUICK):
                raise AssertionError("must not be entered")
        assert proxy.connections == 1


def test_unproved_audio_is_kept_by_the_piece_and_read_by_the_byte() -> None:
    audio = RetransmitBuffer()
    for piece in (b"abc", b"de", b"fgh"):
        audio.append(piece)
    assert [audio.audio_from(position) for position in (0, 2, 3, 7, 8)] == [
        b"abc",
        b"c",
        b"de",
        b"h",
        b"",
    ]
    audio.drop_before(4)
    assert (audio.start, audio.end, audio.audio_from(4)) == (3, 8, b"e")
    audio.drop_before(8)
    assert (audio.start, audio.audio_from(8)) == (8, b"")


async def test_a_conversation_comes_back_configured_as_before(tmp_path: Path) -> None:
    settings = chat_settings(output_format="WAV_16000HZ_MONO_16BIT", voice="scripted")
    async with (
        serving_live(tmp_path) as live,
        cutting_proxy(live.url) as proxy,
        stay_connected(proxy.url, key=KEY, backoff=QUICK) as conversation,
    ):
        await conversation.update(settings)
        assert isinstance(await anext(conversation), UpdatedMessage)
        for _ in range(2):
            proxy.cut()
            assert await anext(conversation) == Reconnected()
            updated = await anext(conversation)
            assert isinstance(updated, UpdatedMessage)
            assert updated.granted
        await conversation.send_audio(bytes(6400))
        await conversation.complete()
        kinds = []
        async for message in conversation:
            kinds.append(type(message))
            if isinstance(message, TurnCompletedMessage):
                break
        assert CompletedMessage in kinds
        assert proxy.connections == 3


async def test_what_is_sent_without_a_connection_is_dropped_and_giving_up_is_said(
    tmp_path: Path,
) -> None:
    async with (
        serving_live(tmp_path) as live,
        cutting_proxy(live.url) as proxy,
        stay_connected(
            proxy.url, key=KEY, backoff=Backoff(first_s=0.01, longest_s=0.02, give_up_s=0.3)
        ) as conversation,
    ):
        proxy.is_down = True
        proxy.cut()
        sent: list[int] = []

        async def speak() -> None:
            while True:
                await conversation.send_audio(bytes(640))
                sent.append(640)
                await asyncio.sleep(0.001)

        with pytest.raises(ConnectionLostError):
            await speak()
        assert len(sent) > 10
        with pytest.raises(ConnectionLostError):
            await anext(conversation)
        assert proxy.connections > 3


async def test_a_conversation_that_is_refused_is_not_tried_again(tmp_path: Path) -> None:
    async with serving_live(tmp_path) as live, cutting_proxy(live.url) as proxy:
        with pytest.raises(AdmissionError, match="a valid key"):
            async with stay_connected(proxy.url, key="wrong", backoff=QUICK):
                raise AssertionError("must not be entered")
        assert proxy.connections == 1


async def test_a_key_that_was_revoked_meanwhile_ends_the_attempts(tmp_path: Path) -> None:
    async with serving_live(tmp_path) as live, cutting_proxy(live.url) as proxy:
        record, key = live.store.create_key("a")
        async with stay_connected(proxy.url, key=key, backoff=QUICK) as conversation:
            live.store.revoke_key(record.id)
            proxy.cut()
            with pytest.raises(AdmissionError, match="a valid key"):
                await anext(conversation)
        assert proxy.connections == 2


async def test_an_error_inside_the_context_comes_out_as_itself(tmp_path: Path) -> None:
    async with serving_live(tmp_path) as live:
        with pytest.raises(LookupError):
            async with stay_connected(live.url, key=KEY):
                raise LookupError("of the caller")
        with pytest.raises(LookupError):
            async with stay_recognising(live.url, key=KEY):
                raise LookupError("of the caller")


def test_waits_grow_to_a_bound_and_differ() -> None:
    backoff = Backoff(first_s=1.0, longest_s=8.0)
    for failures, whole_s in ((0, 1.0), (1, 2.0), (3, 8.0), (10_000, 8.0)):
        waits = {backoff.wait_s(failures) for _ in range(20)}
        assert all(whole_s / 2 <= wait_s <= whole_s for wait_s in waits)
        assert len(waits) > 1
