import io
import tarfile
from pathlib import Path

import pytest

from voicechat.store.model_archive import ArchiveError, unpack


def archive(path: Path, members: list[tarfile.TarInfo | tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w:bz2") as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_the_folder_in_the_archive_is_given(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar.bz2", [("model/tokens.txt", b"tokens"), ("model/data/x.onnx", b"x")])
    content = unpack(path, tmp_path / "out")
    assert content == tmp_path / "out" / "model"
    assert (content / "data" / "x.onnx").read_bytes() == b"x"


def test_files_without_a_folder_are_in_the_folder_itself(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar.bz2", [("tokens.txt", b"tokens"), ("x.onnx", b"x")])
    assert unpack(path, tmp_path / "out") == tmp_path / "out"


@pytest.mark.parametrize(
    "member",
    [
        ("../outside.txt", b"bad"),
        ("model/../../outside.txt", b"bad"),
        special("model/link", tarfile.SYMTYPE, "/etc/passwd"),
        special("model/link", tarfile.SYMTYPE, "../../outside.txt"),
        special("model/link", tarfile.LNKTYPE, "../outside.txt"),
        special("model/device", tarfile.CHRTYPE),
        special("model/pipe", tarfile.FIFOTYPE),
    ],
)
def test_what_leads_out_of_the_folder_is_refused(tmp_path: Path, member: tarfile.TarInfo | tuple[str, bytes]) -> None:
    (tmp_path / "outside.txt").write_bytes(b"untouched")
    path = archive(tmp_path / "a.tar.bz2", [("model/tokens.txt", b"tokens"), member])
    with pytest.raises(ArchiveError, match="holds what may not be unpacked"):
        unpack(path, tmp_path / "out")
    assert (tmp_path / "outside.txt").read_bytes() == b"untouched"


def test_an_absolute_name_stays_in_the_folder(tmp_path: Path) -> None:
    absolute = tmp_path / "absolute.txt"
    path = archive(tmp_path / "a.tar.bz2", [(str(absolute), b"inside")])
    unpack(path, tmp_path / "out")
    assert not absolute.exists()
    assert len(list((tmp_path / "out").rglob("absolute.txt"))) == 1


def test_more_than_the_bound_is_not_unpacked(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar.bz2", [("model/small", bytes(600)), ("model/large", bytes(10_000_000))])
    assert path.stat().st_size < 10_000
    with pytest.raises(ArchiveError, match="unpacks to more than the bound"):
        unpack(path, tmp_path / "out", max_bytes=1_000_000)
    assert sum(file.stat().st_size for file in (tmp_path / "out").rglob("*") if file.is_file()) <= 1_000_000


def test_a_disk_without_room_is_a_bound(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar.bz2", [("model/small", bytes(600))])
    with pytest.raises(ArchiveError, match="than the disk has room for"):
        unpack(path, tmp_path / "out", spare_bytes=1 << 60)


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.97])
def test_a_damaged_archive_is_named(tmp_path: Path, keep: float) -> None:
    path = archive(tmp_path / "a.tar.bz2", [("model/x", bytes(range(256)) * 1000)])
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(ArchiveError, match=r"a.tar.bz2 (is damaged|cannot be unpacked)"):
        unpack(path, tmp_path / "out")
