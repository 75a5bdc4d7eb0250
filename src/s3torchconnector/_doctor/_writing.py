"""What writes, with small objects below the scratch prefix: each permission, and what the server can do for writes."""

from __future__ import annotations

from s3torchconnector._doctor._findings import Verdict, failed, passed, warned
from s3torchconnector._doctor._reading import PERMISSIONS, refused
from s3torchconnector._doctor._scratch import GONE
from s3torchconnector._doctor._session import Session
from s3torchconnector._plural import counted
from s3torchconnector._wire import (
    ALGORITHMS,
    Algorithm,
    CompletedPart,
    operations,
    parse_upload_id,
)
from s3torchconnector._wire import _probe as probe

_BODY = b"written by s3torch doctor\n"
_OTHER_BODY = b"written by s3torch doctor, too\n"
_COMPARED, _KEPT, _REFUSED = "compared", "kept", "refused"
_NO_ETAG = '"00000000000000000000000000000000"'


def put(session: Session) -> Verdict:
    """Store an object."""
    reply = _put(session, "object", {})
    if reply.is_good:
        return passed(f"{session.scratch}object")
    session.scratch.forget(f"{session.scratch.prefix}object")
    more = "; or set the write_options that the bucket's policy demands (guide: Configuration, What buckets demand)"
    return refused(session, reply, "s3:PutObject", session.objects_arn, more)


def _put(session: Session, name: str, headers: dict[str, str], body: bytes = _BODY) -> probe.Reply:
    key, options = session.scratch.key(name), _options(session)
    request = operations.put_object(session.target.bucket, key, [body], options=options, checksum=headers)
    return session.scratch.note_version(key, session.ask(request))


def _options(session: Session) -> dict[str, str]:
    """The headers that the client's configuration sets for stored objects."""
    return session.config._options_of_write(None)._headers()


def if_none_match(session: Session) -> Verdict:
    """Store an object that exists, unless it exists."""
    reply = _put(session, "object", {"if-none-match": "*"})
    if reply.status in (409, 412):
        return passed("refused, if the object exists")
    return warned(
        f"{_how(reply)}: overwrite=False looks first, so of two writers at the same time both may succeed",
        "let one process write each object",
    )


def if_match(session: Session) -> Verdict:
    """Replace another version than there is."""
    reply = _put(session, "object", {"if-match": _NO_ETAG})
    if reply.status in (409, 412):
        return passed("refused, if the object is another version")
    return warned(
        f"{_how(reply)}: two saves of one checkpoint at the same time may both succeed",
        "let one job write each checkpoint",
    )


def _how(reply: probe.Reply) -> str:
    return f"ignored (HTTP {reply.status})" if reply.is_good else f"not known to the server ({reply})"


def checksums(session: Session) -> Verdict:
    """Store objects with right and with wrong checksums of each kind."""
    found = {algorithm.name: _support(session, algorithm) for algorithm in ALGORITHMS}
    text = ", ".join(f"{name} {support}" for name, support in found.items())
    first = found[ALGORITHMS[0].name]
    if first.startswith(_COMPARED):
        return passed(text)
    if first == _REFUSED:
        return warned(
            f"{text}: uploads are sent again without, and the server does not verify what it stores",
            'set checksum="off" in S3ClientConfig, to save the first attempt, or use a newer version of the server',
        )
    does = "keeps checksums, but does not compare them" if first == _KEPT else "ignores checksums"
    return warned(
        f"the server {does}: it would store damaged bytes ({text})",
        'set checksum="required" in S3ClientConfig, with which uploads carry a Content-MD5 as well',
    )


def _support(session: Session, algorithm: Algorithm) -> str:
    """What the server does with one kind of checksum, in words."""
    right, wrong = algorithm.encode(algorithm.of([_BODY])), algorithm.encode(algorithm.of([_OTHER_BODY]))
    if not _put(session, "checksum", {algorithm.header: right}).is_good:
        return _REFUSED
    stored = session.ask(operations.head_object(session.target.bucket, session.scratch.key("checksum"), checksum=True))
    does = [] if _put(session, "checksum", {algorithm.header: wrong}).is_good else [_COMPARED]
    does += [_KEPT] if stored.headers.get(algorithm.header) == right else []
    return " and ".join(does) or "ignored"


