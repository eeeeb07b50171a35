import base64
import re
import socket
from pathlib import Path

import pytest

from tests.providers.openai_service import saying, serving, unused_url
from tests.unused_port import unused_port
from tests.voice.test_turn_model import tiny_model
from voicechat.cli import checks, main
from voicechat.cli.doctor import Diagnosis, examine
from voicechat.config import ServiceConfig, load_config

pytestmark = pytest.mark.real_time


def test_when_all_works_the_status_is_0(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("ok ") for line in lines[:-1])
    assert lines[-1] == "everything that is configured works"
    for checked in (
        "configuration",
        "data directory",
        "keys",
        "port",
        "codecs",
        "models: none are pulled",
        "hands_free: voice model loaded; no turn_model",
        "tts.default",
        "asr.default",
        "embedders.default (scripted_services:open_embedder): it answered with 2 dimensions",
        "knowledge: in SQLite; searched by words, and by meaning with embedders.default",
        "resumption: sqlite: four operations took",
        "cluster: none: this machine counts for itself",
    ):
        assert any(checked in line for line in lines), checked
    assert "voicechat.toml" in lines[0]
    assert not list((directory / "data").glob(".probe*"))


def failures(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAIL")]


def configure(directory: Path, added: str) -> None:
    path = directory / "voicechat.toml"
    path.write_text(path.read_text() + added)


def test_without_an_embedder_it_says_what_is_lost(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(directory, '[knowledge]\nembedder = ""\n')
    assert main(["doctor"]) == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if "knowledge" in line]
    assert "searched by words only, because there is no embedder" in line
    assert "[embedders.default]" in line


def test_a_store_of_conversations_that_is_away_is_named(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, key = f"redis://:hidden@127.0.0.1:{unused_port()}", base64.b64encode(bytes(32)).decode()
    configure(directory, f'[resumption]\nstore = "{url}"\nkey = "{key}"\n')
    assert main(["doctor"]) == 1
    [line] = failures(capsys)
    assert "resumption.store does not work" in line
    assert "hidden" not in line


def test_a_cluster_that_is_away_is_named(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"redis://:hidden@127.0.0.1:{unused_port()}"
    configure(directory, f'[cluster]\nredis = "{url}"\n')
    assert main(["doctor"]) == 1
    [line] = failures(capsys)
    assert "cluster.redis does not answer" in line
    assert "hidden" not in line


def test_a_broken_knowledge_database_is_named(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"postgresql://nobody@127.0.0.1:{unused_port()}/none"
    configure(directory, f'[knowledge]\ndatabase_url = "{url}"\n')
    assert main(["doctor"]) == 1
    [line] = failures(capsys)
    assert line == "FAIL knowledge: knowledge cannot be read or written now; try again"


def test_each_broken_service_is_named_and_the_others_are_still_checked(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(directory, '[asr.mine]\nprovider = "nowhere.at_all:open"\n')
    configure(directory, '[llm.mute]\nprovider = "scripted_services:open_chat_model"\nreply = []\n')
    assert main(["doctor"]) == 1
    failed = failures(capsys)
    assert len(failed) == 2
    assert failed[0].startswith("FAIL asr.mine (nowhere.at_all:open): provider: ")
    assert failed[1].startswith(
        "FAIL llm.mute (scripted_services:open_chat_model): it answered without any text"
    )


def test_chains_are_shown_with_their_health(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mute = 'provider = "scripted_services:open_chat_model"\nreply = []\n'
    configure(
        directory,
        f'[llm.mute]\n{mute}fallback = ["default"]\n[llm.worse]\n{mute}fallback = ["mute"]\n',
    )
    configure(directory, f"[llm.lost]\n{mute}")
    configure(directory, f'[llm.hopeless]\n{mute}fallback = ["lost"]\n')
    assert main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert (
        "ok   llm: mute -> default: llm.default answers (mute does not work, default works)"
        in lines
    )
    assert any(
        line.startswith("ok   llm: worse -> mute -> default: llm.default answers") for line in lines
    )
    told = "FAIL llm: hopeless -> lost: nobody answers (hopeless does not work, lost does not work)"
    assert told in lines


def test_what_does_not_start_is_told_and_whether_the_server_does(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unstartable = 'provider = "scripted_services:open_unstartable"\n'
    configure(directory, f'[llm.late]\n{unstartable}fallback = ["default"]\n')
    configure(directory, f"[llm.never]\n{unstartable}")
    assert main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    told = "it does not start: scripted: broken: no model file"
    assert f"FAIL llm.late (scripted_services:open_unstartable): {told}" in lines
    assert (
        f"FAIL llm.never (scripted_services:open_unstartable): {told}; nor does the server, "
        "without a fallback" in lines
    )
    stands_in = (
        "llm.default answers, the server starts without llm.late (late does not start, default "
        "works)"
    )
    assert f"ok   llm: late -> default: {stands_in}" in lines


def test_tools_are_loaded_and_not_called(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(directory, '[tools.siren]\nfunction = "scripted_services:sound_the_siren"\n')
    configure(directory, '[tools.bell]\nfunction = "scripted_services:ring"\n')
    assert main(["doctor"]) == 1
    output = capsys.readouterr().out
    assert (
        "ok   tools.siren (scripted_services:sound_the_siren): loaded, with a deadline of 10 s"
        in output
    )
    assert (
        "FAIL tools.bell (scripted_services:ring): function: 'scripted_services' has no function "
        "'ring'" in output
    )


def test_agents_are_looked_at(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configure(
        directory,
        '[agents.hotel]\nvoice = "scripted"\n[agents.shop]\nvoice = '
        '"nobody"\n[agents.normalized_name]\n',
    )
    assert main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "ok   agents.hotel: llm.default, asr.default, tts.default, voice scripted" in lines
    assert (
        "ok   agents.normalized_name: llm.default, asr.default, tts.default, its default voice"
        in lines
    )
    assert any(
        line.startswith("FAIL agents.shop: tts.default has no voice 'nobody', but scripted")
        for line in lines
    )
    configure(directory, '[agents.lost]\nllm = "nowhere"\n')
    assert main(["doctor"]) == 1
    assert "agents.lost.llm: there is no llm 'nowhere'" in failures(capsys)[0]


def test_services_that_are_away_are_told_with_their_host(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = unused_port()
    configure(directory, f'[asr.own]\nprovider = "funasr"\nurl = "ws://127.0.0.1:{port}"\n')
    configure(directory, f'[tts.home]\nprovider = "wyoming"\nuri = "tcp://127.0.0.1:{port}"\n')
    assert main(["doctor"]) == 1
    assert failures(capsys) == [
        f"FAIL tts.home (wyoming): wyoming: connectivity: 127.0.0.1:{port}: ConnectionRefusedError",
        "FAIL asr.own (funasr): funasr: connectivity: 127.0.0.1: ConnectionRefusedError",
    ]


def test_a_port_in_use_is_found(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        path = directory / "voicechat.toml"
        path.write_text(path.read_text().replace("port = 0", f"port = {port}"))
        assert main(["doctor"]) == 1
    assert failures(capsys) == [
        f"FAIL port: server.port: {port} is in use on 127.0.0.1; stop the other program or choose "
        "another port"
    ]


def test_an_open_host_without_a_key_is_found(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = directory / "voicechat.toml"
    path.write_text(path.read_text().replace("port = 0", 'port = 0\nhost = "0.0.0.0"'))
    assert main(["doctor"]) == 1
    assert [line.split(":")[0] for line in failures(capsys)] == ["FAIL keys"]


def test_a_broken_configuration_is_told(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(directory, "[sever]\n")
    assert main(["doctor"]) == 1
    assert failures(capsys)[0].startswith(
        "FAIL configuration: sever: no such key; did you mean server?"
    )


def test_a_data_directory_that_cannot_be_is_found(
    directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOICECHAT_DATA_DIR", str(directory / "voicechat.toml" / "data"))
    assert main(["doctor"]) == 1
    assert any("VOICECHAT_DATA_DIR" in line for line in failures(capsys))


OPENAI = """
[llm.cloud]
provider = "openai"
model = "m"
base_url = "{url}"
[tts.cloud]
provider = "openai"
model = "m"
base_url = "{url}"
[asr.cloud]
provider = "openai"
model = "m"
base_url = "{url}"
"""


async def findings_of_openai(directory: Path, url: str) -> list[Diagnosis]:
    """Of services that are tried with real speech: a scripted voice is none for voice
    detection.
    """
    path = directory / "voicechat.toml"
    speaking = '[tts.default]\nprovider = "espeak"\n[tts.scripted]'
    path.write_text(
        path.read_text().replace("[tts.default]", speaking) + OPENAI.replace("{url}", url)
    )
    return [finding async for finding in examine(load_config(path)) if "(openai)" in finding.name]


async def test_services_behind_an_address_are_tried_each(directory: Path) -> None:
    async with serving() as service:
        service.answers = [
            saying(bytes(48_000)),
            saying(b'{"text": "Hello, this is a test."}'),
            saying(
                b'data: {"choices": [{"delta": {"content": "Hello."}, "finish_reason": '
                b'"stop"}]}\n\n'
            ),
        ]
        spoken, heard, answered = await findings_of_openai(directory, service.base_url)
    assert (spoken.name, spoken.works) == ("tts.cloud (openai)", True)
    assert spoken.detail.startswith("made 1.0 s of speech in ")
    assert (heard.name, heard.works) == ("asr.cloud (openai)", True)
    assert "as 'Hello, this is a test.' in " in heard.detail
    assert (answered.name, answered.works) == ("llm.cloud (openai)", True)
    assert answered.detail.startswith("answered with 6 characters in ")


async def test_an_address_where_nobody_listens_is_found(directory: Path) -> None:
    url = unused_url()
    found = await findings_of_openai(directory, url)
    assert [(finding.name.split(".")[0], finding.works) for finding in found] == [
        ("tts", False),
        ("asr", False),
        ("llm", False),
    ]
    assert all(f"{url.split('/')[2]} cannot be reached" in finding.detail for finding in found)


async def test_a_recogniser_is_not_blamed_for_a_synthesiser(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = directory / "voicechat.toml"
    path.write_text(path.read_text().replace("[tts.default]", "[tts.scripted]"))
    configure(
        directory, f'[tts.default]\nprovider = "openai"\nmodel = "m"\nbase_url = "{unused_url()}"\n'
    )
    found = {finding.name.split()[0]: finding async for finding in examine(load_config(path))}
    assert not found["tts.default"].works
    heard = found["asr.default"]
    assert heard.works
    assert heard.detail.endswith("; spoken by espeak, because tts.default does not")
    monkeypatch.setattr(checks, "_FALLBACK_VOICE", ServiceConfig(provider="nowhere:open"))
    untried = [finding async for finding in examine(load_config(path)) if not finding.tried]
    assert [finding.name.split()[0] for finding in untried] == ["asr.default"]
    assert untried[0].detail == "not tried, because tts.default makes no speech"


def test_a_voice_that_is_slower_than_it_is_heard_is_told_with_its_factor(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(directory, '[tts.slow]\nprovider = "scripted_services:open_slow_synthesizer"\n')
    assert main(["doctor"]) == 1
    (told,) = failures(capsys)
    pattern = r"FAIL tts.slow .*: it is too slow, at a real-time factor of \d+\.\d\d: speech "
    assert re.match(pattern, told)


def test_a_turn_model_that_the_server_would_refuse_is_found(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(directory, '[hands_free]\nturn_model = "nothing.onnx"\n')
    assert main(["doctor"]) == 1
    assert failures(capsys) == [
        "FAIL hands_free: turn_model: the turn model 'nothing.onnx' is no file"
    ]
    tiny_model(directory / "nothing.onnx", "other_input")
    assert main(["doctor"]) == 1
    assert "is no Smart Turn model of version 3" in failures(capsys)[0]
    tiny_model(directory / "nothing.onnx")
    assert main(["doctor"]) == 0
    assert "ok   hands_free: voice model and turn_model loaded" in capsys.readouterr().out


def test_pulled_models_are_compared_with_the_catalogue(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (directory / "data" / "models" / "smart-turn-v3.2").mkdir(parents=True)
    assert main(["doctor"]) == 1
    assert failures(capsys) == [
        "FAIL models: smart-turn-v3.2: smart-turn-v3.2-cpu.onnx: missing; "
        "'voicechat models pull smart-turn-v3.2'"
    ]


def test_dialects_are_looked_at(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configure(
        directory,
        '[dialects.lines]\ndialect = "tests.lines.dialect:open_endpoint"\n'
        '[dialects.lost]\ndialect = "tests.lines.dialect:nothing"\n',
    )
    assert main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "ok   dialects.lines: tcp 127.0.0.1:any" in lines
    assert any(line.startswith("FAIL dialects.lost: ") and "'nothing'" in line for line in lines)
