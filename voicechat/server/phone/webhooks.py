"""The endpoints of telephone providers: ``/phone/PROVIDER/voice`` answers an incoming
call, ``/phone/PROVIDER/after`` returns how it continues, and ``/phone/transfers/CALL``
returns the same to the operator's own telephone system.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote

import orjson
from aiohttp import hdrs, web

from voicechat.agents import Agents, Arrival
from voicechat.config import PhoneConfig
from voicechat.errors import AdmissionError, RemoteProtocolError, Status
from voicechat.runtime.wall_clock import unix_s
from voicechat.server.admission import Admission
from voicechat.server.auth import Principal
from voicechat.server.mount import Authorise
from voicechat.server.origins import Origins
from voicechat.server.phone.answers import PROVIDERS, PhoneProvider, StreamAddress
from voicechat.server.phone.signatures import HEADERS, SETTINGS, SignedRequest, checks_of
from voicechat.server.rest.failures import answering_by_contract
from voicechat.session.fallback_message import FallbackMessage
from voicechat.store.access import ApiEndpoint, Scope
from voicechat.store.tokens import TokenGrant

KEY_ID = "phone"
"""The key id of calls whose webhooks are signed. This key is in no file and is usable
only through tokens.
"""
TOKEN_LIFE_S = 60
"""Validity of a stream's token. A provider opens the stream within a second of the
webhook.
"""
MAX_FORM_BYTES = 64 * 1024
MAX_FIELDS = 500

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Webhook:
    """A webhook that has been read and authorised."""

    provider: PhoneProvider
    fields: dict[str, str]
    principal: Principal


class PhoneWebhooks:
    """The endpoints of one process of the server."""

    def __init__(
        self,
        config: PhoneConfig,
        authorise: Authorise,
        issue_token: Callable[[TokenGrant, int], Awaitable[str]],
        admission: Admission,
        take_handover: Callable[[str], Awaitable[str]],
        *,
        origins: Origins,
        agents: Agents,
        apology: FallbackMessage | None,
    ) -> None:
        """``issue_token`` is `Authoriser.issue_token`."""
        self._config = config
        self._checks = checks_of(config)
        self._authorise = authorise
        self._issue_token = issue_token
        self._admission = admission
        self._take_handover = take_handover
        self._origins = origins
        self._agents = agents
        self._apology = apology

    def routes(self) -> Sequence[web.RouteDef]:
        """Return the routes."""
        voice, after = answering_by_contract(self._voice), answering_by_contract(self._after)
        paths = ("/phone/{provider}/voice", "/phone/{provider}/voice/{agent}")
        return (
            *(web.route(method, path, voice) for path in paths for method in ("GET", "POST")),
            *(web.route(method, "/phone/{provider}/after", after) for method in ("GET", "POST")),
            web.get("/phone/transfers/{call}", answering_by_contract(self._transfer)),
        )

    async def _voice(self, request: web.Request) -> web.Response:
        """Connect an incoming call to its stream."""
        webhook = await self._read(request)
        provider, agent = webhook.provider, request.match_info.get("agent", "")
        call = provider.incoming(webhook.fields)
        arrival = Arrival(agent=agent, called=call.called, caller=call.caller)
        try:
            self._agents.choose_agent(arrival)
            async with self._admission.admitted(webhook.principal):
                token = await self._issue_token(_grant(webhook.principal), TOKEN_LIFE_S)
        except AdmissionError:
            return self._sorry(provider, arrival)
        except RemoteProtocolError as error:
            _log.warning("a call of %s has nobody to answer it: %s", request.path, error.message)
            return self._sorry(provider, arrival)
        base = self._base_url(request)
        name = request.match_info["provider"]
        path = f"/phone/{name}/stream" + (f"/{quote(agent, safe='')}" if agent else "")
        stream = StreamAddress(
            url=f"ws{base.removeprefix('http')}{path}",
            after_url=f"{base}/phone/{name}/after?call={quote(call.call_id, safe='')}",
            token=token,
        )
        return _answer(provider, provider.connect(call, stream))

    def _sorry(self, provider: PhoneProvider, arrival: Arrival) -> web.Response:
        """Answer that the call cannot be taken, spoken by the provider's own voice."""
        if self._apology is None:
            return _answer(provider, provider.hang_up())
        text = self._apology.in_language(self._agents.language_of(arrival))
        language = "zh-CN" if text == self._apology.zh else "en-US"
        return _answer(provider, provider.apologise(text, language))

    async def _after(self, request: web.Request) -> web.Response:
        """After the end of the stream, connect the call to the destination that the
        agent chose, or hang up. The call's id is the only credential needed.
        """
        provider = _provider(request)
        if self._signs(request):
            provider = (await self._read(request)).provider
        transfer_to = await self._take_handover(request.query.get("call", ""))
        return _answer(
            provider, provider.transfer(transfer_to) if transfer_to else provider.hang_up()
        )

    async def _transfer(self, request: web.Request) -> web.Response:
        """Return the destination of a call as text; empty if there is none."""
        await self._authorise(request, ApiEndpoint.CONVERSATION)
        return web.Response(text=await self._take_handover(request.match_info["call"]))

    # --- authorisation ----------------------------------------------------------------

    def _signs(self, request: web.Request) -> bool:
        """Return whether a signature authorises requests of this provider."""
        return request.match_info["provider"] in self._checks

    def _check_signature(
        self, request: web.Request, form: Sequence[tuple[str, str]], body: bytes
    ) -> None:
        """Raises AdmissionError unless the provider has signed the request."""
        name = request.match_info["provider"]
        url = self._base_url(request) + request.raw_path
        if not self._checks[name](SignedRequest(url, form, body, request.headers, unix_s())):
            raise AdmissionError(
                Status.NOT_AUTHORISED,
                f"{HEADERS[name]}: is not the signature of this request; check "
                f"phone.{SETTINGS[name]}, phone.public_url and the clock",
            )

    async def _read(self, request: web.Request) -> _Webhook:
        """Read a webhook and authorise it by its signature or by a key.

        Raises AdmissionError, or RemoteProtocolError if it cannot be read.
        """
        provider = _provider(request)
        body = await _body(request)
        form = _form(request, body)
        if self._signs(request):
            self._check_signature(request, form, body)
            principal = Principal(KEY_ID)
        else:
            principal = await self._authorise(request, ApiEndpoint.CONVERSATION)
        return _Webhook(provider, {**dict(request.query), **dict(form)}, principal)

    def _base_url(self, request: web.Request) -> str:
        """Return the URL at which the provider reaches this server, without a trailing
        slash.
        """
        return self._config.public_url.rstrip("/") or self._origins.public_url(request)


