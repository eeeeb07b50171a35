"""Command line and environment of Python children that run this package.

``python -m`` puts the current folder first on the import path, so a file called
``orjson.py`` in that folder would run in the child. A child started by `command`
imports only installed packages, what ``PYTHONPATH`` names, and its parent's
``voicechat`` package.
"""

import importlib.util
import os
import runpy
import sys
from pathlib import Path

_FINDING = ("PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")
_SHARING = {"OMP_WAIT_POLICY": "passive"}
"""Makes OpenMP's threads sleep while they wait for each other. By default they spin,
and when several models compute they take the core from the thread that they wait for:
with two threads on two busy cores, llama.cpp then computes half as many tokens a
second.
"""
_PACKAGE = Path(__file__).resolve().parent.parent


def command(module: str, *arguments: str) -> list[str]:
    """Return the command line that runs a module, of this package or an installed one,
    as a program in a child.

    Start it with `environment`.
    """
    # -P keeps the current folder and this file's folder off the child's import path.
    return [sys.executable, "-P", str(_PACKAGE / "processes" / "python.py"), module, *arguments]


def environment(**variables: str) -> dict[str, str]:
    """Return this process's environment for a child, with some variables set or
    replaced.

    An empty part of ``PYTHONPATH`` means the current folder;
    ``PYTHONPATH=$PYTHONPATH:/x`` creates one by accident. Empty parts are removed;
    named folders, including ``.``, are kept.
    """
    given = {**os.environ, **variables}
    if "PYTHONPATH" in given:
        given["PYTHONPATH"] = os.pathsep.join(filter(None, given["PYTHONPATH"].split(os.pathsep)))
    return given


def bare_environment() -> dict[str, str]:
    """Return only the variables that a child needs to find its code and libraries, and
    to share the cores. No secret is passed on.
    """
    return _SHARING | {name: value for name, value in environment().items() if name in _FINDING}


def main() -> None:
    """Run the module named by the first argument, from the package that contains this
    file.

    Otherwise the child would search its own path for ``voicechat`` and might find
    another installation, or none.
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
