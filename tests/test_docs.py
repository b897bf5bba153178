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


PAGES = [
    p.relative_to(ROOT).as_posix()
    for p in [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
]


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


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("README.md", ["tickets", "cities"]),
        ("docs/how-to/data.md", ["reviews", "summaries", "general"]),
    ],
)
def test_the_streams_of_the_documentation_are_some(page, names, tmp_path):
    from nlora.data.files import read_stream

    (tmp_path / "stream.yaml").write_text(blocks(page, "yaml")[0])
    for entry in yaml.safe_load(blocks(page, "yaml")[0]):
        label = entry.get("labels", ["a sentence"])[0]
        for split in {"train", "test"} & entry.keys():
            csv = entry[split].endswith(".csv")
            rows = "text,label\n" + "".join(f"hello {i},{label}\n" for i in range(5))
            if not csv:
                rows = "".join(
                    json.dumps({"text": f"hi {i}", "label": label}) + "\n" for i in range(5)
                )
            (tmp_path / entry[split]).write_text(rows)
    assert [data.name for data in read_stream(tmp_path / "stream.yaml")] == names


@pytest.mark.parametrize(
    ("page", "printed"), [("README.md", 3), ("docs/python.md", 12), ("docs/own-script.md", 4)]
)
def test_the_python_of_the_documentation_runs(page, printed, t5, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    lines = [f"i was charged {i} times,billing\nit crashes {i} times,technical\n" for i in range(9)]
    (tmp_path / "tickets.csv").write_text("text,label\n" + "".join(lines))
    shown = []
    code = "".join(blocks(page, "python")).replace('"tiny-t5"', repr(str(t5)))
    exec(code, {"__name__": "__main__", "print": lambda *values: shown.append(values)})
    assert len(shown) == printed
    assert "the weight of penalty" not in caplog.text  # each training is long enough to measure it


def test_the_comparison_of_the_documentation_is_one(monkeypatch):
    asked = []
    monkeypatch.setattr(
        "nlora.study.compare.compare", lambda grid, out, workers: asked.append(grid)
    )
    exec(blocks("docs/compare.md", "python")[0], {"__name__": "__main__"})
    (grid,) = asked
    assert len(list(grid.pairs())) * len(grid.seeds) == 4
    assert list(grid.tasks) == ["demo"]


def test_the_adapters_of_a_run_are_read_by_peft_as_shown(finished, llama, tmp_path, monkeypatch):
    out = finished("inc-lora").out
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mine").symlink_to(out)
    (tmp_path / "my-model").symlink_to(llama)
    monkeypatch.chdir(tmp_path)
    shown = {}
    exec(blocks("docs/how-to/from-peft.md", "python")[0], shown)
    assert shown["model"].base_model.active_adapters == ["001-colour", "002-animal"]
    ids = torch.arange(5).reshape(1, 5)
    with shown["model"].disable_adapter():
        before = shown["model"](ids).logits
    assert not torch.equal(shown["model"](ids).logits, before)


def test_adapters_are_analysed_from_python_as_shown(finished, tmp_path, monkeypatch):
    (tmp_path / "adapters").mkdir()
    for name, stage in (("news", "001-colour"), ("films", "002-animal")):
        (tmp_path / "adapters" / name).symlink_to(
            finished("inc-lora").out / "stages" / stage / "update"
        )
    monkeypatch.chdir(tmp_path)
    shown = {}
    exec(blocks("docs/analysis.md", "python")[0].replace("(256, 256)", "(4, 4)"), shown)
    assert len(shown["curve"]) == 3


def test_a_loop_of_avalanche_runs_as_shown(t5, tmp_path, monkeypatch):
    stream = write_stream(tmp_path, "colour", "animal")
    monkeypatch.chdir(tmp_path)
    shown = []
    code = blocks("docs/how-to/from-avalanche.md", "python")[0]
    code = code.replace('"tiny-t5"', repr(str(t5))).replace('"demo"', repr(str(stream)))
    exec(code, {"print": lambda *values: shown.append(values)})
    assert [values[0] for values in shown[:2]] == ["colour", "animal"]
    assert None not in shown[2]


RUN = {
    *("README.md", "docs/python.md", "docs/compare.md", "docs/methods.md", "docs/analysis.md"),
    *("docs/how-to/from-peft.md", "docs/how-to/from-avalanche.md", "docs/own-script.md"),
    "docs/how-to/data.md",
}
"""Pages whose Python is run by a test, here or in tests of what they are about."""
NOT_HERE = {"docs/serve.md"}
"""Pages whose Python needs a package of others' (openai) and a network."""


def test_all_python_of_the_documentation_is_run():
    assert {page for page in PAGES if blocks(page, "python")} <= RUN | NOT_HERE


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 120


def test_every_file_that_the_documentation_links_to_exists():
    for page in [*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md"))]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
