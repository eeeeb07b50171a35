"""Checks the signatures of telephone providers' requests."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from voicechat.config import PhoneConfig
from voicechat.errors import ConfigError

FRESH_S = 300
"""A signature with a time is valid for this long before and after that time, as in the
providers' own libraries.
"""
PLIVO_NONCE = "X-Plivo-Signature-V3-Nonce"
TELNYX_TIMESTAMP = "Telnyx-Timestamp"
HEADERS: Mapping[str, str] = {
    "twilio": "X-Twilio-Signature",
    "plivo": "X-Plivo-Signature-V3",
    "telnyx": "Telnyx-Signature-Ed25519",
    "vonage": "Authorization",
}
"""The header that holds a provider's signature."""
SETTINGS: Mapping[str, str] = {
    "twilio": "twilio_auth_token",
    "plivo": "plivo_auth_token",
    "telnyx": "telnyx_public_key",
    "vonage": "vonage_signature_secret",
}
"""The key of ``[phone]`` with the secret that checks it."""
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """The parts of a request that signatures cover."""

    url: str
    """The URL as the provider called it."""
    form: Sequence[tuple[str, str]]
    body: bytes
    headers: Mapping[str, str]
    """The headers. Names are case-insensitive, as in aiohttp."""
    now_s: float
    """Unix time."""


Check: TypeAlias = Callable[[SignedRequest], bool]


def checks_of(config: PhoneConfig) -> dict[str, Check]:
    """Return a check for each provider whose secret is configured.

    Raises ``ConfigError`` for an invalid key, and if ``voicechat[phones]`` is needed
    but not installed.
    """
    checks: dict[str, Check] = {}
    if config.twilio_auth_token:
        checks["twilio"] = partial(_twilio_check, config.twilio_auth_token)
    if config.plivo_auth_token:
        checks["plivo"] = partial(_plivo_check, config.plivo_auth_token)
    if config.telnyx_public_key:
        checks["telnyx"] = telnyx_check(config.telnyx_public_key)
    if config.vonage_signature_secret:
        checks["vonage"] = vonage_check(config.vonage_signature_secret)
    return checks


def _twilio_check(auth_token: str, request: SignedRequest) -> bool:
    signature = request.headers.get(HEADERS["twilio"], "")
    return is_from_twilio(auth_token, request.url, request.form, signature)


def _plivo_check(auth_token: str, request: SignedRequest) -> bool:
    nonce = request.headers.get(PLIVO_NONCE, "")
    signatures = request.headers.get(HEADERS["plivo"], "")
    return is_from_plivo(auth_token, request.url, request.form, nonce, signatures)


def is_from_twilio(
    auth_token: str, url: str, fields: Iterable[tuple[str, str]], signature: str
) -> bool:
    """Check Twilio's ``X-Twilio-Signature``: the HMAC-SHA1, in base64, of the URL that
    it called and of every field of the form, sorted, name and value.

    Source: twilio.com/docs/usage/security. Twilio may or may not have written the
    scheme's own port in the URL, so both are tried.
    """
    text = "".join(f"{name}{value}" for name, value in sorted(set(fields)))
    offered = signature.encode("utf-8", "surrogateescape")
    return any(
        hmac.compare_digest(_digest(auth_token, written + text), offered)
        for written in _with_and_without_port(url)
    )


def is_from_plivo(
    auth_token: str,
    url: str,
    fields: Iterable[tuple[str, str]],
    nonce: str,
    signatures: str,
) -> bool:
    """Check Plivo's ``X-Plivo-Signature-V3``: the HMAC-SHA256, in base64, of the URL
    that it called with its query sorted, of every field of the form, sorted, and of the
    nonce in ``X-Plivo-Signature-V3-Nonce``. Several signatures are separated by commas.

    Source: plivo.com/docs/voice/concepts/signature-validation.
    """
    parts = urlsplit(url)
    query = "&".join(f"{n}={v}" for n, v in sorted(parse_qsl(parts.query, keep_blank_values=True)))
    form = "".join(f"{name}{value}" for name, value in sorted(fields))
    text = urlunsplit(parts._replace(query="", fragment=""))
    text += f"?{query}" if query or form else ""
    text += f".{form}" if query and form else form
    signed = f"{text}.{nonce}".encode("utf-8", "surrogateescape")
    expected = base64.b64encode(hmac.new(auth_token.encode(), signed, hashlib.sha256).digest())
    offered = signatures.encode("utf-8", "surrogateescape").split(b",")
    return any(hmac.compare_digest(expected, each.strip()) for each in offered)


