"""What holds for all tests: the same on every machine, however slow, and with or without a GPU."""

import functools
import gc
import os
import signal
import sys

import pytest
import typer.main
import typer.testing
from hypothesis import settings

from tests import lacking
from tests.budget import Budget
from tests.once import once

# Tests compare bits, and a GPU's kernels add up in any order (set it to 0 to try them there).
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
# Workers with as many threads each as there are cores wait for each other most of the time.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("nightly", max_examples=1000, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


def pytest_configure(config):
    # A shell ignores Ctrl-C for what it runs in the background, and so would every child process.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.set_threshold(100_000, 20, 100)  # each stage that is trained collects all garbage anyway
    if not hasattr(config, "workerinput"):  # the workers of xdist report to the main process
        config.pluginmanager.register(Budget(config.rootpath, os.environ.get("NLORA_BUDGET")))


def pytest_collection_modifyitems(session, items):
    """The longest files first, so that no worker is left alone with one at the end."""
    seconds = Budget(session.config.rootpath).seconds
    items.sort(key=lambda item: -seconds.get(item.nodeid.split("::")[0], 0))


def pytest_collection_finish(session):
    """No bars where nobody looks, and nothing is looked for that is not there."""
    if transformers := sys.modules.get("transformers"):
        transformers.utils.logging.disable_progress_bar()
        lacking.remember()


@pytest.fixture(scope="session")
def left_out():
    """Of how many modules garbage collection takes no notice."""
    return {"modules": 0}


@pytest.fixture(autouse=True)
def modules_are_no_garbage(left_out):
    """Each stage that is trained collects all garbage, and most of its time is for modules."""
    if len(sys.modules) > left_out["modules"] + 20:
        gc.collect()
        gc.freeze()
        left_out["modules"] = len(sys.modules)


@pytest.fixture(scope="session", autouse=True)
def nothing_waits_for_the_disk():
    """What is written is read again by processes, which need no `fsync`; only a power cut does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def commands_are_built_once():
    """Each call of the command line builds all of its commands, which differ in nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.testing, "_get_command", functools.cache(typer.main.get_command))
        yield


@pytest.fixture(scope="session")
def registries():
    """What registries hold before any plug-in is imported or handed over."""
    from nlora.adapters.registry import _registered
    from nlora.evaluation.own_metrics import _registered as _metrics
    from nlora.merging.registry import _known
    from nlora.methods.registry import _registered as _methods

    return [(known, dict(known)) for known in (_registered, _known, _methods, _metrics)]


@pytest.fixture(autouse=True)
def plug_ins_are_forgotten(registries):
    """What a plug-in of one test registers is not there in the next."""
    for known, first in registries:
        known.clear()
        known.update(first)


def decoder_only(folder, layers):
    """Make a tiny random model that can learn, unlike most random ones.

    Its head, which adapters leave as it is, has large weights, so that they can move the answers.
    """
    from tests.tiny import model, tokenizer  # slow to import, and not every test needs it

    net = model("llama", layers=layers)
    net.lm_head.weight.data.mul_(30)
    net.save_pretrained(folder)
    tokenizer(ends_with_eos=False).save_pretrained(folder)


@pytest.fixture(scope="session")
def llama(tmp_path_factory):
    """The folder of a tiny decoder-only model of one layer that can learn."""
    return once("llama", lambda folder: decoder_only(folder, 1), tmp_path_factory)


@pytest.fixture(scope="session")
def llama_of_two(tmp_path_factory):
    """The same with two layers, for what goes by layers."""
    return once("llama-of-two", lambda folder: decoder_only(folder, 2), tmp_path_factory)


@pytest.fixture(scope="session")
def t5(tmp_path_factory):
    """The folder of a tiny random encoder-decoder model, of one layer each."""
    from tests.tiny import save

    return once("t5", lambda folder: save("t5", folder, layers=1), tmp_path_factory)


@pytest.fixture(scope="session")
def t5_of_two(tmp_path_factory):
    """The same with two layers each."""
    from tests.tiny import save

    return once("t5-of-two", lambda folder: save("t5", folder), tmp_path_factory)


@pytest.fixture(scope="session")
def finished(llama, tmp_path_factory):
    """`finished(kind)` is the finished run of one of the kinds of tests/finished.py, to be read."""
    from tests.finished import described, finish

    def of(kind):
        folder = once(
            f"finished-{kind}", lambda folder: finish(kind, llama, folder), tmp_path_factory
        )
        return described(kind, llama, folder)

    return of
