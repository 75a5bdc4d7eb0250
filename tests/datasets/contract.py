"""What both datasets promise: one suite, run over each class by a subclass in its test file.

``list(dataset)`` works on both, on the map dataset by index.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from s3torchconnector import S3ClientConfig, S3Exception, S3IterableDataset, S3MapDataset, S3Reader, S3ReaderConstructor
from s3torchconnector._s3bucket_key_data import S3BucketKeyData
from s3torchconnector.testing import S3Server
from tests.datasets.support import key_and_bytes, read
from tests.servers.proxy import RecordingProxy

CONTENTS = {f"data/{i:02}": f"content {i}".encode() for i in range(12)}
SAMPLES = sorted(CONTENTS.items())


def fill(s3_server: S3Server, bucket: str, contents: dict[str, bytes]) -> None:
    """Put objects into a new bucket."""
    for key, content in contents.items():
        path = s3_server.folder / bucket / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


class StreamingReader(S3Reader):
    """A reader class of a program's own, on top of ``get_stream``."""


def streaming_reader(bucket: str, key: str, get_object_info: Any, get_stream: Any) -> S3Reader:
    return StreamingReader(bucket, key, get_object_info, lambda: get_stream())


def kind_and_size(reader: S3Reader) -> tuple[str, int]:
    return type(reader).__name__, reader.seek(0, 2)


