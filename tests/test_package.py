"""The wheel holds all that the package needs; `make package` installs it where nothing else is."""

import os
import shutil
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_every_file_of_the_package_is_in_its_wheel(tmp_path, monkeypatch):
    backend = pytest.importorskip("setuptools.build_meta")

    def copy(source, target):  # weights are large, and need not be compressed to be counted
        heavy = source.endswith(".safetensors")
        Path(target).touch() if heavy else shutil.copyfile(source, target)

    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=ignored, copy_function=copy)
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["setup.py"])
    with zipfile.ZipFile(tmp_path / backend.build_wheel(os.fspath(tmp_path))) as wheel:
        held = {name for name in wheel.namelist() if name.startswith("nlora/")}
        meta = next(n for n in wheel.namelist() if n.endswith("/entry_points.txt"))
        assert "nlora = nlora.__main__:main" in wheel.read(meta).decode()
    files = (p for p in (tmp_path / "src" / "nlora").rglob("*") if p.is_file())
    assert held == {p.relative_to(tmp_path / "src").as_posix() for p in files}


def test_versions_are_pinned_for_all_that_is_tested_with():
    """Of the extras that `dev` brings, each library stands in constraints.txt."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line and not line.startswith("#")
    }
    for extra in ("docs", "report", "figures"):
        for wanted in extras[extra]:
            name = wanted.split(">")[0].split("[")[0]
            assert name.lower().replace("_", "-") in pinned, name
