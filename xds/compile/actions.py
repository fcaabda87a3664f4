"""What a route does with a request, in Envoy's fields."""

from collections.abc import Mapping, Sequence
from typing import Any

from policy_engine.policy import DirectAnswer, Redirect, Routing
from xds.compile.clusters import Target

Document = dict[str, Any]

_REDIRECTS = {
    301: "MOVED_PERMANENTLY",
    302: "FOUND",
    303: "SEE_OTHER",
    307: "TEMPORARY_REDIRECT",
    308: "PERMANENT_REDIRECT",
}


def destination(routing: Routing, targets: Sequence[Target]) -> Document:
    """The fields of a RouteAction that name its clusters."""
    if len(targets) == 1:
        return {"cluster": targets[0].cluster}
    weighted: Document = {
        "clusters": [
            {"name": target.cluster, "weight": share.weight}
            for share, target in zip(routing.shares, targets, strict=True)
        ]
    }
    if routing.sticky:
        weighted["use_hash_policy"] = True
    return {"weighted_clusters": weighted}


def mirror_policies(
    routing: Routing, named: Mapping[str, Target], target: Target
) -> list[Document]:
    """`request_mirror_policies`: copies take the path that requests take to `target`.

    Raises ValueError when a mirror has another base path.
    """
    policies: list[Document] = []
    for mirror in routing.mirrors:
        to = named[mirror.upstream]
        if to.base_path != target.base_path:
            raise ValueError(
                f"copies keep the path of the request, so upstream definition {mirror.upstream!r} "
                f"needs the basePath {target.base_path or '/'!r}, not {to.base_path or '/'!r}"
            )
        policy: Document = {
            "cluster": to.cluster,
            "runtime_fraction": {
                "default_value": {"numerator": mirror.per_million, "denominator": "MILLION"}
            },
            "disable_shadow_host_suffix_append": True,
        }
        if to.rewrite_host and to.authority is not None:
            policy["host_rewrite_literal"] = to.authority
        policies.append(policy)
    return policies


def answer_action(answer: DirectAnswer | Redirect) -> Document:
    """The fields of a Route that make Envoy answer by itself."""
    if isinstance(answer, Redirect):
        return {"redirect": {"response_code": _REDIRECTS[answer.status], **answer.action}}
    return _direct(answer)


def _direct(answer: DirectAnswer) -> Document:
    document: Document = {"direct_response": {"status": answer.status}}
    if answer.body:
        document["direct_response"]["body"] = {"inline_string": answer.body}
    if answer.headers:
        document["response_headers_to_add"] = [
            {
                "header": {"key": name, "value": value},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }
            for name, value in answer.headers
        ]
    return document
