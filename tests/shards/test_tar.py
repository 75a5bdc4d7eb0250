"""The parser finds what ``tarfile`` finds, however the bytes come, and refuses what it cannot read."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import tarfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s3torchconnector._samples._sums import Sums
from s3torchconnector._samples._tar import Entry, TarParser, entries_of
from s3torchconnector.errors import S3FormatError
from tests.shards.support import tar

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=12)
PATHS = st.one_of(
    st.lists(NAMES, min_size=1, max_size=3).map("/".join),
    st.builds(lambda name, count: "/".join([name] * count), NAMES, st.integers(20, 60)),  # long ones
)
FILES = st.lists(st.tuples(PATHS, st.binary(max_size=1500)), max_size=6)
KINDS = st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])


def by_tarfile(data: bytes) -> list[Entry]:
    """What Python's own reader finds."""
    found = []
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        for info in archive:
            if info.isreg():
                file = archive.extractfile(info)
                assert file is not None
                start = info.offset_data
                found.append(Entry(info.name, start, start + info.size, Sums().and_of(file.read())))
    return found


def in_pieces(data: bytes, size: int) -> list[Entry]:
    parser = TarParser()
    found = [entry for at in range(0, len(data), size) for entry in parser.feed(data[at : at + size])]
    parser.finish()
    return found


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=60)
@given(FILES, KINDS, st.sampled_from([1, 7, 511, 512, 513, 2**20]))
def test_files_lie_where_tarfile_finds_them(files: list[tuple[str, bytes]], kind: int, size: int) -> None:
    try:
        data = tar(files, kind)
    except ValueError:  # ustar has no room for such a name
        return
    assert in_pieces(data, size) == by_tarfile(data)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=60)
@given(FILES.filter(bool), KINDS, st.data())
def test_an_archive_that_is_cut_off_is_an_error(files: list[tuple[str, bytes]], kind: int, data: st.DataObject) -> None:
    try:
        whole = tar(files, kind)
    except ValueError:
        return
    ends = [-(-entry.stop // 512) * 512 for entry in by_tarfile(whole)]
    length = data.draw(st.integers(1, ends[-1] - 1).filter(lambda length: length not in ends))
    with pytest.raises(S3FormatError, match="truncated"):
        in_pieces(whole[:length], 512)


def test_an_archive_without_its_end_mark_is_read_and_said_to_have_none() -> None:
    whole = tar({"a.jpg": b"x" * 600})
    parser = TarParser()
    assert [entry.path for entry in parser.feed(whole[: 512 + 1024])] == ["a.jpg"]
    parser.finish()
    assert not parser.ended


def special(**attributes: object) -> bytes:
    """An archive of something that is no file, and a file."""
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w") as archive:
        info = tarfile.TarInfo("special.txt")
        for name, value in attributes.items():
            setattr(info, name, value)
        archive.addfile(info, io.BytesIO(bytes(1000)))
        last = tarfile.TarInfo("last.txt")
        last.size = 4
        archive.addfile(last, io.BytesIO(b"last"))
    return memory.getvalue()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_entries_that_are_not_files_are_skipped(kind: bytes) -> None:
    data = special(type=kind, linkname="last.txt")
    assert [entry.path for entry in entries_of(data, 0)] == ["last.txt"]
    assert entries_of(data, 0) == by_tarfile(data)


def test_sizes_in_base_256_and_in_pax_headers() -> None:
    data = bytearray(tar({"a.bin": b"12345"}, tarfile.GNU_FORMAT))
    data[124:136] = b"\x80" + (5).to_bytes(11, "big")
    checksum = sum(data[:148]) + 8 * 32 + sum(data[156:512])
    data[148:156] = b"%06o\0 " % checksum
    assert entries_of(bytes(data), 0) == by_tarfile(bytes(data)) == [Entry("a.bin", 512, 517, Sums().and_of(b"12345"))]
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("b.bin")
        info.size, info.pax_headers = 7, {"size": "7", "comment": "a = b\nc"}
        archive.addfile(info, io.BytesIO(b"1234567"))
    assert entries_of(memory.getvalue(), 0) == by_tarfile(memory.getvalue())


def test_sparse_files_are_refused() -> None:
    with pytest.raises(S3FormatError, match="is sparse"):
        entries_of(special(type=tarfile.GNUTYPE_SPARSE), 0)
    with pytest.raises(S3FormatError, match="is sparse"):
        entries_of(special(pax_headers={"GNU.sparse.major": "1"}), 0)


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_compressed_archives_are_refused(compress: object) -> None:
    assert callable(compress)
    with pytest.raises(S3FormatError, match="compressed"):
        entries_of(compress(tar({"a.jpg": bytes(9)})) + bytes(512), 0)


def test_a_file_that_is_not_an_archive_is_refused() -> None:
    with pytest.raises(S3FormatError, match="no tar archive: it begins with b'no archive"):
        entries_of(b"no archive".ljust(2048, b"."), 0)
    with pytest.raises(S3FormatError, match="empty"):
        entries_of(b"", 0)
    whole = bytearray(tar({"a.jpg": bytes(9), "b.jpg": bytes(9)}))
    whole[1024] ^= 1  # in the second header
    with pytest.raises(S3FormatError, match="no header at byte 1024"):
        entries_of(bytes(whole), 0)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=40)
@given(FILES.filter(bool), KINDS, st.data())
def test_a_flipped_bit_is_an_error_or_another_sum(
    files: list[tuple[str, bytes]], kind: int, data: st.DataObject
) -> None:
    """Nothing else can come out of it: no other exception, and no end of the program."""
    try:
        whole = bytearray(tar(files, kind))
    except ValueError:
        return
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with contextlib.suppress(S3FormatError):
        in_pieces(bytes(whole), 4096)
