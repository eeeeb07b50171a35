"""The requests of the vendor's Python SDK (fastmodels-kit 0.1.8, MIT), and what it
reads of the answers.
"""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.tasks.recording_host import recording_host
from tests.tasks.transcription_server import Rules, transcription_server

pytestmark = pytest.mark.real_time


class SpeechToText:
    """Its class of this name, with another address: method, path, headers and body are
    the SDK's.
    """

    def __init__(
        self, session: aiohttp.ClientSession, host: str, api_key: str, project_id: str
    ) -> None:
        self._session = session
        self._base_url = f"{host}/api/open-apis/projects/{project_id}/easyllms/speechtotext/"
        self._headers = {"Authorization": f"Bearer {api_key}", "Content-Type": "application/json"}

    async def create(self, easyllm_id: str, audio_url: str) -> tuple[Any, Any]:
        data = {"easyllm_id": easyllm_id, "audio_url": audio_url}
        answer = await self._json("POST", "transcriptions", json=data)
        return answer.get("task_id"), answer.get("created")

    async def get(self, task_id: str) -> dict[str, Any]:
        answer = await self._json("GET", f"transcriptions/{task_id}")
        return {name: answer.get(name) for name in ("task_id", "status", "errorMsg", "result")}

    async def _json(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        url = self._base_url + path
        async with self._session.request(method, url, headers=self._headers, **more) as response:
            response.raise_for_status()
            answer: dict[str, Any] = await response.json()
            return answer


async def test_a_task_is_made_and_its_result_is_read(tasks_folder: Path) -> None:
    async with (
        recording_host() as port,
        transcription_server(tasks_folder, Rules(ports=frozenset({port}))) as server,
    ):
        sdk = SpeechToText(server.session, server.url, "alice", "p")
        task_id, created = await sdk.create("YOUR_SERVICE_ID", f"http://127.0.0.3:{port}/a.wav")
        assert isinstance(task_id, str)
        assert isinstance(created, int)
        async with asyncio.timeout(120):
            while (task := await sdk.get(task_id))["status"] in ("waiting", "doing"):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert task == {
            "task_id": task_id,
            "status": "success",
            "errorMsg": None,
            "result": "[0:0.000,0:2.000,0] hello there\n",
        }
