"""The endpoint whose address is entered in a device's portal. It returns the server's
address and the key with which the device may connect.

An unknown device receives six digits, with which ``voicechat devices pair`` pairs it.
If the configuration allows it, a device on the local network is paired at once.

Source: xiaozhi-esp32, ``main/ota.cc``.
"""

import asyncio
import ipaddress
import logging
import re
import secrets
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TypeVar
from urllib.parse import quote

from aiohttp import hdrs, web

from voicechat.config.server_sections import DevicesConfig
from voicechat.dialects.xiaozhi.endpoint import PATH as SOCKET_PATH
from voicechat.errors import AdmissionError, ConfigError, RemoteProtocolError, Status
from voicechat.runtime.wall_clock import local_time, unix_s
from voicechat.schema.json_text import read_object, shown, write_json
from voicechat.server.origins import Origins, came_through_proxy
from voicechat.store.devices import CODE_S, Device, DeviceStore, TooManyCodesError

PATH = "/xiaozhi/ota/"
MAX_BODY_BYTES = 16 * 1024
"""Bound of a device's description of itself; the firmware's has 2 KiB."""
MOST_CLIENT_CHARACTERS = 128
MOST_ABOUT_CHARACTERS = 100
AT_ONCE = 4
"""Concurrent accesses to the devices' file."""

_DEVICE_ID = re.compile(r"[0-9A-Za-z:._-]{1,64}")
_LOCAL = tuple(
    map(
        ipaddress.ip_network,
        ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "fc00::/7", "::1/128"),
    )
)

_log = logging.getLogger(__name__)
T = TypeVar("T")


class OtaEndpoint:
    """Serves ``/xiaozhi/ota/`` and ``/xiaozhi/ota/activate``."""

    def __init__(self, store: DeviceStore, config: DevicesConfig, origins: Origins) -> None:
        self._store = store
        self._config = config
        self._origins = origins
        self._turns = asyncio.Semaphore(AT_ONCE)

    def routes(self) -> list[web.RouteDef]:
        """Return the routes. They need no key, because devices get their keys here."""
        return [
            web.route(method, path, handler)
            for path, handler in (
                (PATH, self._configure),
                (PATH.removesuffix("/"), self._configure),
                (f"{PATH}activate", self._activate),
            )
            for method in (hdrs.METH_GET, hdrs.METH_POST)
        ] + [web.options(path, _options) for path in (PATH, PATH.removesuffix("/"))]

    async def _configure(self, request: web.Request) -> web.Response:
        said = await _read(request)
        device_id, client_id = _identity(request, said)
        about, version = _about(said)
        address = self._origins.client_address(request)
        now_s = int(unix_s())
        device = await self._on_disk(
            lambda: self._admit(device_id, client_id, about, self._is_local(request), now_s)
        )
        answer: dict[str, object] = {
            "server_time": {
                "timestamp": now_s * 1000,
                "timezone_offset": _offset_minutes(local_time()),
            },
            "firmware": {"version": version, "url": ""},
            "websocket": {
                "url": self._socket_url(request, device),
                "token": "" if device is None else self._store.key_of(device),
                "version": self._config.frame_version,
            },
        }
        if device is None:
            code = await self._on_disk(
                lambda: self._store.wait_for_code(device_id, client_id, about, address, now_s)
            )
            _log.info("a device waits to be paired: voicechat devices list")
            answer["activation"] = {
                "code": code,
                "message": f"voicechat devices pair\n{code}",
                "challenge": secrets.token_hex(16),
                "timeout_ms": CODE_S * 1000,
            }
        return _answered(answer)

    async def _activate(self, request: web.Request) -> web.Response:
        """Answer whether the device has been paired: 200, or 202 while it waits."""
        device_id, client_id = _identity(request, await _read(request))
        now_s = int(unix_s())
        device = await self._on_disk(lambda: self._store.check_in(device_id, client_id, now_s))
        return _answered({"paired": device is not None}, 200 if device is not None else 202)

    def _admit(
        self, device_id: str, client_id: str, about: str, is_local: bool, now_s: int
    ) -> Device | None:
        """Return the device if it may connect; None if it needs a code."""
        device = self._store.check_in(device_id, client_id, now_s)
        may_enter = is_local and self._config.accept == "local"
        if device is None and may_enter and not self._store.is_known(device_id):
            device = self._store.accept(device_id, client_id, about, now_s)
        return device

    def _is_local(self, request: web.Request) -> bool:
        """Return whether the device itself is on the local network. A device that came
        through a proxy may be anywhere.
        """
        if came_through_proxy(request):
            return False
        try:
            address = ipaddress.ip_address(self._origins.client_address(request))
        except ValueError:
            return False
        return any(address in network for network in _LOCAL)

    def _socket_url(self, request: web.Request, device: Device | None) -> str:
        base = base_url_of(self._config, {n.lower(): v for n, v in request.headers.items()})
        agent = "" if device is None or not device.agent else f"?agent={quote(device.agent)}"
        return f"ws{base.removeprefix('http')}{SOCKET_PATH}{agent}"

    async def _on_disk(self, work: Callable[[], T]) -> T:
        """Run ``work`` on the devices' file in a thread.

        Raises AdmissionError when the file cannot be used, or too many devices wait.
        """
        try:
            async with self._turns:
                return await asyncio.to_thread(work)
        except TooManyCodesError:
            message = "too many devices wait to be paired"
            raise AdmissionError(Status.AT_CAPACITY, message) from None
        except ConfigError as error:
            _log.error("%s", error)
            message = "the devices cannot be read now; try again"
            raise AdmissionError(Status.INTERNAL, message) from error


