"""`python -m w2s_lib VERB [NAME=VALUE ...]`: what each Make target calls."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from w2s_lib import book, build
from w2s_lib.parts import nearest

ROOT = Path.cwd()
Options = dict[str, Any]


def jobs(options: Options, *, published: bool = True) -> tuple[list[book.Job], int]:
    """The chapters asked for as jobs, with the worker processes that training may use."""
    pages = [page for page in book.chapters(ROOT) if page.is_notebook]
    names = [page.name for page in pages]
    asked = options.pop("chapters", names)
    asked = [asked] if isinstance(asked, str) else asked
    for name in set(asked) - set(names):
        raise book.UsageError(f"Unknown chapter {name!r}: {nearest(str(name), names)}")
    profile = str(options.pop("profile", "laptop"))
    workers = int(options.pop("workers", book.load_profile(ROOT, profile).get("workers", 1)))
    chosen = book.resolve([page for page in pages if page.name in asked], profile=profile, overrides=options)
    if not published:
        chosen = [replace(job, parameters=one_seed(job), published=False) for job in chosen]
    return chosen, workers


def one_seed(job: book.Job) -> book.Parameters:
    """The job's parameters with only the first of its seeds."""
    seeds = (job.chapter.defaults() | job.parameters).get("seeds")
    return job.parameters | ({"seeds": seeds[:1]} if isinstance(seeds, list) else {})


def make_book(options: Options, *, published: bool = True) -> int:
    """Executes the chapters, builds the pages and verifies them."""
    chosen, workers = jobs(options, published=published)
    pages = book.chapters(ROOT)
    # A book is whole or it is nothing: chapters not asked for are there as they are published.
    others = [p for p in pages if p.is_notebook and p not in [job.chapter for job in chosen]]
    table = book.execute(chosen + book.resolve(others, profile="laptop", overrides={}), workers=workers)
    built = build.build(pages)
    build.verify(pages)
    width = max(len("chapter"), *(len(row[0]) for row in table)) if table else 7
    print(f"\n{'chapter':<{width}}  {'seconds':>9}  {'runs read':>9}  {'runs trained':>12}")
    for name, seconds, read, trained in table:
        print(f"{name:<{width}}  {'unchanged' if seconds is None else f'{seconds:.1f}':>9}  {read:>9}  {trained:>12}")
    print(f"\n{'Built' if built else 'Unchanged'} and verified: {len(pages)} pages.")
    print(f"Open {(ROOT / '_build' / 'html' / 'index.html').as_uri()} or run `make serve`.")
    return 0


def retrain(options: Options) -> int:
    """Does what `book` does with the published records hidden, on one seed."""
    return make_book(options, published=False)


def records(options: Options) -> int:
    """Trains what the published records lack, at low priority."""
    os.nice(10)
    chosen, workers = jobs(options)
    book.train(chosen, store="published", workers=workers)
    return 0


def test(options: Options) -> int:
    """Runs the linter on library, tests and chapters, the type checker, and the tests."""
    refuse(options)
    chapters = [str(page.source) for page in book.chapters(ROOT) if page.is_notebook]
    # In a chapter imports come where they are met, and a last expression is there to be shown.
    lint = "ruff check --quiet --ignore E402,D,B018 {}"
    steps = [["ruff", "check", "."], ["mypy"]]
    steps += [["jupytext", "--quiet", "--check", lint, "--pipe-fmt", "py:percent", *chapters]] if chapters else []
    steps += [["pytest"]]
    failed = [step for step in steps if tool(*step)]
    for step in failed:
        print(f"failed: {' '.join(step[:3])}", file=sys.stderr)
    return 1 if failed else 0


def serve(options: Options) -> int:
    """Opens the built book on localhost."""
    port = int(options.pop("port", 8000))
    refuse(options)
    build.serve(ROOT, port)
    return 0


def lab(options: Options) -> int:
    """Opens JupyterLab with the chapters as notebooks; installs it on first use."""
    refuse(options)
    if importlib.util.find_spec("jupyterlab") is None:
        print("Installing JupyterLab, once ...", flush=True)
        pip = [sys.executable, "-m", "pip", "install", "-q", "-c", "book/constraints.txt", "-e", ".[lab]"]
        subprocess.run(pip, check=True)
    return tool("jupyter", "lab", "book")


def tool(*command: str) -> int:
    """Runs a command-line tool of this interpreter's environment."""
    return subprocess.call([sys.executable, "-m", *command])


def refuse(options: Options) -> None:
    """Raises `UsageError` for options that a verb does not take."""
    for name in options:
        raise book.UsageError(f"This verb takes no {name!r}.")


def usage(options: Options) -> int:
    """Lists the verbs."""
    for name, verb in VERBS.items():
        print(f"  make {name:<8} {(verb.__doc__ or '').splitlines()[0]}")
    print("  Override a parameter by its name: make book CHAPTERS=pgr PROFILE=gpu SEEDS=0,1 WORKERS=2")
    return 0


VERBS = {
    "help": usage, "book": make_book, "test": test, "retrain": retrain, "records": records, "serve": serve, "lab": lab,
}  # fmt: skip


def main(arguments: list[str]) -> int:
    """Runs a verb; 1 where it fails, 2 where it is not understood."""
    name, *settings = arguments or ["help"]
    try:
        if name not in VERBS:
            raise book.UsageError(f"Unknown verb {name!r}: {nearest(name, VERBS)}")
        options = {}
        for setting in settings:
            key, equals, text = setting.partition("=")
            if not equals:
                raise book.UsageError(f"{setting!r} is no setting; write NAME=VALUE.")
            options[key.lower()] = yaml.safe_load(f"[{text}]" if "," in text and text[0] not in "[{" else text)
        return VERBS[name](options)
    except (book.UsageError, book.BookError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, book.UsageError) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
