//! JSON that keeps what ordinary readers lose: the order of members, doubled members, and how their names are written.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json {
    /// Names are kept as they stand between the quotation marks.
    Object(Vec<(String, Json)>),
    Array(Vec<Json>),
    /// Anything else, as its text.
    Leaf(String),
}

/// Where in a text something stands: the number of the member or element, at each depth.
pub(crate) type Path = Vec<usize>;

impl Json {
    pub(crate) fn parse(text: &str) -> Self {
        serde_json::from_str(text).unwrap()
    }

    pub(crate) fn of(value: &impl serde::Serialize) -> Self {
        Self::parse(&serde_json::to_string(value).unwrap())
    }

    pub(crate) fn leaf(text: &str) -> Self {
        Self::Leaf(text.into())
    }

    /// A member of the object itself.
    pub(crate) fn with(mut self, name: &str, value: Self) -> Self {
        let Self::Object(members) = &mut self else { panic!("no object") };
        members.iter_mut().find(|(known, _)| known == name).unwrap_or_else(|| panic!("no member {name}")).1 = value;
        self
    }

    pub(crate) fn at(&self, path: &[usize]) -> &Self {
        path.iter().fold(self, |json, at| match json {
            Self::Object(members) => &members[*at].1,
            Self::Array(elements) => &elements[*at],
            Self::Leaf(text) => panic!("nothing in {text}"),
        })
    }

    pub(crate) fn at_mut(&mut self, path: &[usize]) -> &mut Self {
        path.iter().fold(self, |json, at| match json {
            Self::Object(members) => &mut members[*at].1,
            Self::Array(elements) => &mut elements[*at],
            Self::Leaf(text) => panic!("nothing in {text}"),
        })
    }

    /// Everything that stands in it, itself too, the outermost first.
    pub(crate) fn places(&self) -> Vec<Path> {
        let inner: Vec<&Self> = match self {
            Self::Object(members) => members.iter().map(|(_, value)| value).collect(),
            Self::Array(elements) => elements.iter().collect(),
            Self::Leaf(_) => Vec::new(),
        };
        let mut places = vec![Path::new()];
        for (at, value) in inner.iter().enumerate() {
            places.extend(value.places().into_iter().map(|rest| [vec![at], rest].concat()));
        }
        places
    }

    /// The path in words: `entries.0.scope`.
    pub(crate) fn name(&self, path: &[usize]) -> String {
        let words = path.iter().enumerate().map(|(depth, at)| match self.at(&path[..depth]) {
            Self::Object(members) => members[*at].0.clone(),
            _ => at.to_string(),
        });
        words.collect::<Vec<_>>().join(".")
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leaf(text) => f.write_str(text),
            Self::Array(elements) => {
                let texts: Vec<_> = elements.iter().map(Self::to_string).collect();
                write!(f, "[{}]", texts.join(","))
            }
            Self::Object(members) => {
                let texts: Vec<_> = members.iter().map(|(name, value)| format!(r#""{name}":{value}"#)).collect();
                write!(f, "{{{}}}", texts.join(","))
            }
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Json;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
                let mut members = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Json>()? {
                    members.push((name, value));
                }
                Ok(Json::Object(members))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = seq.next_element()? {
                    elements.push(element);
                }
                Ok(Json::Array(elements))
            }

            fn visit_str<E>(self, text: &str) -> Result<Json, E> {
                Ok(Json::Leaf(Value::from(text).to_string()))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Json, E> {
                Ok(Json::Leaf(number.to_string()))
            }

            fn visit_unit<E>(self) -> Result<Json, E> {
                Ok(Json::Leaf("null".into()))
            }
        }

        deserializer.deserialize_any(Any)
    }
}

/// Ways to spoil `json` that hold for any strictly read text, each with its name: for each member anywhere in it: missing,
/// doubled, doubled under an escaped name, null, of each other type; for each object: one member more, and its values as a
/// sequence; for the whole: other JSON than an object.
pub(crate) fn spoiled(json: &Json) -> Vec<(String, Json)> {
    let mut out = Vec::new();
    for path in json.places() {
        let name = json.name(&path);
        let mut with = |what: &str, value: Json| {
            let mut changed = json.clone();
            *changed.at_mut(&path) = value;
            out.push((format!("{name}: {what}"), changed));
        };
        let other = ["null", "true", "[]", r#"["x"]"#, "{}", r#"{"x":1}"#, "1.0", "1e3", "-1", "18446744073709551616"];
        for text in other {
            with(text, Json::leaf(text));
        }
        match json.at(&path) {
            Json::Leaf(text) if text.starts_with('"') => {
                with("7", Json::leaf("7"));
                with("in an array", Json::Array(vec![Json::leaf(text)]));
            }
            Json::Leaf(text) => {
                with("as a string", Json::leaf(&format!(r#""{text}""#)));
                with("as a float", Json::leaf(&format!("{text}.0")));
                with("in an array", Json::Array(vec![Json::leaf(text)]));
            }
            Json::Array(elements) => {
                with("a string", Json::leaf(r#""x""#));
                with("a number", Json::leaf("7"));
                for wrong in ["null", "7", "[]", "{}"] {
                    let more = elements.iter().cloned().chain([Json::leaf(wrong)]).collect();
                    with(&format!("with an element {wrong}"), Json::Array(more));
                }
            }
            Json::Object(members) => {
                with("a string", Json::leaf(r#""x""#));
                with("a number", Json::leaf("7"));
                with("its values as a sequence", Json::Array(members.iter().map(|(_, value)| value.clone()).collect()));
                let more = |name: &str, value: &Json| {
                    Json::Object(members.iter().cloned().chain([(name.into(), value.clone())]).collect())
                };
                with("one member more", more("extra", &Json::leaf("1")));
                with("one member more that is null", more("extra", &Json::leaf("null")));
                for (at, (member, value)) in members.iter().enumerate() {
                    let mut fewer = members.clone();
                    fewer.remove(at);
                    with(&format!("without {member}"), Json::Object(fewer));
                    with(&format!("{member} doubled"), more(member, value));
                    with(&format!("{member} doubled, once null"), more(member, &Json::leaf("null")));
                    let escaped = format!("\\u{:04x}{}", member.as_bytes()[0], &member[1..]);
                    with(&format!("{member} doubled under an escaped name"), more(&escaped, value));
                }
            }
        }
    }
    // A sample may have an empty list or a 1 where the table puts one.
    out.retain(|(_, changed)| changed.to_string() != json.to_string());
    out
}
