//! JSON log lines that name their trace, so that a line leads to its trace and a trace to its lines.

use std::{fmt, sync::OnceLock};

use opentelemetry::{TraceId, trace::TraceContextExt as _};
use tracing::{Dispatch, Event, Subscriber, dispatcher};
use tracing_opentelemetry::get_otel_context;
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{Format, Json, Writer},
    },
    registry::LookupSpan,
};

/// The process's own, once it is set up.
static DISPATCH: OnceLock<Dispatch> = OnceLock::new();

/// Lines are written with what is the process's default now. While a line is written, `tracing` does not say what that is if any thread has a default of its own, and
/// Delta Lake gives one to each thread that it borrows.
pub(crate) fn remember_default() {
    dispatcher::get_default(|dispatch| drop(DISPATCH.set(dispatch.clone())));
}

/// The usual JSON line, with `trace_id` first when the line was written inside of a span.
pub(crate) struct WithTraceId(pub(crate) Format<Json>);

impl<S, N> FormatEvent<S, N> for WithTraceId
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = String::with_capacity(512);
        self.0.format_event(ctx, Writer::new(&mut line), event)?;
        match (trace_of(ctx, event), line.strip_prefix('{')) {
            (Some(id), Some(rest)) => write!(writer, r#"{{"trace_id":"{id}",{rest}"#),
            _ => writer.write_str(&line),
        }
    }
}

fn trace_of<S, N>(ctx: &FmtContext<'_, S, N>, event: &Event<'_>) -> Option<TraceId>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    // What OpenTelemetry says of itself may be said while it holds the lock that would be taken here.
    if event.metadata().target().starts_with("opentelemetry") {
        return None;
    }
    let id = ctx.lookup_current()?.id();
    let context = get_otel_context(&id, DISPATCH.get()?)?;
    let span = context.span().span_context().clone();
    span.is_valid().then(|| span.trace_id())
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Alone in this test binary: a subscriber of one thread would not see the spans of the layer while it writes.
    #[test]
    fn a_line_inside_of_a_span_names_the_trace() {
        let lines = Lines::default();
        let sink = lines.clone();
        let spans = tracing_opentelemetry::layer().with_tracer(SdkTracerProvider::builder().build().tracer("test"));
        let format = tracing_subscriber::fmt::format().json().flatten_event(true);
        let written =
            tracing_subscriber::fmt::layer().json().event_format(WithTraceId(format)).with_writer(move || sink.clone());
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(written).with(spans)).unwrap();
        remember_default();

        tracing::info!("outside");
        let id = tracing::info_span!("work").in_scope(|| {
            tracing::info!(answer = 42, "inside");
            // Somewhere a thread has a default of its own.
            let own = dispatcher::get_default(Clone::clone);
            dispatcher::with_default(&own, || tracing::info!("under a default of its own"));
            crate::trace_id().unwrap()
        });

        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(!lines[0].contains("trace_id") && lines[0].contains("outside"), "{text}");
        assert!(lines[1].starts_with(&format!(r#"{{"trace_id":"{id}","timestamp""#)), "{text}");
        assert!(lines[1].contains(r#""answer":42"#) && lines[1].ends_with('}'), "{text}");
        assert!(lines[2].starts_with(&format!(r#"{{"trace_id":"{id}""#)) && lines[2].contains("of its own"), "{text}");
    }
}
