import socket
from pathlib import Path

import pytest

from voicechat.cli import main

pytestmark = pytest.mark.real_time


def test_when_all_works_the_status_is_0(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("ok ") for line in lines[:-1])
    assert lines[-1] == "everything that is configured works"
    for checked in ("configuration", "data directory", "keys", "port", "codecs", "tts.default", "asr.default"):
        assert any(checked in line for line in lines), checked
    assert "voicechat.toml" in lines[0]
    assert not list((directory / "data").glob(".probe*"))


def failures(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAIL")]


def configure(directory: Path, added: str) -> None:
    path = directory / "voicechat.toml"
    path.write_text(path.read_text() + added)


def test_each_broken_service_is_named_and_the_others_are_still_checked(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(directory, '[asr.mine]\nprovider = "nowhere.at_all:open"\n')
    configure(directory, '[llm.mute]\nprovider = "scripted_services:open_chat_model"\nreply = []\n')
    assert main(["doctor"]) == 1
    failed = failures(capsys)
    assert len(failed) == 2
    assert failed[0].startswith("FAIL asr.mine (nowhere.at_all:open): provider: ")
    assert failed[1].startswith("FAIL llm.mute (scripted_services:open_chat_model): it answered without any text")


def test_chains_are_shown_with_their_health(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mute = 'provider = "scripted_services:open_chat_model"\nreply = []\n'
    configure(directory, f'[llm.mute]\n{mute}fallback = ["default"]\n[llm.worse]\n{mute}fallback = ["mute"]\n')
    configure(directory, f"[llm.lost]\n{mute}")
    configure(directory, f'[llm.hopeless]\n{mute}fallback = ["lost"]\n')
    assert main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "ok   llm: mute -> default: llm.default answers (mute does not work, default works)" in lines
    assert any(line.startswith("ok   llm: worse -> mute -> default: llm.default answers") for line in lines)
    told = "FAIL llm: hopeless -> lost: nobody answers (hopeless does not work, lost does not work)"
    assert told in lines


def test_a_port_in_use_is_found(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        path = directory / "voicechat.toml"
        path.write_text(path.read_text().replace("port = 0", f"port = {port}"))
        assert main(["doctor"]) == 1
    assert failures(capsys) == [
        f"FAIL port: server.port: {port} is in use on 127.0.0.1; stop the other program or choose another port"
    ]


def test_an_open_host_without_a_key_is_found(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = directory / "voicechat.toml"
    path.write_text(path.read_text().replace("port = 0", 'port = 0\nhost = "0.0.0.0"'))
    assert main(["doctor"]) == 1
    assert [line.split(":")[0] for line in failures(capsys)] == ["FAIL keys"]


def test_a_broken_configuration_is_told(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configure(directory, "[sever]\n")
    assert main(["doctor"]) == 1
    assert failures(capsys)[0].startswith("FAIL configuration: sever: no such key; did you mean server?")


def test_a_data_directory_that_cannot_be_is_found(
    directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOICECHAT_DATA_DIR", str(directory / "voicechat.toml" / "data"))
    assert main(["doctor"]) == 1
    assert any("VOICECHAT_DATA_DIR" in line for line in failures(capsys))
