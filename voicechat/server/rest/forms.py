"""Bodies that bring a recording: a form with fields and a file in any order, or the file alone."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from aiohttp import BodyPartReader, web
from aiohttp.client_exceptions import ClientError
from aiohttp.http_exceptions import HttpProcessingError

from voicechat.errors import RemoteProtocolError, Status
from voicechat.schema.json_text import read_object
from voicechat.server.rest.bodies import Model, checked
from voicechat.server.rest.uploads import Upload

PIECE_BYTES = 64 * 1024
MAX_FIELDS = 24
MAX_FIELD_BYTES = 64 * 1024
IDLE_S = 30.0
"""Between two pieces of a body."""
TOTAL_S = 3600.0
"""For a whole body: a gigabyte at 300 kB/s."""
FORM = "multipart/form-data"
FILE_NAMES = ("audio_file", "file")
"""The contract's name of the file field, and OpenAI's."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Form:
    """The text fields of a form; a name that came more than once has all its values."""

    fields: dict[str, list[str]] = field(default_factory=dict)
    has_file: bool = False

    def first(self, name: str) -> str:
        """One field's value; empty: there is none."""
        return self.fields.get(name, [""])[0]


def read_field(form: Form, name: str, model: type[Model]) -> Model:
    """Read a form's field that holds a JSON object. Raises ``RemoteProtocolError`` as ``read_body`` does."""
    if name not in form.fields:
        raise RemoteProtocolError(Status.INVALID_PARAMETER, f"{name}: must be present")
    return checked(model, read_object(form.first(name)))


async def receive_form(request: web.Request, upload: Upload) -> Form:
    """Read a multipart body to its very end, its file into ``upload``, which is then durable.

    Raises ``RemoteProtocolError``: ``MALFORMED``, ``TIMEOUT``, and what ``Upload.write`` raises.
    """
    async with _reading(request, upload):
        reader = await request.multipart()
        fields: dict[str, list[str]] = {}
        has_file = False
        for _ in range(MAX_FIELDS + 1):
            part = await _in_time(reader.next())
            if part is None:  # the closing boundary was there
                return Form(fields, has_file)
            if not isinstance(part, BodyPartReader):
                raise RemoteProtocolError(Status.MALFORMED, "a form within the form is not allowed")
            if part.name not in FILE_NAMES:
                fields.setdefault(part.name or "", []).append(await _receive_text(part))
                continue
            if has_file:
                raise RemoteProtocolError(Status.INVALID_PARAMETER, f"{part.name}: there is more than one file")
            has_file = True
            while piece := await _in_time(part.read_chunk(PIECE_BYTES)):
                await upload.write(piece)
            await upload.finish()
    raise RemoteProtocolError(Status.MALFORMED, f"the form has more than {MAX_FIELDS} fields")


async def receive_file(request: web.Request, upload: Upload) -> None:
    """Read a body that is nothing but a recording. Raises as ``receive_form``."""
    async with _reading(request, upload):
        while piece := await _in_time(request.content.read(PIECE_BYTES)):
            await upload.write(piece)
        await upload.finish()


@asynccontextmanager
async def _reading(request: web.Request, upload: Upload) -> AsyncIterator[None]:
    """Keep the whole body's deadline, and say in our own words what is wrong with it."""
    upload.expect(request.content_length or 0)
    try:
        async with asyncio.timeout(TOTAL_S):
            yield
    except TimeoutError:
        raise RemoteProtocolError(Status.TIMEOUT, "the body did not come in time") from None
    except (ClientError, HttpProcessingError, web.RequestPayloadError, ValueError, RuntimeError, AssertionError):
        # aiohttp's reader meets a broken form with any of these; ours is none of them.
        raise RemoteProtocolError(Status.MALFORMED, "the body is not a whole form as its headers say") from None


async def _in_time(reading: Awaitable[T]) -> T:
    async with asyncio.timeout(IDLE_S):
        return await reading


async def _receive_text(part: BodyPartReader) -> str:
    content = bytearray()
    while piece := await _in_time(part.read_chunk(PIECE_BYTES)):
        content += piece
        if len(content) > MAX_FIELD_BYTES:
            raise RemoteProtocolError(Status.TOO_LARGE, f"a field is limited to {MAX_FIELD_BYTES} bytes")
    return content.decode("utf-8-sig")
