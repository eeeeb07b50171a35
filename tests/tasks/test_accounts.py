"""What a key pays for transcription, and what happens when something fails for a
moment.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.tasks.transcription_server import (
    NON_STREAM,
    TASKS,
    Rules,
    Server,
    form,
    transcription_server,
    wav,
)
from voicechat.errors import FailureKind, RemoteProtocolError, Status
from voicechat.processes.errors import WorkerLostError
from voicechat.processes.forked import ForkedStream, ForkServer
from voicechat.runtime.decoding import DecoderLostError, decode_file
from voicechat.server.rest import recognising
from voicechat.store.access import Quota
from voicechat.testing.scripted import Failure, ScriptedRecognizer

pytestmark = pytest.mark.real_time

DATA = {"easyllm_id": "default"}


@pytest.fixture
async def server(tasks_folder: Path, request: pytest.FixtureRequest) -> AsyncIterator[Server]:
    async with transcription_server(tasks_folder, getattr(request, "param", Rules())) as running:
        yield running


@pytest.mark.parametrize("server", [Rules(quota=Quota(audio_seconds_per_day=5))], indirect=True)
async def test_recordings_draw_on_the_audio_of_their_key_once_and_every_channel_of_them(
    server: Server,
) -> None:
    async def submit(seconds: float, name: str) -> tuple[int, dict[str, object]]:
        content = form(data=DATA, audio_file=wav(seconds, channels=2))
        return await server.ask("POST", TASKS, data=content, headers={"Idempotency-Key": name})

    account = server.accounts.account_of("alice", Quota(audio_seconds_per_day=5))
    for _ in range(2):  # the second is the same task, and costs nothing
        status, made = await submit(1.0, "one")
        assert status == 200
        await server.finished(str(made["taskId"]))
    account.use_audio(2_999)
    assert not account.audio_used_up
    account.use_audio(-2_999)
    assert (
        await server.ask("POST", NON_STREAM, data=form(data=DATA, audio_file=wav(1.5, channels=2)))
    )[0] == 200
    assert account.audio_used_up
    status, refused = await submit(1.0, "two")
    assert (status, refused["status"]) == (429, 42901)
    assert (await server.ask("POST", TASKS, key="bob", data=form(data=DATA, audio_file=wav())))[
        0
    ] == 200


BUSY_ONCE = ScriptedRecognizer(failure=Failure(kind=FailureKind.RATE_LIMIT, calls=1))


@pytest.mark.parametrize(
    "server", [Rules(recognizer=BUSY_ONCE, quota=Quota(audio_seconds_per_day=3))], indirect=True
)
async def test_what_is_tried_again_is_not_paid_twice(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recognising, "RETRY_S", (0.01,))
    assert (await server.ask("POST", NON_STREAM, data=form(data=DATA, audio_file=wav(2.0))))[
        0
    ] == 200
    assert not server.accounts.account_of("alice", Quota(audio_seconds_per_day=3)).audio_used_up


async def test_a_decoder_that_is_killed_is_replaced(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive = ForkedStream.receive_frame
    lost: list[ForkedStream] = []

    async def losing_one(self: ForkedStream) -> object:
        if not lost:
            lost.append(self)
            raise WorkerLostError("killed")
        return await receive(self)

    monkeypatch.setattr(ForkedStream, "receive_frame", losing_one)
    status, answer = await server.ask("POST", NON_STREAM, data=form(data=DATA, audio_file=wav()))
    assert (status, answer["result"]) == (200, "hello there")
    assert lost


async def test_without_any_decoder_the_client_is_told_to_come_again(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_process(self: ForkServer, options: bytes) -> ForkedStream:
        raise WorkerLostError("no memory")

    monkeypatch.setattr("voicechat.server.rest.transcribing.DECODER_RETRY_S", (0.01, 0.01))
    monkeypatch.setattr(ForkServer, "fork", no_process)
    status, answer = await server.ask("POST", NON_STREAM, data=form(data=DATA, audio_file=wav()))
    assert (status, answer["status"]) == (503, 50301)
    assert server.on_disk() == []


async def test_a_decoder_that_dies_of_a_file_is_told_from_one_that_refuses_it(
    server: Server, tmp_path: Path
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.write_bytes(wav(60.0))
    broken.write_bytes(b"RIFF" + bytes(1000))
    decoding = server.transcriber.decoding
    assert decoding is not None
    pieces = decode_file(decoding, whole)
    assert (await anext(pieces)).channels
    _kill_children_of(decoding)
    with pytest.raises(DecoderLostError) as died:
        async with asyncio.timeout(120):
            _ = [piece async for piece in pieces]
    assert died.value.status is Status.UNDECODABLE_AUDIO
    with pytest.raises(RemoteProtocolError) as refused:
        await anext(decode_file(decoding, broken))
    assert not isinstance(refused.value, DecoderLostError)


def _kill_children_of(decoding: ForkServer) -> None:
    assert decoding._process is not None
    parent = decoding._process.pid
    children = Path(f"/proc/{parent}/task/{parent}/children")
    if not children.exists():
        pytest.skip("needs /proc to find the processes of a process")
    for child in children.read_text().split():
        os.kill(int(child), signal.SIGKILL)
