"""Train: TRL's SFTTrainer with PEFT LoRA on exported rows, the loss on the completion alone.

Rows are tokenized here rather than by TRL, so that a row's prompt has exactly the token ids that inference sends and
its last label is the token that ends a turn. What can't be learnt from is refused before the first step.
"""

from __future__ import annotations

import contextlib
import contextvars
import gc
import hashlib
import json
import logging
import math
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from divcon.distill._manifest import (
    MANIFEST,
    Manifest,
    content_hash,
    manifest_for,
    package_versions,
    prompt_hash,
    text_hash,
)
from divcon.distill._probe import PROBE_CANDIDATES, choose_probe
from divcon.distill.serving.embedded import LOADING, Base, WantedPrecision, precision
from divcon.signatures import DivconError

IGNORED = -100  # the label that cross-entropy skips
_TRAINING = threading.Lock()
_PROGRESS = Callable[[int, int, float], None]


class TrainingError(DivconError):
    """Training data or settings that can't give a working adapter."""


class TrainingStopped(TrainingError):
    """Training was told to stop; it goes on from there when it is started again."""


class TrainSettings(BaseModel):
    """How an adapter is trained.

    Attributes:
        method: Only LoRA.
        rank: LoRA rank; `alpha` is twice the rank unless given.
        epochs: Passes over the rows.
        batch_size: Rows a step.
        learning_rate: Peak; warmed up over the first 5 % of the steps, then linear to zero.
        max_length: The longest row in tokens.
        over_length: What happens to longer rows: `drop` (counted) or `raise`; never cut.
        save_every: Steps between checkpoints.
        seed: Of the adapter's first weights and the order of rows.
        precision: What is computed in; `auto` is bfloat16 where the processor is fast in it, else float32.
    """

    model_config = ConfigDict(extra="forbid")

    method: Literal["lora"] = "lora"
    rank: int = Field(8, ge=1, le=256)
    alpha: int | None = Field(None, ge=1)
    epochs: float = Field(2.0, gt=0, le=1000, allow_inf_nan=False)
    batch_size: int = Field(16, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    max_length: int = Field(1024, ge=16)
    over_length: Literal["drop", "raise"] = "drop"
    save_every: int = Field(10, ge=1)
    seed: int = 0
    precision: WantedPrecision = "auto"

    def deciding(self) -> dict[str, Any]:
        """What of them decides the adapter, for a key; without a precision that wasn't chosen."""
        return self.model_dump(exclude={"precision"} if self.precision == "auto" else None)


@dataclass(frozen=True)
class Preflight:
    """Tokenized rows and what was found while making them.

    Attributes:
        rows: One dict a row with `input_ids` and `labels`, equally long.
        dropped_over_length: Rows longer than the limit that were left out.
        tokens: Tokens in all rows; `label_tokens` of them count in the loss.
    """

    rows: list[dict[str, list[int]]] = field(repr=False)
    dropped_over_length: int
    tokens: int
    label_tokens: int


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Exported training rows: `prompt` and `completion`, each a list of chat messages.

    Raises:
        TrainingError: The file is missing or empty, or a line is broken; the line is named.
    """
    if not file.is_file():
        raise TrainingError(f"There are no training rows at {file}.", "Run 'divcon export' first.")
    rows = []
    # split on "\n" only: a row may hold U+2028, which splitlines() would cut at
    for number, line in enumerate(file.read_text(encoding="utf-8").split("\n"), 1):
        if not line:
            continue
        try:
            row = json.loads(line)
            row["prompt"][0]["content"], row["completion"][0]["content"]
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise TrainingError(f"Line {number} of {file} is no training row: {error!r}.", "Export again.") from error
        rows.append(row)
    if not rows:
        raise TrainingError(
            f"{file} holds no training row.", "Collect more, or use a screening rule that keeps something."
        )
    return rows


def preflight(rows: Sequence[dict[str, Any]], tokenizer: Any, settings: TrainSettings) -> Preflight:
    """Tokenize rows and refuse what would train badly in silence.

    Every row must begin with the ids that inference sends, hold at least one label, and end in an end-of-turn token
    that counts in the loss. No row is cut.

    Args:
        rows: As `read_rows` gives them.
        tokenizer: A transformers tokenizer with a chat template.

    Raises:
        TrainingError: The tokenizer has no chat template or end token, a row is empty, or (with `over_length: raise`)
            too long; or nothing is left.
    """
    if not tokenizer.chat_template:
        raise TrainingError("The base's tokenizer has no chat template.", "Use an instruction-tuned base.")
    if tokenizer.eos_token_id is None:
        raise TrainingError("The base's tokenizer has no end token.", "Use a base that can end its turn.")
    kept: list[dict[str, list[int]]] = []
    dropped = 0
    for number, row in enumerate(rows, 1):
        prompt, completion = _ids_of(row, tokenizer)
        if not completion:
            raise TrainingError(f"Training row {number} has an empty completion.", "Screen and export again.")
        bos = tokenizer.bos_token_id
        if bos is not None and bos != tokenizer.eos_token_id and prompt[:2] == [bos, bos]:
            raise TrainingError(f"Training row {number} begins with two start tokens.", "Check the chat template.")
        labels = [*completion, tokenizer.eos_token_id]
        ids = [*prompt, *labels]
        if len(ids) > settings.max_length:
            if settings.over_length == "raise":
                raise TrainingError(
                    f"Training row {number} has {len(ids)} tokens, over train.max_length {settings.max_length}.",
                    "Raise train.max_length, or set train.over_length to drop.",
                )
            dropped += 1
            continue
        kept.append({"input_ids": ids, "labels": [IGNORED] * len(prompt) + labels})
    if not kept:
        raise TrainingError(
            f"All {dropped} training rows are longer than train.max_length {settings.max_length}.",
            "Raise train.max_length.",
        )
    return Preflight(
        rows=kept,
        dropped_over_length=dropped,
        tokens=sum(len(row["input_ids"]) for row in kept),
        label_tokens=sum(label != IGNORED for row in kept for label in row["labels"]),
    )


def _ids_of(row: dict[str, Any], tokenizer: Any) -> tuple[list[int], list[int]]:
    """The token ids of a row's prompt, up to where the reply begins, and of its reply."""
    prompt = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True)["input_ids"]
    return prompt, tokenizer(row["completion"][0]["content"], add_special_tokens=False)["input_ids"]


