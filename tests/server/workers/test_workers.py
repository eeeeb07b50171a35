"""Servers with workers: what clients see of them is one server."""

import asyncio
import json
import os
import re
import signal
import sys
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, FormData
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as connect_socket

from tests.server.workers.stage import (
    PATIENCE_S,
    Fleet,
    begin_turn,
    end_turn,
    fleet,
    lives,
    ready_fleet,
    take_address,
    turn,
    until,
    wav_of,
)
from voicechat.client import (
    ClientConversation,
    ConnectionLostError,
    ReplyTextMessage,
    ServerMessage,
    TurnCompletedMessage,
    connect,
)
from voicechat.errors import AdmissionError, Status
from voicechat.store.access import Grant, Quota
from voicechat.store.keys import KeyStore

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.skipif(
        sys.platform != "linux", reason="several workers need local packets in order"
    ),
]


@pytest.mark.long
async def test_sessions_are_spread_and_the_metrics_are_those_of_all(tmp_path: Path) -> None:
    async with ready_fleet(tmp_path, workers=3) as server, AsyncExitStack() as open_ones:
        # What is exact of it is in the supervisor's tests.
        silent = await server.spread_conversations(open_ones, workers=3, each=2)
        async with asyncio.TaskGroup() as turns:
            for _ in range(6):
                turns.create_task(turn(await open_ones.enter_async_context(server.conversation())))

        samples: dict[str, float] = {}

        async def all_is_told() -> bool:
            # What a scrape costs is bounded: each worker keeps its text for a while.
            samples.clear()
            samples.update(await server.metrics())
            turns = samples.get("voicechat_turns_total outcome=spoken", 0)
            return samples["voicechat_sessions"] == len(silent) + 6 and turns == 6

        await until(all_is_told)
        assert samples["voicechat_first_audio_seconds_count"] == 6
        assert samples["voicechat_pressure"] in (0, 1, 2)
        assert sum(name.startswith("process_cpu_seconds_total worker=") for name in samples) == 3
        ready = [line for line in server.lines if "ready after" in line]
        assert len(ready) == 1
        assert " with 3 workers" in ready[0]
        line = await server.said("voicechat.access", among=server.errors)
        assert re.search(r" worker [012] voicechat\.access", line)


@pytest.mark.long
async def test_places_that_get_free_are_given_to_the_next(tmp_path: Path) -> None:
    async with ready_fleet(tmp_path) as server, AsyncExitStack() as last:
        async with AsyncExitStack() as first:
            for _ in range(6):
                await first.enter_async_context(server.conversation())
            await until(partial(server.holds, 6))
        await until(partial(server.holds, 0))
        await asyncio.sleep(0.1)  # the parent learns of it within 20 ms
        for _ in range(4):
            await last.enter_async_context(server.conversation())
        held = await server.sessions(4)
        assert min(held[0], held[1]) >= 1


@pytest.mark.long
async def test_a_killed_worker_costs_its_own_sessions_and_is_replaced(tmp_path: Path) -> None:
    async with ready_fleet(tmp_path) as server, AsyncExitStack() as open_ones:
        conversations = await server.spread_conversations(open_ones, workers=2, each=2)
        held = await server.sessions(len(conversations))
        await asyncio.gather(*(turn(conversation) for conversation in conversations))
        replies_end = tmp_path / "held"
        replies_end.touch()
        begun = await asyncio.gather(*(begin_turn(conversation) for conversation in conversations))
        os.kill(server.pid(0), signal.SIGKILL)
        async with server.conversation() as newcomer:
            assert await lives(newcomer)
        replies_end.unlink()
        ends = await asyncio.gather(*map(end_or_loss, conversations, begun))
        assert sorted(ends) == [False] * held[0] + [True] * held[1]
        await server.said("is replaced", among=server.errors)
        await until(server.is_whole)
        assert [number for number, _ in server.starts()].count(0) == 2
        async with server.conversation() as newcomer:
            await turn(newcomer)
        await until(partial(server.holds, held[1]))
        assert +(await server.sessions(held[1])) == {1: held[1]}

        async def all_count() -> bool:  # what the dead one counted still counts
            samples = await server.metrics()
            turns = samples["voicechat_turns_total outcome=spoken"]
            return turns >= len(conversations) + held[1]

        await until(all_count)


