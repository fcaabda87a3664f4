from pathlib import Path

import pytest
from pydantic import SecretStr

from compose.errors import BadSettings
from compose.settings import Settings, load, sections, tables, variable
from compose.settings_page import page, undocumented

DOCS = Path(__file__).parents[2] / "docs" / "settings.md"


def written(folder: Path, text: str) -> Path:
    file = folder / "gateway.toml"
    file.write_text(text)
    return file


def problems(**sources: object) -> tuple[str, ...]:
    with pytest.raises(BadSettings) as caught:
        load(**{"environment": {}, **sources})  # type: ignore[arg-type]
    return caught.value.problems


def test_the_command_line_beats_the_environment_beats_the_file_beats_the_default(
    tmp_path: Path,
) -> None:
    file = written(tmp_path, "[xds]\nhttp_port = 1\nhttps_port = 1\nenvoy_admin_port = 1\n")
    settings = load(
        config=file,
        environment={"SIGNALBOX_HTTP_PORT": "2", "SIGNALBOX_HTTPS_PORT": "2"},
        command_line={"http_port": ("--set http_port", "3")},
    ).settings
    assert settings.xds.http_port == 3
    assert settings.xds.https_port == 2
    assert settings.xds.envoy_admin_port == 1
    assert settings.controller.management_port == 9090


def test_the_file_may_be_named_by_a_variable(tmp_path: Path) -> None:
    file = written(tmp_path, '[gateway]\ntier = "basic"\n')
    settings = load(environment={"SIGNALBOX_CONFIG": str(file)}).settings
    assert settings.gateway.tier == "basic"


def test_an_unknown_key_is_refused_and_the_nearest_is_suggested(tmp_path: Path) -> None:
    file = written(tmp_path, "[xds]\nhtpp_port = 1\n")
    assert problems(config=file) == (
        f"{file}: [xds] has no key 'htpp_port'; did you mean http_port?",
    )


def test_an_unknown_table_is_refused_and_the_nearest_is_suggested(tmp_path: Path) -> None:
    file = written(tmp_path, "[controler]\nadmin_port = 1\n")
    assert problems(config=file) == (
        f"{file}: there is no table [controler]; did you mean [controller]?",
    )


def test_a_key_in_the_wrong_table_is_told_its_home(tmp_path: Path) -> None:
    file = written(tmp_path, 'log_level = "debug"\n[controller]\nhttp_port = 1\n')
    assert problems(config=file) == (
        f"{file}: log_level stands outside of any table; it belongs into [gateway]",
        f"{file}: http_port in [controller] belongs into [xds]",
    )


def test_a_value_where_a_table_is_expected_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path, "xds = 1\n")
    assert problems(config=file) == (f"{file}: xds must be a table: [xds]",)


def test_a_file_that_cannot_be_read_or_parsed_is_told(tmp_path: Path) -> None:
    missing = tmp_path / "none.toml"
    assert problems(config=missing) == (
        f"the settings file {missing} cannot be read: No such file or directory",
    )
    broken = written(tmp_path, "[xds\n")
    assert "is not valid TOML" in problems(config=broken)[0]
    broken.write_bytes(b"\xff\xfe")
    assert "is not UTF-8" in problems(config=broken)[0]


def test_a_wrong_type_names_the_variable_and_the_value() -> None:
    (problem,) = problems(environment={"SIGNALBOX_HTTP_PORT": "eighty"})
    assert problem.startswith("SIGNALBOX_HTTP_PORT: must be a valid integer")
    assert problem.endswith("not 'eighty'")


def test_a_wrong_type_names_the_key_and_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, "[xds]\nhttp_port = 70000\n")
    (problem,) = problems(config=file)
    assert problem.startswith(f"http_port in [xds] of {file}: must be less than or equal to 65535")


def test_a_wrong_type_names_the_option() -> None:
    (problem,) = problems(command_line={"tier": ("--tier", "gold")})
    assert problem.startswith("--tier: must be 'basic' or 'standard'")


def test_an_unknown_option_is_refused_and_the_nearest_is_suggested() -> None:
    assert problems(command_line={"http_prot": ("--set http_prot", "1")}) == (
        "--set http_prot: there is no setting 'http_prot'; did you mean http_port?",
    )


