//! Numbers as text: OpenMetrics, by the crate that Prometheus keeps.
//!
//! Invariant: a name is a family once, with one kind and one explanation, whatever is set in it.

use octet_runtime::queues::QueueView;
use octet_runtime::wait::WaitView;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use std::fmt;

/// A number that fits both kinds of value.
pub trait Number {
    /// As the text has it.
    fn value(self) -> f64;
}

impl Number for f64 {
    fn value(self) -> f64 {
        self
    }
}

impl Number for u64 {
    fn value(self) -> f64 {
        self as f64
    }
}

impl Number for usize {
    fn value(self) -> f64 {
        self as f64
    }
}

impl Number for i32 {
    fn value(self) -> f64 {
        f64::from(self)
    }
}

/// The metrics of a moment.
#[derive(Clone, Debug, Default)]
pub struct Page {
    families: Vec<Family>,
}

/// The samples of one name.
#[derive(Clone, Debug)]
pub struct Family {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    samples: Vec<Sample>,
}

#[derive(Clone, Debug)]
struct Sample {
    labels: Vec<(String, String)>,
    value: Value,
}

#[derive(Clone, Debug)]
enum Value {
    Number(f64),
    Histogram { sum: f64, classes: Vec<(f64, u64)> },
}

impl Page {
    /// A value that goes up and down.
    pub fn gauge(&mut self, name: &'static str, help: &'static str) -> &mut Family {
        self.family(name, help, MetricType::Gauge)
    }

    /// A value that only grows while the process lives; its name gets `_total`.
    pub fn counter(&mut self, name: &'static str, help: &'static str) -> &mut Family {
        self.family(name, help, MetricType::Counter)
    }

    /// How often something took how long.
    pub fn histogram(&mut self, name: &'static str, help: &'static str) -> &mut Family {
        self.family(name, help, MetricType::Histogram)
    }

    /// What a node waits for, by name: how often, and for how long already.
    pub fn waits(&mut self, waits: &[WaitView]) {
        let seconds = |wait: &WaitView| (wait.name.to_owned(), wait.waiting.as_secs_f64());
        self.named_waits(&[], waits.iter().map(seconds));
    }

    /// As [`Page::waits`], of any node.
    pub fn named_waits(
        &mut self,
        labels: &[(&str, &str)],
        waits: impl Iterator<Item = (String, f64)>,
    ) {
        let mut by_name: std::collections::BTreeMap<String, (u64, f64)> = Default::default();
        for (name, seconds) in waits {
            let entry = by_name.entry(name).or_default();
            *entry = (entry.0 + 1, entry.1.max(seconds));
        }
        for (name, (count, seconds)) in by_name {
            let labels = [labels, &[("wait", name.as_str())]].concat();
            self.gauge("octet_waits", "What is waited for now, by name.").set(&labels, count);
            self.gauge("octet_wait_seconds", "The longest that something is waited for already.")
                .set(&labels, seconds);
        }
    }

    /// How full queues are.
    pub fn queues(&mut self, queues: &[QueueView]) {
        for queue in queues {
            self.queue(&[], &queue.name, queue.depth as u64, queue.room as u64);
        }
    }

    /// How full one queue is.
    pub fn queue(&mut self, labels: &[(&str, &str)], name: &str, depth: u64, room: u64) {
        let labels = [labels, &[("queue", name)]].concat();
        self.gauge("octet_queue_depth", "How many wait in a queue.").set(&labels, depth);
        self.gauge("octet_queue_room", "How many a queue holds at most.").set(&labels, room);
    }

    /// The text of it.
    ///
    /// # Errors
    /// Never, as far as is known: writing to memory does not fail.
    pub fn text(self) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        text::encode(&mut text, &registry)?;
        Ok(text)
    }

    fn family(&mut self, name: &'static str, help: &'static str, kind: MetricType) -> &mut Family {
        let at = self.families.iter().position(|family| family.name == name);
        let at = at.unwrap_or_else(|| {
            self.families.push(Family { name, help, kind, samples: Vec::new() });
            self.families.len() - 1
        });
        &mut self.families[at]
    }
}

impl Family {
    /// Sets the value with these labels.
    pub fn set(&mut self, labels: &[(&str, &str)], value: impl Number) {
        self.push(labels, Value::Number(value.value()));
    }

    /// Sets the value without labels.
    pub fn is(&mut self, value: impl Number) {
        self.set(&[], value);
    }

    /// Sets the classes, each with its upper end and how many are in it and in none before it.
    pub fn classes(&mut self, sum: f64, classes: Vec<(f64, u64)>) {
        self.push(&[], Value::Histogram { sum, classes });
    }

    fn push(&mut self, labels: &[(&str, &str)], value: Value) {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        self.samples.push(Sample { labels: labels.iter().map(owned).collect(), value });
    }
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        for Family { name, help, kind, samples } in &self.families {
            let mut family = encoder.encode_descriptor(name, help, None, *kind)?;
            for Sample { labels, value } in samples {
                if labels.is_empty() {
                    value.encode(*kind, &mut family)?;
                } else {
                    value.encode(*kind, &mut family.encode_family(labels)?)?;
                }
            }
        }
        Ok(())
    }
}

impl Value {
    fn encode(&self, kind: MetricType, sample: &mut MetricEncoder<'_>) -> fmt::Result {
        match (kind, self) {
            (_, Self::Histogram { sum, classes }) => {
                let count = classes.iter().map(|(_, count)| count).sum();
                sample.encode_histogram::<NoLabelSet>(*sum, count, classes, None)
            }
            (MetricType::Counter, Self::Number(value)) => {
                sample.encode_counter::<NoLabelSet, _, f64>(value, None)
            }
            (_, Self::Number(value)) => sample.encode_gauge(value),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_page_is_open_metrics() {
        let mut page = Page::default();
        page.counter("octet_tokens", "Tokens.").set(&[("worker", "a\"b\n")], 7u64);
        page.counter("octet_tokens", "Tokens.").set(&[("worker", "c")], 8u64);
        page.gauge("octet_groups", "Groups.").is(2.5);
        page.histogram("octet_seconds", "Seconds.")
            .classes(0.5, vec![(0.1, 2), (1.0, 1), (f64::INFINITY, 0)]);
        let text = page.text().unwrap();
        let expected = "# HELP octet_tokens Tokens.\n# TYPE octet_tokens counter\n\
            octet_tokens_total{worker=\"a\\\"b\\n\"} 7.0\noctet_tokens_total{worker=\"c\"} 8.0\n\
            # HELP octet_groups Groups.\n# TYPE octet_groups gauge\noctet_groups 2.5\n\
            # HELP octet_seconds Seconds.\n# TYPE octet_seconds histogram\noctet_seconds_sum 0.5\n\
            octet_seconds_count 3\noctet_seconds_bucket{le=\"0.1\"} 2\noctet_seconds_bucket{le=\"1.0\"} 3\n\
            octet_seconds_bucket{le=\"+Inf\"} 3\n# EOF\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn waits_of_one_name_are_counted_together() {
        let mut page = Page::default();
        let waits =
            [("lease".to_owned(), 1.0), ("lease".to_owned(), 3.0), ("weights".to_owned(), 2.0)];
        page.named_waits(&[("node", "w")], waits.into_iter());
        let text = page.text().unwrap();
        assert!(text.contains("octet_waits{node=\"w\",wait=\"lease\"} 2.0"), "{text}");
        assert!(text.contains("octet_wait_seconds{node=\"w\",wait=\"lease\"} 3.0"), "{text}");
    }
}
