"""Photos of devices: a device sends a photo with a question, and a chat model that
accepts images answers.

The device receives the address and a token when its conversation begins. The answer
becomes the result of the tool call that took the photo.

Source: xiaozhi-esp32, ``main/boards/common/esp32_camera.cc``.
"""

import asyncio
import base64
import binascii
import hmac
import logging

from aiohttp import hdrs, web

from voicechat.config.server_sections import DevicesConfig
from voicechat.dialects.base import Handshake
from voicechat.dialects.xiaozhi.device_tools import Vision
from voicechat.dialects.xiaozhi.endpoint import device_of
from voicechat.errors import AdmissionError, ConfigError, ProviderError, RemoteProtocolError, Status
from voicechat.names import DEFAULT
from voicechat.providers.interfaces import ChatModel, ChatRequest, TextDelta
from voicechat.runtime.provider_deadlines import closing
from voicechat.runtime.services import Services
from voicechat.runtime.wall_clock import unix_s
from voicechat.schema.json_text import write_json
from voicechat.server.auth import request_keys
from voicechat.server.devices.ota import base_url_of
from voicechat.server.min_data_rate import MinDataRateReader, TooSlowError
from voicechat.server.rest.multipart import FormPart, MultipartReader
from voicechat.store.devices import DeviceStore

PATH = "/xiaozhi/vision/explain"
TOKEN_S = 12 * 3600
"""Validity of a token: longer than conversations last."""
MAX_PHOTO_BYTES = 4 * 1024 * 1024
"""Bound of a photo. The firmware's photos have 20 to 200 KiB."""
MAX_QUESTION_BYTES = 4 * 1024
MAX_ANSWER_CHARACTERS = 4_000
ANSWER_S = 20.0
"""Time limit of the model's whole answer. The device waits a little longer."""
PIECE_S = 10.0
"""Time limit of each piece of the photo."""
AT_ONCE = 8
"""Photos that one process handles at the same time."""
QUESTION = "What is in this photo?"
"""The question if the device sends none."""

_KINDS = {
    b"\xff\xd8\xff": "image/jpeg",
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"GIF8": "image/gif",
    b"BM": "image/bmp",
}
_log = logging.getLogger(__name__)


class VisionEndpoint:
    """Serves ``/xiaozhi/vision/explain``, and provides devices with its address."""

    def __init__(self, store: DeviceStore, config: DevicesConfig, services: Services) -> None:
        """Raises ConfigError when the configured model does not exist."""
        name = config.vision or DEFAULT
        if name not in services.models:
            raise ConfigError(f"devices.vision: there is no chat model {name!r}")
        self._model = services.models[name]
        self._store = store
        self._config = config
        self._turns = asyncio.Semaphore(AT_ONCE)

    def routes(self) -> list[web.RouteDef]:
        """Return the route. It needs the token that the device received."""
        return [web.post(PATH, self._explain)]

    def tell(self, handshake: Handshake) -> Vision:
        """Return the address for photos and a token bound to the device of the
        handshake.
        """
        expires_s = int(unix_s()) + TOKEN_S
        try:
            token = self._token(device_of(handshake), expires_s)
        except ConfigError as error:
            _log.error("photos cannot be looked at: %s", error)
            return Vision()
        return Vision(url=base_url_of(self._config, handshake.headers) + PATH, token=token)

    def _token(self, device_id: str, expires_s: int) -> str:
        content = f"{base64.urlsafe_b64encode(device_id.encode()).decode()}.{expires_s}"
        return f"{content}.{self._store.sign(f'vision {content}')}"

    async def _explain(self, request: web.Request) -> web.Response:
        await self._check(request)
        if self._turns.locked():
            raise AdmissionError(Status.AT_CAPACITY, "too many photos are being looked at")
        async with self._turns:
            question, photo = await _receive(request)
            try:
                async with asyncio.timeout(ANSWER_S):
                    answer = await _ask(self._model, question, photo)
            except (ProviderError, TimeoutError):
                message = "the chat model did not answer"
                raise RemoteProtocolError(Status.LLM_FAILED, message) from None
        body = {"success": True, "action": "RESPONSE", "response": answer}
        return web.json_response(text=write_json(body))

    async def _check(self, request: web.Request) -> None:
        """Check the token. Raises AdmissionError."""
        for offered in request_keys(request):
            device_id = self._bound_to(offered)
            if device_id is None:
                continue
            said = request.headers.get("Device-Id", device_id).lower()
            if said == device_id and not await asyncio.to_thread(self._store.is_revoked, device_id):
                return
        raise AdmissionError(Status.NOT_AUTHORISED, "token: the one of the conversation is needed")

    def _bound_to(self, token: str) -> str | None:
        """Return the device that a token was made for; None if it is not valid."""
        device, _, rest = token.partition(".")
        expires, _, _ = rest.partition(".")
        if len(token) > 512 or not (expires.isascii() and expires.isdecimal()):
            return None
        try:
            device_id = base64.urlsafe_b64decode(device).decode()
        except (binascii.Error, ValueError):
            return None
        if int(expires) < unix_s():
            return None
        expected = self._token(device_id, int(expires))
        return device_id if hmac.compare_digest(expected.encode(), token.encode()) else None


