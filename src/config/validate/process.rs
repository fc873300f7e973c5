//! What concerns the process as a whole: `[runtime]`, `[[core]]`, `[limits]`, `[timeouts]`, `[forwarding]` and
//! `[access_log]`, and the overrides of limits and timeouts by a listener.

use std::collections::HashMap;

use super::{Names, fields, not_zero};
use crate::config::{
    diagnostic::Diagnostic,
    report::Report,
    source::{Key, key_path},
    types::{Config, Limits, LimitsOverride, LogFormat, Timeouts, TimeoutsOverride},
    values::ByteSize,
};

pub(super) fn validate(config: &Config, listeners: &Names<'_>, report: &mut Report) {
    ring_entries(&key_path!["runtime", "ring_entries"], config.runtime.ring_entries, report);
    cores(config, listeners, report);
    limits(&config.limits, report);
    let Timeouts {
        handshake,
        head,
        body_idle,
        keep_alive,
        write_stall,
        connection_age: _,
        tunnel_idle: _,
        tunnel_age: _,
    } = config.timeouts;
    for (key, span) in [
        ("handshake", handshake),
        ("head", head),
        ("body_idle", body_idle),
        ("keep_alive", keep_alive),
        ("write_stall", write_stall),
    ] {
        not_zero(&key_path!["timeouts", key], span, report);
    }
    let via = &config.forwarding.via;
    if !via.is_empty() && !fields::is_token(via) && !fields::is_host(via) {
        let path = key_path!["forwarding", "via"];
        let error = Diagnostic::error(format!("{} cannot stand in `Via`", report.shown(&path, via)));
        report.push_at(&path, error.hint("a name without spaces, `host:port`, or an empty string for none"));
    }
    if config.access_log.format != LogFormat::Off && config.access_log.path.is_empty() {
        let error = Diagnostic::error("the access log needs a path");
        report.push_at(
            &key_path!["access_log", "path"],
            error.hint("\"stdout\", a file, or `format = \"off\"`"),
        );
    }
}

fn ring_entries(path: &[Key<'_>], entries: u32, report: &mut Report) {
    if !entries.is_power_of_two() {
        let below = 1u32 << entries.max(1).ilog2();
        let error = Diagnostic::error(format!("`ring_entries` is not a power of two: {entries}"));
        report.push_at(path, error.hint(format!("{below} or {}", below.saturating_mul(2).min(32_768))));
    }
}

fn cores(config: &Config, listeners: &Names<'_>, report: &mut Report) {
    let mut seen = HashMap::new();
    for (index, core) in config.core.iter().enumerate() {
        let cpu = key_path!["core", index, "cpu"];
        if !report.is_replaced(&cpu) {
            let earlier = *seen.entry(core.cpu).or_insert(index);
            if earlier != index {
                let place = report.diagnostics.source().locate(&key_path!["core", earlier, "cpu"]);
                let error = Diagnostic::error(format!("CPU {} is tuned twice", core.cpu));
                report.push_at(&cpu, error.label("used again").also(place, "first used here"));
            }
        }
        if let Some(entries) = core.ring_entries {
            ring_entries(&key_path!["core", index, "ring_entries"], entries, report);
        }
        let Some(names) = &core.listeners else { continue };
        if names.is_empty() {
            let warning = Diagnostic::warning(format!("CPU {} would serve no listener", core.cpu));
            report.push_at(
                &key_path!["core", index, "listeners"],
                warning.hint("leave `listeners` out for all of them"),
            );
        }
        for (place, name) in names.iter().enumerate() {
            listeners.find(&key_path!["core", index, "listeners", place], name, report);
        }
    }
}

fn limits(limits: &Limits, report: &mut Report) {
    head_bytes(&key_path!["limits", "head_bytes"], limits.head_bytes, report);
    if limits.target_bytes > limits.head_bytes {
        target_beyond_head(
            &key_path!["limits", "target_bytes"],
            limits.target_bytes,
            limits.head_bytes,
            report,
        );
    }
    target_bytes(&key_path!["limits", "target_bytes"], limits.target_bytes, report);
}

/// Reports what is wrong with a listener's own limits, together with those that it takes from `[limits]`.
pub(super) fn limits_override(index: usize, own: &LimitsOverride, common: &Limits, report: &mut Report) {
    let at = |key| key_path!["listener", index, "limits", key];
    if let Some(head) = own.head_bytes {
        head_bytes(&at("head_bytes"), head, report);
    }
    if let Some(target) = own.target_bytes {
        target_bytes(&at("target_bytes"), target, report);
    }
    let head = own.head_bytes.unwrap_or(common.head_bytes);
    let target = own.target_bytes.unwrap_or(common.target_bytes);
    let is_own = own.head_bytes.is_some() || own.target_bytes.is_some();
    if is_own && target > head {
        let key = if own.target_bytes.is_some() { "target_bytes" } else { "head_bytes" };
        target_beyond_head(&at(key), target, head, report);
    }
}

/// Reports a listener's own timeouts that are zero.
pub(super) fn timeouts_override(index: usize, own: &TimeoutsOverride, report: &mut Report) {
    let TimeoutsOverride {
        handshake,
        head,
        body_idle,
        keep_alive,
        write_stall,
        connection_age: _,
        tunnel_idle: _,
        tunnel_age: _,
    } = own;
    for (key, span) in [
        ("handshake", handshake),
        ("head", head),
        ("body_idle", body_idle),
        ("keep_alive", keep_alive),
        ("write_stall", write_stall),
    ] {
        if let Some(span) = span {
            not_zero(&key_path!["listener", index, "timeouts", key], *span, report);
        }
    }
}

fn head_bytes(path: &[Key<'_>], size: ByteSize, report: &mut Report) {
    if !(Limits::HEAD_BYTES_MIN..=Limits::HEAD_BYTES_MAX).contains(&size) {
        let range = format!("{} to {}", Limits::HEAD_BYTES_MIN, Limits::HEAD_BYTES_MAX);
        let error = Diagnostic::error(format!("`head_bytes` is out of range: {size}"));
        report.push_at(path, error.hint(format!("a head has {range}: it must fit into one buffer")));
    }
}

fn target_bytes(path: &[Key<'_>], size: ByteSize, report: &mut Report) {
    if size == ByteSize(0) {
        report.push_at(
            path,
            Diagnostic::error("`target_bytes` must not be zero").hint("no request would pass"),
        );
    }
}

fn target_beyond_head(path: &[Key<'_>], target: ByteSize, head: ByteSize, report: &mut Report) {
    let error = Diagnostic::error(format!("`target_bytes` ({target}) is more than `head_bytes` ({head})"));
    report.push_at(path, error.hint("the target is part of the head"));
}
