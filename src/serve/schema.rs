//! The GraphQL schema of the KV API of Prefect Cloud 1, as far as its client, command line, documentation and web page
//! use it. Names are Prefect's.

use std::collections::HashSet;
use std::sync::Arc;

use async_graphql::{
    Context, EmptySubscription, Enum, ErrorExtensions, InputObject, MaybeUndefined, Object, SimpleObject,
};

use super::memory_budget::{Full, Reservation};
use super::rows::{KeyValue, Rows};
use super::scalar::{self, Json, Uuid};
use super::tenant::Tenant;
use crate::store::{self, Expect, Key, Meta, Text, VALUE_LIMIT, json};

pub(super) type Schema = async_graphql::Schema<Query, Mutation, EmptySubscription>;
type Result<T> = async_graphql::Result<T>;

/// Fields that one request may ask for, aliases counted: each may read the whole store.
const FIELDS: usize = 100;

/// Bytes of memory that a row of a listing needs beside its key and value.
const ROW: usize = 512;

pub(super) fn schema() -> Schema {
    async_graphql::Schema::build(Query, Mutation, EmptySubscription)
        .limit_complexity(FIELDS)
        .limit_depth(10)
        .limit_directives(10)
        .finish()
}

/// The context of a request: what it may access.
pub(super) struct Access {
    /// The tenant that it is about.
    pub(super) tenant: Arc<Tenant>,
    /// The tenants that its key may choose.
    pub(super) allowed: Vec<Arc<Tenant>>,
    /// The memory of the answer.
    pub(super) memory: Arc<Reservation>,
}

fn access<'a>(context: &Context<'a>) -> Result<&'a Access> {
    context.data()
}

/// An error with a code of Apollo, which the client looks for.
fn refused(code: &'static str, message: impl Into<String>) -> async_graphql::Error {
    async_graphql::Error::new(message).extend_with(|_, extensions| extensions.set("code", code))
}

/// The code that makes the answer a 503.
pub(super) const UNAVAILABLE: &str = "SERVICE_UNAVAILABLE";

fn failed(error: &store::Error) -> async_graphql::Error {
    use store::Error as E;
    let code = match error {
        E::TooLarge { .. } | E::BadKey(_) | E::KeyTooLong { .. } | E::Invalid(_) => "BAD_USER_INPUT",
        E::Denied(_) | E::ReadOnly(_) | E::Quota(_) => "FORBIDDEN",
        E::Busy(_)
        | E::Contended(_)
        | E::TimedOut(_)
        | E::Expired(_)
        | E::Unreachable(_)
        | E::Untrusted(_)
        | E::Unsure(_) => UNAVAILABLE,
        // Such as a broken connection: a retry opens another one.
        E::Other(_) => {
            tracing::warn!("the store failed: {error}");
            UNAVAILABLE
        }
        E::NotFound
        | E::Exists
        | E::Changed
        | E::Damaged(_)
        | E::Displaced(_)
        | E::NoSpace(_)
        | E::TooMany(_) => "INTERNAL_SERVER_ERROR",
    };
    refused(code, error.to_string())
}

fn crowded(full: &Full) -> async_graphql::Error {
    match full {
        Full::Never => refused("BAD_USER_INPUT", "the answer is too large; ask with limit and offset"),
        Full::Now => refused(UNAVAILABLE, "too many large answers at once"),
    }
}

#[derive(InputObject, Default)]
#[graphql(name = "String_comparison_exp")]
struct Compare {
    #[graphql(name = "_eq")]
    eq: Option<String>,
    #[graphql(name = "_in")]
    among: Option<HashSet<String>>,
    /// `%` stands for any characters, `_` for one.
    #[graphql(name = "_like", validator(max_length = 1_000))]
    like: Option<String>,
}

impl Compare {
    fn takes(&self, text: &str) -> bool {
        self.eq.as_ref().is_none_or(|eq| eq == text)
            && self.among.as_ref().is_none_or(|among| among.contains(text))
            && self.like.as_ref().is_none_or(|like| matches(like, text))
    }
}

/// SQL's LIKE. Backtracks to the last `%` only, so that the time is bounded by pattern times text.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut at, mut from, mut retry) = (0, 0, None);
    while from < text.len() {
        match pattern.get(at) {
            Some('%') => {
                retry = Some((at + 1, from));
                at += 1;
            }
            Some(&char) if char == '_' || char == text[from] => (at, from) = (at + 1, from + 1),
            _ => {
                let Some((after, start)) = retry else { return false };
                retry = Some((after, start + 1));
                (at, from) = (after, start + 1);
            }
        }
    }
    pattern[at..].iter().all(|char| *char == '%')
}

