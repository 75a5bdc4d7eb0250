"""``S3IterableDataset``: the contract of both datasets, and that an epoch costs one request for each object."""

from __future__ import annotations

from torch.utils.data import DataLoader, IterableDataset

from s3torchconnector import S3IterableDataset
from s3torchconnector.testing import S3Server
from tests.datasets.contract import CONTENTS, SAMPLES, DatasetContract, fill
from tests.datasets.support import key_and_bytes, read
from tests.servers.proxy import RecordingProxy


class TestS3IterableDataset(DatasetContract):
    dataset_class = S3IterableDataset


def test_is_an_iterable_dataset_of_pytorch() -> None:
    assert isinstance(S3IterableDataset.from_objects("s3://b/k", region="us-east-1"), IterableDataset)


def test_an_epoch_is_one_listing_and_one_get_for_each_object(
    s3_server: S3Server, bucket: str, proxy: RecordingProxy
) -> None:
    fill(s3_server, bucket, CONTENTS)
    dataset = S3IterableDataset.from_prefix(
        f"s3://{bucket}/data", region="us-east-1", endpoint=proxy.endpoint, transform=read
    )
    assert proxy.exchanges == []  # no request at construction
    for _ in range(2):
        assert list(dataset) == list(CONTENTS.values())
    assert len(proxy.exchanges) == 2 * (1 + len(CONTENTS))
    assert all(len(proxy.of("GET", f"/{bucket}/{key}")) == 2 for key in CONTENTS)


def test_more_than_a_page_of_objects(s3_server: S3Server, bucket: str) -> None:
    contents = {f"{i:05}": b"." for i in range(1100)}
    fill(s3_server, bucket, contents)
    dataset = S3IterableDataset.from_prefix(f"s3://{bucket}", region="us-east-1", endpoint=s3_server.endpoint)
    assert [reader.key for reader in dataset] == list(contents)


def test_one_epoch_after_another_through_a_data_loader(s3_server: S3Server, bucket: str) -> None:
    fill(s3_server, bucket, CONTENTS)
    dataset = S3IterableDataset.from_prefix(
        f"s3://{bucket}", region="us-east-1", endpoint=s3_server.endpoint, transform=key_and_bytes
    )
    loader: DataLoader[object] = DataLoader(dataset, batch_size=5, collate_fn=list)
    for _ in range(2):
        assert list(loader) == [SAMPLES[:5], SAMPLES[5:10], SAMPLES[10:]]
