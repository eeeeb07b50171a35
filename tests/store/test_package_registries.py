from pathlib import Path

import pytest

from voicechat.store import package_registries
from voicechat.store.package_registries import RegistrySettings, find_registries, normalized

pytestmark = pytest.mark.real_time

MIRROR = "https://mirror.example/simple"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


async def test_the_index_is_the_one_that_pip_itself_is_configured_with(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = home / "pip.conf"
    file.write_text(f"[global]\nindex-url = {MIRROR}\n[download]\ntimeout = 3\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(file))
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://a.example/simple file:///srv/simple")
    registries = await find_registries(RegistrySettings())
    assert registries.indexes == (f"{MIRROR}/", "https://a.example/simple/")


@pytest.mark.parametrize(
    ("listing", "indexes"),
    [
        ("", ("https://pypi.org/simple/",)),
        ("global.index-url='file:///srv/simple'", ("https://pypi.org/simple/",)),
        (
            "install.index-url='https://i.example/'\nglobal.index-url='https://g.example/'",
            ("https://i.example/",),
        ),
        (
            ":env:.index-url='https://e.example'\ninstall.index-url='https://i.example/'",
            ("https://e.example/",),
        ),
        (
            "global.extra-index-url='https://a.example\\nhttps://b.example'",
            ("https://pypi.org/simple/", "https://a.example/", "https://b.example/"),
        ),
        ("wheel.index-url='https://other.example'", ("https://pypi.org/simple/",)),
    ],
)
async def test_what_pip_lists_is_ranked_as_pip_does(
    listing: str, indexes: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def listed() -> str:
        return listing

    monkeypatch.setattr(package_registries, "_pip_config", listed)
    assert (await find_registries(RegistrySettings())).indexes == indexes


async def test_variables_come_before_files_and_files_before_the_public_registry(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def listed() -> str:
        return f"global.index-url='{MIRROR}'"

    monkeypatch.setattr(package_registries, "_pip_config", listed)
    assert (await find_registries(RegistrySettings())).npm == "https://registry.npmjs.org/"
    (home / ".npmrc").write_text("fund=false\nregistry = https://npm.example/team\n")
    assert (await find_registries(RegistrySettings())).npm == "https://npm.example/team/"
    given = RegistrySettings("https://p.example/simple/", "https://n.example")
    registries = await find_registries(given)
    assert registries.indexes == ("https://p.example/simple/",)
    assert registries.npm == "https://n.example/"


def test_names_of_projects_are_normalized() -> None:
    assert normalized("Voice_Part.-1") == "voice-part-1"
