"""The parts that the endpoints for pictures and videos share."""

import asyncio
import math
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pybase64
from aiohttp import web

from voicechat.dialects.drawings import Drawing
from voicechat.errors import (
    AdmissionError,
    ProviderError,
    RemoteProtocolError,
    Status,
    ToolError,
)
from voicechat.pictures.inspector import PictureInspector
from voicechat.pictures.picture import Picture
from voicechat.providers.media import ImageRequest
from voicechat.runtime.media_services import MediaServices
from voicechat.server.auth import Principal
from voicechat.server.origins import Origins
from voicechat.server.rest.backend import Backend
from voicechat.server.rest.failures import ServiceFailedError, service_failed
from voicechat.server.rest.knowledge.document_texts import DocumentTexts
from voicechat.server.rest.media.files import MediaFiles, MediaSettings
from voicechat.server.rest.media.inputs import PictureInputs
from voicechat.server.rest.media.tasks import MediaTasks
from voicechat.server.rest.transcribing import Transcriber
from voicechat.store.access import ApiEndpoint

MAX_PROMPT_CHARACTERS = 32_000
MAX_IMAGES = 10
MAX_SIDE = 8192
DRAWING_POLL_S = 0.25
"""Interval of looking whether a picture for a conversation is finished: any process of
the server may be making it.
"""
MEDIA_ERRORS = (400, 401, 404, 408, 413, 415, 429, 500, 502, 503)
"""HTTP error statuses of an endpoint that uses a service for pictures or videos."""
_SIZE = re.compile(r"(\d{1,5})[x*](\d{1,5})")


class Media:
    """The services, files and tasks, and the admission of requests to them."""

    def __init__(
        self,
        backend: Backend,
        transcriber: Transcriber,
        settings: MediaSettings,
        origins: Origins | None = None,
    ) -> None:
        self.backend = backend
        self.services: MediaServices = backend.services.media
        self.inspector = PictureInspector()
        self.files = MediaFiles(settings, origins or Origins())
        self.inputs = PictureInputs(transcriber, self.inspector)
        self.tasks = MediaTasks(self.services, transcriber, self.files)
        self.documents = DocumentTexts(self.services, self.inspector)
        self._deadline_s = settings.image_deadline_s

    async def aclose(self) -> None:
        """Stop the processes that decode pictures, and tell services which jobs nobody
        wants any more.
        """
        await self.tasks.aclose()
        await self.inspector.aclose()

    @asynccontextmanager
    async def admitted(
        self, request: web.Request, *, guests: bool = False
    ) -> AsyncGenerator[Principal, None]:
        """Admit a request; see ``Backend.admitted``."""
        admitted = self.backend.admitted(request, ApiEndpoint.MEDIA, guests=guests)
        async with admitted as principal:
            yield principal

    @asynccontextmanager
    async def asking_service(self) -> AsyncGenerator[None, None]:
        """Convert the failures of a service to errors that a client may see.

        Raises ``ServiceFailedError``, also when the block takes longer than is
        configured.
        """
        try:
            async with asyncio.timeout(self._deadline_s):
                yield
        except ProviderError as error:
            raise service_failed(Status.MEDIA_FAILED, error) from error
        except TimeoutError as error:
            message = f"the service did not answer within {self._deadline_s:g} s"
            raise ServiceFailedError(Status.MEDIA_FAILED, message) from error

    async def make_images(self, path: str, wanted: str, asked: ImageRequest) -> tuple[Picture, ...]:
        """Make pictures while the client waits.

        ``wanted`` names the service, in the parameter ``path``. Raises
        ``RemoteProtocolError`` and ``ServiceFailedError``.
        """
        service = self.services.images.find(path, wanted)
        if asked.pictures and not service.edits:
            raise RemoteProtocolError(
                Status.INVALID_PARAMETER, f"{path}: this service cannot change pictures"
            )
        async with self.asking_service():
            return await service.make_images(asked)

    async def draw(self, principal: Principal, url: str, service: str, prompt: str) -> Drawing:
        """Make a picture for a conversation, as a durable task; see ``DrawPicture``.

        ``url`` is how the client reached the server.
        """
        asked = ImageRequest(prompt=prompt)
        try:
            task = await self.tasks.submit(principal, service, asked)
            while not task.status.finished:
                await asyncio.sleep(DRAWING_POLL_S)
                task = await self.tasks.find(principal, "image", task.id, "picture")
        except (RemoteProtocolError, AdmissionError) as error:
            raise ToolError(error.message) from error
        if not task.files:
            raise ToolError(task.failure[1])
        file = task.files[0]
        return Drawing(
            id=task.id,
            prompt=prompt,
            address=self.files.address_at(url, file.name, file.content_type),
            content_type=file.content_type,
            width=file.width,
            height=file.height,
        )

    async def publish(self, request: web.Request, picture: Picture, key_id: str) -> str:
        """Store a picture, and return the address at which it can be fetched."""
        name = await self.files.store(picture.content, key_id)
        return self.files.address(request, name, picture.content_type)


async def as_base64(content: bytes) -> str:
    """Encode as base64 in a thread, because a picture has megabytes."""
    return (await asyncio.to_thread(pybase64.b64encode, content)).decode()


def read_size_text(size: str, path: str) -> tuple[int | None, int | None]:
    """Read a size such as ``1024x1024`` or ``1024*1024``; "auto" and "" mean none.

    Raises ``RemoteProtocolError`` naming ``path``.
    """
    if size in ("", "auto"):
        return None, None
    found = _SIZE.fullmatch(size)
    sides = tuple(map(int, found.groups())) if found else (0, 0)
    if not all(1 <= side <= MAX_SIDE for side in sides):
        raise RemoteProtocolError(
            Status.INVALID_PARAMETER,
            f"{path}: should be WIDTHxHEIGHT in pixels, each side at most {MAX_SIDE}",
        )
    return sides[0], sides[1]


def whole_seconds(seconds: float | None) -> int | None:
    """Return a duration in whole seconds, at least 1."""
    return None if seconds is None else max(1, math.ceil(seconds))