def phone_keys(config: PhoneConfig, secret: str) -> dict[str, str]:
    """Return the key under which signed webhooks create tokens. The mapping is empty if
    no provider's secret is configured.
    """
    signed = any(getattr(config, setting) for setting in SETTINGS.values())
    return {KEY_ID: secret} if signed else {}


def _provider(request: web.Request) -> PhoneProvider:
    name = request.match_info["provider"]
    if name not in PROVIDERS:
        known = ", ".join(PROVIDERS)
        raise RemoteProtocolError(
            Status.NOT_FOUND, f"there is no provider {name[:40]!r} (there are: {known})"
        )
    return PROVIDERS[name]


async def _body(request: web.Request) -> bytes:
    if request.method == hdrs.METH_GET:
        return b""
    if (request.content_length or 0) > MAX_FORM_BYTES:
        raise RemoteProtocolError(
            Status.TOO_LARGE, f"the form is longer than {MAX_FORM_BYTES} bytes"
        )
    body = await request.read()
    if len(body) > MAX_FORM_BYTES:
        raise RemoteProtocolError(
            Status.TOO_LARGE, f"the form is longer than {MAX_FORM_BYTES} bytes"
        )
    return body


def _form(request: web.Request, body: bytes) -> list[tuple[str, str]]:
    """Read the fields of a form or of a JSON object."""
    if not body:
        return []
    try:
        if request.content_type == "application/json":
            given = orjson.loads(body)
            fields = given if isinstance(given, dict) else {}
            return [(name, value) for name, value in fields.items() if isinstance(value, str)]
        return parse_qsl(
            body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict"
        )
    except ValueError:
        raise RemoteProtocolError(Status.MALFORMED, "the form cannot be read") from None


def _grant(principal: Principal) -> TokenGrant:
    scope = Scope(projects=principal.scope.projects, endpoints=(ApiEndpoint.CONVERSATION,))
    return TokenGrant(key_id=principal.key_id, scope=scope)


def _answer(provider: PhoneProvider, document: str) -> web.Response:
    headers = {hdrs.CACHE_CONTROL: "no-store"}
    return web.Response(text=document, content_type=provider.content_type, headers=headers)