def train_adapter(
    rows_file: Path,
    base: Base,
    output: Path,
    settings: TrainSettings,
    *,
    role: str = "decomposer",
    student: str = "",
    screening: dict[str, Any] | None = None,
    scripted_teacher: bool = False,
    start: Path | None = None,
    progress: _PROGRESS | None = None,
    stop: threading.Event | None = None,
) -> Manifest:
    """Train a LoRA adapter on exported rows and write it with its manifest.

    A run that was stopped goes on from its last checkpoint; the adapter appears in `output` only when it is whole.

    Args:
        rows_file: Chat JSON Lines, one `prompt` and `completion` a row.
        base: The base model.
        output: The adapter's folder; made anew.
        settings: See `TrainSettings`.
        role: What the adapter will do; recorded.
        student: The name of the student; recorded.
        screening: Counts of the screen behind the rows; recorded.
        scripted_teacher: Whether the rows come from a script; recorded.
        start: An adapter to go on from, of the same base; its rank stays. A new one by default.
        progress: Called with (steps done, steps in all, loss of the last step).
        stop: Ends the training after the step under way, with a checkpoint, when it is set.

    Returns:
        The manifest, as written.

    Raises:
        TrainingError: See `preflight`; also a loss that isn't finite.
        TrainingStopped: `stop` was set.
    """
    stop = stop or threading.Event()

    def work() -> Manifest:
        # One at a time: trainer, accelerator and random numbers belong to the whole process.
        while not _TRAINING.acquire(timeout=0.2):
            if stop.is_set():
                raise TrainingStopped("Training was stopped before its turn came.", "Start it again.")
        try:
            with _random_numbers_left_alone():
                return _train(
                    rows_file, base, output, settings, role, student, screening, scripted_teacher, start, progress, stop
                )
        finally:
            _free_memory()
            _TRAINING.release()

    return _in_own_thread(work, stop)


