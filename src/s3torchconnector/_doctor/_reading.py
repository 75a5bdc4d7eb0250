"""What reads: each permission on its own, and what the server can do for reads."""

from __future__ import annotations

from s3torchconnector._doctor._findings import Verdict, failed, passed, skipped, warned
from s3torchconnector._doctor._session import Session
from s3torchconnector._plural import counted
from s3torchconnector._types import ObjectInfo
from s3torchconnector._wire import Request, operations, parse_list_page
from s3torchconnector._wire import _probe as probe

_ARCHIVES = ("GLACIER", "DEEP_ARCHIVE")
PERMISSIONS = "guide: Getting started, Permissions"
_SAMPLE = 64 * 1024  # bytes that are read of an object
_NO_ETAG = '"00000000000000000000000000000000"'
_WITHOUT_LISTING = "; without it, programs name objects: from_objects, or a manifest"
_OR_MISSING = "; or name an object that exists: without s3:ListBucket, S3 refuses one that does not in the same way"
_ACCESS = "guide: Troubleshooting, Access denied"


def list_objects(session: Session) -> Verdict:
    """List the prefix."""
    reply, target = session.reply, session.target
    if not reply.is_good:
        return refused(session, reply, "s3:ListBucket", session.bucket_arn, _WITHOUT_LISTING)
    page = parse_list_page(reply.body)
    session.objects = [info for info in page.objects if info.size and info.storage_class not in _ARCHIVES]
    count = len(page.objects)
    if not count:
        return warned(
            f"allowed, and no object has a key that begins with {target.prefix!r}",
            "for training data, correct the prefix: keys are case-sensitive, and begin without a slash",
        )
    return passed(counted(count, "object") + (" on the first page of several" if page.next_token else ""))


def get(session: Session) -> Verdict:
    """Read the beginning of an object: one of the prefix, the one that is named, or a scratch object."""
    info = _object(session)
    if info is None:
        return skipped("there is no object to try it on: name one (s3://bucket/key), or add --write")
    reply = session.ask(operations.get_object(session.target.bucket, info.key, 0, _SAMPLE))
    if reply.status == 404 and not session.objects:
        return skipped(f"there is no object {info.key!r} to try it on: name one that exists, or add --write")
    if not reply.is_good and reply.status != 416:  # which an empty object is due
        may_be_missing = reply.status == 403 and not session.objects and not session.scratch.keys
        return refused(session, reply, "s3:GetObject", session.objects_arn, _OR_MISSING if may_be_missing else "")
    size = _size_told(reply)
    session.objects = session.objects or [info._replace(size=size, etag=reply.headers.get("etag", ""))]
    return passed(f"{counted(len(reply.body) if reply.is_good else 0, 'byte')} of {info.key!r}")


def _object(session: Session) -> ObjectInfo | None:
    """What to read, if anything is known: its size is 0 if that is not."""
    if session.objects:
        return session.objects[0]
    prefix = session.target.prefix
    names = [*session.scratch.keys, *([prefix] if prefix and not prefix.endswith("/") else [])]
    return ObjectInfo(names[0], "", 0, 0) if names else None


def _size_told(reply: probe.Reply) -> int:
    _, _, size = reply.headers.get("content-range", "").partition("/")
    return int(size) if size.isdecimal() else len(reply.body)


def head(session: Session) -> Verdict:
    """Ask for the metadata of what ``get`` has read."""
    reply = session.ask(operations.head_object(session.target.bucket, session.objects[0].key))
    if reply.is_good:
        return passed(f"the size is {counted(int(reply.headers.get('content-length', 0)), 'byte')}")
    return warned(
        f"{reply}, although GET is allowed: a gateway, a proxy or a policy forbids HEAD",
        "allow HEAD; until then, an object's first byte is asked for instead",
    )


def ranges(session: Session) -> Verdict:
    """Ask for a byte in the middle, and for the last ones."""
    info = session.objects[0]
    if info.size < 2:
        return skipped("there is no object of two bytes or more to try it on")
    reply = session.ask(operations.get_object(session.target.bucket, info.key, 1, 2))
    if not reply.is_good or len(reply.body) != 1:  # rclone sends 200 with the range
        sent = counted(len(reply.body), "byte")
        return failed(
            f"HTTP {reply.status} and {sent}, if one byte is asked for: the server ignores ranges",
            "reach the server without the gateway or cache that ignores ranges; large objects cannot be read without",
        )
    reply = session.ask(operations.get_object(session.target.bucket, info.key, -1))
    if reply.is_good and reply.headers.get("content-range", "").startswith(f"bytes {info.size - 1}-"):
        return passed("bytes in the middle and at the end")
    return passed("bytes in the middle; not at the end, for which the size is asked first")


def if_match(session: Session) -> Verdict:
    """Ask for another version than there is."""
    request = operations.get_object(session.target.bucket, session.objects[0].key, 0, 1, if_match=_NO_ETAG)
    reply = session.ask(request)
    if reply.status == 412:
        return passed("refused, if the object is another version")
    return passed(f"ignored (HTTP {reply.status}): the ETag of each response is compared instead")


def start_after(session: Session) -> Verdict:
    """List what comes after a key."""
    bucket, prefix = session.target.bucket, session.target.prefix
    keys = sorted(info.key for info in session.objects if info.key.startswith(prefix))
    if not session.caller.lists_in_order(Request("ListObjectsV2", "GET", bucket)):
        return passed("not used: a directory bucket is listed page by page")
    if not keys:
        return skipped("there is no listed object to try it on")
    reply = session.ask(operations.list_objects(bucket, prefix, max_keys=2, start_after=keys[0]))
    listed = parse_list_page(reply.body).objects.keys if reply.is_good else [keys[0]]
    if all(key > keys[0] for key in listed):
        return passed("large prefixes are listed by many requests at a time")
    return warned(
        f"the server ignores it ({reply.status}): large prefixes are listed by one request after the other",
        "list once, and keep it: S3Manifest (guide: Datasets, Manifests)",
    )


def refused(session: Session, reply: probe.Reply, action: str, resource: str, more: str = "") -> Verdict:
    """The verdict on a refusal."""
    if reply.operation == "CreateSession":
        action, resource = "s3express:CreateSession", "the directory bucket"
    message = reply.document.message.lower() if reply.document else ""
    if session.config.unsigned and reply.status in (401, 403):
        return failed(str(reply), "sign requests: leave out --no-sign-request; the bucket does not let everybody do it")
    if reply.code in probe.ADVICE:
        return failed(str(reply), probe.ADVICE[reply.code])
    if reply.code == "InvalidObjectState":
        return failed(
            str(reply), "restore the object, or name another one; from_prefix(skip_archived=True) leaves it out"
        )
    if "server side encryption" in message:
        return failed(str(reply), "give the key that it is encrypted with: S3ClientConfig(customer_key=...)")
    if "kms" in message:
        return failed(str(reply), "allow kms:Decrypt and kms:GenerateDataKey on the KMS key that the text names")
    if reply.status in (401, 403):
        return failed(str(reply), f"allow {action} on {resource} ({PERMISSIONS}){more}")
    return failed(str(reply), f"{_ACCESS}; or what the server's documentation says of {reply.code or reply.status}")
