"""What the documentation shows works as shown."""

import json
import re
from pathlib import Path

import pytest
import torch
import yaml

from nlora.continual.learning import run
from nlora.lowrank.factors import Factors
from nlora.methods.context import Step
from tests.runs import config, read_jsonl, write_stream
from tests.tiny import save

ROOT = Path(__file__).parents[1]


def blocks(name: str, language: str) -> list[str]:
    text = (ROOT / name).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def test_the_method_of_the_documentation_trains(tmp_path):
    (plugin := tmp_path / "keep_close.py").write_text(blocks("docs/methods.md", "python")[0])
    asked = config(
        save("llama", tmp_path / "model"),
        write_stream(tmp_path, "colour"),
        method="keep-close",
        plugin=str(plugin),
    )
    run(asked, tmp_path / "out")
    first, *later = read_jsonl(tmp_path / "out" / "stages" / "001-colour" / "losses.jsonl")
    assert first["size"] == 0  # B is
    assert all(step["size"] > 0 for step in later)


def test_the_term_of_the_documentation_has_the_gradient_that_it_says():
    shown = {}
    exec(blocks("docs/methods.md", "python")[0], shown)
    torch.manual_seed(0)
    factors = [
        Factors(*(torch.randn(*shape, requires_grad=True) for shape in ((2, 5), (3, 2))), 0.5)
        for _ in range(2)
    ]
    exact = sum((0.5 * (f.B @ f.A)).square().sum() for f in factors)
    exact.backward()
    term = shown["Size"](factors, 3.0, relative=False, steps=10)(Step(0, 10))
    assert term.value == pytest.approx(3 * exact.item())
    for parameter, gradient in term.gradients:
        torch.testing.assert_close(gradient, 3 * parameter.grad)


def test_the_stream_of_the_readme_is_one(tmp_path):
    from nlora.data.files import read_stream

    (tmp_path / "stream.yaml").write_text(blocks("README.md", "yaml")[0])
    for entry in yaml.safe_load(blocks("README.md", "yaml")[0]):
        label = entry.get("labels", ["a sentence"])[0]
        for split in ("train", "test"):
            csv = entry[split].endswith(".csv")
            rows = f"text,label\nhello,{label}\n"
            if not csv:
                rows = json.dumps({"text": "hello", "label": label})
            (tmp_path / entry[split]).write_text(rows)
    assert [data.name for data in read_stream(tmp_path / "stream.yaml")] == ["tickets", "cities"]


@pytest.mark.parametrize(
    ("page", "printed"), [("README.md", 3), ("docs/python.md", 11), ("docs/own-script.md", 3)]
)
def test_the_python_of_the_documentation_runs(page, printed, t5, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = [f"i was charged {i} times,billing\nit crashes {i} times,technical\n" for i in range(9)]
    (tmp_path / "tickets.csv").write_text("text,label\n" + "".join(lines))
    shown = []
    code = "".join(blocks(page, "python")).replace('"tiny-t5"', repr(str(t5)))
    exec(code, {"__name__": "__main__", "print": lambda *values: shown.append(values)})
    assert len(shown) == printed


def test_the_comparison_of_the_documentation_is_one(monkeypatch):
    asked = []
    monkeypatch.setattr(
        "nlora.study.compare.compare", lambda grid, out, workers: asked.append(grid)
    )
    exec(blocks("docs/compare.md", "python")[0], {"__name__": "__main__"})
    (grid,) = asked
    assert len(list(grid.pairs())) * len(grid.seeds) == 4
    assert list(grid.tasks) == ["demo"]


def test_every_file_that_the_documentation_links_to_exists():
    for page in [*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md"))]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