async def _receive(request: web.Request) -> tuple[str, bytes]:
    """Receive the question and the photo. Raises ``RemoteProtocolError``."""
    if (request.content_length or 0) > MAX_PHOTO_BYTES + MAX_QUESTION_BYTES + 8192:
        raise _too_large("file", MAX_PHOTO_BYTES)
    reader = MinDataRateReader(request.content.readany, PIECE_S)
    form = MultipartReader(request.headers.get(hdrs.CONTENT_TYPE, ""), reader.read_piece)
    question, photo = "", b""
    try:
        while (part := await form.next_part()) is not None:
            if part.name == "question":
                content = await _content(part, MAX_QUESTION_BYTES)
                question = content.decode("utf-8", "replace").strip()
            else:
                photo = await _content(part, MAX_PHOTO_BYTES)
    except TooSlowError:
        raise RemoteProtocolError(Status.TIMEOUT, "the photo came too slowly") from None
    if not photo:
        raise RemoteProtocolError(Status.INVALID_PARAMETER, "file: there is no photo")
    return question or QUESTION, photo


async def _content(part: FormPart, most_bytes: int) -> bytes:
    content = bytearray()
    while piece := await part.read_piece():
        content += piece
        if len(content) > most_bytes:
            raise _too_large(part.name, most_bytes)
    return bytes(content)


def _too_large(name: str, most_bytes: int) -> RemoteProtocolError:
    return RemoteProtocolError(Status.TOO_LARGE, f"{name}: may have {most_bytes} bytes")


async def _ask(model: ChatModel, question: str, photo: bytes) -> str:
    """Return the model's answer about a photo.

    Raises ProviderError, and ``RemoteProtocolError`` for a file that is not a photo.
    """
    kind = next((kind for start, kind in _KINDS.items() if photo.startswith(start)), "")
    if photo[:4] == b"RIFF" and photo[8:12] == b"WEBP":
        kind = "image/webp"
    if not kind:
        message = "file: is no JPEG, PNG, WebP, GIF or BMP"
        raise RemoteProtocolError(Status.UNSUPPORTED_FORMAT, message)
    url = f"data:{kind};base64,{base64.b64encode(photo).decode()}"
    content = [
        {"type": "text", "text": question},
        {"type": "image_url", "image_url": {"url": url}},
    ]
    answer = ""
    parts = model.reply(ChatRequest(messages=({"role": "user", "content": content},), options={}))
    async with closing(parts):
        async for part in parts:
            if isinstance(part, TextDelta):
                answer += part.text
            if len(answer) >= MAX_ANSWER_CHARACTERS:
                break
    return answer[:MAX_ANSWER_CHARACTERS].strip()
