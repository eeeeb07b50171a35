"""Accounts: registration and login, without revealing which names exist."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from aiohttp import web

from voicechat.errors import AdmissionError, AtCapacityError, ConfigError, Status
from voicechat.runtime.wall_clock import unix_s
from voicechat.server.auth_throttle import AuthThrottle, network_of
from voicechat.server.rest.bodies import read_body
from voicechat.server.rest.compat.parts import CompatParts
from voicechat.server.rest.compat.spark.schemas import (
    AccountAnswer,
    LoginAnswer,
    LoginRequest,
    RegisterRequest,
)
from voicechat.server.rest.media.openai_media import json_response
from voicechat.server.rest.operation import JSON, Body, Operation, Shape
from voicechat.store.quotas import QuotaExceededError

REGISTRATIONS = 10
PERIOD_S = 3600.0
"""Registrations from one network in this time."""
MAX_NETWORKS = 4096
AT_ONCE = 2
"""Passwords hashed at once: each takes 64 MiB."""
MOST_REQUESTS = 20
"""Requests that hash a password or wait for it: about a second's work."""
ERRORS = (400, 401, 408, 413, 429, 500, 503)


class AccountGate:
    """Registers users, logs them in, and verifies their ids. Each process has its own
    and counts for itself.
    """

    def __init__(self, parts: CompatParts) -> None:
        """Raises ConfigError without argon2-cffi, or without a guest key, whose quota
        the users share.
        """
        try:
            from voicechat.store.accounts import AccountStore
        except ImportError as error:
            raise ConfigError(
                "compat.documents: accounts needs pip install 'voicechat[accounts]'"
            ) from error
        if not parts.backend.has_guests:
            raise ConfigError("compat.guest_key: accounts needs it: users get what it opens")
        self._store = AccountStore(parts.settings.data_dir)
        self._origins = parts.settings.origins
        self._failures = AuthThrottle()
        self._registered: OrderedDict[str, list[float]] = OrderedDict()
        self._places = asyncio.Semaphore(AT_ONCE)
        self._requests = 0

    def operations(self) -> list[Operation]:
        """List the endpoints."""
        return [
            Operation(
                method="POST",
                paths=("/auth/register",),
                tag="spark",
                summary="Make an account",
                details="The answer is the same whether the name was free or not.",
                handle=self._register,
                body=RegisterRequest,
                answers={200: (Body(JSON, AccountAnswer),)},
                errors=ERRORS,
                shape=Shape.CODED,
                needs_key=False,
            ),
            Operation(
                method="POST",
                paths=("/auth/login",),
                tag="spark",
                summary="Log in",
                handle=self._log_in,
                body=LoginRequest,
                answers={200: (Body(JSON, LoginAnswer),)},
                errors=ERRORS,
                shape=Shape.CODED,
                needs_key=False,
            ),
        ]

    async def check(self, request: web.Request, name: str, user_id: str) -> None:
        """Raise ``AdmissionError`` (NOT_AUTHORISED), delayed as for a wrong key, unless
        this is the id of that user.
        """
        known = bool(name and user_id) and await asyncio.to_thread(self._store.knows, name, user_id)
        if not known:
            await self._failures.delay_refusal(self._origins.client_address(request))
            raise AdmissionError(Status.NOT_AUTHORISED, "uuid: is not that of this username")

    async def _register(self, request: web.Request) -> web.Response:
        asked = await read_body(request, RegisterRequest, 4096)
        self._count_registration(network_of(self._origins.client_address(request)))
        async with self._place():
            await asyncio.to_thread(
                self._store.register,
                asked.username,
                asked.password,
                asked.email,
                int(unix_s()),
            )
        message = "注册请求已受理；若用户名可用，现在即可登录"
        return json_response(AccountAnswer(code=0, msg=message))

    async def _log_in(self, request: web.Request) -> web.Response:
        asked = await read_body(request, LoginRequest, 4096)
        async with self._place():
            user_id = await asyncio.to_thread(self._store.log_in, asked.username, asked.password)
        if not user_id:
            await self._failures.delay_refusal(self._origins.client_address(request))
            raise AdmissionError(Status.NOT_AUTHORISED, "用户名或密码错误")
        return json_response(LoginAnswer(code=0, msg="登录成功", uuid=user_id))

    @asynccontextmanager
    async def _place(self) -> AsyncGenerator[None, None]:
        """Hold a place for hashing a password. Raises ``AtCapacityError``."""
        if self._requests >= MOST_REQUESTS:
            raise AtCapacityError("too many users log in at the moment", 1)
        self._requests += 1
        try:
            async with self._places:
                yield
        finally:
            self._requests -= 1

    def _count_registration(self, network: str) -> None:
        """Raises ``QuotaExceededError``."""
        now_s = asyncio.get_running_loop().time()
        times = [at for at in self._registered.pop(network, []) if at > now_s - PERIOD_S]
        if len(times) >= REGISTRATIONS:
            self._registered[network] = times
            raise QuotaExceededError(
                f"{REGISTRATIONS} accounts an hour from one network", int(PERIOD_S)
            )
        self._registered[network] = [*times, now_s]
        if len(self._registered) > MAX_NETWORKS:
            self._registered.popitem(last=False)
