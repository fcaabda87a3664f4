"""All settings of a gateway, merged: defaults < TOML file < environment < command line.

Each component has one model; a field of it is the key of the component's TOML table and the
environment variable `SIGNALBOX_<FIELD>`. Field names are unique over all components.
"""

import difflib
import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Self, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_core import ErrorDetails, to_jsonable_python

from analytics.settings import AnalyticsSettings
from bus.settings import BusSettings
from compose.errors import BadSettings
from compose.gateway_settings import GatewaySettings
from controller.settings import ControllerSettings
from policy_engine.engine.settings import EngineSettings
from policy_engine.system import SystemParameters
from ratelimiter.settings import RatelimiterSettings
from xds.settings import XdsSettings

PREFIX = "SIGNALBOX_"
CONFIG_VARIABLE = "SIGNALBOX_CONFIG"
"""Where the TOML file is, when the command line does not say."""

CLIENT_VARIABLES = frozenset({"SIGNALBOX_URL"})
"""Read by the client commands (`apply`, `get`, ...), not by the gateway."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One model per component; the attribute is the name of the TOML table."""

    gateway: GatewaySettings = field(default_factory=GatewaySettings)
    bus: BusSettings = field(default_factory=BusSettings)
    controller: ControllerSettings = field(default_factory=ControllerSettings)
    xds: XdsSettings = field(default_factory=XdsSettings)
    policy_engine: EngineSettings = field(default_factory=EngineSettings)
    policies: SystemParameters = field(default_factory=SystemParameters)
    analytics: AnalyticsSettings = field(default_factory=AnalyticsSettings)
    ratelimiter: RatelimiterSettings = field(default_factory=RatelimiterSettings)

    def with_values(self, **values: object) -> Self:
        """These settings with some fields replaced; validated again. Raises BadSettings."""
        changed = {}
        for table, model in sections().items():
            mine = {name: values[name] for name in model.model_fields if name in values}
            current: BaseModel = getattr(self, table)
            given = {name: getattr(current, name) for name in current.model_fields_set}
            changed[table] = _validated(
                model, given | mine, dict.fromkeys(mine, "the composition"), table
            )
        return type(self)(**changed)  # type: ignore[arg-type]  # one model per table

    def dump(self) -> dict[str, dict[str, Any]]:
        """All that is not left at its default, as JSON; secrets in clear, for our own processes."""
        return {
            table: {
                name: _plain(getattr(getattr(self, table), name))
                for name in getattr(self, table).model_fields_set
            }
            for table in sections()
        }

    @classmethod
    def restore(cls, dumped: Mapping[str, Mapping[str, Any]]) -> Self:
        """The settings that `dump` wrote. Raises BadSettings."""
        return cls(
            **{  # type: ignore[arg-type]  # one model per table
                table: _validated(model, dict(dumped.get(table, {})), {}, table)
                for table, model in sections().items()
            }
        )


@dataclass(frozen=True, slots=True)
class Loaded:
    """The merged settings, and what the person who wrote them should know."""

    settings: Settings
    warnings: tuple[str, ...] = ()  # one sentence each


def sections() -> dict[str, type[BaseModel]]:
    """The model behind each TOML table, in the order of the documentation."""
    return {
        "gateway": GatewaySettings,
        "controller": ControllerSettings,
        "xds": XdsSettings,
        "policy_engine": EngineSettings,
        "policies": SystemParameters,
        "analytics": AnalyticsSettings,
        "ratelimiter": RatelimiterSettings,
        "bus": BusSettings,
    }


def tables() -> dict[str, str]:
    """The table of every field. Raises ValueError when two components share a name."""
    found: dict[str, str] = {}
    for table, model in sections().items():
        for name in model.model_fields:
            if name in found:
                raise ValueError(f"{name} is a setting of both {found[name]} and {table}")
            found[name] = table
    return found


def variable(name: str) -> str:
    """The environment variable of the field `name`."""
    return PREFIX + name.upper()


def load(
    *,
    config: Path | None = None,
    environment: Mapping[str, str],
    command_line: Mapping[str, tuple[str, object]] | None = None,
) -> Loaded:
    """Merge all sources. Raises BadSettings with every problem found.

    `command_line` holds for each field the option it came from and its value.
    """
    homes = tables()
    values: dict[str, object] = {}
    origins: dict[str, str] = {}  # field -> where its value was written, for messages
    problems: list[str] = []

    if config is None and environment.get(CONFIG_VARIABLE):
        config = Path(environment[CONFIG_VARIABLE])
    if config is not None:
        for name, value in _from_toml(config, homes, problems):
            values[name] = value
            origins[name] = f"{name} in [{homes[name]}] of {config}"

    warnings: list[str] = []
    for name, value in _from_environment(environment, homes, warnings):
        values[name] = value
        origins[name] = variable(name)

    for name, (option, value) in (command_line or {}).items():
        if name not in homes:
            problems.append(f"{option}: there is no setting {name!r}{_nearest(name, homes)}")
            continue
        values[name] = _spelled(name, value) if isinstance(value, str) else value
        origins[name] = option

    models = {}
    for table, model in sections().items():
        mine = {name: values[name] for name in model.model_fields if name in values}
        try:
            models[table] = _validated(model, mine, origins, table)
        except BadSettings as error:
            problems += error.problems
    if problems:
        raise BadSettings(problems)
    return Loaded(
        Settings(**models),  # type: ignore[arg-type]  # one model per table
        tuple(warnings),
    )


