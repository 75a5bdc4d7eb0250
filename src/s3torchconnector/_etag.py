"""Compares ETags from any source. Pure.

S3 writes quotes around them, in listings and in responses. Some servers leave the quotes out in one of the two.
"""

from __future__ import annotations


def is_weak(etag: str) -> bool:
    """Whether an ETag is weak: no condition (``If-Match``) can be made of it."""
    return etag.startswith("W/")


def bare(etag: str) -> str:
    """An ETag without quotes, and without the mark of a weak one: what identifies the version."""
    return etag.removeprefix("W/").removeprefix('"').removesuffix('"')


def quoted(etag: str) -> str:
    """An ETag as HTTP wants it."""
    return etag if etag.startswith(('"', "W/")) or not etag else f'"{etag}"'