class DatasetContract:
    dataset_class: type[S3IterableDataset] | type[S3MapDataset]

    @pytest.fixture
    def uri(self, s3_server: S3Server, bucket: str) -> str:
        fill(s3_server, bucket, CONTENTS)
        return f"s3://{bucket}"

    @pytest.fixture
    def from_prefix(self, s3_server: S3Server) -> Callable[..., Any]:
        def make(uri: str, **options: Any) -> Any:
            defaults = {"region": s3_server.region, "endpoint": s3_server.endpoint, "transform": key_and_bytes}
            return self.dataset_class.from_prefix(uri, **{**defaults, **options})

        return make

    @pytest.fixture
    def from_objects(self, s3_server: S3Server) -> Callable[..., Any]:
        def make(uris: str | Iterable[str], **options: Any) -> Any:
            defaults = {"region": s3_server.region, "endpoint": s3_server.endpoint, "transform": key_and_bytes}
            return self.dataset_class.from_objects(uris, **{**defaults, **options})

        return make

    def test_from_prefix_yields_its_objects_in_key_order(self, uri: str, from_prefix: Any) -> None:
        assert list(from_prefix(f"{uri}/data/")) == SAMPLES
        assert list(from_prefix(f"{uri}/data/0")) == SAMPLES[:10]
        assert list(from_prefix(f"{uri}/da")) == SAMPLES

    @pytest.mark.parametrize("end", ["", "/"])
    def test_an_empty_prefix_means_the_whole_bucket(self, uri: str, from_prefix: Any, end: str) -> None:
        assert list(from_prefix(uri + end)) == SAMPLES

    def test_a_prefix_without_objects_is_an_empty_dataset(
        self, uri: str, from_prefix: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert len(list(from_prefix(f"{uri}/data/11"))) == 1
        assert list(from_prefix(f"{uri}/other/")) == []
        assert [record.getMessage() for record in caplog.records if "no samples" in record.getMessage()] == [
            f"there are no samples below {uri}/other/: prefixes end with /, keys are case-sensitive"
        ]

    def test_from_objects_keeps_the_given_order_and_repetitions(self, uri: str, from_objects: Any) -> None:
        order = [3, 1, 2, 3, 3]
        assert list(from_objects([f"{uri}/{SAMPLES[i][0]}" for i in order])) == [SAMPLES[i] for i in order]

    def test_from_objects_takes_one_uri(self, uri: str, from_objects: Any) -> None:
        assert list(from_objects(f"{uri}/data/07")) == [SAMPLES[7]]

    def test_from_objects_of_a_generator_can_be_iterated_again(self, uri: str, from_objects: Any) -> None:
        dataset = from_objects(f"{uri}/{key}" for key in CONTENTS)
        assert list(dataset) == list(dataset) == SAMPLES

    def test_from_objects_of_nothing_is_empty(self, from_objects: Any) -> None:
        assert list(from_objects([])) == []

    def test_the_default_transform_gives_readers(self, uri: str, s3_server: S3Server) -> None:
        dataset = self.dataset_class.from_prefix(uri, region=s3_server.region, endpoint=s3_server.endpoint)
        readers = list(dataset)
        assert all(isinstance(reader, S3Reader) for reader in readers)
        assert [(reader.bucket, reader.key) for reader in readers] == [(uri[5:], key) for key in CONTENTS]
        assert [reader.read() for reader in readers] == list(CONTENTS.values())

    def test_directory_markers_are_no_samples(self, moto_server: Any, moto_bucket: str) -> None:
        options: dict[str, Any] = {"region": "us-east-1", "endpoint": moto_server.endpoint, "transform": key_and_bytes}
        dataset = self.dataset_class.from_prefix(f"s3://{moto_bucket}", **options)
        contents = {"a/": b"", "a/b/": b"", "a/b/empty": b"", "a/full/": b"has bytes", "z": b"z"}
        for key, content in contents.items():
            stream = dataset._source.client.put_object(moto_bucket, key)
            stream.write(content)
            stream.close()
        expected = [(key, contents[key]) for key in ("a/b/empty", "a/full/", "z")]
        assert list(dataset) == expected

    @pytest.mark.parametrize(
        "constructor",
        [
            S3ReaderConstructor.default(),
            S3ReaderConstructor.sequential(),
            S3ReaderConstructor.range_based(buffer_size=0),
            S3ReaderConstructor.dcp_optimized(),
            streaming_reader,
        ],
    )
    def test_any_reader_constructor_reads_the_same(self, uri: str, from_prefix: Any, constructor: Any) -> None:
        assert list(from_prefix(uri, reader_constructor=constructor)) == SAMPLES

    def test_a_custom_reader_constructor_makes_the_readers(self, uri: str, from_prefix: Any) -> None:
        dataset = from_prefix(uri, reader_constructor=streaming_reader, transform=kind_and_size)
        assert list(dataset) == [("StreamingReader", len(content)) for content in CONTENTS.values()]

    def test_says_its_region_and_endpoint(self) -> None:
        dataset = self.dataset_class.from_prefix("s3://b", region="eu-west-1", endpoint="http://127.0.0.1:1")
        assert (dataset.region, dataset.endpoint) == ("eu-west-1", "http://127.0.0.1:1")
        assert self.dataset_class.from_objects("s3://b/k", region="eu-west-1").endpoint is None
        with pytest.raises(AttributeError):
            dataset.region = "us-east-1"  # type: ignore[misc]

    def test_can_be_constructed_directly(self, uri: str, s3_server: S3Server) -> None:
        def objects(_: object) -> list[S3BucketKeyData]:
            return [S3BucketKeyData(uri[5:], key) for key in CONTENTS]

        assert list(self.dataset_class(s3_server.region, objects, s3_server.endpoint, read)) == list(CONTENTS.values())

    def test_a_subclass_with_the_signature_of_1_5_0(self, uri: str, s3_server: S3Server) -> None:
        """Its constructor knows no newer parameters, and may have another order after the third one."""
        base: Any = self.dataset_class

        class Own(base):  # type: ignore[misc]
            def __init__(
                self, region: Any, get_dataset_objects: Any, endpoint: Any = None, *, reader_constructor: Any = None,
                s3client_config: Any = None, transform: Any = None, **sharding: bool,
            ) -> None:  # fmt: skip
                self.sharding = sharding
                super().__init__(
                    region, get_dataset_objects, endpoint, transform=transform, s3client_config=s3client_config,
                    reader_constructor=reader_constructor, **sharding,
                )  # fmt: skip

        options: dict[str, Any] = {"region": s3_server.region, "endpoint": s3_server.endpoint, "transform": read}
        sharding = {"enable_sharding": False} if self.dataset_class is S3IterableDataset else {}
        for dataset in (
            Own.from_prefix(f"{uri}/data/0", **options),
            Own.from_objects([f"{uri}/{key}" for key, _ in SAMPLES[:10]], **options),
        ):
            assert type(dataset) is Own
            assert dataset.sharding == sharding
            assert list(dataset) == [content for _, content in SAMPLES[:10]]

    def test_a_missing_bucket_is_named(self, from_prefix: Any) -> None:
        with pytest.raises(FileNotFoundError, match=r"^Service error: The bucket does not exist.*s3://no-such-bucket"):
            list(from_prefix("s3://no-such-bucket/a"))

    def test_a_missing_object_is_named(self, uri: str, from_objects: Any) -> None:
        with pytest.raises(FileNotFoundError, match=r"^Service error: The key does not exist.*/data/nope"):
            list(from_objects([f"{uri}/data/00", f"{uri}/data/nope"]))

    @pytest.mark.parametrize("bad", ["https://bucket/key", "bucket/key", "s3:/bucket/key", "s3://", "s3:///key", ""])
    def test_bad_uris_are_refused_at_construction(self, bad: str, from_prefix: Any, from_objects: Any) -> None:
        for make in (from_prefix, from_objects, lambda uri: from_objects(["s3://bucket/key", uri])):
            with pytest.raises(ValueError, match=r"Only s3:// URIs are supported|Bucket name must be non-empty"):
                make(bad)

    def test_a_bucket_is_no_object(self, from_objects: Any) -> None:
        with pytest.raises(ValueError, match="names a bucket but no object"):
            from_objects("s3://bucket/")

    @pytest.mark.parametrize("bad", [None, 3, b"s3://bucket/key"])
    def test_uris_are_strings(self, bad: Any, from_prefix: Any, from_objects: Any) -> None:
        for make in (from_prefix, lambda uri: from_objects([uri])):
            with pytest.raises(TypeError):
                make(bad)

    def test_the_configuration_reaches_the_requests(self, uri: str, proxy: RecordingProxy) -> None:
        config = S3ClientConfig(unsigned=True, max_attempts=1)
        dataset = self.dataset_class.from_prefix(
            uri, region="us-east-1", endpoint=proxy.endpoint, transform=read, s3client_config=config
        )
        with pytest.raises(S3Exception):  # the server wants signatures
            list(dataset)
        assert [("authorization" in exchange.request.headers) for exchange in proxy.exchanges] == [False]

    @pytest.mark.parametrize("used", [False, True])
    def test_pickles_and_yields_the_same(self, uri: str, from_prefix: Any, from_objects: Any, used: bool) -> None:
        for dataset in (from_prefix(uri), from_objects(f"{uri}/{key}" for key in CONTENTS)):
            if used:
                assert list(dataset) == SAMPLES
            copy = pickle.loads(pickle.dumps(dataset))
            assert list(copy) == list(dataset) == SAMPLES
            assert (copy.region, copy.endpoint) == (dataset.region, dataset.endpoint)

    def test_a_transforms_own_error_passes_unchanged(self, uri: str, from_prefix: Any) -> None:
        def transform(reader: S3Reader) -> None:
            raise LookupError(reader.key)

        with pytest.raises(LookupError, match=r"^'?data/00'?(\n|$)"):
            list(from_prefix(uri, transform=transform))
