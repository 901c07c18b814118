"""`make publish`: the built site as one file, the same bytes for the same commit."""

from __future__ import annotations

import gzip
import io
import subprocess
import tarfile
import tomllib
from pathlib import Path

from w2s_lib.publishing.chapters import BookError
from w2s_lib.runs.folders import file_sha256


def clean_commit(root: Path) -> str:
    """The commit that is checked out, in full.

    Raises:
        BookError: there is none, or the tree holds a change or a file that is in no commit: the
            message names what.
    """
    if changes := _git(root, "status", "--porcelain"):
        raise BookError(f"An archive is made of a commit, and these are in none:\n{changes}")
    return _git(root, "rev-parse", "HEAD")


def write_archive(site: Path, target: Path, *, root: Path, commit: str) -> Path:
    """Packs a folder of pages, with a checksum file beside, as `sha256sum --check` reads it.

    Names are sorted, owners and modes fixed, and every date is the commit's.

    Args:
        site: the built pages.
        target: folder for the archive.
        root: of the repository.
        commit: that the site was built from.

    Returns:
        The archive, `NAME-VERSION-COMMIT.tar.gz`, which unpacks into a folder of that name.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    name = f"weak-to-strong-book-{project['version']}-{commit[:12]}"
    date = int(_git(root, "show", "--no-patch", "--format=%ct", commit))
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in sorted(path for path in site.rglob("*") if path.is_file()):
            entry = tarfile.TarInfo(f"{name}/{path.relative_to(site).as_posix()}")
            entry.size, entry.mtime, entry.mode = path.stat().st_size, date, 0o644
            with path.open("rb") as content:
                archive.addfile(entry, content)
    target.mkdir(parents=True, exist_ok=True)
    file = target / f"{name}.tar.gz"
    file.write_bytes(gzip.compress(packed.getvalue(), mtime=date))
    sums = f"{file_sha256(file)}  {file.name}\n"
    file.with_name(f"{file.name}.sha256").write_text(sums, encoding="utf-8")
    return file


def _git(root: Path, *command: str) -> str:
    """What git says."""
    done = subprocess.run(["git", *command], cwd=root, capture_output=True, text=True)
    if done.returncode:
        raise BookError(f"git {command[0]} failed: {done.stderr.strip()}")
    return done.stdout.strip()
