"""XML documents: keys come back unchanged, entity bombs and truncated documents raise S3ProtocolError."""

from __future__ import annotations

from urllib.parse import quote_plus
from xml.sax.saxutils import escape

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3torchconnector._errors import S3ProtocolError
from s3torchconnector._listing_results import UploadInfo
from s3torchconnector._types import ObjectInfo, RestoreStatus
from s3torchconnector._wire import CompletedPart, parse_http_date, parse_list_page, parse_upload_id, parse_uploads_page
from s3torchconnector._wire._documents import find_text, local_name, parse, parse_error, parse_timestamp
from s3torchconnector._wire._sessions import parse_session
from s3torchconnector._wire._upload_documents import complete_multipart_document

quickly = settings(max_examples=80)
# Every key S3 can have: any Unicode but surrogates, control characters too.
keys = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30) | st.text("+% &<\r\n\0", min_size=1)
NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
BOMB = '<?xml version="1.0"?><!DOCTYPE b [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;">]><Error><Code>&b;</Code></Error>'


def contents(key: str, size: object = 5, modified: str = "2026-01-31T10:20:30.000Z", more: str = "") -> str:
    return (
        f"<Contents><Key>{key}</Key><LastModified>{modified}</LastModified><ETag>&quot;e&quot;</ETag>"
        f"<Size>{size}</Size><StorageClass>STANDARD</StorageClass>{more}</Contents>"
    )


def listing(*elements: str, namespace: str = NAMESPACE) -> bytes:
    attribute = f' xmlns="{namespace}"' if namespace else ""
    return f"<ListBucketResult{attribute}>{''.join(elements)}</ListBucketResult>".encode()


ENCODED = "<EncodingType>url</EncodingType>"
PAGE = listing(
    ENCODED,
    "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>",
    contents("a"),
    "<CommonPrefixes><Prefix>p%2Fq/</Prefix></CommonPrefixes>",
)


@quickly
@given(st.lists(keys, max_size=4), st.lists(keys, max_size=2), st.sampled_from([NAMESPACE, ""]))
def test_keys_survive_url_encoding(names: list[str], prefixes: list[str], namespace: str) -> None:
    rows = [contents(quote_plus(name, safe="/*")) for name in names]
    rolled = [f"<CommonPrefixes><Prefix>{quote_plus(name)}</Prefix></CommonPrefixes>" for name in prefixes]
    page = parse_list_page(listing(ENCODED, *rows, *rolled, namespace=namespace))
    assert [each.key for each in page.objects] == names
    assert page.common_prefixes == prefixes


@quickly
@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x2FF, exclude_categories=["Cc", "Cs"]), min_size=1))
def test_keys_that_are_not_encoded_are_taken_as_they_are(name: str) -> None:
    assert parse_list_page(listing(contents(escape(name)))).objects[0].key == name


def test_a_page_describes_its_objects_completely() -> None:
    restore = (
        "<RestoreStatus><IsRestoreInProgress>false</IsRestoreInProgress>"
        "<RestoreExpiryDate>1970-01-01T00:01:00Z</RestoreExpiryDate></RestoreStatus>"
    )
    page = parse_list_page(listing(contents("k", 7, "1970-01-02T00:00:01.999Z", restore)))
    assert list(page.objects) == [ObjectInfo("k", '"e"', 7, 86401, "STANDARD", RestoreStatus(False, 60))]
    assert page.next_token is None


def test_truncated_page_has_the_token_of_the_next() -> None:
    assert parse_list_page(PAGE).next_token == "t"


def test_a_truncated_page_without_a_token_is_refused() -> None:
    with pytest.raises(S3ProtocolError, match="keys would be lost"):
        parse_list_page(listing("<IsTruncated>true</IsTruncated>"))


@pytest.mark.parametrize("size", ["-1", "", "1e3", "0x10", "9" * 30, "1_000", "five"])
def test_sizes_that_cannot_be_are_refused(size: str) -> None:
    with pytest.raises(S3ProtocolError, match="malformed"):
        parse_list_page(listing(contents("k", size)))


