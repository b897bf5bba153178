"""Train `tiny-t5`: distil a sentence encoder into T5, then teach it to choose among options.

    python -m training_tools.tiny_t5.train --corpus DIR --out DIR --seed 0 [--minutes N]

Three stages. `distil`: the encoder's token states, and its mean over the text and over each option,
become the teacher's (cosine). `choose`: the whole model answers prompts that list options, and
repeats texts, while the means stay the teacher's; the last cross-attention is told where in the
prompt the answer stands, without which a model this small does not learn to copy. `pairs`: the
same, but half of the lists hold pairs of words ("ships & poetry") beside single ones, so that only
its place tells which word an answer goes on with and where it ends. Steps are drawn from (seed,
step) alone, so a run that was stopped, after --minutes or by Ctrl-C, goes on with the same command
and ends with the same weights. `--out`/model is the finished model; `--out`/log.jsonl its losses.
"""

import argparse
import json
import os
import random
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy

from training_tools.tiny_t5 import batch as b
from training_tools.tiny_t5 import checkpoint, corpus, network, options, topics
from training_tools.tiny_t5.schedule import Schedule
from training_tools.tiny_t5.teacher import HIDDEN, Teacher, teacher_vocabulary
from training_tools.tiny_t5.tokenizer import build, vocabulary

ROWS = 64
WINDOWS = 64_000
REPEATED = 24
"""Texts to repeat in a step of the last two stages."""
POINTING_HEADS = 4


