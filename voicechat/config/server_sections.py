"""The sections of the port and of who connects to it."""

import re
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field

from voicechat.config.section import ConfigSection, Names, Network, as_tuple, network
from voicechat.names import ANY, DEFAULT
from voicechat.store.resumption.sealing_keys import read_key

SHORTEST_SECRET = 8
REDIS_SCHEMES = ("redis://", "rediss://", "unix://")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.\-]*://[^/?#@\s]+", re.IGNORECASE)


def _web_origin(text: str) -> str:
    origin = text.removesuffix("/")
    if origin not in (ANY, "null") and not _ORIGIN.fullmatch(origin):
        raise ValueError("an origin such as https://app.example, null, or *")
    return origin


def _secret(text: str) -> str:
    if text and len(text) < SHORTEST_SECRET:
        raise ValueError(f"{SHORTEST_SECRET} characters long at least")
    return text


class ServerConfig(ConfigSection):
    """``[server]``: the address, and who may connect."""

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    """The address to listen on. If other machines can reach it, clients need a key."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """0: any free port."""
    workers: Annotated[int, Field(ge=1, le=256)] | None = None
    """The number of processes that serve. Unset: one for each core, or one for eight
    cores if models run on this machine.
    """
    max_sessions: Annotated[int, Field(ge=1)] = 500
    """Above this number, new sessions are refused with AT_CAPACITY."""
    drain_s: Annotated[float, Field(ge=0, le=3600)] = 30.0
    """How long turns in progress may take to end after SIGTERM."""
    speech_cache_mib: Annotated[int, Field(ge=0, le=65536)] = 8
    """Size of each synthesiser's cache of repeated speech; 0: no cache."""
    allowed_origins: Annotated[
        tuple[Annotated[str, AfterValidator(_web_origin)], ...], BeforeValidator(as_tuple)
    ] = ()
    """Web origins besides the server's own whose pages may use the sockets and, by
    CORS, the REST endpoints, such as `https://app.example`. `null`: pages without an
    origin, such as files; `*`: all.
    """
    announce: bool = True
    """True: announce the Wyoming port (`_wyoming._tcp`) and the devices' OTA address
    (`_xiaozhi-ota._tcp`) to the local network by multicast DNS, if other machines can
    reach the server and the extra `zeroconf` is installed.
    """
    metrics_key: Annotated[str, AfterValidator(_secret), Field(repr=False)] = ""
    """The key for `/metrics`, at least 8 characters. Empty: only this machine may read
    the metrics.
    """
    trusted_proxies: Annotated[
        tuple[Annotated[Network, BeforeValidator(network)], ...], BeforeValidator(as_tuple)
    ] = ()
    """The networks of reverse proxies. `X-Forwarded-For` and `X-Forwarded-Host` are
    used only if they come from one of these.
    """


class AdmissionConfig(ConfigSection):
    """``[admission]``: the load at which a process stops beginning replies early
    (shed), and at which it refuses new sessions (refuse).
    """

    unquestioned_sessions: Annotated[int, Field(ge=0)] = 4
    """The number of sessions that a process admits whatever its load."""
    busy_shed_percent: Annotated[float, Field(gt=0)] = 65.0
    """CPU load in percent: the share of time in which the event loop computes or waits
    for a core, or the CPU time of the process divided by its share of the cores,
    whichever is more. Above 100: never.
    """
    busy_refuse_percent: Annotated[float, Field(gt=0)] = 75.0
    """The same, for refusing."""
    loop_lag_shed_ms: Annotated[float, Field(gt=0)] = 20.0
    """How late the event loop runs its timers."""
    loop_lag_refuse_ms: Annotated[float, Field(gt=0)] = 50.0
    """The same, for refusing."""
    encoding_lag_shed_ms: Annotated[float, Field(gt=0)] = 30.0
    """How long audio waits for an encoder."""
    encoding_lag_refuse_ms: Annotated[float, Field(gt=0)] = 80.0
    """The same, for refusing."""
    detection_lag_shed_ms: Annotated[float, Field(gt=0)] = 60.0
    """How long audio waits for voice detection. A frame is 32 ms long, and gathering a
    batch takes up to 15 ms.
    """
    detection_lag_refuse_ms: Annotated[float, Field(gt=0)] = 150.0
    """The same, for refusing."""
    waiting_streams_shed: Annotated[int, Field(ge=1)] = 1
    """The number of streams that wait for a slot of a provider."""
    waiting_streams_refuse: Annotated[int, Field(ge=1)] = 2
    """The same, for refusing."""


