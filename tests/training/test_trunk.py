"""The inputs of the real model and their trunk: against the plain path, its files, and texts that are too long."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tests.training.test_train import EVERY
from w2s_lib.models import backbone as models
from w2s_lib.models import trunk
from w2s_lib.models.inputs import Inputs
from w2s_lib.models.trunk import Trunk
from w2s_lib.runs.errors import SpecError
from w2s_lib.runs.spec import Lora, RunSpec
from w2s_lib.tasks.table import TaskTable, default_task, load_table
from w2s_lib.training import finetune as train

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_trunk_is_the_plain_path_but_for_rounding(
    spec: RunSpec, table: TaskTable, own_cache: Path
) -> None:
    """Trained alike, with adapters that do something: in float32 the logits are one, in bf16 within its rounding."""
    for precision, tolerance in (("fp32", 2e-4), ("bf16", 0.15)):
        one = dataclasses.replace(spec, precision=precision)
        shared, plain = (train.build(one, table, trunk=use) for use in (True, False))
        assert (shared.boundary, plain.boundary) == (2, 0)
        assert isinstance(shared.inputs, Trunk) and type(plain.inputs) is Inputs
        mine, theirs = (dict(f.model.named_parameters()) for f in (shared, plain))
        torch.manual_seed(1)
        for name, parameter in mine.items():
            if parameter.requires_grad:
                other = theirs[name.replace("layers.0", "layers.2")]
                assert torch.equal(parameter, other)  # drawn alike by the seed
                if "lora_B" in name:
                    torch.nn.init.normal_(parameter, std=0.05)
                    other.data.copy_(parameter)
        a, b = (f.logits(EVERY[:100]) for f in (shared, plain))
        assert a.std() > 0.05
        torch.testing.assert_close(a, b, atol=tolerance, rtol=0)
        assert (a - b).abs().mean() < tolerance / 10


def test_a_trunk_that_would_be_too_large_is_not_kept(
    spec: RunSpec, table: TaskTable, own_cache: Path
) -> None:
    """Of the widest model whose states fit: one number more a token, or four bytes each, and all blocks are run; a probe keeps last tokens alone."""
    widest = trunk.MOST_BYTES // (2 * int(Inputs(spec, table).text_length.sum()))
    for width, precision, fits in (
        (widest, "bf16", True),
        (widest + 1, "bf16", False),
        (widest, "fp32", False),
    ):
        config = models.load_config(spec.name, spec.revision)
        config.hidden_size = width
        one = dataclasses.replace(spec, precision=precision)
        assert trunk.trunk_depth(one, table, config, n_top=1) == (2 if fits else 0)
        assert trunk.only_last(one, table, config) != fits


def test_a_probe_on_a_gpu_keeps_last_tokens_alone(spec: RunSpec, table: TaskTable) -> None:
    config = models.load_config(spec.name, spec.revision)
    on_gpu = dataclasses.replace(spec, device="cuda")
    assert not trunk.only_last(spec, table, config) and trunk.only_last(on_gpu, table, config)


def test_last_tokens_alone_are_those_of_the_whole_trunk(
    spec: RunSpec, table: TaskTable, own_cache: Path
) -> None:
    whole, last = (Trunk(spec, table, 2, last=alone) for alone in (False, True))
    assert np.array_equal(whole.last_states(EVERY), last.last_states(EVERY))
    assert sum(chunk.nbytes for chunk in last.chunks) == 300 * 576 * 2


def test_two_trunks_have_the_same_bits_however_they_came_about(
    spec: RunSpec,
    table: TaskTable,
    tmp_path: Path,
    make_cache: Callable[[Path], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From the tokens, again from the tokens, and from a lower trunk's states."""
    found = []
    for name in ("one", "again", "lower first"):
        monkeypatch.setenv("W2S_CACHE", str(make_cache(tmp_path / name)))
        if name == "lower first":
            assert Trunk(spec, table, 1).seconds > 0
        states = Trunk(spec, table, 2)
        assert states.seconds > 0 and len(states.files) == 1
        assert Trunk(spec, table, 2).seconds == 0  # kept
        found.append(torch.cat([states.part(row) for row in range(300)]))
        assert not list((tmp_path / name).rglob("*.tmp"))
    assert found[0].dtype == torch.bfloat16 and found[0].shape == (int(states.length.sum()), 576)
    assert all(torch.equal(found[0], other) for other in found[1:])


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> TaskTable:
    """1,200 short texts, three chunks of a trunk."""
    path = tmp_path_factory.mktemp("large") / "texts.csv"
    texts = [(f"number {i} is {'good' if i % 2 else 'bad'}", i % 2) for i in range(1200)]
    pd.DataFrame(texts, columns=["text", "label"]).to_csv(path, index=False)
    return load_table(default_task(str(path)))


