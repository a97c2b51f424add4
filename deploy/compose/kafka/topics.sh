#!/bin/sh
# Makes the topics of the Kafka door, and that of consent events; leaves those that are there.
set -eu
topics() { /opt/kafka/bin/kafka-topics.sh --bootstrap-server kafka:9092 --create --if-not-exists "$@"; }
topics --topic outbound --partitions 4 --config max.message.bytes=1048576
for name in relay held diverted decisions dead-letter; do
  topics --topic "outbound.$name" --partitions 4 --config max.message.bytes=2097152
done
topics --topic consent.events --partitions 4 --config cleanup.policy=compact
