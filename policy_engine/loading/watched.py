"""A folder of policies that is watched: what is added, changed or removed works without a restart.

New code is tried in a process of its own (`policy_engine.loading.trial`) before it is imported
here, in a thread that nobody waits for longer than allowed. Code that was good is kept by its
digest: it goes on when the file breaks or is gone, over restarts too, and the engine's workers load
from there exactly what a router asks for.
"""

import asyncio
import json
import os
import threading
import traceback
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from policy_engine.catalogue import BrokenPolicy, Catalogue, one_line, policies_of
from policy_engine.errors import SourceUnusable, UnknownPolicy
from policy_engine.loading.sources import (
    Source,
    entries,
    fingerprint,
    forget,
    read,
    refuse_if_open_to_all,
)
from policy_engine.loading.trial import Failure, failures
from policy_engine.policy import Policy
from policy_engine.system import SystemParameters

log = structlog.get_logger()

_CURRENT = "current.json"
_KEPT_VERSIONS = 8  # of one entry, beside the current one
_GONE = "its file is gone from the folder; put it back, or change the APIs that use it"


class Kept:
    """Sources that were good once, by digest, and which of them each entry is at."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def current(self) -> dict[str, str]:
        """Entry -> digest of its last good source."""
        try:
            refuse_if_open_to_all(self.folder)
            found = json.loads((self.folder / _CURRENT).read_text(encoding="utf-8"))
            return {str(entry): str(digest) for entry, digest in found.items()}
        except FileNotFoundError:
            return {}
        except (SourceUnusable, OSError, ValueError, AttributeError) as error:
            log.warning("kept policies cannot be read", folder=str(self.folder), reason=str(error))
            return {}

    def __contains__(self, digest: str) -> bool:
        return self.source(digest) is not None

    def source(self, digest: str) -> Source | None:
        """The source of that digest, if it is kept and is what its name says."""
        try:
            refuse_if_open_to_all(self.folder)
            found = Source.of(json.loads(self._path(digest).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (SourceUnusable, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("a kept policy cannot be read", digest=digest, reason=str(error))
            return None
        return found if found.digest == digest else None

    def put(self, sources: Iterable[Source], current: dict[str, str]) -> None:
        """Keep `sources`; `current` are the good ones from now on."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for source in sources:
                self._write(f"{source.digest}.json", source.document())
            self._write(_CURRENT, current)
            self._prune(current)
        except OSError as error:
            log.warning("policies cannot be kept", folder=str(self.folder), reason=str(error))

    def _path(self, digest: str) -> Path:
        return self.folder / f"{digest}.json"

    def _write(self, name: str, document: object) -> None:
        new = self.folder / f".{name}.{os.getpid()}"
        new.write_text(json.dumps(document), encoding="utf-8")
        new.replace(self.folder / name)

    def _prune(self, current: dict[str, str]) -> None:
        """Only the newest versions that are not at work: a router may still ask for them."""
        old = sorted(
            (one for one in self.folder.glob("[0-9a-f]*.json")),
            key=lambda one: one.stat().st_mtime_ns,
            reverse=True,
        )
        spare = [one for one in old if one.stem not in current.values()]
        for one in spare[_KEPT_VERSIONS * max(1, len(current)) :]:
            one.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Contents:
    """What a folder means now."""

    policies: tuple[type[Policy], ...] = ()
    broken: tuple[BrokenPolicy, ...] = ()


