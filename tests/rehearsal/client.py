"""Loads what it is told, as a run does, in a process that knows a hub: `python -m tests.rehearsal.client`.

A line of JSON in, a line out: {"model": "owner/name", "revision": ...} or {"dataset": "owner/name:revision"},
then {"digest": ...} of what was loaded, or {"error": ..., "message": ...}.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from typing import Any


def load_model(name: str, revision: str = "") -> str:
    """A digest of a model's weights, loaded as a run loads them."""
    from w2s_lib.models import backbone
    from w2s_lib.models.pins import resolve_revision
    from w2s_lib.runs.spec import RunSpec

    name = f"hf:{name}"
    spec = RunSpec(model=name, revision=resolve_revision(name, revision), quantization="none")
    backbone.check(spec)
    digest = hashlib.sha256()
    for key, value in sorted(backbone.load_backbone(spec).state_dict().items()):
        digest.update(key.encode() + value.float().numpy().tobytes())
    return digest.hexdigest()


def load_dataset(where: str, files: str = "") -> str:
    """The digest of a table made of a dataset with the columns of GLUE's `cola`."""
    import w2s_lib as w2s

    def rows(row: dict[str, Any]) -> Iterator[w2s.Example]:
        yield w2s.Example(row["sentence"], row["label"])

    rows.__name__ = f"task_{hashlib.sha256((where + files).encode()).hexdigest()[:8]}"
    w2s.hub_task(where, source="a test", files=files)(rows)
    return w2s.load_table(w2s.default_task(rows.__name__)).digest


def answer(asked: dict[str, str]) -> dict[str, str]:
    """What becomes of a request."""
    try:
        if "model" in asked:
            return {"digest": load_model(asked["model"], asked.get("revision", ""))}
        return {"digest": load_dataset(asked["dataset"], asked.get("files", ""))}
    except Exception as error:
        return {"error": type(error).__name__, "message": str(error)}


def main() -> None:
    """Answers until there are no more lines."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no reply
    for line in sys.stdin:
        replies.write(json.dumps(answer(json.loads(line))) + "\n")
        replies.flush()


if __name__ == "__main__":
    main()