@pytest.mark.parametrize(
    "entry",
    [
        "<Contents><Key>k</Key></Contents>",
        contents("k", modified="yesterday"),
        contents("k", modified="2026-13-31T10:20:30Z"),
        contents("k").replace("Key>", "Name>"),
    ],
)
def test_entries_that_lack_something_are_refused(entry: str) -> None:
    with pytest.raises(S3ProtocolError):
        parse_list_page(listing(entry))


def test_another_document_is_no_listing() -> None:
    with pytest.raises(S3ProtocolError, match="<Other>"):
        parse_list_page(b"<Other/>")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_document_types_are_refused_in_every_encoding(encoding: str) -> None:
    bomb = BOMB.encode(encoding)
    with pytest.raises(S3ProtocolError):
        parse(bomb)
    assert parse_error(bomb) is None


@quickly
@given(st.integers(0, len(PAGE) - 1))
def test_torn_document_is_refused(stop: int) -> None:
    with pytest.raises(S3ProtocolError):
        parse_list_page(PAGE[:stop])


@quickly
@given(
    st.binary(max_size=80)
    | st.tuples(st.just(b"<Error><Code>"), st.binary(max_size=20), st.just(b"</Code></Error>")).map(b"".join)
    | st.sampled_from(
        [b"<a><a>", b'<?xml version="1.0" encoding="x"?><a/>', b'<?xml version="1.0" encoding="utf-7"?><a/>']
    )
)
def test_any_bytes_are_a_document_or_a_protocol_error(data: bytes) -> None:
    try:
        root = parse(data)
    except S3ProtocolError:
        assert parse_error(data) is None
        return
    assert isinstance(local_name(root), str)
    for parser in (parse_list_page, parse_upload_id, parse_session):
        with pytest.raises(S3ProtocolError):
            parser(data)


def test_upload_id_is_found_whatever_the_root_is_called() -> None:
    assert parse_upload_id(b"<Anything><Bucket>b</Bucket><UploadId> id </UploadId></Anything>") == "id"
    with pytest.raises(S3ProtocolError, match="no UploadId in its <Anything>"):
        parse_upload_id(b"<Anything><UploadId/></Anything>")


def test_error_document() -> None:
    document = parse_error(
        b"<Error><Code>NoSuchKey</Code><Message>m</Message><RequestId>r</RequestId><Region>eu-west-1</Region></Error>"
    )
    assert document == ("NoSuchKey", "m", "r", "eu-west-1", None, None)
    assert parse_error(b"<Error><Message>no code</Message></Error>") is None
    assert parse_error(b"<html><Code>of a web page</Code></html>") is None


def test_session() -> None:
    fields = {"SessionToken": "t", "SecretAccessKey": "s", "AccessKeyId": "a", "Expiration": "1970-01-01T01:00:00Z"}
    credentials = "".join(f"<{name}>{value}</{name}>" for name, value in fields.items())
    assert parse_session(f"<R><Credentials>{credentials}</Credentials></R>".encode()) == (("a", "s", "t"), 3600)


@quickly
@given(st.lists(st.tuples(st.integers(1, 10_000), st.text("abc\"'<>&-", max_size=8)), max_size=5))
def test_completion_lists_the_parts_in_order(parts: list[tuple[int, str]]) -> None:
    root = parse(complete_multipart_document(CompletedPart(*part) for part in parts))
    assert local_name(root) == "CompleteMultipartUpload"
    assert [(int(find_text(part, "PartNumber") or 0), find_text(part, "ETag")) for part in root] == parts


@quickly
@given(
    st.text(max_size=40)
    | st.from_regex(r"[A-Z][a-z]{2}, \d{1,6} [A-Z][a-z]{2} \d{1,8} \d\d:\d\d:\d\d \S{0,6}", fullmatch=True)
)
def test_any_date_header_is_a_number_of_seconds(text: str) -> None:
    assert isinstance(parse_http_date(text), int)


