"""What ``S3CheckpointManager`` is made of: names, manifests and retention (pure), snapshots, ranks, the store."""
