"""Executing chapters: what is stale, what fails and is killed, and two builds at once."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from tests.conftest import processes, until
from tests.publishing.conftest import ROOT, command, edit, make, page
from w2s_lib.publishing import execution
from w2s_lib.publishing.chapters import BookError, Chapter, Job


@pytest.mark.torture
def test_of_two_builds_in_one_checkout_the_second_waits_and_finds_nothing_to_do(copy):
    edit(copy / "book" / "index.md", "A book", "One book")
    line, variables = command(copy, "book")
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    both = [subprocess.Popen(line, cwd=copy, env=variables, **quiet) for _ in range(2)]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    first, second = sorted(said, key=lambda text: "pages unchanged" in text)
    assert "6 pages built and verified" in first, said
    assert "6 pages unchanged and verified" in second, said
    # The chapter that reads is stale where any page has changed, the one with runs is not.
    assert re.search(r"^reads +[\d.]+ +0 +0$", first, re.M), said
    assert re.search(r"^reads +unchanged +0 +0$", second, re.M), said
    assert all(re.search(r"^one +unchanged +2 +0$", text, re.M) for text in said), said
    assert "One book" in page(copy, "index")


@pytest.mark.torture
def test_a_book_killed_at_any_moment(copy, record_property):
    """No page mixes old and new, and the next one makes it whole."""
    (line, variables), rng = command(copy, "book"), np.random.default_rng(0)
    title = shown = "Chapter one"
    for number in range(10):
        edit(copy / "book" / "one.md", f"# {title}", f"# {(title := f'Chapter, draft {number}')}")
        process = subprocess.Popen(line, cwd=copy, env=variables, stdout=subprocess.DEVNULL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(1, 20))
        process.kill()
        process.wait()
        site = [path.read_text("utf-8") for path in (copy / "_build" / "html").glob("*.html")]
        if site and title in site[0]:
            shown = title
        assert all(shown in html for html in site)
    # A builder that was left writes where nobody looks.
    until(lambda: not processes("W2S_STORE", variables["W2S_STORE"]), seconds=120)
    assert make(copy, "book").returncode == 0
    assert all(title in page(copy, name) for name in ("one", "reads", "index"))
    assert not [path for path in (copy / "_build").iterdir() if ".part" in path.name]
    record_property("builds of a book killed at a random moment", number + 1)


def test_executors_and_kernels_end_with_make(copy):
    """In the middle of a cell that would take ten minutes."""
    edit(copy / "book" / "one.md", "rows = [", "import time; time.sleep(600)\nrows = [")
    line, variables = command(copy, "book")
    process = subprocess.Popen(line, cwd=copy, env=variables, stdout=subprocess.DEVNULL)

    def there():
        return executors(variables["W2S_STORE"])

    until(lambda: any("ipykernel" in words for words in there()), seconds=120)
    process.kill()
    process.wait()
    until(lambda: not there(), seconds=120)


def executors(store):
    """The commands of processes that execute chapters with a store."""
    return [words for words in processes("W2S_STORE", store) if "jupyter-book" not in words]


def test_executing_again_gives_the_same_bytes(job):
    first = job.built(".ipynb").read_bytes()
    execution.execute_one(job, job.inputs())
    assert job.built(".ipynb").read_bytes() == first


def record(root):
    return next((root / "records").glob("*.parquet"))


@pytest.mark.parametrize(
    "change",
    [
        lambda root: record(root).write_bytes(b"other"),
        lambda root: record(root).unlink(),
        lambda root: (root / "book" / "constraints.txt").write_text("numpy==1\n"),
        lambda root: edit(root / "book" / "one.md", "Chapter one", "Chapter 1"),
        lambda root: edit(root / "_build" / "executed" / "one.ipynb", "Chapter one", "Chapter 1"),
    ],
    ids=["record changed", "record gone", "constraints", "source", "executed notebook"],
)
def test_a_chapter_is_stale_when_what_it_depends_on_changes(copy, change):
    assert execution.is_current(Job(Chapter("one", copy), {}))
    change(copy)
    assert not execution.is_current(Job(Chapter("one", copy), {}))


def test_a_page_without_runs_is_stale_when_another_chapter_or_a_published_record_changes(copy):
    here = Job(Chapter("reads", copy), {})
    states = [here.inputs()]
    edit(copy / "book" / "one.md", "two are enough", "two suffice")
    states.append(here.inputs())
    next((copy / "book" / "results").glob("*.parquet")).unlink()
    assert len({*states, here.inputs()}) == 3


def test_a_chapter_is_stale_when_asked_for_otherwise(job, monkeypatch):
    given, sketch = replace(job, parameters={"n": 4}), replace(job, banner="A sketch")
    states = {one.inputs() for one in (job, given, sketch)}
    monkeypatch.setenv("W2S_PUBLISHED", "0")
    assert len(states | {job.inputs()}) == 4


def test_a_change_in_any_room_of_the_library_makes_pages_stale(job, tmp_path):
    library = shutil.copytree(ROOT / "w2s_lib", tmp_path / "w2s_lib")
    rooms = sorted(folder for folder in library.iterdir() if (folder / "__init__.py").exists())
    code = (
        "import sys; from pathlib import Path; from w2s_lib.publishing.chapters import Chapter, Job\n"
        "job = Job(Chapter('one', Path(sys.argv[1])), {})\n"
        "for room in ['', *sys.argv[2:]]:\n"
        "    if room: Path(room, '__init__.py').write_text('# changed')\n"
        "    print(job.inputs())"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, job.chapter.root, *rooms],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(rooms) == 8 and len(set(run.stdout.split())) == 9


def test_a_failing_chapter_is_named_with_its_cell_and_error(job):
    """Here for want of a name in a field of its prose."""
    edit(job.chapter.source, "{{len(seeds)}}", "{{len(sedes)}}")
    with pytest.raises(BookError) as error:
        execution.execute([job], workers=1)
    assert re.match(r"one: code cell 4 \(`%%prose`\) failed: ProseError: ", str(error.value))
    assert "there is no 'sedes': did you mean 'seeds'" in str(error.value)
    partial = job.built(".ipynb", "partial")  # with what the cells before it have shown
    assert str(partial) in str(error.value) and "an error" in partial.read_text(encoding="utf-8")


def test_a_dying_kernel_is_named_with_its_cell(job):
    edit(job.chapter.source, "rows = [", "os._exit(1)\nrows = [")
    with pytest.raises(BookError, match=r"code cell 5 \(`os._exit\(1\)`\) failed: DeadKernelError"):
        execution.execute_one(job, job.inputs())
