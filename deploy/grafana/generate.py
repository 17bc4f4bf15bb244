#!/usr/bin/env python3
"""Writes the Grafana dashboard, and copies of it and of the alert rules where kustomize and Helm can
read them. Run it after a change here or in ../prometheus/rules.yaml; a test compares."""

import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
DEPLOY = HERE.parent

# Of every series: chosen at the top of the dashboard.
ME = 'job=~"$job", instance=~"$instance"'
SECONDS, BYTES, RATE, BYTE_RATE, SHARE, SHORT = "s", "bytes", "ops", "Bps", "percentunit", "short"


def rate(metric, labels=""):
    chosen = f"{ME}, {labels}" if labels else ME
    return f"rate({metric}{{{chosen}}}[$__rate_interval])"


def gauge(metric, labels=""):
    return f"{metric}{{{ME}, {labels}}}" if labels else f"{metric}{{{ME}}}"


def by(labels, expression):
    return f"sum by ({labels}) ({expression})"


def quantile(q, metric, labels=""):
    both = f"le, {labels}" if labels else "le"
    return f"histogram_quantile({q}, {by(both, rate(metric + '_bucket'))})"


FAILED, MEMORY = 'outcome!="ok"', 'limit="memory"'
NODE = "slotway_node_command_duration_seconds"
ALL = "slotway_command_duration_seconds"

