"""What a process is told about its machine, also where the system says little."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from nlora import machine


@pytest.fixture
def windows(monkeypatch):
    """A system without `resource` and `sysconf`; call it with what stands in for psutil."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(machine, "Path", lambda place: Path(f"/nowhere{place}"))
    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.delattr(os, "sysconf")
    return lambda psutil: monkeypatch.setitem(sys.modules, "psutil", psutil)


def test_this_machine(monkeypatch):
    assert machine.machine()["cores"] == os.cpu_count()
    before = machine.peak_memory()
    block = bytearray(100_000_000)
    assert machine.peak_memory() >= max(before, len(block))
    assert machine.memory() > machine.peak_memory()
    assert {"nlora", "torch", "transformers", "peft", "python"} <= machine.versions().keys()


PEAK = """
import sys
from types import SimpleNamespace

sys.modules["torch"] = SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: False))
from nlora.machine import peak_memory

print(peak_memory())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
def test_the_memory_of_what_started_a_process_is_not_its_own():
    block = bytearray(b"x") * 300_000_000
    done = subprocess.run([sys.executable, "-c", PEAK], check=True, capture_output=True, text=True)
    assert 0 < int(done.stdout) < len(block)


def test_windows_with_psutil_and_without(windows):
    info = SimpleNamespace(peak_wset=5)
    windows(
        SimpleNamespace(
            Process=lambda: SimpleNamespace(memory_info=lambda: info),
            virtual_memory=lambda: SimpleNamespace(total=7),
        )
    )
    assert (machine.peak_memory(), machine.memory()) == (5, 7)
    windows(None)
    assert (machine.peak_memory(), machine.memory()) == (0, None)
