from policy_engine.policy import Service
from xds.compile.clusters import CLUSTER, service_cluster
from xds.wire.messages import encode

TLS = "envoy.transport_sockets.tls"


def test_a_server_that_policies_call_is_trusted_as_they_say() -> None:
    plain, trusted, own, anybody = (
        service_cluster(one, 5)
        for one in (
            Service("http://keys.example:8080/jwks"),
            Service("https://keys.example/jwks"),
            Service("https://keys.example/jwks", authorities="PEM"),
            Service("https://keys.example/jwks", verify=False),
        )
    )
    assert "transport_socket" not in plain
    for document, expected in (
        (trusted, {"combined_validation_context"}),
        (own, {"validation_context"}),
        (anybody, set()),
    ):
        context = document["transport_socket"]["typed_config"]["common_tls_context"]
        assert set(context) - {"tls_params"} == expected
        encode(CLUSTER, document)
    validation = own["transport_socket"]["typed_config"]["common_tls_context"]["validation_context"]
    assert validation["trusted_ca"] == {"inline_string": "PEM"}
    (name,) = validation["match_typed_subject_alt_names"]
    assert name["matcher"] == {"exact": "keys.example"}
    assert len({one["name"] for one in (plain, trusted, own, anybody)}) == 4


def test_paths_of_one_server_share_its_cluster() -> None:
    assert Service("http://a.example/1").cluster == Service("http://a.example/2?x").cluster