# (title, panels); a panel: title, unit, what it says, [(expression, legend)], options
ROWS = [
    ("Now", [
        ("Slotways", SHORT, "How many are scraped", [(f"count({gauge('slotway_build_info')})", "")], "stat"),
        ("Slots covered", SHORT, "16384 in a healthy cluster: every slot has a primary", [(f"min({gauge('slotway_slots_covered')})", "")], "slots"),
        ("Commands", RATE, "Answered per second", [(f"sum({rate('slotway_commands_total')})", "")], "stat"),
        ("p99", SECONDS, "99 % of the commands took less, from a command read from its client to its reply read from the node", [(quantile(0.99, NODE), "")], "stat"),
        ("Errors", SHARE, "Of all commands, the nodes' errors and slotway's own", [(f"sum({rate('slotway_commands_total', FAILED)}) / sum({rate('slotway_commands_total')})", "")], "stat"),
        ("Clients", SHORT, "Connected", [(f"sum({gauge('slotway_clients')})", "")], "stat"),
        ("CPU of the workers", SHARE, "1 is: every worker uses a whole core", [(f"sum({rate('process_cpu_seconds_total')}) / sum({gauge('slotway_workers')})", "")], "share"),
        ("Buffers", SHARE, "Of limits.memory, the fullest slotway", [(f"max({gauge('slotway_buffer_bytes')} / ignoring (limit) {gauge('slotway_limit', MEMORY)})", "")], "share"),
    ]),
    ("Commands", [
        ("Commands by outcome", RATE, "ok; error is the nodes', refused slotway's own", [(by("outcome", rate("slotway_commands_total")), "{{outcome}}")]),
        ("The ten most frequent commands", RATE, "", [(f"topk(10, {by('command', rate('slotway_commands_total'))})", "{{command}}")]),
        ("Latency", SECONDS, "From a command read from its client to its reply ready for the client", [(quantile(q, ALL), f"p{100 * q:g}") for q in (0.5, 0.99, 0.999)], "log"),
        ("p99 by class of command", SECONDS, "", [(quantile(0.99, ALL, "class"), "{{class}}")], "log"),
        ("Commands that failed", RATE, "By command: error is the nodes', refused slotway's own", [(by("command, outcome", rate("slotway_commands_total", 'outcome!="ok"')) + " > 0", "{{command}} {{outcome}}")]),
        ("Slotway's own errors", RATE, "By code: docs/errors.md names them", [(by("code", rate("slotway_errors_total")) + " > 0", "{{code}}")]),
        ("Slow commands", RATE, "Slower than slowlog.slower_than: the status page and PROXY SLOWLOG show them; and how many were looked at for the hot keys", [(f"sum({rate('slotway_slow_commands_total')})", "slow"), (f"sum({rate('slotway_sampled_commands_total')})", "looked at")]),
        ("Commands over several slots, transactions", RATE, "Split commands; those sent key by key because their slot is being migrated; those carried out in steps (commands.cross_slot); transactions in one slot and split over several", [(f"sum({rate('slotway_splits_total')})", "split"), (f"sum({rate('slotway_key_by_key_total')})", "key by key"), (by("outcome", rate("slotway_emulated_total")), "in steps, {{outcome}}"), (by("kind", rate("slotway_transactions_total")), "transaction {{kind}}")]),
    ]),
    ("Nodes", [
        ("Commands by node", RATE, "The load of each node of the cluster", [(by("node", rate(NODE + "_count")), "{{node}}")]),
        ("p99 by node", SECONDS, "", [(quantile(0.99, NODE, "node"), "{{node}}")], "log"),
        ("In flight by node", SHORT, "Sent or waiting to be, not answered yet", [(by("node", gauge("slotway_upstream_in_flight")), "{{node}}")]),
        ("Bytes in flight by node", BYTES, "limits.upstream_in_flight bounds them", [(by("node", gauge("slotway_upstream_in_flight_bytes")), "{{node}}")]),
        ("Bytes to and from nodes", BYTE_RATE, "", [(by("node", rate("slotway_node_sent_bytes_total")), "to {{node}}"), (by("node", rate("slotway_node_received_bytes_total")), "from {{node}}")]),
        ("Connections", SHORT, "ready; connecting; backoff waits for its next attempt; of the ready ones, set aside: behind a script that keeps the node busy", [(by("state", gauge("slotway_upstream_connections")), "{{state}}"), (f"sum({gauge('slotway_upstream_connections_set_aside')})", "set aside")]),
        ("Connections made, lost or failed", RATE, "", [(by("node", rate("slotway_upstream_connects_total")), "made {{node}}"), (by("node", rate("slotway_upstream_failures_total")), "lost {{node}}")]),
        ("Replicas", SHORT, "fit, or why they are not read from", [(by("state", gauge("slotway_replicas")), "{{state}}")]),
    ]),
    ("Cluster", [
        ("Redirections and patience", RATE, "Answers of nodes that sent a command elsewhere or put it off, by kind", [(by("kind", rate("slotway_redirections_total")), "{{kind}}")]),
        ("Sent again", RATE, "By reason; over budget: retries that waited for [retries]", [(by("reason", rate("slotway_retries_total")), "{{reason}}"), (f"sum({rate('slotway_retry_budget_exhausted_total')})", "over budget")]),
        ("Held commands", SHORT, "They wait because their slot moves or has no primary", [(f"sum({gauge('slotway_held_commands')})", "held")]),
        ("Topology", SHORT, "Its number, which grows with every change; slots without a primary", [(f"max by (upstream) ({gauge('slotway_topology_generation')})", "{{upstream}} number"), (f"16384 - min by (upstream) ({gauge('slotway_slots_covered')})", "{{upstream}} slots without a primary")]),
        ("Age of the topology", SECONDS, "Since a node last told it; the nodes' cluster-node-timeout, which a failover takes and up to three seconds more", [(gauge("slotway_topology_age_seconds"), "{{instance}} {{upstream}}"), (f"max by (upstream) ({gauge('slotway_cluster_node_timeout_seconds')})", "{{upstream}} node timeout")]),
        ("Topology asked for", RATE, "", [(by("result", rate("slotway_topology_refreshes_total")), "{{result}}"), (f"sum({rate('slotway_topology_changes_total')})", "changed")]),
        ("Other clusters", RATE, "Views that were not used by reason; connections to another server at a node's address; topologies adopted by an exceptional rule: docs/reliability.md", [(by("reason", rate("slotway_topology_views_refused_total")), "view: {{reason}}"), (f"sum({rate('slotway_upstream_strangers_total')})", "connection"), (by("rule", rate("slotway_topology_exceptions_total")), "{{rule}}")]),
        ("Reads by where they went", RATE, "Reads that need not go to their primary", [(by("to", rate("slotway_reads_total")), "{{to}}")]),
        ("Scripts", RATE, "SCRIPT LOADs put before EVALSHA; new scripts that call KEYS, SCAN, DBSIZE, RANDOMKEY, FLUSHALL or FLUSHDB for one node's keys only", [(f"sum({rate('slotway_script_loads_total')})", "loads"), (f"sum({rate('slotway_scripts_partial_total')})", "one node's keys")]),
    ]),
    ("Errors and limits", [
        ("Outcome unknown, deadline exceeded", RATE, "Errors for clients that are slotway's own", [(f"sum({rate('slotway_outcome_unknown_total')})", "outcome unknown"), (f"sum({rate('slotway_deadline_exceeded_total')})", "deadline exceeded"), (f"sum({rate('slotway_no_primary_total')})", "no primary")]),
        ("Limits reached", RATE, "By the key under [limits]", [(by("limit", rate("slotway_limits_hit_total")), "{{limit}}")]),
        ("Turns for large replies", RATE, "Times that a client with large replies waited for its turn on a connection", [(f"sum({rate('slotway_large_reply_waits_total')})", "waits")]),
        ("Clients turned away", RATE, "At limits.clients; not accepted for want of file descriptors", [(f"sum({rate('slotway_clients_rejected_total')})", "turned away"), (f"sum({rate('slotway_accept_errors_total')})", "not accepted")]),
        ("Clients disconnected", RATE, "For want of a login in time, at timeouts.max_age, or in place of an unknown outcome (commands.on_outcome_unknown); headers of the PROXY protocol that were refused", [(by("reason", rate("slotway_clients_disconnected_total")), "{{reason}}"), (by("result", rate("slotway_proxy_protocol_headers_total")), "header: {{result}}")]),
        ("Logins", RATE, "By outcome", [(by("outcome", rate("slotway_logins_total")), "{{outcome}}")]),
        ("Commands denied to users", RATE, "", [(by("reason", rate("slotway_denied_total")), "{{reason}}")]),
        ("TLS handshakes", RATE, "", [(by("side, result", rate("slotway_tls_handshakes_total")), "{{side}} {{result}}")]),
        ("Days until certificates end", "d", "", [(f"({gauge('slotway_tls_certificate_expiry_timestamp_seconds')} - time()) / 86400", "{{instance}} {{side}}")]),
        ("Parts that failed", SHORT, "Workers and parts of the control thread, in the last hour: bugs", [(f"sum(increase({gauge('slotway_worker_failures_total')}[1h]))", "workers"), (f"sum(increase({gauge('slotway_task_failures_total')}[1h]))", "control")]),
    ]),
    ("Clients", [
        ("Clients by protocol", SHORT, "", [(by("protocol", gauge("slotway_clients")), "{{protocol}}")]),
        ("Clients that come and go", RATE, "", [(f"sum({rate('slotway_clients_accepted_total')})", "accepted"), (f"sum({rate('slotway_clients_closed_total')})", "closed")]),
        ("Bytes from and to clients", BYTE_RATE, "", [(f"sum({rate('slotway_client_received_bytes_total')})", "from clients"), (f"sum({rate('slotway_client_sent_bytes_total')})", "to clients")]),
        ("Clients that wait", SHORT, "blocked: BLPOP and its like, WATCH; paused: CLIENT PAUSE", [(f"sum({gauge('slotway_clients_blocked')})", "blocked"), (f"sum({gauge('slotway_clients_paused')})", "paused")]),
        ("Connections lent to one client", SHORT, "For blocking commands, WATCH and MONITOR; limits.dedicated bounds them", [(by("state", gauge("slotway_dedicated_connections")), "{{state}}")]),
        ("Users of the cluster", SHORT, "With connections of their own (auth = passthrough)", [(f"sum({gauge('slotway_cluster_users')})", "users")]),
    ]),
    ("Pub/sub", [
        ("Messages", RATE, "Read from nodes, and given to subscribers", [(by("kind", rate("slotway_pubsub_messages_received_total")), "read {{kind}}"), (by("kind", rate("slotway_pubsub_deliveries_total")), "given {{kind}}")]),
        ("Subscribers and subscriptions", SHORT, "", [(f"sum({gauge('slotway_pubsub_clients')})", "subscribers"), (by("kind", gauge("slotway_pubsub_subscriptions")), "subscriptions {{kind}}"), (by("kind", gauge("slotway_pubsub_upstream_subscriptions")), "at nodes {{kind}}")]),
        ("Gaps and dropped messages", RATE, "Topics that may have missed messages, by reason; messages of subscribers that did not read", [(by("reason", rate("slotway_pubsub_gaps_total")), "gap {{reason}}"), (f"sum({rate('slotway_pubsub_dropped_total')})", "dropped")]),
        ("Messages held", BYTES, "Not yet taken by all their subscribers", [(f"sum({gauge('slotway_pubsub_held_bytes')})", "held")]),
        ("PUBLISHes that waited", RATE, "For a subscription that was asked for before them and not confirmed yet", [(f"sum({rate('slotway_pubsub_publish_waits_total')})", "waits")]),
    ]),
    ("Process", [
        ("CPU", "none", "Cores in use", [(rate("process_cpu_seconds_total"), "{{instance}}")]),
        ("Memory", BYTES, "", [(gauge("process_resident_memory_bytes"), "{{instance}} resident"), (gauge("slotway_buffer_bytes"), "{{instance}} buffers")]),
        ("File descriptors", SHORT, "", [(gauge("process_open_fds"), "{{instance}} open"), (gauge("process_max_fds"), "{{instance}} most"), (gauge("slotway_descriptors_reserved"), "{{instance}} reserved")]),
        ("Spans", RATE, "Traces of sampled commands (tracing.endpoint): taken by the collector, or lost, and why", [(by("outcome", rate("slotway_trace_spans_total")), "{{outcome}}")]),
        ("Configuration", SHORT, "In use: 1, the file is; 0, it is invalid or a key needs a restart, the log says which", [(gauge("slotway_config_in_use"), "{{instance}} in use"), (gauge("slotway_config_restart_keys"), "{{instance}} keys that need a restart"), (by("outcome", rate("slotway_config_reloads_total")), "reloads {{outcome}}")]),
        ("Turns of the workers' loops", RATE, "Commands per turn tell how much is done at once", [(f"sum({rate('slotway_worker_turns_total')})", "turns"), (f"sum({rate('slotway_commands_total')}) / sum({rate('slotway_worker_turns_total')})", "commands per turn")]),
    ]),
]

SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def panel(number, place, title, unit, description, targets, kind="time"):
    """One panel as Grafana 10 and later read it."""
    stat = kind in ("stat", "slots", "share")
    defaults = {"unit": unit, "min": 0, "color": {"mode": "palette-classic"}}
    if stat:
        defaults["color"] = {"mode": "thresholds"}
        steps = [{"color": "green", "value": None}]
        if kind == "slots":
            steps = [{"color": "red", "value": None}, {"color": "green", "value": 16384}]
        if kind == "share":
            steps += [{"color": "orange", "value": 0.7}, {"color": "red", "value": 0.9}]
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
        options = {
            "colorMode": "value", "graphMode": "area", "justifyMode": "auto", "textMode": "value",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        }
    else:
        scale = {"type": "log", "log": 10} if kind == "log" else {"type": "linear"}
        defaults["custom"] = {
            "drawStyle": "line", "lineWidth": 1, "fillOpacity": 8, "showPoints": "never",
            "spanNulls": False, "scaleDistribution": scale,
        }
        if kind == "log":
            del defaults["min"]
        options = {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    return {
        "id": number,
        "type": "stat" if stat else "timeseries",
        "title": title,
        "description": description,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [
            {"refId": "ABCDEFGH"[i], "datasource": SOURCE, "expr": expr, "legendFormat": legend or "__auto", "range": True}
            for i, (expr, legend) in enumerate(targets)
        ],
    }


def dashboard():
    panels, number, y = [], 0, 0
    for title, row in ROWS:
        number += 1
        panels.append({"id": number, "type": "row", "title": title, "collapsed": False, "panels": [],
                       "gridPos": {"h": 1, "w": 24, "x": 0, "y": y}})
        y += 1
        stats = title == "Now"
        width, height = (3, 4) if stats else (12, 8)
        for i, what in enumerate(row):
            number += 1
            across = 24 // width
            place = {"h": height, "w": width, "x": i % across * width, "y": y + i // across * height}
            panels.append(panel(number, place, *what))
        y += -(-len(row) // (24 // width)) * height

    def variable(name, label, query):
        return {"name": name, "label": label, "type": "query", "datasource": SOURCE, "query": {"query": query, "refId": name},
                "definition": query, "refresh": 2, "sort": 1, "multi": True, "includeAll": True, "allValue": ".*",
                "current": {"text": ["All"], "value": ["$__all"]}}

    return {
        "uid": "slotway",
        "title": "Slotway",
        "description": "Redis Cluster behind slotway: docs/observing.md, docs/metrics.md",
        "tags": ["slotway", "redis"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": [{
            "name": "Topology changes", "datasource": SOURCE, "enable": True, "iconColor": "orange",
            "expr": f"changes({gauge('slotway_topology_generation')}[$__interval]) > 0", "titleFormat": "topology changed",
        }]},
        "templating": {"list": [
            {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "current": {}},
            variable("job", "Job", "label_values(slotway_build_info, job)"),
            variable("instance", "Slotway", 'label_values(slotway_build_info{job=~"$job"}, instance)'),
        ]},
        "panels": panels,
    }


def indented(text, by):
    return "".join(" " * by + line if line.strip() else line for line in text.splitlines(keepends=True))


def files():
    """What is written, by path."""
    made = json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"
    rules = (DEPLOY / "prometheus/rules.yaml").read_text()
    groups = rules[rules.index("groups:"):]
    rule = (
        "# Written by deploy/grafana/generate.py from rules.yaml: change that.\n"
        "apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: slotway\n"
        "  labels:\n    app.kubernetes.io/name: slotway\nspec:\n" + indented(groups, 2)
    )
    return {
        HERE / "slotway.json": made,
        DEPLOY / "helm/slotway/files/dashboard.json": made,
        DEPLOY / "helm/slotway/files/rules.yaml": groups,
        DEPLOY / "prometheus/prometheusrule.yaml": rule,
    }


def main():
    for path, text in files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    sys.exit(main())
