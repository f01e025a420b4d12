//! JSON within GraphQL. Digits and the order of members survive, which async-graphql's own conversions do not promise.

use async_graphql::{
    Context, InputValueError, InputValueResult, Name, Scalar, ScalarType, Value as ConstValue, Variables,
};
use serde::de::IgnoredAny;
use serde_json::Value;

/// Any JSON value. In answers it is [`ConstValue::Binary`], its text.
pub(super) struct Json(pub(super) ConstValue);

impl Json {
    /// The value of a key. Bytes that are no JSON (`--validate none`) are a string to a Prefect client.
    pub(super) fn of(bytes: &[u8]) -> Self {
        let text = str::from_utf8(bytes).ok().filter(|text| serde_json::from_str::<IgnoredAny>(text).is_ok());
        let text = text.map_or_else(|| Value::from(String::from_utf8_lossy(bytes)).to_string(), compact);
        Self(ConstValue::Binary(text.into()))
    }
}

/// JSON without the space between its parts.
fn compact(text: &str) -> String {
    let (mut in_string, mut escaped) = (false, false);
    let keep = |char: &char| {
        let ends = *char == '"' && !escaped;
        escaped = in_string && *char == '\\' && !escaped;
        in_string ^= ends;
        in_string || !matches!(char, ' ' | '\t' | '\n' | '\r')
    };
    text.chars().filter(keep).collect()
}

/// Appends `value` as JSON; values of keys go as they are, so that they need no more room than their text.
pub(super) fn write(value: &ConstValue, out: &mut String) {
    let string = |text: &str| Value::from(text).to_string();
    match value {
        ConstValue::Null => out.push_str("null"),
        ConstValue::Boolean(value) => out.push_str(if *value { "true" } else { "false" }),
        ConstValue::Number(number) => out.push_str(number.as_str()),
        ConstValue::String(text) => out.push_str(&string(text)),
        ConstValue::Enum(name) => out.push_str(&string(name)),
        ConstValue::Binary(text) => out.push_str(&String::from_utf8_lossy(text)),
        ConstValue::List(items) => {
            out.push('[');
            for (number, item) in items.iter().enumerate() {
                out.push_str(if number > 0 { "," } else { "" });
                write(item, out);
            }
            out.push(']');
        }
        ConstValue::Object(members) => {
            out.push('{');
            for (number, (name, value)) in members.iter().enumerate() {
                out.push_str(if number > 0 { "," } else { "" });
                out.push_str(&string(name));
                out.push(':');
                write(value, out);
            }
            out.push('}');
        }
    }
}

#[Scalar(name = "JSON")]
impl ScalarType for Json {
    fn parse(value: ConstValue) -> InputValueResult<Self> {
        Ok(Self(value))
    }

    fn to_value(&self) -> ConstValue {
        self.0.clone()
    }
}

/// The id of a key or tenant. One that is no UUID is the id of nothing.
pub(super) struct Uuid(pub(super) String);

#[Scalar(name = "UUID")]
impl ScalarType for Uuid {
    fn parse(value: ConstValue) -> InputValueResult<Self> {
        match value {
            ConstValue::String(text) => Ok(Self(text)),
            value => Err(InputValueError::expected_type(value)),
        }
    }

    fn to_value(&self) -> ConstValue {
        ConstValue::String(self.0.clone())
    }
}

pub(super) fn from_graphql(value: ConstValue) -> Option<Value> {
    Some(match value {
        ConstValue::Null => Value::Null,
        ConstValue::Boolean(value) => Value::Bool(value),
        ConstValue::Number(number) => Value::Number(number),
        ConstValue::String(text) => Value::String(text),
        ConstValue::Enum(name) => Value::String(name.to_string()),
        ConstValue::Binary(_) => return None,
        ConstValue::List(items) => Value::Array(items.into_iter().map(from_graphql).collect::<Option<_>>()?),
        ConstValue::Object(members) => {
            let member = |(name, value): (Name, _)| Some((name.to_string(), from_graphql(value)?));
            Value::Object(members.into_iter().map(member).collect::<Option<_>>()?)
        }
    })
}

fn to_graphql(value: Value) -> ConstValue {
    match value {
        Value::Null => ConstValue::Null,
        Value::Bool(value) => ConstValue::Boolean(value),
        Value::Number(number) => ConstValue::Number(number),
        Value::String(text) => ConstValue::String(text),
        Value::Array(items) => ConstValue::List(items.into_iter().map(to_graphql).collect()),
        Value::Object(members) => {
            let member = |(name, value)| (Name::new(name), to_graphql(value));
            ConstValue::Object(members.into_iter().map(member).collect())
        }
    }
}

/// The variables of a request: an object, or nothing.
pub(super) fn variables(value: Value) -> Option<Variables> {
    let mut variables = Variables::default();
    match value {
        Value::Null => {}
        Value::Object(members) => {
            variables.extend(members.into_iter().map(|(name, value)| (Name::new(name), to_graphql(value))));
        }
        _ => return None,
    }
    Some(variables)
}

/// The text of member `member` of argument `argument`, if the query itself has a string there. Such a string is JSON
/// in a string (`value: "\"bar\""`); a variable is JSON as it is.
pub(super) fn literal(context: &Context<'_>, argument: &str, member: &str) -> Option<String> {
    let input = context.item.node.get_argument(argument)?.node.clone();
    // No string, whatever the variable holds.
    let as_name = |name| Ok::<_, ()>(ConstValue::Enum(name));
    let Ok(ConstValue::Object(members)) = input.into_const_with(as_name) else { return None };
    match members.get(member)? {
        ConstValue::String(text) => Some(text.clone()),
        _ => None,
    }
}
