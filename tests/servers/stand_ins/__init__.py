"""Servers in memory. Each enforces a rule of one real server, and names the source of that rule.

    with Minio().serve() as server: ...

``AwsLike`` is the base: multipart uploads, checksums, conditions and copies as AWS documents them. A subclass changes
what its server refuses, ignores or sends in another way, and nothing else.
"""

from __future__ import annotations

from tests.servers.stand_ins.aws_like import AwsLike
from tests.servers.stand_ins.backblaze import Backblaze
from tests.servers.stand_ins.ceph import Ceph16
from tests.servers.stand_ins.customer_keys import CustomerKeys
from tests.servers.stand_ins.express import Express
from tests.servers.stand_ins.gcs import Gcs
from tests.servers.stand_ins.minio import Minio, OldMinio
from tests.servers.stand_ins.policies import Demanding
from tests.servers.stand_ins.r2 import R2
from tests.servers.stand_ins.rustfs import RustFs
from tests.servers.stand_ins.s3rver import S3rver

__all__ = [
    "R2",
    "AwsLike",
    "Backblaze",
    "Ceph16",
    "CustomerKeys",
    "Demanding",
    "Express",
    "Gcs",
    "Minio",
    "OldMinio",
    "RustFs",
    "S3rver",
]
