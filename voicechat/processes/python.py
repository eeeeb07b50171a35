"""How a Python child is started: with this very package, and with nothing from the
current folder.

``python -m`` puts the current folder first on the import path, so a file called
``orjson.py`` in the folder where somebody happens to stand would run in the child. A
child started by `command` imports what is installed, what ``PYTHONPATH`` names, and the
``voicechat`` package of its parent.
"""

import importlib.util
import os
import runpy
import sys
from pathlib import Path

_FINDING = ("PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")
_PACKAGE = Path(__file__).resolve().parent.parent


def command(module: str, *arguments: str) -> list[str]:
    """Return the command line that runs a module of this package as a program in a
    child.

    Start it with `environment`.
    """
    # -P: neither the current folder nor the one of this file is on the child's import
    # path.
    return [sys.executable, "-P", str(_PACKAGE / "processes" / "python.py"), module, *arguments]


def environment(**variables: str) -> dict[str, str]:
    """Return this process's environment for a child, with some variables set or
    replaced.

    An empty part of ``PYTHONPATH`` means the current folder;
    ``PYTHONPATH=$PYTHONPATH:/x`` makes one by accident. Empty parts are left out. A
    folder that is named stays, ``.`` too.
    """
    given = {**os.environ, **variables}
    if "PYTHONPATH" in given:
        given["PYTHONPATH"] = os.pathsep.join(filter(None, given["PYTHONPATH"].split(os.pathsep)))
    return given


def bare_environment() -> dict[str, str]:
    """Return what a child needs to find its code and libraries, and nothing else: no
    secrets.

    Mostly that is empty.
    """
    return {name: value for name, value in environment().items() if name in _FINDING}


def main() -> None:
    """Run the module that the first argument names, out of the package that this file
    is in.

    Without this the child would look for ``voicechat`` on its own path, and might find
    another installation of it, or none.
    """
    name = _PACKAGE.name
    spec = importlib.util.spec_from_file_location(
        name, _PACKAGE / "__init__.py", submodule_search_locations=[str(_PACKAGE)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"{_PACKAGE} cannot be imported", name=name)
    package = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
