"""``ObjectInfos`` behaves as a list of ``ObjectInfo``."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from s3torchconnector._listing_results import ObjectInfos
from s3torchconnector._types import ObjectInfo

infos = st.lists(
    st.builds(ObjectInfo, st.text(max_size=3), st.text(max_size=2), st.integers(0, 9), st.integers(0, 9)), max_size=12
)
bounds = st.none() | st.integers(-15, 15)


@given(infos, bounds, bounds)
def test_columns_are_the_list(rows: list[ObjectInfo], start: int | None, stop: int | None) -> None:
    columns = ObjectInfos.of(iter(rows))
    assert list(columns) == rows
    assert len(columns) == len(rows)
    assert [columns[i] for i in range(-len(rows), len(rows))] == rows + rows
    assert list(columns[start:stop]) == rows[start:stop]
    assert all(type(row) is ObjectInfo for row in columns)
