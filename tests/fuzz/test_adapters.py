"""Adapters of strangers: configuration and header are read, and nothing but a NloraError comes."""

import json
import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlora.adapters.peft_files import WEIGHTS, read_adapter
from nlora.errors import NloraError
from tests.analysis.made import write
from tests.fuzz.edits import EACH, as_json, damaged, edited

CONFIG = {
    **{"peft_type": "LORA", "r": 2, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]},
    **{"base_model_name_or_path": "somebody/tiny", "use_rslora": False, "bias": "none"},
    **{"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 8}, "init_lora_weights": True},
    **{"exclude_modules": None, "layer_replication": None, "modules_to_save": None},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("adapter"))


@pytest.fixture
def restored(folder):
    """The adapter, which is as it was afterwards."""
    kept = {path: path.read_bytes() for path in folder.iterdir()}
    yield folder
    for path, data in kept.items():
        path.write_bytes(data)


def read(folder):
    with suppress(NloraError):
        adapter = read_adapter(folder)
        for module in list(adapter.shapes)[:2]:
            with suppress(NloraError):
                adapter.factors(module)


@EACH
@given(edited(CONFIG))
def test_configurations_of_other_values(restored, config):
    (restored / "adapter_config.json").write_bytes(as_json(config))
    read(restored)


@EACH
@given(damaged(as_json(CONFIG)))
def test_damaged_configurations(restored, data):
    (restored / "adapter_config.json").write_bytes(data)
    read(restored)


@EACH
@given(st.data())
def test_headers_of_other_values(restored, data):
    path = restored / WEIGHTS
    before = path.read_bytes()
    size = struct.unpack("<Q", before[:8])[0]
    header = as_json(data.draw(edited(json.loads(before[8 : 8 + size]))))
    length = data.draw(st.sampled_from((len(header), len(header) - 1, 0, 2**40, 2**64 - 1)))
    path.write_bytes(struct.pack("<Q", length) + header + before[8 + size :])
    read(restored)
    path.write_bytes(before)


@EACH
@given(st.data())
def test_damaged_weights(restored, data):
    path = restored / WEIGHTS
    before = path.read_bytes()
    path.write_bytes(data.draw(damaged(before)))
    read(restored)
    path.write_bytes(before)
