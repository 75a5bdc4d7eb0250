"""The arithmetic of checksums, held against implementations of others."""

from __future__ import annotations

import base64
import zlib

import pytest
from awscrt import checksums as native
from hypothesis import given
from hypothesis import strategies as st

from s3torchconnector._wire._checksums import ALGORITHMS, CRC32, Algorithm, offered

_BY_NAME = {algorithm.name: algorithm for algorithm in ALGORITHMS}
_NATIVE = {"CRC64NVME": native.crc64nvme, "CRC32C": native.crc32c, "CRC32": native.crc32}
_LARGEST = {64: 2**64 - 1, 32: 2**32 - 1}

# https://reveng.sourceforge.io/crc-catalogue/all.htm, the CRC of b"123456789"
_PUBLISHED = {"CRC64NVME": 0xAE8B14860A799888, "CRC32C": 0xE3069283, "CRC32": 0xCBF43926}


def test_the_best_is_first() -> None:
    assert list(_BY_NAME) == ["CRC64NVME", "CRC32C", "CRC32"]


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda algorithm: algorithm.name)
class TestEach:
    def test_published_value(self, algorithm: Algorithm) -> None:
        assert algorithm.of([b"1234", bytearray(b"567"), memoryview(b"89")]) == _PUBLISHED[algorithm.name]

    @given(st.binary(max_size=300), st.binary(max_size=300))
    def test_a_combined_checksum_is_that_of_the_concatenation(
        self, algorithm: Algorithm, first: bytes, second: bytes
    ) -> None:
        one = _NATIVE[algorithm.name]
        assert algorithm.combine(one(first), one(second), len(second)) == one(first + second)

    @given(st.lists(st.binary(max_size=50), max_size=12))
    def test_many_parts_in_order(self, algorithm: Algorithm, parts: list[bytes]) -> None:
        crc = 0
        for part in parts:
            crc = algorithm.combine(crc, algorithm.of([part]), len(part))
        assert crc == _NATIVE[algorithm.name](b"".join(parts))

    @given(st.data(), st.integers(1, 50 * 10**12))
    def test_combines_any_length_as_awscrt_does(self, algorithm: Algorithm, data: st.DataObject, size: int) -> None:
        crcs = st.integers(0, _LARGEST[algorithm.bits])
        first, second = data.draw(crcs), data.draw(crcs)
        theirs = getattr(native, f"combine_{algorithm.name.lower()}")(first, second, size)
        assert algorithm.combine(first, second, size) == theirs

    @given(st.data())
    def test_text_and_back(self, algorithm: Algorithm, data: st.DataObject) -> None:
        crc = data.draw(st.integers(0, _LARGEST[algorithm.bits]))
        assert algorithm.decode(algorithm.encode(crc)) == crc

    @given(st.text() | st.binary().map(lambda data: base64.b64encode(data).decode()))
    def test_only_encodable_texts_are_decoded(self, algorithm: Algorithm, text: str) -> None:
        crc = algorithm.decode(text)
        assert crc is None or algorithm.encode(crc) == text


def test_headers_match_those_of_s3() -> None:
    assert CRC32.header == "x-amz-checksum-crc32"
    # From the API reference: the CRC32 of "Hello world" in big-endian base64.
    assert CRC32.encode(zlib.crc32(b"Hello world")) == "i9aeUg=="


def test_only_full_object_checksums_count() -> None:
    text = CRC32.encode(7)
    assert offered({"x-amz-checksum-crc32": text}) == {CRC32: 7}
    assert offered({"x-amz-checksum-crc32": text, "x-amz-checksum-type": "FULL_OBJECT"}) == {CRC32: 7}
    assert offered({"x-amz-checksum-crc32": text, "x-amz-checksum-type": "COMPOSITE"}) == {}
    assert offered({"x-amz-checksum-crc32": f"{text}-3"}) == {}
    assert offered({"x-amz-checksum-sha256": text, "etag": text}) == {}
