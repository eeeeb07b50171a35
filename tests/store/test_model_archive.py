import io
import stat
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from voicechat.store.model_archive import MAX_HEADER_BYTES, ArchiveError, unpack

Member = tarfile.TarInfo | tuple[str, bytes]


def archive(path: Path, members: Sequence[Member], form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w:bz2", format=form) as tar:
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
    path = archive(
        tmp_path / "a.tar.bz2", [("model/tokens.txt", b"tokens"), ("model/data/x.onnx", b"x")]
    )
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
        ("model/../tokens.txt", b"bad"),
        ("/absolute.txt", b"bad"),
        ("C:\\outside.txt", b"bad"),
        ("model\\..\\..\\outside.txt", b"bad"),
        ("model/file:stream", b"bad"),
        ("model/line\nbreak", b"bad"),
        ("model/tokens.txt", b"again"),
        ("model/tokens.txt/below", b"bad"),
        special("model/link", tarfile.SYMTYPE, "/etc/passwd"),
        special("model/link", tarfile.SYMTYPE, "../../outside.txt"),
        special("model/link", tarfile.SYMTYPE, "../model/../../outside.txt"),
        special("model/link", tarfile.SYMTYPE, "."),
        special("model/link", tarfile.SYMTYPE, "link"),
        special("model/link", tarfile.SYMTYPE, "nothing.txt"),
        special("model/link", tarfile.LNKTYPE, "../outside.txt"),
        special("model/link", tarfile.LNKTYPE, "/etc/passwd"),
        special("model/link", tarfile.LNKTYPE, "model"),
        special("model/device", tarfile.CHRTYPE),
        special("model/device", tarfile.BLKTYPE),
        special("model/pipe", tarfile.FIFOTYPE),
        special("model/unknown", b"Z"),
    ],
    ids=lambda member: (
        member[0]
        if isinstance(member, tuple)
        else f"{member.name} {member.type!r} {member.linkname}"
    ),
)
def test_what_leads_out_of_the_folder_is_refused(tmp_path: Path, member: Member) -> None:
    (tmp_path / "outside.txt").write_bytes(b"untouched")
    path = archive(tmp_path / "a.tar.bz2", [("model/tokens.txt", b"tokens"), member])
    with pytest.raises(ArchiveError, match=r"holds what may not be unpacked|cannot be unpacked"):
        unpack(path, tmp_path / "out")
    assert (tmp_path / "outside.txt").read_bytes() == b"untouched"
    assert {found.name for found in tmp_path.iterdir()} == {"outside.txt", "a.tar.bz2", "out"}


def test_links_that_are_longer_than_a_path_may_be_lead_nowhere(tmp_path: Path) -> None:
    """Python's own filter took such an archive (CVE-2025-4517) and wrote outside the
    folder.
    """
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "flag").write_bytes(b"untouched")
    long, steps, way = "d" * 247, "abcdefghijklmnop", ""
    members: list[Member] = []
    for step in steps:
        members += [
            special(way + long, tarfile.DIRTYPE),
            special(way + step, tarfile.SYMTYPE, long),
        ]
        way += long + "/"
    over = "/".join(steps) + "/" + "l" * 254
    members += [
        special(over, tarfile.SYMTYPE, "../" * len(steps)),
        special("escape", tarfile.SYMTYPE, over + "/../outside"),
        special("flaglink", tarfile.LNKTYPE, "escape/flag"),
        ("flaglink", b"overwritten"),
    ]
    with pytest.raises(ArchiveError):
        unpack(archive(tmp_path / "a.tar.bz2", members), tmp_path / "out")
    assert (tmp_path / "outside" / "flag").read_bytes() == b"untouched"


