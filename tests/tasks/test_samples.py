"""The original document's own requests for transcription, with only host, key and the
named placeholders changed.
"""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.tasks.recording_host import recording_host
from tests.tasks.transcription_server import Rules, Server, transcription_server, wav

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.skipif(
        not (shutil.which("curl") and shutil.which("bash")), reason="needs curl and bash"
    ),
]

SAMPLES = Path(__file__).parent / "samples"


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with recording_host() as found:
        yield found


@pytest.fixture
async def server(tasks_folder: Path, port: int) -> AsyncIterator[Server]:
    rules = Rules(ports=frozenset({port}), texts=("你好,算能。",))
    async with transcription_server(tasks_folder, rules) as running:
        yield running


async def run(server: Server, name: str, **placeholders: str) -> Any:
    """Run a sample; give the JSON that it prints."""
    text = (SAMPLES / name).read_text("utf-8").replace("https://www.sophnet.com", server.url)
    for placeholder, value in placeholders.items():
        text = text.replace("{" + placeholder + "}", value).replace(placeholder, value)
    text = text.replace("{projectId}", "p").replace("$API_KEY", "alice")
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", text, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(120):
        printed, complaints = await process.communicate()
    assert process.returncode == 0, complaints.decode()
    return json.loads(printed)


@pytest.mark.parametrize("name", ["task_by_url.sh", "task_by_upload.sh"])
async def test_a_task_is_made_and_looked_at(
    name: str, server: Server, port: int, tmp_path: Path
) -> None:
    (tmp_path / "a.wav").write_bytes(wav(2.0))
    changed = {
        "YOUR_AUDIO_URL": f"http://127.0.0.3:{port}/a.wav",
        "/path/to/your_audio_file.wav": f"{tmp_path}/a.wav",
    }
    made = await run(server, name, **changed)
    assert set(made) == {"taskId", "task_id", "created"}
    await server.finished(made["taskId"])
    looked = await run(server, "task_status.sh", taskId=made["taskId"])
    assert (looked["status"], looked["result"]) == ("success", "[0:0.000,0:2.000,0] 你好,算能。\n")


async def test_a_recording_is_recognised_at_once(server: Server, port: int) -> None:
    url = f"http://127.0.0.3:{port}/a.wav"
    answer = await run(
        server, "non_stream.sh", YOUR_AUDIO_URL=url, YOUR_EASYLLM_ID="YOUR_SERVICE_ID"
    )
    assert answer == {"result": "你好,算能。", "audio_duration": 2.0}
