"""The embedded tasks: snippets of text with human ratings, by Hutto & Gilbert (ICWSM 2014).

They travel in the source archive of a Python package, are fetched once with pip and kept in the
cache (`runs.assets`); nothing of that package is built or installed.
"""

import html
import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from w2s_lib.runs.assets import Asset, fetch
from w2s_lib.runs.errors import require

COLUMNS = ["id", "text", "label", "group", "rating", "split", "votes"]


@dataclass(frozen=True)
class EmbeddedTask:
    """One of the tasks that need no hub."""

    stem: str
    """Its set's name in the file names."""
    settings: Mapping[str, Any]
    """Fields of `Task` that fit it, where they differ from the class's own."""
    by_document: bool = False
    """Whether ids are `document_sentence`, the document being the group."""
    pairs: bool = False
    """Whether its rows are comparisons, made of the set's ratings (`preferences`)."""
    n_seen: int = 0
    """Test rows that the first edition and its pilots have looked at: none is a test row now."""


def _sizes(n_train: int, n_validation: int, n_test: int) -> dict[str, Any]:
    return {"n_train": n_train, "n_validation": n_validation, "n_test": n_test}


EMBEDDED = {
    "movie": EmbeddedTask("movieReviewSnippets", _sizes(2000, 500, 4000), n_seen=3000),
    "amazon": EmbeddedTask("amazonReviewSnippets", _sizes(500, 200, 1100), by_document=True),
    "nyt": EmbeddedTask("nytEditorialSnippets", _sizes(500, 200, 900), by_document=True),
    "tweets": EmbeddedTask("tweets", _sizes(400, 200, 800)),
    "movie-preference": EmbeddedTask(
        "movieReviewSnippets",
        _sizes(1000, 500, 2500) | {"min_rating": 1.0},
        pairs=True,
        n_seen=2000,
    ),
}
FILES = [
    f"{stem}_{kind}.txt"
    for stem in sorted({task.stem for task in EMBEDDED.values()})
    for kind in ("GroundTruth", "anonDataRatings")
]


def fetch_data() -> Path:
    """Folder of the snippets.

    Returns:
        A folder with eight tab-separated files: for each of the four sets `<set>_GroundTruth.txt`
        (id, mean rating from -4 to 4, text) and `<set>_anonDataRatings.txt` (id, mean, standard
        deviation, every rater's rating).

    Raises:
        AssetError: no package index and a cold cache; damaged files; unwritable cache.
    """
    return fetch(DATA)


def _extract(sdist: Path, folder: Path) -> None:
    """Reads the files by name out of the archive in the archive: nothing else is unpacked."""
    inner = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
    with tarfile.open(sdist) as outer:
        nested = io.BytesIO(_member(outer, inner))
    with tarfile.open(fileobj=nested) as archive:
        for name in FILES:
            (folder / name).write_bytes(_member(archive, f"hutto_ICWSM_2014/{name}"))


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file is not None  # the archive's hash says that it is a regular file
    return file.read()


DATA = Asset(
    name="hutto-2014",
    requirement="vaderSentiment==3.3.2",
    sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    kind="sdist",
    notice="the human-rated snippets of Hutto & Gilbert (ICWSM 2014), the embedded tasks' texts "
    "and ratings (vaderSentiment 3.3.2, 2.5 MB, MIT)",
    convert=_extract,
)


