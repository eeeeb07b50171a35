"""What one key does is that key's harm: disk, uploads, tasks, places."""

import asyncio
import errno
import gzip
import os
import random
from collections.abc import AsyncIterator
from io import FileIO
from pathlib import Path
from threading import Event
from typing import Any, NoReturn

import pytest

from tests.tasks.recording_host import recording_host
from tests.tasks.transcription_server import (
    NON_STREAM,
    TASKS,
    Rules,
    Server,
    form,
    transcription_server,
    wav,
)
from voicechat.providers.interfaces import RecognitionOptions
from voicechat.server.rest import uploads
from voicechat.server.rest.uploads import DiskLimits, RecordingFolder
from voicechat.session.types import Transcript
from voicechat.store.quotas import QuotaExceededError
from voicechat.store.tasks.interface import StoredTask, Submission

pytestmark = pytest.mark.real_time

DATA = {"easyllm_id": "YOUR_SERVICE_ID"}
OCTETS = {"Content-Type": "application/octet-stream"}
OCTET_PATH = NON_STREAM + "?easyllm_id=default"


@pytest.fixture
async def server(tasks_folder: Path, request: pytest.FixtureRequest) -> AsyncIterator[Server]:
    async with transcription_server(tasks_folder, getattr(request, "param", Rules())) as running:
        yield running


@pytest.mark.parametrize("step", ["_create", "_append", "_make_durable"])
@pytest.mark.parametrize(
    ("code", "told"),
    [(errno.ENOSPC, "the disk is full"), (errno.EIO, "recordings cannot be written now")],
)
async def test_a_disk_that_takes_nothing_is_told_as_such(
    step: str,
    code: int,
    told: str,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object) -> NoReturn:
        raise OSError(code, "as the test says")

    monkeypatch.setattr(uploads, step, fail)
    for path, headers, body in (
        (TASKS, {}, form(data=DATA, audio_file=wav())),
        (OCTET_PATH, OCTETS, wav()),
    ):
        async with server.session.post(
            server.url + path, data=body, headers={"Authorization": "Bearer alice", **headers}
        ) as response:
            answer = await response.json()
            assert (response.status, answer["status"]) == (503, 50301)
            assert int(response.headers["Retry-After"]) > 0
        assert told in answer["message"]
    assert "Traceback" not in caplog.text
    assert str(server.folder) not in caplog.text
    assert server.on_disk() == []


async def test_a_body_may_not_unfold_without_a_bound(server: Server) -> None:
    encoded = OCTETS | {"Content-Encoding": "gzip"}
    status, answer = await server.ask(
        "POST", OCTET_PATH, data=gzip.compress(bytes(5_000_000)), headers=encoded
    )
    assert (status, answer["status"]) == (413, 41301)
    loud = wav()[:44] + random.Random(1).randbytes(16_000)
    status, answer = await server.ask("POST", OCTET_PATH, data=gzip.compress(loud), headers=encoded)
    assert (status, answer["audio_duration"]) == (200, 1.0)

    async def pieces() -> AsyncIterator[bytes]:
        yield gzip.compress(wav())

    status, answer = await server.ask("POST", OCTET_PATH, data=pieces(), headers=encoded)
    assert (status, answer["status"]) == (400, 40001)
    assert "Content-Length" in answer["message"]
    assert server.on_disk() == []


