"""Transcription from the client's side: tasks that survive a server's crash, and
requests that wait.
"""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import aiohttp

from voicechat.client.connection import ConnectionLostError
from voicechat.client.rest import CONNECT_S, ApiError
from voicechat.proxies import proxy_of

READ_S = 1800.0
"""A recording is recognised while a waiting request says nothing."""
LOOK_S = (0.5, 1.0, 2.0, 5.0)
"""Waits between two looks at a task; the last one from then on."""


@dataclass(frozen=True, slots=True)
class TranscriptionTask:
    """Where a task stands; ``status`` is waiting, doing, success or failed,
    ``progress`` 0 to 1.
    """

    id: str
    status: str
    progress: float
    result: str
    """One line per sentence, ``[m:ss.mmm,m:ss.mmm,speaker] text``; empty until it
    succeeded.
    """
    error: str
    """Why it failed: the contract's status and a sentence."""

    @property
    def finished(self) -> bool:
        """Whether it will stay so."""
        return self.status in ("success", "failed")


@dataclass(frozen=True, slots=True)
class Transcription:
    """What was said in a recording."""

    text: str
    length_s: float


class TranscriptionApi:
    """The transcription endpoints of one server, with one key. Use it as a context.

    Every method raises ``ApiError`` when the server refuses or fails,
    ``ConnectionLostError`` when it cannot be reached or the answer breaks off. A
    recording is a ``Path``, which is sent piece by piece, or an http(s) address.
    """

    def __init__(
        self, url: str, *, key: str, project: str = "default", service: str = "default"
    ) -> None:
        """``url`` is the server's address; ``service`` its recogniser's name."""
        self._folder = f"{url.rstrip('/')}/api/open-apis/projects/{quote(project, safe='')}/easyllms/speechtotext"
        # The key travels in a header: addresses end up in logs.
        self._headers = {"Authorization": f"Bearer {key}"}
        self._service = service
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Enter the context; nothing is sent yet."""
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def transcribe(self, recording: Path | str) -> Transcription:
        """Transcribe a recording of minutes, waiting for it. Cancelling makes the
        server stop.
        """
        answer = await self._send("non-stream", recording, {})
        return Transcription(str(answer["result"]), float(answer["audio_duration"]))

    async def submit_task(self, recording: Path | str, *, idempotency_key: str = "") -> str:
        """Hand a recording in, and return the id of its task, which will be done
        whatever happens to the server.

        With an ``idempotency_key`` it is safe to call again after any failure: the same
        recording makes one task.
        """
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        return str((await self._send("transcriptions", recording, headers))["taskId"])

    async def task(self, task_id: str) -> TranscriptionTask:
        """Say where a task stands."""
        return _task(await self._ask("GET", f"transcriptions/{quote(task_id, safe='')}"))

    async def wait_for_task(self, task_id: str) -> TranscriptionTask:
        """Look until a task is finished. Cancelling leaves the task as it is."""
        looks = 0
        while not (task := await self.task(task_id)).finished:
            await asyncio.sleep(LOOK_S[min(looks, len(LOOK_S) - 1)])
            looks += 1
        return task

    async def list_tasks(self) -> list[TranscriptionTask]:
        """List the newest tasks, newest first, without results."""
        return [_task(state) for state in (await self._ask("GET", "transcriptions"))["tasks"]]

    async def delete_task(self, task_id: str) -> None:
        """Delete a task, its result and its recording; stops it if it is being done."""
        await self._ask("DELETE", f"transcriptions/{quote(task_id, safe='')}")

    async def _send(
        self, path: str, recording: Path | str, headers: dict[str, str]
    ) -> dict[str, Any]:
        asked = {"easyllm_id": self._service}
        if isinstance(recording, str):
            return await self._ask(
                "POST", path, headers=headers, json=asked | {"audio_url": recording}
            )
        file = await asyncio.to_thread(recording.open, "rb")
        with file:
            form = aiohttp.FormData()
            form.add_field("data", json.dumps(asked))
            form.add_field("audio_file", file, filename="recording")
            return await self._ask("POST", path, headers=headers, data=form)

    async def _ask(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=READ_S)
            self._session = aiohttp.ClientSession(
                headers=self._headers, timeout=timeout, proxy=proxy_of(self._folder)
            )
        try:
            async with self._session.request(
                method, f"{self._folder}/{path}", **request
            ) as response:
                content = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ConnectionLostError(1006, type(error).__name__) from error
        try:
            answer = json.loads(content)
        except ValueError:
            raise ApiError(response.status, "the answer is not JSON", None) from None
        if response.status != 200:
            retry_after = response.headers.get("Retry-After", "")
            raise ApiError(
                int(answer.get("status", response.status)),
                str(answer.get("message", "")),
                int(retry_after) if retry_after.isdigit() else None,
            )
        checked: dict[str, Any] = answer
        return checked


def _task(state: dict[str, Any]) -> TranscriptionTask:
    return TranscriptionTask(
        id=str(state["taskId"]),
        status=str(state["status"]),
        progress=float(state["progress"]),
        result=str(state.get("result") or ""),
        error=str(state.get("errorMsg") or ""),
    )
