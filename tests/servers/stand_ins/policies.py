"""A bucket of AWS whose policy refuses what does not carry what it demands.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/amazon-s3-policy-keys.html
https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucket-owner-condition.html
"""

from __future__ import annotations

from tests.servers.http_messages import ReceivedRequest, response, s3_error
from tests.servers.stand_ins.aws_like import AwsLike


class Demanding(AwsLike):
    """Refuses every request that stores an object without these headers.

    Attributes:
        demands: the headers, and the value of each.
        owner: the account of the bucket: a request that expects another one is refused.
    """

    def __init__(self, demands: dict[str, str]) -> None:
        super().__init__()
        self.demands = demands
        self.owner = "111122223333"

    def refuse(self, request: ReceivedRequest) -> bytes | None:
        if request.headers.get("x-amz-expected-bucket-owner", self.owner) != self.owner:
            return response(403) if request.method == "HEAD" else s3_error(403, "AccessDenied", "Access Denied")
        stores = request.method == "PUT" and "uploadId" not in request.query
        lacks = any(request.headers.get(name) != value for name, value in self.demands.items())
        if lacks and (stores or "uploads" in request.query):
            return s3_error(403, "AccessDenied", "Access Denied")
        return None
