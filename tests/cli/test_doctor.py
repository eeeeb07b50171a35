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


def test_tools_are_loaded_and_not_called(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configure(directory, '[tools.siren]\nfunction = "scripted_services:sound_the_siren"\n')
    configure(directory, '[tools.bell]\nfunction = "scripted_services:ring"\n')
    assert main(["doctor"]) == 1
    output = capsys.readouterr().out
    assert "ok   tools.siren (scripted_services:sound_the_siren): loaded, with a deadline of 10 s" in output
    assert "FAIL tools.bell (scripted_services:ring): function: 'scripted_services' has no function 'ring'" in output


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