def test_dates() -> None:
    assert parse_http_date("Fri, 02 Jan 1970 00:00:01 GMT") == 86401
    assert parse_http_date("0") == 0
    assert parse_timestamp("1970-01-02T00:00:01Z") == 86401


def uploads_page(*elements: str, truncated: str = "false", encoding: str = "<EncodingType>url</EncodingType>") -> bytes:
    uploads = "".join(f"<Upload>{each}<Initiated>2026-01-31T10:20:30.000Z</Initiated></Upload>" for each in elements)
    return (
        f'<ListMultipartUploadsResult xmlns="{NAMESPACE}"><Bucket>b</Bucket><KeyMarker/>{encoding}'
        f"<IsTruncated>{truncated}</IsTruncated>{uploads}</ListMultipartUploadsResult>"
    ).encode()


@quickly
@given(keys)
def test_keys_of_uploads_survive_the_trip(key: str) -> None:
    page = parse_uploads_page(uploads_page(f"<Key>{quote_plus(key)}</Key><UploadId>i+%41</UploadId>"))
    assert page == ([UploadInfo(key, "i+%41", parse_timestamp("2026-01-31T10:20:30.000Z"))], None)


def test_keys_of_uploads_that_are_not_encoded() -> None:
    page = parse_uploads_page(uploads_page("<Key>a+%41</Key><UploadId>i</UploadId>", encoding=""))
    assert page.uploads[0].key == "a+%41"


def test_a_truncated_page_of_uploads_has_a_marker() -> None:
    marker = (
        "<NextKeyMarker>a+b</NextKeyMarker><NextUploadIdMarker>i+1</NextUploadIdMarker><EncodingType>url</EncodingType>"
    )
    assert parse_uploads_page(
        uploads_page(truncated="true", encoding=marker + "<EncodingType>url</EncodingType>")
    ).next_marker == ("a b", "i+1")
    of_a_directory_bucket = "<NextKeyMarker>a+b</NextKeyMarker><EncodingType>url</EncodingType>"
    page = parse_uploads_page(uploads_page(truncated="true", encoding=of_a_directory_bucket))
    assert page.next_marker == ("a b", None)
    with pytest.raises(S3ProtocolError, match="NextKeyMarker"):
        parse_uploads_page(uploads_page(truncated="true"))


@pytest.mark.parametrize(
    "data",
    [
        b"<ListBucketResult/>",
        uploads_page("<Key>a</Key>"),
        uploads_page("<UploadId>i</UploadId>"),
        uploads_page("<Key>a</Key><UploadId>i</UploadId>").replace(b"2026-01", b"2026-x"),
    ],
)
def test_a_page_of_uploads_that_lacks_something_is_refused(data: bytes) -> None:
    with pytest.raises(S3ProtocolError):
        parse_uploads_page(data)


@quickly
@given(st.sets(keys, min_size=1, max_size=8), keys, st.booleans())
def test_a_page_up_to_a_key_names_the_following_key(names: set[str], last: str, plainly: bool) -> None:
    """Also if an XML parser has to read it."""
    there = sorted(names)
    entries = [contents(quote_plus(name), more="" if plainly else "<Owner/>") for name in there]
    page = parse_list_page(listing(ENCODED, *entries), last)
    assert page.in_order
    assert page.objects.keys == [name for name in there if name <= last]
    assert page.following == next((name for name in there if name > last), None)


@quickly
@given(st.lists(keys, min_size=1, max_size=4), keys)
def test_a_page_says_whether_its_keys_ascend(names: list[str], last: str) -> None:
    page = parse_list_page(listing(ENCODED, *(contents(quote_plus(name)) for name in names)), last)
    assert page.in_order == (names == sorted(set(names)))
    if not page.in_order:
        assert (page.objects.keys, page.following) == (names, None)