async def end_or_loss(conversation: ClientConversation, begun: list[ServerMessage]) -> bool:
    try:
        await end_turn(conversation, begun)
    except ConnectionLostError:
        return False
    return True


@pytest.mark.long
async def test_a_worker_that_stands_still_gets_no_connections(tmp_path: Path) -> None:
    async with ready_fleet(tmp_path) as server, AsyncExitStack() as open_ones:
        stopped = server.pid(1)
        os.kill(stopped, signal.SIGSTOP)
        try:
            await asyncio.sleep(1.5)
            async with asyncio.timeout(PATIENCE_S):
                for _ in range(5):
                    assert await lives(await open_ones.enter_async_context(server.conversation()))
        finally:
            os.kill(stopped, signal.SIGCONT)


@pytest.mark.long
async def test_the_server_is_ready_when_all_workers_are(tmp_path: Path) -> None:
    async with fleet(tmp_path, fault="late") as server:
        take_address(server, await server.said("warming up"))
        await until(server.have_all_started)
        assert await server.status("/healthz") == 200
        for _ in range(6):
            assert await server.status("/readyz") == 503
        assert len(server.lines) == 1
        (tmp_path / "go").touch()
        await server.said("ready after")
        for _ in range(6):
            assert await server.status("/readyz") == 200


@pytest.mark.long
async def test_a_signal_drains_all_workers_and_lets_turns_end(tmp_path: Path) -> None:
    """Turns longer than the grace that an end at once gives."""
    async with ready_fleet(tmp_path, delta_ms=2_000) as server, AsyncExitStack() as open_ones:
        conversations = [
            await open_ones.enter_async_context(server.conversation()) for _ in range(4)
        ]
        *speaking, silent = conversations
        begun = await asyncio.gather(*(begin_turn(conversation) for conversation in speaking))
        server.process.send_signal(signal.SIGTERM)
        for heard in await asyncio.gather(*map(end_turn, speaking, begun)):
            assert isinstance(heard[-1], TurnCompletedMessage)
            assert (
                "".join(part.content for part in heard if isinstance(part, ReplyTextMessage))
                == "One. Two. Three."
            )
        with pytest.raises(ConnectionLostError):
            await lives(silent)
        assert await server.ended() == 0
        assert [line.split()[1].rstrip(":;") for line in server.lines] == [
            "warming",
            "ready",
            "draining",
            "stopped",
        ]
        assert not [line for line in server.errors if " ERROR " in line]


@pytest.mark.long
async def test_tokens_are_known_to_every_worker_and_accepted_once(tmp_path: Path) -> None:
    async with ready_fleet(tmp_path) as server, AsyncExitStack() as open_ones:
        for _ in range(6):
            token = await token_of(server)
            await open_ones.enter_async_context(server.conversation(token))
            for _ in range(2):
                with pytest.raises(AdmissionError) as refused:
                    async with server.conversation(token):
                        raise AssertionError("must not be entered")
                assert refused.value.status is Status.NOT_AUTHORISED
        # Those that were refused may still count as connections when the next one
        # comes: so no more than that is sure.
        sessions = await server.sessions(6)
        assert min(sessions[0], sessions[1]) >= 1


async def token_of(server: Fleet) -> str:
    url = f"{server.url}/api/open-apis/projects/default/tokens"
    headers = {"Authorization": f"Bearer {server.key}"}
    async with ClientSession(headers=headers) as http, http.post(url, json={}) as answer:
        token: str = (await answer.json())["token"]
    return token


