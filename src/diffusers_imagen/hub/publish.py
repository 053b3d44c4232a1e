# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""The upload of a saved cascade: what is sent, which model card, and one commit, so that it arrives whole or not at all.

Called by the pipeline's `push_to_hub` and by `diffusers-imagen push`. The only file of the package that writes to the
Hub.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import EntryNotFoundError
from huggingface_hub.utils import validate_repo_id

from diffusers_imagen.hub.card import CARD, PICTURES, is_edited, model_card, with_repository
from diffusers_imagen.hub.facts import CardFacts
from diffusers_imagen.hub.saved_cascade import INDEX, SavedCascade, read_cascade, weights_kind


@dataclass(frozen=True, kw_only=True)
class PushOptions:
    """How a repository is written to: as Diffusers' `push_to_hub` takes it."""

    private: bool | None = None
    """Whether a new repository is private; `None` for what the account prefers."""
    token: str | bool | None = None
    """Of an account that may write; `None` for the one that is logged in."""
    commit_message: str | None = None
    """`None` for one that names the cascade."""
    create_pr: bool = False
    """Whether to open a pull request instead of committing to the main branch."""


@dataclass(frozen=True)
class Upload:
    """What a push would send: a folder that was checked, its files, and the model card that belongs to them."""

    cascade: SavedCascade
    files: dict[str, Path]
    card: str
    repo_id: str

    @property
    def num_bytes(self) -> int:
        """Size of the files."""
        return sum(path.stat().st_size for path in self.files.values())


def plan_upload(folder: Path, repo_id: str, facts: CardFacts | None = None) -> Upload:
    """Check a folder and decide what is sent, without asking the network.

    Args:
        folder: of a saved cascade. A model card in it is sent as it is; without one, it is written from `facts`.
        repo_id: "account/name", or the name alone.
        facts: for the card; given explicitly, they renew a card in the folder that nobody has edited.

    Raises:
        ValueError: a folder that nobody could load, or a name that is none.
    """
    try:
        validate_repo_id(repo_id)
    except ValueError as error:
        raise ValueError(f"`repo_id` is {repo_id!r}: {error}; give account/name.") from error
    cascade = read_cascade(folder)
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if _is_sent(path, folder)}
    present = files.pop(CARD, None)
    card = None if present is None else present.read_text(encoding="utf-8")
    if card is None or (facts is not None and not is_edited(card)):
        facts = facts or CardFacts()
        card = model_card(cascade, facts, repo_id)
        if facts.pictures is not None:
            files[PICTURES] = facts.pictures
    return Upload(cascade, files, card, repo_id)


def push(upload: Upload, options: PushOptions) -> str:
    """Send an upload in one commit and return Diffusers' kind of answer: a text, the commit's address, that knows more.

    A card on the Hub that somebody edited there stays, unless the upload's own was edited too. Weights of the same
    name and variant that are not sent anew, such as parts of an earlier save, are removed with the commit.

    Raises:
        OSError: from the Hub; the repository is then as before (or new and empty).
    """
    api = HfApi(token=options.token)
    repo = api.create_repo(upload.repo_id, private=options.private, exist_ok=True).repo_id
    card = with_repository(upload.card, repo)
    kept = not is_edited(card) and (there := _card_there(api, repo)) is not None and is_edited(there)
    adds = [CommitOperationAdd(path, _published(source)) for path, source in upload.files.items()]
    if not kept:
        adds.append(CommitOperationAdd(CARD, card.encode()))
    deletes = [CommitOperationDelete(path) for path in stale_weights(upload.files, api.list_repo_files(repo))]
    message = options.commit_message or f"Upload {upload.cascade.index['_class_name']}"
    commit: str = api.create_commit(repo, [*adds, *deletes], commit_message=message, create_pr=options.create_pr)
    return commit


def stale_weights(sent: Iterable[str], there: Iterable[str]) -> list[str]:
    """Return the files in a repository that would be read instead of, or beside, weights that are sent.

    Args:
        sent: paths in the repository.
        there: likewise, of what it holds.
    """
    new = set(sent)
    kinds = {_place(path) for path in new if weights_kind(Path(path).name)}
    return sorted(
        path for path in there if path not in new and weights_kind(Path(path).name) and _place(path) in kinds
    )


def _place(path: str) -> tuple[str, tuple[str, str] | None]:
    return str(Path(path).parent), weights_kind(Path(path).name)


def _is_sent(path: Path, folder: Path) -> bool:
    return path.is_file() and not any(part.startswith((".", "__")) for part in path.relative_to(folder).parts)


def _published(path: Path) -> Path | bytes:
    """Return a file as it is sent: a configuration without the place on this machine that it was loaded from."""
    if path.name != INDEX and not path.name.endswith("config.json"):
        return path
    config = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(config, dict) or config.pop("_name_or_path", None) is None:
        return path
    return (json.dumps(config, indent=2, sort_keys=True) + "\n").encode()


def _card_there(api: HfApi, repo: str) -> str | None:
    try:
        return Path(api.hf_hub_download(repo, CARD)).read_text(encoding="utf-8")
    except EntryNotFoundError:
        return None
