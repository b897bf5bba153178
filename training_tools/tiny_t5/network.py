"""The student: T5 v1.1 over the teacher's embeddings, and the heads that only training needs."""

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, T5Config, T5ForConditionalGeneration

from training_tools.tiny_t5.teacher import HIDDEN

WIDTH = 256


def student(embeddings: Tensor | None, vocabulary: int, seed: int) -> T5ForConditionalGeneration:
    """A new student; its embeddings are the teacher's (tokens, 384), reduced by PCA.

    They are scaled to mean square 1, where T5's own initialisation and, with tied embeddings, its
    scaling of the output by d^-½ expect them. None leaves them random.
    """
    torch.manual_seed(seed)
    config = T5Config(
        vocab_size=vocabulary,
        d_model=WIDTH,
        d_kv=32,
        num_heads=8,
        d_ff=512,
        num_layers=4,
        num_decoder_layers=3,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=True,
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
        decoder_start_token_id=0,
    )
    model = T5ForConditionalGeneration(config)
    model.set_attn_implementation("eager")  # training looks at the attention's weights
    model.generation_config = GenerationConfig(
        pad_token_id=0, eos_token_id=1, decoder_start_token_id=0, max_new_tokens=50
    )
    if embeddings is not None:
        centred = embeddings - embeddings.mean(0)
        _, directions = torch.linalg.eigh(centred.T @ centred)
        reduced = centred @ directions[:, -WIDTH:].flip(1)  # (tokens, 384) @ (384, 256)
        with torch.no_grad():
            model.shared.weight.copy_(reduced / reduced.square().mean().sqrt())
    for block in model.decoder.block:
        # What the decoder attends to is what it says, from the beginning: answers are copies.
        attention = block.layer[1].EncDecAttention
        nn.init.eye_(attention.v.weight)
        nn.init.eye_(attention.o.weight)
    return model


class Trainee(nn.Module):
    """The student with two heads: its states as the teacher's, and how well an option fits."""

    def __init__(self, model: T5ForConditionalGeneration) -> None:
        super().__init__()
        self.model = model
        self.to_teacher = nn.Linear(WIDTH, HIDDEN)
        self.fits = nn.Linear(WIDTH, 1)


def pooled(states: Tensor, segments: Tensor, count: int) -> Tensor:
    """The mean state of each segment of each row: (rows, count, width).

    `states` (rows, length, width); `segments` (rows, length) holds 1 … count, and 0 for no segment.
    """
    member = torch.nn.functional.one_hot(segments, count + 1)[..., 1:].to(states.dtype)
    sums = torch.einsum("rlc,rlw->rcw", member, states)
    return sums / member.sum(1)[..., None].clamp(min=1)
