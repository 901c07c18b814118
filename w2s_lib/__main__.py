"""`python -m w2s_lib VERB [NAME=VALUE ...]`: what each Make target calls."""

import contextlib
import fcntl
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

# What needs the book's packages is imported where it is used: `make help` needs nothing installed.
from w2s_lib.publishing import chapters as book
from w2s_lib.runs import errors
from w2s_lib.runs.errors import nearest

ROOT = Path.cwd()
RESULTS = ROOT / "book" / "results"
Options = dict[str, Any]


def whole(options: Options, name: str, default: Any, *, least: int) -> Any:
    """A setting that is a whole number; the default where it is not set."""
    value = options.pop(name, default)
    if value is not None and (type(value) is not int or value < least):
        raise book.UsageError(f"{name} must be a whole number from {least} up, not {value!r}")
    return value


def several(options: Options, name: str, default: list[str]) -> list[Any]:
    """A setting that is one word or a list of them."""
    value = options.pop(name, default)
    return value if isinstance(value, list) else [value]


def take_jobs(options: Options, *, runs: bool = False) -> tuple[list[book.Job], int | None]:
    """The chapters asked for as jobs, and how many processes may train.

    How many is None where a cluster trains (ENGINE=ray): it knows. With `runs` what is wanted are
    records, not pages: those of chapters that are no page yet, too, and of a profile's variants.
    """
    if engine := options.pop("engine", None):
        os.environ["W2S_ENGINE"] = str(engine)
    found = book.notebooks(ROOT) if runs else book.chapters(ROOT)
    pages = {page.name: page for page in found if page.is_notebook}
    asked = several(options, "chapters", [*pages])
    for name in set(asked) - pages.keys():
        raise book.UsageError(f"Unknown chapter {str(name)!r}: {nearest(str(name), pages)}")
    profile = str(options.pop("profile", "laptop"))
    values = book.load_profile(ROOT, profile)
    usual = None if os.environ.get("W2S_ENGINE") == "ray" else values.get("workers", 1)
    workers = whole(options, "workers", usual, least=1)
    chosen = [page for name, page in pages.items() if name in asked]
    jobs: list[book.Job] = []
    for variant in [None, *(values.get("variants", []) if runs else [])]:
        jobs += book.resolve(chosen, profile=profile, overrides=options, variant=variant)
    return jobs, workers


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Whoever enters it waits until no other process builds in this checkout."""
    try:
        (ROOT / ".w2s").mkdir(exist_ok=True)
        lock = (ROOT / ".w2s" / "build.lock").open("w")
        fcntl.flock(lock, fcntl.LOCK_EX)  # the system frees it when this process ends
    except OSError as error:
        raise book.BookError(f"nothing can be built in {ROOT}: {error}") from error
    with lock:
        yield


def make_book(options: Options, *, retrain: bool = False, commit: str = "") -> None:
    """Executes the chapters, builds the pages and verifies them."""
    from w2s_lib.publishing import execution
    from w2s_lib.publishing import pages as build

    jobs, workers = take_jobs(options)
    pages = book.chapters(ROOT)
    # A book is whole or it is none: the chapters not asked for are in it as they are published.
    asked = [job.chapter for job in jobs]
    others = [page for page in pages if page.is_notebook and page not in asked]
    with alone():
        published = book.resolve(others, profile="laptop", overrides={})
        table = execution.execute(published, workers=workers)
        if retrain:
            os.environ["W2S_PUBLISHED"] = "0"
        table += execution.execute(jobs, workers=workers)
        built = build.build(pages, commit=commit)
        build.verify(pages)
    print_table(table)
    words = "built" if built else "unchanged"
    print(f"\n{len(pages)} pages {words} and verified. To read them: make serve, or open")
    print((ROOT / "_build" / "html" / "index.html").as_uri())


def print_table(rows: list[Any]) -> None:
    """What was executed: a line a chapter."""
    import pandas as pd

    frame = pd.DataFrame(rows, columns=["", "seconds", "runs read", "runs trained"]).set_index("")
    frame["seconds"] = frame["seconds"].astype(float)
    print(frame.to_string(float_format="{:.1f}".format, na_rep="unchanged", index_names=False))


def retrain(options: Options) -> int:
    """Trains the claims' runs of one seed again and compares.

    CLAIMS=ID,ID: all seeds of these claims, which are decided anew; tables of both go to `_build/`. ALL=1:
    the whole book, as `book` does.
    """
    if options.pop("all", None):
        make_book(options, retrain=True)
        return 0
    names = several(options, "claims", [])
    if others := options.keys() - {"engine", "workers"}:
        raise book.UsageError(f"{', '.join(others)}: only with ALL=1, which trains whole chapters")
    from w2s_lib.publishing import claims

    if not names:
        table = train_again(claims.claimed_runs().values(), options, today())
        return 0 if table["holds"].all() else 1
    specs = [spec for name in names for spec in claims.runs_of(claims.claim_of(name))]
    table = train_again(specs, options, today())
    decided = claims.retrained(names).assign(date=today(), hardware=table["hardware"].iloc[-1])
    target = ROOT / "_build"  # the tables in `book/` are of a machine of ours
    target.mkdir(exist_ok=True)
    for what, frame in (("runs", table), ("claims", decided)):
        frame.to_csv(target / f"retrained_{what}.csv", index=False, lineterminator="\n")
    print(decided[["id", "published", "again", "outcome_again"]].to_string(index=False))
    return 0 if (decided["outcome"] == decided["outcome_again"]).all() else 1


def audit(options: Options) -> int:
    """Trains one published run of each kind again, drawn by DATE (today), and compares."""
    from w2s_lib.publishing.audit import drawn

    date = str(options.pop("date", today()))
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", date):
        raise book.UsageError(f"DATE must be YYYY-MM-DD, not {date!r}")
    table = train_again(drawn(RESULTS, date), options, date)
    table.to_csv(ROOT / "book" / "audit.csv", index=False, lineterminator="\n")
    return 0 if table["holds"].all() else 1


def train_again(specs: Iterable[Any], options: Options, date: str) -> Any:
    """Trains published runs in a store of that day, tells how they compare, and returns the table.

    The table says the date as well.
    """
    from w2s_lib.publishing import audit
    from w2s_lib.runs.store import user_store

    _, workers = take_jobs(options)
    # The user's own may hold these runs: nothing would be trained.
    os.environ["W2S_STORE"] = f"{user_store().address}/again/{date}"
    os.environ["W2S_PUBLISHED"] = "0"
    table = audit.train_again(specs, RESULTS, workers=workers)
    forms = dict.fromkeys(("farthest", "moved", "change"), "{:.2g}".format)
    print(table.to_string(index=False, formatters=forms))
    print(f"\n{table['equal'].sum()} of {len(table)} runs are equal to the bit.")
    for run_id in table["run_id"][~table["holds"]]:
        print(f"{run_id} is not what its record says.")
    return table.assign(date=date)


def verify(options: Options) -> int:
    """Checks every record, published or your own, against all that is here; names each damage."""
    from w2s_lib.publishing import audit
    from w2s_lib.runs.store import FolderStore, published_store, user_store

    n_wrong, folder = 0, published_store()
    for store in [user_store(), *([FolderStore(folder)] if folder else [])]:
        table = audit.verify(store, published=store.folder == folder)
        bad = table[table["wrong"] != ""]
        for file, wrong in bad[["file", "wrong"]].to_numpy():
            print(f"{file}: {wrong}")
        unknown = table["unknown"][table["unknown"] != ""]
        for what, n_files in unknown.value_counts().items():
            print(f"{n_files} records could not be compared with {what}")
        print(f"{store.name}: {len(table) - len(bad)} of {len(table)} files are whole.")
        n_wrong += len(bad)
    return 1 if n_wrong else 0


def today() -> str:
    """The date, UTC, `YYYY-MM-DD`."""
    return time.strftime("%Y-%m-%d", time.gmtime())


def plan(options: Options) -> None:
    """Says what the chapters would train: distinct runs, downloads, memory, time.

    Does none of it.
    """
    from w2s_lib.publishing import plan as planned  # here: `help` needs nothing installed

    jobs, workers = take_jobs(options, runs=True)
    print(planned.describe(planned.make_plan(jobs), workers))


def run(options: Options, *, store: Literal["user", "published"] = "user") -> None:
    """Trains what the chapters need, the profile's variants too; resumes where it stopped."""
    jobs, workers = take_jobs(options, runs=True)
    book.train(jobs, store=store, workers=workers)


