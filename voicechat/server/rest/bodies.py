"""Request bodies: read within a size and a time, and validated against a model; errors
name the field.
"""

import asyncio
import codecs
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from voicechat.errors import RemoteProtocolError, Status
from voicechat.schema.checked import first_failure
from voicechat.schema.json_text import read_object

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
    content = await _read(request, limit_bytes)
    if len(content) <= LARGE_BYTES:
        return _parsed(model, content)
    return await asyncio.get_running_loop().run_in_executor(_parser, _parsed, model, content)


def _parsed(model: type[Model], content: bytes) -> Model:
    content = content.removeprefix(codecs.BOM_UTF8)
    try:
        content.decode()
    except UnicodeDecodeError:
        raise RemoteProtocolError(Status.MALFORMED, "the body is not UTF-8") from None
    return checked(model, read_object(content))


def checked(model: type[Model], fields: Mapping[str, object]) -> Model:
    """Validate a request's fields. Raises ``RemoteProtocolError`` (INVALID_PARAMETER)
    that names the field.
    """
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise RemoteProtocolError(Status.INVALID_PARAMETER, first_failure(error)) from None


async def _read(request: web.Request, limit_bytes: int) -> bytes:
    content = bytearray()
    try:
        async with asyncio.timeout(READ_S):
            async for piece in request.content.iter_any():
                content += piece
                if len(content) > limit_bytes:
                    raise RemoteProtocolError(
                        Status.TOO_LARGE, f"the body is limited to {limit_bytes} bytes"
                    )
    except TimeoutError:
        raise RemoteProtocolError(
            Status.TIMEOUT, f"the body did not come within {READ_S:g} s"
        ) from None
    except web.RequestPayloadError:
        raise RemoteProtocolError(
            Status.MALFORMED, "the body is not encoded as its headers say"
        ) from None
    return bytes(content)
