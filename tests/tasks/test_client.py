"""The Python client's side of transcription."""

from pathlib import Path

import pytest

from tests.tasks.transcription_server import Rules, transcription_server, wav
from voicechat.client.connection import ConnectionLostError
from voicechat.client.rest import ApiError
from voicechat.client.transcription import Transcription, TranscriptionApi

pytestmark = pytest.mark.real_time


async def test_a_client_hands_in_waits_lists_and_deletes(
    tmp_path: Path, tasks_folder: Path
) -> None:
    recording = tmp_path / "a.wav"
    recording.write_bytes(wav(2.0))
    async with (
        transcription_server(tasks_folder, Rules()) as server,
        TranscriptionApi(server.url, key="alice", project="a/b") as client,
    ):
        task_id = await client.submit_task(recording, idempotency_key="k")
        assert await client.submit_task(recording, idempotency_key="k") == task_id
        task = await client.wait_for_task(task_id)
        assert (task.status, task.result, task.progress) == (
            "success",
            "[0:0.000,0:2.000,0] hello there\n",
            1.0,
        )
        assert [listed.id for listed in await client.list_tasks()] == [task_id]
        await client.delete_task(task_id)
        with pytest.raises(ApiError) as refused:
            await client.task(task_id)
        assert refused.value.status == 40401
        assert await client.transcribe(recording) == Transcription("and you", 2.0)
        with pytest.raises(ApiError, match="audio_url"):
            await client.submit_task("file:///etc/passwd")


async def test_a_server_that_is_not_there_is_a_lost_connection() -> None:
    async with TranscriptionApi("http://127.0.0.1:9", key="alice") as client:
        with pytest.raises(ConnectionLostError):
            await client.list_tasks()
