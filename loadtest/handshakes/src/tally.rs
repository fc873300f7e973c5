//! What is counted, and how it is reported.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use rustls::HandshakeKind;

use crate::connection::{Answered, Problem};

/// Percentiles of latencies that are reported, in tenths of a percent.
const PERCENTILES: [(&str, usize); 4] = [("p50", 500), ("p90", 900), ("p99", 990), ("p99.9", 999)];

#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) time: Duration,
    full: u64,
    resumed: u64,
    retried: u64,
    agreed: Option<(&'static str, &'static str)>,
    errors: BTreeMap<&'static str, u64>,
    latencies_us: Vec<u64>,
}

impl Tally {
    pub(crate) fn on_answered(&mut self, answered: &Answered, now: Instant) {
        match answered.kind {
            HandshakeKind::Full => self.full += 1,
            HandshakeKind::Resumed => self.resumed += 1,
            HandshakeKind::FullWithHelloRetryRequest => self.retried += 1,
        }
        self.agreed = Some(answered.agreed);
        let latency = now.saturating_duration_since(answered.begun).as_micros();
        self.latencies_us.push(u64::try_from(latency).unwrap_or(u64::MAX));
    }

    /// The first of each kind is told in full.
    pub(crate) fn on_problem(&mut self, problem: &Problem) {
        let count = self.errors.entry(problem.name()).or_default();
        *count += 1;
        if *count == 1 {
            eprintln!("loadtest-handshakes: {problem}");
        }
    }

    pub(crate) fn problems(&self) -> u64 {
        self.errors.values().sum()
    }

    /// One line of JSON, as `loadtest/wrk/report.lua` writes it, and what is known about handshakes.
    pub(crate) fn report(mut self) -> String {
        self.latencies_us.sort_unstable();
        let (cipher, group) = self.agreed.unwrap_or_default();
        // Only rustls numbers the ciphers of TLS 1.3.
        let cipher = cipher.replacen("TLS13_", "TLS_", 1);
        let mut text = format!(
            "{{\"requests\":{},\"duration_us\":{},\"full\":{},\"resumed\":{},\"retried\":{},\"cipher\":\"{cipher}\",\
             \"group\":\"{group}\",\"errors\":{{",
            self.latencies_us.len(),
            self.time.as_micros(),
            self.full,
            self.resumed,
            self.retried,
        );
        // Writing to a String does not fail.
        for (index, (name, count)) in self.errors.iter().enumerate() {
            let _ = write!(text, "{}\"{name}\":{count}", if index > 0 { "," } else { "" });
        }
        text.push_str("},\"latency_us\":{");
        for (name, tenths) in PERCENTILES {
            let _ = write!(text, "\"{name}\":{},", percentile(&self.latencies_us, tenths));
        }
        let _ = write!(text, "\"max\":{}}}}}", self.latencies_us.last().copied().unwrap_or(0));
        text
    }
}

/// The least value that so many tenths of a percent of all are not above.
fn percentile(ordered: &[u64], tenths: usize) -> u64 {
    let rank = (ordered.len() * tenths).div_ceil(1000);
    ordered.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_values_themselves() {
        let ordered: Vec<u64> = (1..=1000).collect();
        assert_eq!(PERCENTILES.map(|(_, tenths)| percentile(&ordered, tenths)), [500, 900, 990, 999]);
        assert_eq!(percentile(&[7], 500), 7);
        assert_eq!(percentile(&[], 500), 0);
    }

    #[test]
    fn a_report_is_one_line() {
        let now = crate::load::now();
        let mut tally = Tally { time: Duration::from_secs(1), ..Tally::default() };
        let agreed = ("TLS13_AES_128_GCM_SHA256", "X25519");
        tally.on_answered(&Answered { begun: now, kind: HandshakeKind::Full, agreed }, now);
        let later = now + Duration::from_micros(250);
        tally.on_answered(&Answered { begun: now, kind: HandshakeKind::Resumed, agreed }, later);
        tally.on_problem(&Problem::Response);
        let expected = "{\"requests\":2,\"duration_us\":1000000,\"full\":1,\"resumed\":1,\"retried\":0,\
            \"cipher\":\"TLS_AES_128_GCM_SHA256\",\"group\":\"X25519\",\"errors\":{\"response\":1},\
            \"latency_us\":{\"p50\":0,\"p90\":250,\"p99\":250,\"p99.9\":250,\"max\":250}}";
        assert_eq!(tally.report(), expected);
    }
}
