"""``S3ClientConfig``: what it accepts, and that a value that cannot work is an error that names the field."""

from __future__ import annotations

import copy
import dataclasses
import math
import os
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3torchconnector import S3ClientConfig, S3Exception
from s3torchconnector._config import GIB, MAX_PART_SIZE, MIB, MIN_PART_SIZE
from s3torchconnector._s3client import S3Client

_COUNTS = ["part_size", "max_attempts", "max_connections", "memory_budget"]
_AMOUNTS = ["throughput_target_gbps", "connect_timeout", "read_timeout", "operation_timeout"]
_SWITCHES = ["unsigned", "force_path_style", "requester_pays", "hedge", "equal_parts", "verify_tls", "keep_version"]


def refused(**fields: Any) -> str:
    with pytest.raises(ValueError, match=r"^invalid configuration: ") as caught:
        S3ClientConfig(**fields)
    assert isinstance(caught.value, S3Exception)
    return str(caught.value)


def test_every_field_is_under_test() -> None:
    names = [field.name for field in dataclasses.fields(S3ClientConfig)]
    assert sorted(names) == sorted(
        [
            *_COUNTS,
            *_AMOUNTS,
            *_SWITCHES,
            "profile",
            "checksum",
            "proxy_ca_bundle",
            "write_options",
            "customer_key",
            "credentials",
            "expected_bucket_owner",
            "progress",
        ]
    )


@pytest.mark.parametrize("name", _COUNTS + _AMOUNTS)
@pytest.mark.parametrize("value", [0, -1, None, "8", b"8", [8], True, 8j])
def test_a_value_that_cannot_work_names_its_field(name: str, value: Any) -> None:
    text = refused(**{name: value})
    assert f"{name}={value!r}" in text


@pytest.mark.parametrize("name", _COUNTS)
@pytest.mark.parametrize("value", [8388608.0, 0.5, math.nan, math.inf])
def test_counts_are_integers(name: str, value: float) -> None:
    assert f"{name} must be an integer: {name}={value!r}" in refused(**{name: value})


@pytest.mark.parametrize("name", _AMOUNTS)
@pytest.mark.parametrize("value", [0.0, -0.5, math.nan, math.inf, -math.inf])
def test_amounts_are_positive_and_finite(name: str, value: float) -> None:
    assert f"{name} must be positive and finite: {name}={value!r}" in refused(**{name: value})


@pytest.mark.parametrize("name", [name for name in _AMOUNTS if name.endswith("_timeout")])
def test_timeouts_are_no_longer_than_the_kernel_can_wait(name: str) -> None:
    S3ClientConfig(**{name: 1e6})
    assert f"{name} must be at most 1,000,000 seconds: {name}=1000000.5" in refused(**{name: 1000000.5})


@pytest.mark.parametrize("name", _SWITCHES)
@pytest.mark.parametrize("value", ["yes", 1, None])
def test_switches_are_booleans(name: str, value: Any) -> None:
    assert f"{name} must be True or False: {name}={value!r}" in refused(**{name: value})


@pytest.mark.parametrize("value", [1, True, b"default"])
@pytest.mark.parametrize("name", ["profile", "proxy_ca_bundle", "write_options"])
def test_names_and_paths_are_strings(name: str, value: Any) -> None:
    assert f"{name}={value!r}" in refused(**{name: value})


@pytest.mark.parametrize("value", ["on", "", "OFF", None, True])
def test_checksum_is_one_of_three(value: Any) -> None:
    assert f"checksum={value!r}" in refused(checksum=value)


@given(st.integers(MIN_PART_SIZE, MAX_PART_SIZE))
def test_part_sizes_that_s3_takes(size: int) -> None:
    assert S3ClientConfig(part_size=size).part_size == size


@pytest.mark.parametrize("size", [5 * MIB - 1, 5 * GIB + 1, 1, -(8 * MIB)])
def test_part_sizes_that_s3_does_not_take(size: int) -> None:
    text = refused(part_size=size)
    assert text.startswith("invalid configuration: part size must be at between 5MiB and 5GiB")
    assert f"part_size={size}" in text


def test_requester_pays_must_be_signed() -> None:
    text = refused(requester_pays=True, unsigned=True)
    assert "requester_pays" in text
    assert "unsigned" in text
    assert S3ClientConfig(requester_pays=True).requester_pays
    assert S3ClientConfig(unsigned=True).unsigned


@given(st.floats(min_value=1e-6, max_value=1e6) | st.integers(1, 10**6))
def test_any_positive_throughput_makes_a_client(target: float) -> None:
    client = S3Client("us-east-1", s3client_config=S3ClientConfig(throughput_target_gbps=target))
    assert 1 <= client._runtime().streams <= client.s3client_config.max_connections
    client.close()


def test_is_frozen_and_a_value() -> None:
    config = S3ClientConfig(part_size=16 * MIB)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.part_size = 8 * MIB  # type: ignore[misc]
    assert config == S3ClientConfig(10.0, 16 * MIB) != S3ClientConfig()
    assert hash(config) == hash(S3ClientConfig(10.0, 16 * MIB))
    assert dataclasses.replace(config, part_size=8 * MIB) == S3ClientConfig()


def test_a_derived_configuration_is_validated_too() -> None:
    with pytest.raises(ValueError, match="max_attempts=0"):
        dataclasses.replace(S3ClientConfig(), max_attempts=0)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles(protocol: int) -> None:
    config = S3ClientConfig(2.5, 6 * MIB, True, True, 3, "mine", max_connections=5, read_timeout=1.5)
    assert pickle.loads(pickle.dumps(config, protocol)) == copy.deepcopy(config) == config


def test_numbers_of_numpy_are_numbers() -> None:
    config = S3ClientConfig(part_size=np.int64(6 * MIB), throughput_target_gbps=np.float32(2.5))  # type: ignore[arg-type]
    assert (config.part_size, config.throughput_target_gbps) == (6 * MIB, 2.5)


def test_the_throughput_target_in_bytes() -> None:
    assert S3ClientConfig(throughput_target_gbps=8)._bytes_per_second == 1e9


@pytest.mark.parametrize(("endpoint", "processors", "streams"), [
    ("http://127.0.0.1:9000", 1, 63),
    ("https://127.0.0.1:9000", 1, 12),
    ("https://127.0.0.1:9000", 64, 63),
    (None, 2, 24),
])  # fmt: skip
def test_no_more_streams_than_the_processors_can_decrypt(
    monkeypatch: pytest.MonkeyPatch, endpoint: str | None, processors: int, streams: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(processors)))
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    with S3Client("us-east-1", endpoint=endpoint) as client:
        assert client._runtime().streams == streams


def test_a_near_server_gets_fewer_requests_at_a_time() -> None:
    with S3Client("us-east-1", endpoint="http://127.0.0.1:9000") as client:
        runtime = client._runtime()
        assert (runtime.streams, runtime.requests) == (63, 24)  # before anything was measured
        runtime.caller.hedging.note(0.025)
        assert (runtime.streams, runtime.requests) == (63, 192)
        for _ in range(100):
            runtime.caller.hedging.note(0.002)
        assert (runtime.streams, runtime.requests) == (16, 24)
