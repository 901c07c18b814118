"""One student, ours against the plain way, on the same machine in one go.

The plain way is what a good user would write with the same libraries: `transformers.Trainer` + peft + bitsandbytes NF4,
grouped by length, large evaluation batches, all cores as threads. Ours is a sweep with one single-threaded worker a core;
on a GPU, one worker. Same model, data, epochs, learning rate, LoRA blocks, and the same rows predicted. Both train ceilings
(ground truth), so their accuracies can be compared.
"""

from __future__ import annotations

import os
import tempfile
from typing import Any

import numpy as np

from w2s_lib.measures.metrics import contrast_interval
from w2s_lib.runs.record import SPLITS

from .common import MODEL, UNPUBLISHED, block_flops, cold, matmul_rate, measured

STUDENTS = 4  # ours share a trunk: how many


def spec_of(model: str, task: Any, device: str, seed: int) -> Any:
    """What both ways train."""
    import w2s_lib as w2s

    return w2s.ceiling(model, task, device=device, seed=seed, predict_halves=True)


def plain(model: str, task: Any, device: str, seed: int, threads: int) -> dict[str, Any]:
    """P(y = 1) by row for every split, of the plain way; NaN for the other rows."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig, TaskType, get_peft_model, prepare_model_for_kbit_training
    from transformers import (
        AutoConfig,
        AutoModelForSequenceClassification,
        AutoTokenizer,
        BitsAndBytesConfig,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
    )

    import w2s_lib as w2s
    from w2s_lib.models.backbone import place

    torch.set_num_threads(threads)
    spec = spec_of(model, task, device, seed)
    table = w2s.load_table(spec.task)
    parts = w2s.splits(table, seed)
    where = place(spec.name, spec.revision)
    tokenizer = AutoTokenizer.from_pretrained(**where)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    depth = spec.depth or AutoConfig.from_pretrained(**where).num_hidden_layers
    network = AutoModelForSequenceClassification.from_pretrained(
        **where,
        num_hidden_layers=depth,
        num_labels=2,
        dtype=torch.bfloat16,
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        ),
    )
    network.config.pad_token_id = tokenizer.pad_token_id
    network = prepare_model_for_kbit_training(network, use_gradient_checkpointing=False)
    network = get_peft_model(
        network,
        LoraConfig(
            task_type=TaskType.SEQ_CLS,
            r=spec.lora.rank,
            lora_alpha=spec.lora.alpha,
            lora_dropout=0.0,
            target_modules=[
                "q_proj",
                "k_proj",
                "v_proj",
                "o_proj",
                "gate_proj",
                "up_proj",
                "down_proj",
            ],
            layers_to_transform=list(range(max(0, depth - int(spec.lora.blocks)), depth)),
        ),
    )

    def dataset(rows: np.ndarray) -> Dataset:
        frame = table.frame.loc[rows]
        texts = [spec.task.template.replace("{text}", text) for text in frame["text"]]
        return Dataset.from_dict({**tokenizer(texts), "labels": frame["label"].tolist()})

    steps = spec.recipe.epochs * len(parts.student) / spec.recipe.batch_size
    with tempfile.TemporaryDirectory() as out:
        trainer = Trainer(
            model=network,
            train_dataset=dataset(parts.student),
            processing_class=tokenizer,
            data_collator=DataCollatorWithPadding(tokenizer),
            args=TrainingArguments(
                output_dir=out,
                num_train_epochs=spec.recipe.epochs,
                per_device_train_batch_size=spec.recipe.batch_size,
                per_device_eval_batch_size=64,
                learning_rate=spec.recipe.learning_rate,
                warmup_steps=round(spec.recipe.warmup_fraction * steps),
                lr_scheduler_type="linear",
                weight_decay=spec.recipe.weight_decay,
                bf16=True,
                use_cpu=device == "cpu",
                seed=seed,
                report_to=[],
                save_strategy="no",
                logging_strategy="no",
                train_sampling_strategy="group_by_length",
                disable_tqdm=True,
            ),
        )
        trainer.train()
        trainer.args.train_sampling_strategy = (
            "random"  # grouping would shuffle what is predicted as well, silently
        )
        every = np.concatenate([getattr(parts, name) for name in SPLITS])
        order = every[
            np.argsort([len(table.frame["text"][row]) for row in every])
        ]  # a good user sorts here too
        logits = trainer.predict(dataset(order)).predictions
    p = np.full(len(table.frame), np.nan)
    p[order] = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
    return {"p": p} | (
        {"peak_gib": torch.cuda.max_memory_allocated() / 2**30} if device == "cuda" else {}
    )


def ours(model: str, task: Any, device: str, seeds: list[int], workers: int) -> dict[str, Any]:
    """The records by seed of a sweep with a cold trunk and a cold store."""
    import w2s_lib as w2s

    runs = w2s.sweep(
        [spec_of(model, task, device, seed) for seed in seeds], workers=workers, progress=False
    ).frame
    return {"records": list(runs["record"])}


def compare(model: str, task: Any, device: str) -> dict[str, Any]:
    """Both ways, their tokens a second, peak memory, accuracy, and share of the machine's measured matmul rate."""
    import w2s_lib as w2s
    from w2s_lib.models import backbone as models
    from w2s_lib.models import trunk

    threads = os.cpu_count() or 1
    workers = threads if device == "cpu" else 1
    spec = spec_of(model, task, device, UNPUBLISHED)
    config = models.load_config(spec.name, spec.revision)
    rate = measured(
        matmul_rate, threads, config.hidden_size, config.intermediate_size, device, threads=threads
    )["flops"]
    seeds = list(range(UNPUBLISHED, UNPUBLISHED + STUDENTS))
    theirs = measured(plain, model, task, device, seeds[0], threads, threads=threads)
    with cold():
        mine = measured(ours, model, task, device, seeds, workers)
    records = mine["records"]
    trunk_seconds = sum(r.provenance["trunk_seconds"] for r in records) / workers
    table = w2s.load_table(spec.task)
    tokens = trunk.Inputs(spec, table).text_length
    parts = w2s.splits(table, seeds[0])
    trained = spec.recipe.epochs * tokens[parts.student].sum()
    predicted = sum(tokens[getattr(parts, name)].sum() for name in SPLITS)
    block, depth = block_flops(config), config.num_hidden_layers
    top = min(depth, int(spec.lora.blocks))
    # A training pass goes through all blocks, and back through those that learn: no weight but the adapters' has a gradient.
    whole = block * (depth * (trained + predicted) + top * trained)
    shared = block * (top * (trained + predicted) + top * trained)
    test = records[0].predictions.query("split == 'test'").index.to_numpy()
    as_plain = w2s.accuracy(theirs["p"][test], table.frame["label"].to_numpy()[test])
    other = records[0].predictions.assign(p=theirs["p"][records[0].predictions.index.to_numpy()])
    difference = contrast_interval([(1, [records[0]]), (-1, [w2s.Record(spec, other, {}, {})])])
    both = contrast_interval([(1, records)])
    peak = max(r.provenance["peak_memory_bytes"] for r in records) / 2**30
    rows = []
    for name, seconds, memory, work, accuracy in (
        ("plain Trainer", theirs["seconds"], theirs["peak_gib"], whole, f"{as_plain:.3f}"),
        ("ours, with its trunk", mine["seconds"] / STUDENTS, peak, None, f"{both:.3f}"),
        ("ours, trunk there", (mine["seconds"] - trunk_seconds) / STUDENTS, peak, shared, ""),
    ):
        rows.append(
            {
                "way": name,
                "seconds a student": seconds,
                "times faster": theirs["seconds"] / seconds,
                "tokens a second": float(trained + predicted) / seconds,
                "peak GiB of a process": memory,
                "share of the matmul rate": work and work / seconds / rate,
                "test accuracy": accuracy,
            }
        )
    return {
        "rows": rows,
        "students": STUDENTS,
        "workers": workers,
        "matmul_flops": rate,
        "trunk_seconds": trunk_seconds,
        "ours_minus_plain": f"{difference:+.3f}",
        "covers": difference.note,
        "tokens_a_text": float(tokens.mean()),
    }


def measure() -> dict[str, Any]:
    """On the CPU, with the embedded model."""
    return compare(MODEL, "movie", "cpu")
