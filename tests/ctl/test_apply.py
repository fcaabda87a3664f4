"""`signalbox apply` against the real controller."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from bus.events import ApiPublished
from ctl.client import connect
from ctl.context import connection
from ctl.documents import load
from ctl.errors import ExitCode
from ctl.plan import steps
from ctl.rollout import carry_out, exit_code
from tests.ctl import cli
from tests.ctl.resources import rest_api
from tests.ctl.running import DEVELOPER, PASSWORD, Router, Running, running

REFUSED = "'(?=x)' is not a valid regex: invalid perl operator"


def picky(event: ApiPublished) -> str | None:
    """What Envoy says to APIs that are labelled bad."""
    return REFUSED if "bad" in event.api.metadata.labels else None


def labelled(name: str, **labels: str) -> dict[str, Any]:
    document = rest_api(name)
    document["metadata"]["labels"] = labels
    return document


@pytest_asyncio.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path / "data", router=Router("router-1", picky)) as one:
        yield one


async def names(gateway: Running) -> list[str]:
    result = await gateway.cli("get", "apis", "-o", "name")
    assert result.code == 0
    return result.out.split()


async def test_apply_ends_when_it_is_live_and_again_changes_nothing(gateway: Running) -> None:
    file = gateway.write("a.yaml", rest_api("a", context="/a/$version"))
    first = await gateway.cli("apply", "-f", file)
    assert (first.code, first.err) == (0, "")
    assert first.out.startswith("api/a created, live on 1 of 1 routers, revision 1, ")
    assert first.out.endswith(" ms\n")
    again = await gateway.cli("apply", "-f", file)
    assert again.code == 0
    assert again.out.startswith("api/a unchanged, live on 1 of 1 routers, revision 1")


async def test_a_change_has_the_next_revision(gateway: Running) -> None:
    await gateway.cli("apply", "-f", gateway.write("a.yaml", rest_api("a")))
    changed = gateway.write("a.yaml", rest_api("a", context="/b"))
    result = await gateway.cli("apply", "-f", changed)
    assert result.out.startswith("api/a updated, live on 1 of 1 routers, revision 2, ")


async def test_what_only_spells_out_defaults_is_unchanged(gateway: Running) -> None:
    await gateway.cli("apply", "-f", gateway.write("a.yaml", rest_api("a")))
    spelled = rest_api("a", deploymentState="deployed", policies=[], vhosts=None)
    spelled["apiVersion"] = "gateway.api-platform.wso2.com/v1alpha1"
    spelled["spec"]["upstream"]["main"]["hostRewrite"] = "auto"
    result = await gateway.cli("apply", "-f", gateway.write("a.yaml", spelled))
    assert "unchanged" in result.out


async def test_standard_input_is_applied(gateway: Running) -> None:
    text = yaml.safe_dump_all([rest_api("a"), rest_api("b")])
    result = await gateway.cli("apply", "-f", "-", stdin=text)
    assert result.code == 0, result.err
    assert "2 created" in result.out
    assert await names(gateway) == ["api/a", "api/b"]


async def test_a_router_that_refuses_is_quoted_and_the_code_is_5(gateway: Running) -> None:
    await gateway.cli("apply", "-f", gateway.write("a.yaml", labelled("a")))
    result = await gateway.cli("apply", "-f", gateway.write("a.yaml", labelled("a", bad="yes")))
    assert result.code == 5
    assert "api/a updated, revision 2 was refused, it is live nowhere" in result.err
    assert REFUSED in result.err
    again = await gateway.cli("apply", "-f", gateway.write("a.yaml", labelled("a", bad="yes")))
    assert again.code == 5
    assert "api/a unchanged, revision 2 was refused" in again.err
    listed = await gateway.cli("get", "apis")
    assert REFUSED in listed.out


async def test_a_router_that_keeps_silent_is_not_waited_for_for_ever(gateway: Running) -> None:
    gateway.router.silent = True
    file = gateway.write("a.yaml", rest_api("a"))
    result = await gateway.cli("apply", "-f", file, "--timeout", "0.2")
    assert result.code == 5
    assert "revision 1 is live on 0 of 1 routers after 0.2 s" in result.err
    no_wait = await gateway.cli("apply", "-f", file, "--no-wait")
    assert (no_wait.code, no_wait.out) == (0, "api/a unchanged, revision 1\n")


async def test_without_a_router_the_reason_is_named(tmp_path: Path) -> None:
    async with running(tmp_path, connected=False) as gateway:
        file = gateway.write("a.yaml", rest_api("a"))
        result = await gateway.cli("apply", "-f", file, "--timeout", "0.1")
        assert result.code == 5
        assert "no router is connected" in result.err


async def test_one_wrong_document_keeps_all_from_being_sent(gateway: Running) -> None:
    gateway.write("apis/a.yaml", rest_api("a"))
    gateway.write("apis/b.yaml", {**rest_api("b"), "kind": "Nothing"})
    result = await gateway.cli("apply", "-f", str(gateway.folder / "apis"))
    assert result.code == 1
    assert "nothing was sent: 1 problem found" in result.err
    assert "b.yaml:1: document 1 has unknown kind 'Nothing'; kinds are: RestApi" in result.err
    assert await names(gateway) == []


async def test_what_the_gateway_refuses_has_its_line_and_the_others_go_on(
    gateway: Running,
) -> None:
    policies = [{"name": "no-such-policy", "version": "v1"}]
    wrong = yaml.safe_dump(rest_api("b", policies=policies), sort_keys=False)
    file = gateway.folder / "all.yaml"
    file.write_text(f"{yaml.safe_dump(rest_api('a'))}---\n{wrong}---\n{json.dumps(rest_api('c'))}")
    result = await gateway.cli("apply", "-f", str(file))
    assert result.code == 1
    line = 1 + file.read_text().splitlines().index("    version: v1")
    assert "api/b failed: Configuration validation failed" in result.err
    assert f"all.yaml:{line}: spec.policies[0].version:" in result.err
    assert "no-such-policy" in result.err
    assert result.out.endswith("2 created, 1 refused\n")
    assert await names(gateway) == ["api/a", "api/c"]


async def test_a_dry_run_sends_nothing_and_shows_a_diff(gateway: Running) -> None:
    await gateway.cli("apply", "-f", gateway.write("a.yaml", rest_api("a")))
    gateway.write("apis/a.yaml", rest_api("a", context="/changed"))
    gateway.write("apis/b.yaml", rest_api("b"))
    result = await gateway.cli("apply", "-f", str(gateway.folder / "apis"), "--dry-run")
    assert result.code == 6
    assert "--- gateway: api/a revision 1" in result.out
    assert f"+++ {gateway.folder}/apis/a.yaml:1" in result.out
    assert "-  context: /a\n+  context: /changed\n" in result.out
    assert "--- gateway: nothing" in result.out
    assert "1 to create, 1 to update, 0 to delete, 0 unchanged; nothing was sent" in result.err
    assert await names(gateway) == ["api/a"]
    same = await gateway.cli("apply", "-f", str(gateway.folder / "a.yaml"), "--dry-run")
    assert (same.code, same.out) == (0, "")


async def test_pruning_removes_only_what_the_set_once_applied(gateway: Running) -> None:
    await gateway.cli("apply", "-f", gateway.write("hand.yaml", rest_api("hand")))
    gateway.write("apis/a.yaml", rest_api("a"))
    b = gateway.write("apis/b.yaml", rest_api("b"))
    folder = str(gateway.folder / "apis")
    first = await gateway.cli("apply", "-f", folder, "--applied-set", "shop", "--prune")
    assert first.code == 0, first.err
    Path(b).unlink()
    dry = await gateway.cli("apply", "-f", folder, "--applied-set", "shop", "--prune", "--dry-run")
    assert dry.code == 6
    assert "+++ deleted" in dry.out
    assert "1 to delete" in dry.err
    other = await gateway.cli(
        "apply", "-f", folder, "--applied-set", "other", "--prune", "--dry-run"
    )
    assert "0 to delete" in other.err
    refused = await gateway.cli("apply", "-f", folder, "--applied-set", "shop", "--prune")
    assert refused.code == 2
    assert "to be deleted: api/b" in refused.err
    assert "say --yes; nothing was sent" in refused.err
    pruned = await gateway.cli("apply", "-f", folder, "--applied-set", "shop", "--prune", "--yes")
    assert pruned.code == 0, pruned.err
    assert "api/b deleted, gone from 1 of 1 routers, revision 2" in pruned.out
    assert await names(gateway) == ["api/a", "api/hand"]


async def test_pruning_by_labels_deletes_no_others(gateway: Running) -> None:
    documents = (labelled("a", team="x"), labelled("b", team="x"), labelled("c", team="y"))
    await gateway.cli("apply", "-f", gateway.write("all.yaml", *documents))
    file = gateway.write("a.yaml", labelled("a", team="x"))
    result = await gateway.cli("apply", "-f", file, "--prune", "-l", "team=x", "-y")
    assert result.code == 0, result.err
    assert await names(gateway) == ["api/a", "api/c"]


async def test_pruning_without_a_bound_is_a_mistake(gateway: Running) -> None:
    file = gateway.write("a.yaml", rest_api("a"))
    result = await gateway.cli("apply", "-f", file, "--prune")
    assert result.code == 2
    assert "--prune needs --applied-set NAME or --selector LABELS" in result.err


async def test_a_renamed_resource_takes_the_place_of_the_pruned_one(gateway: Running) -> None:
    old = gateway.write("apis/a.yaml", rest_api("old", displayName="shop"))
    folder = str(gateway.folder / "apis")
    await gateway.cli("apply", "-f", folder, "--applied-set", "shop")
    Path(old).unlink()
    gateway.write("apis/b.yaml", rest_api("new", displayName="shop"))
    result = await gateway.cli("apply", "-f", folder, "--applied-set", "shop", "--prune", "--yes")
    assert (result.code, result.err) == (0, "")
    assert await names(gateway) == ["api/new"]


async def test_many_documents_are_applied(gateway: Running) -> None:
    file = gateway.write("many.yaml", *(rest_api(f"api-{number:03}") for number in range(60)))
    result = await gateway.cli("apply", "-f", file)
    assert result.code == 0, result.err
    assert result.out.splitlines()[-1] == "60 created"
    assert len(await names(gateway)) == 60


@pytest.mark.parametrize("form", ["json", "yaml"])
async def test_results_for_programs(gateway: Running, form: str) -> None:
    file = gateway.write("a.yaml", rest_api("a"), labelled("b", bad="yes"))
    result = await gateway.cli("apply", "-f", file, "-o", form)
    assert result.code == 5
    good, bad = yaml.safe_load(result.out)
    assert good["name"] == "a"
    assert good["result"] == "created"
    assert (good["live"], good["total"], good["revision"]) == (1, 1, 1)
    assert bad["details"] == [REFUSED]
    only = await gateway.cli("apply", "-f", file, "-o", "name")
    assert only.out == "api/a\napi/b\n"


async def test_a_change_by_somebody_else_is_not_overwritten_unseen(gateway: Running) -> None:
    await gateway.cli("apply", "-f", gateway.write("a.yaml", rest_api("a")))
    mine = load([gateway.write("a.yaml", rest_api("a", context="/mine"))])
    async with connect(connection(data=str(gateway.folder))) as client:
        planned = await steps(client, mine, lambda: None)
        async with gateway.http() as other:
            theirs = await other.put("/rest-apis/a", json=rest_api("a", context="/theirs"))
            assert theirs.status_code == 200
        [outcome] = await carry_out(client, planned, 5, lambda _: None)
        assert exit_code([outcome]) is ExitCode.REFUSED
        assert "Revision 1 is superseded by revision 2" in outcome.text
        assert (await client.get("rest-apis", "a"))["spec"]["context"] == "/theirs"


async def test_wrong_passwords_and_roles_are_told_apart(gateway: Running) -> None:
    file = gateway.write("a.yaml", rest_api("a"))
    wrong = await gateway.cli("apply", "-f", file, "--password", "wrong")
    assert wrong.code == 1
    assert "does not let in user 'admin'" in wrong.err
    nobody = await cli.run(
        "get", "apis", env=cli.environment(gateway.folder / "none", SIGNALBOX_URL=gateway.url)
    )
    assert nobody.code == 1
    assert "a request without a user" in nobody.err
    role = await gateway.cli(
        "keys", "create", "a", SIGNALBOX_ADMIN_USER=DEVELOPER, SIGNALBOX_ADMIN_PASSWORD=PASSWORD
    )
    assert role.code == 1
    assert f"user '{DEVELOPER}' may not do this" in role.err