@dataclass(slots=True)
class WatchedFolder:
    """Policies of one folder. Nothing that is in it raises."""

    folder: Path
    kept: Kept
    import_timeout_s: float = 10.0
    poll_s: float = 0.5
    _loaded: dict[str, tuple[type[Policy], ...]] = field(default_factory=dict)  # by digest
    _failed: dict[str, Failure] = field(default_factory=dict)  # by digest
    _sources: dict[str, Source] = field(default_factory=dict)  # of what is loaded
    _seen: object = None  # fingerprint at the last read

    def read(self) -> Contents:
        """Everything as it is now. Blocks while new code is tried."""
        self._seen = fingerprint(self.folder)
        self._failed.clear()  # what failed may have been the machine's doing
        before = self.kept.current()
        broken: dict[str, BrokenPolicy] = {}
        found: dict[str, Source] = {}
        for entry, path in self._entries(broken).items():
            try:
                found[entry] = read(entry, path)
            except SourceUnusable as error:
                broken[entry] = BrokenPolicy(policy_name(entry), str(path), str(error), str(error))
        self._try(found.values())
        good = {entry: one for entry, one in found.items() if self._import(one)}
        for entry, source in found.items():
            if entry not in good:
                failure = self._failed[source.digest]
                broken[entry] = BrokenPolicy(
                    policy_name(entry), str(source.origin), failure.reason, failure.traceback
                )
        current = {entry: before[entry] for entry in before if entry not in good}
        current |= {entry: one.digest for entry, one in good.items()}
        fresh = [one for one in good.values() if one.digest not in self.kept]
        if fresh or current != before:
            self.kept.put(fresh, current)
        self._forget_old(current)
        return self._contents(current, broken)

    def exactly(self, name: str, version: str, digest: str) -> type[Policy]:
        """The policy as it is in the source `digest`. Raises UnknownPolicy.

        Blocks, when it is not loaded yet, for `import_timeout_s` at most.
        """
        if digest not in self._loaded and digest not in self._failed:
            source = self.kept.source(digest)
            if source is not None:
                self._import(source)
        failure = self._failed.get(digest)
        for policy in self._loaded.get(digest, ()):
            if (policy.name, str(policy.version)) == (name, version):
                return policy
        reason = failure.reason if failure else f"its source {digest} is not here"
        raise UnknownPolicy(name, version, reason)

    async def changes(self) -> AsyncIterator[Contents]:
        """The contents whenever they have changed: read when the folder was quiet for a poll."""
        unsettled: object = None
        while True:
            await asyncio.sleep(self.poll_s)
            now = await asyncio.to_thread(fingerprint, self.folder)  # disks may be slow
            if now == self._seen:
                unsettled = None
            elif now == unsettled:
                unsettled = None
                yield await asyncio.to_thread(self.read)
            else:
                unsettled = now

    def _entries(self, broken: dict[str, BrokenPolicy]) -> dict[str, Path]:
        """What there is; a folder that cannot be used is broken as a whole."""
        try:
            refuse_if_open_to_all(self.folder)
            return entries(self.folder)
        except FileNotFoundError:
            return {}
        except (OSError, SourceUnusable) as error:
            text = str(error)
            log.warning("the folder of policies is not used", folder=str(self.folder), reason=text)
            broken[""] = BrokenPolicy("*", str(self.folder), text, text)
            return {}

    def _try(self, sources: Iterable[Source]) -> None:
        """Find out which of the unknown ones cannot be used."""
        unknown = [
            one
            for one in sources
            if one.digest not in self._loaded
            and one.digest not in self._failed
            and one.digest not in self.kept
        ]
        if not unknown:
            return
        try:
            self._failed |= failures(unknown, self.import_timeout_s)
        except OSError as error:  # no process can be started: nothing unknown is imported
            failure = Failure(f"it cannot be tried: {error}", str(error))
            self._failed |= {one.digest: failure for one in unknown}
        for one in unknown:
            failed = self._failed.get(one.digest)
            if failed is not None:
                log.error("policy not loaded", source=str(one.origin), reason=failed.reason)

    def _import(self, source: Source) -> bool:
        """Import `source` unless it is known to fail; whether it is loaded."""
        if source.digest in self._loaded:
            return True
        if source.digest in self._failed:
            return False
        result: list[tuple[type[Policy], ...] | Failure] = []

        def load() -> None:
            try:
                result.append(policies_of(source))
            except BaseException as error:  # noqa: BLE001 - others' code may raise anything
                result.append(Failure(one_line(error), traceback.format_exc()))

        thread = threading.Thread(target=load, name=f"import {source.entry}", daemon=True)
        thread.start()
        thread.join(self.import_timeout_s)
        match result:
            case [Failure() as failure]:
                self._failed[source.digest] = failure
            case [tuple() as policies]:
                self._loaded[source.digest] = policies
                self._sources[source.digest] = source
                log.info(
                    "policies loaded",
                    source=str(source.origin),
                    policies=[one.name for one in policies],
                    digest=source.digest[:8],
                )
                return True
            case _:
                reason = f"its import takes longer than {self.import_timeout_s:g} s"
                self._failed[source.digest] = Failure(reason, reason)
        log.error(
            "policy not loaded",
            source=str(source.origin),
            reason=self._failed[source.digest].reason,
        )
        return False

    def _contents(self, current: dict[str, str], broken: dict[str, BrokenPolicy]) -> Contents:
        """The last good of each entry; of two that say they are the same policy, the first."""
        policies: list[type[Policy]] = []
        owners: dict[tuple[str, str], str] = {}
        for entry, digest in sorted(current.items()):
            if digest not in self._loaded:
                source = self.kept.source(digest)
                if source is None or not self._import(source):
                    continue
            loaded = self._loaded[digest]
            origin = str(self._sources[digest].origin)
            names = tuple(dict.fromkeys(one.name for one in loaded))
            twice = [one for one in loaded if (one.name, str(one.version)) in owners]
            if twice:
                other = owners[twice[0].name, str(twice[0].version)]
                text = f"policy {twice[0].name} {twice[0].version} is already in {other}"
                broken[entry] = BrokenPolicy(policy_name(entry), origin, text, text)
                continue
            owners |= {(one.name, str(one.version)): origin for one in loaded}
            policies += loaded
            if entry in broken:
                known = broken[entry]
                broken[entry] = BrokenPolicy(
                    known.name, known.source, known.reason, known.traceback, names, serving=True
                )
            elif not any(
                os.path.lexists(self.folder / name)  # never raises
                for name in (f"{entry}.py", entry)
            ):
                broken[entry] = BrokenPolicy(
                    policy_name(entry), origin, _GONE, _GONE, names, serving=True, gone=True
                )
        return Contents(tuple(policies), tuple(broken[entry] for entry in sorted(broken)))

    def _forget_old(self, current: dict[str, str]) -> None:
        """Versions that are long replaced leave memory."""
        spare = [one for one in self._loaded if one not in current.values()]
        for digest in spare[:-_KEPT_VERSIONS]:
            del self._loaded[digest]
            forget(self._sources.pop(digest))


def policy_name(entry: str) -> str:
    """What a policy in `entry` is usually called: `word_filter` -> `word-filter`."""
    return entry.replace("_", "-")


def folder_of(system: SystemParameters, data: Path) -> WatchedFolder:
    """The folder that is configured, of the gateway whose data folder is `data`."""
    return WatchedFolder(
        system.policies_folder or data / "policies",
        Kept(data / "policies-kept"),
        import_timeout_s=system.policies_import_timeout_s,
        poll_s=system.policies_poll_s,
    )


def add(catalogue: Catalogue, folder: WatchedFolder) -> None:
    """Add what `folder` holds to `catalogue`. Blocks while new code is tried."""
    catalogue.sources = folder
    contents = folder.read()
    catalogue.take(contents.policies, contents.broken)


async def keep_current(catalogue: Catalogue, folder: WatchedFolder) -> None:
    """Let `catalogue` follow what `folder` holds, until cancelled."""
    async for contents in folder.changes():
        catalogue.take(contents.policies, contents.broken)
