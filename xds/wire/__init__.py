"""The one door to Envoy's protobuf and gRPC."""
