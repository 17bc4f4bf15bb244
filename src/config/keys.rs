//! The one table of keys: path, meaning, and field of [`Config`].
//!
//! The texts are for operators: they become the comments of `proxy.toml` and the entries of
//! `docs/configuration.md`. Each says what the key does and what happens at the limit; type, unit,
//! range and default are added from the field.
//!
//! Long: it is the one table of all keys.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::field::Field;
use super::{Config, GIB, KIB, MIB};

/// When a changed key takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// At the reload.
    Now,
    /// At the reload, but only for new things of this name, such as connections.
    Next(&'static str),
    /// At the next start.
    Restart,
}

/// A key of the configuration.
pub struct Key {
    /// The path, as in the file: `limits.clients`.
    pub path: &'static str,
    /// The key's own flag, if it has one; `--set` works for every key.
    pub flag: Option<&'static str>,
    /// When a change takes effect.
    pub change: Change,
    /// The meaning, for operators.
    pub doc: &'static str,
    pub(super) field: fn(&mut Config) -> Field<'_>,
}

impl Key {
    /// The environment variable of this key: `SLOTWAY_LIMITS__CLIENTS`.
    pub fn variable(&self) -> String {
        format!("SLOTWAY_{}", self.path.replace('.', "__").to_uppercase())
    }

    /// The section's name and the key's name in it; keys at the top have an empty section.
    pub(super) fn section_and_name(&self) -> (&'static str, &'static str) {
        self.path.rsplit_once('.').unwrap_or(("", self.path))
    }

    /// The value in `config`, as TOML; a secret is masked.
    pub fn show(&self, config: &Config) -> toml::Value {
        (self.field)(&mut config.clone()).show()
    }

    /// The accepted values in words: type, unit, range.
    pub fn accepts(&self) -> String {
        (self.field)(&mut Config::default()).accepts()
    }
}

/// A section of the file.
#[derive(Debug)]
pub struct Section {
    /// The name.
    pub name: &'static str,
    /// The common purpose of its keys, for operators.
    pub doc: &'static str,
}

/// The sections, in the order of the file. The keys without a section come before them.
pub static SECTIONS: &[Section] = &[
    Section { name: "upstream", doc: "Connections to the nodes of the cluster." },
    Section {
        name: "tls.downstream",
        doc: "TLS for clients. All files are PEM. They are read again when they change (checked \
              every two seconds, and at SIGHUP): existing connections stay, new handshakes use the \
              new files; a file that cannot be used changes nothing and is logged \
              (slotway_tls_reloads_total).",
    },
    Section {
        name: "tls.upstream",
        doc: "TLS for all connections to the nodes: for clients' commands, pub/sub, and slotway's \
              own requests. The nodes need tls-port and tls-cluster yes. Files are read again as \
              those of [tls.downstream]; existing connections stay.",
    },
    Section {
        name: "tls.admin",
        doc: "HTTPS on the admin listener. Without a certificate it speaks plain HTTP. Files are \
              read again as those of [tls.downstream].",
    },
    Section {
        name: "proxy_protocol",
        doc: "The PROXY protocol, versions 1 and 2: a load balancer in front of slotway begins each \
              connection with a header that names the client. CLIENT LIST and CLIENT INFO, the log, \
              MONITOR, SLOWLOG, spans, protected_mode and the delay of failed logins then see the \
              client's address instead of the load balancer's. Connections that the load balancer \
              makes for itself (LOCAL in version 2, health checks) have its own.",
    },
    Section { name: "timeouts", doc: "Time limits." },
    Section {
        name: "retries",
        doc: "The share of retries in what slotway sends: of commands that nodes have refused \
              (CLUSTERDOWN, LOADING, TRYAGAIN …) or that were lost. Each worker has a budget of \
              its own; a retry beyond it waits for the budget or for its deadline \
              (slotway_retry_budget_exhausted_total). Following a redirection is not a retry.",
    },
    Section {
        name: "reconnect",
        doc: "Backoff after a connection to a node has failed or was lost. Each failure doubles \
              the wait, from min to max; every wait is shortened by a random amount, so that many \
              slotways do not return to a node at the same moment.",
    },
    Section {
        name: "topology",
        doc: "How often slotway asks the cluster which node serves which slots.",
    },
    Section {
        name: "replicas",
        doc: "The replicas that are read from, where read_from or READONLY asks for it. Only \
              replicas that the cluster reports as online are used.",
    },
    Section { name: "transactions", doc: "MULTI … EXEC, and WATCH." },
    Section {
        name: "pubsub",
        doc: "Subscribers. However many there are, slotway subscribes once to each channel and \
              pattern at the cluster.",
    },
    Section {
        name: "limits",
        doc: "Upper limits on what slotway holds, so that neither a client nor a node that has \
              stopped reading can exhaust the machine. limits.memory limits the sum of the others' \
              buffers: where it is the smaller one, it is reached first.",
    },
    Section {
        name: "observe",
        doc: "Tracking of the most used and the biggest keys, for PROXY HOTKEYS and PROXY BIGKEYS, \
              and /hotkeys and /bigkeys of the admin listener.",
    },
    Section {
        name: "slowlog",
        doc: "Slow commands as clients see them, for SLOWLOG, PROXY SLOWLOG and /slowlog of the \
              admin listener.",
    },
    Section {
        name: "tracing",
        doc: "Spans of single commands for OpenTelemetry, sent by OTLP over HTTP.",
    },
    Section {
        name: "commands",
        doc: "The commands that clients may send. Entries are commands (\"keys\"), subcommands \
              (\"config|set\") and ACL categories (\"@dangerous\"; \"@all\" is every command). The \
              more specific entry counts: a subcommand before its command, a command before a \
              category, a category before \"@all\"; of two equally specific ones the one in deny. \
              So deny = [\"@all\"], allow = [\"@read\", \"@connection\"] leaves commands that \
              read. Commands that the cluster has and Redis 7.0 does not are covered, too; a \
              module's command (a name with a dot) is not checked against a list. Which commands \
              scripts may call is up to the nodes.",
    },
    Section { name: "log", doc: "Log lines go to standard error." },
];

const NODES: &str = "connections to nodes";
const SENTINELS: &str = "connections to Sentinels";
const CLIENTS: &str = "clients";
const REQUESTS: &str = "connections";

const fn ms(from: u64, to: u64) -> RangeInclusive<Duration> {
    Duration::from_millis(from)..=Duration::from_millis(to)
}
const HOUR: u64 = 3_600_000;
const TIB: usize = GIB << 10;

