"""Processes whose end is the subject of a test, forked from one that has the libraries imported."""

import multiprocessing
from multiprocessing import forkserver
from typing import Any


def context() -> Any:
    """Of `multiprocessing`; its one server has imported what the children of any test need.

    A comparison (`study.runner`) would start it with less if it came first.
    """
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["tests.preloaded"])
    forkserver.ensure_running()
    return found
