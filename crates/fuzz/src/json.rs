//! JSON that is nearly right.

use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::{Map, Value, json};

use crate::text::any_text;

/// Any JSON value: of another type, at the ends of its type, empty, odd or deep.
pub fn value() -> BoxedStrategy<Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        select(
            &[0_i64, -1, 1, 100, 101, 1_000, 1_001, 10_000_001, 4_294_967_295, 4_294_967_296, i64::MIN, i64::MAX][..]
        )
        .prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any_text().prop_map(Value::from),
    ];
    let tree = leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((any_text(), inner), 0..4).prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    });
    prop_oneof![30 => tree, 1 => (1..140_usize).prop_map(deep)].boxed()
}

/// Arrays in objects in arrays.
fn deep(levels: usize) -> Value {
    (0..levels).fold(Value::Null, |inner, n| if n % 2 == 0 { json!([inner]) } else { json!({"a": inner}) })
}

/// A change to one place of a JSON value.
#[derive(Debug, Clone)]
pub struct Mutation {
    place: usize,
    change: Change,
}

#[derive(Debug, Clone)]
enum Change {
    Remove,
    Put(Value),
    Add(String, Value),
    Rename(String),
    Wrap,
    Long(usize),
}

/// A change to some place; `names` are the words that fields are called by.
pub fn mutation(names: &'static [&'static str]) -> impl Strategy<Value = Mutation> {
    let name = prop_oneof![3 => select(names).prop_map(str::to_owned), 1 => any_text()];
    let change = prop_oneof![
        4 => Just(Change::Remove),
        12 => value().prop_map(Change::Put),
        4 => (name.clone(), value()).prop_map(|(name, value)| Change::Add(name, value)),
        2 => name.prop_map(Change::Rename),
        1 => Just(Change::Wrap),
        1 => (1..300_usize).prop_map(Change::Long),
    ];
    (any::<usize>(), change).prop_map(|(place, change)| Mutation { place, change })
}

impl Mutation {
    /// Does it.
    pub fn apply(&self, value: &mut Value) {
        let mut places = Vec::new();
        list(value, String::new(), &mut places);
        let pointer = &places[self.place % places.len()];
        let key = pointer
            .rsplit_once('/')
            .map(|(parent, key)| (parent.to_owned(), key.replace("~1", "/").replace("~0", "~")));
        match &self.change {
            Change::Remove => match key {
                Some((parent, key)) => drop(take(value, &parent, &key)),
                None => *value = Value::Null,
            },
            Change::Rename(name) => {
                if let Some((parent, key)) = key
                    && let Some(inner) = take(value, &parent, &key)
                    && let Some(Value::Object(fields)) = value.pointer_mut(&parent)
                {
                    fields.insert(name.clone(), inner);
                }
            }
            change => {
                if let Some(place) = value.pointer_mut(pointer) {
                    put(place, change);
                }
            }
        }
    }
}

fn put(place: &mut Value, change: &Change) {
    match (change, place) {
        (Change::Put(new), place) => *place = new.clone(),
        (Change::Add(name, new), Value::Object(fields)) => drop(fields.insert(name.clone(), new.clone())),
        (Change::Add(_, new), Value::Array(items)) => items.push(new.clone()),
        (Change::Wrap, place) => *place = Value::Array(vec![place.take()]),
        (Change::Long(n), Value::Array(items)) => {
            let item = items.first().cloned().unwrap_or_default();
            items.extend(std::iter::repeat_n(item, *n));
        }
        (Change::Long(n), Value::Object(fields)) => fields.extend((0..*n).map(|n| (format!("field {n}"), Value::Null))),
        _ => {}
    }
}

fn take(value: &mut Value, parent: &str, key: &str) -> Option<Value> {
    match value.pointer_mut(parent)? {
        Value::Object(fields) => fields.remove(key),
        Value::Array(items) => key.parse().ok().filter(|n| *n < items.len()).map(|n: usize| items.remove(n)),
        _ => None,
    }
}

fn list(value: &Value, at: String, places: &mut Vec<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, inner)| {
            list(inner, format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), places);
        }),
        // The first ones of a long list stand for the others.
        Value::Array(items) => {
            items.iter().take(3).enumerate().for_each(|(n, inner)| list(inner, format!("{at}/{n}"), places))
        }
        _ => {}
    }
    places.push(at);
}

/// A JSON text in which one of an object's fields is there twice.
pub fn with_a_field_twice(fields: &Map<String, Value>, which: usize) -> Option<String> {
    let (name, value) = fields.iter().nth(which % fields.len().max(1))?;
    let text = serde_json::to_string(fields).ok()?;
    Some(format!("{{{}:{value},{}", Value::from(name.as_str()), text.strip_prefix('{')?))
}
