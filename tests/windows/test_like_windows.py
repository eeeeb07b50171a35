"""The server where there are no signal handlers, no forks, no resource limits, no
``add_reader`` and no uvloop.
"""

import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect

from tests.patience import PATIENT
from voicechat.audio.encode import open_encoder
from voicechat.audio.formats import parse_output_format

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a real one needs no imitation")

HERE = Path(__file__).parent
KEY = "key-of-the-environment"
CONFIG = """
[server]
port = 0
[asr.default]
provider = "pocketsphinx"
workers = 1
streams_per_worker = 2
"""


@dataclass
class Server:
    url: str
    process: subprocess.Popen[str]


def environment(folder: Path) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("VOICECHAT_")},
        "PYTHONPATH": str(HERE / "like_windows"),
        "VOICECHAT_DATA_DIR": str(folder / "data"),
        "VOICECHAT_API_KEY": KEY,
        **PATIENT,
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    (folder / "voicechat.toml").write_text(CONFIG)
    process = subprocess.Popen(
        [sys.executable, "-m", "voicechat", "serve"],
        cwd=folder, env=environment(folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    overdue = threading.Timer(120, process.kill)
    overdue.start()
    try:
        lines = iter(process.stdout.readline, "")
        ready = next((line for line in lines if "ready after" in line), None)
        assert ready is not None, process.stderr.read()
        found = re.search(r"http://[\d.]+:\d+", ready)
        assert found is not None
        yield Server(found[0], process)
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(20)
    finally:
        overdue.cancel()
        process.kill()
        process.communicate()


@pytest.mark.long
def test_the_commands_read_wav_from_standard_input(tmp_path: Path, recordings: Path) -> None:
    (tmp_path / "voicechat.toml").write_text(CONFIG)
    command = [sys.executable, "-m", "voicechat", "transcribe", "-"]
    for content, told in (
        ((recordings / "goforward.wav").read_bytes(), "go forward ten meters"),
        (mp3(), "WAV only"),
    ):
        done = subprocess.run(
            command,
            input=content,
            cwd=tmp_path,
            env=environment(tmp_path),
            capture_output=True,
            timeout=120,
            check=False,
        )
        assert told in (done.stdout + done.stderr).decode()


def mp3() -> bytes:
    encoder = open_encoder(parse_output_format("MP3_22050HZ_MONO_128KBPS"))
    return b"".join(encoder.encode(bytes(44_100), 22_050) + encoder.finish_stream())


def recognition_address(server: Server, container: str) -> str:
    url = server.url.replace("http", "ws")
    return f"{url}/api/open-apis/easyllms/stream-speech?apikey={KEY}&format={container}"


def test_speech_is_recognised(server: Server, recordings: Path) -> None:
    audio = (recordings / "goforward.wav").read_bytes()
    with connect(recognition_address(server, "wav"), open_timeout=120, close_timeout=1) as socket:
        for start in range(0, len(audio), 3200):
            socket.send(audio[start : start + 3200])
        socket.send("BYE")
        messages = [json.loads(frame) for frame in socket]
    assert messages[-1]["text"] == "go forward ten meters"


def test_compressed_speech_is_refused(server: Server) -> None:
    with connect(recognition_address(server, "mp3"), open_timeout=120) as socket:
        socket.send(mp3())
        why = "mp3: this server decodes no compressed audio"
        with pytest.raises(ConnectionClosedError, match=why):
            list(socket)
    url = server.url.replace("http", "ws")
    settings = {
        "create_transcription_task_req": {"speech_recognition_param": {"format": "mp3"}},
        "chat_completion_with_voice_output_req": {
            "chat_completion_req": {},
            "speech_synthesis_req": {},
        },
    }
    names = "model=default&asr_easyllm_id=default&tts_easyllm_id=default"
    path = f"/api/open-apis/projects/default/chat/speech-chat?token=Bearer%20{KEY}&{names}"
    with connect(url + path, open_timeout=120, close_timeout=1) as socket:
        socket.send(json.dumps({"event_type": "chat.update", "message": settings}))
        socket.send(mp3())
        told = [json.loads(socket.recv(10)) for _ in range(3)]
    assert [message["status"] for message in told] == [0, 0, 41501], told


def upload(server: Server, name: str, content: bytes) -> requests.Response:
    return requests.post(
        f"{server.url}/v1/audio/transcriptions",
        headers={"Authorization": f"Bearer {KEY}"},
        files={"file": (name, io.BytesIO(content))},
        data={"model": "default"},
        timeout=120,
    )


def test_a_recording_is_transcribed_if_it_is_wav(server: Server, recordings: Path) -> None:
    answer = upload(server, "a.wav", (recordings / "goforward.wav").read_bytes())
    assert (answer.status_code, answer.json()["text"]) == (200, "go forward ten meters")
    refused = upload(server, "a.mp3", mp3())
    assert refused.status_code == 415
    assert refused.json()["error"]["code"] == "unsupported_format"


def test_an_answer_is_spoken(server: Server) -> None:
    answer = requests.post(
        f"{server.url}/v1/audio/speech",
        headers={"Authorization": f"Bearer {KEY}"},
        json={
            "model": "default",
            "input": "Good morning.",
            "voice": "default",
            "response_format": "mp3",
        },
        timeout=120,
    )
    assert answer.status_code == 200
    assert len(answer.content) > 1000


def test_ctrl_c_drains_and_ends_it(server: Server) -> None:
    server.process.send_signal(signal.SIGINT)
    assert server.process.stdout is not None
    assert [line.split()[1].rstrip(":;") for line in server.process.stdout] == [
        "draining",
        "stopped",
    ]
    assert server.process.wait(20) == 0
    assert server.process.stderr is not None
    assert "Traceback" not in server.process.stderr.read()
