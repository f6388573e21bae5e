"""A plugin of pytest: coverage is told which test is running, drawn inputs or not."""

import coverage
import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Name the context after the test's module and function."""
    current = coverage.Coverage.current()
    if current is not None:
        current.switch_context(f"{item.module.__name__}.{item.originalname or item.name}")
