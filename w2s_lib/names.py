"""Names of models: `name`, `name@depth`, `hf:<owner>/<name>`, a local folder, `tfidf`."""

from __future__ import annotations

from .parts import nearest, require

EMBEDDED_DEPTH = {"smollm2-135m": 30}
"""Models that need no hub, and how many blocks each has."""


def split_model(model: str) -> tuple[str, int | None]:
    """`name@depth` -> (name, depth); the depth is None where none is given. Raises `SpecError`."""
    name, at, depth = model.partition("@")
    require(not at or depth.isdecimal(), f"the depth in {model!r} must be a whole number, as in 'smollm2-135m@4'")
    return name, int(depth) if at else None


def canonical_model(model: str) -> str:
    """Checks a model's name and depth; a depth that keeps every block is left out, so one model has one name."""
    name, depth = split_model(model)
    known = [*EMBEDDED_DEPTH, "tfidf"]
    require(name in known or (name.startswith("hf:") and len(name) > 3) or "/" in name, lambda: (
        f"unknown model {name!r}: {nearest(name, known)} Also 'hf:<owner>/<name>' or a local folder with a '/' in it."))
    require(depth is None or name != "tfidf", "'tfidf' has no depth")
    most = EMBEDDED_DEPTH.get(name)
    require(depth is None or (depth >= 1 and (most is None or depth <= most)),
             f"depth {depth} of {name!r}: must be 1 to {most or 'the number of its blocks'}")
    return name if depth is None or depth == most else f"{name}@{depth}"


def short_name(model: str) -> str:
    """What figures and sentences call a model: "4 blocks" of the embedded one, "Qwen3-8B", "Qwen3-8B, 6 blocks", "TF-IDF"."""
    name, depth = split_model(model)
    if name in EMBEDDED_DEPTH:
        return f"{depth or EMBEDDED_DEPTH[name]} blocks"
    return "TF-IDF" if name == "tfidf" else name.rpartition("/")[2] + (f", {depth} blocks" if depth else "")
