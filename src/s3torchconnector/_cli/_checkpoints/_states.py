"""The steps below the prefix of an ``S3CheckpointManager``: committed, damaged, or not (yet) committed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

from s3torchconnector._checkpoint_manager._manifest import Manifest, StoredObject, differences, split_key, step_of
from s3torchconnector._checkpoint_manager._store import Store
from s3torchconnector._checkpoint_manager._upkeep import time_of
from s3torchconnector._cli._output import iso_time, print_table, readable
from s3torchconnector._errors import S3FormatError, S3NotFoundError
from s3torchconnector._types import ObjectInfo

State = Literal["committed", "damaged", "unreadable", "not committed"]
_AGES = (("d", 86_400), ("h", 3_600), ("min", 60))


class StepState(NamedTuple):
    """One step.

    Attributes:
        state: ``"damaged"`` by the listing: objects are missing, or others than were committed. ``"unreadable"`` is
            the manifest. ``"not committed"`` are objects without a manifest: of a save that is under way, or was
            interrupted.
        format: ``"torch"`` or ``"dcp"``; None if that is unknown.
        files, bytes: of what was committed.
        stored: when, in seconds since 1970, by S3's clock.
        age: seconds since then.
        leftover_files, leftover_bytes: of objects in the step's folder that its manifest does not name.
        latest: whether it is the one that was committed last.
        problems: what is damaged, in words.
    """

    step: int
    state: State
    format: str | None
    files: int
    bytes: int
    stored: int
    age: int
    leftover_files: int
    leftover_bytes: int
    latest: bool
    problems: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {**self._asdict(), "stored": iso_time(self.stored)}


def steps_of(store: Store) -> list[StepState]:
    """All steps, by one listing, and by the manifests of those that are committed.

    Raises:
        S3Exception: an error occurred accessing S3.
    """
    commits: dict[int, ObjectInfo] = {}
    objects: dict[int, list[ObjectInfo]] = defaultdict(list)
    for page in store.client.list_all(store.bucket, f"{store.prefix}step-"):
        for info in page:
            name = info.key.removeprefix(store.prefix)
            step, place = step_of(name), split_key(name)
            if step is not None:
                commits[step] = info
            elif place is not None:
                objects[place[0]].append(info._replace(key=place[1]))
    lane = store.client._runtime().lane()
    manifests = {step: lane.submit(partial(_manifest, store, step)) for step in commits}
    now, latest, states = int(time_of(store)), (-1, -1), []
    for step in sorted({*commits, *objects}):
        manifest = manifests[step].result() if step in commits else None
        state = _state(step, manifest, commits.get(step), objects[step])
        states.append(state._replace(age=max(0, now - state.stored)))
        if state.state in ("committed", "damaged"):
            latest = max(latest, (state.stored, step))
    return [state._replace(latest=state.step == latest[1]) for state in states]


def _manifest(store: Store, step: int) -> Manifest | str | None:
    """The manifest; what is wrong with it, in words; None if it has been deleted since it was listed."""
    try:
        return store.manifest(step)
    except S3NotFoundError:
        return None
    except S3FormatError as error:
        return str(error)


def _state(step: int, manifest: Manifest | str | None, commit: ObjectInfo | None, there: list[ObjectInfo]) -> StepState:
    stored = max((info.last_modified for info in there), default=0)
    if commit is None or not isinstance(manifest, Manifest):
        unreadable = (manifest,) if isinstance(manifest, str) else ()
        stored = stored if commit is None else commit.last_modified
        state: State = "unreadable" if unreadable else "not committed"
        size = sum(info.size for info in there)
        return StepState(step, state, None, 0, 0, stored, 0, len(there), size, False, unreadable)
    wrong = differences(manifest, [StoredObject(info.key, info.size, info.etag, None) for info in there])
    left = [info for info in there if not info.key.startswith(manifest.path)]
    return StepState(
        step, "damaged" if wrong else "committed", manifest.format, len(manifest.objects),
        sum(each.size for each in manifest.objects), manifest.stored, 0, len(left), sum(info.size for info in left),
        False, tuple(wrong),
    )  # fmt: skip


def print_steps(states: Sequence[StepState]) -> None:
    """Print the table of all steps."""
    rows = [
        [
            f"{each.step}{' (latest)' if each.latest else ''}",
            each.state,
            each.format or "",
            f"{each.files:,}" if each.files else "",
            f"{each.bytes:,}" if each.files else "",
            readable(each.bytes) if each.files else "",
            age_text(each.age),
            f"{each.leftover_files:,} ({readable(each.leftover_bytes)})" if each.leftover_files else "",
        ]
        for each in states
    ]
    print_table("step", "state", "format", ">files", ">bytes", ">size", ">age", ">leftover files", rows=rows)


def age_text(seconds: int) -> str:
    """An age in the largest unit that it has two of.

    >>> from s3torchconnector._cli._checkpoints._states import age_text
    >>> age_text(90), age_text(7_300), age_text(90_000), age_text(200_000)
    ('90 s', '2 h', '25 h', '2 d')
    """
    for name, unit in _AGES:
        if seconds >= 2 * unit:
            return f"{seconds // unit} {name}"
    return f"{seconds} s"
