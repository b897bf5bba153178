import os
import shutil

import pytest

from nlora.backbones.fingerprint import fingerprint
from tests.tiny import save


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save("llama", tmp_path_factory.mktemp("local") / "model")


def test_a_copy_in_another_place_is_the_same_model(model, tmp_path):
    copy = shutil.copytree(model, tmp_path / "copy")
    (copy / "README.md").write_text("notes")
    assert fingerprint(copy) == fingerprint(model)


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
def test_every_byte_that_numbers_depend_on_counts(model, tmp_path, file):
    copy = shutil.copytree(model, tmp_path / "copy")
    before = fingerprint(copy)
    path, stat = copy / file, (copy / file).stat()
    path.write_bytes(path.read_bytes()[:-1] + b"\0")  # of the same size
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert fingerprint(copy) != before
