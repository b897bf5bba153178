"""What holds for all tests: the same on every machine, however slow, and with or without a GPU."""

import os

import pytest
from hypothesis import settings

# Tests compare bits, and a GPU's kernels add up in any order (set it to 0 to try them there).
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

settings.register_profile("same", derandomize=True, deadline=None)
settings.load_profile("same")


@pytest.fixture(scope="session")
def llama(tmp_path_factory):
    """The folder of a tiny random decoder-only model that can learn, unlike most random ones.

    Its head, which adapters leave as it is, has large weights, so that they can move the answers.
    """
    from tests.tiny import model, tokenizer  # slow to import, and not every test needs it

    folder = tmp_path_factory.mktemp("models") / "llama"
    net = model("llama")
    net.lm_head.weight.data.mul_(30)
    net.save_pretrained(folder)
    tokenizer(ends_with_eos=False).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def t5(tmp_path_factory):
    """The folder of a tiny random encoder-decoder model."""
    from tests.tiny import save

    return save("t5", tmp_path_factory.mktemp("models") / "t5")
