"""Texts, labels and splits: the embedded snippets, a user's file, the hub."""
