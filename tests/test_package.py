"""The shape of the library: who imports whom, how large a file is, what is documented, what is never committed."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import w2s_lib as w2s

REPO = Path(__file__).resolve().parent.parent
LIBRARY = {path.stem: path for path in sorted((REPO / "w2s_lib").glob("*.py"))}

MAY_IMPORT: dict[str, set[str]] = {
    # what a run is
    "parts": set(),
    "names": {"parts"},
    "codec": {"parts"},
    "spec": {"codec", "names", "parts"},
    "revisions": {"assets", "names", "parts"},
    "arms": {"names", "revisions", "spec", "tasks"},
    # what is measured
    "losses": set(),
    "objective": {"losses", "parts"},
    "intervals": set(),
    "metrics": {"intervals"},
    "contrasts": {"intervals", "metrics"},
    # what is read
    "assets": set(),
    "cache": {"assets"},
    "comparisons": set(),
    "readers": {"assets", "comparisons", "spec"},
    "registry": {"assets", "comparisons", "readers", "spec"},
    "hub_tasks": {"registry"},
    "tasks": {"assets", "cache", "comparisons", "hub_tasks", "names", "readers", "registry", "spec"},
    "halves": {"spec", "tasks"},
    # what is trained
    "families": {"spec"},
    "models": {"assets", "families", "names", "revisions", "spec"},
    "machine": {"models"},
    "memory": {"families", "models", "spec"},
    "adapters": {"families", "models", "names", "spec"},
    "trunk": {"assets", "cache", "families", "machine", "models", "spec", "tasks"},
    "classifier": {"adapters", "families", "spec", "trunk"},
    "train": {"adapters", "classifier", "families", "machine", "memory", "models", "objective", "spec", "tasks", "trunk"},
    "next_token": {"adapters", "classifier", "memory", "models", "spec", "tasks", "train", "trunk"},
    "probing": {"adapters", "assets", "cache", "classifier", "families", "machine", "models", "spec", "tasks", "train",
                "trunk"},
    # what is kept
    "record": {"spec"},
    "parquet": {"record", "spec"},
    "remote": {"assets", "record"},
    "store": {"parquet", "record", "remote", "spec"},
    "runner": {"classifier", "halves", "machine", "models", "next_token", "probing", "record", "spec", "store", "tasks",
               "train"},
    "local_engine": {"machine", "models", "runner", "spec", "store", "train"},
    "cluster": {"models", "record", "runner", "spec", "store"},
    "ray_engine": {"cluster", "machine", "models", "runner", "spec", "store", "train"},
    "engines": {"assets", "local_engine", "names", "ray_engine", "record", "runner", "spec", "store"},
    "sweep": {"engines", "record", "runner", "spec", "store"},
    # what is shown
    "theme": set(),
    "marks": {"intervals", "theme"},
    "plots": {"intervals", "marks", "metrics", "names", "theme"},
    "curves": {"intervals", "marks", "theme"},
    "interactive": {"intervals", "marks", "theme"},
    "report": {"store"},
    "verdicts": {"intervals", "parts", "report", "store"},
    "book": {"parts", "sweep"},
    "profiles": {"book", "parts"},
    "listing": {"book", "hub_tasks", "names", "parts", "profiles", "record", "spec", "store", "sweep", "tasks"},
    "build": {"book", "listing"},
    "plan": {"adapters", "assets", "book", "classifier", "families", "losses", "memory", "models", "names", "revisions",
             "runner", "spec", "store", "tasks", "train", "trunk"},
    "__main__": {"book", "build", "parts", "plan", "profiles"},
    "__init__": {"spec"},
}
"""The import table of the design, with the modules that it was cut into. Every import counts, wherever it stands."""

WITH_TORCH = {"losses", "objective", "families", "machine", "memory", "models", "adapters", "trunk", "classifier", "train",
              "next_token", "probing", "runner", "engines", "local_engine", "cluster", "ray_engine"}
"""Modules that load torch when they are imported. No other may; `sweep` does where a run is missing."""

IN_CHAPTERS = {"dataclasses", "w2s_lib", "torch", "numpy", "pandas", "altair"}


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Every module that a file imports, as `w2s_lib.<module>` where it is ours, and whether at its top level."""
    root = tree(path)
    top = {id(node) for node in root.body}
    for node in ast.walk(root):
        at_top = id(node) in top
        if isinstance(node, ast.Import):
            yield from ((name.name, at_top) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = f"w2s_lib{'.' if node.module else ''}{node.module or ''}" if node.level else node.module or ""
            for name in node.names if module == "w2s_lib" else []:
                yield f"w2s_lib.{name.name}", at_top
            if module != "w2s_lib":
                yield module, at_top
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "find_spec", "__import__")):
            yield from ((arg.value, at_top) for arg in node.args[:1] if isinstance(arg, ast.Constant))


