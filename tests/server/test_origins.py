import ipaddress
from typing import Any

import pytest

from tests.server.requests import request
from voicechat.server.origins import Origins, origin_of, same_origin

PROXY = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8"))


@pytest.mark.parametrize(
    ("host", "origin", "port", "may"),
    [
        ("h:8000", "http://h:8000", 8000, True),
        ("h:443", "https://h", 8000, True),
        ("h", "https://h:443", 80, True),
        ("h:80", "http://H", 80, True),
        ("h", "http://h", 80, True),
        ("h", "https://h:8443", 8000, True),
        ("h", "https://h:8443", 443, False),
        ("h:8000", "http://h:8001", 8000, False),
        ("h:8000", "http://h", 8000, False),
        ("h", "https://other:8443", 8000, False),
        ("h", "ftp://h", 8000, False),
        ("[::1]:8000", "http://[::1]:8000", 8000, True),
        ("[::1]", "http://[::2]", 8000, False),
        ("h", "null", 8000, False),
        ("h", "http://user@h", 8000, False),
        ("h", "http://h/", 8000, False),
        ("", "http://", 8000, False),
    ],
)
def test_a_page_of_this_very_host_may_connect_however_its_port_is_written(
    host: str, origin: str, port: int, may: bool
) -> None:
    assert Origins().may_connect(request(host, origin, port=port)) is may


def test_no_page_may_connect_and_two_origins_may_not() -> None:
    assert Origins().may_connect(request("h"))
    assert not Origins(["*"]).may_connect(request("h:8000", "http://h:8000", "http://h:8000"))


@pytest.mark.parametrize(
    "origin", ["https://app.example", "https://APP.example", "https://app.example:443"]
)
def test_an_allowed_origin_is_compared_by_what_it_means(origin: str) -> None:
    assert Origins(["https://app.example"]).allows(origin)
    assert Origins(["HTTPS://App.Example:443"]).allows(origin)
    assert not Origins(["http://app.example", "https://app.example:8443"]).allows(origin)


def test_apps_and_files_have_origins_too() -> None:
    origins = Origins(["capacitor://localhost", "null", "chrome-extension://abcdef"])
    assert all(map(origins.allows, ("capacitor://localhost", "null", "chrome-extension://abcdef")))
    assert not origins.allows("tauri://localhost")
    assert not Origins(["https://a.example"]).allows("null")


def test_the_star_allows_every_page() -> None:
    assert Origins(["*"]).may_connect(request("h", "https://any.example"))
    assert Origins(["*"]).allows("null")
    assert not Origins(["https://*.example"]).allows("https://a.example")


def test_a_trusted_proxy_says_which_host_the_page_has() -> None:
    forwarded: dict[str, Any] = {"X_Forwarded_Host": "app.example:8443"}
    origins = Origins((), PROXY)
    assert origins.may_connect(
        request("inner:8000", "https://app.example:8443", peer="10.1.2.3", **forwarded)
    )
    assert not origins.may_connect(request("inner:8000", "https://app.example:8443", **forwarded))


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("192.0.2.1", "203.0.113.9", "192.0.2.1"),
        ("10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "6.6.6.6, 203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "203.0.113.9, 10.0.0.2", "203.0.113.9"),
        ("10.0.0.1", "203.0.113.9:1234", "203.0.113.9"),
        ("fd00::1", "[2001:db8::1]:1234", "2001:db8::1"),
        ("::ffff:10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "unknown", "10.0.0.1"),
        ("10.0.0.1", "SECRET, 10.0.0.2", "10.0.0.2"),
    ],
)
def test_an_address_is_believed_as_far_as_the_proxies_are(
    peer: str, forwarded: str, client: str
) -> None:
    assert (
        Origins((), PROXY).client_address(request("h", peer=peer, X_Forwarded_For=forwarded))
        == client
    )


def test_what_is_quoted_of_an_origin_has_a_bound() -> None:
    assert len(origin_of(request("h", "x" * 5_000, "y" * 5_000, "z"))) < 200


def test_origins_are_the_same_by_what_they_mean() -> None:
    assert same_origin("https://a.example", "https://A.example:443")
    assert same_origin("null", "null")
    assert not same_origin("", "https://a.example")