def _redis_url(text: str) -> str:
    if text and not text.startswith(REDIS_SCHEMES):
        raise ValueError("redis://..., rediss://..., unix://..., or empty for one machine")
    return text


class ClusterConfig(ConfigSection):
    """``[cluster]``: several machines that serve the same clients."""

    redis: Annotated[str, AfterValidator(_redis_url), Field(repr=False)] = ""
    """``redis://[:PASSWORD@]HOST[:PORT][/NUMBER]``, ``rediss://`` (with TLS) or
    ``unix://``: Redis from version 6 or Valkey. In it the machines count the quotas of
    keys together, and keep the tokens and transferred calls that each of them accepts.
    Requires `voicechat[cluster]`. Empty: this machine counts for itself.
    """
    deadline_ms: Annotated[int, Field(ge=10, le=10_000)] = 250
    """How long a request may wait for Redis before the machine decides by itself."""


def _resumption_store(text: str) -> str:
    if text not in ("", "memory", "sqlite") and not text.startswith(REDIS_SCHEMES):
        raise ValueError("memory, sqlite, redis://..., rediss://... or unix://...")
    return text


def _sealing_key(text: str) -> str:
    if text:
        read_key(text)
    return text


class ResumptionConfig(ConfigSection):
    """``[resumption]``: where the states of conversations are kept, so that they can
    continue after a lost connection. States are encrypted (AES-256-GCM) wherever they
    leave the process. No protocol offers it yet: `voicechat doctor` tries the store.
    """

    window_ms: Annotated[int, Field(ge=0, le=3_600_000)] = 30_000
    """How long after a lost connection a client may return. 0: no conversation can be
    resumed.
    """
    store: Annotated[str, AfterValidator(_resumption_store), Field(repr=False)] = "sqlite"
    """Where the states are kept. ``sqlite``: in a file of the data directory, which
    survives a killed process. ``memory``: in each process for itself.
    ``redis://[:PASSWORD@]HOST[:PORT][/NUMBER]``, ``rediss://`` (with TLS) or
    ``unix://``: in Redis from version 6 or Valkey, for several machines; it requires
    ``key`` and `voicechat[cluster]`.
    """
    key: Annotated[str, AfterValidator(_sealing_key), Field(repr=False)] = ""
    """The key that encrypts: 32 random bytes in base64, as `openssl rand -base64 32`
    prints. All machines need the same. Empty: the server makes one, in the file
    ``resumption.key`` of the data directory.
    """
    old_keys: Annotated[
        tuple[Annotated[str, AfterValidator(_sealing_key)], ...],
        Field(repr=False),
        BeforeValidator(as_tuple),
    ] = ()
    """Keys that only decrypt. To change the key, first add the new one here on all
    machines, then exchange both, then remove the old one.
    """
    deadline_ms: Annotated[int, Field(ge=10, le=60_000)] = 1_000
    """How long an operation of the store may take. No audio waits for it; a client that
    returns does.
    """


Document: TypeAlias = Literal["sophnet", "platforms", "portal", "relay", "spark", "accounts"]


class CompatConfig(ConfigSection):
    """``[compat]``: behaviour that clients of the original service may rely on."""

    chat_update_reply: Literal["chat.updated", "chat.update"] = "chat.updated"
    """The type of the event that answers ``chat.update``."""
    strict_ping: bool = False
    """True: only ``ping`` shows that a client is alive."""
    documents: Annotated[tuple[Document, ...], BeforeValidator(as_tuple)] = (
        "sophnet",
        "platforms",
        "portal",
        "relay",
        "spark",
    )
    """Other documents whose endpoints the server offers; see `docs/compat.md`."""
    guest_key: Annotated[str, AfterValidator(_secret), Field(repr=False)] = ""
    """The key used for requests without a key to the documents `portal` (including its
    chat and pictures at OpenAI's paths), `relay` and `spark`, whose clients send none.
    Anyone who can reach the server may then use what this key opens. Empty: such
    requests are refused.
    """