def test_every_module_has_its_place_in_the_table() -> None:
    assert LIBRARY.keys() == MAY_IMPORT.keys()


@pytest.mark.parametrize("module", MAY_IMPORT)
def test_imports_are_those_of_the_table(module: str) -> None:
    ours = {name.split(".")[1] for name, _ in imports(LIBRARY[module]) if name.startswith("w2s_lib.")}
    assert ours <= MAY_IMPORT[module], f"{module} imports {ours - MAY_IMPORT[module]}: not in the table"
    torch = {name for name, at_top in imports(LIBRARY[module]) if at_top and name.split(".")[0] in (
        "torch", "transformers", "peft", "accelerate", "bitsandbytes")}
    assert not torch or module in WITH_TORCH, f"{module} loads {torch} when it is imported"


def test_the_table_has_no_circle() -> None:
    order: list[str] = []
    while len(order) < len(MAY_IMPORT):
        ready = [name for name, needs in MAY_IMPORT.items() if name not in order and needs <= set(order)]
        assert ready, f"a circle among {MAY_IMPORT.keys() - set(order)}"
        order += ready


def test_importing_the_library_is_quick_and_loads_no_torch() -> None:
    """The best of three, since the machine may be busy."""
    code = "import sys, time; t = time.perf_counter(); import w2s_lib; print(time.perf_counter() - t, *sys.modules)"
    seconds = []
    for _ in range(3):
        took, *modules = subprocess.run(
            [sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True).stdout.split()
        seconds.append(float(took))
        assert not {"torch", "transformers", "pandas", "sklearn", "altair"} & set(modules)
        if seconds[-1] < 2:
            break
    assert min(seconds) < 2


def test_describing_runs_loads_no_torch() -> None:
    """Planning a book asks for specs, tasks and metrics: hundreds of modules less to load."""
    code = ("import sys, w2s_lib as w; w.student('smollm2-135m', w.supervisor('smollm2-135m@4', 'movie')).run_id; "
            "w.pgr; w.Record; w.load_table; w.report; print(*sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    assert "torch" not in done.stdout.split()


def test_every_public_name_is_there() -> None:
    assert w2s.__all__ == sorted(w2s.__all__) == dir(w2s)
    for name in w2s.__all__:
        found = getattr(w2s, name)
        assert callable(found) and found.__doc__, name


def test_the_functions_sweep_and_report_win_over_the_modules_of_that_name() -> None:
    """Whatever was imported before: `run` lives in the module `sweep`, and Python sets a module on its package."""
    for first in ("w2s.run", "from w2s_lib.sweep import train_missing; import w2s_lib.report"):
        code = f"import w2s_lib as w2s; {first}; print(callable(w2s.sweep), callable(w2s.report), callable(w2s.run))"
        done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["True"] * 3


def definitions(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef | ast.ClassDef]]:
    for child in getattr(node, "body", []):
        if isinstance(child, (ast.FunctionDef, ast.ClassDef)) and not child.name.startswith("_"):
            yield f"{prefix}{child.name}", child
            if isinstance(child, ast.ClassDef):
                yield from definitions(child, f"{prefix}{child.name}.")


@pytest.mark.parametrize("module", LIBRARY)
def test_everything_public_is_documented(module: str) -> None:
    """And an `Args` section, where there is one, names parameters that exist."""
    assert ast.get_docstring(tree(LIBRARY[module])), f"{module} does not say what it is"
    for name, node in definitions(tree(LIBRARY[module])):
        text = ast.get_docstring(node)
        assert text, f"{module}.{name} is not documented"
        section = re.search(r"^Args:\n((?:    .*\n?|\n)+)", text, re.M)
        if section:
            function = node if isinstance(node, ast.FunctionDef) else next(
                (n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
            assert function is not None
            own = function.args
            known = {a.arg for a in [*own.posonlyargs, *own.args, *own.kwonlyargs]}
            known |= {"*" * stars + a.arg for a, stars in ((own.vararg, 1), (own.kwarg, 2)) if a}
            said = {word for line in re.findall(r"^ {4}(?! )([\w*, ]+):", section[1], re.M) for word in line.split(", ")}
            assert said <= known, f"{module}.{name} documents {said - known}"


@pytest.mark.parametrize("module", LIBRARY)
def test_no_file_is_longer_than_250_lines(module: str) -> None:
    assert len(LIBRARY[module].read_text(encoding="utf-8").splitlines()) <= 250


# What is committed, or would be

def committed() -> list[Path]:
    """Tracked files, and those that `git add` would take."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=REPO,
                            capture_output=True, check=True).stdout.decode()
    return [REPO / name for name in listed.split("\0") if name and (REPO / name).is_file()]


def test_the_top_level_holds_what_the_design_says() -> None:
    allowed = {"README.md", "pyproject.toml", "_config.yml", "Makefile", "LICENSE", "CITATION.cff", "book", "w2s_lib", "tests"}
    names = {path.relative_to(REPO).parts[0] for path in committed()}
    assert {name for name in names if not name.startswith(".")} <= allowed


def test_no_notebook_and_no_pickle_is_committed() -> None:
    """Chapters are MyST Markdown; what is executed is built."""
    unwanted = {".ipynb", ".pkl", ".pickle", ".pt", ".pth", ".bin", ".safetensors", ".npy"}
    assert [path for path in committed() if path.suffix in unwanted] == []
    for path in LIBRARY.values():
        assert not {"pickle", "joblib", "dill"} & {name.split(".")[0] for name, _ in imports(path)}


def test_no_committed_file_names_a_path_of_somebodys_machine() -> None:
    """An absolute path to a work, home or temporary folder, or to this very clone."""
    folders = "|".join(("work", "root", "tmp", "home", "Users", "mnt", "opt"))
    somewhere = re.compile(rf"(?<![\w.~:/$}}>)*-])/(?:{folders})/[\w.]".encode())
    here = str(REPO).encode()
    for path in committed():
        content = path.read_bytes()
        found = somewhere.search(content)
        assert not found, f"{path.name}: {content[max(0, found.start() - 40):found.end() + 40]!r}"
        assert len(here) < 8 or here not in content, f"{path.name} names this clone's own folder"


def test_chapters_import_the_library_and_little_else() -> None:
    import jupytext

    for path in (REPO / "book").glob("*.md"):
        if "kernelspec:" in path.read_text(encoding="utf-8")[:600]:
            for cell in jupytext.read(path).cells:
                for node in ast.walk(ast.parse(cell.source)) if cell.cell_type == "code" else []:
                    names = [n.name for n in node.names] if isinstance(node, ast.Import) else \
                        [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                    assert {name.split(".")[0] for name in names} <= IN_CHAPTERS, f"{path.name} imports {names}"


def test_modules_can_be_imported_in_any_order() -> None:
    started = time.monotonic()
    for module in MAY_IMPORT:
        if module not in ("__main__", "__init__", *WITH_TORCH, "build"):
            importlib.import_module(f"w2s_lib.{module}")
    assert time.monotonic() - started < 60
