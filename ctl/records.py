"""Records without a revision to wait for: plans, subscriptions, applications."""

import secrets
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ctl import kinds, output
from ctl.client import Client, part
from ctl.errors import Misused
from ctl.output import Format

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Records:
    """One kind of them."""

    collection: str  # in the API's paths
    list_key: str  # where a list answer keeps its items
    singular: str  # in messages: `plan/gold`
    columns: tuple[tuple[str, kinds.Column], ...]
    name_field: str = ""  # what a word on the command line may name instead of the id

    def label(self, record: Json) -> str:
        """How messages call a record."""
        name = str(record.get(self.name_field) or record["id"])
        return f"{self.singular}/{name}"

    async def find(self, client: Client, word: str) -> Json:
        """The record of that id, or else of that name. Raises NotFound."""
        if self.name_field:
            listed = await client.listed(self.collection, self.list_key)
            for record in listed:
                if word in (record["id"], record[self.name_field]):
                    return record
        return await client.get(self.collection, word)

    async def change(self, client: Client, word: str, fields: Json) -> Json:
        """The record with these fields changed. Raises Misused when there are none."""
        if not fields:
            raise Misused("nothing to change: give at least one option")
        found = await self.find(client, word)
        return await client.replace(self.collection, found["id"], fields)

    async def delete(self, client: Client, words: Sequence[str]) -> None:
        """Delete them one by one, and say so. Raises NotFound."""
        for word in words:
            found = await self.find(client, word)
            await client.request("DELETE", f"/{self.collection}/{part(found['id'])}")
            output.say(f"{self.label(found)} deleted")

    def show(self, found: Sequence[Json], form: Format, *, single: bool = False) -> None:
        """Print records."""

        def table() -> None:
            if not found:
                output.note(f"no {self.singular}s found")
                return
            output.table(
                [title for title, _ in self.columns],
                ([cell(record) for _, cell in self.columns] for record in found),
            )

        content = found[0] if single else list(found)
        output.result(content, form, names=(one["id"] for one in found), table=table)

    def told(self, record: Json, done: str, form: Format) -> None:
        """Print what a command made."""
        if form is Format.TABLE:
            output.say(f"{self.label(record)} {done}, id {record['id']}")
        else:
            self.show([record], form, single=True)


def given(**fields: object) -> Json:
    """The options that were given; the text `none` clears a field."""
    return {
        name: None if value == "none" else value
        for name, value in fields.items()
        if value is not None
    }


def secret_of(file: str | None) -> str | None:
    """What stands in a file or on standard input (`-`), if one is named. Raises Misused."""
    if file is None:
        return None
    try:
        if file == "-":
            return sys.stdin.read().strip()
        with open(file, encoding="utf-8") as lines:  # noqa: PTH123 - a name such as /dev/fd/3
            return lines.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Misused(f"{file} cannot be read: {error}") from error


def new_token() -> str:
    """A token that nobody guesses."""
    return f"sub_{secrets.token_hex(32)}"


def pairs(words: Sequence[str] | None) -> Mapping[str, str] | None:
    """`key=value` words as a mapping; None for none. Raises Misused."""
    if not words:
        return None
    found: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not key or not equals:
            raise Misused(f"{word!r}: write KEY=VALUE")
        found[key] = value
    return found
