"""What tests of tables share."""

import pytest

from nlora.report.tables import tables
from tests.report.rows import write


@pytest.fixture
def make(tmp_path):
    """One table of a ledger of these rows, its rows by the first column's text."""

    def made(rows, key, **options):
        (found,) = tables([write(tmp_path / "ledger.jsonl", rows)], [key], **options)
        return found

    return made
