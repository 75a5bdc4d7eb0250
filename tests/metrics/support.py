"""What tests of figures share."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import s3torchconnector
from s3torchconnector.metrics import Metrics
from tests.servers.proxy import RecordingProxy

_METHODS = {
    "GetObject": "GET",
    "ListObjectsV2": "GET",
    "HeadObject": "HEAD",
    "PutObject": "PUT",
    "UploadPart": "PUT",
    "CreateMultipartUpload": "POST",
    "CompleteMultipartUpload": "POST",
    "DeleteObject": "DELETE",
}


def operations_of_the_source() -> set[str]:
    """The operations of all requests that the source makes."""
    sources = sorted(Path(s3torchconnector.__file__).parent.rglob("*.py"))
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in sources]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    made = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "Request"]
    return {call.args[0].value for call in made if call.args and isinstance(call.args[0], ast.Constant)}


def by_method(metrics: Metrics) -> Counter[tuple[str, int]]:
    """Requests by HTTP method and status, as the proxy knows them."""
    found: Counter[tuple[str, int]] = Counter()
    for operation, statuses in metrics.requests.items():
        for status, count in statuses.items():
            found[_METHODS[operation], status] += count
    return found


def seen_by(proxy: RecordingProxy) -> Counter[tuple[str, int]]:
    """The same, of what the proxy saw."""
    return Counter((each.method, each.status or 0) for each in proxy.exchanges)
