"""The router and the engine compute the same hops, and hops outlive the API that had them."""

import json
import re
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from bus.events import ApiPublished, ApiRetired, ConfigurationApplied, RouterDisconnected
from bus.resources.rest_api import RestApi
from policy_engine.engine.book import HopBook
from policy_engine.engine.hop_feed import Hops
from policy_engine.engine.hops import hops_of
from policy_engine.engine.reports import FailureEvents
from policy_engine.engine.serving import Serving
from policy_engine.errors import PolicyError
from policy_engine.hop import HOP_FIELD, Hop
from tests.policy_engine.engine.processes import Told
from tests.policy_engine.engine.trial_policies import TRIALS
from tests.policy_engine.python_gateway import catalogue_with, python_api, ref
from xds.compile.api import compile_api
from xds.settings import XdsSettings

CATALOGUE = catalogue_with(TRIALS, None)
KEY = ref("api-key-auth", key="API-Key", **{"in": "header"})
BODY = "has(request.Body.n)"
SHAPES: dict[str, tuple[Any, Any]] = {
    "one": ([ref("stamp", word="a")], None),
    "neighbours": ([ref("stamp", word="a"), ref("look")], None),
    "native between": ([ref("stamp", word="a"), KEY, ref("look")], None),
    "both levels": (
        [ref("stamp", word="a")],
        {"GET /{id}": [ref("stamp", word="a")], "POST /x/*": [KEY, ref("reverse"), ref("upper")]},
    ),
    "modes": (
        [ref("stamp", word="a", failureMode="open"), ref("look"), ref("guarded", how="fine")],
        None,
    ),
    "shadow": ([ref("refuse", phase="request_body", mode="shadow", timeout="3s")], None),
    "condition": ([ref("stamp", word="a", executionCondition=BODY)], None),
    "native condition": (
        [
            ref(
                "set-headers",
                request={"headers": [{"name": "a", "value": "b"}]},
                executionCondition=BODY,
            )
        ],
        None,
    ),
    "behind an answer": ([ref("respond", statusCode=204), ref("stamp", word="a")], None),
    "none": ([KEY], None),
}


def asked_for(api: RestApi) -> set[str]:
    """The names of the hops that Envoy would ask for."""
    compiled = compile_api(api, 1, (), CATALOGUE, XdsSettings())
    documents = [dict(compiled.chain)]
    documents += [route.document for site in compiled.sites for route in site.routes]
    return set(re.findall(rf'"{HOP_FIELD}", "value": "([0-9a-f]{{32}})"', json.dumps(documents)))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_router_asks_for_what_the_engine_knows(shape: str) -> None:
    policies, operations = SHAPES[shape]
    api = python_api(policies, operations, "http://upstream.example", context="/orders")
    known = {hop.name for hop in hops_of(api, CATALOGUE)}
    assert asked_for(api) == known
    assert bool(known) == (shape not in ("none", "behind an answer"))


def test_a_hop_is_the_same_when_it_was_written_down_and_read_again() -> None:
    policies, operations = SHAPES["both levels"]
    for hop in hops_of(python_api(policies, operations, "http://u.example"), CATALOGUE):
        assert Hop.of(json.loads(json.dumps(hop.document()))) == hop
        assert Hop.of(hop.document()).name == hop.name


def test_only_hops_that_may_choose_an_upstream_know_the_names() -> None:
    chooses = ref("interceptor-service", endpoint="http://interceptor.example", request={})
    beta = {"name": "beta", "upstreams": [{"url": "http://beta.example"}]}
    one, two = (
        python_api(
            [chooses],
            {"GET /a": [ref("stamp", word="a")]},
            "http://u.example",
            upstreamDefinitions=[beta, *more],
        )
        for more in ([], [beta | {"name": "gamma"}])
    )
    hops, others = hops_of(one, CATALOGUE), hops_of(two, CATALOGUE)
    assert asked_for(one) == {hop.name for hop in hops}
    assert [hop.place.upstreams for hop in hops] == [("beta",), ()]
    assert hops[0].name != others[0].name
    assert hops[1].name == others[1].name
    for hop in hops:
        assert Hop.of(json.loads(json.dumps(hop.document()))) == hop


def test_an_api_that_is_not_deployed_has_no_hops() -> None:
    spec = {"deploymentState": "undeployed"}
    api = python_api([ref("stamp", word="a")], None, "http://u.example", **spec)
    assert hops_of(api, CATALOGUE) == ()


def test_an_unknown_policy_is_an_error() -> None:
    api = python_api([ref("no-such-policy")], None, "http://u.example")
    with pytest.raises(PolicyError):
        hops_of(api, CATALOGUE)


