"""One run from spec to record: losses, finetuning, next-token reading, baselines."""