def test_a_file_below_a_link_is_not_written_through_it(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    members: list[Member] = [
        special("model/way", tarfile.SYMTYPE, "../../outside"),
        ("model/way/file", b"bad"),
    ]
    with pytest.raises(ArchiveError):
        unpack(archive(tmp_path / "a.tar.bz2", members), tmp_path / "out")
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_link_to_a_file_of_the_archive_becomes_a_copy(tmp_path: Path) -> None:
    members: list[Member] = [
        special("model/data/again", tarfile.SYMTYPE, "near"),
        special("model/data/near", tarfile.SYMTYPE, "../tokens.txt"),
        ("model/tokens.txt", b"tokens"),
        special("model/hard", tarfile.LNKTYPE, "model/tokens.txt"),
    ]
    content = unpack(archive(tmp_path / "a.tar.bz2", members), tmp_path / "out")
    for name in ("hard", "data/near", "data/again"):
        assert (content / name).read_bytes() == b"tokens"
        assert not (content / name).is_symlink()
        assert (content / name).stat().st_nlink == 1


def test_links_count_as_what_they_become(tmp_path: Path) -> None:
    links = [special(f"model/{number}", tarfile.SYMTYPE, "large") for number in range(10)]
    path = archive(tmp_path / "a.tar.bz2", [("model/large", bytes(200_000)), *links])
    with pytest.raises(ArchiveError, match="unpacks to more than the bound"):
        unpack(path, tmp_path / "out", max_bytes=1_000_000)


def test_files_get_the_rights_of_plain_files(tmp_path: Path) -> None:
    powerful = tarfile.TarInfo("model/run")
    powerful.mode = 0o6777
    (content,) = unpack(archive(tmp_path / "a.tar.bz2", [powerful]), tmp_path / "out").iterdir()
    assert content.stat().st_mode & 0o7111 == 0


def test_a_header_is_bounded(tmp_path: Path) -> None:
    """A name or an attribute of gigabytes is read into memory as a whole; packed it is
    a few kilobytes.
    """
    vast = tarfile.TarInfo("model/tokens.txt")
    vast.pax_headers = {"comment": "x" * (MAX_HEADER_BYTES + 1)}
    with pytest.raises(ArchiveError, match="a header that is too large"):
        unpack(archive(tmp_path / "a.tar.bz2", [vast]), tmp_path / "out")
    long = archive(
        tmp_path / "b.tar.bz2", [("model/" + "y" * (MAX_HEADER_BYTES + 1), b"")], tarfile.GNU_FORMAT
    )
    with pytest.raises(ArchiveError, match="a header that is too large"):
        unpack(long, tmp_path / "out2")


def test_a_size_below_nothing_does_not_lead_in_a_circle(tmp_path: Path) -> None:
    circle = tarfile.TarInfo("model/tokens.txt")
    circle.pax_headers = {"size": "-1024"}
    with pytest.raises(ArchiveError):
        unpack(archive(tmp_path / "a.tar.bz2", [circle, ("model/x", b"x")]), tmp_path / "out")


def test_a_sparse_file_is_refused(tmp_path: Path) -> None:
    """It says that it is larger than what is packed."""
    sparse = tarfile.TarInfo("model/sparse")
    sparse.pax_headers = {"GNU.sparse.size": "1000000000000", "GNU.sparse.map": "0,0"}
    with pytest.raises(ArchiveError, match=r"sparse' *, which is no plain file"):
        unpack(archive(tmp_path / "a.tar.bz2", [sparse]), tmp_path / "out")


@pytest.mark.parametrize("kind", ["gz", "xz", ""])
def test_other_packings(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.tar.{kind}".rstrip(".")
    with tarfile.open(path, f"w:{kind}") as tar:  # type: ignore[call-overload]
        tar.addfile(special(".", tarfile.DIRTYPE))
        tar.addfile(special("./model", tarfile.DIRTYPE))
        tar.addfile(tarfile.TarInfo("./model/tokens.txt"))
    assert [file.name for file in unpack(path, tmp_path / "out").iterdir()] == ["tokens.txt"]
    path.write_bytes(b"no archive")
    with pytest.raises(ArchiveError, match=r"(is damaged|cannot be unpacked)"):
        unpack(path, tmp_path / "other")


def test_more_than_the_bound_is_not_unpacked(tmp_path: Path) -> None:
    path = archive(
        tmp_path / "a.tar.bz2", [("model/small", bytes(600)), ("model/large", bytes(10_000_000))]
    )
    assert path.stat().st_size < 10_000
    with pytest.raises(ArchiveError, match="unpacks to more than the bound"):
        unpack(path, tmp_path / "out", max_bytes=1_000_000)
    assert (
        sum(file.stat().st_size for file in (tmp_path / "out").rglob("*") if file.is_file())
        <= 1_000_000
    )


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


def zipped(path: Path, members: Sequence[tuple[str | zipfile.ZipInfo, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def test_a_wheel_is_unpacked(tmp_path: Path) -> None:
    members = [("a/", b""), ("a/x.bin", b"x" * 1000), ("a-1.dist-info/RECORD", b"")]
    content = unpack(zipped(tmp_path / "a-1-py3-none-any.whl", members), tmp_path / "out")
    assert content == tmp_path / "out"
    assert (content / "a" / "x.bin").read_bytes() == b"x" * 1000


def zip_link() -> zipfile.ZipInfo:
    link = zipfile.ZipInfo("a/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    return link


@pytest.mark.parametrize(
    "name",
    ["../outside", "/outside", "a/../../outside", "C:\\outside", "a\\outside", zip_link()],
    ids=str,
)
def test_a_zip_that_leads_out_of_the_folder_is_refused(
    tmp_path: Path, name: str | zipfile.ZipInfo
) -> None:
    path = zipped(tmp_path / "a.zip", [("a/x", b"x"), (name, b"/etc/passwd")])
    with pytest.raises(ArchiveError, match="holds what may not be unpacked"):
        unpack(path, tmp_path / "out")
    assert {found.name for found in tmp_path.iterdir()} == {"a.zip", "out"}


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_zip_with_a_name_twice_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", [("a/x", b"x"), ("a/x", b"y")])
    with pytest.raises(ArchiveError, match="'a/x' twice"):
        unpack(path, tmp_path / "out")


def test_a_zip_of_more_than_the_bound_is_not_unpacked(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", [("small", bytes(600)), ("large", bytes(10_000_000))])
    assert path.stat().st_size < 20_000
    with pytest.raises(ArchiveError, match="unpacks to more than the bound"):
        unpack(path, tmp_path / "out", max_bytes=1_000_000)
    assert [found.name for found in (tmp_path / "out").iterdir()] == ["small"]


def test_a_zip_that_says_less_than_it_holds_is_damaged(tmp_path: Path) -> None:
    """The size of an entry is a claim; no more than that is written."""
    path = zipped(tmp_path / "a.zip", [("x", bytes(1_000_000))])
    said = path.read_bytes().replace((1_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    path.write_bytes(said)
    with pytest.raises(ArchiveError, match=r"a.zip is damaged"):
        unpack(path, tmp_path / "out")
    assert (tmp_path / "out" / "x").stat().st_size <= 10


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.97])
def test_a_damaged_zip_is_named(tmp_path: Path, keep: float) -> None:
    path = zipped(tmp_path / "a.whl", [("x", bytes(range(256)) * 1000)])
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(ArchiveError, match=r"a.whl is damaged"):
        unpack(path, tmp_path / "out")
