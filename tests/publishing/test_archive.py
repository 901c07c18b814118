"""The archive of a site: the same bytes for the same commit, nothing of a dirty tree."""

import hashlib
import os
import subprocess
import tarfile

import pytest

from w2s_lib.publishing.archive import clean_commit, write_archive
from w2s_lib.publishing.chapters import BookError


@pytest.fixture
def repository(tmp_path):
    """A repository of one commit, made in 2001, with a built site outside of it."""
    root, site = tmp_path / "repository", tmp_path / "site"
    (site / "deep").mkdir(parents=True)
    root.mkdir()
    (root / "pyproject.toml").write_text('[project]\nname = "some"\nversion = "3.1"\n')
    for name in ("b.html", "a.html", "deep/data.csv"):
        (site / name).write_text(f"this is {name}\n")
    (site / "a.html").chmod(0o600)
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "one")
    return root, site


def git(root, *command):
    who = {
        f"GIT_{role}_{what}": "some@one"
        for role in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    }
    date = {"GIT_AUTHOR_DATE": "1000000000 +0000", "GIT_COMMITTER_DATE": "1000000000 +0000"}
    subprocess.run(["git", *command], cwd=root, check=True, env=os.environ | who | date)


def test_the_same_commit_gives_the_same_bytes(repository, tmp_path):
    root, site = repository
    commit = clean_commit(root)
    one = write_archive(site, tmp_path / "one", root=root, commit=commit)
    for path in site.rglob("*"):
        os.utime(path, (5, 5))
    two = write_archive(site, tmp_path / "two", root=root, commit=commit)
    assert one.name == f"weak-to-strong-book-3.1-{commit[:12]}.tar.gz"
    assert one.read_bytes() == two.read_bytes()
    with tarfile.open(one) as archive:
        entries = archive.getmembers()
        folder = one.name.removesuffix(".tar.gz")
        assert [e.name for e in entries] == [
            f"{folder}/{n}" for n in ("a.html", "b.html", "deep/data.csv")
        ]
        assert {(e.mtime, e.mode, e.uid, e.gid, e.uname) for e in entries} == {
            (10**9, 0o644, 0, 0, "")
        }
        assert archive.extractfile(entries[2]).read() == b"this is deep/data.csv\n"


def test_the_checksum_is_that_of_the_archive(repository, tmp_path):
    root, site = repository
    file = write_archive(site, tmp_path, root=root, commit=clean_commit(root))
    digest, name = file.with_name(f"{file.name}.sha256").read_text().split()
    assert name == file.name and digest == hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize("change", ["pyproject.toml", "new.md"])
def test_a_dirty_tree_is_refused_and_named(repository, change):
    root, _ = repository
    (root / change).write_text("other")
    with pytest.raises(BookError, match=change):
        clean_commit(root)


def test_outside_of_a_repository_git_says_so(tmp_path):
    with pytest.raises(BookError, match="not a git repository"):
        clean_commit(tmp_path)
