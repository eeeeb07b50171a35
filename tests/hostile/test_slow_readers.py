"""A client that does not read is cut off; the other sessions do not notice."""

import asyncio
from pathlib import Path

import pytest

from tests.hostile.clients import (
    PING,
    RawClient,
    all_left,
    conversation,
    frame,
    live_server,
    scripted_services,
)
from voicechat.runtime.conversation import Conversation
from voicechat.session.events import Event, WriteStalled

pytestmark = pytest.mark.real_time

LIMITS = {"write_ms": 300, "close_ms": 400, "backlog_bytes": 4 * 1024 * 1024}
LONG_REPLY = tuple("This is a very long sentence of a very long reply. " for _ in range(200))
SLOW_MS = 1_000
"""Less than a client that does not read is waited for."""


async def ask_for_much(client: RawClient) -> None:
    """PCM at 48 kHz: more than the buffers of both ends can hold."""
    update = {
        "create_transcription_task_req": {},
        "chat_completion_with_voice_output_req": {
            "chat_completion_req": {},
            "speech_synthesis_req": {"synthesis_param": {"format": "PCM_48000HZ_MONO_16BIT"}},
        },
    }
    client.event("chat.update", message=update)
    assert (await client.until("chat.updated"))["status"] == 0
    client.event("conversation.message.create", role="user", content="Tell me everything.")


async def longest_ping_ms(client: RawClient, until: "asyncio.Task[None]") -> float:
    loop = asyncio.get_running_loop()
    longest_ms = 0.0
    while not until.done():
        begun_s = loop.time()
        await client.goes_on()
        longest_ms = max(longest_ms, (loop.time() - begun_s) * 1000)
        await asyncio.sleep(0.02)
    return longest_ms


async def test_a_client_that_never_reads_is_dropped_and_nobody_else_notices(tmp_path: Path) -> None:
    limits = {**LIMITS, "write_ms": 1_500}
    async with (
        live_server(tmp_path, scripted_services(LONG_REPLY), **limits) as server,
        conversation(server) as bystander,
        conversation(server, receive_buffer_bytes=4096) as client,
        asyncio.TaskGroup() as tasks,
    ):
        await ask_for_much(client)
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        dropped = tasks.create_task(all_left(server, 1))
        assert await longest_ping_ms(bystander, dropped) < SLOW_MS


async def test_a_client_that_reads_again_in_time_is_told_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits, stalled, post = {**LIMITS, "close_ms": 30_000}, asyncio.Event(), Conversation.post

    def note_and_post(self: Conversation, event: Event) -> None:
        if isinstance(event, WriteStalled):
            stalled.set()
        post(self, event)

    monkeypatch.setattr(Conversation, "post", note_and_post)
    async with (
        live_server(tmp_path, scripted_services(LONG_REPLY), **limits) as server,
        conversation(server, receive_buffer_bytes=4096) as client,
    ):
        await ask_for_much(client)
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        async with asyncio.timeout(120):
            await stalled.wait()
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert await client.closed() == 1013
        errors = [
            message["status"] for message in client.seen if message.get("event_type") == "error"
        ]
        assert errors == [40801]


async def test_a_client_that_pings_and_never_reads_its_pongs_is_dropped(tmp_path: Path) -> None:
    async with (
        live_server(tmp_path, None, **LIMITS) as server,
        conversation(server, receive_buffer_bytes=4096) as client,
        asyncio.TaskGroup() as tasks,
    ):
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        dropped = tasks.create_task(all_left(server, 0))
        pings = frame(PING, bytes(125)) * 1000
        while not dropped.done():
            client.write(pings)
            await asyncio.wait([dropped], timeout=0.01)
