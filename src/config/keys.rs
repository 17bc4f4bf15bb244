//! The one table of keys: path, meaning, place in [`Config`].
//!
//! The texts are for operators; they become the comments of `proxy.toml` and the entries of
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
    /// With the reload.
    Now,
    /// With the reload, for what is made from then on: for what.
    Next(&'static str),
    /// When slotway is started again.
    Restart,
}

/// One key.
pub struct Key {
    /// Its path, as in the file: `limits.clients`.
    pub path: &'static str,
    /// Its own flag, where it has one; `--set` works for every key.
    pub flag: Option<&'static str>,
    /// Whether a reload changes it.
    pub change: Change,
    /// What it does, in an operator's words.
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

    /// What may be written: type, unit, range.
    pub fn accepts(&self) -> String {
        (self.field)(&mut Config::default()).accepts()
    }
}

/// A section of the file.
#[derive(Debug)]
pub struct Section {
    /// Its name.
    pub name: &'static str,
    /// What its keys have in common.
    pub doc: &'static str,
}

/// The sections, in the order of the file. The keys without a section come before them.
pub static SECTIONS: &[Section] = &[
    Section { name: "upstream", doc: "Connections to the nodes of the cluster." },
    Section {
        name: "tls.downstream",
        doc: "TLS for clients. All files are PEM and are read again when they have changed (they \
              are looked at every two seconds, and at SIGHUP): connections stay, new handshakes \
              use what is new; a file that cannot be used changes nothing and is logged \
              (slotway_tls_reloads_total).",
    },
    Section {
        name: "tls.upstream",
        doc: "TLS for all connections to the nodes: those of clients' commands, pub/sub, and \
              slotway's own questions. The nodes need tls-port and tls-cluster yes. Files are \
              read again as those of [tls.downstream]; connections that stand stay.",
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
    Section { name: "timeouts", doc: "How long slotway waits." },
    Section {
        name: "retries",
        doc: "How much of what slotway sends may be retries of commands that nodes have refused \
              (CLUSTERDOWN, LOADING, TRYAGAIN …) or that were lost. Each worker has a budget of \
              its own; a retry beyond it waits for the budget or its deadline \
              (slotway_retry_budget_exhausted_total). Redirections that lead on are no retries.",
    },
    Section {
        name: "reconnect",
        doc: "How soon slotway tries again after a connection to a node failed or was lost. Each \
              failure doubles the wait, from min to max; every wait is shortened at random, so \
              that many slotways do not return to a node at the same moment.",
    },
    Section {
        name: "topology",
        doc: "How often slotway asks the cluster which node serves which slots.",
    },
    Section {
        name: "replicas",
        doc: "Which replicas are read from, where read_from or READONLY asks for it. Only those \
              that the cluster reports as online are.",
    },
    Section { name: "transactions", doc: "MULTI … EXEC, and WATCH." },
    Section {
        name: "pubsub",
        doc: "Subscribers. Whatever their number, slotway subscribes once to each channel and \
              pattern at the cluster.",
    },
    Section {
        name: "limits",
        doc: "What slotway holds at most, so that neither a client nor a node that stands still \
              can exhaust the machine. limits.memory stands above the others: where it is the \
              smaller one, it is reached first.",
    },
    Section {
        name: "observe",
        doc: "Which keys are used most and which are big, for PROXY HOTKEYS and PROXY BIGKEYS, and \
              /hotkeys and /bigkeys of the admin listener.",
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
        doc: "Which commands clients may send. Entries are commands (\"keys\"), subcommands \
              (\"config|set\") and ACL categories (\"@dangerous\"; \"@all\" is every command). The \
              more specific entry counts: a subcommand before its command, that before a \
              category, that before \"@all\"; of two equally specific ones the one that denies. So \
              deny = [\"@all\"], allow = [\"@read\", \"@connection\"] leaves what reads. Commands \
              that the cluster has and Redis 7.0 has not obey too; a module's command (a name \
              with a dot) is not checked against a list. What scripts call is the nodes' to allow.",
    },
    Section { name: "log", doc: "Log lines go to standard error." },
];

const NODES: &str = "connections to nodes";
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
        doc: "Where clients connect. Any number of TCP addresses (IPv4, IPv6, or a DNS name, \
              which stands for all its addresses) and Unix sockets. \"0.0.0.0:6379\" is every \
              IPv4 address of the machine, \"[::]:6379\" every IPv6 address, port 0 a free one. \
              An address that is taken ends the start with an error, unless hand_over is \
              \"on\". A socket with that address that systemd hands over (socket activation) is \
              used instead of a new one. At run time: what is added is listened on as well; at \
              what is removed no more clients are accepted, and those that are there stay. \
              Clients speak plainly here; with TLS they connect to tls.downstream.listen, and \
              listen = [] serves only those.",
        field: |c| Field::Listeners(&mut c.listen),
    },
    Key {
        path: "hand_over",
        change: Change::Next("listeners"),
        flag: None,
        doc: "\"on\": another slotway of the same operating system user, with hand_over = \"on\" \
              as well, may listen on the same addresses, so that a new version takes over from a \
              running one without a refused or lost connection (docs/upgrade.md). The new one \
              begins to listen when it knows the cluster, and gets all new clients from then on; \
              the old one is told to stop after that. For TCP this is SO_REUSEPORT, admin \
              included; a Unix socket's path is taken over. \"off\": an address that is taken is \
              an error, which protects from a second slotway that was started by mistake.",
        field: |c| Field::Choice(&mut c.hand_over),
    },
    Key {
        path: "seeds",
        change: Change::Now,
        flag: Some("--seeds"),
        doc: "Nodes of the cluster that slotway asks first; it learns the others from them. One \
              is enough, several let slotway start while one of them is down. DNS names are \
              resolved again whenever they are used. `slotway run` does not start without any; \
              `slotway sandbox` puts its own nodes here.",
        field: |c| Field::Addresses(&mut c.seeds, 1),
    },
    Key {
        path: "workers",
        change: Change::Now,
        flag: Some("--workers"),
        doc: "Threads that serve clients; each has its own connections to the nodes. \"auto\" is \
              one per core that the process may use (a container's CPU limit counts). New \
              clients go to the worker that has the fewest. At run time: of fewer workers the \
              superfluous ones get no new clients and end when their last one has gone.",
        field: |c| Field::Workers(&mut c.workers),
    },
    Key {
        path: "admin",
        change: Change::Now,
        flag: Some("--admin"),
        doc: "Where the admin HTTP listener answers: the status page at / for browsers, /metrics, \
              /healthz, /readyz. Without admin_token it asks nobody who they are: keep it off public addresses then. \"\" turns it off.",
        field: |c| Field::OptionalAddress(&mut c.admin, 0),
    },
    Key {
        path: "announce",
        change: Change::Now,
        flag: None,
        doc: "The address that clients which speak to a Redis Cluster are told (CLUSTER SLOTS and \
              the like): slotway is the one node of the cluster that they see. \"\" tells each \
              client the address it has connected to. Set it where that address is not the one \
              to connect to: behind a load balancer or port forwarding. Clients on a Unix socket \
              are told the first TCP address of listen otherwise.",
        field: |c| Field::OptionalAddress(&mut c.announce, 1),
    },
    Key {
        path: "announce_mode",
        change: Change::Now,
        flag: None,
        doc: "The mode that slotway says it is in: redis_mode and cluster_enabled in INFO, mode in \
              HELLO. \"standalone\" suits clients that are not made for a cluster, some of which \
              decide by it what they may send. \"cluster\" suits tools that refuse servers which \
              are in no cluster, such as redis-cli --cluster check: they see a cluster of one node. \
              It changes nothing else: CLUSTER is answered in both modes, and so are commands with \
              keys in several slots.",
        field: |c| Field::Choice(&mut c.announce_mode),
    },
    Key {
        path: "read_from",
        change: Change::Now,
        flag: None,
        doc: "Which nodes answer commands that only read and have all keys in one slot. Anything \
              but \"primary\" lets clients read data that is older than what they have written: \
              replicas are behind their primary. \"primary\": the slot's primary; replicas only for \
              connections that say READONLY. \"prefer_replica\": a replica; the primary where there \
              is none that [replicas] allows. \"any\": all nodes of the shard alike. \
              \"lowest_latency\": the nodes of the shard that have answered fastest lately, as this \
              worker has seen it. \"zone\": the replicas in slotway's own zone (zone), then the \
              primary if it is in that zone, then any replica, then the primary. With each of them \
              a connection and slot keeps to the same node while that is possible, and what cannot \
              be read from replicas goes to the primary; docs/commands.md, *Reading from replicas*, \
              says what that is. slotway_reads_total counts where the reads went.",
        field: |c| Field::Choice(&mut c.read_from),
    },
    Key {
        path: "zone",
        change: Change::Now,
        flag: None,
        doc: "The zone (availability zone, data centre, rack) that this slotway runs in, for \
              read_from = \"zone\". Most easily given by the environment: SLOTWAY_ZONE.",
        field: |c| Field::Name(&mut c.zone),
    },
    Key {
        path: "auth",
        change: Change::Now,
        flag: None,
        doc: "Whose users clients log in as (AUTH, HELLO … AUTH). \"own\": those of users and \
              users_file; without any, nobody has to log in and all clients have the rights of \
              upstream.user. \"passthrough\": names that are not among these are the cluster's: a \
              node verifies the password, and the client's commands travel on connections of that \
              user, so that the cluster's ACLs apply as they are. Who has not logged in is the \
              cluster's default user where that one needs no password. What slotway answers \
              itself (SUBSCRIBE, CLIENT, MULTI …) it asks a node about first, with ACL DRYRUN: \
              upstream.user needs it, and the nodes Redis 7. Reads of such users go to primaries.",
        field: |c| Field::Choice(&mut c.auth),
    },
    Key {
        path: "users",
        change: Change::Now,
        flag: None,
        doc: "Slotway's own users, each in one string: a name, and rules in Redis's ACL syntax: \
              on, off, nopass, #SHA-256 (printf %s PASSWORD | sha256sum) or >PASSWORD, ~KEY, \
              %R~KEY, %W~KEY, &CHANNEL, +COMMAND, -COMMAND, +COMMAND|SUBCOMMAND, +@CATEGORY, \
              (another selector). What they may not do is refused before anything is sent; what \
              they may do is done with the rights of upstream.user. Slotway cannot check what \
              scripts, functions and modules' commands without declared keys do, so it refuses \
              them to users who do not have ~* &* +@all; the rule unchecked-commands, which Redis \
              does not have, allows them to a user all the same, who can then do with a script \
              whatever upstream.user can. As in Redis a client that does not log in is the user \
              \"default\"; where there are users, but none of that name, it has to log in.",
        field: |c| Field::Users(&mut c.users),
    },
    Key {
        path: "users_file",
        change: Change::Now,
        flag: None,
        doc: "A file with more of slotway's own users, as Redis's aclfile: one a line, beginning \
              with \"user\". Read again when it changes: new rules hold at once, who is not in it \
              any more is disconnected; a file with a mistake changes nothing. \"\" is none.",
        field: |c| Field::Path(&mut c.users_file),
    },
    Key {
        path: "protected_mode",
        change: Change::Now,
        flag: None,
        doc: "Slotway does not start where it would listen on an address that other machines can \
              reach and nobody has to log in. false lets it, for networks that keep others away.",
        field: |c| Field::Boolean(&mut c.protected_mode),
    },
    Key {
        path: "admin_token",
        change: Change::Now,
        flag: None,
        doc: "What requests to the admin listener have to show (Authorization: Bearer TOKEN); \"\" \
              is nothing. Give it by the environment or by admin_token_file rather than in a file \
              that others read.",
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
        doc: "/healthz and /readyz want the token, too. They say little, and those who probe \
              often cannot show one.",
        field: |c| Field::Boolean(&mut c.admin_token_for_probes),
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
        doc: "Password for AUTH at the nodes. \"\" without a user sends no AUTH. Never shown: not \
              in the log, not by `slotway check`. Rather than in the file or in a flag, which \
              others on the machine can see, set it as SLOTWAY_UPSTREAM__PASSWORD.",
        field: |c| Field::Secret(&mut c.upstream.password),
    },
    Key {
        path: "upstream.password_file",
        change: Change::Next(NODES),
        flag: None,
        doc: "A file with the password, instead of upstream.password (a Kubernetes Secret, say). \
              Read again when it changes: connections that are made from then on use the new one. \
              \"\" is none.",
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
        doc: "TCP keepalive of connections to nodes: one on which nothing was said for so long is \
              asked for a sign of life by the kernel, and ended when there was none in as much \
              time again. It is for connections that may wait for hours, as those of BLPOP; the \
              others are looked after by timeouts.probe. What was sent and is not acknowledged \
              (TCP_USER_TIMEOUT) has twice this time, and timeouts.command at least. \"0\" is the \
              kernel's own patience, hours.",
        field: |c| Field::OptionalDuration(&mut c.upstream.keepalive, ms(1000, HOUR)),
    },
    Key {
        path: "tls.downstream.listen",
        change: Change::Now,
        flag: None,
        doc: "Where clients connect with TLS: addresses of its own, beside listen or instead of \
              it. Empty is no TLS.",
        field: |c| Field::Addresses(&mut c.tls.downstream.listen, 0),
    },
    Key {
        path: "tls.downstream.announce",
        change: Change::Now,
        flag: None,
        doc: "As announce, for clients that connect with TLS: announce itself is not told them.",
        field: |c| Field::OptionalAddress(&mut c.tls.downstream.announce, 1),
    },
    Key {
        path: "tls.downstream.cert",
        change: Change::Next(CLIENTS),
        flag: None,
        doc: "The certificate that clients are shown, followed by its intermediates (not the \
              root). Needed with tls.downstream.listen.",
        field: |c| Field::File(&mut c.tls.downstream.cert),
    },
    Key {
        path: "tls.downstream.key",
        change: Change::Next(CLIENTS),
        flag: None,
        doc: "Its private key, not encrypted (PKCS#8, PKCS#1 or SEC1). Needed with \
              tls.downstream.cert; may be the same file.",
        field: |c| Field::File(&mut c.tls.downstream.key),
    },
    Key {
        path: "tls.downstream.client_ca",
        change: Change::Next(CLIENTS),
        flag: None,
        doc: "The CAs whose certificates clients may show, any number in one file. Needed unless \
              tls.downstream.client_auth is \"none\".",
        field: |c| Field::File(&mut c.tls.downstream.client_ca),
    },
    Key {
        path: "tls.downstream.client_auth",
        change: Change::Next(CLIENTS),
        flag: None,
        doc: "Mutual TLS. \"none\": clients are not asked for a certificate. \"optional\": those \
              that have one show it, and it has to be valid. \"required\": all clients. Where \
              certificates are asked for, sessions are not resumed, so that each connection's \
              certificate is checked against the CAs as they are.",
        field: |c| Field::Choice(&mut c.tls.downstream.client_auth),
    },
    Key {
        path: "tls.downstream.user_from",
        change: Change::Next(CLIENTS),
        flag: None,
        doc: "What of a client's certificate is its user's name: \"cn\" (the subject's common \
              name), \"san\" (the first subject alternative name that is a DNS name, an e-mail \
              address or a URI), or \"none\".",
        field: |c| Field::Choice(&mut c.tls.downstream.user_from),
    },
    Key {
        path: "tls.downstream.min_version",
        change: Change::Next(CLIENTS),
        flag: None,
        doc: "The oldest version of TLS that clients may speak; 1.3 is the newest.",
        field: |c| Field::Choice(&mut c.tls.downstream.min_version),
    },
    Key {
        path: "tls.downstream.handshake_timeout",
        change: Change::Now,
        flag: None,
        doc: "How long a client may take for its handshake; after that it is closed. While a \
              worker has more than 1,024 clients in their handshakes, one second.",
        field: |c| Field::Duration(&mut c.tls.downstream.handshake_timeout, ms(100, HOUR)),
    },
    Key {
        path: "tls.upstream.enabled",
        change: Change::Restart,
        flag: None,
        doc: "Whether connections to nodes use TLS. seeds are the nodes' TLS ports then; the \
              others are learned from the cluster (tls-port in CLUSTER SHARDS). A running slotway \
              knows the nodes by their ports, which are others with TLS: so this needs a restart.",
        field: |c| Field::Boolean(&mut c.tls.upstream.enabled),
    },
    Key {
        path: "tls.upstream.ca",
        change: Change::Next(NODES),
        flag: None,
        doc: "The CAs that may have signed the nodes' certificates. \"\" is the machine's own \
              trust store (/etc/ssl/certs, or SSL_CERT_FILE and SSL_CERT_DIR).",
        field: |c| Field::File(&mut c.tls.upstream.ca),
    },
    Key {
        path: "tls.upstream.verify",
        change: Change::Next(NODES),
        flag: None,
        doc: "What of a node's certificate is checked. \"full\": that one of the CAs has signed \
              it, and that it is for the node's name: the name the cluster announces for it \
              (cluster-announce-hostname), otherwise its IP address, of a seed the name that it is \
              given by; or tls.upstream.server_name. \"chain\": only that one of the CAs has \
              signed it, as the nodes do among themselves; right where that CA signs nodes only. \
              \"none\": nothing, which protects from listening and from nobody else.",
        field: |c| Field::Choice(&mut c.tls.upstream.verify),
    },
    Key {
        path: "tls.upstream.server_name",
        change: Change::Next(NODES),
        flag: None,
        doc: "The name to look for in every node's certificate, and to send them as SNI, instead \
              of each node's own. \"\" is each node's own.",
        field: |c| Field::Name(&mut c.tls.upstream.server_name),
    },
    Key {
        path: "tls.upstream.cert",
        change: Change::Next(NODES),
        flag: None,
        doc: "The certificate that slotway shows to nodes, with its intermediates, where they ask \
              for one (tls-auth-clients, which is yes by default). \"\" is none.",
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
        doc: "The oldest version of TLS that nodes may speak; 1.3 is the newest.",
        field: |c| Field::Choice(&mut c.tls.upstream.min_version),
    },
    Key {
        path: "tls.admin.cert",
        change: Change::Next(REQUESTS),
        flag: None,
        doc: "The certificate of the admin listener, followed by its intermediates. With it \
              /metrics, /healthz and the others are HTTPS only. slotway probe takes it from here, \
              too, and talks to nobody else.",
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
        doc: "The oldest version of TLS that the admin listener speaks; 1.3 is the newest.",
        field: |c| Field::Choice(&mut c.tls.admin.min_version),
    },
    Key {
        path: "proxy_protocol.listen",
        change: Change::Next(REQUESTS),
        flag: None,
        doc: "Which of the addresses in listen and tls.downstream.listen expect the header, in front \
              of TLS where there is TLS; written as they are written there. A connection that begins \
              without a header gets an error and is closed. An address that is not named here \
              accepts no header: a connection that begins with one gets an error and is closed.",
        field: |c| Field::Listeners(&mut c.proxy_protocol.listen),
    },
    Key {
        path: "proxy_protocol.trusted",
        change: Change::Next(REQUESTS),
        flag: None,
        doc: "The load balancers' networks or addresses. A connection to proxy_protocol.listen from \
              anywhere else gets an error and is closed, because whoever can send a header can claim \
              any address. Unix sockets are trusted.",
        field: |c| Field::Networks(&mut c.proxy_protocol.trusted),
    },
    Key {
        path: "proxy_protocol.timeout",
        change: Change::Next(REQUESTS),
        flag: None,
        doc: "How long the header may take from the connection on. After that the connection is \
              closed.",
        field: |c| Field::Duration(&mut c.proxy_protocol.timeout, ms(1, HOUR)),
    },
    Key {
        path: "timeouts.command",
        change: Change::Now,
        flag: None,
        doc: "How long a command may take from its arrival to its reply, with all redirections \
              and retries. After that the client gets an error. A large reply that is arriving may \
              take twelve times as long. Shorter than a failover takes (cluster-node-timeout and up \
              to three seconds), failovers are visible to clients: slotway warns then. \"0\" sets no \
              limit.",
        field: |c| Field::OptionalDuration(&mut c.timeouts.command, ms(1, 24 * HOUR)),
    },
    Key {
        path: "timeouts.connect",
        change: Change::Now,
        flag: None,
        doc: "How long opening a connection to a node may take, AUTH included. After that the \
              attempt has failed and [reconnect] says when the next one is made.",
        field: |c| Field::Duration(&mut c.timeouts.connect, ms(1, HOUR)),
    },
    Key {
        path: "timeouts.no_primary",
        change: Change::Now,
        flag: None,
        doc: "A slot whose primary has been missing for longer fails fast: its commands are \
              answered with CLUSTERDOWN and the reason at once, instead of waiting for \
              timeouts.command. Missing is a primary that the cluster does not name, that is not \
              reached, or that refuses commands (CLUSTERDOWN, LOADING). Longer than a failover \
              takes (cluster-node-timeout and up to three seconds), or failovers become visible. \
              \"0\" waits.",
        field: |c| Field::OptionalDuration(&mut c.timeouts.no_primary, ms(1, 24 * HOUR)),
    },
    Key {
        path: "timeouts.probe",
        change: Change::Now,
        flag: None,
        doc: "A node that owes answers and has said nothing for so long is looked at: slotway \
              opens another connection to it and asks the cluster about it, several times a \
              second. Until there is a sign of life nothing more is written to it. As soon as \
              another node has taken its place, what it owes is answered by the rules for lost \
              connections (docs/commands.md) instead of at timeouts.command. On a connection that \
              is not used, PING asks for a sign of life in ten times this time. \"0\" does none of \
              this.",
        field: |c| Field::OptionalDuration(&mut c.timeouts.probe, ms(20, HOUR)),
    },
    Key {
        path: "timeouts.drain",
        change: Change::Now,
        flag: None,
        doc: "After SIGTERM: how long slotway waits for the replies to commands in flight before \
              it closes the clients that are left and ends. \"0\" does not wait.",
        field: |c| Field::Duration(&mut c.timeouts.drain, ms(0, 24 * HOUR)),
    },
    Key {
        path: "timeouts.login",
        change: Change::Now,
        flag: None,
        doc: "How long a client that has to log in (users, users_file, auth) may take for it, from \
              its connection on, or from the end of its TLS handshake, which has \
              tls.downstream.handshake_timeout of its own. After that it gets the error NOAUTH and is \
              closed, so that connections of strangers do not use up limits.clients. Where clients \
              need not log in this does nothing. \"0\" sets no limit.",
        field: |c| Field::OptionalDuration(&mut c.timeouts.login, ms(1, HOUR)),
    },
    Key {
        path: "timeouts.idle",
        change: Change::Now,
        flag: None,
        doc: "A client that has sent nothing for so long, and waits for nothing, is closed. \"0\" \
              never closes one.",
        field: |c| Field::OptionalDuration(&mut c.timeouts.idle, ms(1, 30 * 24 * HOUR)),
    },
    Key {
        path: "timeouts.max_age",
        change: Change::Now,
        flag: None,
        doc: "The age at which a client's connection is closed, so that clients spread over slotways \
              that were started later. Each connection has an age of its own, from nine tenths of \
              this to all of it, so that they do not all come back at once. It is closed where the \
              client loses nothing: behind a reply with no other command outstanding, or when it has \
              sent nothing for half a second. A transaction (from MULTI or WATCH on) and a blocking \
              command are waited for, however long they take; subscribers and MONITOR are closed when \
              they have been sent everything. \"0\" never closes one.",
        field: |c| Field::OptionalDuration(&mut c.timeouts.max_age, ms(1, 30 * 24 * HOUR)),
    },
    Key {
        path: "timeouts.keepalive",
        change: Change::Next(CLIENTS),
        flag: None,
        doc: "TCP keepalive of clients, as Redis's tcp-keepalive: one that has said nothing for so \
              long is asked for a sign of life by the kernel, and closed when there was none in as \
              much time again; so is one that takes nothing of what it is sent for twice this \
              time (TCP_USER_TIMEOUT). \"0\" is the kernel's own patience, hours.",
        field: |c| Field::OptionalDuration(&mut c.timeouts.keepalive, ms(1000, 24 * HOUR)),
    },
    Key {
        path: "retries.budget_percent",
        change: Change::Now,
        flag: None,
        doc: "Retries for a hundred answered commands, over the last second. 0 leaves \
              retries.min_per_second.",
        field: |c| Field::Count(&mut c.retries.budget_percent, 0..=1000),
    },
    Key {
        path: "retries.min_per_second",
        change: Change::Now,
        flag: None,
        doc: "Retries per second and worker that are allowed in any case, so that the end of the \
              trouble is noticed when nothing is answered. Subscriptions that nodes refuse have a \
              budget of the same size of their own, for all workers together.",
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
        doc: "How often slotway asks when nothing happens. A redirection or a lost node makes it \
              ask at once.",
        field: |c| Field::Duration(&mut c.topology.refresh, ms(10, 24 * HOUR)),
    },
    Key {
        path: "topology.min_interval",
        change: Change::Now,
        flag: None,
        doc: "The least time between two refreshes, however many redirections ask for one. Not \
              more than topology.refresh.",
        field: |c| Field::Duration(&mut c.topology.min_interval, ms(1, HOUR)),
    },
    Key {
        path: "replicas.max_lag",
        change: Change::Now,
        flag: None,
        doc: "A replica that has heard nothing of its primary for longer is not read from \
              (master_last_io_seconds_ago in its INFO, whole seconds). A primary that has nothing \
              to replicate still says PING every repl-ping-replica-period (10 s unless configured \
              otherwise): a limit below that takes replicas out of use in quiet times. It does not \
              say how old the data is, but that the replica is connected to a primary that lives. \
              \"0\" sets no limit.",
        field: |c| Field::OptionalDuration(&mut c.replicas.max_lag, ms(1000, 24 * HOUR)),
    },
    Key {
        path: "replicas.max_lag_bytes",
        change: Change::Now,
        flag: None,
        doc: "A replica that lacks more of the replication stream is not read from: the primary's \
              master_repl_offset less the replica's slave_repl_offset, the primary asked first, so \
              that what is written between the two questions does not count. \"0B\" sets no limit.",
        field: |c| Field::Size(&mut c.replicas.max_lag_bytes, 0..=TIB),
    },
    Key {
        path: "replicas.check",
        change: Change::Now,
        flag: None,
        doc: "How often slotway asks each node whether it is still the one that the topology has at \
              its address (CLUSTER MYID): connections to one that is not are closed. Primaries and \
              replicas are also asked for INFO replication, \
              from the first moment with a read_from other than \"primary\" or \
              replicas.in_failover = \"read\", otherwise once a client has said READONLY. A \
              replica that does not answer within timeouts.connect or has become another node, \
              whose link to its primary is down, or that is above one of the two limits is not \
              read from until a later answer is better; what it was asked already and does not \
              answer goes to the primary. slotway_replicas says how many and why.",
        field: |c| Field::Duration(&mut c.replicas.check, ms(50, HOUR)),
    },
    Key {
        path: "replicas.in_failover",
        change: Change::Now,
        flag: None,
        doc: "Reads with read_from = \"primary\" whose primary is not reached. \"wait\": they wait \
              for it or its successor, as writes do. \"read\": a replica answers, so that reads go \
              on during a failover, with data that may lack the last writes, those of the client \
              itself included. (With any other read_from replicas answer in that case, whatever is \
              written here.) The replicas' link is down then, which does not count while their \
              primary is not reached. Nodes that consider the cluster as down refuse reads, and \
              these wait: set cluster-allow-reads-when-down yes there (or \
              cluster-require-full-coverage no) for reads through the whole of a failover.",
        field: |c| Field::Choice(&mut c.replicas.in_failover),
    },
    Key {
        path: "replicas.zones",
        change: Change::Now,
        flag: None,
        doc: "The zones of nodes, for read_from = \"zone\": \"10.0.0.1:7000=a\" for one node, \
              \"10.0.0.1=a\" for all of a host, with the host as the cluster announces it or as an \
              IP address. Nodes that are not listed are in the zone that they tell themselves \
              (availability_zone in INFO, which Valkey has and Redis 7.0 has not), others in none.",
        field: |c| Field::Zones(&mut c.replicas.zones),
    },
    Key {
        path: "transactions.cross_slot",
        change: Change::Now,
        flag: None,
        doc: "A transaction whose keys lie in several slots. \"reject\": CROSSSLOT, as every \
              cluster answers, naming two of the keys and their slots. \"split\": one MULTI … EXEC \
              per slot, sent at the same time, the replies put back in the order asked; also \
              commands for several slots or all shards (MGET, DEL, DBSIZE) are let in, and WATCH \
              may name keys of several slots. That gives up all or nothing: each slot's part is \
              atomic by itself, but another client can see one part done and the other not yet, \
              and where one part fails (its shard is lost, out of memory) the others stand; the \
              failed part's commands have the error in their places. redis-py's pipeline() is a \
              transaction unless told otherwise. slotway_transactions_total counts both kinds.",
        field: |c| Field::Choice(&mut c.transactions.cross_slot),
    },
    Key {
        path: "pubsub.output_hard",
        change: Change::Now,
        flag: None,
        doc: "Messages and replies that wait for one subscriber because it does not read them. At \
              the limit that subscriber is closed; the others feel nothing. It is what \
              client-output-buffer-limit pubsub is to Redis, and takes the place of \
              limits.client_output while a client is subscribed.",
        field: |c| Field::Size(&mut c.pubsub.output_hard, KIB..=TIB),
    },
    Key {
        path: "pubsub.output_soft",
        change: Change::Now,
        flag: None,
        doc: "A subscriber for which more than this waits, and has waited for \
              pubsub.output_soft_time without a break, is closed. Not more than \
              pubsub.output_hard.",
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
        doc: "What happens to subscribers of a channel or pattern that may have missed messages, \
              because a node was lost or a shard channel's slot has moved. \"keep\": they stay, \
              the subscription is restored, and slotway_pubsub_gaps_total counts it. \
              \"disconnect\": their connections are closed as well, for applications that must \
              know, and that read again what they may have missed when they reconnect.",
        field: |c| Field::Choice(&mut c.pubsub.on_gap),
    },
    Key {
        path: "limits.clients",
        change: Change::Now,
        flag: None,
        doc: "Clients connected at the same time. At the limit a new one gets \"ERR max number of \
              clients reached\" with the reason and is closed, as Redis does. Each needs a file \
              descriptor: slotway raises its limit on open files as far as it may (ulimit -Hn, \
              LimitNOFILE), keeps what connections to nodes, the admin listener and files need, and \
              lowers this limit, and limits.dedicated, to what is left; a line in the log and \
              slotway_limit say so. When the cluster grows, and with it what nodes need, the clients \
              that have been idle longest are closed.",
        field: |c| Field::Count(&mut c.limits.clients, 1..=1_000_000),
    },
    Key {
        path: "limits.client_output",
        change: Change::Now,
        flag: None,
        doc: "Replies that wait for one client because it does not read them. At the limit that \
              client is closed; nobody else feels it. Has to be larger than the largest reply \
              that clients ask for.",
        field: |c| Field::Size(&mut c.limits.client_output, 64 * KIB..=TIB),
    },
    Key {
        path: "limits.upstream_in_flight",
        change: Change::Now,
        flag: None,
        doc: "Bytes of commands on one connection to a node that the node has not answered yet. \
              At the limit slotway reads no more from the clients that want to send there, until \
              the node has caught up. A single larger command still passes. One client alone does \
              not come so far: with a long pipeline it waits for its own replies first, sooner \
              where others use the connection.",
        field: |c| Field::Size(&mut c.limits.upstream_in_flight, 64 * KIB..=TIB),
    },
    Key {
        path: "limits.memory",
        change: Change::Now,
        flag: None,
        doc: "All buffers of all clients and nodes together; each worker has an equal share. The \
              resident memory of the process stays below this and 64 MiB more, whatever clients \
              do. \"auto\" is three quarters of what a container's limit (cgroup v1 or v2) leaves \
              beside these 64 MiB, which leaves the rest to the kernel's socket buffers; without \
              such a limit half of what the machine's memory leaves; 16 MiB at least. At the limit \
              new commands are refused with an error until memory is free again, and while \
              clients' buffers are more than half of it, the clients that hold most are closed: \
              docs/reliability.md has all of it. A value or a reply that is kept whole has to fit \
              into one worker's share.",
        field: |c| Field::Memory(&mut c.limits.memory, MIB..=TIB),
    },
    Key {
        path: "limits.held",
        change: Change::Now,
        flag: None,
        doc: "Bytes of commands that wait because their slot is being moved or has no primary \
              for the moment (a failover). At the limit further commands for such slots get an \
              error at once instead of waiting.",
        field: |c| Field::Size(&mut c.limits.held, 0..=TIB),
    },
    Key {
        path: "limits.scripts",
        change: Change::Now,
        flag: None,
        doc: "Lua scripts that slotway has seen in EVAL and SCRIPT LOAD and keeps, so that it can \
              give them to a node that lacks them. At the limit the one that was used least \
              recently is forgotten: nothing happens to it on the nodes, but a node that lacks it \
              then answers EVALSHA with NOSCRIPT, and the client has to load it again.",
        field: |c| Field::Size(&mut c.limits.scripts, 0..=TIB),
    },
    Key {
        path: "limits.dedicated",
        change: Change::Now,
        flag: None,
        doc: "Connections to nodes that are lent to one client at a time: while it blocks (BLPOP, \
              XREAD BLOCK, WAIT …), between WATCH and EXEC, for MONITOR and KEYS. All workers \
              together; each worker keeps up to 64 idle ones besides. At the limit such a command \
              gets an error at once. Each needs a file descriptor here and counts against the \
              node's maxclients.",
        field: |c| Field::Count(&mut c.limits.dedicated, 1..=1_000_000),
    },
    Key {
        path: "limits.users",
        change: Change::Now,
        flag: None,
        doc: "Users of the cluster (auth = \"passthrough\") that each worker keeps connections of at \
              the same time: one per user, password, node and protocol, closed a minute after the \
              last client of that user has gone. Above it a login gets an error.",
        field: |c| Field::Count(&mut c.limits.users, 1..=10_000),
    },
    Key {
        path: "limits.bulk",
        change: Change::Now,
        flag: None,
        doc: "The largest single argument of a command, that is: the largest value that can be \
              written. Above it the client gets \"ERR Protocol error: invalid bulk length\" and is \
              closed, as Redis does. It should not be above the nodes' proto-max-bulk-len.",
        field: |c| Field::Size(&mut c.limits.bulk, KIB..=2 * GIB),
    },
    Key {
        path: "limits.inline",
        change: Change::Now,
        flag: None,
        doc: "The longest line of a command that is typed as text (inline command). Above it the \
              client gets \"ERR Protocol error: too big inline request\" and is closed, as Redis \
              does.",
        field: |c| Field::Size(&mut c.limits.inline, KIB..=16 * MIB),
    },
    Key {
        path: "limits.multibulk",
        change: Change::Now,
        flag: None,
        doc: "The most arguments that one command may have. Above it the client gets \"ERR \
              Protocol error: invalid multibulk length\" and is closed, as Redis does. The \
              default is what Redis 7.0 takes.",
        field: |c| Field::Count(&mut c.limits.multibulk, 16..=i32::MAX as usize),
    },
    Key {
        path: "observe.hot_keys",
        change: Change::Now,
        flag: None,
        doc: "Looks for hot keys and big keys. Each worker keeps up to 256 hot and 128 big ones, \
              some 100 KiB.",
        field: |c| Field::Boolean(&mut c.observe.hot_keys),
    },
    Key {
        path: "observe.sample",
        change: Change::Now,
        flag: None,
        doc: "Hot keys are looked for in one command of so many, chosen at random. Fewer make the \
              rates more exact where there are few commands, and cost more.",
        field: |c| Field::Count(&mut c.observe.sample, 1..=1_000_000),
    },
    Key {
        path: "slowlog.slower_than",
        change: Change::Now,
        flag: None,
        doc: "A command that takes as long, from its being read to its reply's being there, goes \
              into slotway's slow log. Commands that wait because they want to (BLPOP …) do not. \
              CONFIG SET slowlog-log-slower-than, in microseconds, sets it on the nodes and here, \
              until the next start. \"0\" turns it off.",
        field: |c| Field::OptionalDuration(&mut c.slowlog.slower_than, ms(1, HOUR)),
    },
    Key {
        path: "slowlog.max_len",
        change: Change::Now,
        flag: None,
        doc: "So many entries are kept, of all workers together; the oldest one goes first. CONFIG \
              SET slowlog-max-len sets it on the nodes and here, until the next start.",
        field: |c| Field::Count(&mut c.slowlog.max_len, 0..=crate::seen::SlowLog::MOST),
    },
    Key {
        path: "tracing.endpoint",
        change: Change::Restart,
        flag: None,
        doc: "The collector that spans are sent to, by OTLP over HTTP in protobuf: \
              \"http://127.0.0.1:4318\" (then the path is /v1/traces), or with a path. \"\" sends \
              none and costs nothing.",
        field: |c| Field::Text(&mut c.tracing.endpoint),
    },
    Key {
        path: "tracing.sample",
        change: Change::Now,
        flag: None,
        doc: "One command of so many is traced, chosen at random.",
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
        doc: "Commands that get an error that says so. Besides, whatever is written here: what \
              would act on one node behind the cluster's back is denied unless commands.allow \
              names it (SHUTDOWN, REPLICAOF, SLAVEOF, FAILOVER, MIGRATE, MODULE LOAD, LOADEX and \
              UNLOAD, SWAPDB, DEBUG, and what of CLUSTER changes the cluster), and what would take \
              a connection over that clients share is denied always (SYNC, PSYNC, REPLCONF, SCRIPT \
              DEBUG); docs/commands.md has them all. Commands inside scripts and functions are not \
              looked at: what must not happen at all needs \"@scripting\" in this list as well.",
        field: |c| Field::CommandRules(&mut c.commands.deny),
    },
    Key {
        path: "commands.allow",
        change: Change::Now,
        flag: None,
        doc: "Exceptions from commands.deny, and from what is denied without it: from that only \
              by name or with \"@dangerous\", so that deny = [\"@all\"], allow = [\"@write\"] does \
              not open MIGRATE. A command that would act on one node goes to the node of its \
              keys, otherwise to any primary.",
        field: |c| Field::CommandRules(&mut c.commands.allow),
    },
    Key {
        path: "commands.on_outcome_unknown",
        change: Change::Now,
        flag: None,
        doc: "What a client is told of a command that was sent to a node and whose reply is lost: it \
              may or may not have been executed, and may have changed data (what only reads is sent \
              again). \"error\": an error with the code OUTCOMEUNKNOWN; the connection stays. \
              \"disconnect\": the connection is closed in place of that error, behind the replies \
              before it, as a server's is that fails. Clients then do what they do when a server \
              fails: they reconnect, and send again what they are told to (redis-py's retry, which \
              executes a write twice where the first was executed). For applications that an \
              unexpected error ends, such as Celery's workers. \
              slotway_clients_disconnected_total{reason=\"outcome_unknown\"} counts.",
        field: |c| Field::Choice(&mut c.on_outcome_unknown),
    },
    Key {
        path: "commands.blocking",
        change: Change::Now,
        flag: None,
        doc: "Modules' commands that keep their connection waiting and do not say so by the flag \
              blocking in COMMAND. On a connection that all clients share everybody would wait with \
              them, so each goes over a connection lent to its client, as BLPOP does \
              (limits.dedicated); timeouts.command still is how long it may take. Slotway learns \
              such commands by itself when one has held others up for a tenth of a second and its \
              node says that the connection is blocked (the log names it, \
              slotway_commands_learned_blocking counts), but forgets them when it ends. Commands \
              that are not for one node (all shards, scripts) are not concerned.",
        field: |c| Field::Commands(&mut c.commands.blocking),
    },
    Key {
        path: "commands.cross_slot",
        change: Change::Now,
        flag: None,
        doc: "A command whose keys lie in several slots, where a cluster says no (SINTER, RENAME, \
              ZUNIONSTORE, BLPOP, SORT with GET …; MGET, MSET, DEL, UNLINK, EXISTS and TOUCH are \
              split in any case). \"reject\": CROSSSLOT, as every cluster answers, naming two of \
              the keys and their slots. \"emulate\": slotway carries it out with several commands \
              that stay in one slot each, and gives the reply that a single server would give. \
              That gives up that nobody sees the steps in between; docs/commands.md says by \
              command what else. Commands whose keys share a slot go their usual way. EVAL and \
              FCALL are refused in any case, and so is inside MULTI what would be emulated. \
              slotway_emulated_total counts.",
        field: |c| Field::Choice(&mut c.emulation.cross_slot),
    },
    Key {
        path: "commands.cross_slot_turn",
        change: Change::Now,
        flag: None,
        doc: "How long a blocking command over several slots (BLPOP of keys in different slots, \
              with commands.cross_slot = \"emulate\") looks away at most: within this time it sees \
              what was pushed. It looks more often at first. Each look is a read for each key.",
        field: |c| Field::Duration(&mut c.emulation.turn, ms(1, 1000)),
    },
    Key {
        path: "log.level",
        change: Change::Now,
        flag: Some("--log-level"),
        doc: "How much is logged. \"info\" has no line per command. For one part of slotway only: \
              \"info,slotway::upstream=debug\".",
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