@pytest.mark.long
async def test_the_server_s_places_are_those_of_all_workers(tmp_path: Path) -> None:
    async with (
        ready_fleet(tmp_path, server="max_sessions = 3") as server,
        AsyncExitStack() as open_ones,
    ):
        for _ in range(3):
            await open_ones.enter_async_context(server.conversation())
        for _ in range(4):
            with pytest.raises(AdmissionError, match="its 3 sessions") as refused:
                async with server.conversation():
                    raise AssertionError("must not be entered")
            assert refused.value.status is Status.AT_CAPACITY


@pytest.mark.long
async def test_a_key_s_quota_and_its_revocation_hold_in_every_worker(tmp_path: Path) -> None:
    keys = KeyStore(tmp_path / "data" / "keys.sqlite3")
    record, limited = keys.create_key("limited", Grant(quota=Quota(max_sessions=3)))
    keys.create_key("free")
    async with ready_fleet(tmp_path) as server, AsyncExitStack() as open_ones:
        conversations = [
            await open_ones.enter_async_context(server.conversation(limited)) for _ in range(3)
        ]
        for _ in range(4):
            with pytest.raises(AdmissionError, match="3 sessions at once"):
                async with server.conversation(limited):
                    raise AssertionError("must not be entered")
        await server.sessions(3)
        keys.revoke_key(record.id)
        for conversation in conversations:
            with pytest.raises(ConnectionLostError):
                await to_the_end(conversation)


async def to_the_end(conversation: ClientConversation) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            await conversation.receive()


@pytest.mark.long
async def test_a_stream_is_found_again_from_any_worker(tmp_path: Path) -> None:
    """Streams hang on the workers that their names say, and every connection is given
    to any.
    """
    async with ready_fleet(tmp_path, workers=3) as server:
        for name in ("first", "second", "third", "fourth"):
            for seconds in range(3):
                async with stream(server, name) as socket:
                    assert await told(socket) == {"status": "ok", "offset": 32_000 * seconds}
                    await socket.send(bytes(32_000))
                    await (await socket.ping())  # after its answer the audio has been taken
            async with stream(server, name) as socket:
                assert (await told(socket))["offset"] == 96_000
                await socket.send("BYE")
                results = [json.loads(frame) async for frame in socket]
            assert results[-1]["is_sentence_end"]
            assert results[-1]["text"] == "hello there"
        recognised = (tmp_path / "recognised").read_text().split()
        assert len(recognised) == 4, "each was recognised once, by one worker"
        assert len(set(recognised)) > 1
        assert not [line for line in server.errors if " ERROR " in line]


def stream(server: Fleet, name: str) -> Any:
    url = f"{server.url.replace('http', 'ws')}/api/open-apis/easyllms/stream-speech"
    return connect_socket(f"{url}?apikey={server.key}&format=pcm&heartbeat=true&session={name}")


