//! The HTTP server of the admin listener, and its pages.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    ACCEPT, ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue, WWW_AUTHENTICATE,
};
use hyper::http::uri::Authority;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;
use tracing::{debug, warn};

use super::connections::ConnectionLimit;
use super::page::{PAGE, headers as page_headers};
use super::ready::{Readiness, ReadinessInputs};
use super::reports::{asked_count, keys_json};
use super::sampler::Sampler;
use super::status::{self, Cursor};
use crate::cluster::ViewId;
use crate::config::Config;
use crate::control::{Pool, Status, UpstreamStatus};
use crate::descriptors::is_exhausted;
use crate::descriptors::{DescriptorBudget, SpareDescriptors};
use crate::metrics::{ControlStats, Exposition, ProcessStats, UpstreamStats};
use crate::observe::Renderer;
use crate::tls::{HandshakeOutcome, Side};
use crate::users::same_secret;

/// Time after which a connection accepts no further requests.
const LIFETIME: Duration = Duration::from_secs(60);
/// Time that it then has for a response in progress.
const LAST_PAGE: Duration = Duration::from_secs(10);
/// Timeout for a request's head, from the end of the previous request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Timeout for the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Limit of a request's head, in bytes.
const HEAD_BYTES: usize = 16 << 10;
/// Spare descriptors, enough for one page: its connection, and files of /proc.
const SPARE: usize = 3;
/// Time after which used spare descriptors are opened again.
const SPARE_PAUSE: Duration = Duration::from_secs(1);
/// Timeout for a worker's counters; its previous ones are used then.
const SCRAPE_LIMIT: Duration = Duration::from_millis(500);
/// Shortest time between two log lines about failures to accept.
const LOG_INTERVAL: Duration = Duration::from_secs(10);
/// Time for one turn of a worker's loop after which `/healthz` reports it as stuck.
const HEALTH_LIMIT: Duration = Duration::from_secs(2);
/// Age up to which a census is reused: a new one visits every client.
const CENSUS_AGE: Duration = Duration::from_secs(2);

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";

/// The content of `/` for clients other than browsers.
const INDEX: &str = "slotway\n
/              in a browser: the status page
/metrics       everything counted, for Prometheus
/healthz       the process lives and its workers answer
/readyz        all slots are covered and reachable; if not, what is missing
/hotkeys       the keys that are used most; /bigkeys, /slowlog likewise
/status.json   what the status page and `slotway top` show
/clients.json  who the clients are, added up
/config.json   the configuration in use, secrets masked
";

/// The admin listener's pages and their sources.
#[derive(Debug)]
pub struct Admin {
    pool: Arc<Pool>,
    status: Arc<Status>,
    started: Instant,
    sampler: Sampler,
    /// The last census of clients, as JSON, and its time.
    census: tokio::sync::Mutex<Option<(Instant, Bytes)>>,
}

type Page = Response<Full<Bytes>>;

impl Admin {
    /// Pages about `pool` and `status`.
    pub fn new(pool: Arc<Pool>, status: Arc<Status>) -> Self {
        Admin {
            pool,
            status,
            started: Instant::now(),
            sampler: Sampler::default(),
            census: tokio::sync::Mutex::default(),
        }
    }

    /// The status in which failures of the listener's tasks are counted.
    pub fn status(&self) -> Arc<Status> {
        Arc::clone(&self.status)
    }

    /// The limits in force, by name.
    fn limits(config: &Config, budget: &DescriptorBudget) -> Vec<(&'static str, usize)> {
        let l = &config.limits;
        vec![
            ("clients", l.clients.min(budget.clients)),
            ("client_output", l.client_output),
            ("upstream_in_flight", l.upstream_in_flight),
            ("memory", l.memory.bytes()),
            ("held", l.held),
            ("scripts", l.scripts),
            ("dedicated", l.dedicated.min(budget.dedicated)),
            ("users", l.users.min(budget.users)),
            ("bulk", l.bulk),
            ("inline", l.inline),
            ("multibulk", l.multibulk),
        ]
    }

    /// Samples the figures for the status page; never returns.
    pub async fn watch(self: Arc<Self>) {
        self.sampler.run(&self.pool, &self.status).await;
    }

