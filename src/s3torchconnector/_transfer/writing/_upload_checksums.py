"""The checksums of one upload: its requests carry them, so that the server refuses bytes that were damaged on the way.

Each byte is summed once, by the thread that sends it. The checksum of the whole is combined from those of the parts,
and the program can ask for it. A server that does not take checksums responds with an error. Then the request is sent
once more without them, and if that succeeds, they were the reason; see ``ChecksumSupport``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from s3torchconnector._errors import S3Exception
from s3torchconnector._wire import (
    ALGORITHM_HEADER,
    ALGORITHMS,
    TYPE_HEADER,
    Algorithm,
    Buffer,
    Caller,
    CancelToken,
    Request,
    Response,
    md5_of,
)

_T = TypeVar("_T")


class UploadChecksums:
    """The checksums of one upload. Any thread may ask for the checksum of its part, and the last one for the checksum
    of the whole object.

    Args:
        caller: sends the requests.
        bucket: where they go.
        wanted: whether to compute the checksum of the whole even if the server takes none.
    """

    def __init__(self, caller: Caller, bucket: str, wanted: bool) -> None:
        self._caller = caller
        self._wanted = wanted
        self._bucket = bucket
        self._carried = caller.checksums.for_upload(bucket)
        self._algorithm = self._carried or (ALGORITHMS[0] if wanted else None)
        self._parts: dict[int, tuple[int, int]] = {}  # checksum and bytes, by the part's number

    def announced(self) -> Mapping[str, str]:
        """The headers for the request that begins a multipart upload."""
        algorithm = self._carried
        return {} if algorithm is None else {ALGORITHM_HEADER: algorithm.name, TYPE_HEADER: "FULL_OBJECT"}

    def sum_part(self, number: int, body: Sequence[Buffer]) -> None:
        """Sum the bytes of a part, or of the whole object, as part 1."""
        algorithm = self._algorithm  # another thread may note meanwhile that the server takes none
        if algorithm is not None:
            self._parts[number] = algorithm.of(body), sum(map(len, body))

    def of_part(self, number: int, body: Sequence[Buffer]) -> Mapping[str, str]:
        """The headers for the request that sends a part that was summed."""
        algorithm = self._carried
        if algorithm is None:
            return {}
        md5 = {"content-md5": md5_of(body)} if self._caller.checksums.takes_md5(self._bucket) else {}
        return {algorithm.header: algorithm.encode(self._parts[number][0]), **md5}

    @property
    def are_carried(self) -> bool:
        """Whether requests carry them, as far as is known."""
        return self._carried is not None

    def told_of_part(self, number: int) -> tuple[str, str] | None:
        """The checksum that a part was sent with, for the request that completes the upload."""
        algorithm = self._carried
        return None if algorithm is None else (algorithm.name, algorithm.encode(self._parts[number][0]))

    def of_whole(self) -> Mapping[str, str]:
        """The headers for the request that completes the upload."""
        algorithm = self._carried
        if algorithm is None or self._caller.checksums.refuses_whole(self._bucket):
            return {}
        return {algorithm.header: algorithm.encode(self._whole(algorithm)), TYPE_HEADER: "FULL_OBJECT"}

    def description(self) -> str | None:
        """The checksum of all parts, as ``Algorithm.describe`` says it; None if nothing was summed."""
        return None if self._algorithm is None else self._algorithm.describe(self._whole(self._algorithm))

    def _whole(self, algorithm: Algorithm) -> int:
        whole = 0
        for _, (crc, size) in sorted(self._parts.items()):
            whole = algorithm.combine(whole, crc, size)
        return whole

    def call(self, request: Request, consume: Callable[[Response], _T], cancel: CancelToken | None = None) -> _T:
        """``Caller.call``, and once more without checksums if the server does not take them.

        Raises:
            S3Exception: as there.
        """
        try:
            return self._caller.call(request, partial(self._consume, request, consume), cancel)
        except S3Exception as error:
            plain = {name: value for name, value in request.headers.items() if not name.startswith("x-amz-checksum")}
            if len(plain) == len(request.headers) or not self._caller.checksums.may_explain(error):
                raise
            refusal = error
        result = self._caller.call(request._replace(headers=plain), consume, cancel)
        self._caller.checksums.note_unsupported(request.bucket, refusal)
        self._carried = None
        if not self._wanted:
            self._algorithm = None
        return result

    def _consume(self, request: Request, consume: Callable[[Response], _T], response: Response) -> _T:
        """Consume a good response, and note whether it confirms the checksum of the request."""
        algorithm = self._carried
        if algorithm is not None and algorithm.header in request.headers:
            self._caller.checksums.note_stored(self._bucket, algorithm, response.headers)
        return consume(response)
