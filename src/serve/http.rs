//! Requests and answers: which tenant a request is admitted to, and the status of its answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::{RequestBody, Unread};
use super::browsers;
use super::connections::Connection;
use super::keys::Keys;
use super::memory_budget::{MemoryBudget, Reservation};
use super::query;
use super::scalar;
use super::schema::{Access, Schema, UNAVAILABLE, schema};
use super::tenant::Tenant;

/// How long the answer of `/health` is kept.
const HEALTH_AGE: Duration = Duration::from_secs(1);

/// A code and a reason.
type Refused = (&'static str, &'static str);

/// The state that all requests share.
pub(super) struct App {
    keys: Keys,
    /// The first is the default.
    tenants: Vec<Arc<Tenant>>,
    schema: Schema,
    memory: MemoryBudget,
    /// When the store was last asked for `/health`, and whether it answered.
    health: tokio::sync::Mutex<Option<(Instant, bool)>>,
}

/// Handles the requests of one connection.
#[derive(Clone)]
struct Handler {
    app: Arc<App>,
    connection: Connection,
    client: SocketAddr,
}

impl App {
    pub(super) fn new(keys: Keys, tenants: Vec<Arc<Tenant>>) -> Arc<Self> {
        Arc::new(Self {
            keys,
            tenants,
            schema: schema(),
            memory: MemoryBudget::new(),
            health: tokio::sync::Mutex::default(),
        })
    }

    /// The tenant that the request is about and all that its key may use; else a code and a reason.
    fn admit(&self, headers: &HeaderMap) -> Result<(Arc<Tenant>, Vec<Arc<Tenant>>), Refused> {
        let login = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let login = login.and_then(|value| value.trim().split_once(char::is_whitespace));
        let secret = login.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("Bearer"));
        let secret = secret.map(|(_, secret)| secret.trim());
        let Some(names) = self.keys.tenants_of(secret) else {
            return Err(("UNAUTHENTICATED", "AuthenticationError: Forbidden"));
        };
        let may = |tenant: &&Arc<Tenant>| names.is_empty() || names.contains(&tenant.name);
        let allowed: Vec<Arc<Tenant>> = self.tenants.iter().filter(may).cloned().collect();
        let wanted = headers.get("x-prefect-tenant-id").map(|id| id.to_str().unwrap_or_default());
        let tenant = match (wanted, names.first()) {
            (Some(id), _) => allowed.iter().find(|tenant| tenant.id.to_string().eq_ignore_ascii_case(id)),
            (None, Some(name)) => allowed.iter().find(|tenant| tenant.name == *name),
            (None, None) => allowed.first(),
        };
        let why = "AuthorizationError: this key may not use this tenant";
        let tenant = tenant.cloned().ok_or(("FORBIDDEN", why))?;
        Ok((tenant, allowed))
    }

    /// Whether the store answers anything at all. Asks it rarely: everybody may ask here.
    async fn is_healthy(&self) -> bool {
        let mut health = self.health.lock().await;
        if let Some((_, healthy)) = health.filter(|(asked, _)| asked.elapsed() < HEALTH_AGE) {
            return healthy;
        }
        let probe = self.tenants[0].get(&crate::store::Key::from("health")).await;
        _ = probe.as_ref().inspect_err(|error| tracing::warn!("the store does not answer: {error}"));
        *health = Some((Instant::now(), probe.is_ok()));
        probe.is_ok()
    }

    /// Why a browser must not be answered. An API key, which no page has, makes up for it.
    fn foreign(&self, headers: &HeaderMap) -> Option<&'static str> {
        self.keys.are_open().then(|| browsers::foreign(headers)).flatten()
    }
}