def records(options: Options) -> None:
    """Trains what the published records lack, at low priority; resumes where it stopped."""
    os.nice(10)
    run(options, store="published")


def pdf(options: Options) -> None:
    """Prints the whole book as one PDF, `_build/pdf/book.pdf` (needs Chromium)."""
    from w2s_lib.publishing import pdf as paper

    paper.find_browser()  # before minutes of building
    make_book({})
    target = ROOT / "_build" / "pdf" / "book.pdf"
    with alone():
        n_pages = paper.write_pdf(book.chapters(ROOT), target)
    print(f"\n{n_pages} pages: {target.as_uri()}")


def publish(options: Options) -> None:
    """Packs the site of the checked-out commit, with a checksum, into `_build/site/`."""
    from w2s_lib.publishing import archive

    commit = archive.clean_commit(ROOT)
    make_book({}, commit=commit)
    with alone():
        site, target = ROOT / "_build" / "html", ROOT / "_build" / "site"
        file = archive.write_archive(site, target, root=ROOT, commit=commit)
    size = f"{file.stat().st_size / 1e6:.1f} MB"
    print(f"\n{size} and its checksum, to unpack on any static host:\n{file}")


def serve(options: Options) -> int:
    """Serves the built book on localhost (PORT=8000; 0 takes a free port)."""
    port, site = whole(options, "port", 8000, least=0), ROOT / "_build" / "html"
    if not (site / "index.html").exists():
        raise book.BookError("There is no built book yet: run `make book` first.")
    server = ["http.server", "--bind", "127.0.0.1", "--directory", str(site), str(port)]
    os.execv(sys.executable, [sys.executable, "-u", "-m", *server])  # noqa: S606  our own words


