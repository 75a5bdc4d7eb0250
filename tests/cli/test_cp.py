"""``s3torch cp``: what goes where, and what is left alone."""

from __future__ import annotations

import filecmp
import json
import os
import shutil
from pathlib import Path

import pytest

from s3torchconnector import S3Client
from s3torchconnector.testing import S3Server
from tests.cli.support import call, s3torch
from tests.servers.moto_server import MotoServer

_LARGE = 9 * 1024 * 1024  # more than a part


@pytest.fixture
def client(s3_server: S3Server) -> S3Client:
    return S3Client(s3_server.region)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder of files. One is large and one is empty."""
    folder = tmp_path / "tree"
    for name, size in (("a", 1), ("empty", 0), ("sub/large", _LARGE), ("sub/deep/b c", 1000), ("sub.x", 3)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(os.urandom(size))
    return folder


def _cp(*arguments: object) -> str:
    """Copy, and return the figures."""
    done = call("cp", *map(str, arguments))
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    return done.stderr


def _fails(*arguments: object) -> str:
    done = call("cp", *map(str, arguments))
    assert done.returncode == 1
    return done.stderr


def _same(one: Path, other: Path) -> bool:
    """Whether two folders have the same files with the same content, and nothing else."""
    names = [{path.relative_to(top) for path in top.rglob("*") if path.is_file()} for top in (one, other)]
    return names[0] == names[1] and all(filecmp.cmp(one / name, other / name, shallow=False) for name in names[0])


def _put(client: S3Client, bucket: str, key: str, data: bytes = b"data") -> None:
    with client.put_object(bucket, key) as writer:
        writer.write(data)


# -- what goes where ---------------------------------------------------------------------------------------------------


def test_a_tree_goes_to_s3_and_inside_of_s3_and_back(tree: Path, bucket: str, tmp_path: Path) -> None:
    assert _cp("-r", tree, f"s3://{bucket}/x").startswith("copied 5 files, 9.0 MiB in ")
    assert _cp("-r", f"s3://{bucket}/x/", f"s3://{bucket}/y/").startswith("copied 5 files, 9.0 MiB in ")
    assert _cp("-r", f"s3://{bucket}/y", tmp_path / "back").startswith("copied 5 files, 9.0 MiB in ")
    assert _same(tree, tmp_path / "back")


def test_no_object_that_is_to_be_copied_is_replaced_before(bucket: str, client: S3Client) -> None:
    _put(client, bucket, "o/b/z", b"outer")
    _put(client, bucket, "o/b/b/z", b"inner")  # whose copy would be o/b/z
    assert "would replace an object that is to be copied" in _fails("-r", f"s3://{bucket}/o/b/", f"s3://{bucket}/o/")
    assert [client.get_object(bucket, key).read() for key in ("o/z", "o/b/z")] == [b"outer", b"outer"]


def test_single_files_go_to_a_key_or_into_a_folder(tree: Path, bucket: str, client: S3Client, tmp_path: Path) -> None:
    for target, key in (("name", "name"), ("dir/", "dir/a"), ("", "a")):
        _cp(tree / "a", f"s3://{bucket}/{target}")
        assert client.head_object(bucket, key).size == 1
    _cp(tree / "a", tree / "sub.x", f"s3://{bucket}/two/")
    _cp(f"s3://{bucket}/two/a", f"s3://{bucket}/two/sub.x", tmp_path)
    _cp(f"s3://{bucket}/name", tmp_path / "new/folder/file")
    _cp(f"s3://{bucket}/name", f"{tmp_path}/other/")
    _cp(f"s3://{bucket}/two/a", f"s3://{bucket}/three/")
    assert client.head_object(bucket, "three/a").size == 1
    for path in ("a", "new/folder/file", "other/name"):
        assert (tmp_path / path).read_bytes() == (tree / "a").read_bytes()
    assert (tmp_path / "sub.x").read_bytes() == (tree / "sub.x").read_bytes()


def test_standard_streams_are_a_dash(tree: Path, bucket: str) -> None:
    content = (tree / "sub/large").read_bytes()[:3_000_000].hex()
    stored = s3torch("cp", "-", f"s3://{bucket}/in", given=content)
    assert (stored.returncode, stored.stdout) == (0, "")
    assert s3torch("cp", f"s3://{bucket}/in", "-").stdout == content
    device = call("cp", f"s3://{bucket}/in", "/dev/null")
    assert (device.returncode, Path("/dev/null").is_file()) == (0, False)


def test_what_makes_no_sense_is_wrong_usage(tree: Path, bucket: str, tmp_path: Path) -> None:
    uri = f"s3://{bucket}/x"
    for arguments in (
        [uri],
        [tree / "a", tmp_path / "b"],  # nothing in S3
        [tree, uri],  # a folder
        [f"{uri}/", tmp_path],
        ["-r", tree / "a", uri],  # no folder
        ["-r", tree, tmp_path, uri],
        [tree / "a", tree / "sub.x", uri],
        [tree / "a", f"{tree}/./a", f"{uri}/"],  # the same name
        [tree / "a", uri, f"{uri}/"],
        ["-", f"{uri}/"],
        ["-r", uri, "-"],
        [uri, "-", "--json"],
        [uri, uri],
        ["-r", uri, f"{uri}/inside"],
        ["gs://bucket/x", uri],
        ["s3:/bucket/x", tmp_path],
        [tree / "a", uri, "--encryption=none"],
    ):
        done = call("cp", *map(str, arguments))
        assert (done.returncode == 2 or "invalid write options" in done.stderr, done.stdout) == (True, ""), arguments
    missing = call("cp", "-r", "nope", uri)
    assert (missing.returncode, "nope does not exist" in missing.stderr, missing.stdout) == (2, True, "")


def test_stored_objects_have_what_was_asked_for(tree: Path, moto_server: MotoServer, moto_bucket: str) -> None:
    uri, endpoint = f"s3://{moto_bucket}/a", f"--endpoint-url={moto_server.endpoint}"
    _cp(tree / "a", uri, endpoint, "--storage-class=STANDARD_IA", "--content-type=text/plain", "--encryption=AES256")
    with S3Client("us-east-1", endpoint=moto_server.endpoint) as client:
        assert client.head_object(moto_bucket, "a").storage_class == "STANDARD_IA"


# -- what is left alone ------------------------------------------------------------------------------------------------


def test_no_overwrite_leaves_what_exists(tree: Path, bucket: str, client: S3Client, tmp_path: Path) -> None:
    _put(client, bucket, "x/a", b"theirs")
    for target in ("x", "x2", "x2"):
        source = tree if target == "x" else f"s3://{bucket}/x"
        done = _cp("-r", "-n", source, f"s3://{bucket}/{target}")
    assert done.endswith("; skipped 5 files\n")
    assert client.get_object(bucket, "x2/a").read() == b"theirs"
    back = tmp_path / "back"
    back.mkdir()
    (back / "a").write_bytes(b"mine")
    assert _cp("-r", "-n", f"s3://{bucket}/x", back).endswith("; skipped 1 file\n")
    assert (back / "a").read_bytes() == b"mine"
    assert len(list(back.rglob("*"))) == 7  # five files, two folders


def test_update_copies_what_differs(tree: Path, s3_server: S3Server, bucket: str, tmp_path: Path) -> None:
    shutil.copytree(tree, s3_server.folder / bucket / "x")
    for path in (*tree.rglob("*"), *(s3_server.folder / bucket).rglob("*")):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    there, up, inside, back = f"s3://{bucket}/x", f"s3://{bucket}/y", f"s3://{bucket}/z", tmp_path / "back"
    for source, target in ((there, back), (tree, up), (there, inside)):
        assert "copied 5 files" in _cp("-r", "-u", source, target)
        assert "copied 0 files" in _cp("-r", "-u", source, target)
    assert _same(tree, back)
    (tree / "a").write_bytes(b"2")  # of the same size, but later than any upload
    os.utime(tree / "a", (4_000_000_000, 4_000_000_000))
    (tree / "empty").write_bytes(b"no more")
    assert "copied 2 files" in _cp("-r", "-u", tree, up)
    assert "copied 2 files" in _cp("-r", "-u", up, inside)
    (back / "sub.x").write_bytes(b"abc")  # later
    assert "copied 1 file," in _cp("-r", "-u", there, back)


def test_update_copies_what_may_have_been_replaced_within_a_second(
    bucket: str, client: S3Client, tmp_path: Path
) -> None:
    _put(client, bucket, "a", b"old")
    for data in (b"new", b"abc"):  # at the speed of this test, likely within one second
        _cp("-u", f"s3://{bucket}/a", tmp_path / "a")
        _put(client, bucket, "a", data)
    _cp("-u", f"s3://{bucket}/a", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"abc"


def test_a_dry_run_copies_nothing(tree: Path, bucket: str, client: S3Client, tmp_path: Path) -> None:
    _put(client, bucket, "x/a")
    for arguments in (
        [tree, f"s3://{bucket}/y"],
        [f"s3://{bucket}/x", f"s3://{bucket}/y"],
        [f"s3://{bucket}/x", tmp_path],
    ):
        done = call("cp", "-r", "--dry-run", *map(str, arguments))
        assert (done.returncode, done.stderr.startswith("would copy ")) == (0, True)
        assert f"{arguments[0]}/a -> {arguments[1]}/a\n" in done.stdout
    assert [info.key for page in client.list_all(bucket) for info in page] == ["x/a"]
    assert list(tmp_path.iterdir()) == [tree]
    left = call("cp", "-r", "-n", "--dry-run", str(tree), f"s3://{bucket}/x")
    assert "would copy 4 files" in left.stderr


def test_json_has_the_outcome_of_each_object(tree: Path, bucket: str, client: S3Client) -> None:
    _put(client, bucket, "x/a")
    done = call("cp", "-r", "-n", "--json", str(tree), f"s3://{bucket}/x")
    lines = {line["source"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert lines[f"{tree}/a"] == {"source": f"{tree}/a", "destination": f"s3://{bucket}/x/a", "result": "skipped"}
    assert lines[f"{tree}/sub/large"]["size"] == _LARGE
    assert [line["result"] for line in lines.values()].count("copied") == 4


# -- what files there are ----------------------------------------------------------------------------------------------


def test_links_are_followed_but_not_in_a_circle(bucket: str, client: S3Client, tmp_path: Path) -> None:
    folder = tmp_path / "tree"
    (folder / "real").mkdir(parents=True)
    (folder / "real/file").write_bytes(b"1")
    (folder / "link").symlink_to("real/file")
    (folder / "folder").symlink_to("real")
    (folder / "real/circle").symlink_to("..")
    (folder / "nowhere").symlink_to("none")
    os.mkfifo(folder / "pipe")
    errors = _fails("-r", folder, f"s3://{bucket}/x")
    assert "folder that it is in" in errors
    assert "leads nowhere: none" in errors
    assert "pipe" in errors
    keys = [info.key for page in client.list_all(bucket) for info in page]
    assert keys == ["x/folder/file", "x/link", "x/real/file"]
    assert "failed to copy 1 file\n" in _fails("-r", "--no-follow-links", folder, f"s3://{bucket}/y")  # the pipe
    assert [info.key for page in client.list_all(bucket, "y") for info in page] == ["y/real/file"]


def test_a_link_is_replaced_by_a_file_and_its_target_stays(bucket: str, client: S3Client, tmp_path: Path) -> None:
    _put(client, bucket, "a", b"new")
    (tmp_path / "old").write_bytes(b"old")
    (tmp_path / "a").symlink_to("old")
    _cp(f"s3://{bucket}/a", tmp_path / "a")
    assert (tmp_path / "old").read_bytes() == b"old"
    assert not (tmp_path / "a").is_symlink()
    assert (tmp_path / "a").read_bytes() == b"new"


def test_keys_that_would_leave_the_folder_fail(moto_server: MotoServer, moto_bucket: str, tmp_path: Path) -> None:
    endpoint = f"--endpoint-url={moto_server.endpoint}"
    keys = ["x/good", "x/../escaped", "x//absolute", "x/a/../../b", "x/" + "n" * 300, "x/./c", "x/dir/", "x/full/"]
    with S3Client("us-east-1", endpoint=moto_server.endpoint) as client:
        for key in keys:
            _put(client, moto_bucket, key, b"" if key == "x/dir/" else b"data")
    done = call("cp", "-r", f"s3://{moto_bucket}/x", str(tmp_path / "in/side"), endpoint)
    assert (done.returncode, done.stdout) == (1, "")
    failed = [line for line in done.stderr.splitlines() if "cannot be a file" in line]
    assert [next(key for key in keys if f"/{key} -> " in line) for line in failed] == sorted({*keys[1:6], keys[7]})
    assert done.stderr.splitlines()[-1].endswith("failed to copy 6 files")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / "in/side/good"]
    assert "copied 8 files" in _cp("-r", f"s3://{moto_bucket}/x", f"s3://{moto_bucket}/y", endpoint)


def test_a_key_that_is_a_file_and_a_folder_is_an_error(
    moto_server: MotoServer, moto_bucket: str, tmp_path: Path
) -> None:
    with S3Client("us-east-1", endpoint=moto_server.endpoint) as client:
        for key in ("x/a", "x/a/b", "x/c"):
            _put(client, moto_bucket, key)
    errors = _fails("-r", f"s3://{moto_bucket}/x", tmp_path / "y", f"--endpoint-url={moto_server.endpoint}")
    assert "In S3, a name can be both" in errors
    assert "copied 2 files" in errors
    assert "failed to copy 1 file" in errors
    assert (tmp_path / "y/c").read_bytes() == b"data"


def test_an_undecodable_name_does_not_stop_other_files(tree: Path, bucket: str, client: S3Client) -> None:
    (tree / os.fsdecode(b"\xff")).write_bytes(b"1")
    assert "not valid UTF-8" in _fails("-r", tree, f"s3://{bucket}/x")
    assert sum(len(page) for page in client.list_all(bucket)) == 5


def test_a_download_has_the_time_of_the_object(bucket: str, client: S3Client, tmp_path: Path) -> None:
    _put(client, bucket, "a")
    _cp(f"s3://{bucket}/a", tmp_path / "a", "--fsync")
    assert int((tmp_path / "a").stat().st_mtime) == client.head_object(bucket, "a").last_modified
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o666 & ~_umask()


def test_nothing_below_a_prefix_is_an_error(bucket: str, tmp_path: Path) -> None:
    assert "there is no object below" in _fails("-r", f"s3://{bucket}/none", tmp_path / "y")
    assert "not found" in _fails(f"s3://{bucket}/none", tmp_path / "y")
    assert list(tmp_path.iterdir()) == []


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