#[derive(InputObject, Default)]
#[graphql(name = "key_value_bool_exp")]
struct WhichKeys {
    key: Option<Compare>,
    id: Option<Compare>,
}

impl WhichKeys {
    fn takes(&self, key: &Key, meta: &Meta) -> bool {
        self.key.as_ref().is_none_or(|compare| compare.takes(key.as_str()))
            && self.id.as_ref().is_none_or(|compare| compare.takes(&meta.id))
    }
}

#[derive(InputObject, Default)]
#[graphql(name = "tenant_bool_exp")]
struct WhichTenants {
    id: Option<Compare>,
    slug: Option<Compare>,
    name: Option<Compare>,
}

#[derive(Enum, Clone, Copy, PartialEq, Eq)]
#[graphql(name = "order_by", rename_items = "lowercase")]
enum Order {
    Asc,
    Desc,
}

impl Order {
    fn of(self, ordering: std::cmp::Ordering) -> std::cmp::Ordering {
        if self == Self::Asc { ordering } else { ordering.reverse() }
    }
}

#[derive(InputObject)]
#[graphql(name = "key_value_order_by")]
struct OrderKeys {
    key: Option<Order>,
    id: Option<Order>,
    created: Option<Order>,
    updated: Option<Order>,
}

impl OrderKeys {
    fn compare(&self, a: &(Key, Meta), b: &(Key, Meta)) -> std::cmp::Ordering {
        let by = |order: Option<Order>, ordering: std::cmp::Ordering| {
            order.map_or(std::cmp::Ordering::Equal, |order| order.of(ordering))
        };
        by(self.key, a.0.cmp(&b.0))
            .then_with(|| by(self.id, a.1.id.cmp(&b.1.id)))
            .then_with(|| by(self.created, a.1.created.cmp(&b.1.created)))
            .then_with(|| by(self.updated, a.1.modified.cmp(&b.1.modified)))
    }
}

#[derive(InputObject)]
#[graphql(name = "tenant_order_by")]
struct OrderTenants {
    slug: Option<Order>,
    name: Option<Order>,
    id: Option<Order>,
}

#[derive(SimpleObject)]
#[graphql(name = "tenant")]
struct TenantRow {
    id: String,
    slug: String,
    name: String,
}

#[derive(SimpleObject)]
#[graphql(name = "auth_info", rename_fields = "snake_case")]
struct AuthInfo {
    tenant_id: String,
    user_id: Option<String>,
}

#[derive(SimpleObject)]
#[graphql(name = "set_key_value_payload")]
struct SetPayload {
    id: String,
    error: Option<String>,
}

#[derive(SimpleObject)]
#[graphql(name = "success_payload")]
struct SuccessPayload {
    success: bool,
    error: Option<String>,
}

#[derive(InputObject)]
#[graphql(name = "set_key_value_input")]
struct SetInput {
    key: String,
    value: MaybeUndefined<Json>,
}

#[derive(InputObject)]
#[graphql(name = "delete_key_value_input", rename_fields = "snake_case")]
struct DeleteInput {
    key_value_id: Uuid,
}

pub(super) struct Query;

