"""Request bodies: read within a size and a time, and validated against a model; errors
name the field.
"""

import asyncio
import codecs
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from voicechat.errors import RemoteProtocolError, Status
from voicechat.schema.checked import first_failure
from voicechat.schema.json_text import read_object
from voicechat.schema.large_text import LargeText, LargeTextCutter, put_back

READ_S = 30.0
"""Time limit of a whole body: a slower client would hold a slot without using it."""
MAX_BODY_BYTES = 256 * 1024
"""The limit unless an endpoint has its own."""

LARGE_BYTES = 64 * 1024
"""Larger bodies are parsed in a thread."""
_parser = ThreadPoolExecutor(1, thread_name_prefix="json")
"""One thread: a parse holds the interpreter lock for some milliseconds, and several
threads would hold it in turn while the event loop waits.
"""

Model = TypeVar("Model", bound=BaseModel)


async def read_body(
    request: web.Request, model: type[Model], limit_bytes: int = MAX_BODY_BYTES
) -> Model:
    """Read and validate a JSON object.

    Raises ``RemoteProtocolError``: ``TOO_LARGE``, ``MALFORMED``, or
    ``INVALID_PARAMETER`` whose message begins with the path of the field; ``TIMEOUT``
    when the body does not arrive within ``READ_S``.
    """
    content = bytearray()
    await _receive(request, limit_bytes, content.extend)
    return await _parsed(model, bytes(content), {})


async def read_body_with_pictures(
    request: web.Request, model: type[Model], limit_bytes: int
) -> Model:
    """The same for a body that may contain pictures in base64: long texts become
    `LargeText`, which only fields marked with `MayBeLarge` accept.
    """
    cutter = LargeTextCutter()
    await _receive(request, limit_bytes, cutter.push)
    return await _parsed(model, *cutter.finish())


async def _parsed(model: type[Model], content: bytes, texts: dict[str, LargeText]) -> Model:
    if len(content) <= LARGE_BYTES:
        return _parse(model, content, texts)
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_parser, _parse, model, content, texts)


def _parse(model: type[Model], content: bytes, texts: dict[str, LargeText]) -> Model:
    content = content.removeprefix(codecs.BOM_UTF8)
    try:
        content.decode()
    except UnicodeDecodeError:
        raise RemoteProtocolError(Status.MALFORMED, "the body is not UTF-8") from None
    fields = read_object(content)
    if texts:
        put_back(fields, texts)
    return checked(model, fields)


def checked(model: type[Model], fields: Mapping[str, object]) -> Model:
    """Validate a request's fields. Raises ``RemoteProtocolError`` (INVALID_PARAMETER)
    that names the field.
    """
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise RemoteProtocolError(Status.INVALID_PARAMETER, first_failure(error)) from None


async def _receive(request: web.Request, limit_bytes: int, take: Callable[[bytes], None]) -> None:
    size_bytes = 0
    try:
        async with asyncio.timeout(READ_S):
            async for piece in request.content.iter_any():
                size_bytes += len(piece)
                if size_bytes > limit_bytes:
                    raise RemoteProtocolError(
                        Status.TOO_LARGE, f"the body is limited to {limit_bytes} bytes"
                    )
                take(piece)
    except TimeoutError:
        raise RemoteProtocolError(
            Status.TIMEOUT, f"the body did not come within {READ_S:g} s"
        ) from None
    except web.RequestPayloadError:
        raise RemoteProtocolError(
            Status.MALFORMED, "the body is not encoded as its headers say"
        ) from None