def test_a_damaged_chunk_of_a_trunk_is_computed_again(
    spec: RunSpec,
    large: TaskTable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_cache: Callable[[Path], Path],
) -> None:
    """One bit of one chunk: it is said, and the states are those of before."""
    monkeypatch.setenv("W2S_CACHE", str(make_cache(tmp_path / "cache")))
    file = Trunk(spec, large, 1).files[1]
    before = {path: path.read_bytes() for path in file.parent.iterdir()}
    content = bytearray(before[file])
    content[5000] ^= 1
    file.write_bytes(content)
    with pytest.warns(UserWarning, match=file.name):
        assert Trunk(spec, large, 1).seconds > 0
    assert {path: path.read_bytes() for path in file.parent.iterdir()} == before


def test_a_trunk_goes_on_from_a_lower_one_that_somebody_has_begun(
    spec: RunSpec,
    large: TaskTable,
    own_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_cache: Callable[[Path], Path],
) -> None:
    """It finishes that one first, and the bits are those of a trunk made in one go."""
    monkeypatch.setenv("W2S_CACHE", str(make_cache(tmp_path / "whole")))
    whole = Trunk(spec, large, 2)
    monkeypatch.setenv("W2S_CACHE", str(make_cache(tmp_path / "begun")))
    lower = Trunk(spec, large, 1)
    assert len(lower.files) == 3
    lower.files[1].unlink()
    upper = Trunk(spec, large, 2)
    assert lower.files[1].is_file()
    for a, b in zip(whole.chunks, upper.chunks, strict=True):
        assert np.array_equal(a, b)


def test_trunks_are_kept_apart_by_all_that_changes_them(
    spec: RunSpec, table: TaskTable, own_cache: Path
) -> None:
    def folder(spec: RunSpec, boundary: int = 2, table: TaskTable = table) -> Path:
        return Trunk(spec, table, boundary).files[0].parent

    template = dataclasses.replace(
        spec, task=dataclasses.replace(spec.task, template="{text} So it was")
    )
    cuts = [dataclasses.replace(spec.task, max_tokens=20, cut=cut) for cut in ("end", "start")]
    folders = [
        folder(spec),
        folder(spec, 1),
        folder(template),
        *(folder(dataclasses.replace(spec, task=cut)) for cut in cuts),
        folder(dataclasses.replace(spec, precision="fp32")),
        folder(dataclasses.replace(spec, quantization="none")),
        folder(spec, table=dataclasses.replace(table, digest="ab" * 32)),
    ]
    assert len(set(folders)) == len(folders)
    for same in (
        dataclasses.replace(spec, model="smollm2-135m@9"),
        spec.with_seed(5),
        dataclasses.replace(spec, lora=Lora()),
    ):
        assert folder(same) == folders[0]


@pytest.mark.parametrize(("cut", "kept"), [("end", "startword and then"), ("start", "and endword")])
def test_long_texts_lose_one_end_and_the_template_stays_whole(
    spec: RunSpec, table: TaskTable, capfd: pytest.CaptureFixture[str], cut: str, kept: str
) -> None:
    frame = table.frame.copy()
    frame.loc[7, "text"] = "startword and then " + "word " * 50 + "and endword"
    long = dataclasses.replace(table, frame=frame)
    whole = Inputs(spec, long)
    budget = max(length for row, length in enumerate(whole.text_length) if row != 7)
    task = dataclasses.replace(spec.task, max_tokens=int(budget), cut=cut)
    short = Inputs(dataclasses.replace(spec, task=task), long)
    assert (
        f"1 of {len(frame):,} texts have more than max_tokens = {budget} for smollm2-135m: their {cut} is cut off"
        in capfd.readouterr().err
    )
    assert [row for row, ids in enumerate(short.ids) if ids != whole.ids[row]] == [7]
    text = models.load_tokenizer("smollm2-135m").decode(short.ids[7])
    assert budget - 1 <= len(short.ids[7]) <= budget and kept in text
    assert text.endswith(spec.task.template.removeprefix("{text}"))
    assert ("endword" in text) == (cut == "start") and ("startword" in text) == (cut == "end")


def test_a_budget_that_cannot_be_met_is_refused(spec: RunSpec, table: TaskTable) -> None:
    for budget, message in (
        (10_000, "max_tokens.*10000.*8192.*smollm2-135m"),
        (2, r"max_tokens.*\b2\b.*'\{text\} It was'"),
    ):
        task = dataclasses.replace(spec.task, max_tokens=budget)
        with pytest.raises(SpecError, match=message):
            Inputs(dataclasses.replace(spec, task=task), table)


def test_a_text_longer_than_the_model_reads_is_refused(spec: RunSpec, table: TaskTable) -> None:
    long = table.frame.copy()
    long.loc[7, "text"] = "so " * 9000
    with pytest.raises(SpecError, match="text 7.*8192.*smollm2-135m"):
        Inputs(spec, dataclasses.replace(table, frame=long))
