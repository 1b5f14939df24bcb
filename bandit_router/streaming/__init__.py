"""Deciding and learning apart: routers send events through Kafka and follow snapshots."""
