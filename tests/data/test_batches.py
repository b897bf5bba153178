from dataclasses import replace

import torch

from nlora.data.batches import IGNORED, Collator, TrainingOrder
from nlora.data.encode import Encoded

ROWS = [Encoded([5, 6, 7], [8, 1], False), Encoded([9], [4, 4, 1], False)]


def test_decoder_only_batches_are_padded_on_the_left_and_only_answers_count():
    # the padding token is the end token: it must not make an answer's end token vanish
    batch = Collator(pad_token_id=1, encoder_decoder=False)(ROWS)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 1], [1, 9, 4, 4, 1]]
    assert batch["attention_mask"].tolist() == [[1] * 5, [0, 1, 1, 1, 1]]
    _ = IGNORED
    assert batch["labels"].tolist() == [[_, _, _, 8, 1], [_, _, 4, 4, 1]]


def test_encoder_decoder_batches_are_padded_on_the_right():
    batch = Collator(pad_token_id=0, encoder_decoder=True)(ROWS)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [9, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [[8, 1, IGNORED], [4, 4, 1]]


def test_a_batch_says_which_examples_of_the_stage_its_rows_are():
    rows = [replace(row, index=index) for row, index in zip(ROWS, (7, 3), strict=True)]
    for encoder_decoder in (False, True):
        assert Collator(0, encoder_decoder)(rows)["index"].tolist() == [7, 3]


def rows_of(lengths, task="a"):
    return [Encoded([2] * n, [1], False, task) for n in lengths]


def test_the_order_depends_on_seed_and_epoch_alone():
    rows = rows_of([i % 17 for i in range(200)])
    first = TrainingOrder(rows, 8, seed=3)
    first.set_epoch(1)
    order = list(first)
    torch.manual_seed(99)
    again = TrainingOrder(rows, 8, seed=3)
    again.set_epoch(1)
    assert list(again) == order
    assert sorted(order) == list(range(200))
    again.set_epoch(2)
    assert list(again) != order
    assert list(TrainingOrder(rows, 8, seed=4)) != list(TrainingOrder(rows, 8, seed=3))


def test_examples_of_like_length_share_a_batch():
    lengths = torch.randint(5, 200, (512,), generator=torch.Generator().manual_seed(0)).tolist()
    order = list(TrainingOrder(rows_of(lengths), 16, seed=0))
    rows = [[lengths[i] for i in order[b : b + 16]] for b in range(0, 512, 16)]
    padded = sum(max(row) * len(row) for row in rows)
    assert padded < 1.15 * sum(lengths)


def test_tasks_are_mixed_evenly_from_the_first_batch_to_the_last():
    """A small buffer of old examples, all of them longer, must not come first or last."""
    rows = [*rows_of([10] * 384, "new"), *rows_of([90] * 96, "old")]
    order = list(TrainingOrder(rows, 16, seed=0))
    assert sorted(order) == list(range(480))
    old = [sum(rows[i].task == "old" for i in order[b : b + 16]) for b in range(0, 480, 16)]
    assert max(old) <= 8  # 3.2 of 16 on average
    halves = sum(old[:15]), sum(old[15:])
    assert min(halves) > 36
