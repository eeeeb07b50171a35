"""Pictures that clients send: as an address, in base64, or as files of a form."""

import asyncio
import binascii
import codecs
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import pybase64
from aiohttp import hdrs, web

from voicechat.errors import RemoteProtocolError, Status
from voicechat.pictures.inspection import PictureLimits
from voicechat.pictures.inspector import PictureInspector
from voicechat.pictures.picture import Picture
from voicechat.schema.large_text import LARGE_BYTES, LargeText
from voicechat.server.fetch import FetchError, check_url, fetch
from voicechat.server.min_data_rate import MinDataRateReader, TooSlowError
from voicechat.server.rest.bodies import Model, checked, read_body_with_pictures
from voicechat.server.rest.forms import FORM, MAX_FIELD_BYTES, read_flag
from voicechat.server.rest.multipart import FormPart, MultipartReader
from voicechat.server.rest.transcribing import Transcriber

MAX_PICTURE_BYTES = 30 * 1000 * 1000
"""The document's limit for pictures of the video generator, applied to all pictures."""
MAX_PICTURES = 16
MAX_FORM_BYTES = 64 << 20
MAX_JSON_BYTES = 48 << 20
"""Enough for a picture of ``MAX_PICTURE_BYTES`` in base64 and the rest of its request.
"""
MAX_PARTS = 40
IDLE_S = 30.0
"""Time limit between two pieces of a body."""
TOTAL_S = 600.0
"""Time limit of a whole body."""


@dataclass(slots=True)
class MediaForm:
    """The text fields and files of a form, by name without a trailing "[]"."""

    fields: dict[str, list[str | LargeText]] = field(default_factory=dict)
    files: dict[str, list[bytes]] = field(default_factory=dict)

    def contents(self, name: str) -> list[bytes]:
        """Return the files of that name, and texts as files."""
        texts = (
            b"".join(text.pieces) if isinstance(text, LargeText) else text.encode()
            for text in self.fields.get(name, ())
        )
        return [*self.files.get(name, ()), *filter(None, texts)]

    def firsts(self) -> dict[str, str | LargeText]:
        """Return the first value of each field."""
        return {name: values[0] for name, values in self.fields.items()}


class PictureInputs:
    """Reads and inspects pictures from addresses, base64 and forms."""

    def __init__(self, transcriber: Transcriber, inspector: PictureInspector) -> None:
        self._transcriber = transcriber
        self._inspector = inspector

    async def read(
        self,
        text: str | LargeText,
        path: str,
        key_id: str,
        limits: PictureLimits | None = None,
    ) -> Picture:
        """Read a picture from an http(s) address, a data URL, or base64.

        Raises ``RemoteProtocolError`` naming ``path``.
        """
        if isinstance(text, str) and text.startswith(("http://", "https://")):
            content = await self.fetch(text, path, key_id)
        else:
            content = await asyncio.to_thread(_decoded, text, path)
        return await self.inspect(content, path, limits)

    async def inspect(
        self, content: bytes, path: str, limits: PictureLimits | None = None
    ) -> Picture:
        """Inspect a picture file. Raises ``RemoteProtocolError`` naming ``path``."""
        return await self._inspector.inspect(content, path, limits)

    async def fetch(
        self, address: str, path: str, key_id: str, most_bytes: int = MAX_PICTURE_BYTES
    ) -> bytes:
        """Fetch the content of an address, with the same checks as for ``audio_url``.
        Raises ``RemoteProtocolError`` naming ``path``.
        """
        policy = replace(self._transcriber.settings.fetch, max_bytes=most_bytes)
        url = check_url(address, policy, path)
        pieces: list[bytes] = []

        async def write(piece: bytes) -> None:
            pieces.append(piece)

        try:
            await fetch(url, write, policy, self._transcriber.resolver_of(key_id))
        except FetchError as error:
            raise RemoteProtocolError(error.status, f"{path}: {error.reason}") from error
        return await _joined(pieces)

    async def read_all(
        self, texts: Iterable[str | LargeText], files: Iterable[bytes], path: str, key_id: str
    ) -> tuple[Picture, ...]:
        """Read all pictures of a request, the texts first."""
        texts, files = list(texts), list(files)
        if len(texts) + len(files) > MAX_PICTURES:
            raise RemoteProtocolError(
                Status.INVALID_PARAMETER, f"{path}: {MAX_PICTURES} pictures at most"
            )
        found = [await self.read(text, path, key_id) for text in texts]
        found += [await self.inspect(content, path) for content in files]
        return tuple(found)


async def read_request(
    request: web.Request,
    model: type[Model],
    file_names: tuple[str, ...] = (),
    numbers: Mapping[str, type[int] | type[float]] | None = None,
) -> tuple[Model, dict[str, list[bytes]]]:
    """Read a body that is a JSON object, or a form with the same fields and files.

    ``file_names``: the form's parts that are files. ``numbers``: fields that are
    numbers, which a form has as text. Raises ``RemoteProtocolError``.
    """
    if request.content_type != FORM:
        return await read_body_with_pictures(request, model, MAX_JSON_BYTES), {}
    form = await receive_media_form(request, file_names)
    fields: dict[str, object] = dict(form.firsts())
    fields |= {
        name: values
        for name, values in form.fields.items()
        if name in file_names and len(values) > 1
    }
    for name, kind in (numbers or {}).items():
        text = form.firsts().get(name, "")
        if text:
            try:
                fields[name] = kind(str(text))
            except ValueError:
                raise RemoteProtocolError(
                    Status.INVALID_PARAMETER, f"{name}: is not a number"
                ) from None
    for name in ("stream", "async", "watermark"):
        if name in fields:
            fields[name] = read_flag(str(fields[name]), name)
    return checked(model, fields), form.files


