"""The client of the transcription endpoints: tasks that survive a crash of the server,
and requests that wait for their result.
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
"""Read timeout. The server sends nothing while it transcribes a recording."""
POLL_S = (0.5, 1.0, 2.0, 5.0)
"""Intervals between polls of a task; the last one repeats."""


@dataclass(frozen=True, slots=True)
class TranscriptionTask:
    """The state of a task. ``status`` is waiting, doing, success or failed;
    ``progress`` is 0 to 1.
    """

    id: str
    status: str
    progress: float
    result: str
    """One line per sentence, ``[m:ss.mmm,m:ss.mmm,speaker] text``; empty before
    success.
    """
    error: str
    """The reason of a failure: the contract's status and a sentence."""

    @property
    def finished(self) -> bool:
        """Whether the task succeeded or failed."""
        return self.status in ("success", "failed")


@dataclass(frozen=True, slots=True)
class Transcription:
    """The transcript of a recording."""

    text: str
    length_s: float


class TranscriptionApi:
    """A client for the transcription endpoints of one server. Use it as a context
    manager.

    Every method raises ``ApiError`` if the server refuses or fails, and
    ``ConnectionLostError`` if it cannot be reached or the answer is cut off. A
    recording is a ``Path``, which is streamed, or an http(s) address.
    """

    def __init__(
        self, url: str, *, key: str, project: str = "default", service: str = "default"
    ) -> None:
        """``url`` is the server's address; ``service`` names one of its recognisers."""
        self._folder = (
            f"{url.rstrip('/')}/api/open-apis/projects/{quote(project, safe='')}"
            "/easyllms/speechtotext"
        )
        # The key is sent in a header, because addresses are logged.
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
        """Transcribe a recording of a few minutes and wait for the result. Cancelling
        stops the server's work.
        """
        answer = await self._send("non-stream", recording, {})
        return Transcription(str(answer["result"]), float(answer["audio_duration"]))

    async def submit_task(self, recording: Path | str, *, idempotency_key: str = "") -> str:
        """Submit a recording and return the id of its task, which survives a crash of
        the server.

        With an ``idempotency_key`` a retry after any failure is safe: the same
        recording creates only one task.
        """
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        return str((await self._send("transcriptions", recording, headers))["taskId"])

    async def task(self, task_id: str) -> TranscriptionTask:
        """Return the state of a task."""
        return _task(await self._ask("GET", f"transcriptions/{quote(task_id, safe='')}"))

    async def wait_for_task(self, task_id: str) -> TranscriptionTask:
        """Poll a task until it is finished. Cancelling does not affect the task."""
        looks = 0
        while not (task := await self.task(task_id)).finished:
            await asyncio.sleep(POLL_S[min(looks, len(POLL_S) - 1)])
            looks += 1
        return task

    async def list_tasks(self) -> list[TranscriptionTask]:
        """List the newest tasks, newest first, without results."""
        return [_task(state) for state in (await self._ask("GET", "transcriptions"))["tasks"]]

    async def delete_task(self, task_id: str) -> None:
        """Delete a task, its result and its recording. Stops the task if it runs."""
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

    async def _ask(
        self, method: str, path: str, headers: dict[str, str] | None = None, **request: Any
    ) -> dict[str, Any]:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=READ_S)
            self._session = aiohttp.ClientSession(timeout=timeout, proxy=proxy_of(self._folder))
        # Set for each request: headers of the session would also be sent to the proxy,
        # with the key in clear text.
        sent = self._headers | (headers or {})
        try:
            async with self._session.request(
                method, f"{self._folder}/{path}", headers=sent, **request
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
