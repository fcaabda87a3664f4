"""`docs/settings.md`, written from the settings models: `python -m compose.settings_page > ...`."""

import inspect
import sys
from pathlib import Path
from typing import Literal, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from compose.settings import sections, variable

_HEAD = """\
# Settings

Every setting is a key of the TOML file (`signalbox up --config FILE`), an environment variable,
and an option (`--set KEY=VALUE`). The later one wins: default, file, environment, command line.
Unknown keys are refused; unknown `SIGNALBOX_` variables are warned about; an empty variable
counts as unset. Lists are written with commas (`a,b`) or as JSON in variables and options.
`SIGNALBOX_CONFIG` names the file when the command line does not.

```toml
[xds]
http_port = 8080

[gateway]
tier = "standard"
```

This page is generated from the code.
"""


def page() -> str:
    """The whole page, as Markdown."""
    parts = [_HEAD]
    for table, model in sections().items():
        parts.append(f"## [{table}]\n\n{inspect.cleandoc(model.__doc__ or '')}\n")
        parts += [_entry(name, field) for name, field in model.model_fields.items()]
    return "\n".join(parts)


def undocumented() -> list[str]:
    """Settings without a docstring, as `table.field`."""
    return [
        f"{table}.{name}"
        for table, model in sections().items()
        for name, field in model.model_fields.items()
        if not (field.description or "").strip()
    ]


def _entry(name: str, field: FieldInfo) -> str:
    return (
        f"### {name}\n\n"
        f"`{variable(name)}` · {_type_name(field.annotation)} · default {_default(field)}\n\n"
        f"{inspect.cleandoc(field.description or '')}\n"
    )


def _default(field: FieldInfo) -> str:  # noqa: PLR0911 - one line per kind of value
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is PydanticUndefined:
        return "none: it must be given"
    if isinstance(value, SecretStr):
        return "set, not shown" if value.get_secret_value() else "empty"
    if value is None:
        return "unset"
    if value == "":
        return "empty"
    if isinstance(value, BaseModel):
        return f"`{value.model_dump_json()}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, (tuple, list)):
        return f"`{','.join(str(part) for part in value)}`" if value else "empty"
    if isinstance(value, Path):
        return f"`{value.as_posix()}`"
    return f"`{value}`"


def _type_name(annotation: object) -> str:
    names: dict[object, str] = {
        str: "text",
        int: "whole number",
        float: "number",
        bool: "`true` or `false`",
        Path: "path",
        SecretStr: "secret",
        type(None): "",
    }
    if annotation in names:
        return names[annotation]
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{choice}`" for choice in get_args(annotation))
    if get_origin(annotation) in (tuple, list, set, frozenset):
        return "list"
    if get_origin(annotation) is dict:
        return "mapping (JSON)"
    parts = [_type_name(part) for part in get_args(annotation)]
    return " or ".join(dict.fromkeys(part for part in parts if part)) or "JSON"


if __name__ == "__main__":
    sys.stdout.write(page())
