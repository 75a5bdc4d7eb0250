"""Lightning checkpoints in S3: ``S3LightningCheckpoint``, a plugin of ``Trainer`` and ``Fabric``."""

try:
    from s3torchconnector.lightning.s3_lightning_checkpoint import S3LightningCheckpoint
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in ("lightning", "lightning_fabric", "fsspec"):
        raise
    raise ModuleNotFoundError(
        f"s3torchconnector.lightning needs Lightning, which is not installed ({error}): "
        "from the checkout, pip install '.[lightning]'",
        name=error.name,
    ) from error

__all__ = ["S3LightningCheckpoint"]
