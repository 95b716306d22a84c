"""A finished folder to a repository of the hub: the `push` command. Knows the hub's own client and what it raises;
ignorant of what is in a folder.
"""

from dataclasses import dataclass
from dataclasses import replace as changed
from glob import escape
from pathlib import Path
from typing import Any

from growkit.errors import RequestError, reason_of
from growkit.hub.pushable import Pushable, open_pushable
from growkit.version import __version__

MAIN = "main"
WEIGHTS = (".safetensors", ".index.json", ".bin")  # a loader that finds these may read them instead of what is pushed
LOGIN = "log in with hf auth login, or set HF_TOKEN to a token that may write"


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """What went where. url: of the commit; None of a dry run, which asks the hub nothing."""

    what: Pushable
    repo: str
    revision: str | None
    private: bool
    message: str
    url: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The push as plain data."""
        where = {"repo": self.repo, "revision": self.revision, "private": self.private, "message": self.message}
        return {**where, "url": self.url, "dry_run": self.url is None, **self.what.to_json()}


def push(
    folder: str | Path,
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    optimizer: bool = False,
    replace: bool = False,
    dry_run: bool = False,
) -> Pushed:
    """Put a finished folder into a repository of the hub, which is made where it is missing.

    private: the new repository; one that is there must be. revision: a branch that is there. optimizer: AdamW's state
    too. replace: delete what the repository holds beyond the folder's files. dry_run: look, and ask the hub nothing.
    Raises RequestError for what cannot be pushed, and for all that the hub refuses; CheckpointError for a damaged
    folder.
    """
    what = open_pushable(folder, optimizer)
    _check_name(repo, revision)
    planned = Pushed(
        what=what,
        repo=repo,
        revision=None if revision == MAIN else revision,
        private=private,
        message=message or f"{what.kind} pushed with growkit {__version__}",
    )
    if dry_run:
        return planned
    from huggingface_hub import HfApi  # comes with transformers; slow to import, so only here

    try:
        return _send(HfApi(library_name="growkit", library_version=__version__), planned, replace)
    except RequestError:
        raise
    except Exception as error:  # the hub's client raises many kinds
        raise RequestError(f"{str(folder)!r} was not pushed: {_why(error, repo, revision)}") from None


def _check_name(repo: str, revision: str | None) -> None:
    """Refuse a name that the hub's client does not take."""
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except ValueError as error:
        raise RequestError(f"{repo!r} is no name on the hub, such as OWNER/NAME: {reason_of(error)}") from None
    if revision not in (None, MAIN) and "/" not in repo:
        raise RequestError(f"--revision is of a repository that is there: say whose, as OWNER/{repo}")


def _send(api: Any, planned: Pushed, replace: bool) -> Pushed:
    """Make the repository where it is missing, look what it holds, send the files."""
    what, repo = planned.what, planned.repo
    if planned.revision is None:  # a repository that is made now has no other branch than main
        made = api.create_repo(repo, repo_type=what.repo_type, private=planned.private or None, exist_ok=True)
        repo = made.repo_id  # with its owner
    place = {"repo_id": repo, "repo_type": what.repo_type, "revision": planned.revision}
    if planned.private and not api.repo_info(**place).private:
        raise RequestError(
            f"{repo!r} is there and public, and --private is for a new one; make it private in its settings first"
        )
    own = {path for path, _ in what.files}
    held = [path for path in api.list_repo_files(**place) if path not in own]
    stale = next((path for path in held if "/" not in path and path.endswith(WEIGHTS)), None)
    if stale is not None and not replace:
        raise RequestError(
            f"{repo!r} holds {stale!r}, which {str(what.folder)!r} lacks and loaders may read instead; delete what is"
            " there with --replace, or push to another repository"
        )
    commit = api.upload_folder(
        folder_path=what.folder,
        commit_message=planned.message,
        allow_patterns=[escape(path) for path in sorted(own)],
        delete_patterns=["*"] if replace else None,
        **place,
    )
    return changed(planned, repo=repo, url=str(commit.commit_url))


def _why(error: Exception, repo: str, revision: str | None) -> str:
    """What happened between here and the hub, and what to do."""
    from huggingface_hub.errors import LocalTokenNotFoundError, OfflineModeIsEnabled, RevisionNotFoundError

    code = getattr(getattr(error, "response", None), "status_code", None)
    reason = getattr(error, "server_message", None) or reason_of(error)
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, so nothing is asked of the hub; unset it and try again"
    if isinstance(error, RevisionNotFoundError):
        return f"{repo!r} has no revision {revision!r}; make that branch there, or leave --revision out"
    if isinstance(error, LocalTokenNotFoundError) or code == 401:
        return f"the hub does not know who you are; {LOGIN}"
    if code == 403:
        return f"you may not write to {repo!r} ({reason}); name a repository of yours, or {LOGIN}"
    if code == 404:
        return f"the hub has no {repo!r} that you may see; check the name, or {LOGIN}"
    if code is not None and code < 500 and code != 429:
        return f"the hub refused it ({code}: {reason}); mend that and run the same line again"
    if code is not None:
        return f"the hub answered {code} ({reason}); wait a little and run the same line again"
    if isinstance(error, ConnectionError | TimeoutError) or type(error).__module__.startswith("httpx"):
        return f"the hub cannot be reached ({reason}); check your connection and run the same line again"
    return f"{type(error).__name__}: {reason}; mend that and run the same line again"