def read_embedded(
    task: EmbeddedTask, min_rating: float, max_rating: float = 4.0, panel: int = 0
) -> pd.DataFrame:
    """The rated snippets of a task: its table, with the ratings of each row.

    The label is the sign of the published mean, which is the mean of the published ratings in all
    rows but 199 of `tweets`: families of one tweet with its emphasis varied ("Anger is UGLY!!"),
    made for a figure of their paper, with other means. They are left out: nothing says which
    numbers are right, and copies of one text would cross splits.

    Args:
        task: whose set is read; of comparisons the single snippets.
        min_rating: rows whose mean is no further from 0 are left out.
        max_rating: so are rows whose mean is further from 0.
        panel: how many of a row's raters make label and mean; 0: all. They are drawn row by row in
            the order of the file.

    Returns:
        Columns `COLUMNS`; `votes` are a row's ratings, with a panel those of the other raters.

    Raises:
        SpecError: a panel as large as a row has raters.
    """
    rng = np.random.default_rng([panel])
    folder = fetch_data()
    rated = _tab_separated(folder / f"{task.stem}_anonDataRatings.txt", n_columns=4)
    raters = {key: votes for key, _, _, votes in rated}
    records = []
    for key, mean, text in _tab_separated(folder / f"{task.stem}_GroundTruth.txt", n_columns=3):
        rating, votes = float(mean), tuple(json.loads(raters[key]))
        as_published = abs(rating - sum(votes) / len(votes)) < 1e-4
        if panel:
            said = f"Task.panel is {panel}, and {key} of {task.stem} has {len(votes)} raters"
            require(panel < len(votes), f"{said}: at least one has to be left")
            drawn = rng.permutation(votes).tolist()
            rating, votes = sum(drawn[:panel]) / panel, tuple(drawn[panel:])
        if as_published and min_rating < abs(rating) <= max_rating:
            # Raters saw the characters that the entities stand for; editorials are escaped twice.
            shown = " ".join(html.unescape(html.unescape(text)).split())
            group = key.partition("_")[0] if task.by_document else key
            records.append((key, shown, int(rating > 0), group, rating, "", votes))
    return pd.DataFrame(records, columns=COLUMNS).astype({"label": "int8"})


def _tab_separated(path: Path, *, n_columns: int) -> Iterator[list[str]]:
    for line in path.read_text(encoding="utf-8-sig", errors="replace").splitlines():
        yield line.split("\t", n_columns - 1)


def preferences(snippets: pd.DataFrame, *, min_gap: float) -> pd.DataFrame:
    """Comparisons of rated snippets, an analogue of the data behind a reward model.

    The mean human ratings of a pair are at least `min_gap` apart, and each snippet is in one pair
    at most. In random order, each is paired with a waiting one that is far enough away; what is
    left is shuffled and tried again until a round finds no pair. The better one stands first in a
    random half of the pairs. The draws are the same for everybody.

    Args:
        snippets: columns `id`, `text`, `rating`; texts distinct.
        min_gap: smallest difference between two mean ratings; a tie is no comparison, even at 0.

    Returns:
        Columns `id`, `text`, `text_b`, `label` (1 where `text` is the better one), `group` (the row
        itself), `rating` (that of `text` minus that of `text_b`) and `split` ("").
    """
    rng = np.random.default_rng(0)
    rating, left = snippets["rating"].to_numpy(), list(range(len(snippets)))
    pairs: list[tuple[int, int]] = []
    n_before = -1
    while len(pairs) > n_before:
        n_before = len(pairs)
        waiting: list[int] = []
        for i in rng.permutation(left).tolist():
            far = (j for j in waiting[-8:] if abs(rating[i] - rating[j]) >= max(min_gap, 1e-6))
            j = next(far, None)
            if j is None:
                waiting.append(i)
            else:
                waiting.remove(j)
                pairs.append((j, i))
        left = waiting
    a, b = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    better_first = rng.random(len(a)) < 0.5
    in_place = better_first == (rating[a] > rating[b])
    first, second = np.where(in_place, a, b), np.where(in_place, b, a)
    key, text = snippets["id"].to_numpy(), snippets["text"].to_numpy()
    frame = pd.DataFrame({"text": text[first], "text_b": text[second]})
    frame["id"] = [f"{key[i]}-{key[j]}" for i, j in zip(first, second, strict=True)]
    frame["group"], frame["split"] = frame["id"], ""
    frame["label"] = better_first.astype("int8")
    frame["rating"] = rating[first] - rating[second]
    return frame
