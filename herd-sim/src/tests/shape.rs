//! The shape of JSON: names of fields in their order, and types; not the values.

use std::fmt;

use serde::{
    Deserialize,
    de::{Deserializer, MapAccess, SeqAccess, Visitor},
};

/// What a value looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shape {
    Null,
    Bool,
    Number,
    Text,
    /// By its first element; others are taken to be like it.
    List(Option<Box<Shape>>),
    Object(Vec<(String, Shape)>),
}

impl Shape {
    /// The shape of `text`, which must be JSON.
    #[track_caller]
    pub(super) fn of(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Names of the fields of an object.
    pub(super) fn names(&self) -> Vec<&str> {
        match self {
            Self::Object(fields) => fields.iter().map(|(name, _)| name.as_str()).collect(),
            _ => Vec::new(),
        }
    }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ShapeVisitor)
    }
}

struct ShapeVisitor;

impl<'de> Visitor<'de> for ShapeVisitor {
    type Value = Shape;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Shape, E> {
        Ok(Shape::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Shape, E> {
        Ok(Shape::Bool)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Shape, E> {
        Ok(Shape::Number)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Shape, E> {
        Ok(Shape::Number)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Shape, E> {
        Ok(Shape::Number)
    }

    fn visit_str<E>(self, _: &str) -> Result<Shape, E> {
        Ok(Shape::Text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Shape, A::Error> {
        let first = list.next_element()?;
        while list.next_element::<Shape>()?.is_some() {}
        Ok(Shape::List(first.map(Box::new)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Shape, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(Shape::Object(fields))
    }
}

/// One unit of a body: a line of JSON or an event, with equal neighbours counted once, since how many tokens there are
/// is not a matter of shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unit {
    Json(Shape),
    /// Name of the event, if it has one, and its data.
    Event(Option<String>, Shape),
    Done,
    Text(String),
}

/// The units of a body of that content type.
#[track_caller]
pub(super) fn units(body: &str, content_type: &str) -> Vec<Unit> {
    let mut units = match content_type {
        "text/event-stream" => body.split("\n\n").filter(|event| !event.trim().is_empty()).map(event).collect(),
        json if json.contains("json") => {
            body.lines().filter(|line| !line.trim().is_empty()).map(|line| Unit::Json(Shape::of(line))).collect()
        }
        _ => vec![Unit::Text(body.trim_end().to_owned())],
    };
    units.dedup();
    units
}

#[track_caller]
fn event(text: &str) -> Unit {
    let (mut name, mut data) = (None, "");
    for line in text.lines() {
        match line.split_once(": ") {
            Some(("event", text)) => name = Some(text.to_owned()),
            Some(("data", text)) => data = text,
            _ => panic!("not a line of an event: {line:?}"),
        }
    }
    if data == "[DONE]" { Unit::Done } else { Unit::Event(name, Shape::of(data)) }
}