def test_all_problems_are_told_at_once() -> None:
    assert (
        len(
            problems(
                environment={"SIGNALBOX_HTTP_PORT": "x", "SIGNALBOX_MANAGEMENT_PORT": "y"},
                command_line={"nonsense": ("--set nonsense", "1")},
            )
        )
        == 3
    )


def test_an_unknown_variable_is_warned_about() -> None:
    warnings = load(
        environment={"SIGNALBOX_HTTP_PROT": "1", "SIGNALBOX_URL": "http://x", "OTHER": "1"}
    ).warnings
    assert warnings == (
        "SIGNALBOX_HTTP_PROT is no setting and changes nothing; did you mean SIGNALBOX_HTTP_PORT?",
    )


def test_an_empty_variable_counts_as_unset() -> None:
    loaded = load(environment={"SIGNALBOX_HTTP_PORT": "", "SIGNALBOX_ADMIN_PASSWORD": ""})
    assert loaded.settings.xds.http_port == 8080
    assert loaded.settings.controller.admin_password is None


def test_lists_are_written_with_commas_or_as_json() -> None:
    commas = load(environment={"SIGNALBOX_GATEWAY_DOMAINS": "a.example, b.example"}).settings
    array = load(environment={"SIGNALBOX_GATEWAY_DOMAINS": '["a.example","b.example"]'}).settings
    assert commas.xds.gateway_domains == ("a.example", "b.example") == array.xds.gateway_domains


def test_users_are_written_as_json_in_a_variable_and_as_tables_in_a_file(tmp_path: Path) -> None:
    text = '[{"name": "dev", "password": "s3cret", "roles": ["developer"]}]'
    by_variable = load(environment={"SIGNALBOX_USERS": text}).settings.controller.users
    file = written(
        tmp_path,
        '[[controller.users]]\nname = "dev"\npassword = "s3cret"\nroles = ["developer"]\n',
    )
    assert by_variable == load(config=file, environment={}).settings.controller.users


def test_a_fault_inside_a_list_names_the_place_and_hides_the_secret() -> None:
    text = '[{"name": "dev", "password": "s3cret", "roles": ["king"]}]'
    (problem,) = problems(environment={"SIGNALBOX_USERS": text})
    assert problem.startswith("SIGNALBOX_USERS[0].roles[0]: must be")
    assert "s3cret" not in problem


def test_secrets_are_not_shown() -> None:
    settings = load(environment={"SIGNALBOX_ADMIN_PASSWORD": "swordfish"}).settings
    assert "swordfish" not in repr(settings)
    assert settings.controller.admin_password == SecretStr("swordfish")


def test_the_home_folder_may_be_written_as_a_tilde() -> None:
    settings = load(environment={"SIGNALBOX_DATA": "~/gateway"}).settings
    assert settings.gateway.data == Path.home() / "gateway"


def test_settings_survive_the_way_to_another_process() -> None:
    settings = load(
        environment={
            "SIGNALBOX_ADMIN_PASSWORD": "swordfish",
            "SIGNALBOX_USERS": '[{"name": "d", "password": "p", "roles": ["developer"]}]',
            "SIGNALBOX_GATEWAY_DOMAINS": "a.example,b.example",
            "SIGNALBOX_DATA": "/var/lib/signalbox",
        }
    ).settings
    assert Settings.restore(settings.dump()) == settings


def test_no_two_components_have_a_setting_of_the_same_name() -> None:
    assert len(tables()) == sum(len(model.model_fields) for model in sections().values())


def test_no_setting_hides_a_variable_with_another_meaning() -> None:
    assert not {variable(name) for name in tables()} & {"SIGNALBOX_CONFIG", "SIGNALBOX_URL"}


def test_every_setting_has_a_default_and_is_documented() -> None:
    for model in sections().values():
        model()
    assert undocumented() == []


def test_the_page_of_the_documentation_is_that_of_the_code() -> None:
    assert DOCS.read_text() == page(), (
        "docs/settings.md is stale: python -m compose.settings_page > docs/settings.md"
    )
