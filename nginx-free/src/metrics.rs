//! What a proxy counts, and how Prometheus reads it.

use std::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use http::StatusCode;

use crate::Failure;

/// The upper bounds of the classes by which durations are counted, in milliseconds.
const BOUNDS: [u64; 12] = [1, 2, 5, 10, 25, 50, 100, 250, 1000, 2500, 10_000, 60_000];

/// What a proxy counts, for as long as it lives. Each is a snapshot.
#[derive(Debug)]
pub struct Metrics {
    /// Client connections that came.
    pub connections: AtomicU64,
    /// Those of them that are open.
    pub connections_open: AtomicU64,
    /// TLS handshakes that failed or took too long.
    pub handshakes_failed: AtomicU64,
    /// Requests that came.
    pub requests: AtomicU64,
    /// Those of them whose answer has not ended. A WebSocket is none any more.
    pub requests_open: AtomicU64,
    /// Those of them that broke a rule of HTTP, and were refused before anybody judged them.
    pub refused: AtomicU64,
    /// Requests that waited before they went on, for their app was asked as many things as it is asked at once.
    pub waits: AtomicU64,
    /// Those that wait now.
    pub waiting: AtomicU64,
    /// WebSockets that were opened.
    pub tunnels: AtomicU64,
    /// Those of them that are open.
    pub tunnels_open: AtomicU64,
    /// Bytes of bodies and of WebSockets that came from clients and went on.
    pub received: AtomicU64,
    /// Bytes of bodies and of WebSockets that went to clients.
    pub sent: AtomicU64,
    /// Client connections turned away because too many were open: 503, or cut where even those were too many.
    pub shed_connections: AtomicU64,
    /// Requests that got 503 because too many were open.
    pub shed_requests: AtomicU64,
    /// Requests that got 503 because their app had as many connections as it may.
    pub shed_by_app: AtomicU64,
    /// Apps that could not be reached.
    pub app_unreachable: AtomicU64,
    /// Answers that broke the rules of HTTP, or broke off before their end.
    pub app_bad_answers: AtomicU64,
    /// Apps that did not answer in time.
    pub app_timeouts: AtomicU64,
    by_class: [AtomicU64; 6],
    durations: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
    born: Instant,
    /// Milliseconds after `born`.
    last: AtomicU64,
}

impl Default for Metrics {
    fn default() -> Self {
        let zero = AtomicU64::default;
        Self {
            connections: zero(),
            connections_open: zero(),
            handshakes_failed: zero(),
            requests: zero(),
            requests_open: zero(),
            refused: zero(),
            waits: zero(),
            waiting: zero(),
            tunnels: zero(),
            tunnels_open: zero(),
            received: zero(),
            sent: zero(),
            shed_connections: zero(),
            shed_requests: zero(),
            shed_by_app: zero(),
            app_unreachable: zero(),
            app_bad_answers: zero(),
            app_timeouts: zero(),
            by_class: Default::default(),
            durations: Default::default(),
            micros: zero(),
            born: Instant::now(),
            last: zero(),
        }
    }
}

impl Metrics {
    /// When a request last began or a WebSocket last ended.
    pub fn last_activity(&self) -> Instant {
        self.born + Duration::from_millis(self.last.load(Ordering::Relaxed))
    }