impl Handler {
    async fn answer(
        &self,
        (tenant, allowed): (Arc<Tenant>, Vec<Arc<Tenant>>),
        body: &mut RequestBody,
    ) -> Response {
        let body = match body.read().await {
            Ok(body) => body,
            Err(why) => return unread(&why),
        };
        let _work = self.connection.work();
        let Some(_memory) = self.app.memory.reserve_request(body.len()).await else {
            return unavailable("too many requests at once");
        };
        let memory = Arc::new(self.app.memory.reserve_answer());
        let request = match parse(&body) {
            Ok(request) => request,
            Err((code, why)) => return refusal(StatusCode::BAD_REQUEST, code, &why),
        };
        drop(body);
        let access = Access { tenant, allowed, memory: memory.clone() };
        encode(&self.app.schema.execute(request.data(access)).await, memory)
    }
}

pub(super) fn router(app: Arc<App>, connection: Connection, client: SocketAddr) -> Router {
    // The 1.x client posts to the address it was given, whatever path that has.
    Router::new().route("/health", get(health)).fallback(graphql).with_state(Handler {
        app,
        connection,
        client,
    })
}

async fn health(State(Handler { app, .. }): State<Handler>, headers: HeaderMap) -> Response {
    if let Some(why) = app.foreign(&headers) {
        return refusal(StatusCode::FORBIDDEN, "FORBIDDEN", why);
    }
    if app.is_healthy().await {
        reply(StatusCode::OK, &json!({"status": "ok", "version": env!("CARGO_PKG_VERSION")}))
    } else {
        unavailable("the store does not answer")
    }
}

async fn graphql(State(handler): State<Handler>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let mut body = RequestBody::new(&parts.headers, body);
    let response = answer(&handler, &parts, &mut body).await;
    body.discard();
    response
}

async fn answer(handler: &Handler, parts: &Parts, body: &mut RequestBody) -> Response {
    let start = Instant::now();
    // Neither keys nor values nor the query, which may hold both.
    let what = format!("{} {} {:?}", handler.client, parts.method, parts.uri.path());
    if let Some(why) = handler.app.foreign(&parts.headers) {
        tracing::warn!("{what} refused: {why}");
        return refusal(StatusCode::FORBIDDEN, "FORBIDDEN", why);
    }
    let (tenant, response) = match handler.app.admit(&parts.headers) {
        _ if parts.method != Method::POST => {
            let mut response = refusal(StatusCode::METHOD_NOT_ALLOWED, "BAD_REQUEST", "send a POST request");
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
            (String::new(), response)
        }
        Ok(tenants) => (tenants.0.name.clone(), handler.answer(tenants, body).await),
        Err((code, why)) => {
            let known = if code == "FORBIDDEN" { why } else { "it has no API key that is known here" };
            tracing::warn!("{what} refused: {known}");
            // The client takes a 401 for a crash.
            return refusal(StatusCode::OK, code, why);
        }
    };
    tracing::info!(
        "{what} tenant={tenant:?} {} {} ms",
        response.status().as_u16(),
        start.elapsed().as_millis()
    );
    response
}

/// The members of a request. The 1.x client sends `variables` as a string of JSON.
#[derive(Deserialize)]
struct Envelope {
    query: String,
    #[serde(default)]
    variables: Value,
    #[serde(rename = "operationName")]
    operation_name: Option<String>,
}

fn unread(why: &Unread) -> Response {
    let (status, why) = match why {
        Unread::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "the request is over 1 MiB"),
        Unread::Broken => (StatusCode::BAD_REQUEST, "the request is broken"),
        Unread::Late => (StatusCode::REQUEST_TIMEOUT, "the request did not arrive in time"),
    };
    refusal(status, "BAD_REQUEST", why)
}