def base_url_of(config: DevicesConfig, headers: Mapping[str, str]) -> str:
    """Return the URL at which a device reaches the server, without a trailing slash:
    the configured one, else the one of this request. Names in ``headers`` are in lower
    case.

    Forged headers affect only the device that sent them.
    """
    if config.public_url:
        return config.public_url
    scheme = headers.get("x-forwarded-proto", "").partition(",")[0].strip().lower()
    return f"{'https' if scheme == 'https' else 'http'}://{headers.get('host', '')}"


async def _options(request: web.Request) -> web.Response:
    return web.Response(status=204, headers={hdrs.ALLOW: "GET, POST, OPTIONS"})


async def _read(request: web.Request) -> Mapping[str, object]:
    """Read a device's description of itself. The body may be empty.

    Raises ``RemoteProtocolError`` for a body that is too large or not a JSON object.
    """
    if (request.content_length or 0) > MAX_BODY_BYTES:
        raise _too_large()
    content = bytearray()
    async for piece in request.content.iter_any():
        content += piece
        if len(content) > MAX_BODY_BYTES:
            raise _too_large()
    return read_object(bytes(content)) if content.strip() else {}


def _too_large() -> RemoteProtocolError:
    message = f"the body may have {MAX_BODY_BYTES} bytes"
    return RemoteProtocolError(Status.TOO_LARGE, message)


def _identity(request: web.Request, said: Mapping[str, object]) -> tuple[str, str]:
    """Return the device's id and its client id, from headers, query or body.

    Raises ``RemoteProtocolError`` naming the one that is missing or unusable.
    """
    device_id = _said(request, said, "Device-Id", "mac_address").lower()
    client_id = _said(request, said, "Client-Id", "uuid")
    if not _DEVICE_ID.fullmatch(device_id):
        raise RemoteProtocolError(
            Status.INVALID_PARAMETER,
            f"Device-Id: {shown(device_id)} should be 1 to 64 letters, digits and any of : . _ -",
        )
    if not 0 < len(client_id) <= MOST_CLIENT_CHARACTERS:
        raise RemoteProtocolError(
            Status.INVALID_PARAMETER,
            f"Client-Id: should have 1 to {MOST_CLIENT_CHARACTERS} characters",
        )
    return device_id, client_id


def _said(request: web.Request, said: Mapping[str, object], header: str, key: str) -> str:
    in_body = said.get(key)
    return (
        request.headers.get(header, "")
        or request.query.get(header.lower(), "")
        or (in_body if isinstance(in_body, str) else "")
    ).strip()


def _about(said: Mapping[str, object]) -> tuple[str, str]:
    """Return a readable description of the device, and its firmware's version."""
    board, application = said.get("board"), said.get("application")
    name = board.get("name") or board.get("type") if isinstance(board, Mapping) else ""
    version = application.get("version") if isinstance(application, Mapping) else ""
    words = [word for word in (name, version) if isinstance(word, str)]
    about = "".join(char for char in " ".join(words) if char.isprintable())
    return about[:MOST_ABOUT_CHARACTERS], version if isinstance(version, str) else ""


def _offset_minutes(now: datetime) -> int:
    offset = now.astimezone().utcoffset()
    return 0 if offset is None else int(offset.total_seconds()) // 60


def _answered(body: Mapping[str, object], status: int = 200) -> web.Response:
    headers = {"Cache-Control": "no-store"}
    return web.json_response(text=write_json(body), status=status, headers=headers)
