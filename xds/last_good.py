"""What is served while a newer revision is refused, kept in a folder over restarts.

A file per API, and only while it is needed: normally the folder is empty.
"""

import os
from pathlib import Path

import structlog
from pydantic import BaseModel, ValidationError

from bus.resources.rest_api import RestApi
from bus.subjects import token
from xds.assembly import Source

log = structlog.get_logger()


class _Kept(BaseModel):
    revision: int
    api: RestApi


class LastGoodFolder:
    """See `xds.assembly.LastGood`. What cannot be read or written is told and left out."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept: dict[str, int] = {}  # API -> revision on file

    def load(self) -> dict[str, Source]:
        """All that is remembered, by API."""
        sources: dict[str, Source] = {}
        for file in sorted(self._folder.glob("*.json")):
            try:
                kept = _Kept.model_validate_json(file.read_text())
            except (OSError, ValidationError) as error:
                log.warning("last good revision is unreadable", file=file.name, reason=str(error))
                continue
            sources[kept.api.id] = Source(kept.revision, kept.api)
            self._kept[kept.api.id] = kept.revision
        return sources

    def save(self, api_id: str, source: Source) -> None:
        """`source` is served instead of what was refused."""
        if self._kept.get(api_id) == source.revision:
            return
        file = self._file(api_id)
        text = _Kept(revision=source.revision, api=source.api).model_dump_json(by_alias=True)
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            new = file.with_suffix(".new")
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
                out.write(text)
            new.replace(file)
        except OSError as error:
            log.warning("last good revision is not kept", api=api_id, reason=str(error))
            return
        self._kept[api_id] = source.revision

    def forget(self, api_id: str) -> None:
        """The wanted revision is served, or the API is gone."""
        if self._kept.pop(api_id, None) is None:
            return
        try:
            self._file(api_id).unlink(missing_ok=True)
        except OSError as error:
            log.warning("last good revision is not removed", api=api_id, reason=str(error))

    def _file(self, api_id: str) -> Path:
        return self._folder / f"{token(api_id)}.json"
