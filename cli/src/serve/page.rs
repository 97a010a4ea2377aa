//! A server's numbers as OpenMetrics, for scrapers and autoscalers.

use crate::roles::metrics::Page;
use octet_serving::{CLASSES, Latency, Numbers};

/// The page.
///
/// # Errors
/// Never, as far as is known: writing to memory does not fail.
pub fn text(numbers: &Numbers) -> Result<String, String> {
    let mut page = Page::default();
    page.gauge("octet_build_info", "The program's version.")
        .set(&[("version", env!("CARGO_PKG_VERSION")), ("role", "server")], 1);
    let model = [("model", numbers.model.as_str()), ("weights", numbers.weights.as_str())];
    page.gauge("octet_serve_model_info", "The weights that new requests are answered with.")
        .set(&model, 1);
    page.counter("octet_serve_swaps", "Policies that took over while the server ran.")
        .is(numbers.swaps);
    page.queue(&[], "requests", numbers.waiting as u64, numbers.waiting_most as u64);
    page.gauge("octet_serve_waiting", "Requests that wait for room in the batch.")
        .is(numbers.waiting);
    page.gauge("octet_serve_running", "Requests in the batch.").is(numbers.running);
    for (status, count) in &numbers.answers {
        page.counter(
            "octet_serve_answers",
            "Completions by HTTP status; 499 is a client that left.",
        )
        .set(&[("status", status.to_string().as_str())], *count);
    }
    page.counter("octet_serve_prompt_tokens", "Prompt tokens computed.").is(numbers.prompt_tokens);
    page.counter("octet_serve_completion_tokens", "Tokens sampled.").is(numbers.completion_tokens);
    page.gauge("octet_serve_tokens_per_second", "Tokens sampled per second, over the last ten.")
        .is(numbers.tokens_per_second);
    let latencies = [
        (
            "octet_serve_queued_seconds",
            "From a request to its place in the batch.",
            &numbers.queued,
        ),
        (
            "octet_serve_first_token_seconds",
            "From a request to its first token.",
            &numbers.first_token,
        ),
        ("octet_serve_request_seconds", "From a request to the end of its answer.", &numbers.whole),
        ("octet_serve_step_seconds", "One decoding step of the batch.", &numbers.step),
    ];
    for (name, help, latency) in latencies {
        page.histogram(name, help).classes(latency.sum, classes(latency));
    }
    page.text().map_err(|error| error.to_string())
}

fn classes(latency: &Latency) -> Vec<(f64, u64)> {
    CLASSES.iter().copied().chain([f64::INFINITY]).zip(latency.classes).collect()
}
