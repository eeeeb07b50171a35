import logging

import pytest

from voicechat.proxies import proxy_of

NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("http://models.example/v1", "http://one:1"),
        ("ws://models.example/v1", "http://one:1"),
        ("https://models.example/v1", "http://two:2"),
        ("wss://models.example:9/v1", "http://two:2"),
        ("https://inside.example/v1", None),
        ("http://localhost:11434/v1", None),
        ("http://127.8.0.1/v1", None),
        ("http://[::1]:8/v1", None),
    ],
)
def test_which_proxy_an_address_has(
    url: str, proxy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://one:1")
    monkeypatch.setenv("HTTPS_PROXY", "two:2")
    monkeypatch.setenv("NO_PROXY", "inside.example")
    assert proxy_of(url) == proxy


def test_without_one_there_is_none() -> None:
    assert proxy_of("http://models.example/v1") is None


def test_a_proxy_of_another_kind_is_passed_over_and_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://user:secret@one:1")
    with caplog.at_level(logging.WARNING):
        assert proxy_of("http://models.example/v1") is None
    assert "socks5" in caplog.text
    assert "secret" not in caplog.text
