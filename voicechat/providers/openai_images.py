"""OpenAI's images API: OpenAI itself, LocalAI, vLLM-Omni, SGLang, Xinference, sd.cpp's
and many other servers.
"""

import asyncio
import binascii
from base64 import b64decode
from collections.abc import Mapping

import aiohttp
import orjson

from voicechat.errors import FailureKind, ProviderError
from voicechat.pictures.inspection import read_size
from voicechat.pictures.picture import SUFFIXES, Picture
from voicechat.providers.lenient_json import read_json
from voicechat.providers.media import ImageGenerator, ImageRequest, RemoteJob
from voicechat.providers.openai_errors import error_in, reported
from voicechat.providers.openai_http import PROVIDER, OpenAIEndpoint, read_whole
from voicechat.providers.remote_jobs import IDEMPOTENCY_KEY

MAX_ANSWER_BYTES = 128 << 20
MAX_PICTURE_BYTES = 32 << 20
_JSON = {"Content-Type": "application/json", "Accept": "application/json"}


class OpenAIImages(ImageGenerator):
    """An `ImageGenerator` over HTTP."""

    def __init__(self, endpoint: OpenAIEndpoint, model: str, *, edits: bool) -> None:
        """``model``: its name at the endpoint; empty: as the client named it."""
        self._endpoint = endpoint
        self._model = model
        self._edits = edits

    @property
    def edits(self) -> bool:
        """As configured."""
        return self._edits

    async def start(self) -> None:
        """Warm up a connection, as `OpenAIEndpoint.start`."""
        await self._endpoint.start()

    async def aclose(self) -> None:
        """Close all connections; requests in progress fail."""
        await self._endpoint.aclose()

    async def make_images(
        self, request: ImageRequest, job: RemoteJob | None = None
    ) -> tuple[Picture, ...]:
        """Make or change pictures. Raises `ProviderError` as `OpenAIEndpoint.post`, and
        BROKEN for an answer without pictures.
        """
        fields = self._fields(request)
        headers = {IDEMPOTENCY_KEY: job.key} if job is not None else {}
        if request.pictures:
            answer = await self._ask("images/edits", _form(fields, request), headers)
        else:
            sent = {**_JSON, **headers}
            answer = await self._ask("images/generations", orjson.dumps(fields), sent)
        items = answer.get("data")
        found = (
            [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
        )
        if not found:
            raise broken("the server answered without pictures")
        return tuple([await self._picture(item) for item in found])

    async def _ask(self, path: str, body: object, headers: dict[str, str]) -> Mapping[str, object]:
        async with self._endpoint.post(path, body, headers) as response:  # type: ignore[arg-type]
            content = await read_whole(response.content, MAX_ANSWER_BYTES)
        return await asyncio.to_thread(read_answer, content)

    async def _picture(self, item: Mapping[str, object]) -> Picture:
        encoded, address = item.get("b64_json"), item.get("url")
        try:
            if isinstance(encoded, str) and encoded:
                content = await asyncio.to_thread(_decoded, encoded)
            elif isinstance(address, str) and address.startswith("data:"):
                content = await asyncio.to_thread(_decoded, address)
            elif isinstance(address, str):
                content = await self._endpoint.download(address, MAX_PICTURE_BYTES)
            else:
                raise broken("the server answered with a picture without content")
            return await asyncio.to_thread(read_size, content)
        except (binascii.Error, ValueError) as error:
            raise broken("the server answered with something that is no picture") from error

    def _fields(self, request: ImageRequest) -> dict[str, object]:
        fields = dict(request.options)
        fields |= {"prompt": request.prompt, "n": request.count}
        if model := self._model or request.model:
            fields["model"] = model
        if request.width and request.height:
            fields["size"] = f"{request.width}x{request.height}"
        if request.negative_prompt:
            fields["negative_prompt"] = request.negative_prompt
        if request.seed is not None:
            fields["seed"] = request.seed
        return fields


def read_answer(content: bytes) -> Mapping[str, object]:
    """Parse an answer. Raises `ProviderError`: BROKEN, or the failure that it
    reports.
    """
    answer = read_json(content)
    if (error := error_in(answer)) is not None:
        raise reported(PROVIDER, error)
    if not isinstance(answer, dict):
        raise broken("the server did not answer with a JSON object")
    return answer


def broken(message: str) -> ProviderError:
    """Return the failure for an invalid answer."""
    return ProviderError(PROVIDER, FailureKind.BROKEN, message)


def add_picture(data: aiohttp.FormData, name: str, picture: Picture) -> None:
    """Add a picture to a form."""
    data.add_field(
        name,
        picture.content,
        filename=f"picture.{SUFFIXES[picture.content_type]}",
        content_type=picture.content_type,
    )


def _decoded(encoded: str) -> bytes:
    """Decode base64, or a data URL."""
    return b64decode(encoded.rpartition(",")[2])


def _form(fields: Mapping[str, object], request: ImageRequest) -> object:
    def form() -> aiohttp.FormData:
        data = aiohttp.FormData({name: as_text(value) for name, value in fields.items()})
        name = "image" if len(request.pictures) == 1 else "image[]"
        for picture in request.pictures:
            add_picture(data, name, picture)
        if request.mask is not None:
            add_picture(data, "mask", request.mask)
        return data

    return form


def as_text(value: object) -> str:
    """Write a value as a form's field."""
    return value if isinstance(value, str) else orjson.dumps(value).decode()
