"""Whether a request comes from the provider that it says it comes from."""

import base64
import hashlib
import hmac
from collections.abc import Iterable
from urllib.parse import parse_qsl, urlsplit, urlunsplit

_PORTS = {"http": 80, "https": 443}


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
    nonce in ``X-Plivo-Signature-V3-Nonce``. Several signatures stand behind commas.

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
