#!/bin/sh
# Formats the log directory once, then becomes the broker.
set -eu
tools=/opt/kafka/bin
settings=/etc/consentry-kafka/server.properties
"$tools/kafka-storage.sh" format --ignore-formatted --cluster-id "$KAFKA_CLUSTER_ID" --config "$settings"
exec "$tools/kafka-server-start.sh" "$settings"