async def told(socket: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(PATIENCE_S):
        message: dict[str, Any] = json.loads(await socket.recv())
    return message


@pytest.mark.long
async def test_a_token_that_opens_a_stream_is_accepted_wherever_it_arrives(tmp_path: Path) -> None:
    async with ready_fleet(tmp_path, workers=3) as server:
        for number in range(6):
            token = await token_of(server)
            url = f"{server.url.replace('http', 'ws')}/api/open-apis/easyllms/stream-speech"
            async with connect_socket(f"{url}?apikey={token}&session=stream-{number}") as socket:
                assert await told(socket) == {"status": "ok", "offset": 0}


@pytest.mark.long
async def test_tasks_are_done_once_whichever_worker_they_were_given_to(tmp_path: Path) -> None:
    recording = wav_of(bytes(32_000))
    async with ready_fleet(tmp_path) as server:
        url = f"{server.url}/api/open-apis/projects/default/easyllms/speechtotext/transcriptions"
        ids = []
        for number in range(6):
            # A connection each: so both workers are asked.
            async with ClientSession(headers={"Authorization": f"Bearer {server.key}"}) as http:
                form = FormData({"data": json.dumps({"easyllm_id": "default"})})
                form.add_field("audio_file", recording, filename=f"{number}.wav")
                async with http.post(url, data=form) as answer:
                    ids.append((await answer.json())["taskId"])
        for task in ids:
            for _ in range(2):
                assert await outcome(server, f"{url}/{task}") == "success"
        assert len((tmp_path / "recognised").read_text().split()) == 6


async def outcome(server: Fleet, url: str) -> str:
    async with (
        ClientSession(headers={"Authorization": f"Bearer {server.key}"}) as http,
        asyncio.timeout(PATIENCE_S),
    ):
        while True:
            async with http.get(url) as answer:
                status: str = (await answer.json())["status"]
            if status in ("success", "failed"):
                return status
            await asyncio.sleep(0.1)


@pytest.mark.long
async def test_a_start_that_fails_says_so_once(tmp_path: Path) -> None:
    async with fleet(tmp_path, fault="broken") as server:
        assert await server.ended() == 1
    (told,) = [line for line in server.errors if line.startswith("voicechat:")]
    assert "RuntimeError: no model here" in told


@pytest.mark.long
async def test_a_worker_that_is_killed_while_it_starts_stops_the_start(tmp_path: Path) -> None:
    async with fleet(tmp_path, fault="killed") as server:
        assert await server.ended() == 1
    assert "was killed by signal 9 before it was ready" in server.errors[-1]


@pytest.mark.long
async def test_workers_that_die_again_and_again_are_given_up(tmp_path: Path) -> None:
    async with fleet(tmp_path, fault="mortal") as server:
        await server.said("ready after")
        assert await server.ended() == 1
    assert "workers died 5 times within 60 s" in server.errors[-1]
    assert "giving up" in server.errors[-1]


@pytest.mark.long
async def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    async with ready_fleet(tmp_path) as server:
        (ledger,) = server.open_files("ledger.sqlite3")
        assert ledger.exists()
        server.process.kill()
        await server.ended()
    assert len(server.starts()) == 2, "what is left of them the stage has looked at"
    assert not ledger.parent.exists()


@pytest.mark.long
async def test_a_port_in_use_is_told_in_plain_words(tmp_path: Path) -> None:
    async with ready_fleet(tmp_path) as server:
        (tmp_path / "other").mkdir()
        port = int(server.url.rpartition(":")[2])
        async with fleet(tmp_path / "other", port=port) as other:
            assert await other.ended() == 1
    assert f"server.port: {port} is in use" in other.errors[-1]


@pytest.mark.long
async def test_the_workers_share_one_process_with_a_model(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp", reason="needs xllamacpp (pip install 'voicechat[local]')")
    pytest.importorskip("gguf", reason="needs gguf (pip install 'voicechat[test]')")
    from tests.providers.tiny_gguf import write_tiny_gguf

    model = write_tiny_gguf(tmp_path / "tiny.gguf")
    section = f'[llm.small]\nprovider = "llama_cpp"\nmodel = "{model}"\nreplies = 2'

    def model_processes(parent: int) -> list[int]:
        return [
            int(folder.name)
            for folder in Path("/proc").iterdir()
            if folder.name.isdecimal() and is_child_with_model(folder, parent)
        ]

    async with ready_fleet(tmp_path, server=section) as server, AsyncExitStack() as open_ones:
        (before,) = model_processes(server.process.pid)
        conversations = [
            await open_ones.enter_async_context(connect(server.url, key=server.key, model="small"))
            for _ in range(6)
        ]
        held = await server.sessions(6)
        assert min(held[0], held[1]) >= 1, "both workers have some of them"
        for conversation in conversations:
            await turn(conversation)
        assert model_processes(server.process.pid) == [before]
        for number in range(2):
            assert not model_processes(server.pid(number))
        os.kill(server.pid(0), signal.SIGKILL)
        await until(server.is_whole)
        assert model_processes(server.process.pid) == [before], "it is there for the newcomer"


def is_child_with_model(folder: Path, parent: int) -> bool:
    """Whether a process computes the chat model and has that parent."""
    try:
        words = (folder / "cmdline").read_bytes().split(b"\0")
        stat = (folder / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False  # it has ended
    return b"voicechat.providers.llama_cpp_worker" in words and int(stat[1]) == parent
