"""The document that names objects to delete, and the one that says what became of each.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from s3torchconnector._errors import S3Exception, S3NotFoundError
from s3torchconnector._late_imports import no_fork
from s3torchconnector._wire._call_state import add_context
from s3torchconnector._wire._documents import NAMESPACE, local_name, parse
from s3torchconnector._wire._operations import Request, delete_object
from s3torchconnector._wire._response import Response
from s3torchconnector._wire._service_errors import late_error, refuse_late_error

# XML 1.0 has no such characters, or takes some as another: https://www.w3.org/TR/xml/#charsets. A parser that removes
# white space at the ends of a key would delete another object.
_NOT_IN_XML = "[^\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|^\\s|\\s$"


@cache
def _not_in_xml() -> re.Pattern[str]:
    """Takes 2 ms to compile."""
    return re.compile(_NOT_IN_XML)


class Deleted(NamedTuple):
    """What a response says: the keys of objects that are gone, and why others are not."""

    keys: set[str]
    errors: dict[str, S3Exception]


def can_be_named(key: str) -> bool:
    """Whether a document can name the object, for every server that may read it."""
    return bool(key) and _not_in_xml().search(key) is None


def delete_document(keys: Iterable[str]) -> bytes:
    """The document that names these objects. It asks for a response that names all of them, too."""
    with no_fork:
        from xml.sax.saxutils import escape  # here, for the same reason as in ``_documents``

    items = "".join(f"<Object><Key>{escape(key)}</Key></Object>" for key in keys)
    return f'<Delete xmlns="{NAMESPACE}">{items}</Delete>'.encode()


def parse_deleted(bucket: str, response: Response) -> Deleted:
    """Read the response.

    Raises:
        S3Exception: it is an error, or no XML.
    """
    found = Deleted(set(), {})
    with no_fork:
        from xml.etree import ElementTree

    request = Request("DeleteObjects", "POST", bucket)
    for each in parse(refuse_late_error(request, response)):
        key = next((child.text or "" for child in each if local_name(child) == "Key"), "")
        if local_name(each) == "Deleted":
            found.keys.add(key)
        elif local_name(each) == "Error":
            named = delete_object(bucket, key)
            error = late_error(named, response.headers, ElementTree.tostring(each))
            add_context(error, named, 1)
            if isinstance(error, S3NotFoundError) and error.code != "NoSuchBucket":
                found.keys.add(key)  # deleting what is not there is no error
            else:
                found.errors[key] = error
    return found