class PlatformConfig(ConfigSection):
    """``[platforms.NAME]``: a group of services, which clients use at
    ``/NAME/v1/...``. Without such a section every name means all services.
    """

    llm: Names | None = None
    """The chat models; unset: all."""
    images: Names | None = None
    """The services for pictures; unset: all."""
    videos: Names | None = None
    """The services for videos; unset: all."""


class DevicesConfig(ConfigSection):
    """``[devices]``: devices with the xiaozhi firmware."""

    accept: Literal["code", "local"] = "code"
    """How an unknown device is admitted. ``code``: it says six digits, with which
    `voicechat devices pair` admits it. ``local``: devices with a private network
    address (10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, fc00::/7, this machine) also
    without a code.
    """
    public_url: Annotated[str, Field(pattern=r"^(https?://[^/?#\s]+)?$")] = ""
    """The address at which devices reach the server, such as `https://voice.example`.
    Empty: the address that they used for their first request.
    """
    frame_version: Literal[1, 2, 3] = 1
    """The version of the audio frames that devices are told to use. Version 2 has time
    stamps, which the server needs to cancel a device's echo.
    """
    wake_words: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=100)], ...], BeforeValidator(as_tuple)
    ] = ()
    """Wake words besides the firmware's usual ones."""
    answer_wake_word: bool = False
    """True: the chat model answers the wake word. False: the device only listens."""
    show_failures: bool = True
    """True: the display shows the failure of a service."""
    emotions: bool = True
    """True: the chat model is told to begin each answer with an emoji, which the device
    shows as a face. It is not spoken.
    """
    emotion_signs: dict[
        Annotated[str, Field(min_length=1, max_length=32)],
        Annotated[str, Field(pattern=r"^[a-z_]{1,32}$")],
    ] = {}
    """Further emoji, and words in marks such as `[grin]` or `【偷笑】`, in any
    language, with the emotion that the device shows for each: `{ grin = "laughing" }`.
    The firmware's 21 emotions and usual Chinese words for them are known already.
    """
    vision: str = ""
    """The chat model that describes a device's photos. Empty: the default one."""


class PhoneConfig(ConfigSection):
    """``[phone]``: the webhooks of telephone providers."""

    public_url: Annotated[str, Field(pattern=r"^(https?://[^?#\s]+)?$")] = ""
    """The address at which providers reach this server, such as
    `https://voice.example`. Empty: the address of the request, as seen by the client if
    the request comes through one of `server.trusted_proxies`.
    """
    twilio_auth_token: Annotated[str, AfterValidator(_secret), Field(repr=False)] = ""
    """The account's auth token, with which the server verifies the signatures of
    Twilio's webhooks. Empty: they need a key, like those of the other providers.
    """
    plivo_auth_token: Annotated[str, AfterValidator(_secret), Field(repr=False)] = ""
    """The account's auth token, with which the server verifies the signatures of
    Plivo's webhooks. Empty: they need a key.
    """
    telnyx_public_key: str = ""
    """The account's public key, as the portal shows it, with which the server verifies
    the signatures of Telnyx' webhooks. Empty: they need a key. Requires
    `voicechat[phones]`.
    """
    vonage_signature_secret: Annotated[str, AfterValidator(_secret), Field(repr=False)] = ""
    """The account's signature secret, with which the server verifies the signatures of
    Vonage's webhooks. Empty: they need a key. Requires `voicechat[phones]`.
    """


class WyomingConfig(ConfigSection):
    """``[wyoming]``: recognition and speech for Home Assistant, by the Wyoming
    protocol. The protocol has no keys: anyone who can reach the port may use it.
    """

    port: Annotated[int, Field(ge=0, le=65535)] | None = None
    """The TCP port, usually 10300; 0: any free one. Unset: the service is off."""
    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    """The address to listen on."""
    asr: str = DEFAULT
    """The recogniser to offer."""
    tts: str = DEFAULT
    """The synthesiser to offer, with its voices."""
    languages: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$")], ...],
        BeforeValidator(as_tuple),
        Field(min_length=1),
    ] = ("en", "zh")
    """Languages that both are said to know: Home Assistant asks for that of its
    assistant.
    """
