"""What the hub's clients raise, in one sentence: their messages are paragraphs, or say nothing."""

from __future__ import annotations

from collections.abc import Iterator

LOG_IN = "log in with `hf auth login`"


def reason(error: BaseException) -> str:
    """Why something cannot be had, and what to do, in one line.

    Libraries wrap the errors of `huggingface_hub`; the one that says most is looked for in the
    whole chain. Of an error that is not the hub's the first line is given, with its type.
    """
    from huggingface_hub import errors

    found = list(_chain(error))
    if any(isinstance(each, errors.GatedRepoError) for each in found):
        return f"it is gated: ask for access on its page at the hub, then {LOG_IN}"
    if any(isinstance(each, errors.RepositoryNotFoundError) for each in found):
        return f"the hub has none of this name, or it is private: check the name, or {LOG_IN}"
    for each in found:
        if isinstance(each, errors.HfHubHTTPError):
            status = each.response.status_code
            url = str(each.response.url).partition("?")[0]  # what follows may be a signature
            if isinstance(each, errors.RevisionNotFoundError):
                return f"the hub does not have this revision, or has it no longer: {url}"
            if status == 429 or status >= 500:
                return f"the hub answers {status}, it is busy ({url}): try later"
            return f"the hub answers {status}: {url}"
    for each in found:
        if type(each).__module__.startswith("httpx"):
            said = f"{type(each).__name__}: {each}"
            return f"the connection broke ({said}): check the network and try again"
    if any(isinstance(e, errors.LocalEntryNotFoundError | ConnectionError) for e in found):
        return (
            "it is not in the hub's cache on this machine, and the hub cannot be asked: check the "
            "network and HF_HUB_OFFLINE"
        )
    first = (str(error).strip().splitlines() or [""])[0]
    if "Consistency check failed" in first:
        return f"what was sent is not whole ({first}): try again"
    if type(error).__name__ == "DatasetNotFoundError":  # which hides what it came from
        return f"{first} Check the name, or {LOG_IN}"
    return f"{type(error).__name__}: {first}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what it was raised from, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