def hop(word: str, api: str = "tried") -> Hop:
    (made,) = hops_of(python_api([ref("stamp", word=word)], None, "http://u.example"), CATALOGUE)
    return made


def test_replaced_hops_stay_known_and_the_oldest_go() -> None:
    book = HopBook()
    first = hop("0")
    assert book.put("tried", [first]).hops == {first.name: first.document()}
    assert not book.put("tried", [first])
    for number in range(1, 9):
        change = book.put("tried", [hop(str(number))])
        assert (len(change.hops), change.gone) == (1, ())
    assert first.name in book.hops
    assert book.put("tried", [hop("9")]).gone == (first.name,)
    assert len(book.hops) == 9


def test_a_hop_that_comes_back_is_told_once() -> None:
    book = HopBook()
    book.put("tried", [hop("a")])
    book.put("tried", [hop("b")])
    assert not book.put("tried", [hop("a")])
    assert book.of("tried") == {hop("a").name}


def test_a_retired_api_takes_all_its_hops_along() -> None:
    book = HopBook()
    book.put("tried", [hop("a")])
    book.put("tried", [hop("b")])
    assert set(book.remove("tried").gone) == {hop("a").name, hop("b").name}
    assert book.hops == {}
    assert not book.remove("tried")


async def test_an_api_that_cannot_be_compiled_keeps_the_hops_it_had() -> None:
    hops = Hops(CATALOGUE, FailureEvents(Told()), CollectorRegistry(), None)
    good = python_api([ref("stamp", word="a")], None, "http://u.example")
    bad = python_api([ref("stamp", word="a"), ref("gone")], None, "http://u.example")
    hops.take(ApiPublished(revision=1, api=good))
    known = dict(hops.book.hops)
    hops.take(ApiPublished(revision=2, api=bad))
    assert hops.book.hops == known != {}
    hops.take(ApiRetired(revision=3, api_id="tried"))
    assert hops.book.hops == {}


def test_what_the_slowest_router_serves_stays_whatever_comes_after_it() -> None:
    book = HopBook()
    book.put("tried", [hop("1")], 1)
    assert not book.served("tried", 1)
    for revision in range(2, 20):
        book.put("tried", [hop(str(revision))], revision)
    assert hop("1").name in book.hops
    assert len(book.hops) == 9


def test_replaced_hops_go_once_no_router_serves_them() -> None:
    book = HopBook()
    for revision in (1, 2, 3):
        book.put("tried", [hop(str(revision))], revision)
    assert book.served("tried", 2).gone == (hop("1").name,)
    assert book.served("tried", 3).gone == (hop("2").name,)
    assert book.hops.keys() == {hop("3").name}


def test_revisions_with_the_same_hops_are_one_shape() -> None:
    book = HopBook()
    book.put("tried", [hop("a")], 1)
    book.put("tried", [hop("a")], 2)
    book.put("tried", [hop("b")], 3)
    assert not book.served("tried", 2)
    assert book.served("tried", 3).gone == (hop("a").name,)


def test_a_book_that_was_written_down_is_the_same_when_it_is_read() -> None:
    book, again = HopBook(), HopBook()
    book.put("tried", [hop("a")], 1)
    book.served("tried", 1)
    book.put("tried", [hop("b")], 2)
    again.recall(json.loads(json.dumps(book.document())))
    assert again.document() == book.document()
    assert not again.put("tried", [hop("b")], 2)
    assert again.served("tried", 2).gone == (hop("a").name,)


@pytest.mark.parametrize("text", ["[]", '{"apis": {}}', '{"hops": {}, "apis": {"a": {"now": 1}}}'])
def test_a_file_that_is_no_book_is_refused_and_nothing_is_taken_of_it(text: str) -> None:
    book = HopBook()
    with pytest.raises(ValueError, match="not a book of hops"):
        book.recall(json.loads(text))
    assert book.document() == {"hops": {}, "apis": {}}


def test_the_oldest_revision_that_any_router_serves_counts_those_that_are_away_included() -> None:
    serving = Serving()

    def applied(node: str, *, complete: bool = False, **revisions: int) -> dict[str, int]:
        event = ConfigurationApplied(node=node, revisions=revisions, complete=complete)
        return dict(serving.apply(event))

    assert applied("one", a=1, b=4) == {"a": 1, "b": 4}
    assert applied("two", a=2) == {"a": 1}
    assert dict(serving.apply(RouterDisconnected(node="one"))) == {}
    assert applied("two", a=3) == {"a": 1}
    assert applied("one", complete=True, b=5) == {"b": 5}
    assert applied("two", a=4) == {"a": 4}
