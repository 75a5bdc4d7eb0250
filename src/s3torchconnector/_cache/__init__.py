"""The files of an ``S3Cache``."""
