"""Tokens and keys of the environment: in no record, no log, no error, and in nothing that Ray is given."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import w2s_lib as w2s
from tests.conftest import content, pinned
from w2s_lib.experiments.ray import _task
from w2s_lib.experiments.worker import to_line
from w2s_lib.runs.spec import Task
from w2s_lib.runs.store import read

REPO = Path(__file__).parents[2]
SECRETS = {
    "HF_TOKEN": "hf_AAAAsecretAAAA",
    "AWS_ACCESS_KEY_ID": "BBBBsecretBBBB",
    "AWS_SECRET_ACCESS_KEY": "CCCCsecretCCCC",
    "AWS_SESSION_TOKEN": "DDDDsecretDDDD",
}
NOWHERE = "http://127.0.0.1:9"
AT_ONCE = {"config_kwargs": {"retries": {"total_max_attempts": 1}}}
"""A person's own setting for fsspec: a store that cannot be reached is given up at once."""
CODE = """
import os, sys
import w2s_lib as w2s
from w2s_lib.runs.store import require_writable
good, wild, *_ = specs = [w2s.RunSpec.from_json(line) for line in sys.argv[1:]]
def said(work):
    try:
        print(work())
    except Exception as error:
        print(type(error).__name__, error)
said(lambda: w2s.sweep([good, wild], workers=2))
runs = w2s.sweep([good])
print(runs.frame.to_dict(), runs.all_records)
said(lambda: w2s.run(w2s.ceiling("hf:nobody/nothing", good.task)))
os.environ["W2S_STORE"] = "s3://nobodys/records"
said(require_writable)
"""


def test_no_token_is_written_or_said(tmp_path: Path, small_task: Task, tiny_models: Path) -> None:
    """By a sweep with workers, one that fails, a hub and an object store that cannot be reached."""
    weak = w2s.supervisor("tfidf", small_task)
    brief = {"lora": w2s.Lora(rank=1, blocks=1), "precision": "fp32", "quantization": "none"}
    brief |= {"recipe": w2s.Recipe(epochs=1), "task": small_task, "labels": w2s.Hard(run=weak)}
    good = pinned(tiny_models / "llama", **brief)
    wild = pinned(tiny_models / "llama", **brief | {"recipe": w2s.Recipe(learning_rate=1e30)})
    own = {"HF_ENDPOINT": NOWHERE, "AWS_ENDPOINT_URL": NOWHERE, "FSSPEC_S3": json.dumps(AT_ONCE)}
    own |= {"W2S_STORE": f"{tmp_path}/records", "W2S_CACHE": f"{tmp_path}/cache"}
    own |= {"HF_HOME": f"{tmp_path}/hf", "PYTHONPATH": str(REPO)}
    done = subprocess.run(
        [sys.executable, "-c", CODE, good.to_json(), wild.to_json()],
        env=os.environ | own | SECRETS,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for words in (
        "TrainingError the ",
        "AssetError cannot load hf:nobody",
        "StoreUnavailable the store s3",
    ):
        assert words in done.stdout, done.stdout + done.stderr
    written = content(tmp_path)
    records = [read(tmp_path / name) for name in written if name.endswith(".parquet")]
    assert {record.spec.run_id for record in records} == {weak.run_id, good.run_id}
    told = [done.stdout.encode(), done.stderr.encode(), repr(records).encode(), *written.values()]
    assert any(good.run_id.encode() in text for text in told)
    for name, secret in SECRETS.items():
        assert not [text for text in told if secret.encode() in text], name


def test_ray_is_given_no_token(monkeypatch: pytest.MonkeyPatch, small_task: Task) -> None:
    """All that a task is made with is what `ray.remote(function).options` and its call take."""
    for name, secret in SECRETS.items():
        monkeypatch.setenv(name, secret)
    given: list[Any] = []
    ray = SimpleNamespace(
        remote=lambda function: SimpleNamespace(options=lambda **own: given.append(own))
    )
    _task(ray, to_line, num_cpus=1)
    given.append(to_line((w2s.supervisor("tfidf", small_task), False)))
    assert given[0]["runtime_env"]["env_vars"]["W2S_STORE"] == os.environ["W2S_STORE"]
    assert not [name for name, secret in SECRETS.items() if secret in repr(given)]
