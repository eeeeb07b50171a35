"""Puts the sibling folders that are data, not code, into the wheel: the wire contract
and the web demo.

Only into wheels: an editable install would get a folder of them in site-packages, which
Python takes for the package itself when it is not started from here. There the data is
found beside the package.
"""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class DataHook(BuildHookInterface):  # type: ignore[type-arg]
    """See above."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the folders, when hatchling builds a wheel to be installed as it is."""
        if version == "standard":
            build_data["force_include"] |= {
                "protocol": "voicechat/_data/protocol",
                "web_demo": "voicechat/_data/web_demo",
            }
