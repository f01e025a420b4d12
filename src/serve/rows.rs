//! The rows of an answer: keys with their values.

use std::borrow::Cow;
use std::sync::Arc;

use async_graphql::parser::types::Field;
use async_graphql::registry::Registry;
use async_graphql::{ContextSelectionSet, Object, OutputType, Positioned, Result, ServerResult, Value};
use jiff::Timestamp;

use super::scalar::{self, Json};
use super::tenant::Tenant;
use crate::store::{Key, Meta, Text};

/// One row of a listing.
pub(super) struct KeyValue {
    pub(super) tenant: Arc<Tenant>,
    pub(super) key: Key,
    pub(super) meta: Meta,
    pub(super) text: Option<Text>,
}

#[allow(clippy::unused_async, reason = "async-graphql asks for it")]
#[Object(name = "key_value", rename_fields = "snake_case")]
impl KeyValue {
    async fn id(&self) -> &str {
        &self.meta.id
    }

    async fn key(&self) -> &str {
        self.key.as_str()
    }

    async fn value(&self) -> Option<Json> {
        self.text.as_ref().map(|text| Json::of(text))
    }

    async fn created(&self) -> Result<String> {
        Ok(Timestamp::try_from(self.meta.created)?.to_string())
    }

    async fn updated(&self) -> Result<String> {
        Ok(Timestamp::try_from(self.meta.modified)?.to_string())
    }

    async fn tenant_id(&self) -> String {
        self.tenant.id.to_string()
    }
}

/// Rows of an answer, each encoded as soon as it is there: as values they would take many times the room of their text.
pub(super) struct Rows(pub(super) Vec<KeyValue>);

impl OutputType for Rows {
    fn type_name() -> Cow<'static, str> {
        Vec::<KeyValue>::type_name()
    }

    fn qualified_type_name() -> String {
        Vec::<KeyValue>::qualified_type_name()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        Vec::<KeyValue>::create_type_info(registry)
    }

    async fn resolve(&self, all: &ContextSelectionSet<'_>, field: &Positioned<Field>) -> ServerResult<Value> {
        let mut text = "[".to_owned();
        for (number, row) in self.0.iter().enumerate() {
            let context = all.with_index(number);
            let row = OutputType::resolve(row, &context, field).await;
            let row = row.map_err(|error| context.set_error_path(error))?;
            text.push_str(if number > 0 { "," } else { "" });
            scalar::write(&row, &mut text);
        }
        text.push(']');
        Ok(Value::Binary(text.into()))
    }
}
