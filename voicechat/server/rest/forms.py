"""Bodies with a recording: a form with fields and a file in any order, or the file
alone.
"""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import hdrs, web

from voicechat.errors import RemoteProtocolError, Status
from voicechat.schema.json_text import read_object, shown
from voicechat.server.min_data_rate import MinDataRateReader, TooSlowError
from voicechat.server.rest.bodies import Model, checked
from voicechat.server.rest.multipart import FormPart, MultipartReader
from voicechat.server.rest.uploads import Upload

PIECE_BYTES = 64 * 1024
MAX_FIELDS = 24
MAX_FIELD_BYTES = 64 * 1024
IDLE_S = 30.0
"""Time limit between two pieces of a body."""
TOTAL_S = 3600.0
"""Time limit of a whole body: 1 GB at 300 kB/s."""
MOST_UNFOLDING = 20
"""Largest decompression ratio of a body with a Content-Encoding."""
FORM = "multipart/form-data"
FILE_NAMES = ("audio_file", "file")
"""The contract's name of the file field, and OpenAI's."""
_FLAGS = {"true": True, "1": True, "false": False, "0": False, "": False}


@dataclass(frozen=True, slots=True)
class Form:
    """The text fields of a form; a repeated name has several values."""

    fields: dict[str, list[str]] = field(default_factory=dict)
    has_file: bool = False
    file_name: str = ""
    """The name of the file as the client wrote it, without folders."""

    def first(self, name: str) -> str:
        """Return a field's first value; "" without one."""
        return self.fields.get(name, [""])[0]


def read_field(form: Form, name: str, model: type[Model]) -> Model:
    """Read a form field that holds a JSON object. Raises ``RemoteProtocolError`` as
    ``read_body`` does.
    """
    if name not in form.fields:
        raise RemoteProtocolError(Status.INVALID_PARAMETER, f"{name}: must be present")
    return checked(model, read_object(form.first(name)))


def read_flag(text: str, path: str) -> bool:
    """Read "true" or "false" in a query or form; "" is false. Raises
    ``RemoteProtocolError`` naming ``path``.
    """
    try:
        return _FLAGS[text.strip().lower()]
    except KeyError:
        raise RemoteProtocolError(
            Status.INVALID_PARAMETER, f"{path}: {shown(text)} is not true or false"
        ) from None


async def receive_form(
    request: web.Request, upload: Upload, names: Collection[str] = FILE_NAMES
) -> Form:
    """Read a whole multipart body, and write its file to ``upload``, which is durable
    on return. ``names`` are those of the field that holds the file.

    Raises ``RemoteProtocolError``: ``MALFORMED``, ``TIMEOUT``; and what
    ``Upload.write_piece`` raises.
    """
    async with _reading(request, upload) as pace:
        reader = MultipartReader(request.headers.get(hdrs.CONTENT_TYPE, ""), pace.read_piece)
        fields: dict[str, list[str]] = {}
        has_file, file_name = False, ""
        for _ in range(MAX_FIELDS + 1):
            part = await reader.next_part()
            if part is None:
                return Form(fields, has_file, file_name)
            if part.name not in names:
                fields.setdefault(part.name, []).append(await _receive_text(part))
                continue
            if has_file:
                raise RemoteProtocolError(
                    Status.INVALID_PARAMETER, f"{part.name}: there is more than one file"
                )
            has_file, file_name = True, part.file_name
            upload.field_name = part.name
            while piece := await part.read_piece():
                await upload.write_piece(piece)
            await upload.finish_upload()
    raise RemoteProtocolError(Status.MALFORMED, f"the form has more than {MAX_FIELDS} fields")


async def receive_file(request: web.Request, upload: Upload) -> None:
    """Read a body that is only a recording. Raises as ``receive_form``."""
    async with _reading(request, upload) as pace:
        while piece := await pace.read_piece():
            await upload.write_piece(piece)
        await upload.finish_upload()


@asynccontextmanager
async def _reading(request: web.Request, upload: Upload) -> AsyncIterator[MinDataRateReader]:
    """Enforce the limits of a whole body, and convert errors to
    ``RemoteProtocolError``.
    """
    upload.reserve_bytes(request.content_length or 0)
    if request.headers.get(hdrs.CONTENT_ENCODING, "identity") != "identity":
        if request.content_length is None:
            raise RemoteProtocolError(
                Status.MALFORMED, "Content-Encoding: an encoded body needs Content-Length"
            )
        upload.most_bytes = min(upload.most_bytes, request.content_length * MOST_UNFOLDING)
    try:
        async with asyncio.timeout(TOTAL_S):
            yield MinDataRateReader(lambda: request.content.read(PIECE_BYTES), IDLE_S)
    except (TimeoutError, TooSlowError):
        raise RemoteProtocolError(Status.TIMEOUT, "the body did not come in time") from None
    except web.RequestPayloadError:
        raise RemoteProtocolError(
            Status.MALFORMED, "the body is not encoded as its headers say"
        ) from None


async def _receive_text(part: FormPart) -> str:
    content = bytearray()
    while piece := await part.read_piece():
        content += piece
        if len(content) > MAX_FIELD_BYTES:
            raise RemoteProtocolError(
                Status.TOO_LARGE, f"a field is limited to {MAX_FIELD_BYTES} bytes"
            )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise RemoteProtocolError(Status.MALFORMED, f"{part.name}: is not UTF-8") from None
