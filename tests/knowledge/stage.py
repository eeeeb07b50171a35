"""The endpoints of knowledge bases and of chat on a port, with a scripted model and
files that are read at once.
"""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from voicechat.agents import Agents
from voicechat.documents.passage import Passage
from voicechat.errors import AdmissionError, Status
from voicechat.knowledge.interface import FileStatus, KnowledgeFile
from voicechat.knowledge.retriever import Retriever
from voicechat.knowledge.sqlite_store import SqliteKnowledgeStore
from voicechat.runtime.services import Services
from voicechat.server.auth import Principal
from voicechat.server.error_responses import answer_errors
from voicechat.server.knowledge import AgentsKnowledge
from voicechat.server.rest.backend import Backend
from voicechat.server.rest.chat import Chat
from voicechat.server.rest.knowledge.files import KnowledgeFileEndpoints
from voicechat.server.rest.knowledge.qa_records import QaRecordEndpoints
from voicechat.server.rest.uploads import DiskLimits, RecordingFolder, Upload
from voicechat.session.agent import Agent
from voicechat.session.limits import SessionLimits
from voicechat.store.access import ApiEndpoint
from voicechat.testing.scripted import ScriptedModel

KEY = "key-of-hotel"
OTHER_KEY = "key-of-others"
PROJECTS = {KEY: "hotel", OTHER_KEY: "others"}
SERVICE = "/api/open-apis/service/anna/kn"
MOST_BYTES = 4096
"""The largest file here; the server's own limit is 100 MB."""


class ReadAtOnce:
    """Takes the first line of each paragraph of a text as its heading. A file that
    begins with "slow" stays UPLOADING, one that begins with "bad" becomes ERROR.
    """

    def __init__(self, folder: Path, store: SqliteKnowledgeStore) -> None:
        limits = DiskLimits(file_bytes=MOST_BYTES)
        self.folder = RecordingFolder(folder, limits, field_name="file", only_recordings=False)
        self._store = store

    def receiving(self, key_id: str) -> AbstractAsyncContextManager[Upload]:
        return self.folder.receiving(key_id)

    async def ingest(self, principal: Principal, file: KnowledgeFile) -> None:
        text = self.path(file).read_text("utf-8")
        project = principal.project
        if text.startswith("slow"):
            return
        if text.startswith("bad"):
            await self._store.set_status(project, file.id, FileStatus.ERROR, "it is broken")
            return
        passages = [Passage(text=paragraph, page=1) for paragraph in text.split("\n\n")]
        await self._store.put_passages(project, file.id, text, passages, pages=1)

    async def forget(self, file: KnowledgeFile) -> None:
        await self.folder.remove(file.blob)

    async def progress_of(self, file: KnowledgeFile) -> float:
        return 0.25

    def path(self, file: KnowledgeFile) -> Path:
        return self.folder.path(file.blob)


@dataclass
class KnowledgeStage:
    url: str
    session: aiohttp.ClientSession
    model: ScriptedModel
    store: SqliteKnowledgeStore
    folder: Path
    documents: dict[str, str] = field(default_factory=dict)

    async def ask(
        self, method: str, path: str, *, key: str = KEY, **more: Any
    ) -> tuple[int, dict[str, Any]]:
        """Make a request; returns the HTTP status and the JSON of the answer."""
        headers = {"Authorization": f"Bearer {key}"}
        async with self.session.request(method, self.url + path, headers=headers, **more) as answer:
            return answer.status, await answer.json()

    async def upload(
        self, text: str, name: str = "handbook.txt", *, path: str = SERVICE, **more: Any
    ) -> dict[str, Any]:
        """Upload a document; returns its entry."""
        form = aiohttp.FormData()
        form.add_field("file", text.encode(), filename=name)
        _, answer = await self.ask("POST", f"{path}/files", data=form, **more)
        result: dict[str, Any] = answer["result"]
        return result


async def _authorise(
    request: web.Request, endpoint: ApiEndpoint, keys: Collection[str] = ()
) -> Principal:
    key = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if key not in PROJECTS:
        raise AdmissionError(Status.NOT_AUTHORISED, "token: a valid key is required")
    return Principal(key, PROJECTS[key])


@asynccontextmanager
async def knowledge_stage(folder: Path) -> AsyncIterator[KnowledgeStage]:
    """Serve the endpoints while the context lasts. The agent ``anna`` also reads the
    base ``pets``.
    """
    store = SqliteKnowledgeStore(folder / "knowledge.sqlite3", 1 << 20)
    await store.start()
    model = ScriptedModel()
    services = Services({}, {"default": model}, {})
    agents = Agents({"default": Agent(), "anna": Agent(name="anna", knowledge=("pets",))})
    backend = Backend(
        services, limits=SessionLimits(), max_requests=1000, authorise=_authorise, agents=agents
    )
    backend.knowledge = AgentsKnowledge(
        Retriever(store),
        agents,
        public_url=lambda request: f"{request.scheme}://{request.host}",
    )
    families = (
        KnowledgeFileEndpoints(backend, ReadAtOnce(folder / "files", store)),
        QaRecordEndpoints(backend),
        Chat(backend),
    )
    app = web.Application(middlewares=[answer_errors])
    app.add_routes(
        [
            route
            for family in families
            for operation in family.operations()
            for route in operation.routes()
        ]
    )
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        async with aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{port}"
            yield KnowledgeStage(url, session, model, store, folder)
    finally:
        await runner.cleanup()
        backend.close()
        await store.aclose()


async def run_sample(stage: KnowledgeStage, name: str, changed: dict[str, str]) -> str:
    """Run a shell sample of the document with its host and placeholders changed; returns
    what it prints.
    """
    text = (Path(__file__).parent / "samples" / f"{name}.sh").read_text("utf-8")
    placeholders = {"https://www.sophnet.com": stage.url, "{serviceId}": "anna", **changed}
    for old, new in placeholders.items():
        text = text.replace(old, new)
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", f"API_KEY={KEY}\n{text}"),
        cwd=stage.folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(120):
        printed, complaints = await process.communicate()
    assert process.returncode == 0, complaints.decode()
    return printed.decode()
