"""``voicechat models`` against a server of this machine, with a tiny model that is then
used.
"""

import asyncio
import os
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.store.file_server import FileServer, serving
from voicechat.audio.wav import wav_header
from voicechat.cli import main

pytestmark = pytest.mark.real_time


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    """A server in a thread of its own: the command has the event loop of the
    process.
    """
    server = FileServer(os.urandom(3_000_000))
    ready, over = threading.Event(), threading.Event()

    async def serve() -> None:
        async with serving(server, "tiny.tar.bz2"):
            ready.set()
            while not over.is_set():  # noqa: ASYNC110 - set by another thread
                await asyncio.sleep(0.01)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(10)
    yield server
    over.set()
    thread.join()


@pytest.fixture
def catalogue(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VOICECHAT_DATA_DIR", str(tmp_path / "data"))
    entry = (
        '[[model]]\nname = "tiny"\nkind = "streaming-zipformer2-ctc"\nlanguages = "en"\nurl = '
        f'"{server.url}"\n'
    )
    (tmp_path / "catalogue.toml").write_text(entry)
    return "--catalogue=catalogue.toml"


def archived(folder: Path) -> bytes:
    path = folder.with_suffix(".tar.bz2")
    with tarfile.open(path, "w:bz2") as tar:
        tar.add(folder, folder.name)
    return path.read_bytes()


def test_a_model_is_listed_pulled_and_used(
    server: FileServer, catalogue: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(
        "sherpa_onnx", reason="needs sherpa-onnx and onnx (pip install 'voicechat[test]')"
    )
    from tests.providers.sherpa_models import make_zipformer_ctc, melody

    server.content = archived(make_zipformer_ctc(tmp_path / "as-published"))
    assert main(["models", catalogue, "list"]) == 0
    assert capsys.readouterr().out.split() == ["tiny", "streaming-zipformer2-ctc", "en"]

    assert main(["models", catalogue, "pull", "tiny"]) == 0
    said = capsys.readouterr()
    assert f"not checked: no checksum known of {server.url}" in said.err
    assert 'model = "tiny"' in said.out
    assert main(["models", catalogue, "list"]) == 0
    assert capsys.readouterr().out.split() == ["here", "tiny", "streaming-zipformer2-ctc", "en"]

    (tmp_path / "voicechat.toml").write_text(
        '[asr.default]\nprovider = "sherpa_onnx"\nmodel = "tiny"\n'
    )
    pcm = melody((None, 0, None, 1, None))
    (tmp_path / "notes.wav").write_bytes(wav_header(16000, len(pcm)) + pcm)
    assert main(["transcribe", "notes.wav"]) == 0
    assert "go stop" in capsys.readouterr().out


def test_what_is_here_is_not_pulled_again_unless_asked(
    server: FileServer, catalogue: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "as-published").mkdir()
    (tmp_path / "as-published" / "tokens.txt").touch()
    server.content = archived(tmp_path / "as-published")
    assert main(["models", catalogue, "pull", "tiny"]) == 0
    assert main(["models", catalogue, "pull", "tiny"]) == 0
    assert "is here already; --again fetches it anew" in capsys.readouterr().out
    assert len(server.asked) == 1
    assert main(["models", catalogue, "pull", "tiny", "--again"]) == 0
    assert len(server.asked) == 2
    assert "not checked" not in capsys.readouterr().err


def test_a_name_that_is_none_is_a_wrong_usage(
    catalogue: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", catalogue, "pull", "huge"]) == 2
    assert "there is no model 'huge'; see 'voicechat models list'" in capsys.readouterr().err


def test_a_refusal_is_one_line(
    server: FileServer, catalogue: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server.statuses = [404]
    assert main(["models", catalogue, "pull", "tiny"]) == 1
    assert (
        capsys.readouterr().err == f"voicechat: {server.url} cannot be fetched: HTTP status 404\n"
    )


def test_ctrl_c_leaves_what_has_come_and_the_next_pull_goes_on(
    server: FileServer, catalogue: str, tmp_path: Path
) -> None:
    (tmp_path / "as-published").mkdir()
    (tmp_path / "as-published" / "weights").write_bytes(os.urandom(2_000_000))
    server.content = archived(tmp_path / "as-published")
    server.hold_after = 1_000_000
    command = [sys.executable, "-m", "voicechat", "models", catalogue, "pull", "tiny"]
    # A shell starts what runs in the background with Ctrl-C ignored; whoever presses it
    # has started it otherwise.
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    pulling = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heard)
    part = tmp_path / "data" / "models" / ".pulling" / "tiny.tar.bz2"
    while not part.exists() or part.stat().st_size == 0:
        assert pulling.poll() is None
        threading.Event().wait(0.01)
    pulling.send_signal(signal.SIGINT)
    _, said = pulling.communicate(timeout=60)
    assert pulling.returncode == 1
    assert "interrupted; the next pull goes on from here" in said
    assert "Traceback" not in said
    have_bytes = part.stat().st_size
    assert not (tmp_path / "data" / "models" / "tiny").exists()

    server.hold_after = None
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    assert server.asked == [None, f"bytes={have_bytes}-"]
    assert (tmp_path / "data" / "models" / "tiny" / "weights").read_bytes() == (
        tmp_path / "as-published" / "weights"
    ).read_bytes()
