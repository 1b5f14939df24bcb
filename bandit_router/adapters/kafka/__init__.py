"""Kafka: topics, relay, learner's reader and order journal, snapshots. kafka-python stays inside.

kafka-python takes .1 s to import, so each module here imports it where it is used first.
"""
