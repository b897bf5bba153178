"""Tables in a terminal: whatever its width, no figure is torn apart."""

import io

from rich.console import Console

from nlora.report.shown import fitted


def printed(columns, rows, width):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    for part in fitted("Accuracy", columns, rows, width):
        console.print(part)
    return console.file.getvalue()


NAMES = ["inc-lora:routing=input", "n-lora"]
COLUMNS = ["stream", "method", *(f"measure {i}" for i in range(8))]
ROWS = [["order-1", name, *(f"6{i}.1 ± 1.0" for i in range(8))] for name in NAMES]


def test_a_wide_table_comes_in_parts_that_all_say_what_a_row_is_about():
    shown = printed(COLUMNS, ROWS, 80)
    assert max(map(len, shown.splitlines())) <= 80
    for row in ROWS:
        assert all(cell in shown for cell in row)
    parts = shown.count("━╇━") and [line for line in shown.splitlines() if "method" in line]
    assert len(parts) == 3
    assert all(line.startswith("stream") for line in parts)
    assert shown.count("Accuracy") == 1


def test_a_table_that_fits_is_one_and_texts_are_broken_between_words():
    assert printed(COLUMNS, ROWS, 200).count("order-1") == 2
    long = "an adapter per task that is found by the text " * 3
    shown = printed(["method", "what"], [["inc-lora", long]], 60)
    assert shown.count("inc-lora") == 1
    assert max(map(len, shown.splitlines())) <= 60
    assert shown.count(" adapter ") == 3


def test_what_is_too_wide_by_itself_is_still_shown_whole():
    shown = printed(["task", "label"], [["t", "x" * 90]], 40)
    assert shown.count("x") == 90
