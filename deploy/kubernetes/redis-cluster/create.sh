#!/bin/sh
# Makes one cluster of the six nodes; does nothing if they are one already. REDISCLI_AUTH has the
# password.
set -eu
nodes=
for i in 0 1 2 3 4 5; do
    name=redis-cluster-$i.redis-cluster
    # Nodes meet by address. The name is there as soon as the pod is.
    until ip=$(getent hosts "$name" | cut -d' ' -f1) && [ -n "$ip" ] &&
        [ "$(redis-cli -h "$ip" ping)" = PONG ]; do
        sleep 1
    done
    nodes="$nodes $ip:6379"
done
if redis-cli -h "$ip" cluster info | grep -q cluster_state:ok; then
    exit 0
fi
# shellcheck disable=SC2086
redis-cli --cluster create $nodes --cluster-replicas 1 --cluster-yes
