"""The script for a GPU, which is seldom there, works the first time."""

from benchmarks.gpu import main
from benchmarks.random_models import TINY, build, operations


def test_every_row_is_measured(capsys):
    rows = main(["--dry-run", "--models", "t5-large", "llama-3-8b"])
    missing = [row["left out"] for row in rows if "left out" in row]
    assert all("bitsandbytes" in said or "FlashAttention2" in said for said in missing), missing
    measured = {(row["model"], row["what"], row["task"]) for row in rows if "what" in row}
    assert {("t5-large", "o-lora", 15), ("llama-3-8b", "n-lora", 5)} < measured
    assert {("t5-large", "generate", None), ("llama-3-8b", "nlora answers", None)} < measured
    assert "tokens/s" in capsys.readouterr().out
    late = main(["--dry-run", "--minutes", "0"])
    assert {row["left out"] for row in late} == {"the time was up"}


def test_operations_by_hand():
    shape = TINY["llama-3-8b"]
    layer = 4 * 16 * 16 + 3 * 16 * 32
    tokens = shape.rows * shape.length
    by_hand = 2 * 4 * tokens * layer + 4 * 16 * 64 * 7 + 2 * 6 * shape.rows * shape.length**2 * 16
    model = build(shape, "bf16").requires_grad_(False)
    assert operations(model, shape, head_rows=7) == by_hand
