//! What is at which path, and what is read before it.
//!
//! Invariant: whatever is sent, the answer is the one asked for or an error in OpenAI's JSON; no more of a body is
//! kept than the limit, and none is waited for longer than [`BODY`].

use crate::answering::Ending;
use crate::desk::Desk;
use crate::error::Refusal;
use crate::sse::events;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use axum::http::{HeaderMap, Method, Response, Uri};
use axum::routing::{get, post};
use futures::StreamExt;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How long a body may take to come.
const BODY: Duration = Duration::from_secs(30);
/// So many times the limit is read and thrown away, so that the client gets to read why.
const THROWN_AWAY: usize = 8;
/// What OpenMetrics calls itself.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Answer = Response<Body>;

/// All paths.
pub(crate) fn router(desk: Arc<Desk>) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(complete))
        .route("/invocations", post(complete))
        .route("/v1/models", get(models))
        .route("/v1/models/{*name}", get(model))
        .route("/ping", get(healthy))
        .route("/healthz", get(healthy))
        .route("/metrics", get(metrics))
        .method_not_allowed_fallback(no_method)
        .fallback(no_path)
        .with_state(desk)
}

async fn complete(State(desk): State<Arc<Desk>>, request: Request) -> Answer {
    let ending = desk.begin();
    completion(&desk, request, ending).await.unwrap_or_else(|refusal| refusal.response())
}

async fn completion(
    desk: &Arc<Desk>,
    request: Request,
    mut ending: Ending,
) -> Result<Answer, Refusal> {
    let body = async {
        desk.takes()?;
        allowed(desk, request.headers())?;
        read(request, desk.settings.body).await
    };
    let body = body.await.inspect_err(|refusal| ending.with(refusal.status().as_u16()))?;
    let (request, mut answering) = desk.take(body, ending).await?;
    // The status is decided by the first news: whoever waits in vain is not told 200 before.
    let first = answering.next().await?.unwrap_or_default();
    if !request.stream {
        return Ok(document(&answering.whole(first).await?));
    }
    let mut response = Response::new(Body::from_stream(events(answering, first)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // nginx would gather the pieces.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// Checks the key. Digests are compared, which takes as long whatever the key begins with.
fn allowed(desk: &Desk, headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(wanted) = &desk.settings.key else { return Ok(()) };
    let Some(found) = headers.get(AUTHORIZATION) else {
        return Err(Refusal::Key { found: "no such header" });
    };
    let found = found.as_bytes().strip_prefix(b"Bearer ");
    let found = found.ok_or(Refusal::Key { found: "another scheme than Bearer" })?;
    if blake3::hash(found) == blake3::hash(wanted.as_bytes()) {
        Ok(())
    } else {
        Err(Refusal::Key { found: "another key" })
    }
}

async fn read(request: Request, most: usize) -> Result<Vec<u8>, Refusal> {
    let announced = request.headers().get(CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > most.saturating_mul(THROWN_AWAY)) {
        return Err(Refusal::BodyTooLarge { most });
    }
    let mut pieces = request.into_body().into_data_stream();
    let reading = async {
        let (mut body, mut seen) = (Vec::new(), 0usize);
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|error| Refusal::Body { found: error.to_string() })?;
            seen = seen.saturating_add(piece.len());
            if seen <= most {
                body.extend_from_slice(&piece);
            } else if seen > most.saturating_mul(THROWN_AWAY) {
                break;
            }
        }
        if seen > most { Err(Refusal::BodyTooLarge { most }) } else { Ok(body) }
    };
    timeout(BODY, reading).await.unwrap_or(Err(Refusal::BodyLate(BODY)))
}

async fn models(State(desk): State<Arc<Desk>>, headers: HeaderMap) -> Answer {
    match allowed(&desk, &headers) {
        Ok(()) => document(&json!({ "object": "list", "data": [card(&desk)] })),
        Err(refusal) => refusal.response(),
    }
}

async fn model(State(desk): State<Arc<Desk>>, headers: HeaderMap, uri: Uri) -> Answer {
    if let Err(refusal) = allowed(&desk, &headers) {
        return refusal.response();
    }
    let found = uri.path().trim_start_matches("/v1/models/");
    let served = &desk.settings.name;
    if found == served {
        return document(&card(&desk));
    }
    let (found, served) = (octet_calls::excerpt(found), served.clone());
    Refusal::Model { found, served }.response()
}

/// The model as `/v1/models` lists it; the last three keys are octet's own.
fn card(desk: &Desk) -> Value {
    let loaded = desk.current();
    json!({
        "id": desk.settings.name,
        "object": "model",
        "created": 0,
        "owned_by": "octet",
        "max_model_len": loaded.context(),
        "weights": loaded.digest(),
        "system_fingerprint": loaded.fingerprint(),
    })
}

async fn healthy(State(desk): State<Arc<Desk>>) -> Answer {
    match desk.takes() {
        Ok(()) => document(&json!({ "status": "ok" })),
        Err(refusal) => refusal.response(),
    }
}

async fn metrics(State(desk): State<Arc<Desk>>) -> Answer {
    match (desk.settings.page)(&desk.numbers()) {
        Ok(text) => {
            let mut response = Response::new(Body::from(text));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(OPEN_METRICS));
            response
        }
        Err(why) => Refusal::Failed(why).response(),
    }
}

async fn no_path(uri: Uri) -> Answer {
    Refusal::Path { path: octet_calls::excerpt(uri.path()) }.response()
}

async fn no_method(method: Method, uri: Uri) -> Answer {
    let (path, method) = (octet_calls::excerpt(uri.path()), octet_calls::excerpt(method.as_str()));
    Refusal::Method { path, method }.response()
}

fn document(value: &Value) -> Answer {
    let mut response = Response::new(Body::from(value.to_string()));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}