    pub(crate) fn touch(&self, now: Instant) {
        let millis = now.saturating_duration_since(self.born).as_millis();
        self.last.store(u64::try_from(millis).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Answers that ended with a status of this class, 1 to 5.
    pub fn answers(&self, class: usize) -> u64 {
        self.by_class.get(class).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// An answer has ended.
    pub(crate) fn answered(&self, status: StatusCode, took: Duration, sent: u64) {
        let class = usize::from(status.as_u16() / 100).min(self.by_class.len() - 1);
        add(&self.by_class[class], 1);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bin = BOUNDS.iter().position(|bound| micros <= bound * 1000).unwrap_or(BOUNDS.len());
        add(&self.durations[bin], 1);
        add(&self.micros, micros);
        add(&self.sent, sent);
    }

    pub(crate) fn failed(&self, failure: Failure) {
        match failure {
            Failure::Unreachable => add(&self.app_unreachable, 1),
            Failure::BadAnswer => add(&self.app_bad_answers, 1),
            Failure::TimedOut => add(&self.app_timeouts, 1),
            Failure::Overloaded => add(&self.shed_by_app, 1),
            Failure::BrokenRequest => {}
        }
    }

    /// All of it in the text format of Prometheus (version 0.0.4).
    pub fn prometheus(&self) -> String {
        let mut out = Text(String::with_capacity(4096));
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        out.counter("connections_total", "client connections that came", load(&self.connections));
        out.gauge("connections", "client connections that are open", load(&self.connections_open));
        out.counter("handshake_failures_total", "TLS handshakes that failed", load(&self.handshakes_failed));
        out.counter("requests_total", "requests that came", load(&self.requests));
        out.gauge("requests", "requests whose answer has not ended", load(&self.requests_open));
        out.counter("refused_total", "requests that broke a rule of HTTP", load(&self.refused));
        out.counter("waits_total", "requests that waited while their app was asked much", load(&self.waits));
        out.gauge("waiting", "requests that wait while their app is asked much", load(&self.waiting));
        out.head("answers_total", "counter", "answers that ended, by class of status");
        for class in 1..self.by_class.len() {
            out.line("answers_total", &format!("{{class=\"{class}xx\"}}"), load(&self.by_class[class]));
        }
        out.counter("websockets_total", "WebSockets that were opened", load(&self.tunnels));
        out.gauge("websockets", "WebSockets that are open", load(&self.tunnels_open));
        out.counter("received_bytes_total", "bytes of bodies from clients", load(&self.received));
        out.counter("sent_bytes_total", "bytes of bodies to clients", load(&self.sent));
        out.head("shed_total", "counter", "what was turned away because a limit was reached");
        for (what, count) in [
            ("connections", &self.shed_connections),
            ("requests", &self.shed_requests),
            ("app", &self.shed_by_app),
        ] {
            out.line("shed_total", &format!("{{limit=\"{what}\"}}"), load(count));
        }
        out.head("app_failures_total", "counter", "requests that the app did not answer");
        for (what, count) in [
            ("unreachable", &self.app_unreachable),
            ("bad_answer", &self.app_bad_answers),
            ("timeout", &self.app_timeouts),
        ] {
            out.line("app_failures_total", &format!("{{why=\"{what}\"}}"), load(count));
        }
        let name = "request_duration_seconds";
        out.head(name, "histogram", "from a request's head to the end of its answer");
        let mut sum = 0;
        for (bound, count) in BOUNDS.iter().zip(&self.durations) {
            sum += load(count);
            let seconds = format!("{}.{:03}", bound / 1000, bound % 1000);
            out.line(&format!("{name}_bucket"), &format!("{{le=\"{seconds}\"}}"), sum);
        }
        sum += load(&self.durations[BOUNDS.len()]);
        out.line(&format!("{name}_bucket"), "{le=\"+Inf\"}", sum);
        let micros = load(&self.micros);
        out.line(
            &format!("{name}_sum"),
            "",
            format_args!("{}.{:06}", micros / 1_000_000, micros % 1_000_000),
        );
        out.line(&format!("{name}_count"), "", sum);
        out.0
    }
}

pub(crate) fn add(count: &AtomicU64, more: u64) {
    count.fetch_add(more, Ordering::Relaxed);
}

struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String can't fail.
        let _ = writeln!(self.0, "# HELP nginx_free_{name} {help}\n# TYPE nginx_free_{name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "nginx_free_{name}{labels} {value}");
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, "counter", help);
        self.line(name, "", value);
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, "gauge", help);
        self.line(name, "", value);
    }
}

/// One more of what is counted by a gauge, until it is dropped.
#[derive(Debug)]
pub(crate) struct Counted<'m>(&'m AtomicU64);

impl<'m> Counted<'m> {
    pub(crate) fn in_gauge(gauge: &'m AtomicU64) -> Self {
        add(gauge, 1);
        Self(gauge)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prometheus_can_read_it() {
        let metrics = Metrics::default();
        metrics.answered(StatusCode::OK, Duration::from_micros(900), 10);
        metrics.answered(StatusCode::NOT_FOUND, Duration::from_millis(30), 5);
        metrics.answered(StatusCode::from_u16(999).unwrap(), Duration::from_secs(90), 0);
        metrics.failed(Failure::Overloaded);
        let text = metrics.prometheus();
        for line in [
            "# TYPE nginx_free_answers_total counter",
            "nginx_free_answers_total{class=\"2xx\"} 1",
            "nginx_free_answers_total{class=\"4xx\"} 1",
            "nginx_free_sent_bytes_total 15",
            "nginx_free_shed_total{limit=\"app\"} 1",
            "nginx_free_request_duration_seconds_bucket{le=\"0.001\"} 1",
            "nginx_free_request_duration_seconds_bucket{le=\"0.025\"} 1",
            "nginx_free_request_duration_seconds_bucket{le=\"0.050\"} 2",
            "nginx_free_request_duration_seconds_bucket{le=\"60.000\"} 2",
            "nginx_free_request_duration_seconds_bucket{le=\"+Inf\"} 3",
            "nginx_free_request_duration_seconds_sum 90.030900",
            "nginx_free_request_duration_seconds_count 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        // Each series is preceded by its kind, and no line is anything but a comment or `name{labels} value`.
        for line in text.lines().filter(|line| !line.starts_with("# ")) {
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok() && series.starts_with("nginx_free_"), "{line}");
        }
    }
}