fn parse(body: &[u8]) -> Result<async_graphql::Request, (&'static str, String)> {
    let bad = |why: &str| ("BAD_USER_INPUT", why.to_owned());
    let envelope: Envelope = serde_json::from_slice(body)
        .map_err(|error| bad(&format!("the request is not JSON with a query: {}", place(&error))))?;
    let variables = match envelope.variables {
        Value::String(text) => serde_json::from_str(&text)
            .map_err(|error| bad(&format!("the variables are not JSON: {}", place(&error))))?,
        value => value,
    };
    let variables = scalar::variables(variables).ok_or_else(|| bad("the variables are not an object"))?;
    let query = query::prepare(&envelope.query).map_err(|why| ("GRAPHQL_PARSE_FAILED", why.to_owned()))?;
    let mut request = async_graphql::Request::new(query).variables(variables);
    if let Some(name) = envelope.operation_name {
        request = request.operation_name(name);
    }
    // The codes distinguish a syntax error from an unknown field.
    match request.parsed_query() {
        Err(error) => return Err(("GRAPHQL_PARSE_FAILED", error.message.clone())),
        // The validation of fragments that refer to each other twice, or to themselves, would never end.
        Ok(document) if !document.fragments.is_empty() => {
            let why = "named fragments are not served; write the fields out";
            return Err(("GRAPHQL_VALIDATION_FAILED", why.to_owned()));
        }
        Ok(_) => {}
    }
    Ok(request)
}

/// The position of an error in JSON, without the text itself.
fn place(error: &serde_json::Error) -> String {
    format!("line {} column {}", error.line(), error.column())
}

/// Encodes the answer. The 1.x client goes by the status: 200 for a request that was carried out, also with errors that have a
/// path; 400 for one that was not; 503 for a retry.
fn encode(response: &async_graphql::Response, memory: Arc<Reservation>) -> Response {
    let code = |error: &async_graphql::ServerError| {
        let extensions = error.extensions.as_ref()?;
        match extensions.get("code")? {
            async_graphql::Value::String(code) => Some(code.clone()),
            _ => None,
        }
    };
    if response.errors.iter().any(|error| code(error).as_deref() == Some(UNAVAILABLE)) {
        return unavailable("the store does not answer");
    }
    let mut text = "{\"data\":".to_owned();
    scalar::write(&response.data, &mut text);
    if response.errors.is_empty() {
        text.push('}');
        return Answer::sent(StatusCode::OK, text, memory);
    }
    let errors: Vec<Value> = response
        .errors
        .iter()
        .map(|error| {
            let code = code(error).unwrap_or_else(|| "GRAPHQL_VALIDATION_FAILED".to_owned());
            json!({"message": harmless(&error.message), "path": error.path, "extensions": {"code": code}})
        })
        .collect();
    let executed = response.errors.iter().any(|error| !error.path.is_empty());
    let status = if executed { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    text.push_str(",\"errors\":");
    text.push_str(&Value::from(errors).to_string());
    text.push('}');
    Answer::sent(status, text, memory)
}

/// An answer, whose memory is reserved until it has been sent.
struct Answer {
    text: String,
    _memory: Arc<Reservation>,
}

impl Answer {
    fn sent(status: StatusCode, mut text: String, memory: Arc<Reservation>) -> Response {
        text.shrink_to_fit();
        memory.shrink(text.len());
        sent(status, Bytes::from_owner(Self { text, _memory: memory }))
    }
}

impl AsRef<[u8]> for Answer {
    fn as_ref(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

/// Masks words that the client looks for anywhere in an answer, to decide about a retry.
fn harmless(message: &str) -> String {
    ["API_ERROR", "UNAUTHENTICATED", "VERSION_LOCKING_ERROR", "Malformed Authorization header"]
        .iter()
        .fold(message.to_owned(), |message, word| message.replace(word, "..."))
}

fn refusal(status: StatusCode, code: &str, message: &str) -> Response {
    let error = json!({"message": harmless(message), "path": [], "extensions": {"code": code}});
    reply(status, &json!({"data": null, "errors": [error]}))
}

/// A 503 with `Retry-After`, without which the 1.x client waits a minute.
fn unavailable(why: &str) -> Response {
    let mut response = refusal(StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE, why);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn reply(status: StatusCode, body: &Value) -> Response {
    sent(status, body.to_string().into())
}

fn sent(status: StatusCode, body: Bytes) -> Response {
    let json = HeaderValue::from_static("application/json");
    (status, [(header::CONTENT_TYPE, json)], body).into_response()
}
