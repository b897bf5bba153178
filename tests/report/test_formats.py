"""Tables as Markdown, LaTeX, CSV and JSON."""

import csv
import io
import json
import shutil
import subprocess

import pytest

from nlora.report.falls import MEASURES
from nlora.report.formats import ENDINGS, render
from nlora.report.table import Table, Value
from nlora.report.tables import KEYS, tables
from tests.report.rows import geometry, grid, with_geometry, write


@pytest.fixture
def every(tmp_path):
    measured = {"geometry": geometry(1.0, 2.0, 3.0, 0.4), "kl": {"own": 0.5, "earlier": None}}
    rows = [*with_geometry(), *grid(("inc-lora",), **measured)]
    found = tables([write(tmp_path / "l.jsonl", rows)])
    there = [key for key in KEYS if not key.startswith("explained")]
    assert [t.key for t in found] == there
    return found


def test_csv_and_json_have_the_numbers_unrounded(every):
    for table in every:
        rows = list(csv.DictReader(io.StringIO(render([table], "csv"))))
        objects = json.loads(render([table], "json"))[0]["rows"]
        assert len(rows) == len(objects) == len(table.rows)
        for made, flat, whole in zip(table.rows, rows, objects, strict=True):
            for name, cell in zip(table.columns, made, strict=True):
                if isinstance(cell, Value):
                    assert float(flat[name]) == whole[name]["mean"] == cell.mean
                    if cell.spread is not None:
                        assert float(flat[f"{name} sd"]) == whole[name]["sd"] == cell.spread


def test_markdown_rows_have_a_cell_per_column(every):
    for table in every:
        lines = [line for line in render([table], "markdown").split("\n") if line[:1] == "|"]
        assert len(lines) == 2 + len(table.rows)
        assert {line.replace("\\|", "").count("|") for line in lines} == {len(table.columns) + 1}


def test_latex_is_balanced_and_escapes_what_it_must(every):
    rows = [["{~^\\$}", Value(1.0, 0.5)], ["[x] * <b> 任\x1b λ", None]]
    odd = Table("odd_1 %", "100 % of a_b & c", ["x#", "y"], rows, ["note"])
    for table in [*every, odd]:
        shown = render([table], "latex")
        body = shown.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().split("\n")
        assert len(body) == len(table.rows)
        for line in body:
            assert line.replace(r"\&", "").count("&") == len(table.columns) - 1
            assert line.endswith(r" \\")
        assert shown.replace(r"\{", "").count("{") == shown.replace(r"\}", "").count("}")
        assert shown.replace(r"\$", "").count("$") % 2 == 0
        assert all(ord(letter) < 128 for letter in shown), [c for c in shown if ord(c) > 127]
    assert r"\label{tab:odd-1-}" in shown
    assert (
        r"{[}x{]} {*} \textless{}b\textgreater{} \texttt{U+4EFB}\texttt{U+001B} $\lambda$" in shown
    )
    assert r"100 \% of a\_b \& c" in shown
    assert r"\{\textasciitilde{}\textasciicircum{}\textbackslash{}\$\}" in shown


def test_words_of_a_heading_in_latex_stand_below_one_another():
    table = Table("t", "t", ["method", "standard: average [%]"], [["a", Value(1.0)]], [])
    head = render([table], "latex").split(r"\toprule")[1].split(r"\midrule")[0].strip()
    assert head == r"method & \shortstack[r]{standard:\\average\\{[}\%{]}} \\"


def test_latex_has_a_sign_for_every_quantity_of_predictors():
    rows: list = [[name, None] for name in MEASURES]
    shown = render([Table("predictors", "all", ["quantity", "ρ"], rows)], "latex")
    assert "U+" not in shown
    assert r"\textbar{}$\langle$$\Delta$W\_i" in shown


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs TeX")
def test_latex_compiles_with_nothing_but_booktabs(every, tmp_path):
    rows = [["{~^\\$}", Value(1.0, 0.5)], ["[x] * <b> 任\x1b λ", None]]
    odd = Table("odd_1 %", "100 % of a_b & c", ["[x]# y", "y"], rows, ["note"])
    head = "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n"
    page = head + render([*every, odd], "latex") + "\\end{document}\n"
    (tmp_path / "page.tex").write_text(page, encoding="ascii")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-500:]


@pytest.mark.parametrize("form", ENDINGS)
def test_several_tables_come_one_after_another(every, form):
    shown = render(every, form)
    assert all(table.title.split(".")[0] in shown for table in every)


def test_the_minus_of_a_zero_is_not_shown():
    assert Value(-0.01, form="+.1f").text() == "+0.0"
    assert Value(-0.01).text() == "0.0"