async def receive_media_form(
    request: web.Request, file_names: tuple[str, ...], most_bytes: int = MAX_PICTURE_BYTES
) -> MediaForm:
    """Read a whole form. A part is a file if its name is in ``file_names`` and it has a
    file name or is not UTF-8. A file has at most ``most_bytes``.

    Raises ``RemoteProtocolError``: MALFORMED, TIMEOUT, TOO_LARGE.
    """
    form, size_bytes = MediaForm(), 0
    if (request.content_length or 0) > MAX_FORM_BYTES:
        raise _too_large("the body", MAX_FORM_BYTES)
    pace = MinDataRateReader(lambda: request.content.read(64 * 1024), IDLE_S)
    try:
        async with asyncio.timeout(TOTAL_S):
            reader = MultipartReader(request.headers.get(hdrs.CONTENT_TYPE, ""), pace.read_piece)
            for _ in range(MAX_PARTS + 1):
                part = await reader.next_part()
                if part is None:
                    return form
                name = part.name.removesuffix("[]")
                name = "input_reference" if name.startswith("input_reference") else name
                is_picture = name in file_names
                content = await _content(part, most_bytes if is_picture else MAX_FIELD_BYTES)
                size_bytes += len(content)
                if size_bytes > MAX_FORM_BYTES:
                    raise _too_large("the body", MAX_FORM_BYTES)
                text = None if is_picture and not _is_text(content) else _text(content, name)
                if text is None:
                    form.files.setdefault(name, []).append(content)
                else:
                    form.fields.setdefault(name, []).append(text)
    except (TimeoutError, TooSlowError):
        raise RemoteProtocolError(Status.TIMEOUT, "the body did not come in time") from None
    except web.RequestPayloadError:
        raise RemoteProtocolError(
            Status.MALFORMED, "the body is not encoded as its headers say"
        ) from None
    raise RemoteProtocolError(Status.MALFORMED, f"the form has more than {MAX_PARTS} parts")


async def read_bytes(request: web.Request, most_bytes: int) -> bytes:
    """Read a body that is a file. Raises ``RemoteProtocolError``."""
    pieces: list[bytes] = []
    size_bytes = 0
    pace = MinDataRateReader(lambda: request.content.read(64 * 1024), IDLE_S)
    try:
        async with asyncio.timeout(TOTAL_S):
            while piece := await pace.read_piece():
                pieces.append(piece)
                size_bytes += len(piece)
                if size_bytes > most_bytes:
                    raise _too_large("the body", most_bytes)
    except (TimeoutError, TooSlowError):
        raise RemoteProtocolError(Status.TIMEOUT, "the body did not come in time") from None
    return await _joined(pieces)


async def _content(part: FormPart, most_bytes: int) -> bytes:
    pieces: list[bytes] = []
    size_bytes = 0
    while piece := await part.read_piece():
        pieces.append(piece)
        size_bytes += len(piece)
        if size_bytes > most_bytes:
            raise _too_large(part.name, most_bytes)
    return await _joined(pieces)


async def _joined(pieces: list[bytes]) -> bytes:
    """Join the pieces of a file. From 1 MB on ``bytes.join`` releases the interpreter
    lock, so that a thread does not hold up the event loop.
    """
    return await asyncio.to_thread(b"".join, pieces)


def _is_text(content: bytes) -> bool:
    """Return whether a picture's field is an address or base64 rather than a file."""
    start = content[:64]
    return start.startswith((b"http://", b"https://", b"data:", b"{")) or (
        start.isascii() and start.strip().isalnum() and not start.startswith((b"GIF8", b"BM"))
    )


def _text(content: bytes, name: str) -> str | LargeText:
    if len(content) > LARGE_BYTES:
        return LargeText([content])
    try:
        return content.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError:
        raise RemoteProtocolError(Status.MALFORMED, f"{name}: is not UTF-8") from None


def _decoded(text: str | LargeText, path: str) -> bytes:
    """Decode base64 or a data URL. Runs in a thread; each piece is small, because
    decoding holds the interpreter lock.
    """
    large = LargeText([text.encode("utf-8", "surrogatepass")]) if isinstance(text, str) else text
    decoded: list[bytes] = []
    size_bytes = 0
    cut = b""
    try:
        for number, piece in enumerate(large.slices()):
            encoded = cut + (_without_head(piece, path) if number == 0 else piece)
            whole = len(encoded) // 4 * 4
            cut = encoded[whole:]
            decoded.append(pybase64.b64decode(encoded[:whole], validate=True))
            size_bytes += len(decoded[-1])
            time.sleep(0)  # releases the interpreter lock, which is else kept for 5 ms
            if size_bytes > MAX_PICTURE_BYTES:
                raise _too_large(path, MAX_PICTURE_BYTES)
        decoded.append(pybase64.b64decode(cut, validate=True))
    except (binascii.Error, ValueError):
        raise RemoteProtocolError(
            Status.INVALID_PARAMETER,
            f"{path}: should be an http or https address, a data URL, or base64",
        ) from None
    return b"".join(decoded)


def _without_head(piece: bytes, path: str) -> bytes:
    """Remove the head of a data URL from its first piece."""
    if not piece.startswith(b"data:"):
        return piece
    head, comma, rest = piece.partition(b",")
    if not comma or not head.endswith(b";base64"):
        raise RemoteProtocolError(
            Status.INVALID_PARAMETER, f"{path}: a data URL should be data:TYPE;base64,DATA"
        )
    return rest


def _too_large(name: str, most_bytes: int) -> RemoteProtocolError:
    return RemoteProtocolError(Status.TOO_LARGE, f"{name}: may have {most_bytes} bytes")
