"""One student, ours against the plain way, on the same machine in one go: `python -m tests.benchmarks.student`.

The plain way is what a good user would write with the same libraries: `transformers.Trainer` + peft + bitsandbytes NF4,
grouped by length, large evaluation batches, all cores as threads. Ours is a sweep with one single-threaded worker a core.
Same model, data, epochs, learning rate, LoRA blocks, and the same rows predicted. Both train ceilings (ground truth), so
their accuracies can be compared. Prints a Markdown table for `book/log.md`. Takes about a quarter of an hour on two cores.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

MODEL = "smollm2-135m"


def plain(seed: int, threads: int) -> tuple[float, np.ndarray]:
    """Seconds, and P(y = 1) by row for every split, of the plain way."""
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
    started = time.monotonic()
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
    seconds = time.monotonic() - started
    p = np.full(len(table.frame), np.nan)
    p[order] = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
    return seconds, p


def ours(seeds: list[int], workers: int) -> tuple[float, float, dict[int, object]]:
    """Wall seconds of a sweep with a cold trunk and a cold store, the trunk's share of them, and the records by seed."""
    import w2s_lib as w2s
    from w2s_lib import assets

    warm = assets.fetch_model().parent
    assets.fetch_data()
    with tempfile.TemporaryDirectory() as cache, tempfile.TemporaryDirectory() as records:
        for folder in warm.iterdir():
            if folder.is_dir() and folder.name != "trunks":
                shutil.copytree(folder, Path(cache) / folder.name)
        os.environ |= {"W2S_CACHE": cache, "W2S_STORE": records, "W2S_PUBLISHED": "0"}
        started = time.monotonic()
        runs = w2s.sweep([w2s.ceiling(MODEL, "movie")], seeds=seeds, workers=workers, progress=False)
        wall = time.monotonic() - started
    trunk = sum(record.provenance["trunk_seconds"] for record in runs["record"]) / workers
    return wall, trunk, {record.spec.seed: record for record in runs["record"]}


def main() -> None:
    """Measures both and prints the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--students", type=int, default=4, help="how many of ours share the trunk")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    import w2s_lib as w2s

    first = 200  # seeds that no published record has
    seeds = list(range(first, first + options.students))
    plain_seconds, p = plain(first, options.workers)
    wall, trunk, records = ours(seeds, options.workers)
    frame = w2s.load_table(w2s.default_task("movie")).frame
    test = records[first].predictions.query("split == 'test'")
    as_plain = w2s.accuracy(p[test.index.to_numpy()], frame["label"].to_numpy()[test.index.to_numpy()])
    mine = w2s.accuracy_interval(list(records.values()))
    plain_record = w2s.Record(records[first].spec, records[first].predictions.assign(
        p=p[records[first].predictions.index.to_numpy()]), {}, {})
    difference = w2s.difference_interval([records[first]], [plain_record])
    each, warm = wall / options.students, (wall - trunk) / options.students
    peak = max(record.provenance["peak_memory_bytes"] for record in records.values()) / 2**30
    title = f"ours, {options.students} students, {options.workers} workers, with trunk"
    print(f"""
| | seconds a student | times faster | test accuracy |
|---|---|---|---|
| plain Trainer, {options.workers} threads | {plain_seconds:.0f} | 1 | {as_plain:.3f} |
| {title} | {each:.0f} | {plain_seconds / each:.1f} | {mine:.3f} |
| ours, trunk already there | {warm:.0f} | {plain_seconds / warm:.1f} | |

Trunk: {trunk:.0f} s once, for all {len(frame):,} texts. Peak memory of a worker: {peak:.2f} GiB.
Same seed, ours minus plain, paired by test row: {difference:.3f} ({difference.note}).""")


if __name__ == "__main__":
    main()
