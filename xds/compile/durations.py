"""Seconds as Envoy's configuration spells them."""


def duration(seconds: float) -> str:
    """`seconds` as a protobuf Duration in JSON: plain decimals, nanoseconds at most."""
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"
