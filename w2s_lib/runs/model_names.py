"""Names of models: `name`, `name@depth`, `hf:<owner>/<name>`, a local folder, `tfidf`, `texts`."""

import re

from w2s_lib.runs.errors import SpecError, nearest, require

EMBEDDED_DEPTH = {"smollm2-135m": 30}
"""Models that need no hub, and how many blocks each has."""
NO_MODEL = {"tfidf": "tfidf", "texts": "text_method"}
"""Names in place of a model's, TF-IDF of the texts and the texts themselves (`entry`), and the kind
of each one's runs."""


def is_hub(name: str) -> bool:
    """Whether a name means a model of the hub."""
    return name.startswith("hf:")


def is_folder(name: str) -> bool:
    """Whether a name means a local folder."""
    return "/" in name and not is_hub(name)


def split_model(model: str) -> tuple[str, int | None]:
    """`name@depth` -> (name, depth); the depth is None where none is given. Raises `SpecError`."""
    name, at, depth = model.partition("@")
    said = f"the depth in {model!r} must be a whole number, as in 'smollm2-135m@4'"
    require(not at or depth.isdecimal(), said)
    return name, int(depth) if at else None


def split_revision(model: str) -> tuple[str, str]:
    """`hf:owner/name:revision@depth` -> (`hf:owner/name@depth`, revision or "")."""
    name, at, depth = model.partition("@")
    if not is_hub(name):
        return model, ""
    repository, colon, revision = name[3:].partition(":")
    require(not colon or bool(revision), f"{model!r} names no revision after its colon")
    return f"hf:{repository}{at}{depth}", revision


def canonical_model(model: str, revision: str) -> str:
    """Checks a model's name, depth and revision; a depth that keeps every block is left out."""
    name, depth = split_model(model)
    known = [*EMBEDDED_DEPTH, *NO_MODEL]
    if not (name in known or (is_hub(name) and len(name) > 3) or is_folder(name)):
        others = "Also 'hf:<owner>/<name>' or a local folder with a '/' in it."
        raise SpecError(f"unknown model {name!r}: {nearest(name, known)} {others}")
    require(depth is None or name not in NO_MODEL, f"{name!r} has no depth")
    most = EMBEDDED_DEPTH.get(name)
    said = f"depth {depth} of {name!r}: must be 1 to {most or 'the number of its blocks'}"
    require(depth is None or (depth >= 1 and (most is None or depth <= most)), said)
    said = f"RunSpec.model is {model!r}: its revision belongs in RunSpec.revision"
    require(not (is_hub(name) and ":" in name[3:]), said)
    allowed, what = "", "empty"
    if is_hub(name):
        allowed, what = r"[\w./-]*", "a commit of the hub, a branch or a tag"
    elif is_folder(name):
        allowed, what = "([0-9a-f]{64})?", "the SHA-256 of the folder's files"
    said = f"RunSpec.revision of {name!r} is {revision!r}: it must be {what}"
    require(re.fullmatch(allowed, revision) is not None, said)
    return name if depth is None or depth == most else f"{name}@{depth}"


def short_name(model: str) -> str:
    """What figures call a model: "4 blocks" of the embedded one, "Qwen3-8B, 6 blocks", "TF-IDF"."""
    name, depth = split_model(split_revision(model)[0])
    if name in EMBEDDED_DEPTH:
        return f"{depth or EMBEDDED_DEPTH[name]} blocks"
    if name == "tfidf":
        return "TF-IDF"
    return name.rpartition("/")[2] + (f", {depth} blocks" if depth else "")
