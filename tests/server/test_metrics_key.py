import ipaddress

import pytest
from aiohttp import web

from tests.server.requests import request
from voicechat.errors import AdmissionError
from voicechat.server.auth import require_metrics_key
from voicechat.server.origins import Origins

PROXY = Origins((), [ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("127.0.0.0/8")])
KEY = "metrics-key"


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"])
def test_without_a_key_the_machine_itself_may_look(peer: str) -> None:
    require_metrics_key(request("h", peer=peer), "", Origins())


@pytest.mark.parametrize("origins", [Origins(), PROXY])
def test_without_a_key_nobody_else_may_and_nobody_by_a_proxy(origins: Origins) -> None:
    others = [
        request("h", peer="192.0.2.1"),
        request("h", peer="127.0.0.1", X_Forwarded_For="192.0.2.1"),
        request("h", peer="127.0.0.1", X_Forwarded_For="127.0.0.1"),
        request("h", peer="10.0.0.1", X_Forwarded_For="127.0.0.1"),
    ]
    for other in others:
        with pytest.raises(AdmissionError, match=r"server\.metrics_key"):
            require_metrics_key(other, "", origins)


def test_with_a_key_whoever_has_it_may_look_and_nobody_else() -> None:
    require_metrics_key(
        request("h", peer="192.0.2.1", Authorization=f"Bearer {KEY}"), KEY, Origins()
    )
    for other in (request("h", peer="127.0.0.1"), request("h", Authorization="Bearer wrong")):
        with pytest.raises(AdmissionError, match=r"server\.metrics_key"):
            require_metrics_key(other, KEY, Origins())


@pytest.mark.parametrize(
    "brought",
    [
        request("h", peer="127.0.0.1", Forwarded="for=192.0.2.1"),
        request("h", peer="127.0.0.1", Via="1.1 proxy"),
        request("h", peer="127.0.0.1", X_Forwarded_Proto="https"),
        request("h", peer="127.0.0.1", X_Forwarded_Host="voice.example"),
        request("h", peer="127.0.0.1", X_Real_IP="192.0.2.1"),
    ],
    ids=lambda brought: list(brought.headers)[-1],
)
def test_whatever_a_proxy_adds_it_is_not_this_machine(brought: web.Request) -> None:
    with pytest.raises(AdmissionError, match=r"server\.metrics_key"):
        require_metrics_key(brought, "", Origins())
