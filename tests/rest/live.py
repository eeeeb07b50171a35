"""A whole server on a port, with scripted services: what the endpoints are tested
against.
"""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests.chained import chained_model
from voicechat.config import load_config
from voicechat.knowledge.retriever import Retriever
from voicechat.knowledge.sqlite_store import SqliteKnowledgeStore
from voicechat.providers.interfaces import ChatModel, ChatRequest, ReplyPart, SpeechRecognizer
from voicechat.runtime.drawing import DrawingTool
from voicechat.runtime.media_services import MediaServices
from voicechat.runtime.services import Services
from voicechat.runtime.toolbox import Toolbox
from voicechat.server.serve import Credentials, Running, serving
from voicechat.store.keys import KeyStore
from voicechat.testing.scripted import ScriptedModel, ScriptedRecognizer, ScriptedSynthesizer

KEY = "key-of-the-environment"
PROJECT = "/api/open-apis/projects/p"


@dataclass
class PartsModel:
    """Says these parts, and remembers what it was asked."""

    parts: Sequence[ReplyPart]
    requests: list[ChatRequest] = field(default_factory=list)

    async def reply(self, request: ChatRequest) -> AsyncIterator[ReplyPart]:
        self.requests.append(request)
        for part in self.parts:
            yield part


@dataclass
class Live:
    """The server, and what stands behind it."""

    running: Running
    store: KeyStore
    models: dict[str, ChatModel]
    synthesizer: ScriptedSynthesizer
    session: aiohttp.ClientSession

    @property
    def url(self) -> str:
        return self.running.url

    @property
    def model(self) -> ScriptedModel:
        model = self.models["default"]
        assert isinstance(model, ScriptedModel)
        return model

    async def ask(
        self,
        path: str,
        body: object = None,
        *,
        key: str = KEY,
        method: str = "POST",
        **headers: str,
    ) -> "Answer":
        """One request; the answer is read whole."""
        sent = {
            "Authorization": f"Bearer {key}",
            **{name.replace("_", "-"): text for name, text in headers.items()},
        }
        data: dict[str, Any] = (
            {"data": body} if isinstance(body, bytes | io.IOBase) else {"json": body}
        )
        async with self.session.request(method, self.url + path, headers=sent, **data) as response:
            content = await response.read()
            return Answer(
                response.status,
                response.headers.get("Content-Type", ""),
                dict(response.headers),
                content,
            )

    async def until(self, happened: "Any") -> None:
        """Wait until ``happened()``, for two minutes at most."""
        async with asyncio.timeout(120):
            while not happened():  # noqa: ASYNC110 - what is waited for has no event: it is a fake's counter
                await asyncio.sleep(0.005)


@dataclass(frozen=True)
class Answer:
    status: int
    content_type: str
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)

    @property
    def events(self) -> list[str]:
        """The data of each event, with what stands between ``data:`` and it."""
        text = self.content.decode()
        assert text.endswith("\n\n")
        lines = text[:-2].split("\n\n")
        assert all(line.startswith("data:") and "\n" not in line for line in lines)
        return [line.removeprefix("data:") for line in lines]


@asynccontextmanager
async def serving_live(
    folder: Path,
    models: Mapping[str, ChatModel] | None = None,
    limits: dict[str, int] | None = None,
    services: Sequence[str] = (),
    recognizer: SpeechRecognizer | None = None,
    config: str = "",
    media: MediaServices | None = None,
    drawing_tools: Mapping[str, DrawingTool] | None = None,
    *,
    knows: bool = False,
    toolbox: Toolbox | None = None,
) -> AsyncIterator[Live]:
    """``knows``: whether there are knowledge bases, searched by words."""
    environ = {"VOICECHAT_DATA_DIR": str(folder / "data")}
    file = folder / "given.toml"
    file.write_text(config, "utf-8")
    loaded = load_config(
        file, environ, {"server": {"port": 0, "drain_s": 2.0}, "limits": limits or {}}
    )
    known: dict[str, ChatModel] = {"default": ScriptedModel(), **(models or {})}
    synthesizer = ScriptedSynthesizer(ms_per_character=10)
    synthesizers = dict.fromkeys(("default", *services), synthesizer)
    opened = Services(
        recognizers={"default": recognizer or ScriptedRecognizer()},
        models={name: chained_model(model, loaded.limits) for name, model in known.items()},
        synthesizers=synthesizers,
        media=media or MediaServices(),
        drawing_tools=drawing_tools or {},
        knowledge=(
            Retriever(SqliteKnowledgeStore(folder / "knowledge.sqlite3", 1 << 20))
            if knows
            else None
        ),
        toolbox=toolbox,
    )
    store = KeyStore(folder / "data" / "keys.sqlite3")
    credentials = Credentials(store, {"environment": KEY}, None)
    async with (
        serving(loaded, opened, credentials, lambda _: None) as running,
        aiohttp.ClientSession() as session,
    ):
        yield Live(running, store, known, synthesizer, session)
