"""The transcription endpoints on a port, with a scripted recogniser, and a folder to
look into.
"""

import asyncio
import io
import json
import wave
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from voicechat.errors import AdmissionError, Status
from voicechat.providers.interfaces import SpeechRecognizer
from voicechat.runtime.decoding import open_decoding
from voicechat.runtime.services import Services
from voicechat.runtime.wall_clock import unix_s
from voicechat.server.app import build_app
from voicechat.server.auth import Principal
from voicechat.server.fetch import FetchPolicy
from voicechat.server.rest.backend import Backend
from voicechat.server.rest.non_stream import NonStream
from voicechat.server.rest.transcribing import Transcriber
from voicechat.server.rest.transcription_settings import TranscriptionSettings
from voicechat.server.rest.transcriptions import TranscriptionOperations
from voicechat.server.rest.uploads import DiskLimits
from voicechat.session.limits import SessionLimits
from voicechat.store.access import ApiEndpoint, Quota
from voicechat.store.quotas import Account, Accounts
from voicechat.store.tasks.on_demand import TaskSettings
from voicechat.testing.scripted import ScriptedModel, ScriptedRecognizer, ScriptedSynthesizer

PROJECT = "/api/open-apis/projects/p"
TASKS = f"{PROJECT}/easyllms/speechtotext/transcriptions"
NON_STREAM = f"{PROJECT}/easyllms/speechtotext/non-stream"
KEYS = ("alice", "bob")


def wav(seconds: float = 1.0, channels: int = 1, rate_hz: int = 8000) -> bytes:
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(bytes(int(seconds * rate_hz) * 2 * channels))
    return content.getvalue()


def form(**fields: object) -> aiohttp.FormData:
    """A form with its fields in this order; bytes are a file."""
    made = aiohttp.FormData(default_to_multipart=True)
    for name, value in fields.items():
        if isinstance(value, bytes):
            made.add_field(name, value, filename="../../etc/passwd", content_type="audio/wav")
        else:
            made.add_field(name, value if isinstance(value, str) else json.dumps(value))
    return made


@dataclass
class Server:
    url: str
    folder: Path
    session: aiohttp.ClientSession
    recognizer: SpeechRecognizer
    transcriber: Transcriber
    accounts: Accounts

    async def finished(self, task_id: str, key: str = "alice") -> dict[str, Any]:
        """Wait for a task's end; the answer about it then."""
        async with asyncio.timeout(120):
            while True:
                status, answer = await self.ask("GET", f"{TASKS}/{task_id}", key=key)
                assert status == 200
                if answer["status"] in ("success", "failed"):
                    found: dict[str, Any] = answer
                    return found
                await asyncio.sleep(0.02)

    async def ask(
        self, method: str, path: str, *, key: str = "alice", **more: Any
    ) -> tuple[int, Any]:
        """One request: the HTTP status, and the answer's JSON (or text)."""
        headers = {"Authorization": f"Bearer {key}", **more.pop("headers", {})}
        async with self.session.request(
            method, self.url + path, headers=headers, **more
        ) as response:
            text = await response.text()
            return response.status, json.loads(
                text
            ) if response.content_type == "application/json" else text

    def on_disk(self) -> list[str]:
        """What lies in the folder of recordings."""
        folder = self.folder / "recordings"
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@dataclass
class Rules:
    """What a test wants of its server."""

    disk: DiskLimits = field(default_factory=DiskLimits)
    max_synchronous_ms: int = 60_000
    ports: frozenset[int] = frozenset({80})
    texts: tuple[str, ...] = ("hello there", "and you")
    keep_s: float = 86_400.0
    quota: Quota = field(default_factory=Quota)
    recognizer: SpeechRecognizer | None = None
    requests: int = 4
    max_requests: int = 50
    key_tasks: int = 10_000


@asynccontextmanager
async def transcription_server(folder: Path, rules: Rules) -> AsyncIterator[Server]:
    recognizer = rules.recognizer or ScriptedRecognizer(texts=rules.texts)
    services = Services(
        {"default": recognizer, "YOUR_SERVICE_ID": recognizer},
        {"default": ScriptedModel()},
        {"default": ScriptedSynthesizer()},
    )
    settings = TranscriptionSettings(
        tasks=TaskSettings(folder=folder, poll_s=0.02, adopt_s=0.2),
        disk=rules.disk,
        fetch=FetchPolicy(
            allowed_networks=(ip_network("127.0.0.3/32"),),
            ports=rules.ports,
            max_bytes=rules.disk.file_bytes,
        ),
        max_synchronous_ms=rules.max_synchronous_ms,
        keep_s=rules.keep_s,
        requests=rules.requests,
        key_tasks=rules.key_tasks,
    )
    decoding = open_decoding()
    accounts = Accounts(unix_s)

    async def account_of(key_id: str) -> Account:
        return accounts.account_of(key_id, rules.quota)

    async def authorise(
        request: web.Request, endpoint: ApiEndpoint, keys: Collection[str] = ()
    ) -> Principal:
        key = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if key not in KEYS or endpoint is not ApiEndpoint.TRANSCRIPTION:
            raise AdmissionError(Status.NOT_AUTHORISED, "token: a valid key is required")
        return Principal(
            key, request.match_info.get("project", "default"), account=await account_of(key)
        )

    transcriber = Transcriber(services, settings, decoding=decoding, account_of=account_of)
    backend = Backend(
        services, limits=SessionLimits(), max_requests=rules.max_requests, authorise=authorise
    )
    operations = [
        *TranscriptionOperations(backend, transcriber).operations(),
        *NonStream(backend, transcriber).operations(),
    ]
    app = build_app([route for operation in operations for route in operation.routes()])
    runner = web.AppRunner(app, shutdown_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    await transcriber.start()
    try:
        async with aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield Server(url, folder, session, recognizer, transcriber, accounts)
    finally:
        await transcriber.aclose()
        await runner.cleanup()
        await decoding.aclose()
        backend.close()
