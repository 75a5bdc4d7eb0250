"""Watch what a training loop asks of S3: in the log, in TensorBoard, in Lightning's logger, and for Prometheus.

Run it with ``python examples/metrics.py``. It starts a real S3 server on this machine; on AWS, leave that out.
It needs Lightning, prometheus-client and TensorBoard: from the checkout,
``pip install '.[demo,lightning,prometheus]' tensorboard``.
"""

from __future__ import annotations

import tempfile

from lightning.pytorch.loggers import CSVLogger
from prometheus_client import CollectorRegistry, generate_latest
from torch.utils.tensorboard import SummaryWriter

from s3torchconnector import S3Client, S3DataLoader, S3Reader, S3StreamingDataset, metrics
from s3torchconnector.metrics.prometheus import MetricsCollector
from s3torchconnector.testing import S3Server

OBJECTS, SIZE, EPOCHS = 200, 20_000, 2


def size(reader: S3Reader) -> int:
    """A transform."""
    return len(reader.read())


def train(region: str, folder: str) -> None:
    dataset = S3StreamingDataset("s3://training/data/", region=region, transform=size, batch_size=20)
    loader = S3DataLoader(dataset, num_workers=2)
    writer, logger = SummaryWriter(folder), CSVLogger(folder)
    for epoch in range(EPOCHS):
        assert sum(int(batch.sum()) for batch in loader) == OBJECTS * SIZE
        figures = metrics.process().as_dict()  # with those of the workers

        for name, value in figures.items():
            writer.add_scalar(f"s3/{name}", value, epoch)

        logger.log_metrics(figures, epoch)
        logger.save()
    writer.close()


def main() -> None:
    registry = CollectorRegistry()
    registry.register(MetricsCollector())
    with S3Server() as server, server.exported(), tempfile.TemporaryDirectory() as folder:
        data = server.make_bucket("training") / "data"
        data.mkdir()
        for number in range(OBJECTS):
            (data / f"{number:04}").write_bytes(bytes(SIZE))
        with metrics.watch(lambda figures: print("in the last second:", figures), seconds=1):
            train(server.region, folder)
        with S3Client(server.region) as client:
            client.head_object("training", "data/0000")
            print("the client alone:", client.metrics().requests)
    figures = metrics.process()
    print(f"{sum(figures.requests['GetObject'].values())} objects were read, for ${figures.cost():.6f}")
    print(*[line for line in generate_latest(registry).decode().splitlines() if "requests_total{" in line], sep="\n")


if __name__ == "__main__":
    main()