#[allow(clippy::unused_async, reason = "async-graphql asks for it")]
#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl Query {
    async fn hello(&self) -> &'static str {
        "kvfs"
    }

    async fn auth_info(&self, context: &Context<'_>) -> Result<AuthInfo> {
        Ok(AuthInfo { tenant_id: access(context)?.tenant.id.to_string(), user_id: None })
    }

    async fn tenant(
        &self,
        context: &Context<'_>,
        #[graphql(name = "where")] which: Option<WhichTenants>,
        #[graphql(validator(max_items = 8))] order_by: Option<Vec<OrderTenants>>,
    ) -> Result<Vec<TenantRow>> {
        let which = which.unwrap_or_default();
        let takes = |compare: &Option<Compare>, text: &str| {
            compare.as_ref().is_none_or(|compare| compare.takes(text))
        };
        let rows = access(context)?.allowed.iter().map(|tenant| TenantRow {
            id: tenant.id.to_string(),
            slug: tenant.name.clone(),
            name: tenant.name.clone(),
        });
        let mut rows: Vec<TenantRow> = rows
            .filter(|row| takes(&which.id, &row.id) && takes(&which.slug, &row.slug))
            .filter(|row| takes(&which.name, &row.name))
            .collect();
        for order in order_by.iter().flatten().rev() {
            if let Some(order) = order.id {
                rows.sort_by(|a, b| order.of(a.id.cmp(&b.id)));
            }
            if let Some(order) = order.slug.or(order.name) {
                rows.sort_by(|a, b| order.of(a.slug.cmp(&b.slug)));
            }
        }
        Ok(rows)
    }

    async fn key_value(
        &self,
        context: &Context<'_>,
        #[graphql(name = "where")] which: Option<WhichKeys>,
        #[graphql(validator(max_items = 8))] order_by: Option<Vec<OrderKeys>>,
        limit: Option<u32>,
        offset: Option<u32>,
    ) -> Result<Rows> {
        let Access { tenant, memory, .. } = access(context)?;
        let which = which.unwrap_or_default();
        let with_values = context.look_ahead().field("value").exists();
        let page = (offset.unwrap_or(0) as usize, limit.map_or(usize::MAX, |limit| limit as usize));
        let row = |key: Key, meta: Meta, text: Option<Text>| {
            let size = key.as_str().len() + text.as_ref().map_or(0, |text| text.len());
            memory.grow(ROW + 3 * size).map_err(|full| crowded(&full))?;
            Ok(KeyValue { tenant: tenant.clone(), key, meta, text })
        };
        let asked_for = which.key.as_ref().and_then(|key| key.eq.as_deref());
        if let Some(key) = asked_for.map(Key::from) {
            let entry = tenant.get(&key).await.map_err(|error| failed(&error))?;
            let entry = entry.filter(|entry| which.takes(&key, &entry.meta)).into_iter();
            let rows = entry.map(|entry| row(key.clone(), entry.meta, Some(entry.text)));
            return rows.skip(page.0).take(page.1).collect::<Result<_>>().map(Rows);
        }
        let _permit = tenant.listings.acquire().await.map_err(|full| crowded(&full))?;
        let (listing, texts) = tenant.store.list_entries().await.map_err(|error| failed(&error))?;
        // The values in the listing, if it has any.
        let texts = texts.into_iter().map(Some).chain(std::iter::repeat(None));
        let mut listing: Vec<_> = listing.into_iter().zip(texts).collect();
        listing.retain(|((key, meta), _)| which.takes(key, meta));
        for order in order_by.iter().flatten().rev() {
            listing.sort_by(|(a, _), (b, _)| order.compare(a, b));
        }
        let mut rows = Vec::new();
        for ((key, meta), text) in listing.into_iter().skip(page.0).take(page.1) {
            match text {
                _ if !with_values => rows.push(row(key, meta, None)?),
                Some(text) => rows.push(row(key, meta, Some(text))?),
                // `None` if it was deleted meanwhile.
                None => {
                    if let Some(entry) = tenant.get(&key).await.map_err(|error| failed(&error))? {
                        rows.push(row(key, entry.meta, Some(entry.text))?);
                    }
                }
            }
        }
        Ok(Rows(rows))
    }
}

pub(super) struct Mutation;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl Mutation {
    async fn set_key_value(&self, context: &Context<'_>, input: SetInput) -> Result<SetPayload> {
        let value = match input.value {
            MaybeUndefined::Value(Json(value)) => scalar::from_graphql(value)
                .ok_or_else(|| refused("BAD_USER_INPUT", "the value is not JSON"))?,
            MaybeUndefined::Null => serde_json::Value::Null,
            MaybeUndefined::Undefined => return Err(refused("BAD_USER_INPUT", "the input has no value")),
        };
        let value = scalar::literal(context, "input", "value").map_or(Ok(value), |text| {
            let json = serde_json::from_str(&text);
            json.map_err(|_| refused("BAD_USER_INPUT", "the value, a string in the query, is not JSON"))
        })?;
        if json::python_len(&value) > VALUE_LIMIT {
            return Err(refused("BAD_USER_INPUT", "Value payload exceedes 10 KB limit."));
        }
        let (key, text) = (Key::from(input.key), json::shown(&value));
        let set = access(context)?.tenant.store.set_key_value(&key, text, Expect::Anything).await;
        let meta = set.map_err(|error| failed(&error))?;
        Ok(SetPayload { id: meta.id.to_string(), error: None })
    }

    async fn delete_key_value(&self, context: &Context<'_>, input: DeleteInput) -> Result<SuccessPayload> {
        let success = access(context)?.tenant.delete(&input.key_value_id.0).await;
        let success = success.map_err(|error| failed(&error))?;
        Ok(SuccessPayload { success, error: (!success).then(|| "no key has this id".to_owned()) })
    }
}
