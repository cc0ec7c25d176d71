//! Traces as a collector sees them, and questions to them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// The span that every trace of a callback begins with: one message from SQS.
pub const MESSAGE: &str = "callback from the queue";
/// The span of the PUT to the `ResponseURL`.
pub const ANSWER: &str = "answer CloudFormation";

/// One span. Times are since the Unix epoch; all services of a sandbox have the same clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    pub service: String,
    pub name: String,
    pub trace: String,
    pub id: String,
    pub parent: Option<String>,
    pub start: Duration,
    pub end: Duration,
    pub attributes: BTreeMap<String, String>,
}

impl Span {
    #[must_use]
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }

    /// Whether it is a call to `service` of AWS (`STS`, `SQS`, ...).
    #[must_use]
    pub fn calls(&self, service: &str) -> bool {
        self.attribute("rpc.system") == "aws-api" && self.attribute("rpc.service") == service
    }
}

/// The spans of one trace that have come so far.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    pub spans: Vec<Span>,
}

impl Trace {
    /// Tells `spans` apart by trace; each trace's in the order of their beginning.
    #[must_use]
    pub fn sort(spans: &[Span]) -> Vec<Self> {
        let mut traces = BTreeMap::<&str, Self>::new();
        for span in spans {
            traces.entry(&span.trace).or_default().spans.push(span.clone());
        }
        traces
            .into_values()
            .map(|mut trace| {
                trace.spans.sort_by_key(|span| span.start);
                trace
            })
            .collect()
    }

    /// The first span of this name in a service.
    #[must_use]
    pub fn find(&self, service: &str, name: &str) -> Option<&Span> {
        self.spans.iter().find(|span| span.service == service && span.name == name)
    }

    /// Spans whose parent is not in the trace: in a whole tree, the root alone.
    #[must_use]
    pub fn roots(&self) -> Vec<&Span> {
        let ids: BTreeSet<&str> = self.spans.iter().map(|span| span.id.as_str()).collect();
        self.spans.iter().filter(|span| !span.parent.as_deref().is_some_and(|parent| ids.contains(parent))).collect()
    }

    /// The spans above `span`, nearest first.
    pub fn above<'a>(&'a self, span: &'a Span) -> impl Iterator<Item = &'a Span> {
        let parent = |span: &Span| self.spans.iter().find(|above| Some(&above.id) == span.parent.as_ref());
        std::iter::successors(parent(span), move |&span| parent(span))
    }

    /// For a person who wants to know why a test fails.
    #[must_use]
    pub fn outline(&self) -> String {
        let first = self.spans.first().map(|span| span.start).unwrap_or_default();
        let line = |span: &Span| {
            let indent = "  ".repeat(self.above(span).count());
            let lost =
                if span.parent.is_some() && self.above(span).next().is_none() { " (parent unknown)" } else { "" };
            format!(
                "{:>9.2} ms {:>8.2} ms {indent}{}: {}{lost} {:?}",
                (span.start - first).as_secs_f64() * 1e3,
                span.end.saturating_sub(span.start).as_secs_f64() * 1e3,
                span.service,
                span.name,
                span.attributes.iter().filter(|(name, _)| is_told(name)).collect::<Vec<_>>(),
            )
        };
        self.spans.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

/// Attributes that are worth a place in an outline.
fn is_told(name: &str) -> bool {
    !["code.", "thread.", "target", "busy_ns", "idle_ns", "rpc."].iter().any(|start| name.starts_with(start))
}

/// How long the intervals (begin, end) cover between `from` and `to`, overlaps counted once.
#[must_use]
pub fn covered(intervals: impl IntoIterator<Item = (Duration, Duration)>, from: Duration, to: Duration) -> Duration {
    let mut inside: Vec<_> = intervals
        .into_iter()
        .map(|(begin, end)| (begin.max(from), end.min(to)))
        .filter(|(begin, end)| begin < end)
        .collect();
    inside.sort_unstable();
    let mut reached = from;
    let mut sum = Duration::ZERO;
    for (begin, end) in inside {
        sum += end.saturating_sub(begin.max(reached));
        reached = reached.max(end);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(id: &str, parent: Option<&str>) -> Span {
        Span {
            service: "s".to_owned(),
            name: id.to_owned(),
            trace: "t".to_owned(),
            id: id.to_owned(),
            parent: parent.map(ToOwned::to_owned),
            start: Duration::ZERO,
            end: Duration::ZERO,
            attributes: BTreeMap::new(),
        }
    }

    #[test]
    fn a_lost_parent_is_found() {
        let mut trace = Trace { spans: vec![span("root", None), span("a", Some("root")), span("b", Some("a"))] };
        assert_eq!(trace.roots().len(), 1);
        let above: Vec<_> = trace.above(&trace.spans[2]).map(|span| span.name.as_str()).collect();
        assert_eq!(above, ["a", "root"]);
        trace.spans.remove(1);
        let roots: Vec<_> = trace.roots().into_iter().map(|span| span.name.as_str()).collect();
        assert_eq!(roots, ["root", "b"]);
    }

    #[test]
    fn covered_time_counts_once_and_only_inside() {
        let ms = Duration::from_millis;
        let all =
            [(ms(0), ms(20)), (ms(10), ms(30)), (ms(12), ms(14)), (ms(40), ms(50)), (ms(90), ms(200)), (ms(5), ms(5))];
        assert_eq!(covered(all, ms(10), ms(100)), ms(20 + 10 + 10));
        assert_eq!(covered([], ms(10), ms(100)), Duration::ZERO);
    }
}