def copy(session: Session) -> Verdict:
    """Copy the object inside S3."""
    bucket, scratch = session.target.bucket, session.scratch
    source, destination = scratch.key("object"), scratch.key("copy")
    request = operations.copy_object(bucket, source, bucket, destination, options=_options(session))
    reply = scratch.note_version(destination, session.ask(request))
    late = probe.parse_error(reply.body) if reply.is_good else None
    if reply.is_good and late is None:
        return passed("inside S3")
    reason = f"{late.code}: {late.message}" if late else str(reply)
    return warned(
        f"objects cannot be copied or renamed: {reason}",
        f"allow s3:GetObject and s3:PutObject on {session.objects_arn}, or do without copies ({PERMISSIONS})",
    )


def multipart(session: Session) -> Verdict:
    """Store an object by a multipart upload of one part."""
    bucket, scratch = session.target.bucket, session.scratch
    key = scratch.key("multipart")
    reply, upload = _create(session, key)
    if upload is None:
        return refused(session, reply, "s3:PutObject", session.objects_arn)
    reply = session.ask(operations.upload_part(bucket, key, upload, 1, [_BODY]))
    if not reply.is_good:
        return refused(session, reply, "s3:PutObject", session.objects_arn)
    parts = [CompletedPart(1, reply.headers.get("etag", ""))]
    request = operations.complete_multipart_upload(bucket, key, upload, parts)
    reply = scratch.note_version(key, session.ask(request))
    late = probe.parse_error(reply.body) if reply.is_good else reply.document
    if late is not None or not reply.is_good:
        reply = reply._replace(document=late)
        return refused(session, reply, "s3:PutObject", session.objects_arn)
    scratch.forget(upload)
    return passed("created, one part sent, completed")


def _create(session: Session, key: str) -> tuple[probe.Reply, str | None]:
    session.scratch.begin_upload()
    request = operations.create_multipart_upload(session.target.bucket, key, options=_options(session))
    reply = session.ask(request)
    upload = parse_upload_id(reply.body) if reply.is_good else None
    session.scratch.note_upload(key, upload)
    return reply, upload


def abort(session: Session) -> Verdict:
    """Abort a multipart upload."""
    bucket, key = session.target.bucket, session.scratch.key("aborted")
    reply, upload = _create(session, key)
    if upload is None:
        return refused(session, reply, "s3:PutObject", session.objects_arn)
    session.scratch.forget(key)  # nothing is ever stored there
    reply = session.ask(operations.abort_multipart_upload(bucket, key, upload))
    if not reply.is_good and reply.status not in GONE:
        return refused(session, reply, "s3:AbortMultipartUpload", session.objects_arn)
    session.scratch.forget(upload)
    return passed("created, and aborted")


def list_uploads(session: Session) -> Verdict:
    """List unfinished uploads, which is how what a killed job leaves is found."""
    reply = session.ask(operations.list_multipart_uploads(session.target.bucket, session.scratch.prefix))
    if reply.is_good:
        return passed("unfinished uploads can be found, and cleaned up")
    return warned(
        f"S3CheckpointManager.clean finds no unfinished uploads: {reply}",
        f"allow s3:ListBucketMultipartUploads on {session.bucket_arn}, or have a lifecycle rule abort them",
    )


def delete(session: Session) -> Verdict:
    """Delete all that was stored."""
    bucket, scratch = session.target.bucket, session.scratch
    count = counted(len(scratch.keys), "object")
    for key in scratch.keys:
        reply = session.ask(operations.delete_object(bucket, key))
        if not reply.is_good and reply.status not in GONE:
            more = f"; then remove what is left: aws s3 rm --recursive {scratch} {session.options}"
            return refused(session, reply, "s3:DeleteObject", session.objects_arn, more)
        scratch.note_version(key, reply)  # of the delete marker
        scratch.forget(key)
    if session.ask(operations.head_object(bucket, f"{scratch.prefix}object")).is_good:
        return failed(
            f"{scratch}object is still there after it was deleted",
            f"remove it: aws s3 rm --recursive {scratch} {session.options}",
        )
    if not scratch.remove_versions(session.caller):
        return passed(f"{count}, whose versions stay: the bucket keeps them until a lifecycle rule ends them")
    return passed(f"{count}, and nothing of them is left")
