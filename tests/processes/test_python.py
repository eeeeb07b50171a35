"""Nothing of the folder where somebody stands is run, whatever it holds."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import voicechat
from voicechat.processes import python
from voicechat.server.workers.ipc_channel import supports_channels

PACKAGE = Path(voicechat.__file__).parent
HOSTILE = (
    "import os; open(os.path.join(os.path.dirname(__file__), {ran!r}), 'w').close(); raise "
    "SystemExit('hostile')"
)
FILES = ("orjson", "pydantic", "aiohttp", "pathlib", "asyncio", "json", "typing", "sitecustomize")
FOLDERS = ("voicechat", "numpy", "av", "pocketsphinx", "sherpa_onnx")

# An empty part of PYTHONPATH is the current folder; the program itself has been started
# without it.
BEGIN = """
import asyncio, os, sys
os.environ["PYTHONPATH"] = os.pathsep + os.environ.get("PYTHONPATH", "")
"""
RECOGNISER = """
from voicechat.providers.pocketsphinx import open_recognizer
async def main():
    recognizer = open_recognizer(workers=1, streams_per_worker=1)
    await recognizer.start()
    await recognizer.aclose()
asyncio.run(main())
"""
DECODER = """
from voicechat.runtime.decoding import open_decoding
async def main():
    server = open_decoding()
    await server.start()
    await server.aclose()
asyncio.run(main())
"""
TRIAL = """
from voicechat.errors import ProviderError
from voicechat.providers.sherpa_loading import SherpaPlan
from voicechat.providers.sherpa_trial import try_plan
try:
    asyncio.run(try_plan(SherpaPlan("whole", "no_such_kind", {})))
except ProviderError as error:
    assert "no_such_kind" in str(error), error
else:
    raise AssertionError("a plan of no kind was loaded")
"""
SERVER = """
import subprocess
from voicechat.processes import python
for module, complaint in (("server.workers.child", "IndexError"), ("bench.child", "arguments are required")):
    started = python.command(f"voicechat.{module}")
    done = subprocess.run(started, env=python.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert complaint in done.stderr, done.stderr
"""
WORKERS = """
from voicechat.cli import main
sys.exit(main(["bench", "--sessions", "1", "--seconds", "1", "--workers", "2", "--json"]))
"""
CHILDREN = {
    "recogniser": RECOGNISER,
    "decoder": pytest.param(
        DECODER,
        marks=pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that can fork"),
    ),
    "trial": TRIAL,
    "server": SERVER,
    "server and workers": pytest.param(
        WORKERS,
        marks=[
            pytest.mark.long,
            pytest.mark.skipif(
                not supports_channels(), reason="this system has one worker at most"
            ),
        ],
    ),
}


def fill(folder: Path, *names: str) -> Path:
    """Write modules and packages that say so when they are imported."""
    folder.mkdir()
    for name in names:
        file = folder / name / "__init__.py" if name in FOLDERS else folder / f"{name}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(HOSTILE.format(ran="ran"))
    return folder


def ran(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("ran"))


def run(folder: Path, *arguments: str, environ: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder, env={**os.environ, **(environ or {})}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert ran(folder) == []
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module", params=["as it is", "copied"])
def installed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, str]:
    """The environment in which the package is found: by its installation here, or in a
    folder as a wheel leaves it.
    """
    if request.param == "as it is":
        return {}
    site = tmp_path_factory.mktemp("site")
    shutil.copytree(PACKAGE, site / "voicechat", ignore=shutil.ignore_patterns("__pycache__"))
    for data in ("protocol", "web_demo"):
        shutil.copytree(PACKAGE.parent / data, site / "voicechat" / "_data" / data)
    return {"PYTHONPATH": str(site)}


@pytest.mark.parametrize("program", CHILDREN.values(), ids=CHILDREN.keys())
def test_a_child_imports_nothing_from_the_current_folder(
    program: str, installed: Mapping[str, str], tmp_path: Path
) -> None:
    run(fill(tmp_path / "here", *FOLDERS, *FILES), "-P", "-c", BEGIN + program, environ=installed)


def test_a_child_runs_the_package_of_its_parent(
    installed: Mapping[str, str], tmp_path: Path
) -> None:
    """Not another one that its own path would lead to."""
    other = fill(tmp_path / "other", "voicechat")
    program = f"import os; os.environ['PYTHONPATH'] = {str(other)!r}\n{RECOGNISER}"
    run(tmp_path, "-P", "-c", f"import asyncio\n{program}", environ=installed)


def test_the_module_imports_nothing_from_the_current_folder(tmp_path: Path) -> None:
    here = fill(tmp_path / "here", "orjson", "numpy", "pathlib", "pydantic", "av")
    assert run(here, "-m", "voicechat", "--version") == f"voicechat {voicechat.__version__}\n"


def test_an_uninstalled_checkout_runs_where_it_lies(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "voicechat", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "voicechat" / "__init__.py").write_text('__version__ = "of the checkout"\n')
    assert run(tmp_path, "-m", "voicechat", "--version") == "voicechat of the checkout\n"


@pytest.mark.parametrize(
    ("given", "kept"),
    [("", ""), (":", ""), (":/x", "/x"), ("/x:", "/x"), ("/x::/y", "/x:/y"), (".:/x", ".:/x")],
)
def test_only_named_folders_of_the_import_path_reach_a_child(
    given: str, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", given.replace(":", os.pathsep))
    assert python.environment()["PYTHONPATH"] == kept.replace(":", os.pathsep)


def test_without_an_import_path_a_child_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert "PYTHONPATH" not in python.environment(MORE="1")
    assert python.environment(MORE="1")["MORE"] == "1"


def test_no_child_is_started_in_any_other_way() -> None:
    starts = (
        "sys.executable",
        "import multiprocessing",
        "ProcessPoolExecutor",
        "posix_spawn",
        "os.exec",
    )
    starters = {
        file.relative_to(PACKAGE).as_posix()
        for file in PACKAGE.rglob("*.py")
        if any(start in file.read_text("utf-8") for start in starts)
    }
    assert starters == {"processes/python.py"}
