"""Tests of the datasets: what they yield, in which order, with how many requests, in which process."""

import pytest

pytest.register_assert_rewrite("tests.datasets.contract", "tests.datasets.support")
