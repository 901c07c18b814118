"""What the hub of a rehearsal has: small random models under real names, made rows under real schemas."""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from tests.conftest import small_tokenizer
from tests.rehearsal.hub import Repository
from tests.tasks.rows import CASES, PAIRS
from w2s_lib.models.backbone import quiet
from w2s_lib.tasks.hub import HUB_TASKS, HubTask

SIZE = {"hidden_size": 48, "intermediate_size": 96, "vocab_size": 600}
SIZE |= {"bos_token_id": 1, "eos_token_id": 2}


def _shape(blocks: int, heads: int, key_heads: int, *, tied: bool = True) -> dict[str, Any]:
    sizes = {"num_hidden_layers": blocks, "num_attention_heads": heads}
    return SIZE | sizes | {"num_key_value_heads": key_heads, "tie_word_embeddings": tied}


MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "HuggingFaceTB/SmolLM2-135M": ("Llama", _shape(30, 6, 2)),
    "HuggingFaceTB/SmolLM2-360M": ("Llama", _shape(32, 6, 2)),
    "HuggingFaceTB/SmolLM2-1.7B": ("Llama", _shape(24, 6, 6)),
    "Qwen/Qwen3-0.6B-Base": ("Qwen3", _shape(28, 4, 2) | {"head_dim": 16}),
    "Qwen/Qwen3-4B-Base": ("Qwen3", _shape(36, 4, 1) | {"head_dim": 16}),
    "Qwen/Qwen3-8B-Base": ("Qwen3", _shape(36, 4, 1, tied=False) | {"head_dim": 16}),
}
"""Models of the profiles, small and random; of the real ones are the family, the number of blocks,
how many heads share a key head, and whether the head for words is that of the embeddings."""

WORDS = ("terrible", "great", "no", "yes")
"""The label words of all tasks: a token each, as in the real tokenizers."""

FIXED = ("label", "answerKey")
"""Columns that hold no text, though some hold strings."""


def commit_of(name: str) -> str:
    """A made-up commit, the same every time."""
    return hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()


def random_model(family: str, **settings: Any) -> dict[str, bytes]:
    """Configuration, tokenizer and random weights, as `save_pretrained` writes them."""
    import torch
    import transformers as tf

    torch.manual_seed(0)
    config = getattr(tf, f"{family}Config")(**settings)
    made = getattr(tf, f"{family}ForCausalLM")(config).to(torch.bfloat16)
    with tempfile.TemporaryDirectory() as folder, quiet():
        made.save_pretrained(folder)
        small_tokenizer(WORDS).save_pretrained(folder)
        return {file.name: file.read_bytes() for file in sorted(Path(folder).iterdir())}


def varied(value: Any, number: int, name: str = "") -> Any:
    """A row like another one, with every text begun anew: what was equal in it stays equal."""
    if isinstance(value, dict):
        return {key: varied(each, number, key) for key, each in value.items()}
    if isinstance(value, list):
        return [varied(each, number, name) for each in value]
    return f"No. {number}: {value}" if isinstance(value, str) and name not in FIXED else value


def made_rows(task: str, n: int, start: int) -> list[dict[str, Any]]:
    """Rows of a task's dataset; where a row has a label of its own, it alternates."""
    pattern = PAIRS[task][0] if task in PAIRS else CASES[task][0]
    one_example = task in CASES and CASES[task][2] == 1
    rows = [varied(pattern, number) for number in range(start, start + n)]
    for number, row in enumerate(rows):
        column = "answer" if task == "boolq" else "label"
        if one_example and column in row:
            row[column] = type(row[column])(number % 2)
    return rows


def parquet(rows: list[dict[str, Any]]) -> bytes:
    """Rows as a Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def dataset(tasks: Iterable[HubTask], n_rows: int) -> Repository:
    """The repository that tasks of one dataset declare, with the files where they say they are.

    Args:
        tasks: of one dataset.
        n_rows: of all splits of a task together.
    """
    files: dict[str, bytes] = {}
    configs: dict[str, dict[str, str]] = {}
    revision = ""
    for task in tasks:
        revision = task.revision
        names = sorted(set(task.parts.values()))
        n = n_rows // len(names)
        for place, split in enumerate(names):
            config = task.config or "default"
            path = task.files.format(split=split) or f"{config}/{split}-00000-of-00001.parquet"
            rows = made_rows(task.name, n, place * n)
            files.setdefault(path, parquet(rows))
            if not task.files:
                configs.setdefault(config, {})[split] = f"{config}/{split}-*"
    card = [
        {"config_name": name, "data_files": [{"split": s, "path": p} for s, p in splits.items()]}
        for name, splits in configs.items()
    ]
    text = f"---\n{yaml.safe_dump({'configs': card})}---\n" if card else ""
    files["README.md"] = f"{text}# Made rows for a rehearsal\n".encode()
    if len(revision) == 40:
        return Repository({revision: files})
    return Repository({(commit := commit_of(revision)): files}, {revision: commit})


def stock(
    n_rows: int, *, models: Iterable[str] = MODELS, tasks: Iterable[str] = HUB_TASKS
) -> dict[str, Repository]:
    """Repositories of models, and of the datasets of tasks with so many rows a task."""
    made = {}
    for name in models:
        family, settings = MODELS[name]
        commit = commit_of(name)
        made[f"models/{name}"] = Repository(
            {commit: random_model(family, **settings)}, {"main": commit}
        )
    by_dataset: dict[str, list[HubTask]] = {}
    for name in tasks:
        by_dataset.setdefault(HUB_TASKS[name].hub, []).append(HUB_TASKS[name])
    return made | {f"datasets/{hub}": dataset(own, n_rows) for hub, own in by_dataset.items()}
