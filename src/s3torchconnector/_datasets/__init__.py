"""What ``S3Manifest`` and ``S3StreamingDataset`` are made of; most of it is pure."""