def _free_memory() -> None:
    """Give a GPU's memory back, which the trainer's cycles hold; a server may need it next."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _in_own_thread(work: Callable[[], Manifest], stop: threading.Event) -> Manifest:
    """Run `work` in a thread that ends with it, and its OpenMP workers with that.

    Every thread that computes has OpenMP workers of its own, and libgomp hardly spins between two operations once
    there are more of them than cores. With the embedded engine's beside them, a training step on two cores was
    measured at 2.1 seconds, without them at 1.7.
    """
    outcome: Future[Manifest] = Future()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            outcome.set_result(context.run(work))
        except BaseException as error:  # noqa: BLE001 - handed to the caller, who raises it
            outcome.set_exception(error)

    thread = threading.Thread(target=run, name="divcon-train", daemon=True)
    thread.start()
    try:
        return outcome.result()
    except KeyboardInterrupt:
        stop.set()
        thread.join()
        raise


def _train(
    rows_file: Path,
    base: Base,
    output: Path,
    settings: TrainSettings,
    role: str,
    student: str,
    screening: dict[str, Any] | None,
    scripted_teacher: bool,
    start: Path | None,
    progress: _PROGRESS | None,
    stop: threading.Event,
) -> Manifest:
    before_it = manifest_for(start, base) if start is not None else None
    with LOADING:
        import torch
        from peft import LoraConfig, PeftModel
        from safetensors import SafetensorError
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.trainer_utils import get_last_checkpoint
        from trl import SFTConfig

    rows = read_rows(rows_file)
    tokenizer = AutoTokenizer.from_pretrained(base.path)
    ready = preflight(rows, tokenizer, settings)
    data_hash = hashlib.sha256(rows_file.read_bytes()).hexdigest()
    cuda = torch.cuda.is_available()
    # Weights of the base stay in float32 on a CPU: under autocast that is faster there than bfloat16 weights.
    computed_in = precision(settings.precision)
    stored = torch.bfloat16 if cuda and computed_in == "bfloat16" else torch.float32
    with LOADING:
        model = AutoModelForCausalLM.from_pretrained(base.path, dtype=stored)
    lora: Any = None
    if start is not None:
        with LOADING:
            model = PeftModel.from_pretrained(model, str(start), is_trainable=True)
    else:
        lora = LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha or 2 * settings.rank,
            target_modules="all-linear",  # without the output layer, which small models tie to the embeddings
            task_type="CAUSAL_LM",
        )
    checkpoints = output.with_name(output.name + ".checkpoints")
    stamp = checkpoints / "made-from.json"
    template_hash = text_hash(tokenizer.chat_template)
    made_from = {
        "data": data_hash, "settings": settings.deciding(), "base": [base.id, base.revision],
        "template": template_hash,
        **({"start": before_it.content_hash} if before_it else {}),
        **({"precision": computed_in} if computed_in != "bfloat16" else {}),
    }  # fmt: skip
    if checkpoints.exists() and (not stamp.is_file() or json.loads(stamp.read_text()) != made_from):
        shutil.rmtree(checkpoints)  # checkpoints of other rows or settings
    checkpoints.mkdir(parents=True, exist_ok=True)
    stamp.write_text(json.dumps(made_from))
    steps = max(1, math.ceil(len(ready.rows) / settings.batch_size * settings.epochs))
    arguments = SFTConfig(
        output_dir=str(checkpoints),
        max_steps=steps,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=steps // 20,  # the first step of a warm-up has no learning rate; a single step needs one
        bf16=computed_in == "bfloat16",
        use_cpu=not cuda,
        dataloader_pin_memory=cuda,
        # On two cores the backward pass is what costs; recomputing the forward one to save memory doubles it.
        gradient_checkpointing=cuda,
        max_length=None,  # rows are measured above; nothing is cut
        packing=False,
        train_sampling_strategy="group_by_length",
        logging_steps=1,
        logging_first_step=True,
        save_strategy="steps",
        save_steps=settings.save_every,
        save_total_limit=1,
        report_to=[],
        disable_tqdm=True,
        seed=settings.seed,
    )
    losses: list[float] = []
    started = time.perf_counter()
    clock = checkpoints / "seconds.json"
    earlier = json.loads(clock.read_text()) if clock.is_file() else 0.0

    def saved() -> None:
        clock.write_text(json.dumps(earlier + time.perf_counter() - started))

    with _quiet():
        with LOADING:
            trainer = _trainer(model, arguments, ready, tokenizer, lora, losses, steps, progress, stop, saved)
        before = get_last_checkpoint(str(checkpoints))
        trainer.train(resume_from_checkpoint=before)
    if stop.is_set() and trainer.state.global_step < steps:
        raise TrainingStopped(
            f"Training was stopped after step {trainer.state.global_step} of {steps}.", "Start it again to go on."
        )
    seconds = earlier + time.perf_counter() - started
    if not losses and before is None:
        raise TrainingError("Training took no step.", "Check train.epochs and the number of rows.")
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    if not all(math.isfinite(loss) for loss in logged):
        raise TrainingError("The training loss is not finite.", "Lower train.learning_rate.")
    if not any(bool(p.any()) for name, p in trainer.model.named_parameters() if "lora_B" in name):
        raise TrainingError("Training has changed nothing.", "Raise train.epochs or train.learning_rate.")
    building = output.with_name(output.name + ".building")
    shutil.rmtree(building, ignore_errors=True)
    # A public name, not this machine's path, stands in the adapter's configuration.
    trainer.model.peft_config["default"].base_model_name_or_path = base.id
    try:
        trainer.model.save_pretrained(building, save_embedding_layers=False)
    except SafetensorError as error:  # what a full disk comes out as
        raise TrainingError(
            f"The adapter can't be written to {building}: {error}.", "Make room; training goes on where it was."
        ) from error
    (building / "README.md").unlink(missing_ok=True)  # PEFT's card is a form with nothing filled in
    manifest = Manifest(
        role=role,
        student=student,
        base={"id": base.id, "revision": base.revision, "dtype": base.dtype},
        prompt_hash=prompt_hash([row["prompt"] for row in rows]),
        prompt=_prompt_of(rows_file),
        chat_template_hash=template_hash,
        data_hash=data_hash,
        rows=len(ready.rows),
        screening=screening or {},
        settings=settings.model_dump(),
        precision=computed_in,
        result={
            "steps": trainer.state.global_step,
            "first_loss": round(logged[0], 4),
            # Over the last quarter: rows come grouped by length, and single steps differ more than they fall.
            "last_loss": round(mean(logged[-max(5, len(logged) // 4) :]), 4),
            "seconds": round(seconds, 1),
            "resumed_from": Path(before).name if before else None,
            **({"started_from": before_it.served_name} if before_it else {}),
            **{key: value for key, value in asdict(ready).items() if key != "rows"},
        },
        scripted_teacher=scripted_teacher,
        versions=package_versions(),
        content_hash=content_hash(building),
    )
    manifest.write(building)
    with LOADING:
        short = _short_rows(rows, tokenizer, settings.max_length)
        choose_probe(trainer.model, short, computed_in).write(building)
    shutil.rmtree(output, ignore_errors=True)
    building.rename(output)
    shutil.rmtree(checkpoints)
    return manifest


def _short_rows(
    rows: Sequence[dict[str, Any]], tokenizer: Any, longest: int
) -> list[tuple[dict[str, Any], list[int], list[int]]]:
    """The first few rows that were trained on, with the token ids of prompt and reply."""
    found = []
    for row in rows:
        prompt, reply = _ids_of(row, tokenizer)
        if len(prompt) + len(reply) < longest:
            found.append((row, prompt, [*reply, tokenizer.eos_token_id]))
        if len(found) == PROBE_CANDIDATES:
            break
    return found


def _prompt_of(rows_file: Path) -> dict[str, str]:
    """What the export says its prompts were made of; nothing for rows that come from elsewhere."""
    beside = rows_file.with_suffix(".manifest.json")
    found: dict[str, str] = json.loads(beside.read_text(encoding="utf-8")).get("prompt", {}) if beside.is_file() else {}
    return found


def _trainer(
    model: Any,
    arguments: Any,
    ready: Preflight,
    tokenizer: Any,
    lora: Any,
    losses: list[float],
    steps: int,
    progress: _PROGRESS | None,
    stop: threading.Event,
    saved: Callable[[], None] = lambda: None,
) -> Any:
    import datasets
    import torch
    from transformers import PrinterCallback, TrainerCallback
    from trl import SFTTrainer

    class CompletionTrainer(SFTTrainer):
        """TRL's trainer with the output layer applied where there is a label.

        Without Triton, TRL 1.16 projects every position of a batch onto the vocabulary (49,152 words here) and
        masks afterwards; the prompt is most of a row. The loss is the same, which a test holds it to.
        """

        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            if torch.cuda.is_available() or return_outputs:
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            # Accelerate wraps autocast around `model.forward`, which is not what is called here.
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.args.bf16):
                return completion_loss(model, inputs, num_items_in_batch)

    class Watch(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if stop.is_set() and state.global_step < steps:
                control.should_save = control.should_training_stop = True

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            saved()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if logs and "loss" in logs:
                losses.append(logs["loss"])
                if progress:
                    progress(state.global_step, steps, logs["loss"])

    trainer = CompletionTrainer(
        model=model,
        args=arguments,
        train_dataset=datasets.Dataset.from_list(ready.rows),
        processing_class=tokenizer,
        peft_config=lora,
        callbacks=[Watch()],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def completion_loss(model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
    """Mean cross-entropy over the labelled positions of a batch, as SFTTrainer defines it.

    Args:
        model: A causal language model, wrapped by PEFT or not.
        inputs: `input_ids`, `attention_mask` and `labels`, each of shape (rows, tokens).
        num_items_in_batch: Labels in the whole step, where a step is several batches.

    Returns:
        A scalar tensor.
    """
    import torch

    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    hidden = inner.base_model(
        input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False
    ).last_hidden_state
    labels = inputs["labels"][:, 1:]
    chosen = labels != IGNORED
    logits = inner.get_output_embeddings()(hidden[:, :-1][chosen]).float()
    total = torch.nn.functional.cross_entropy(logits, labels[chosen], reduction="sum")
    return total / (num_items_in_batch if num_items_in_batch is not None else chosen.sum())


@contextlib.contextmanager
def _random_numbers_left_alone() -> Iterator[None]:
    """Give the process its random numbers back, which a trainer seeds."""
    import numpy

    before, before_numpy = random.getstate(), numpy.random.get_state()
    try:
        yield
    finally:
        random.setstate(before)
        numpy.random.set_state(before_numpy)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep trainers' own logs off the terminal; what matters is in the manifest."""
    import transformers

    before = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_error()
    logger = logging.getLogger("trl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
        transformers.utils.logging.set_verbosity(before)


def is_trained(folder: Path) -> bool:
    """Whether `folder` holds a whole adapter."""
    return (folder / MANIFEST).is_file()
