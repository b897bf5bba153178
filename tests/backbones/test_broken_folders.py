"""Whatever is wrong with a model's folder is told in one line."""

import json
import shutil

import pytest
import torch

from nlora.backbones.catalog import Base
from nlora.backbones.load import load
from nlora.errors import NloraError


class Code:
    def __reduce__(self):
        return print, ("it was run",)


def nested(folder):
    (folder / "config.json").write_text('{"a":' * 100_000 + "1" + "}" * 100_000)


def huge_number(folder):
    (folder / "config.json").write_text('{"model_type": "llama", "vocab_size": ' + "9" * 5000 + "}")


def truncated(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def another_shape(folder):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"vocab_size": 100}))


def pickled(folder):
    (folder / "model.safetensors").unlink()
    torch.save({"weight": Code()}, folder / "pytorch_model.bin")


@pytest.mark.parametrize("spoil", [nested, huge_number, truncated, another_shape, pickled])
def test_it_is_one_line(spoil, llama, tmp_path, capsys):
    folder = tmp_path / "model"
    shutil.copytree(llama, folder)
    spoil(folder)
    with pytest.raises(NloraError, match=r"model 'mine' could not be loaded: .") as error:
        load(Base("mine", str(folder), "mine"), torch.float32)
    assert "\n" not in str(error.value)
    assert "weights_only" not in str(error.value)
    assert "it was run" not in capsys.readouterr().out


def test_an_encoder_decoder_whose_answers_begin_with_nothing_is_refused(t5, tmp_path):
    folder = tmp_path / "t5"
    shutil.copytree(t5, folder)
    config = json.loads((folder / "config.json").read_text())
    without = {"decoder_start_token_id": None, "pad_token_id": None, "bos_token_id": None}
    (folder / "config.json").write_text(json.dumps(config | without))
    with pytest.raises(NloraError, match="set decoder_start_token_id"):
        load(Base("mine", str(folder), "mine"), torch.float32)