/// Every key, in the order of the file.
pub static KEYS: &[Key] = &[
    Key {
        path: "listen",
        change: Change::Now,
        flag: Some("--listen"),
        doc: "Addresses that clients connect to: any number of TCP addresses (IPv4, IPv6, or a DNS \
              name, which stands for all its addresses) and Unix sockets. \"0.0.0.0:6379\" is \
              every IPv4 address of the machine, \"[::]:6379\" every IPv6 address, port 0 a free \
              port. An address that is in use ends the start with an error, unless hand_over is \
              \"on\". If systemd has passed on a socket with that address (socket activation), it \
              is used instead of a new one. At run time: new entries are listened on as well; \
              removed ones accept no more clients, and their connected clients stay. Clients \
              connect without TLS here; with TLS they connect to tls.downstream.listen, and listen \
              = [] serves only those. { at = \"0.0.0.0:6380\", upstream = \"queues\" } (in a \
              variable or flag 0.0.0.0:6380=queues) is an address whose clients have another \
              upstream than the first; a change of it is for new clients.",
        field: |c| Field::PlainListeners(c.plain_listeners()),
    },
    Key {
        path: "hand_over",
        change: Change::Next("listeners"),
        flag: None,
        doc: "\"on\": another slotway of the same operating system user, with hand_over = \"on\" \
              as well, may listen on the same addresses, so that a new version takes over from a \
              running one without a refused or lost connection (docs/upgrade.md). The new process \
              begins to listen when it knows the topology, and gets all new clients from then on; \
              the old one is told to stop after that. For TCP this is SO_REUSEPORT, admin \
              included; a Unix socket's path is taken over. \"off\": an address that is in use is \
              an error, which protects against a second slotway started by mistake.",
        field: |c| Field::Choice(&mut c.hand_over),
    },
    Key {
        path: "seeds",
        change: Change::Now,
        flag: Some("--seeds"),
        doc: "Nodes of the cluster that slotway asks first; it learns the others from them (servers \
              or Sentinels, where upstream.kind says so). One is \
              enough; several let slotway start while one of them is down. DNS names are resolved \
              again at each use. `slotway run` does not start without seeds; `slotway sandbox` \
              sets them to its own nodes.",
        field: |c| Field::Addresses(&mut c.seeds, 1),
    },
    Key {
        path: "workers",
        change: Change::Now,
        flag: Some("--workers"),
        doc: "Threads that serve clients; each has its own connections to the nodes. \"auto\" is \
              one per core that the process may use (a container's CPU limit counts). A new client \
              goes to the worker with the fewest clients. At run time: if the number is lowered, \
              surplus workers get no new clients and end with their last one.",
        field: |c| Field::Workers(&mut c.workers),
    },
    Key {
        path: "admin",
        change: Change::Now,
        flag: Some("--admin"),
        doc: "Address of the admin HTTP listener: the status page at / for browsers, /metrics, \
              /healthz, /readyz. Without admin_token it requires no authentication: then keep it \
              off public addresses. \"\" turns it off.",
        field: |c| Field::OptionalAddress(&mut c.admin, 0),
    },
    Key {
        path: "announce",
        change: Change::Now,
        flag: None,
        doc: "The address that cluster-aware clients are given (CLUSTER SLOTS and the like): \
              slotway is the one node of the cluster that they see. \"\" gives each client the \
              address that it has connected to. Set it if clients cannot connect to that address: \
              behind a load balancer or port forwarding. Without it, clients on a Unix socket are \
              given the first TCP address of listen.",
        field: |c| Field::OptionalAddress(&mut c.announce, 1),
    },
    Key {
        path: "announce_mode",
        change: Change::Now,
        flag: None,
        doc: "The mode that slotway reports: redis_mode and cluster_enabled in INFO, mode in \
              HELLO. \"standalone\" suits clients that are not made for a cluster, some of which \
              choose their commands by it. \"cluster\" suits tools that refuse servers outside of \
              a cluster, such as redis-cli --cluster check: they see a cluster of one node. It \
              changes nothing else: CLUSTER is answered in both modes, and so are commands with \
              keys in several slots.",
        field: |c| Field::Choice(&mut c.announce_mode),
    },
    Key {
        path: "read_from",
        change: Change::Now,
        flag: None,
        doc: "The nodes that answer commands that only read and have all keys in one slot. Every \
              value but \"primary\" lets clients read data that is older than what they have \
              written, because replicas lag behind their primary. \"primary\": the slot's primary; \
              replicas only for connections that have sent READONLY. \"prefer_replica\": a \
              replica; the primary if there is none that [replicas] allows. \"any\": any node of \
              the shard, all equally likely. \"lowest_latency\": the nodes of the shard with the \
              lowest latency lately, as measured by each worker. \"zone\": the replicas in \
              slotway's own zone (zone), then the primary if it is in that zone, then any replica, \
              then the primary. In all cases a connection keeps to the same node for a slot while \
              that is possible, and commands that cannot be read from replicas go to the primary; \
              docs/commands.md, *Reading from replicas*, lists them. slotway_reads_total counts \
              where reads go.",
        field: |c| Field::Choice(&mut c.read_from),
    },
    Key {
        path: "zone",
        change: Change::Now,
        flag: None,
        doc: "The zone (availability zone, data centre, rack) that this slotway runs in, for \
              read_from = \"zone\". Most easily set by the environment: SLOTWAY_ZONE.",
        field: |c| Field::Name(&mut c.zone),
    },
    Key {
        path: "auth",
        change: Change::Now,
        flag: None,
        doc: "The users that clients may log in as (AUTH, HELLO … AUTH). \"own\": those of users \
              and users_file; if there are none, no login is required and all clients have the \
              rights of upstream.user. \"passthrough\": other user names are the cluster's: a node \
              verifies the password, and the client's commands are sent on connections of that \
              user, so that the cluster's ACLs apply unchanged. A client that has not logged in is \
              the cluster's default user, if that user needs no password. Before slotway itself \
              answers a command of such a user (SUBSCRIBE, CLIENT, MULTI …) it asks a node with \
              ACL DRYRUN, which upstream.user must be allowed, and which nodes have since Redis 7. \
              Reads of such users go to primaries.",
        field: |c| Field::Choice(&mut c.auth),
    },
    Key {
        path: "users",
        change: Change::Now,
        flag: None,
        doc: "Slotway's own users, each in one string: a name, and rules in Redis's ACL syntax: \
              on, off, nopass, #SHA-256 (printf %s PASSWORD | sha256sum) or >PASSWORD, ~KEY, \
              %R~KEY, %W~KEY, &CHANNEL, +COMMAND, -COMMAND, +COMMAND|SUBCOMMAND, +@CATEGORY, \
              (another selector). A command that the rules do not allow is refused before anything \
              is sent; an allowed one is executed with the rights of upstream.user. Slotway cannot \
              check what scripts, functions and modules' commands without declared keys do, so it \
              refuses them to users who do not have ~* &* +@all; the rule unchecked-commands, \
              which Redis does not have, allows them to a user all the same, whose scripts can \
              then do whatever upstream.user can. As in Redis a client that does not log in is the \
              user \"default\"; if there are users, but none of that name, it has to log in.",
        field: |c| Field::Users(&mut c.users),
    },
    Key {
        path: "users_file",
        change: Change::Now,
        flag: None,
        doc: "A file with more of slotway's own users, in the format of Redis's aclfile: one per \
              line, beginning with \"user\". Read again when it changes: new rules apply at once, \
              and users that are gone are disconnected; a file with an error changes nothing. \"\" \
              is none.",
        field: |c| Field::Path(&mut c.users_file),
    },
    Key {
        path: "protected_mode",
        change: Change::Now,
        flag: None,
        doc: "Refuses to start if slotway would listen on an address that other machines can reach \
              and no login is required. Set it to false only on a network that restricts access.",
        field: |c| Field::Boolean(&mut c.protected_mode),
    },
    Key {
        path: "admin_token",
        change: Change::Now,
        flag: None,
        doc: "The token that requests to the admin listener must carry (Authorization: Bearer \
              TOKEN); \"\" requires none. Set it by the environment or by admin_token_file rather \
              than in a file that others can read.",
        field: |c| Field::Secret(&mut c.admin_token),
    },
    Key {
        path: "admin_token_file",
        change: Change::Now,
        flag: None,
        doc: "A file with the token, instead of admin_token; read again when it changes.",
        field: |c| Field::Path(&mut c.admin_token_file),
    },
    Key {
        path: "admin_token_for_probes",
        change: Change::Now,
        flag: None,
        doc: "Whether /healthz and /readyz require the token, too. They disclose little, and \
              probes often cannot send one.",
        field: |c| Field::Boolean(&mut c.admin_token_for_probes),
    },
    Key {
        path: "upstream.kind",
        change: Change::Restart,
        flag: None,
        doc: "What the seeds are. \"cluster\": nodes of a Redis Cluster. \"standalone\": one \
              server; its replicas, which INFO replication names, may stand among the seeds, so \
              that slotway finds the server that one of them is promoted to. \"sentinel\": \
              Sentinels, which name the server (upstream.master), its replicas and, after a \
              failover, its successor. Before one server no slot stands in the way: all keys may \
              be used together, in transactions, scripts and all commands.",
        field: |c| Field::Choice(&mut c.upstream.kind),
    },
    Key {
        path: "upstream.master",
        change: Change::Now,
        flag: None,
        doc: "The name by which the Sentinels know the server (kind = \"sentinel\"): the second \
              word of `sentinel monitor` in their configuration.",
        field: |c| Field::Name(&mut c.upstream.master),
    },
    Key {
        path: "upstream.sentinel_user",
        change: Change::Next(SENTINELS),
        flag: None,
        doc: "User name for AUTH at the Sentinels. \"\" with a password is their default user. \
              The server has its own: upstream.user.",
        field: |c| Field::Text(&mut c.upstream.sentinel_user),
    },
    Key {
        path: "upstream.sentinel_password",
        change: Change::Next(SENTINELS),
        flag: None,
        doc: "Password for AUTH at the Sentinels. \"\" without a user sends no AUTH. Never shown.",
        field: |c| Field::Secret(&mut c.upstream.sentinel_password),
    },
    Key {
        path: "upstream.sentinel_password_file",
        change: Change::Next(SENTINELS),
        flag: None,
        doc: "A file with the Sentinels' password, instead of upstream.sentinel_password. Read \
              again when it changes. \"\" is none.",
        field: |c| Field::Path(&mut c.upstream.sentinel_password_file),
    },
    Key {
        path: "upstream.user",
        change: Change::Next(NODES),
        flag: None,
        doc: "User name for AUTH at the nodes (an ACL user). \"\" with a password is the nodes' \
              default user.",
        field: |c| Field::Text(&mut c.upstream.user),
    },
    Key {
        path: "upstream.user_file",
        change: Change::Next(NODES),
        flag: None,
        doc: "A file with the user name, instead of upstream.user: a Kubernetes Secret has it \
              beside the password. Read again when it changes. \"\" is none.",
        field: |c| Field::Path(&mut c.upstream.user_file),
    },
    Key {
        path: "upstream.password",
        change: Change::Next(NODES),
        flag: None,
        doc: "Password for AUTH at the nodes. \"\" without a user sends no AUTH. Never shown, \
              neither in the log nor by `slotway check`. Set it as SLOTWAY_UPSTREAM__PASSWORD \
              rather than in the file or in a flag, which others on the machine can see.",
        field: |c| Field::Secret(&mut c.upstream.password),
    },
    Key {
        path: "upstream.password_file",
        change: Change::Next(NODES),
        flag: None,
        doc: "A file with the password, instead of upstream.password (a Kubernetes Secret, for \
              example). Read again when it changes: new connections use the new password. \"\" is \
              none.",
        field: |c| Field::Path(&mut c.upstream.password_file),
    },
    Key {
        path: "upstream.client_name",
        change: Change::Next(NODES),
        flag: None,
        doc: "Name that slotway's connections have in the nodes' CLIENT LIST.",
        field: |c| Field::Name(&mut c.upstream.client_name),
    },
    Key {
        path: "upstream.connections",
        change: Change::Restart,
        flag: None,
        doc: "Shared connections that each worker opens to each node, for each protocol (RESP2, \
              RESP3) that its clients speak. One carries many clients' commands and is nearly \
              always the fastest. Clients whose commands or replies have 128 KiB or more use one \
              more, which is opened when it is needed.",
        field: |c| Field::Count(&mut c.upstream.connections, 1..=64),
    },
    Key {
        path: "upstream.keepalive",
        change: Change::Next(NODES),
        flag: None,
        doc: "TCP keepalive of connections to nodes: the kernel probes a connection after this \
              time without traffic, and closes it after as much time again without an answer. It \
              is for connections that may wait for hours, as those of BLPOP; timeouts.probe \
              watches the others. Data that is sent and not acknowledged (TCP_USER_TIMEOUT) has \
              twice this time, and at least timeouts.command. \"0\" turns both off.",
        field: |c| Field::OptionalDuration(&mut c.upstream.keepalive, ms(1000, HOUR)),
    },
    Key {
        path: "tls.downstream.listen",
        change: Change::Now,
        flag: None,
        doc: "Addresses that clients connect to with TLS, beside those of listen or instead of \
              them. Empty is no TLS. An address may have an upstream, as in listen.",
        field: |c| Field::TlsListeners(c.tls_listeners()),
    },
    Key {
        path: "tls.downstream.announce",
        change: Change::Now,
        flag: None,
        doc: "As announce, for clients that connect with TLS: they are not given announce itself.",
        field: |c| Field::OptionalAddress(&mut c.tls.downstream.announce, 1),
    },
    Key {
        path: "tls.downstream.cert",
        change: Change::Next(CLIENTS),
        flag: None,
        doc: "The certificate that is presented to clients, followed by its intermediates (not the \
              root). Required with tls.downstream.listen.",
        field: |c| Field::File(&mut c.tls.downstream.cert),
    },
    Key {
        path: "tls.downstream.key",
        change: Change::Next(CLIENTS),
        flag: None,
        doc: "Its private key, not encrypted (PKCS#8, PKCS#1 or SEC1). Required with \
              tls.downstream.cert; may be the same file.",
        field: |c| Field::File(&mut c.tls.downstream.key),
    },
    Key {
        path: "tls.downstream.client_ca",
        change: Change::Next(CLIENTS),
        flag: None,
        doc: "The CAs of clients' certificates, any number in one file. Required unless \
              tls.downstream.client_auth is \"none\".",
        field: |c| Field::File(&mut c.tls.downstream.client_ca),
    },
    Key {
        path: "tls.downstream.client_auth",
        change: Change::Next(CLIENTS),
        flag: None,
        doc: "Mutual TLS. \"none\": clients are not asked for a certificate. \"optional\": a \
              client may present one, which has to be valid. \"required\": every client has to. \
              Where certificates are requested, sessions are not resumed, so that each \
              connection's certificate is checked against the current CAs.",
        field: |c| Field::Choice(&mut c.tls.downstream.client_auth),
    },
    Key {
        path: "tls.downstream.user_from",
        change: Change::Next(CLIENTS),
        flag: None,
        doc: "The field of a client's certificate that holds its user name: \"cn\" (the subject's \
              common name), \"san\" (the first subject alternative name that is a DNS name, an \
              e-mail address or a URI), or \"none\".",
        field: |c| Field::Choice(&mut c.tls.downstream.user_from),
    },
    Key {
        path: "tls.downstream.min_version",
        change: Change::Next(CLIENTS),
        flag: None,
        doc: "The oldest TLS version that is accepted from clients; 1.3 is the newest.",
        field: |c| Field::Choice(&mut c.tls.downstream.min_version),
    },
    Key {
        path: "tls.downstream.handshake_timeout",
        change: Change::Now,
        flag: None,
        doc: "Time limit for a client's handshake, after which it is closed. While more than 1,024 \
              clients of a worker are in their handshakes, the limit is one second.",
        field: |c| Field::Duration(&mut c.tls.downstream.handshake_timeout, ms(100, HOUR)),
    },
    Key {
        path: "tls.upstream.enabled",
        change: Change::Restart,
        flag: None,
        doc: "Whether connections to nodes use TLS. seeds are then the nodes' TLS ports; slotway \
              learns the others from the cluster (tls-port in CLUSTER SHARDS). Needs a restart, \
              because nodes are identified by their ports, which differ with TLS.",
        field: |c| Field::Boolean(&mut c.tls.upstream.enabled),
    },
    Key {
        path: "tls.upstream.ca",
        change: Change::Next(NODES),
        flag: None,
        doc: "The CAs of the nodes' certificates. \"\" is the machine's own trust store \
              (/etc/ssl/certs, or SSL_CERT_FILE and SSL_CERT_DIR).",
        field: |c| Field::File(&mut c.tls.upstream.ca),
    },
    Key {
        path: "tls.upstream.verify",
        change: Change::Next(NODES),
        flag: None,
        doc: "How nodes' certificates are verified. \"full\": the chain up to one of the CAs, and \
              the node's name: the name that the cluster announces for it \
              (cluster-announce-hostname), otherwise its IP address; for a seed, the name in \
              seeds; or tls.upstream.server_name. \"chain\": only the chain up to one of the CAs, \
              as the nodes do among themselves; right if that CA signs only nodes. \"none\": no \
              verification, which protects against eavesdropping but not against impersonation.",
        field: |c| Field::Choice(&mut c.tls.upstream.verify),
    },
    Key {
        path: "tls.upstream.server_name",
        change: Change::Next(NODES),
        flag: None,
        doc: "The name to expect in every node's certificate, and to send as SNI, instead of each \
              node's own. \"\" is each node's own.",
        field: |c| Field::Name(&mut c.tls.upstream.server_name),
    },
    Key {
        path: "tls.upstream.cert",
        change: Change::Next(NODES),
        flag: None,
        doc: "The client certificate that slotway presents to nodes, with its intermediates, if \
              they request one (tls-auth-clients, which is yes by default). \"\" is none.",
        field: |c| Field::File(&mut c.tls.upstream.cert),
    },
    Key {
        path: "tls.upstream.key",
        change: Change::Next(NODES),
        flag: None,
        doc: "Its private key, as tls.downstream.key.",
        field: |c| Field::File(&mut c.tls.upstream.key),
    },
    Key {
        path: "tls.upstream.min_version",
        change: Change::Next(NODES),
        flag: None,
        doc: "The oldest TLS version that is accepted from nodes; 1.3 is the newest.",
        field: |c| Field::Choice(&mut c.tls.upstream.min_version),
    },
    Key {
        path: "tls.admin.cert",
        change: Change::Next(REQUESTS),
        flag: None,
        doc: "The certificate of the admin listener, followed by its intermediates. With it \
              /metrics, /healthz and the others are HTTPS only. slotway probe trusts this \
              certificate and no other.",
        field: |c| Field::File(&mut c.tls.admin.cert),
    },
    Key {
        path: "tls.admin.key",
        change: Change::Next(REQUESTS),
        flag: None,
        doc: "Its private key, as tls.downstream.key.",
        field: |c| Field::File(&mut c.tls.admin.key),
    },
    Key {
        path: "tls.admin.min_version",
        change: Change::Next(REQUESTS),
        flag: None,
        doc: "The oldest TLS version that the admin listener accepts; 1.3 is the newest.",
        field: |c| Field::Choice(&mut c.tls.admin.min_version),
    },
    Key {
        path: "proxy_protocol.listen",
        change: Change::Next(REQUESTS),
        flag: None,
        doc: "The addresses of listen and tls.downstream.listen, written as they are there, on \
              which each connection begins with the header, before TLS if there is TLS. A \
              connection that begins without a header gets an error and is closed. On addresses \
              that are not named here a connection that begins with a header gets an error and is \
              closed.",
        field: |c| Field::Listeners(&mut c.proxy_protocol.listen),
    },
    Key {
        path: "proxy_protocol.trusted",
        change: Change::Next(REQUESTS),
        flag: None,
        doc: "Networks or addresses of the load balancers. A connection to proxy_protocol.listen \
              from anywhere else gets an error and is closed, because a header can claim any \
              address. Unix sockets are trusted.",
        field: |c| Field::Networks(&mut c.proxy_protocol.trusted),
    },
    Key {
        path: "proxy_protocol.timeout",
        change: Change::Next(REQUESTS),
        flag: None,
        doc: "Time limit for the arrival of the header. After that the connection is closed.",
        field: |c| Field::Duration(&mut c.proxy_protocol.timeout, ms(1, HOUR)),
    },
    Key {
        path: "timeouts.command",
        change: Change::Now,
        flag: None,
        doc: "Deadline of a command, from its arrival to its reply, with all redirections and \
              retries. After that the client gets an error. A large reply that is arriving may \
              take twelve times as long. If it is shorter than a failover (cluster-node-timeout \
              and up to three seconds), failovers are visible to clients; slotway logs a warning \
              then. \"0\" sets no limit.",
        field: |c| Field::OptionalDuration(&mut c.timeouts.command, ms(1, 24 * HOUR)),
    },
    Key {
        path: "timeouts.connect",
        change: Change::Now,
        flag: None,
        doc: "Time limit for opening a connection to a node, AUTH included. After that the attempt \
              has failed, and [reconnect] determines the next one.",
        field: |c| Field::Duration(&mut c.timeouts.connect, ms(1, HOUR)),
    },
    Key {
        path: "timeouts.no_primary",
        change: Change::Now,
        flag: None,
        doc: "A slot without a primary for longer than this fails fast: its commands get \
              CLUSTERDOWN and the reason at once, instead of waiting for timeouts.command. A slot \
              has no primary if the cluster names none, if it cannot be reached, or if it refuses \
              commands (CLUSTERDOWN, LOADING). Set it longer than a failover takes \
              (cluster-node-timeout and up to three seconds), or failovers become visible. \"0\" \
              waits.",
        field: |c| Field::OptionalDuration(&mut c.timeouts.no_primary, ms(1, 24 * HOUR)),
    },
    Key {
        path: "timeouts.probe",
        change: Change::Now,
        flag: None,
        doc: "A node that owes replies and has been silent for this time is probed: slotway opens \
              another connection to it and asks the cluster about it, several times a second. \
              Until there is a sign of life nothing more is written to it. As soon as another node \
              has taken its place, commands that it owes replies to are treated by the rules for \
              lost connections (docs/commands.md) instead of waiting for timeouts.command. On an \
              idle connection, PING is sent after ten times this time. \"0\" turns all of this \
              off.",
        field: |c| Field::OptionalDuration(&mut c.timeouts.probe, ms(20, HOUR)),
    },
    Key {
        path: "timeouts.drain",
        change: Change::Now,
        flag: None,
        doc: "After SIGTERM: how long slotway waits for the replies to commands in flight before \
              it closes the remaining clients and ends. \"0\" does not wait.",
        field: |c| Field::Duration(&mut c.timeouts.drain, ms(0, 24 * HOUR)),
    },
    Key {
        path: "timeouts.login",
        change: Change::Now,
        flag: None,
        doc: "Time limit for the login of a client that has to log in (users, users_file, auth), \
              from its connection on, or from the end of its TLS handshake, which \
              tls.downstream.handshake_timeout limits. After that it gets the error NOAUTH and is \
              closed, so that connections without a login do not use up limits.clients. Where no \
              login is required it has no effect. \"0\" sets no limit.",
        field: |c| Field::OptionalDuration(&mut c.timeouts.login, ms(1, HOUR)),
    },
    Key {
        path: "timeouts.idle",
        change: Change::Now,
        flag: None,
        doc: "A client that has sent nothing for this time, and waits for nothing, is closed. \
              \"0\" never closes one.",
        field: |c| Field::OptionalDuration(&mut c.timeouts.idle, ms(1, 30 * 24 * HOUR)),
    },
    Key {
        path: "timeouts.max_age",
        change: Change::Now,
        flag: None,
        doc: "The age at which a client's connection is closed, so that clients spread over \
              slotways that were started later. Each connection has an age limit of its own, \
              between nine tenths of this and all of it, so that they do not all reconnect at \
              once. It is closed at a moment when the client loses nothing: after a reply with no \
              other command outstanding, or when the client has sent nothing for half a second. A \
              transaction (from MULTI or WATCH on) and a blocking command are waited for, however \
              long they take; subscribers and MONITOR are closed when all their output has been \
              sent. \"0\" never closes one.",
        field: |c| Field::OptionalDuration(&mut c.timeouts.max_age, ms(1, 30 * 24 * HOUR)),
    },
    Key {
        path: "timeouts.keepalive",
        change: Change::Next(CLIENTS),
        flag: None,
        doc: "TCP keepalive of clients, as Redis's tcp-keepalive: the kernel probes a client after \
              this time without traffic, and closes the connection after as much time again \
              without an answer; so it does if the client acknowledges nothing for twice this time \
              (TCP_USER_TIMEOUT). \"0\" turns both off.",
        field: |c| Field::OptionalDuration(&mut c.timeouts.keepalive, ms(1000, 24 * HOUR)),
    },
    Key {
        path: "retries.budget_percent",
        change: Change::Now,
        flag: None,
        doc: "Retries per hundred answered commands, over the last second. 0 leaves only \
              retries.min_per_second.",
        field: |c| Field::Count(&mut c.retries.budget_percent, 0..=1000),
    },
    Key {
        path: "retries.min_per_second",
        change: Change::Now,
        flag: None,
        doc: "Retries per second and worker that are always allowed, so that a recovery is noticed \
              even when no command is answered. Subscriptions that nodes refuse have a budget of \
              the same size of their own, for all workers together.",
        field: |c| Field::Count(&mut c.retries.min_per_second, 1..=1_000_000),
    },
    Key {
        path: "reconnect.min",
        change: Change::Now,
        flag: None,
        doc: "The wait after the first failure. Not more than reconnect.max.",
        field: |c| Field::Duration(&mut c.reconnect.min, ms(1, HOUR)),
    },
    Key {
        path: "reconnect.max",
        change: Change::Now,
        flag: None,
        doc: "The longest wait, after many failures.",
        field: |c| Field::Duration(&mut c.reconnect.max, ms(1, HOUR)),
    },
    Key {
        path: "topology.refresh",
        change: Change::Now,
        flag: None,
        doc: "Interval of refreshes when nothing happens. A redirection or a lost node causes one \
              at once.",
        field: |c| Field::Duration(&mut c.topology.refresh, ms(10, 24 * HOUR)),
    },
    Key {
        path: "topology.min_interval",
        change: Change::Now,
        flag: None,
        doc: "Shortest interval between two refreshes, however many redirections cause one. Not \
              more than topology.refresh.",
        field: |c| Field::Duration(&mut c.topology.min_interval, ms(1, HOUR)),
    },
    Key {
        path: "replicas.max_lag",
        change: Change::Now,
        flag: None,
        doc: "A replica that has not heard of its primary for longer is not read from \
              (master_last_io_seconds_ago in its INFO, whole seconds). A primary that has nothing \
              to replicate still sends PING every repl-ping-replica-period (10 s by default): a \
              lower limit takes replicas out of use in quiet times. This is not the age of the \
              data; it ensures that the replica is connected to a live primary. \"0\" sets no \
              limit.",
        field: |c| Field::OptionalDuration(&mut c.replicas.max_lag, ms(1000, 24 * HOUR)),
    },
    Key {
        path: "replicas.max_lag_bytes",
        change: Change::Now,
        flag: None,
        doc: "A replica that lacks more of the replication stream than this is not read from: the \
              primary's master_repl_offset less the replica's slave_repl_offset. The primary is \
              asked first, so that data written between the two requests does not count. \"0B\" \
              sets no limit.",
        field: |c| Field::Size(&mut c.replicas.max_lag_bytes, 0..=TIB),
    },
    Key {
        path: "replicas.check",
        change: Change::Now,
        flag: None,
        doc: "Interval at which slotway asks each node whether it is still the one that the \
              topology has at its address (CLUSTER MYID): connections to one that is not are \
              closed. Primaries and replicas are also asked for INFO replication, from the start \
              with a read_from other than \"primary\" or replicas.in_failover = \"read\", \
              otherwise once a client has sent READONLY. A replica is not read from if it does not \
              answer within timeouts.connect, has become another node, has lost the link to its \
              primary, or is above one of the two limits, until a later check passes; commands \
              that it has not answered go to the primary. slotway_replicas counts replicas by \
              state.",
        field: |c| Field::Duration(&mut c.replicas.check, ms(50, HOUR)),
    },
    Key {
        path: "replicas.in_failover",
        change: Change::Now,
        flag: None,
        doc: "Reads with read_from = \"primary\" whose primary is not reached. \"wait\": they wait \
              for it or its successor, as writes do. \"read\": a replica answers, so that reads go \
              on during a failover, with data that may lack the last writes, the client's own \
              included. (With any other read_from replicas answer in that case regardless.) The \
              replicas' link to their primary is down then, which is ignored while the primary is \
              not reached. Nodes that consider the cluster to be down refuse reads, and these \
              wait: set cluster-allow-reads-when-down yes there (or cluster-require-full-coverage \
              no) for reads through the whole of a failover.",
        field: |c| Field::Choice(&mut c.replicas.in_failover),
    },
    Key {
        path: "replicas.zones",
        change: Change::Now,
        flag: None,
        doc: "The zones of nodes, for read_from = \"zone\": \"10.0.0.1:7000=a\" for one node, \
              \"10.0.0.1=a\" for all nodes of a host, with the host as the cluster announces it or \
              as an IP address. Nodes that are not listed are in the zone that they report \
              (availability_zone in INFO, which Valkey has and Redis 7.0 does not), others in \
              none.",
        field: |c| Field::Zones(&mut c.replicas.zones),
    },
    Key {
        path: "transactions.cross_slot",
        change: Change::Now,
        flag: None,
        doc: "Transactions whose keys are in several slots. \"reject\": CROSSSLOT, as from any \
              cluster, naming two of the keys and their slots. \"split\": one MULTI … EXEC per \
              slot, sent at the same time, the replies put back in the order of the commands; \
              commands for several slots or all shards (MGET, DEL, DBSIZE) are allowed as well, \
              and WATCH may name keys of several slots. That gives up atomicity: each slot's part \
              is atomic by itself, but another client can see one part executed and another not \
              yet, and if one part fails (its shard is lost, out of memory) the others are \
              executed; the failed part's commands have the error in their places. redis-py's \
              pipeline() is a transaction by default. slotway_transactions_total counts both \
              kinds.",
        field: |c| Field::Choice(&mut c.transactions.cross_slot),
    },
    Key {
        path: "pubsub.output_hard",
        change: Change::Now,
        flag: None,
        doc: "Limit of the messages and replies that wait for one subscriber because it does not \
              read them. At the limit that subscriber is closed; others are not affected. It \
              corresponds to Redis's client-output-buffer-limit pubsub, and replaces \
              limits.client_output while a client is subscribed.",
        field: |c| Field::Size(&mut c.pubsub.output_hard, KIB..=TIB),
    },
    Key {
        path: "pubsub.output_soft",
        change: Change::Now,
        flag: None,
        doc: "A subscriber whose waiting output has been above this for pubsub.output_soft_time \
              without a break is closed. Not more than pubsub.output_hard.",
        field: |c| Field::Size(&mut c.pubsub.output_soft, KIB..=TIB),
    },
    Key {
        path: "pubsub.output_soft_time",
        change: Change::Now,
        flag: None,
        doc: "How long a subscriber may stay above pubsub.output_soft.",
        field: |c| Field::Duration(&mut c.pubsub.output_soft_time, ms(1, 24 * HOUR)),
    },
    Key {
        path: "pubsub.on_gap",
        change: Change::Now,
        flag: None,
        doc: "Subscribers of a channel or pattern that may have missed messages, because a node \
              was lost or a shard channel's slot has moved. \"keep\": they stay connected, the \
              subscription is restored, and slotway_pubsub_gaps_total counts it. \"disconnect\": \
              their connections are closed as well, for applications that must know, and that \
              fetch what they may have missed when they reconnect.",
        field: |c| Field::Choice(&mut c.pubsub.on_gap),
    },
    Key {
        path: "limits.clients",
        change: Change::Now,
        flag: None,
        doc: "Clients connected at the same time. At the limit a new one gets \"ERR max number of \
              clients reached\" with the reason and is closed, as with Redis. Each needs a file \
              descriptor: slotway raises its limit on open files as far as it may (ulimit -Hn, \
              LimitNOFILE), reserves what connections to nodes, the admin listener and files need, \
              and lowers this limit, and limits.dedicated, to the rest; a line in the log and \
              slotway_limit report it. When the cluster grows, and with it the connections to \
              nodes, the clients that have been idle longest are closed.",
        field: |c| Field::Count(&mut c.limits.clients, 1..=1_000_000),
    },
    Key {
        path: "limits.client_output",
        change: Change::Now,
        flag: None,
        doc: "Limit of the replies that wait for one client because it does not read them. At the \
              limit that client is closed; others are not affected. It has to be larger than the \
              largest reply that clients ask for.",
        field: |c| Field::Size(&mut c.limits.client_output, 64 * KIB..=TIB),
    },
    Key {
        path: "limits.upstream_in_flight",
        change: Change::Now,
        flag: None,
        doc: "Bytes of commands on one connection to a node that are not answered yet. At the \
              limit slotway stops reading from the clients that send to that node, until it has \
              caught up. A single larger command is still sent. One client alone does not reach \
              the limit: with a long pipeline it waits for its own replies first, sooner if others \
              use the connection.",
        field: |c| Field::Size(&mut c.limits.upstream_in_flight, 64 * KIB..=TIB),
    },
    Key {
        path: "limits.memory",
        change: Change::Now,
        flag: None,
        doc: "All buffers of all clients and nodes together; each worker has an equal share. The \
              resident memory of the process stays below this plus 64 MiB, whatever clients do. \
              \"auto\" is three quarters of what a container's limit (cgroup v1 or v2) leaves \
              beside these 64 MiB, which leaves the rest to the kernel's socket buffers; without \
              such a limit, half of what the machine's memory leaves; at least 16 MiB. At the \
              limit new commands are refused with an error until memory is free again, and while \
              clients' buffers are more than half of it, the clients that hold most are closed: \
              see docs/reliability.md. A value or a reply that is kept whole has to fit into one \
              worker's share.",
        field: |c| Field::Memory(&mut c.limits.memory, MIB..=TIB),
    },
    Key {
        path: "limits.held",
        change: Change::Now,
        flag: None,
        doc: "Bytes of commands that wait because their slot is being moved or has no primary at \
              the moment (a failover). At the limit further commands for such slots get an error \
              at once.",
        field: |c| Field::Size(&mut c.limits.held, 0..=TIB),
    },
    Key {
        path: "limits.scripts",
        change: Change::Now,
        flag: None,
        doc: "Lua scripts from EVAL and SCRIPT LOAD that slotway keeps, to load them into nodes \
              that lack them. At the limit the least recently used one is forgotten: nothing \
              happens to it on the nodes, but a node that lacks it then answers EVALSHA with \
              NOSCRIPT, and the client has to load it again.",
        field: |c| Field::Size(&mut c.limits.scripts, 0..=TIB),
    },
    Key {
        path: "limits.dedicated",
        change: Change::Now,
        flag: None,
        doc: "Connections to nodes that are lent to one client at a time: while it blocks (BLPOP, \
              XREAD BLOCK, WAIT …), between WATCH and EXEC, for MONITOR and KEYS. The limit is for \
              all workers together; each worker keeps up to 64 idle ones besides. At the limit \
              such a command gets an error at once. Each connection needs a file descriptor and \
              counts against the node's maxclients.",
        field: |c| Field::Count(&mut c.limits.dedicated, 1..=1_000_000),
    },
    Key {
        path: "limits.users",
        change: Change::Now,
        flag: None,
        doc: "Users of the cluster (auth = \"passthrough\") for whom a worker keeps connections at \
              the same time: one per user, password, node and protocol, closed a minute after the \
              last client of that user has gone. Databases other than 0 that clients have selected \
              count as well. At the limit a further login, or SELECT, gets an error.",
        field: |c| Field::Count(&mut c.limits.users, 1..=10_000),
    },
    Key {
        path: "limits.bulk",
        change: Change::Now,
        flag: None,
        doc: "The largest single argument of a command, which is also the largest value that can \
              be written. Above it the client gets \"ERR Protocol error: invalid bulk length\" and \
              is closed, as with Redis. It should not be above the nodes' proto-max-bulk-len.",
        field: |c| Field::Size(&mut c.limits.bulk, KIB..=2 * GIB),
    },
    Key {
        path: "limits.inline",
        change: Change::Now,
        flag: None,
        doc: "The longest line of a command that is sent as plain text (inline command). Above it \
              the client gets \"ERR Protocol error: too big inline request\" and is closed, as \
              with Redis.",
        field: |c| Field::Size(&mut c.limits.inline, KIB..=16 * MIB),
    },
    Key {
        path: "limits.multibulk",
        change: Change::Now,
        flag: None,
        doc: "The largest number of arguments of one command. Above it the client gets \"ERR \
              Protocol error: invalid multibulk length\" and is closed, as with Redis. The default \
              is that of Redis 7.0.",
        field: |c| Field::Count(&mut c.limits.multibulk, 16..=i32::MAX as usize),
    },
    Key {
        path: "observe.hot_keys",
        change: Change::Now,
        flag: None,
        doc: "Whether hot keys and big keys are tracked. Each worker keeps up to 256 hot and 128 \
              big ones, some 100 KiB.",
        field: |c| Field::Boolean(&mut c.observe.hot_keys),
    },
    Key {
        path: "observe.sample",
        change: Change::Now,
        flag: None,
        doc: "One command in this many, chosen at random, is sampled for hot keys. A lower number \
              makes the rates more exact where there are few commands, and costs more.",
        field: |c| Field::Count(&mut c.observe.sample, 1..=1_000_000),
    },
    Key {
        path: "slowlog.slower_than",
        change: Change::Now,
        flag: None,
        doc: "The duration, from reading the command to having its reply, from which on a command \
              enters slotway's slow log. Commands that block (BLPOP …) do not. CONFIG SET \
              slowlog-log-slower-than, in microseconds, sets it on the nodes and here, until the \
              next start. \"0\" turns it off.",
        field: |c| Field::OptionalDuration(&mut c.slowlog.slower_than, ms(1, HOUR)),
    },
    Key {
        path: "slowlog.max_len",
        change: Change::Now,
        flag: None,
        doc: "Number of entries kept, for all workers together; the oldest is dropped first. \
              CONFIG SET slowlog-max-len sets it on the nodes and here, until the next start.",
        field: |c| Field::Count(&mut c.slowlog.max_len, 0..=crate::observe::SlowLog::MAX_LEN),
    },
    Key {
        path: "tracing.endpoint",
        change: Change::Restart,
        flag: None,
        doc: "The collector that spans are sent to, by OTLP over HTTP in JSON (application/json): \
              \"http://127.0.0.1:4318\" (then the path is /v1/traces), or with a path. \"\" sends \
              none and costs nothing.",
        field: |c| Field::Text(&mut c.tracing.endpoint),
    },
    Key {
        path: "tracing.sample",
        change: Change::Now,
        flag: None,
        doc: "One command in this many is traced, chosen at random.",
        field: |c| Field::Count(&mut c.tracing.sample, 1..=1_000_000_000),
    },
    Key {
        path: "tracing.service_name",
        change: Change::Restart,
        flag: None,
        doc: "The spans' service.name.",
        field: |c| Field::Text(&mut c.tracing.service_name),
    },
    Key {
        path: "commands.deny",
        change: Change::Now,
        flag: None,
        doc: "Commands that are refused with an error. In any case, commands that would act on one \
              node behind the cluster's back are denied unless commands.allow names them \
              (SHUTDOWN, REPLICAOF, SLAVEOF, FAILOVER, MIGRATE, MODULE LOAD, LOADEX and UNLOAD, \
              SWAPDB, DEBUG, and those of CLUSTER that change the cluster), and commands that \
              would take over a connection that clients share are always denied (SYNC, PSYNC, \
              REPLCONF, SCRIPT DEBUG); docs/commands.md lists them all. Commands inside scripts \
              and functions are not checked: to prevent a command altogether, list \"@scripting\" \
              as well.",
        field: |c| Field::CommandRules(&mut c.commands.deny),
    },
    Key {
        path: "commands.allow",
        change: Change::Now,
        flag: None,
        doc: "Exceptions from commands.deny, and from what is denied by default; the latter only \
              by name or with \"@dangerous\", so that deny = [\"@all\"], allow = [\"@write\"] does \
              not allow MIGRATE. A command that would act on one node goes to the node of its \
              keys, otherwise to any primary.",
        field: |c| Field::CommandRules(&mut c.commands.allow),
    },
    Key {
        path: "commands.on_outcome_unknown",
        change: Change::Now,
        flag: None,
        doc: "The reply to a command that was sent to a node and whose reply is lost: it may or \
              may not have been executed, and may have changed data (commands that only read are \
              sent again). \"error\": an error with the code OUTCOMEUNKNOWN; the connection stays. \
              \"disconnect\": the connection is closed in place of that error, after the replies \
              before it, as when a server fails. Clients then do what they do when a server fails: \
              they reconnect, and send again what they are configured to (redis-py's retry, which \
              executes a write twice if the first one was executed). For applications that an \
              unexpected error ends, such as Celery's workers. \
              slotway_clients_disconnected_total{reason=\"outcome_unknown\"} counts.",
        field: |c| Field::Choice(&mut c.on_outcome_unknown),
    },
    Key {
        path: "commands.blocking",
        change: Change::Now,
        flag: None,
        doc: "Modules' commands that block their connection without the flag blocking in COMMAND. \
              On a shared connection all clients would wait with them, so each is sent on a \
              connection lent to its client, as BLPOP is (limits.dedicated); timeouts.command \
              remains its deadline. Slotway detects such a command by itself when it has held \
              others up for a tenth of a second and its node reports that the connection is \
              blocked (the log names it, slotway_commands_learned_blocking counts), but forgets it \
              when it ends. Commands that are not for one node (all shards, scripts) are not \
              affected.",
        field: |c| Field::Commands(&mut c.commands.blocking),
    },
    Key {
        path: "commands.cross_slot",
        change: Change::Now,
        flag: None,
        doc: "Commands whose keys are in several slots, and which a cluster refuses (SINTER, \
              RENAME, ZUNIONSTORE, BLPOP, SORT with GET …; MGET, MSET, DEL, UNLINK, EXISTS and \
              TOUCH are always split). \"reject\": CROSSSLOT, as from any cluster, naming two of \
              the keys and their slots. \"emulate\": slotway carries the command out with several \
              commands that stay in one slot each, and replies as a single server would. Other \
              clients can see the steps in between; docs/commands.md lists for each command what \
              else is given up. Commands whose keys share a slot are sent as always. EVAL and \
              FCALL are always refused, and so is inside MULTI what would be emulated. \
              slotway_emulated_total counts.",
        field: |c| Field::Choice(&mut c.emulation.cross_slot),
    },
    Key {
        path: "commands.cross_slot_turn",
        change: Change::Now,
        flag: None,
        doc: "The longest pause between two polls of a blocking command over several slots (BLPOP \
              of keys in different slots, with commands.cross_slot = \"emulate\"): within this \
              time it notices a pushed element. It polls more often at first. Each poll is a read \
              for each key.",
        field: |c| Field::Duration(&mut c.emulation.turn, ms(1, 1000)),
    },
    Key {
        path: "log.level",
        change: Change::Now,
        flag: Some("--log-level"),
        doc: "Lowest level of the lines that are logged. \"info\" has no line per command. For one \
              part of slotway only: \"info,slotway::upstream=debug\".",
        field: |c| Field::Level(&mut c.log.level),
    },
    Key {
        path: "log.format",
        change: Change::Restart,
        flag: None,
        doc: "\"text\" for people, \"json\" for log collectors: one object per line.",
        field: |c| Field::Choice(&mut c.log.format),
    },
];

/// The key with this path.
pub(super) fn key(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.path)
    }
}
