"""Runs that several tests read are learned once."""

import json
from pathlib import Path

import pytest

from tests.methods.helpers import TASKS, learn


@pytest.fixture(scope="session")
def learned(request, tmp_path_factory):
    """`learned(model, method, …)` is the directory that `learn` makes of these, to be read only."""
    done: dict[str, Path] = {}

    def get(model: str, method: str, tasks=TASKS, **settings) -> Path:
        key = json.dumps([model, method, tasks, settings], sort_keys=True)
        if key not in done:
            done[key] = tmp_path_factory.mktemp(method)
            learn(request.getfixturevalue(model), done[key], method, tasks, **settings)
        return done[key]

    return get