def telnyx_check(public_key: str) -> Check:
    """Return a check of Telnyx' ``Telnyx-Signature-Ed25519``: the Ed25519 signature, in
    base64, of the time in ``Telnyx-Timestamp``, ``|`` and the body.

    Source: developers.telnyx.com/docs/development/api-fundamentals/webhooks. Raises
    ``ConfigError``.
    """
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError as error:
        raise _needs_extra("telnyx_public_key") from error
    try:
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key, validate=True))
    except ValueError as error:  # includes binascii's errors
        raise ConfigError(
            "phone.telnyx_public_key: is not the 32 bytes of an Ed25519 key in base64"
        ) from error

    def is_from_telnyx(request: SignedRequest) -> bool:
        timestamp = request.headers.get(TELNYX_TIMESTAMP, "")
        if not (timestamp.isdecimal() and timestamp.isascii()):
            return False
        if len(timestamp) > 12 or abs(request.now_s - int(timestamp)) > FRESH_S:
            return False
        try:
            signature = base64.b64decode(request.headers.get(HEADERS["telnyx"], ""), validate=True)
            key.verify(signature, timestamp.encode() + b"|" + request.body)
        except (binascii.Error, ValueError, InvalidSignature):
            return False
        return True

    return is_from_telnyx


def vonage_check(secret: str) -> Check:
    """Return a check of Vonage's ``Authorization``: a JWT, signed with HMAC-SHA256,
    that contains its time of issue and the SHA-256 of the body.

    It does not cover the query, so for GET it authenticates the sender but not the
    parameters. Source: developer.vonage.com/en/getting-started/concepts/webhooks.
    Raises ``ConfigError``.
    """
    try:
        import jwt
    except ImportError as error:
        raise _needs_extra("vonage_signature_secret") from error

    def is_from_vonage(request: SignedRequest) -> bool:
        scheme, _, token = request.headers.get(HEADERS["vonage"], "").partition(" ")
        if scheme.lower() != "bearer":
            return False
        try:
            claims = jwt.decode(
                token.strip(),
                secret,
                algorithms=["HS256"],
                options={"require": ["iat"], "verify_aud": False, "verify_iat": False},
            )
        except jwt.InvalidTokenError:
            return False
        made_s, hashed = claims["iat"], claims.get("payload_hash", "")
        if not isinstance(made_s, int) or abs(request.now_s - made_s) > FRESH_S:
            return False
        if not request.body:
            return True
        expected = hashlib.sha256(request.body).hexdigest()
        return isinstance(hashed, str) and hmac.compare_digest(expected.encode(), hashed.encode())

    return is_from_vonage


def _needs_extra(key: str) -> ConfigError:
    return ConfigError(f"phone.{key}: needs pip install 'voicechat[phones]'")


def _digest(auth_token: str, text: str) -> bytes:
    mac = hmac.new(auth_token.encode(), text.encode("utf-8", "surrogateescape"), hashlib.sha1)
    return base64.b64encode(mac.digest())


def _with_and_without_port(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    bare = parts.netloc.removesuffix(f":{_PORTS.get(parts.scheme, '')}")
    port = "" if _has_port(bare) else f":{_PORTS.get(parts.scheme, 443)}"
    return (
        urlunsplit(parts._replace(netloc=bare)),
        urlunsplit(parts._replace(netloc=bare + port)),
    )


def _has_port(netloc: str) -> bool:
    return netloc.rpartition("]")[2].count(":") == 1
