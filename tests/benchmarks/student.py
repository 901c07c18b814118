"""One student, ours against the plain way, on the same machine in one go.

The plain way is what a good user would write with the same libraries: `transformers.Trainer` + peft + bitsandbytes NF4,
grouped by length, large evaluation batches, all cores as threads. Ours is a sweep with one single-threaded worker a core.
Same model, data, epochs, learning rate, LoRA blocks, and the same rows predicted. Both train ceilings (ground truth), so
their accuracies can be compared.
"""

from __future__ import annotations

import os
import tempfile
from typing import Any

import numpy as np

from .common import MODEL, UNPUBLISHED, block_flops, cold, matmul_rate, measured

STUDENTS = 4  # ours share a trunk: how many


def plain(seed: int, threads: int) -> dict[str, Any]:
    """P(y = 1) by row for every split, of the plain way; NaN for the other rows."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig, TaskType, get_peft_model, prepare_model_for_kbit_training
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        BitsAndBytesConfig,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
    )

    import w2s_lib as w2s
    from w2s_lib import assets
    from w2s_lib.record import SPLITS

    torch.set_num_threads(threads)
    spec = w2s.ceiling(MODEL, "movie", seed=seed)
    table = w2s.load_table(spec.task)
    parts = w2s.splits(table, seed)
    folder = str(assets.fetch_model())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=2, dtype=torch.bfloat16, quantization_config=BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16))
    model.config.pad_token_id = tokenizer.pad_token_id
    model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    model = get_peft_model(model, LoraConfig(
        task_type=TaskType.SEQ_CLS, r=spec.lora.rank, lora_alpha=spec.lora.alpha, lora_dropout=0.0,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        layers_to_transform=list(range(20, 30))))

    def dataset(rows: np.ndarray) -> Dataset:
        frame = table.frame.loc[rows]
        texts = [spec.task.template.replace("{text}", text) for text in frame["text"]]
        return Dataset.from_dict({**tokenizer(texts), "labels": frame["label"].tolist()})

    with tempfile.TemporaryDirectory() as out:
        trainer = Trainer(
            model=model, train_dataset=dataset(parts.student), processing_class=tokenizer,
            data_collator=DataCollatorWithPadding(tokenizer), args=TrainingArguments(
                output_dir=out, num_train_epochs=spec.recipe.epochs, per_device_train_batch_size=spec.recipe.batch_size,
                per_device_eval_batch_size=64, learning_rate=spec.recipe.learning_rate, warmup_steps=12,
                lr_scheduler_type="linear", weight_decay=0.0, bf16=True, use_cpu=True, seed=seed, report_to=[],
                save_strategy="no", logging_strategy="no", train_sampling_strategy="group_by_length", disable_tqdm=True))
        trainer.train()
        trainer.args.train_sampling_strategy = "random"  # grouping would shuffle what is predicted as well, silently
        every = np.concatenate([getattr(parts, name) for name in SPLITS])
        order = every[np.argsort([len(table.frame["text"][row]) for row in every])]  # a good user sorts here too
        logits = trainer.predict(dataset(order)).predictions
    p = np.full(len(table.frame), np.nan)
    p[order] = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
    return {"p": p}


def ours(seeds: list[int], workers: int) -> dict[str, Any]:
    """The records by seed of a sweep with a cold trunk and a cold store."""
    import w2s_lib as w2s

    runs = w2s.sweep([w2s.ceiling(MODEL, "movie")], seeds=seeds, workers=workers, progress=False)
    return {"records": list(runs["record"])}


def measure() -> dict[str, Any]:
    """Both ways, their tokens a second, peak memory, accuracy, and share of the machine's measured matmul rate."""
    from transformers import AutoConfig

    import w2s_lib as w2s
    from w2s_lib import assets, trunk

    workers = os.cpu_count() or 1
    rate = measured(matmul_rate, workers, threads=workers)["flops"]
    seeds = list(range(UNPUBLISHED, UNPUBLISHED + STUDENTS))
    theirs = measured(plain, seeds[0], workers, threads=workers)
    with cold():
        mine = measured(ours, seeds, workers)
    records = mine["records"]
    trunk_seconds = sum(r.provenance["trunk_seconds"] for r in records) / workers
    spec = records[0].spec
    table = w2s.load_table(spec.task)
    tokens = trunk.Inputs(spec, table).text_length
    parts = w2s.splits(table, seeds[0])
    trained = spec.recipe.epochs * tokens[parts.student].sum()
    predicted = sum(tokens[rows].sum() for rows in vars(parts).values())
    block = block_flops(AutoConfig.from_pretrained(str(assets.fetch_model())))
    top = int(spec.lora.blocks)
    # A training pass goes through all blocks, and back through those that learn: no weight but the adapters' has a gradient.
    whole = block * (30 * (trained + predicted) + top * trained)
    shared = block * (top * (trained + predicted) + top * trained)
    frame = table.frame
    test = records[0].predictions.query("split == 'test'").index.to_numpy()
    as_plain = w2s.accuracy(theirs["p"][test], frame["label"].to_numpy()[test])
    other = records[0].predictions.assign(p=theirs["p"][records[0].predictions.index.to_numpy()])
    difference = w2s.difference_interval([records[0]], [w2s.Record(spec, other, {}, {})])
    both = w2s.accuracy_interval(records)
    rows = []
    for name, seconds, peak, work, accuracy in (
            ("plain Trainer", theirs["seconds"], theirs["peak_gib"], whole, f"{as_plain:.3f}"),
            ("ours, with its trunk", mine["seconds"] / STUDENTS, None, None, f"{both:.3f}"),
            ("ours, trunk there", (mine["seconds"] - trunk_seconds) / STUDENTS,
             max(r.provenance["peak_memory_bytes"] for r in records) / 2**30, shared, "")):
        rows.append({"way": name, "seconds a student": seconds, "times faster": theirs["seconds"] / seconds,
                     "tokens a second": float(trained + predicted) / seconds, "peak GiB of a process": peak,
                     "share of the matmul rate": work and work / seconds / rate, "test accuracy": accuracy})
    return {"rows": rows, "students": STUDENTS, "workers": workers, "matmul_flops": rate, "trunk_seconds": trunk_seconds,
            "ours_minus_plain": f"{difference:+.3f}", "covers": difference.note}
