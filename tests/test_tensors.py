"""What is read from a file stands in memory like what was computed, whose bits it must give."""

import torch
from safetensors.torch import save_file

from nlora.adapters.lora import Lora
from nlora.tensors import read_tensors
from tests import tiny

ALIGNED = 64
"""Bytes: where PyTorch lets a tensor begin on the CPU. Kernels of matrix products go by it."""


def aligned(tensors):
    return [tensor.data_ptr() % ALIGNED for tensor in tensors] == [0] * len(tensors)


def test_tensors_begin_where_pytorch_lets_them_begin(tmp_path):
    made = {f"{size}": torch.rand(size) for size in (3, 7, 11, 5)}  # no multiples of 64 bytes
    save_file(made, path := tmp_path / "odd.safetensors")
    found = read_tensors(path)
    assert all(torch.equal(found[name], tensor) for name, tensor in made.items())
    assert aligned(list(found.values()))


def test_the_factors_of_a_saved_update_do_too(tmp_path):
    adapter = Lora(tiny.model("llama"), 3, 6.0, 0.0)
    adapter.begin()
    adapter.save(tmp_path)
    assert aligned([t for A, B, _ in adapter.read(tmp_path).values() for t in (A, B)])
