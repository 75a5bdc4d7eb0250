"""``S3WriteOptions``: what the requests that store an object say about it, validated once."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from s3torchconnector._errors import S3ConfigurationError

MARK = "s3torchconnector-write"
"""The name of the metadata by which a write recognises its own object."""
MARK_SIZE = 32  # bytes of its value

Pairs = tuple[tuple[str, str], ...]
Texts = Mapping[str, str] | Pairs

_ENCRYPTION = ("AES256", "aws:kms", "aws:kms:dsse")
_OF_KMS = ("kms_key_id", "kms_context", "bucket_key")
_MOST_METADATA = 2048  # bytes of names and values
_MOST_TAGS, _LONGEST_TAG, _LONGEST_TAG_VALUE = 10, 128, 256
_OF_TAGS = "_.:/=+-@"  # beside letters, numbers and blanks
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2: the name of a header
_CANNED = re.compile("[a-z-]+")


@dataclass(frozen=True, kw_only=True)
class S3WriteOptions:
    """What S3 is told about an object when it is stored: encryption, ACL, storage class, content type, tags, metadata.

    ``S3ClientConfig(write_options=...)`` has them sent with everything that a client stores: by writers,
    ``torch.distributed.checkpoint``, Lightning, the checkpoint manager and safetensors. ``S3Checkpoint.writer``,
    ``S3Client.put_object`` and others take options for one object. What those leave out (None) is the client's;
    ``encryption`` and what belongs to it are taken together. Options go with PutObject, CreateMultipartUpload and
    CopyObject. Copies keep the content type and the metadata of their source, and its tags if ``tags`` are left out.

    Which of them a bucket takes, S3 decides: directory buckets have neither ACLs nor tags.

    Args:
        encryption: ``"AES256"``, ``"aws:kms"`` or ``"aws:kms:dsse"``. By default, the bucket's own
            (https://docs.aws.amazon.com/AmazonS3/latest/userguide/serv-side-encryption.html).
        kms_key_id: the id, ARN or alias of the KMS key; the ARN for a key of another account. By default, S3's own.
        kms_context: pairs that KMS logs, and that key policies can demand. They are no secret for AWS, but are left out
            of ``repr`` (https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingKMSEncryption.html).
        bucket_key: whether S3 may use a key of the bucket, which saves requests to KMS.
        acl: a canned ACL, such as ``"bucket-owner-full-control"``
            (https://docs.aws.amazon.com/AmazonS3/latest/userguide/acl-overview.html#canned-acl).
        storage_class: S3's name of the storage class. By default, ``STANDARD``.
        content_type: the media type.
        tags: up to 10, names of up to 128 characters, values of up to 256; letters, numbers, blanks and ``_.:/=+-@``
            (https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-tagging.html).
        metadata: printable ASCII, by names without ``x-amz-meta-``, which S3 turns to lower case. Names and values have
            up to 1,994 bytes together: S3 takes 2,048, and a write may add 54 by which it recognises its own object
            (https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html).

    Mappings are kept as sorted pairs, so that options can be compared and hashed.

    Raises:
        S3ConfigurationError: (a ``ValueError``) S3 would refuse these options, whatever the bucket. The text says why.

    Example:
        >>> from s3torchconnector import S3Checkpoint, S3ClientConfig, S3WriteOptions
        >>> options = S3WriteOptions(encryption="AES256", storage_class="STANDARD_IA", metadata={"run": "7"})
        >>> checkpoint = S3Checkpoint("us-east-1", s3client_config=S3ClientConfig(write_options=options))
        >>> plain = S3WriteOptions(content_type="text/plain")
        >>> with checkpoint.writer("s3://my-bucket/notes.txt", options=plain) as file:
        ...     file.write(b"lr=0.1")
        6
    """

    encryption: str | None = None
    kms_key_id: str | None = None
    kms_context: Texts | None = field(default=None, repr=False)
    bucket_key: bool | None = None
    acl: str | None = None
    storage_class: str | None = None
    content_type: str | None = None
    tags: Texts | None = None
    metadata: Texts | None = None

    def __post_init__(self) -> None:
        for name in ("kms_context", "tags", "metadata"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, _pairs(name, value))
        for name in ("encryption", "kms_key_id", "acl", "storage_class", "content_type"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, str) and value and _is_sendable(value)):
                raise _refusal(name, f"must be printable ASCII: {name}={value!r}")
        self._check_encryption()
        if self.acl is not None and not _CANNED.fullmatch(self.acl):
            raise _refusal("acl", f"must be a canned ACL such as 'bucket-owner-full-control': acl={self.acl!r}")
        if self.content_type is not None and "/" not in self.content_type:
            raise _refusal("content_type", f"must be a media type such as 'text/plain': {self.content_type!r}")
        self._check_tags()
        if self.metadata is not None:
            object.__setattr__(self, "metadata", _checked_metadata(self.metadata))

    def _check_encryption(self) -> None:
        if self.encryption not in (None, *_ENCRYPTION):
            raise _refusal("encryption", f"must be one of {', '.join(_ENCRYPTION)}: encryption={self.encryption!r}")
        if not isinstance(self.bucket_key, (bool, type(None))):
            raise _refusal("bucket_key", f"must be True, False or None: bucket_key={self.bucket_key!r}")
        given = [name for name in _OF_KMS if getattr(self, name) is not None]
        if given and self.encryption in (None, "AES256"):
            raise _refusal(given[0], f"needs encryption='aws:kms', but encryption={self.encryption!r}")
        if self.bucket_key and self.encryption == "aws:kms:dsse":
            raise _refusal("bucket_key", "is not possible with encryption='aws:kms:dsse': S3 has no bucket keys for it")

    def _check_tags(self) -> None:
        tags = dict(self.tags or ())
        if len(tags) > _MOST_TAGS:
            raise _refusal("tags", f"are at most {_MOST_TAGS}, but there are {len(tags)}")
        for name, value in tags.items():
            if not 0 < len(name) <= _LONGEST_TAG or len(value) > _LONGEST_TAG_VALUE:
                limits = f"{_LONGEST_TAG} characters, and values at most {_LONGEST_TAG_VALUE}"
                raise _refusal("tags", f"have names of 1 to {limits}: {name!r}")
            strange = [
                each for each in name + value if each not in _OF_TAGS and unicodedata.category(each)[0] not in "LNZ"
            ]
            if strange:
                raise _refusal(
                    "tags", f"have letters, numbers, blanks and {_OF_TAGS} alone: {strange[0]!r} in {name!r}"
                )
            if name.lower().startswith("aws:"):
                raise _refusal("tags", f"must not begin with 'aws:', which is reserved for AWS: {name!r}")

    def _over(self, base: S3WriteOptions) -> S3WriteOptions:
        """These options, and those of ``base`` where they say nothing."""
        left_out = {each.name for each in dataclasses.fields(self) if getattr(self, each.name) is None}
        if self.encryption is not None:
            left_out.difference_update(_OF_KMS)
        return dataclasses.replace(self, **{name: getattr(base, name) for name in left_out})

    def _encryption_headers(self) -> dict[str, str]:
        """For PutObject, CreateMultipartUpload, CopyObject and CreateSession."""
        texts = {
            "x-amz-server-side-encryption": self.encryption,
            "x-amz-server-side-encryption-aws-kms-key-id": self.kms_key_id,
        }
        headers = {name: value for name, value in texts.items() if value is not None}
        if self.kms_context is not None:
            document = json.dumps(dict(self.kms_context)).encode()
            headers["x-amz-server-side-encryption-context"] = base64.b64encode(document).decode()
        if self.bucket_key is not None:
            headers["x-amz-server-side-encryption-bucket-key-enabled"] = str(self.bucket_key).lower()
        return headers

    def _headers(self) -> dict[str, str]:
        """For PutObject and CreateMultipartUpload.

        https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html
        https://docs.aws.amazon.com/AmazonS3/latest/API/API_CreateMultipartUpload.html
        """
        texts = {"x-amz-acl": self.acl, "x-amz-storage-class": self.storage_class, "content-type": self.content_type}
        headers = {**self._encryption_headers(), **{name: text for name, text in texts.items() if text is not None}}
        if self.tags:
            pairs = [f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in dict(self.tags).items()]
            headers["x-amz-tagging"] = "&".join(pairs)
        headers.update({f"x-amz-meta-{name}": value for name, value in dict(self.metadata or ()).items()})
        return headers

    def _copy_headers(self) -> dict[str, str]:
        """For CopyObject, which keeps the content type and the metadata of the source.

        https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html
        """
        headers = dataclasses.replace(self, content_type=None, metadata=None)._headers()
        if self.tags is not None:
            headers["x-amz-tagging-directive"] = "REPLACE"
        return headers


def _pairs(name: str, value: object) -> Pairs:
    """A mapping, or pairs, as sorted pairs."""
    items = value.items() if isinstance(value, Mapping) else value
    if not isinstance(items, Iterable) or isinstance(items, str):
        raise _refusal(name, f"must be a mapping from strings to strings, not {type(value).__name__}")
    pairs = [tuple(each) for each in items]
    if not all(len(each) == 2 and all(isinstance(text, str) for text in each) for each in pairs):
        raise _refusal(name, "must be a mapping from strings to strings")
    if len(dict(pairs)) < len(pairs):
        raise _refusal(name, "has a name twice")
    return tuple(sorted(pairs))


def _checked_metadata(metadata: Texts) -> Pairs:
    pairs = tuple(sorted((name.lower(), value) for name, value in dict(metadata).items()))
    for name, value in pairs:
        if name.startswith("x-amz-meta-"):
            raise _refusal("metadata", f"is named without 'x-amz-meta-', which is added: {name!r}")
        if name == MARK:
            raise _refusal("metadata", f"must not have the name {MARK!r}, which writes use to recognise their objects")
        if not _TOKEN.fullmatch(name):
            raise _refusal("metadata", f"has names that can be those of headers, without blanks: {name!r}")
        if not _is_sendable(value) or value != " ".join(value.split()):
            raise _refusal("metadata", f"has values of printable ASCII, with single blanks between words: {name!r}")
    if len(dict(pairs)) < len(pairs):
        raise _refusal(
            "metadata", "has two names that differ only in upper and lower case, which S3 does not tell apart"
        )
    size, most = sum(len(name) + len(value) for name, value in pairs), _MOST_METADATA - len(MARK) - MARK_SIZE
    if size > most:
        raise _refusal("metadata", f"has at most {most:,} bytes of names and values together, but it has {size:,}")
    return pairs


def _is_sendable(text: str) -> bool:
    return text.isascii() and text.isprintable()


def _refusal(name: str, text: str) -> S3ConfigurationError:
    return S3ConfigurationError(f"invalid write options: {name} {text}")
