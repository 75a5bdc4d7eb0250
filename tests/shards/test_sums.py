"""Files of archives are compared by the fastest checksum that both sides have."""

from __future__ import annotations

import pytest

from s3torchconnector._samples import _sums
from s3torchconnector._samples._sums import UNKNOWN, Sums

# The check values of https://reveng.sourceforge.io/crc-catalogue/17plus.htm
CHECK = Sums(0xCBF43926, 0xE3069283)


def test_sums_match_the_published_check_values() -> None:
    assert Sums().and_of(b"12345").and_of(b"6789") == CHECK
    assert CHECK.are_of(b"123456789")
    assert not CHECK.are_of(b"123456780")


def test_one_of_them_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Sums(0, CHECK.crc32c).are_of(b"123456789")
    assert not Sums(CHECK.crc32, 0).are_of(b"123456789")
    assert Sums(CHECK.crc32, None).are_of(b"123456789")
    assert UNKNOWN.are_of(b"anything")
    monkeypatch.setattr(_sums, "_CRC32C", None)  # as without awscrt
    assert CHECK.are_of(b"123456789")
    assert not CHECK.are_of(b"123456780")
    assert Sums(0, None).and_of(b"123456789") == Sums(CHECK.crc32, None)
