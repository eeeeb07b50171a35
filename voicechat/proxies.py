"""The environment's HTTP proxies: ``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY``,
``NO_PROXY``.

aiohttp's own ``trust_env`` also reads ``~/.netrc``, and then refuses a request that has
a key in its header. So the proxy is looked up here and passed explicitly.
"""

import ipaddress
import logging
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

logger = logging.getLogger(__name__)


def proxy_of(url: str) -> str | None:
    """Return the URL of the HTTP proxy for ``url`` (http, https, ws or wss); None:
    connect directly.

    Addresses of this machine are reached directly, since no proxy could. A proxy of
    another kind (``socks5://``) is ignored and logged.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_loopback(host) or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    scheme = {"ws": "http", "wss": "https"}.get(parts.scheme, parts.scheme)
    proxies = getproxies()
    proxy = proxies.get(scheme) or proxies.get("all")
    if not proxy:
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    kind = urlsplit(proxy).scheme
    if kind != "http":
        logger.warning(
            "the environment's proxy for %s is of the kind %s://, which is not supported",
            host,
            kind,
        )
        return None
    return proxy


def is_loopback(host: str) -> bool:
    """Return whether ``host`` is a loopback address or name."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
