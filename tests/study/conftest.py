import sys

import pytest

from tests.processes import context


@pytest.fixture(scope="session", autouse=True)
def forkserver():
    if sys.platform != "win32":
        context()
