"""The parts of ``S3CheckpointManager``: names, manifests and retention (pure), snapshots, ranks, the store."""
