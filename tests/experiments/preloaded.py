"""What the processes of `test_torture.py` are forked with: all that training imports."""

import peft  # noqa: F401
import s3fs  # noqa: F401
import sklearn.feature_extraction.text
import sklearn.linear_model  # noqa: F401
import transformers.models.llama.modeling_llama  # noqa: F401

import w2s_lib.training.execute  # noqa: F401
