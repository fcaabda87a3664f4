"""The bus on NATS JetStream: acknowledged publishing, state feeds, shared work."""

from bus.jetstream.adapter import JetStreamBus

__all__ = ["JetStreamBus"]