def lab(options: Options) -> int:
    """Opens JupyterLab with the chapters as notebooks, executed already (PORT=8888)."""
    from w2s_lib.publishing import execution

    port = whole(options, "port", 8888, least=0)
    jobs, workers = take_jobs({})
    with alone():
        execution.pair(jobs, workers=workers)
    # A double click on a chapter opens it as a notebook, in this environment only.
    viewers = Path(sys.prefix, "etc", "jupyter", "labconfig", "default_setting_overrides.json")
    settings = ["--settings-file", str(viewers), "set-default-viewer", "markdown", "myst"]
    python = [sys.executable, "-m"]
    subprocess.call([*python, "jupytext_config", *settings])
    return subprocess.call([*python, "jupyterlab", "book", f"--ServerApp.port={port}"])


def clean(options: Options) -> None:
    """Removes what was built (not the records, not the environment)."""
    with alone():
        shutil.rmtree(ROOT / "_build", ignore_errors=True)


def usage(options: Options) -> None:
    """Lists what there is to do."""
    for name, (verb, _) in VERBS.items():
        print(f"make {name:<9} {(verb.__doc__ or '').splitlines()[0]}")
    print("make test      Checks everything.")
    print("make try       Executes chapters with the profile `quick`, and with each knob turned.")
    print("make rehearsal Runs the hub's profiles with small models, from a hub on this machine.")
    print("make torture   Kills, races and full disks, all of them; `make test` draws a sample.")
    print("make gpu-check Proves the CUDA path, then trains the PGR chapter's runs there.")
    print("\nParameters go by their names: make book CHAPTERS=pgr PROFILE=gpu SEEDS=0,1 WORKERS=2")


# Each verb, which may return an exit code, and the settings that it takes (None: the chapters').
VERBS: dict[str, tuple[Callable[[Options], int | None], tuple[str, ...] | None]] = {
    "help": (usage, ()),
    "book": (make_book, None),
    "verify": (verify, ()),
    "audit": (audit, ("date", "engine", "workers")),
    "retrain": (retrain, None),
    "plan": (plan, None),
    "run": (run, None),
    "records": (records, None),
    "serve": (serve, ("port",)),
    "pdf": (pdf, ()),
    "publish": (publish, ()),
    "lab": (lab, ("port",)),
    "clean": (clean, ()),
}


def read_settings(settings: str | list[str], allowed: tuple[str, ...] | None = None) -> Options:
    """Settings of a command line, `NAME=VALUE` or `-f FILE`, by their names in small letters.

    Raises:
        UsageError: one that is not allowed (None: all are), has no value, or whose value is no
            YAML.
    """
    words = shlex.split(settings) if isinstance(settings, str) else list(settings)
    options: Options = {}
    while words:
        setting = words.pop(0)
        if setting == "-f" and words:  # a profile's file, as papermill takes it
            setting = f"PROFILE={words.pop(0)}"
        key, _, text = setting.partition("=")
        if allowed is not None and key.lower() not in allowed:
            raise book.UsageError(f"no setting {key!r} here: {nearest(key.lower(), allowed)}")
        if not text:
            raise book.UsageError(f"{key!r} has no value: settings are NAME=VALUE")
        listed = "," in text and not text.startswith(("[", "{"))
        options[key.lower()] = book.from_yaml(f"[{text}]" if listed else text, key)
    return options


def main(arguments: list[str]) -> int:
    """Runs a verb; returns 1 where it fails and 2 where it is not understood."""
    name, *settings = arguments or ["help"]
    try:
        if name not in VERBS:
            raise book.UsageError(f"Unknown verb {name!r}: {nearest(name, VERBS)}")
        verb, allowed = VERBS[name]
        code = verb(read_settings(settings, allowed)) or 0
        sys.stdout.flush()
        return code
    except (book.UsageError, book.BookError, *errors.ALL) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, book.UsageError) else 1
    except BrokenPipeError:  # whoever reads, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