    /// Accepts and serves connections until `close` becomes true; open connections are then served
    /// to their end.
    pub async fn serve(
        self: Arc<Self>,
        listener: Arc<TcpListener>,
        mut close: watch::Receiver<bool>,
    ) {
        let mut limit = ConnectionLimit::default();
        // Against DNS rebinding: a foreign page in a browser on this machine could reach a listener
        // on loopback by a name of its own that resolves to 127.0.0.1.
        let local = listener.local_addr().is_ok_and(|addr| addr.ip().is_loopback());
        // Aborts the connections when this task is dropped.
        let mut connections = tokio::task::JoinSet::new();
        let mut logged: Option<Instant> = None;
        let mut spare = SpareDescriptors::new(SPARE);
        loop {
            let accepted = tokio::select! {
                biased;
                accepted = listener.accept() => accepted,
                () = async { _ = close.wait_for(|close| *close).await } => break,
                // By then the page that needed the spare descriptors is finished.
                () = tokio::time::sleep(SPARE_PAUSE), if !spare.is_full() => {
                    spare.fill();
                    continue;
                }
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    if logged.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
                        logged = Some(Instant::now());
                        warn!(%error, "cannot accept on the admin listener");
                    }
                    // Without descriptors, the next attempt and its page use the spare ones.
                    if !is_exhausted(&error) || !spare.free() {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                    continue;
                }
            };
            while connections.try_join_next().is_some() {}
            let admin = Arc::clone(&self);
            let connection = connections.spawn(async move {
                let service = service_fn(|request| {
                    let admin = Arc::clone(&admin);
                    async move { Ok::<_, Infallible>(admin.page(&request, local).await) }
                });
                let mut http = http1::Builder::new();
                http.timer(TokioTimer::new());
                http.header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_BYTES);
                let served = match admin.pool.tls().admin() {
                    None => serve(http.serve_connection(TokioIo::new(stream), service)).await,
                    Some(tls) => {
                        let Some(stream) = admin.secured(tls, stream).await else { return };
                        serve(http.serve_connection(TokioIo::new(stream), service)).await
                    }
                };
                if let Err(error) = served {
                    debug!(%error, "admin connection");
                }
            });
            limit.admit(peer.ip(), connection, self.pool.descriptors().budget().admin);
        }
        connections.detach_all();
    }

    /// Performs the TLS handshake; `None` if it fails or times out.
    async fn secured(
        &self,
        tls: Arc<ServerConfig>,
        stream: TcpStream,
    ) -> Option<TlsStream<TcpStream>> {
        let handshake = TlsAcceptor::from(tls).accept(stream);
        let (stream, outcome) = match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
            Ok(Ok(stream)) => (Some(stream), HandshakeOutcome::Ok),
            Ok(Err(error)) => {
                debug!(%error, "a TLS handshake on the admin listener has failed");
                (None, crate::tls::outcome(&error))
            }
            Err(_) => (None, HandshakeOutcome::Timeout),
        };
        self.pool.tls().stats().count(Side::Admin, outcome);
        stream
    }

    async fn page(&self, request: &Request<Incoming>, local: bool) -> Page {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let mut page = page(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n");
            page.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return page;
        }
        if !self.is_authorized(request) {
            let text = "show the token: Authorization: Bearer TOKEN (admin_token)\n";
            let mut page = page(StatusCode::UNAUTHORIZED, TEXT, text);
            page.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return page;
        }
        if local && self.pool.config().admin_token.is_empty() && !is_local_name(request) {
            let text = "on loopback this listener is asked by an IP address or as localhost, not by \
                        this name; or with a token (admin_token)\n";
            return page(StatusCode::MISDIRECTED_REQUEST, TEXT, text);
        }
        match request.uri().path() {
            // For tests: makes a worker fail.
            #[cfg(debug_assertions)]
            "/fail/worker" => {
                self.pool.fail_one();
                page(StatusCode::OK, TEXT, "it fails\n")
            }
            "/" if wants_html(request) => {
                let mut page = page(StatusCode::OK, HTML, PAGE.as_str());
                page.headers_mut().extend(page_headers());
                page
            }
            "/" => page(StatusCode::OK, TEXT, INDEX),
            "/status.json" => self.status_json(request.uri().query().unwrap_or_default()).await,
            "/clients.json" => self.clients().await,
            "/config.json" => {
                page(StatusCode::OK, JSON, status::config(&self.pool.config()).to_string())
            }
            "/metrics" => self.metrics().await,
            "/healthz" => self.health().await,
            "/readyz" => self.readiness().await,
            "/hotkeys" | "/bigkeys" | "/slowlog" => self.seen(request.uri()).await,
            _ => page(StatusCode::NOT_FOUND, TEXT, "no such page; / lists them\n"),
        }
    }

    /// Whether the request has the token, or the page needs none.
    fn is_authorized(&self, request: &Request<Incoming>) -> bool {
        let config = self.pool.config();
        let token = config.admin_token.reveal();
        let open = match request.uri().path() {
            "/healthz" | "/readyz" => !config.admin_token_for_probes,
            // A browser cannot send the token when it navigates. The page, which contains no data,
            // asks the user for it.
            "/" => wants_html(request),
            _ => false,
        };
        if token.is_empty() || open {
            return true;
        }
        let shown = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes);
        let shown = shown.unwrap_or_default();
        let scheme = shown.get(..7).is_some_and(|word| word.eq_ignore_ascii_case(b"bearer "));
        let shown = shown.get(7..).unwrap_or_default().trim_ascii();
        scheme && same_secret(shown, token.as_bytes())
    }

    async fn metrics(&self) -> Page {
        let scrape = self.pool.survey().scrape(SCRAPE_LIMIT).await;
        let budget = self.pool.descriptors().budget();
        let topology = self.status.topology();
        let control = {
            let mut control = ControlStats {
                clients_rejected: self.status.clients_rejected.load(Relaxed),
                accept_errors: self.status.accept_errors.load(Relaxed),
                upstreams: topology.upstreams.iter().map(upstream_stats).collect(),
                workers: scrape.running,
                task_failures: self.status.task_failures.load(Relaxed),
                worker_failures: self.status.worker_failures.load(Relaxed),
                script_bytes: self.pool.script_bytes(),
                learned_blocking: self.pool.learned_blocking(),
                spans: self.pool.span_counts(),
                slow_commands: self.pool.slowlog().total(),
                descriptors_reserved: budget.reserved,
                proxy_headers: self
                    .status
                    .proxy_headers
                    .each_ref()
                    .map(|count| count.load(Relaxed)),
                tls: self.pool.tls().stats().counts(),
                ..ControlStats::default()
            };
            control.count_reloads(&self.status.reloads);
            for upstream in &topology.upstreams {
                control.count_replicas(&upstream.snapshot, &upstream.health);
            }
            control
        };
        let view = Exposition {
            totals: &scrape.totals,
            commands: &topology.commands,
            control,
            hub: self.pool.hub_stats(),
            limits: &Admin::limits(&self.pool.config(), &budget),
            process: ProcessStats::read(),
        };
        match view.text() {
            Ok(text) => page(StatusCode::OK, prometheus::TEXT_FORMAT, text),
            Err(error) => page(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
        }
    }

    async fn status_json(&self, query: &str) -> Page {
        let known = Cursor::parse(query);
        let uptime = self.started.elapsed().as_secs();
        let limits = Admin::limits(&self.pool.config(), &self.pool.descriptors().budget());
        let now = || {
            let process = status::ProcessInfo { uptime, limits: &limits };
            status::status(&self.sampler.timeline(), known, process)
        };
        let mut status = now();
        if status.is_none() {
            // Asked within the first second.
            self.sampler.sample(&self.pool, &self.status).await;
            status = now();
        }
        page(StatusCode::OK, JSON, status.unwrap_or_default().to_string())
    }

    async fn clients(&self) -> Page {
        // Concurrent requests wait here, and share one census.
        let mut last = self.census.lock().await;
        let text = match &*last {
            Some((at, text)) if at.elapsed() < CENSUS_AGE => text.clone(),
            _ => {
                let census = self.pool.survey().census(SCRAPE_LIMIT).await;
                let text = Bytes::from(status::clients(&census).to_string());
                *last = Some((Instant::now(), text.clone()));
                text
            }
        };
        page(StatusCode::OK, JSON, text)
    }

    async fn seen(&self, uri: &Uri) -> Page {
        let count = match asked_count(uri) {
            Ok(count) => count,
            Err(text) => return page(StatusCode::BAD_REQUEST, TEXT, text),
        };
        let json = match uri.path() {
            "/slowlog" => self.pool.slowlog().json(count.unwrap_or(50)),
            path => {
                let seen = self.pool.survey().seen(SCRAPE_LIMIT).await;
                let (commands, snapshot) = (self.status.commands(), self.pool.topology());
                let views = self.pool.config().views();
                let view = views.get(ViewId::ROUTED);
                let shown = Renderer { commands: &commands, snapshot: &snapshot, view };
                let count = count.unwrap_or(20);
                let observe = &self.pool.config().observe;
                let sample = if observe.hot_keys { observe.sample as u32 } else { 0 };
                keys_json(path, &seen, shown, (sample, count))
            }
        };
        page(StatusCode::OK, JSON, json.to_string() + "\n")
    }

    async fn health(&self) -> Page {
        let scrape = self.pool.survey().scrape(HEALTH_LIMIT).await;
        let (running, answered) = (scrape.running, scrape.answered);
        if scrape.is_well(self.status.is_draining()) {
            return page(StatusCode::OK, TEXT, "ok\n");
        }
        let text = format!("{answered} of {running} workers answer\n");
        page(StatusCode::SERVICE_UNAVAILABLE, TEXT, text)
    }

    async fn readiness(&self) -> Page {
        let scrape = self.pool.survey().scrape(SCRAPE_LIMIT).await;
        let topology = self.status.topology();
        let optional: Vec<bool> =
            self.pool.upstreams().map(|id| self.pool.is_optional(id)).collect();
        let readiness = Readiness::of(&ReadinessInputs {
            draining: self.status.is_draining(),
            workers: scrape.running,
            topology: &topology,
            optional: &optional,
            nodes: &scrape.totals.nodes,
        });
        let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        page(status, JSON, readiness.json() + "\n")
    }
}

