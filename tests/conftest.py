"""For all tests: what one of them did to logging does not reach the next."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from k1s.base.log import LineFormatter


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """A test that runs a verb in this process sets logging up as the verb does."""
    yield
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler.formatter, LineFormatter)]:
        root.removeHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("k1s").setLevel(logging.NOTSET)
