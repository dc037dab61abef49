//! Counters and gauges of the whole process, in Prometheus's text format.

use prometheus::{
    Encoder, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder,
};

/// Every metric has its unit in its name.
pub struct Metrics {
    registry: Registry,
    pub source_rows_total: IntCounterVec,
    pub source_rows_lost_total: IntCounterVec,
    pub bad_records_total: IntCounterVec,
    pub rows_late_total: IntCounterVec,
    pub rows_failed_total: IntCounterVec,
    pub source_lag_rows: IntGaugeVec,
    pub watermark_lag_seconds: GaugeVec,
    pub epochs_total: IntCounterVec,
    pub source_restarts_total: IntCounterVec,
    pub epoch_duration_seconds: HistogramVec,
    pub commit_stall_seconds: HistogramVec,
    pub checkpoint_stall_seconds: HistogramVec,
    pub checkpoint_duration_seconds: HistogramVec,
    pub state_bytes: IntGaugeVec,
    pub view_rows: IntGaugeVec,
    pub rows_evicted_total: IntCounterVec,
    pub sink_rows_total: IntCounterVec,
    pub sink_published_epoch: IntGaugeVec,
    pub sink_staged_epochs: IntGaugeVec,
    pub sink_recoveries_total: IntCounterVec,
    pub http_request_duration_seconds: HistogramVec,
    pub ws_subscriptions: IntGaugeVec,
    pub ws_merged_total: IntCounterVec,
    pub query_duration_seconds: HistogramVec,
}

impl Default for Metrics {
    fn default() -> Self {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let metric = IntCounterVec::new(Opts::new(name, help), labels).expect("a valid metric");
            registry.register(Box::new(metric.clone())).expect("a name used once");
            metric
        };
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            let metric = IntGaugeVec::new(Opts::new(name, help), labels).expect("a valid metric");
            registry.register(Box::new(metric.clone())).expect("a name used once");
            metric
        };
        let histogram = |name: &str, help: &str, labels: &[&str]| {
            let buckets = prometheus::exponential_buckets(0.000_25, 2.0, 18).expect("valid buckets");
            let metric =
                HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), labels).expect("a valid metric");
            registry.register(Box::new(metric.clone())).expect("a name used once");
            metric
        };
        let watermark_lag_seconds = GaugeVec::new(
            Opts::new("zeta_watermark_lag_seconds", "Epoch time minus watermark"),
            &["source"],
        )
        .expect("a valid metric");
        registry
            .register(Box::new(watermark_lag_seconds.clone()))
            .expect("a name used once");
        let build = gauge("zeta_build_info", "1, with the version as label", &["version"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Self {
            source_rows_total: counter("zeta_source_rows_total", "Rows decoded", &["source", "split"]),
            source_rows_lost_total: counter(
                "zeta_source_rows_lost_total",
                "Rows that were gone before they were read, and left out because an option says so",
                &["source", "split"],
            ),
            bad_records_total: counter(
                "zeta_bad_records_total",
                "Records that could not become a row",
                &["source"],
            ),
            rows_late_total: counter(
                "zeta_rows_late_total",
                "Rows that came after their window had closed",
                &["view"],
            ),
            rows_failed_total: counter(
                "zeta_rows_failed_total",
                "Rows and groups whose values could not be computed",
                &["view"],
            ),
            source_lag_rows: gauge(
                "zeta_source_lag_rows",
                "Rows between position and end",
                &["source", "split"],
            ),
            watermark_lag_seconds,
            source_restarts_total: counter(
                "zeta_source_restarts_total",
                "Times that a source began again from its last commit after a failure",
                &["source"],
            ),
            epochs_total: counter("zeta_epochs_total", "Epochs committed", &["source"]),
            epoch_duration_seconds: histogram(
                "zeta_epoch_duration_seconds",
                "Run of an epoch without its commit",
                &["source"],
            ),
            commit_stall_seconds: histogram(
                "zeta_commit_stall_seconds",
                "Append and sync of the journal",
                &["source"],
            ),
            checkpoint_stall_seconds: histogram(
                "zeta_checkpoint_stall_seconds",
                "Time that epochs stood still for a checkpoint",
                &["source"],
            ),
            checkpoint_duration_seconds: histogram(
                "zeta_checkpoint_duration_seconds",
                "Writing of a checkpoint",
                &["source"],
            ),
            state_bytes: gauge("zeta_state_bytes", "Memory of operators and views", &["view"]),
            view_rows: gauge("zeta_view_rows", "Rows of a view", &["view"]),
            rows_evicted_total: counter(
                "zeta_rows_evicted_total",
                "Rows that made room in a side output",
                &["view"],
            ),
            sink_rows_total: counter("zeta_sink_rows_total", "Rows published", &["sink"]),
            sink_published_epoch: gauge("zeta_sink_published_epoch", "The last epoch published", &["sink"]),
            sink_staged_epochs: gauge("zeta_sink_staged_epochs", "Epochs that wait to be published", &["sink"]),
            sink_recoveries_total: counter(
                "zeta_sink_recoveries_total",
                "Times that a sink was asked what it took, because that was not known",
                &["sink"],
            ),
            http_request_duration_seconds: histogram(
                "zeta_http_request_duration_seconds",
                "Requests",
                &["route", "method", "status"],
            ),
            ws_subscriptions: gauge("zeta_ws_subscriptions", "Subscriptions", &["view"]),
            ws_merged_total: counter("zeta_ws_merged_total", "Rows merged for slow readers", &["view"]),
            query_duration_seconds: histogram("zeta_query_duration_seconds", "Ad-hoc queries", &["outcome"]),
            registry,
        }
    }
}

impl Metrics {
    /// Everything, as text for a scraper.
    pub fn text(&self) -> String {
        let mut out = Vec::new();
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut out)
            .expect("memory takes it");
        String::from_utf8(out).expect("the format is text")
    }
}