async def test_an_upload_that_drips_is_given_up(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voicechat.server.min_data_rate.SPARE_S", 0.1)

    async def drops() -> AsyncIterator[bytes]:
        yield wav()[:44]
        while True:
            yield b"\0\0"
            await asyncio.sleep(0.02)

    status, answer = await server.ask("POST", OCTET_PATH, data=drops(), headers=OCTETS)
    assert (status, answer["status"]) == (408, 40801)
    assert server.on_disk() == []


@pytest.mark.parametrize("server", [Rules(disk=DiskLimits(owner_bytes=30_000))], indirect=True)
async def test_a_keys_share_of_the_disk_is_one_for_all_its_projects(server: Server) -> None:
    answers = [
        await server.ask(
            "POST", TASKS.replace("/p/", f"/{project}/"), data=form(data=DATA, audio_file=wav())
        )
        for project in ("p", "q", "r")
    ]
    assert [status for status, _ in answers] == [200, 429, 429]


@pytest.mark.parametrize("server", [Rules(key_tasks=2)], indirect=True)
async def test_a_key_has_a_bounded_number_of_tasks(server: Server) -> None:
    async def submit(key: str = "alice") -> tuple[int, Any]:
        return await server.ask(
            "POST", TASKS, key=key, json=DATA | {"audio_url": "http://a.example/"}
        )

    answers = [await submit() for _ in range(3)]
    assert [status for status, _ in answers] == [200, 200, 429]
    assert "2 tasks" in answers[-1][1]["message"]
    assert (await submit("bob"))[0] == 200
    await server.ask("DELETE", f"{TASKS}/{answers[0][1]['taskId']}")
    assert (await submit())[0] == 200
    await server.transcriber.sweep()
    assert (await submit())[0] == 429


@pytest.mark.parametrize("server", [Rules(key_tasks=2)], indirect=True)
async def test_a_task_that_is_stored_while_tasks_are_counted_counts_once(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = server.transcriber.tasks
    submit_task = tasks.submit_task

    async def submit_and_sweep(submission: Submission) -> tuple[StoredTask, bool]:
        submitted = await submit_task(submission)
        await server.transcriber.sweep()
        return submitted

    monkeypatch.setattr(tasks, "submit_task", submit_and_sweep)
    asked = DATA | {"audio_url": "http://a.example/"}
    statuses = [(await server.ask("POST", TASKS, json=asked))[0] for _ in range(3)]
    assert statuses == [200, 200, 429]


class Untouched(dict[str, int]):
    """Fails whoever looks at more than one recording."""

    def __iter__(self) -> NoReturn:
        raise AssertionError("all recordings are looked at")

    items = values = __or__ = __iter__  # type: ignore[assignment]


async def test_reserving_costs_the_same_however_many_recordings_there_are(tmp_path: Path) -> None:
    folder = RecordingFolder(tmp_path)
    folder._sizes.sizes_bytes = Untouched()
    async with folder.receiving("alice") as upload:
        await upload.write_piece(wav())
        await upload.finish_upload()


async def test_an_upload_that_is_given_up_while_its_file_is_made_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, begun, go_on, create = RecordingFolder(tmp_path), Event(), Event(), uploads._create
    made: list[FileIO] = []

    def create_late(path: Path) -> FileIO:
        begun.set()
        assert go_on.wait(30)
        made.append(create(path))
        return made[-1]

    monkeypatch.setattr(uploads, "_create", create_late)

    async def receive() -> None:
        async with folder.receiving("alice") as upload:
            await upload.write_piece(wav())
            await upload.finish_upload()

    receiving = asyncio.get_running_loop().create_task(receive())
    await until(begun.is_set)
    receiving.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await receiving
    assert made[0].closed
    assert not os.listdir(tmp_path)


class Patient:
    """A recogniser that goes on when it is told to."""

    def __init__(self) -> None:
        self.begun = 0
        self.go_on = asyncio.Event()
        self.texts: tuple[str, ...] = ()
        self.open = 0

    async def recognize(
        self, audio: AsyncIterator[bytes], options: RecognitionOptions
    ) -> AsyncIterator[Transcript]:
        self.begun += 1
        async for _ in audio:
            pass
        await self.go_on.wait()
        yield Transcript("heard", 0, 1)


async def test_many_uploads_of_one_key_leave_the_recogniser_to_others(tasks_folder: Path) -> None:
    recognizer = Patient()
    async with transcription_server(
        tasks_folder, Rules(recognizer=recognizer, requests=2)
    ) as server:
        loop = asyncio.get_running_loop()

        def ask(key: str) -> "asyncio.Task[tuple[int, Any]]":
            return loop.create_task(
                server.ask("POST", OCTET_PATH, key=key, data=wav(), headers=OCTETS)
            )

        def begun(count: int) -> bool:
            return recognizer.begun >= count

        mine = [ask("alice") for _ in range(16)]
        await until(lambda: begun(2))
        other = ask("bob")
        await until(lambda: begun(3))
        recognizer.go_on.set()
        assert {status for status, _ in await asyncio.gather(*mine, other)} == {200}
        assert recognizer.begun == 17


async def test_the_last_places_for_requests_are_for_other_keys(tasks_folder: Path) -> None:
    recognizer = Patient()
    rules = Rules(recognizer=recognizer, requests=20, max_requests=8)
    async with transcription_server(tasks_folder, rules) as server:
        loop = asyncio.get_running_loop()

        async def ask(key: str) -> tuple[int, Any]:
            return await server.ask("POST", OCTET_PATH, key=key, data=wav(), headers=OCTETS)

        mine = [loop.create_task(ask("alice")) for _ in range(7)]
        await until(lambda: recognizer.begun == 7)
        status, answer = await ask("alice")
        assert (status, answer["status"]) == (503, 50301)
        assert "other keys" in answer["message"]
        other = loop.create_task(ask("bob"))
        await until(lambda: recognizer.begun == 8)
        recognizer.go_on.set()
        assert {status for status, _ in await asyncio.gather(*mine, other)} == {200}
        assert (await ask("alice"))[0] == 200


async def test_tasks_that_wait_for_slow_servers_leave_the_workers_to_others(
    tasks_folder: Path,
) -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    slow = await asyncio.start_server(hang, "127.0.0.3", 0)
    slow_port = slow.sockets[0].getsockname()[1]
    async with recording_host() as port:
        rules = Rules(ports=frozenset({port, slow_port}))
        async with transcription_server(tasks_folder, rules) as server:
            for number in range(10):
                asked = DATA | {"audio_url": f"http://127.0.0.3:{slow_port}/{number}.wav"}
                assert (await server.ask("POST", TASKS, json=asked))[0] == 200
            asked = DATA | {"audio_url": f"http://127.0.0.3:{port}/a.wav"}
            _, made = await server.ask("POST", TASKS, key="bob", json=asked)
            done = await server.finished(made["taskId"], key="bob")
            assert done["status"] == "success"
    slow.close()


async def until(holds: Any) -> None:
    async with asyncio.timeout(120):
        while not holds():  # noqa: ASYNC110 - other processes come to it in their own time
            await asyncio.sleep(0.01)


async def test_a_sweep_forgets_no_recording_that_came_while_it_looked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RecordingFolder(tmp_path, DiskLimits(owner_bytes=30_000))
    nothing_yet = uploads._swept(tmp_path, (), 0.0, 0.0)
    monkeypatch.setattr(uploads, "_swept", lambda *_: nothing_yet)
    async with folder.receiving("alice") as upload:
        await upload.write_piece(wav())
        await upload.finish_upload()
        await folder.sweep(())
    async with folder.receiving("alice") as kept:
        await kept.write_piece(wav())
        await kept.finish_upload()
        await folder.sweep(())
        kept.kept = True
    async with folder.receiving("alice") as another:
        await another.write_piece(wav())
        with pytest.raises(QuotaExceededError):
            await another.finish_upload()


async def test_what_is_being_received_has_another_name_than_what_has_been(tmp_path: Path) -> None:
    folder = RecordingFolder(tmp_path)
    async with folder.receiving("alice") as upload:
        await upload.write_piece(wav(40.0))
        assert os.listdir(tmp_path) == [f"{upload.name}.part"]
        await folder.sweep((), 0.0)
        await upload.finish_upload()
        assert os.listdir(tmp_path) == [upload.name]
        upload.kept = True
    os.utime(upload.path, (0, 0))
    await folder.sweep({upload.name}, 0.0)
    assert upload.path.exists()
    await folder.sweep((), 0.0)
    assert not upload.path.exists()
