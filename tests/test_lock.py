"""The lock file is of today's dependencies, in the versions that the tests run with."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\\s]+)", re.MULTILINE)


def pins(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    return {plain(found): version for found, version in PIN.findall(text)}


def plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def names(requirements):
    return {plain(re.match(r"[A-Za-z0-9._-]+", line)[0]) for line in requirements}


def test_every_dependency_is_locked_in_the_version_that_is_tested():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = names(project["dependencies"])
    for extra in ("data", "metrics", "smollm2"):
        wanted |= names(project["optional-dependencies"][extra])
    locked, tested = pins("requirements.lock"), pins("constraints.txt")
    assert wanted - locked.keys() == set(), "run `make lock`"
    differ = {n: (v, tested[n]) for n, v in locked.items() if n in tested and v != tested[n]}
    assert differ == {}, "run `make lock`"


def test_every_locked_file_has_a_hash_and_no_place_of_its_own():
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    entries = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]
    assert len(entries) == len(PIN.findall(text)) > 50
    for entry in entries:
        assert "--hash=sha256:" in entry, entry
    assert not re.search(r"file:|https?:|--find-links|--index", text)
