"""The shape of the library: who imports whom, how large a file is, what is documented, what is never committed."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import w2s_lib as w2s
from tests.chapter_text import script
from w2s_lib.publishing.chapters import chapters

REPO = Path(__file__).resolve().parent.parent
LIBRARY = sorted((REPO / "w2s_lib").rglob("*.py"))

IN_CHAPTERS = {
    "IPython",
    "dataclasses",
    "itertools",
    "pathlib",
    "scipy",
    "w2s_lib",
    "torch",
    "numpy",
    "pandas",
    "altair",
}


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
            module = (
                f"w2s_lib{'.' if node.module else ''}{node.module or ''}"
                if node.level
                else node.module or ""
            )
            for name in node.names if module == "w2s_lib" else []:
                yield f"w2s_lib.{name.name}", at_top
            if module != "w2s_lib":
                yield module, at_top
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
            ("import_module", "find_spec", "__import__")
        ):
            yield from (
                (arg.value, at_top) for arg in node.args[:1] if isinstance(arg, ast.Constant)
            )


def test_importing_the_library_and_describing_runs_loads_no_torch() -> None:
    code = (
        "import sys, w2s_lib as w; first = set(sys.modules); "
        "w.student('smollm2-135m', w.supervisor('smollm2-135m@4', 'movie')).run_id; w.pgr; w.load_table; "
        "print(*first & {'torch', 'transformers', 'pandas', 'sklearn', 'altair'}, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False"]


def test_every_public_name_is_there() -> None:
    assert w2s.__all__ == sorted(w2s.__all__) == dir(w2s)
    for name in w2s.__all__:
        found = getattr(w2s, name)
        assert callable(found) and found.__doc__, name


def definitions(
    node: ast.AST, prefix: str = ""
) -> Iterator[tuple[str, ast.FunctionDef | ast.ClassDef]]:
    for child in getattr(node, "body", []):
        if isinstance(child, (ast.FunctionDef, ast.ClassDef)) and not child.name.startswith("_"):
            yield f"{prefix}{child.name}", child
            if isinstance(child, ast.ClassDef):
                yield from definitions(child, f"{prefix}{child.name}.")


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_args_sections_name_parameters_that_exist(path: Path) -> None:
    for name, node in definitions(tree(path)):
        section = re.search(r"^Args:\n((?:    .*\n?|\n)+)", ast.get_docstring(node) or "", re.M)
        inner = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
        for function in [node, *inner][-1:] if section else []:
            assert section and isinstance(function, ast.FunctionDef)
            own = function.args
            known = {a.arg for a in [*own.posonlyargs, *own.args, *own.kwonlyargs]}
            known |= {"*" * stars + a.arg for a, stars in ((own.vararg, 1), (own.kwarg, 2)) if a}
            lines = re.findall(r"^ {4}(?! )([\w*, ]+):", section[1], re.M)
            said = {word for line in lines for word in line.split(", ")}
            assert said <= known, f"{path.stem}.{name} documents {said - known}"


# What is committed, or would be


def committed() -> list[Path]:
    """Tracked files, and those that `git add` would take."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPO,
        capture_output=True,
        check=True,
    ).stdout.decode()
    return [REPO / name for name in listed.split("\0") if name and (REPO / name).is_file()]


def test_no_python_file_is_longer_than_400_lines() -> None:
    """The library's, the tests' and the book's own."""
    lengths = {
        path: len(path.read_text(encoding="utf-8").splitlines())
        for path in committed()
        if path.suffix == ".py"
    }
    assert {path.parent.name for path in lengths} >= {"w2s_lib", "tests"}
    assert {str(path.relative_to(REPO)): n for path, n in lengths.items() if n > 400} == {}


def test_the_top_level_holds_what_the_design_says() -> None:
    allowed = {
        "README.md",
        "pyproject.toml",
        "_config.yml",
        "Makefile",
        "LICENSE",
        "CITATION.cff",
        "book",
        "w2s_lib",
        "tests",
    }
    names = {path.relative_to(REPO).parts[0] for path in committed()}
    assert {name for name in names if not name.startswith(".")} <= allowed


def test_no_notebook_and_no_pickle_is_committed() -> None:
    """Chapters are MyST Markdown; what is executed is built."""
    unwanted = {".ipynb", ".pkl", ".pickle", ".pt", ".pth", ".bin", ".safetensors", ".npy"}
    assert [path for path in committed() if path.suffix in unwanted] == []
    for path in LIBRARY:
        assert not {"pickle", "joblib", "dill"} & {name.split(".")[0] for name, _ in imports(path)}


def test_no_committed_file_names_a_path_of_somebodys_machine() -> None:
    """An absolute path to a work, home or temporary folder, or to this very clone."""
    folders = "|".join(("work", "root", "tmp", "home", "Users", "mnt", "opt"))
    somewhere = re.compile(rf"(?<![\w.~:/$}}>)*-])/(?:{folders})/[\w.]".encode())
    here = str(REPO).encode()
    for path in committed():
        content = path.read_bytes()
        found = somewhere.search(content)
        assert not found, f"{path.name}: {content[max(0, found.start() - 40) : found.end() + 40]!r}"
        assert len(here) < 8 or here not in content, f"{path.name} names this clone's own folder"


def test_chapters_import_the_library_and_little_else() -> None:
    notebooks = [page for page in chapters(REPO) if page.is_notebook]
    for chapter in notebooks:
        for node in ast.walk(ast.parse(script(chapter))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [name.name for name in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert {name.split(".")[0] for name in names} <= IN_CHAPTERS, (chapter.name, names)
    assert notebooks
