"""Whether a request comes from the provider that it says it comes from."""

import base64
import hashlib
import hmac
from collections.abc import Iterable
from urllib.parse import urlsplit, urlunsplit

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