/// The figures of an upstream for `/metrics`.
fn upstream_stats(upstream: &UpstreamStatus) -> UpstreamStats {
    UpstreamStats {
        name: upstream.name.clone(),
        refreshes_ok: upstream.refreshes_ok,
        refreshes_failed: upstream.refreshes_failed,
        changes: upstream.changes,
        views_refused: upstream.views_refused,
        exceptions: upstream.exceptions,
        age_seconds: upstream.answered.map(|at| at.elapsed().as_secs_f64()),
        node_timeout_seconds: upstream.node_timeout.map(|t| t.as_secs_f64()),
        generation: upstream.snapshot.generation,
        slots_covered: upstream.snapshot.slots_covered(),
    }
}

/// Whether the client is a browser that navigates: it accepts HTML.
fn wants_html(request: &Request<Incoming>) -> bool {
    let accept = request.headers().get(ACCEPT).map(HeaderValue::as_bytes).unwrap_or_default();
    accept.split(|b| *b == b',').any(|kind| kind.trim_ascii().starts_with(b"text/html"))
}

/// Serves a connection for its lifetime, so that clients that neither read nor send lose it.
async fn serve<I, S>(connection: http1::Connection<I, S>) -> hyper::Result<()>
where
    S: hyper::service::HttpService<Incoming, ResBody = Full<Bytes>>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
{
    let mut connection = std::pin::pin!(connection);
    match tokio::time::timeout(LIFETIME, &mut connection).await {
        Ok(served) => served,
        Err(_) => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(LAST_PAGE, connection).await.unwrap_or(Ok(()))
        }
    }
}

/// Whether the request's host is an IP address or a local name.
fn is_local_name(request: &Request<Incoming>) -> bool {
    let header = request.headers().get(HOST).map(HeaderValue::as_bytes).unwrap_or_default();
    let host = std::str::from_utf8(header).ok().and_then(|host| host.parse::<Authority>().ok());
    let Some(host) = host else { return header.is_empty() };
    let name = host.host().trim_start_matches('[').trim_end_matches(']');
    // Names in the public DNS, which an attacker could control, have a dot.
    let local = !name.contains('.') || name.to_ascii_lowercase().ends_with(".localhost");
    local || name.parse::<std::net::IpAddr>().is_ok()
}

fn page(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Page {
    let mut page = Response::new(Full::new(body.into()));
    *page.status_mut() = status;
    page.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    page.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    page
}