class Run:
    """One training run in a folder, from its last checkpoint."""

    def __init__(self, chosen: argparse.Namespace) -> None:
        self.schedule = Schedule(
            {
                "distil": chosen.distil_steps,
                "choose": chosen.choose_steps,
                "pairs": chosen.pairs_steps,
            }
        )
        self.seed, self.out = chosen.seed, chosen.out
        self.out.mkdir(parents=True, exist_ok=True)
        steps = {f"{stage}_steps": count for stage, count in self.schedule.steps.items()}
        checkpoint.replace(
            self.out / "settings.json", lambda path: path.write_text(json.dumps(steps))
        )
        known = vocabulary(teacher_vocabulary())
        self.tokenizer = build(teacher_vocabulary())
        self.teacher = Teacher(list(known.values()))
        self.windows = corpus.windows(chosen.corpus, WINDOWS, self.seed)
        self._write_prompts()
        model = network.student(self.teacher.embeddings(), len(known), self.seed)
        self.trainee = network.Trainee(model)
        self.vectors = torch.zeros(len(self.windows), HIDDEN, dtype=torch.float16)
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [p for n, p in self.trainee.named_parameters() if "shared" not in n]},
                {"params": [model.shared.weight], "scale": 0.3},
            ],
            betas=(0.9, 0.98),
            weight_decay=0.0,
        )
        self.step = 0
        self.tokens = 0
        self._restore()

    def _write_prompts(self) -> None:
        """Phrases and pairs of words as options, and who lists them."""
        phrases = options.phrases([w["text"] for w in self.windows])
        known, held_out = options.split(range(len(phrases)))
        words = [i for i in known if phrases[i].isalpha()]
        pairs = options.pairs([phrases[i] for i in words])
        self.names = phrases + pairs
        self.table = torch.cat([self._vectors("phrases", phrases), self._vectors("pairs", pairs)])
        general = sum(n in phrases for n in topics.TOPICS)
        self.writer = options.Writer(self.names, self.table, known, general)
        self.examiner = options.Writer(self.names, self.table, held_out, general, measuring=True)
        mixed = [*range(len(phrases), len(self.names)), *words[: len(pairs)]]
        self.pair_writer = options.Writer(self.names, self.table, mixed, len(self.names))

    def _vectors(self, kind: str, names: list[str]) -> Tensor:
        """The teacher's vectors of options (options, 384), computed once."""
        file = self.out / f"{kind}.safetensors"
        if not file.is_file():
            ids = self.tokenizer(names, add_special_tokens=False).input_ids
            vectors = self.teacher.vectors([torch.tensor(i) for i in ids])
            checkpoint.replace(file, lambda path: save_file({"vectors": vectors}, path))
        return load_file(file)["vectors"]

    def train(self, minutes: float | None) -> bool:
        """Train until the end, or for so many minutes; whether it is the end."""
        started, total = time.monotonic(), self.schedule.total
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} {task.fields[shown]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns) as progress, (self.out / "log.jsonl").open("a") as log:
            bar = progress.add_task("distil", total=total, completed=self.step, shown="")
            begun = time.monotonic()
            while self.step < total:
                stage, place = self.schedule.place(self.step)
                losses = self._learn(stage, place)
                self.step += 1
                shown = " ".join(f"{k} {v:.3f}" for k, v in losses.items())
                progress.update(bar, description=stage, completed=self.step, shown=shown)
                if self.step % 50 == 0:
                    self._save()
                if self.step % 20 == 0 or self.step == total:
                    row = {"step": self.step, "stage": stage, "tokens": self.tokens, **losses}
                    row["seconds_per_step"] = round((time.monotonic() - begun) / 20, 3)
                    if stage != "distil" and self.step % 100 == 0:
                        row["held_out"] = self.examine()
                    log.write(json.dumps(row) + "\n")
                    log.flush()
                    begun = time.monotonic()
                if minutes is not None and time.monotonic() - started > 60 * minutes:
                    break
        self._save()
        return self.step >= total

    def _learn(self, stage: str, place: int) -> dict[str, float]:
        rng = random.Random(f"{self.seed} {self.step}")
        rate = self.schedule.rate(stage, place)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("scale", 1.0)
        if stage == "distil":
            losses = self._distil(place, rng)
        else:
            losses = self._choose(self._prompts(stage, place, rng), rng)
        norm = torch.nn.utils.clip_grad_norm_(self.trainee.parameters(), 1.0)
        if not norm.isfinite():
            raise SystemExit(f"step {self.step}: the gradient is not a number")
        self.optimizer.step()
        self.optimizer.zero_grad()
        return {name: round(value, 4) for name, value in losses.items()}

    def _encode(self, batch: b.Batch) -> tuple[Tensor, Tensor]:
        """Encoder states, and means of text and options as fp32."""
        self.tokens += int(batch.mask.sum())
        states = self.trainee.model.encoder(
            input_ids=batch.ids, attention_mask=batch.mask
        ).last_hidden_state
        segments = 1 + max(len(p.options) for p in batch.prompts)
        means = network.pooled(states.float(), batch.segments, segments)
        return states, means

    def _distil(self, place: int, rng: random.Random) -> dict[str, float]:
        rows = list(range(place * ROWS, (place + 1) * ROWS))
        noise = torch.randn(ROWS, HIDDEN, generator=torch.Generator().manual_seed(self.step))
        noise = torch.nn.functional.normalize(noise, dim=1)
        prompts = self.writer.write(rows, self.windows, noise, rng)
        for i in range(0, ROWS, 2):  # half of the texts stand alone
            text = self.windows[rows[i]]["text"]
            prompts[i] = options.Prompt(text, "", (0, len(text)), (), 0, rows[i])
        total = {"token": 0.0, "mean": 0.0, "option": 0.0}
        batches = b.encode(self.tokenizer, prompts, parts=2)
        for batch in batches:
            inside = batch.segments == 1
            wanted, vectors = self.teacher.states(
                [ids[here] for ids, here in zip(batch.ids, inside, strict=True)]
            )
            for prompt, vector in zip(batch.prompts, vectors, strict=True):
                if prompt.window >= 0:
                    self.vectors[prompt.window] = vector.half()
            with torch.autocast("cpu", torch.bfloat16):
                states, means = self._encode(batch)
                tokens = self.trainee.to_teacher(states[inside])
                segments = self.trainee.to_teacher(means)
            losses = {
                "token": 1 - cosine_similarity(tokens.float(), wanted, dim=-1).mean(),
                "mean": 1 - cosine_similarity(segments[:, 0].float(), vectors, dim=-1).mean(),
                "option": self._option_loss(segments, batch),
            }
            (sum(losses.values()) / len(batches)).backward()  # type: ignore[union-attr]
            for name, loss in losses.items():
                total[name] += loss.item() / len(batches)
        return total

    def _option_loss(self, segments: Tensor, batch: b.Batch) -> Tensor:
        """Distance of the options' means from the teacher's vectors of the options alone."""
        where = [
            (i, j + 1, index)
            for i, prompt in enumerate(batch.prompts)
            for j, index in enumerate(prompt.phrases)
            if j + 1 < segments.shape[1]
        ]
        if not where:
            return segments.sum() * 0
        i, j, index = torch.tensor(where).T
        return 1 - cosine_similarity(segments[i, j].float(), self.table[index], dim=-1).mean()

    def _prompts(self, stage: str, place: int, rng: random.Random) -> list[options.Prompt]:
        """The prompts of a step: in the last stage half of the lists have pairs of words."""
        rows = rng.sample(self._known(), ROWS)
        vectors, ease = self.vectors[rows].float(), self.schedule.ease(stage, place)
        plain = ROWS // 2 if stage == "pairs" else ROWS
        prompts = self.writer.write(rows[:plain], self.windows, vectors[:plain], rng, ease)
        return prompts + self.pair_writer.write(
            rows[plain:], self.windows, vectors[plain:], rng, ease
        )

    def _choose(self, prompts: list[options.Prompt], rng: random.Random) -> dict[str, float]:
        names = ("choose", "point", "fit", "mean", "option")
        total = dict.fromkeys(names, 0.0)
        batches = b.encode(self.tokenizer, prompts, parts=2)
        for batch in batches:
            known = torch.tensor([p.window >= 0 for p in batch.prompts])
            vectors = self.vectors[[max(p.window, 0) for p in batch.prompts]].float()
            with torch.autocast("cpu", torch.bfloat16):
                states, means = self._encode(batch)
                segments = self.trainee.to_teacher(means)
                fits = self.trainee.fits(means[:, 1:])[..., 0].float()
                answer, point = self._answer(states, batch.mask, batch.labels, batch.copied)
            absent = torch.arange(fits.shape[1]) >= torch.tensor(
                [[len(p.options)] for p in batch.prompts]
            )
            right = torch.tensor([p.right for p in batch.prompts])
            near = 1 - cosine_similarity(segments[:, 0].float(), vectors, dim=-1)
            losses = {
                "choose": answer,
                "point": point,
                "fit": cross_entropy(fits.masked_fill(absent, -1e4), right),
                "mean": (near * known).sum() / known.sum().clamp(min=1),
                "option": self._option_loss(segments, batch),
            }
            (sum(losses.values()) / len(batches)).backward()  # type: ignore[union-attr]
            for name, loss in losses.items():
                total[name] += loss.item() / len(batches)
        return {**total, **self._repeat(rng)}

    def _repeat(self, rng: random.Random) -> dict[str, float]:
        rows = rng.sample(range(len(self.windows)), REPEATED)
        texts = [self.windows[row]["text"] for row in rows]
        ids, labels, copied = b.repeated(self.tokenizer, texts, topics.REPEAT_FORMS, rng)
        mask = (ids != 0).long()
        self.tokens += int(mask.sum())
        with torch.autocast("cpu", torch.bfloat16):
            states = self.trainee.model.encoder(ids, attention_mask=mask).last_hidden_state
            answer, point = self._answer(states, mask, labels, copied)
        (answer + point).backward()
        return {"repeat": answer.item(), "repeat_point": point.item()}

    def _known(self) -> list[int]:
        """The windows whose vectors the teacher gave while the encoder was distilled."""
        return self.vectors.any(dim=1).nonzero()[:, 0].tolist()

    def _answer(
        self, states: Tensor, mask: Tensor, labels: Tensor, copied: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The decoder's cross-entropy, and that of where it looks, each the mean over tokens."""
        out = self.trainee.model(
            encoder_outputs=(states,),
            attention_mask=mask,
            decoder_input_ids=self.trainee.model.prepare_decoder_input_ids_from_labels(labels),
            output_attentions=True,
        )
        logits = out.logits.float().flatten(0, 1)
        looks = out.cross_attentions[-1][:, :POINTING_HEADS].float().mean(1)  # (rows, T, S)
        there = looks.gather(2, copied.clamp(min=0)[..., None])[..., 0]
        point = -(there[copied >= 0] + 1e-6).log().mean()
        return cross_entropy(logits, labels.flatten(), ignore_index=-100), point

    @torch.inference_mode()
    def examine(self, count: int = 192) -> float:
        """Per cent right of prompts whose options were never in training."""
        rng = random.Random(-1)
        rows = rng.sample(self._known(), count)
        prompts = self.examiner.write(rows, self.windows, self.vectors[rows].float(), rng)
        right = 0
        for batch in b.encode(self.tokenizer, prompts, parts=3):
            with torch.autocast("cpu", torch.bfloat16):
                ids = self.trainee.model.generate(
                    input_ids=batch.ids, attention_mask=batch.mask, max_new_tokens=16
                )
            texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
            found = zip(texts, batch.prompts, strict=True)
            right += sum(text == p.answer.lower() for text, p in found)
        return round(100 * right / count, 1)

    def _save(self) -> None:
        state = {"step": self.step, "tokens": self.tokens, "seed": self.seed}
        checkpoint.save(self.out, self.trainee, self.optimizer, self.vectors, state)

    def _restore(self) -> None:
        found = checkpoint.restore(self.out, self.trainee, self.optimizer)
        if found is None:
            return
        state, self.vectors = found
        if state["seed"] != self.seed:
            raise SystemExit(f"{self.out} was begun with --seed {state['seed']}")
        self.step, self.tokens = state["step"], state["tokens"]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, default=os.environ.get("NLORA_CORPUS"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--minutes", type=float, help="stop after so long; go on with the same command"
    )
    parser.add_argument("--distil-steps", type=int, default=500)
    parser.add_argument("--choose-steps", type=int, default=1500)
    parser.add_argument("--pairs-steps", type=int, default=500)
    chosen = parser.parse_args(arguments)
    if chosen.distil_steps * ROWS > WINDOWS:
        parser.error(f"--distil-steps: at most {WINDOWS // ROWS}, the text is read once")
    if chosen.corpus is None:
        parser.error("which text? give --corpus DIR or set NLORA_CORPUS")
    run = Run(chosen)
    done = run.train(chosen.minutes)
    checkpoint.export(chosen.out / "model", run.trainee, run.tokenizer)
    print(f"{run.step} steps, {run.tokens} tokens; {'finished' if done else 'to be continued'}")


if __name__ == "__main__":
    main()
