"""A model in a folder may move; what is in it may not change under a run."""

import shutil

import pytest

from nlora.continual.learning import run
from nlora.errors import NloraError
from nlora.store.directory import ModelDirectory
from tests.runs import tree


@pytest.fixture
def moved(done, llama, tmp_path):
    """A copy of the model in another place, and of the finished run without its last stage."""
    model = shutil.copytree(llama, tmp_path / "elsewhere")
    out = shutil.copytree(done.out, tmp_path / "out")
    shutil.rmtree(out / "stages" / "003-fruit")
    return model, out, done.config.model_copy(update={"model": str(model)})


def recorded(out, **values):
    directory = ModelDirectory(out)
    directory.write_config({**directory.config(), **values})


def comparable(results):
    return {k: v for k, v in results.items() if k not in ("seconds", "peak_memory_bytes")}


def test_a_run_goes_on_with_its_model_in_another_place(done, moved):
    _, out, config = moved
    assert comparable(run(config, out)) == comparable(done.results)
    update = "stages/003-fruit/update/adapter_model.safetensors"
    assert (out / update).read_bytes() == (done.out / update).read_bytes()


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
def test_another_model_in_the_same_place_is_refused(moved, file):
    model, out, config = moved
    recorded(out, model=str(model))
    data = (model / file).read_bytes()
    last = b"}\n" if file.endswith("json") else bytes([data[-1] ^ 1])
    (model / file).write_bytes(data[:-1] + last)
    before = tree(out)
    with pytest.raises(NloraError, match=f"another model than the one in {model}") as error:
        run(config, out)
    assert "\n" not in str(error.value)
    assert tree(out) == before


def test_a_directory_from_before_fingerprints_goes_on_in_the_same_place_only(done, moved):
    model, out, config = moved
    recorded(out, base={"title": "llama", "revision": None})
    with pytest.raises(NloraError, match="different configuration"):
        run(config, out)
    recorded(out, base={"title": "elsewhere", "revision": None}, model=str(model))
    assert comparable(run(config, out)) == comparable(done.results)