def _from_toml(
    file: Path, homes: Mapping[str, str], problems: list[str]
) -> Iterator[tuple[str, object]]:
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadSettings([f"the settings file {file} cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise BadSettings([f"the settings file {file} is not UTF-8 text: {error}"]) from error
    except tomllib.TOMLDecodeError as error:
        raise BadSettings([f"the settings file {file} is not valid TOML: {error}"]) from error

    names = {table: model.model_fields for table, model in sections().items()}
    for table, content in document.items():
        if table not in names:
            problems.append(f"{file}: {_misplaced(table, content, homes)}")
            continue
        if not isinstance(content, dict):
            problems.append(f"{file}: {table} must be a table: [{table}]")
            continue
        for key, value in content.items():
            if key in names[table]:
                yield key, _home_expanded(key, value)
            elif key in homes:
                problems.append(f"{file}: {key} in [{table}] belongs into [{homes[key]}]")
            else:
                hint = _nearest(key, names[table])
                problems.append(f"{file}: [{table}] has no key {key!r}{hint}")


def _misplaced(table: str, content: object, homes: Mapping[str, str]) -> str:
    if isinstance(content, dict):
        return f"there is no table [{table}]{_nearest(table, sections(), '[{}]')}"
    if table in homes:
        return f"{table} stands outside of any table; it belongs into [{homes[table]}]"
    return f"{table!r} stands outside of any table, and is no setting{_nearest(table, homes)}"


def _from_environment(
    environment: Mapping[str, str], homes: Mapping[str, str], warnings: list[str]
) -> Iterator[tuple[str, object]]:
    known = {variable(name): name for name in homes}
    for key in sorted(environment):
        if not key.startswith(PREFIX) or key == CONFIG_VARIABLE or key in CLIENT_VARIABLES:
            continue
        if key not in known:
            warnings.append(f"{key} is no setting and changes nothing{_nearest(key, known)}")
        elif environment[key] != "":  # containers pass unset variables as empty ones
            yield known[key], _spelled(known[key], environment[key])


def _nearest(wrong: str, names: Mapping[str, object], shape: str = "{}") -> str:
    close = difflib.get_close_matches(wrong, list(names), n=1, cutoff=0.6)
    return f"; did you mean {shape.format(close[0])}?" if close else ""


def _annotation(name: str) -> object:
    return sections()[tables()[name]].model_fields[name].annotation


def _origins(annotation: object) -> set[object]:
    """The plain types an annotation is made of: `tuple[str, ...] | None` -> {tuple, NoneType}."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _origins(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return set().union(*(_origins(part) for part in get_args(annotation)))
    return {origin or annotation}


def _spelled(name: str, text: str) -> object:
    """`text` as the value of field `name`: lists by commas or as JSON, mappings as JSON."""
    kinds = _origins(_annotation(name))
    if kinds & {tuple, list, set, frozenset, dict} and text.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return text
    if kinds & {tuple, list, set, frozenset}:
        return [part.strip() for part in text.split(",") if part.strip()]
    return _home_expanded(name, text)


def _home_expanded(name: str, value: object) -> object:
    """`~` is the user's home where a path is asked for."""
    if isinstance(value, str) and Path in _origins(_annotation(name)):
        try:
            return Path(value).expanduser()
        except RuntimeError:  # no home folder: keep what was written
            return value
    return value


def _validated(
    model: type[BaseModel], values: dict[str, Any], origins: Mapping[str, str], table: str
) -> BaseModel:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise BadSettings(
            [_sentence(model, one, origins, table) for one in error.errors(include_url=False)]
        ) from error


def _sentence(
    model: type[BaseModel], error: ErrorDetails, origins: Mapping[str, str], table: str
) -> str:
    message = error["msg"].removeprefix("Value error, ").replace("Input should", "must", 1)
    if not error["loc"]:
        return f"the settings of [{table}]: {message}"
    name = str(error["loc"][0])
    where = origins.get(name, f"{name} in [{table}]")
    inner = "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"][1:]
    )
    secret = name in model.model_fields and SecretStr in _origins(
        model.model_fields[name].annotation
    )
    shown = not secret and not inner and isinstance(error["input"], (str, int, float))
    given = f", not {error['input']!r}" if shown else ""
    return f"{where}{inner}: {message}{given}"


def _plain(value: object) -> object:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, BaseModel):
        return {name: _plain(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (tuple, list, set, frozenset)):
        return [_plain(part) for part in value]
    return to_jsonable_python(value)
