//! Search filters: the text of RFC 4515 to the element of RFC 4511 §4.5.1.7.
//!
//! A filter is parsed once, from what the organisation wrote. The value that stands for `{}` is put in as bytes of an assertion when the
//! filter is sent, so that no login name can be syntax.

use super::ber::{OCTET_STRING, SEQUENCE, Writer};

/// What stands for the value.
const PLACE: &str = "{}";
/// Longest filter, in bytes.
const BYTES_MAX: usize = 4 << 10;
/// Filters within filters.
const DEPTH_MAX: usize = 16;
/// Places for the value: each may be as long as a distinguished name.
const PLACES_MAX: usize = 8;
/// Longest attribute description or matching rule, in bytes.
const NAME_BYTES_MAX: usize = 128;

/// Tags of the CHOICE Filter, and within substrings and extensible matches.
const AND: u8 = 0xa0;
const OR: u8 = 0xa1;
const NOT: u8 = 0xa2;
const EQUALITY: u8 = 0xa3;
const SUBSTRINGS: u8 = 0xa4;
const GREATER_OR_EQUAL: u8 = 0xa5;
const LESS_OR_EQUAL: u8 = 0xa6;
const PRESENT: u8 = 0x87;
const APPROXIMATE: u8 = 0xa8;
const EXTENSIBLE: u8 = 0xa9;
const INITIAL: u8 = 0x80;
const ANY: u8 = 0x81;
const FINAL: u8 = 0x82;
const RULE: u8 = 0x81;
const TYPE: u8 = 0x82;
const MATCH_VALUE: u8 = 0x83;
const DN_ATTRIBUTES: u8 = 0x84;

/// A text that is no filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a filter of RFC 4515 with {PLACE} in it, found one {0}")]
pub(super) struct FilterError(&'static str);

/// A filter with places for one value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filter(Node);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    /// AND or OR.
    Several(u8, Vec<Node>),
    Not(Box<Node>),
    /// EQUALITY, GREATER_OR_EQUAL, LESS_OR_EQUAL or APPROXIMATE.
    Compare(u8, String, Value),
    /// INITIAL, ANY and FINAL, in order.
    Substrings(String, Vec<(u8, Value)>),
    Present(String),
    Extensible {
        rule: Option<String>,
        attribute: Option<String>,
        value: Value,
        dn_attributes: bool,
    },
}

/// The value of an assertion: bytes, and where the value goes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Value(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Bytes(Vec<u8>),
    Place,
}

impl Filter {
    /// Parses one, which must have a place for the value.
    pub(super) fn parse(text: &str) -> Result<Self, FilterError> {
        if text.len() > BYTES_MAX {
            return Err(FilterError("that is too long"));
        }
        let mut parser = Parser { rest: text, places: 0 };
        let filter = parser.filter(0)?;
        match parser {
            Parser { rest, .. } if !rest.is_empty() => Err(FilterError("with more behind its end")),
            Parser { places: 0, .. } => Err(FilterError("without a place for the value")),
            Parser { places, .. } if places > PLACES_MAX => Err(FilterError("with too many places for the value")),
            _ => Ok(Self(filter)),
        }
    }

    /// Writes it with `value` in its places.
    pub(super) fn write(&self, to: &mut Writer, value: &str) {
        self.0.write(to, value);
    }
}

impl Node {
    /// As deep as the parser went.
    fn write(&self, to: &mut Writer, value: &str) {
        match self {
            Self::Several(tag, nodes) => to.nested(*tag, |to| nodes.iter().for_each(|node| node.write(to, value))),
            Self::Not(node) => to.nested(NOT, |to| node.write(to, value)),
            Self::Compare(tag, attribute, assertion) => to.nested(*tag, |to| {
                to.element(OCTET_STRING, attribute.as_bytes());
                assertion.write(to, OCTET_STRING, value);
            }),
            Self::Substrings(attribute, pieces) => to.nested(SUBSTRINGS, |to| {
                to.element(OCTET_STRING, attribute.as_bytes());
                to.nested(SEQUENCE, |to| pieces.iter().for_each(|(tag, piece)| piece.write(to, *tag, value)));
            }),
            Self::Present(attribute) => to.element(PRESENT, attribute.as_bytes()),
            Self::Extensible { rule, attribute, value: assertion, dn_attributes } => to.nested(EXTENSIBLE, |to| {
                for (tag, name) in [(RULE, rule), (TYPE, attribute)] {
                    if let Some(name) = name {
                        to.element(tag, name.as_bytes());
                    }
                }
                assertion.write(to, MATCH_VALUE, value);
                if *dn_attributes {
                    to.boolean(DN_ATTRIBUTES, true);
                }
            }),
        }
    }
}

impl Value {
    fn write(&self, to: &mut Writer, tag: u8, value: &str) {
        to.nested(tag, |to| {
            for part in &self.0 {
                match part {
                    Part::Bytes(bytes) => to.put(bytes),
                    Part::Place => to.put(value.as_bytes()),
                };
            }
        });
    }
}

struct Parser<'a> {
    rest: &'a str,
    places: usize,
}

impl Parser<'_> {
    /// `filter = "(" filtercomp ")"`
    fn filter(&mut self, depth: usize) -> Result<Node, FilterError> {
        if depth >= DEPTH_MAX {
            return Err(FilterError("that goes too deep"));
        }
        self.take('(', "without an opening parenthesis")?;
        let node = match self.rest.chars().next() {
            Some('&') => Node::Several(AND, self.list(depth)?),
            Some('|') => Node::Several(OR, self.list(depth)?),
            Some('!') => {
                self.take('!', "")?;
                Node::Not(Box::new(self.filter(depth + 1)?))
            }
            _ => self.item()?,
        };
        self.take(')', "without a closing parenthesis")?;
        Ok(node)
    }

    /// `"&"` or `"|"` and `filterlist = 1*filter`
    fn list(&mut self, depth: usize) -> Result<Vec<Node>, FilterError> {
        self.rest = self.rest.get(1..).unwrap_or_default();
        let mut nodes = vec![self.filter(depth + 1)?];
        while self.rest.starts_with('(') {
            nodes.push(self.filter(depth + 1)?);
        }
        Ok(nodes)
    }

    /// `item = simple / present / substring / extensible`
    fn item(&mut self) -> Result<Node, FilterError> {
        // Neither is in an item unless it is escaped.
        let (item, rest) = self.rest.split_at(self.rest.find(['(', ')']).unwrap_or(self.rest.len()));
        self.rest = rest;
        let (left, right) = item.split_once('=').ok_or(FilterError("without ="))?;
        let comparison = [(">", GREATER_OR_EQUAL), ("<", LESS_OR_EQUAL), ("~", APPROXIMATE)];
        let other = comparison.iter().find_map(|(sign, tag)| Some((left.strip_suffix(sign)?, *tag)));
        if let Some((attribute, tag)) = other {
            return Ok(Node::Compare(tag, name(attribute)?, self.value(right)?));
        }
        if let Some(left) = left.strip_suffix(':') {
            return self.extensible(left, right);
        }
        let attribute = name(left)?;
        match right {
            "*" => Ok(Node::Present(attribute)),
            _ if right.contains('*') => Ok(Node::Substrings(attribute, self.substrings(right)?)),
            _ => Ok(Node::Compare(EQUALITY, attribute, self.value(right)?)),
        }
    }

    /// `substring = attr "=" [initial] any [final]`
    fn substrings(&mut self, text: &str) -> Result<Vec<(u8, Value)>, FilterError> {
        let last = text.matches('*').count();
        let mut pieces = Vec::new();
        for (index, piece) in text.split('*').enumerate() {
            let tag = match index {
                0 => INITIAL,
                _ if index == last => FINAL,
                _ => ANY,
            };
            match (piece, tag) {
                ("", ANY) => return Err(FilterError("with an empty part between two *")),
                ("", _) => {}
                (piece, tag) => pieces.push((tag, self.value(piece)?)),
            }
        }
        Ok(pieces)
    }

    /// `attr [":dn"] [":" rule] ":=" value`, or without the attribute
    fn extensible(&mut self, left: &str, right: &str) -> Result<Node, FilterError> {
        let mut names = left.split(':').peekable();
        let attribute = names.next().filter(|attribute| !attribute.is_empty()).map(name).transpose()?;
        let dn_attributes = names.next_if(|name| name.eq_ignore_ascii_case("dn")).is_some();
        let rule = names.next().map(name).transpose()?;
        if names.next().is_some() || (attribute.is_none() && rule.is_none()) {
            return Err(FilterError("with an extensible match that is none"));
        }
        Ok(Node::Extensible { rule, attribute, value: self.value(right)?, dn_attributes })
    }

    /// `assertionvalue`: bytes, of which NUL, `(`, `)`, `*` and `\` are escaped
    fn value(&mut self, text: &str) -> Result<Value, FilterError> {
        let mut parts = Vec::new();
        for (index, piece) in text.split(PLACE).enumerate() {
            if index > 0 {
                self.places += 1;
                parts.push(Part::Place);
            }
            if !piece.is_empty() {
                parts.push(Part::Bytes(unescaped(piece)?));
            }
        }
        Ok(Value(parts))
    }

    fn take(&mut self, letter: char, otherwise: &'static str) -> Result<(), FilterError> {
        self.rest = self.rest.strip_prefix(letter).ok_or(FilterError(otherwise))?;
        Ok(())
    }
}

/// `attributedescription` or a matching rule: letters, digits, hyphens, dots of an OID, options behind semicolons
fn name(text: &str) -> Result<String, FilterError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-.;".contains(&byte);
    let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let good = begins && text.len() <= NAME_BYTES_MAX && text.bytes().all(plain);
    if good { Ok(text.to_owned()) } else { Err(FilterError("with a name that is no attribute's")) }
}

fn unescaped(text: &str) -> Result<Vec<u8>, FilterError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'\\' => {
                let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
                let both = digit().zip(digit()).and_then(|(high, low)| u8::try_from(high << 4 | low).ok());
                bytes.push(both.ok_or(FilterError("with \\ and not two hexadecimal digits behind it"))?);
            }
            b'*' | 0 => return Err(FilterError("with * or NUL where it must be escaped")),
            byte => bytes.push(byte),
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::ber::Reader;
    use super::*;

    fn written(filter: &str, value: &str) -> Vec<u8> {
        let mut writer = Writer::new();
        Filter::parse(filter).unwrap().write(&mut writer, value);
        writer.finish().unwrap().to_vec()
    }

    /// Attribute and value of a comparison.
    fn compared(bytes: &[u8], tag: u8) -> (Vec<u8>, Vec<u8>) {
        let mut outer = Reader::new(bytes);
        let mut within = outer.nested(tag).unwrap();
        outer.end().unwrap();
        let both = (within.content(OCTET_STRING).unwrap().to_vec(), within.content(OCTET_STRING).unwrap().to_vec());
        within.end().unwrap();
        both
    }

    #[test]
    fn comparisons_are_told_apart() {
        for (filter, tag) in [
            ("(uid={})", EQUALITY),
            ("(uid>={})", GREATER_OR_EQUAL),
            ("(uid<={})", LESS_OR_EQUAL),
            ("(uid~={})", APPROXIMATE),
        ] {
            assert_eq!(compared(&written(filter, "alice"), tag), (b"uid".to_vec(), b"alice".to_vec()), "{filter}");
        }
        // Escapes are of the filter's own text (RFC 4515 §4).
        assert_eq!(compared(&written(r"(cn;lang-de=a\2a{}\00=\5C)", "b"), EQUALITY).1, b"a*b\0=\\");
        assert_eq!(compared(&written("(1.2.840=ü{})", "ß"), EQUALITY).1, "üß".as_bytes());
    }

    #[test]
    fn filters_of_every_kind_are_written_as_the_protocol_has_them() {
        for (filter, expected) in [
            ("(&(a={})(b=*))", &b"\xa0\x0b\xa3\x06\x04\x01a\x04\x01x\x87\x01b"[..]),
            ("(|(a={})(b={}))", b"\xa1\x10\xa3\x06\x04\x01a\x04\x01x\xa3\x06\x04\x01b\x04\x01x"),
            ("(!(a={}))", b"\xa2\x08\xa3\x06\x04\x01a\x04\x01x"),
            ("(a=p*{}*q*r)", b"\xa4\x11\x04\x01a\x30\x0c\x80\x01p\x81\x01x\x81\x01q\x82\x01r"),
            ("(a=*{}*)", b"\xa4\x08\x04\x01a\x30\x03\x81\x01x"),
            ("(a={}*)", b"\xa4\x08\x04\x01a\x30\x03\x80\x01x"),
            ("(a=*{})", b"\xa4\x08\x04\x01a\x30\x03\x82\x01x"),
            ("(a:dn:1.2:={})", b"\xa9\x0e\x81\x031.2\x82\x01a\x83\x01x\x84\x01\xff"),
            ("(a:={})", b"\xa9\x06\x82\x01a\x83\x01x"),
            ("(:1.2:={})", b"\xa9\x08\x81\x031.2\x83\x01x"),
        ] {
            assert_eq!(written(filter, "x"), expected, "{filter}");
        }
    }

    #[test]
    fn a_login_name_is_no_filter() {
        for name in ["*)(uid=*", "*", "a)(|(b=c)", "\\2a", "{}", "\0", "(", ""] {
            assert_eq!(compared(&written("(uid={})", name), EQUALITY), (b"uid".to_vec(), name.as_bytes().to_vec()));
        }
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        let deep = format!("{}(a={{}}){}", "(!".repeat(DEPTH_MAX), ")".repeat(DEPTH_MAX));
        for bad in [
            "",
            "uid={}",
            "(uid={}",
            "(uid={}))",
            "((uid={}))",
            "(uid=alice)",
            "(&)",
            "(|(uid={})",
            "(!(a={})(b=c))",
            "({}=a)",
            "(uid{})",
            "(=a{})",
            "(a b={})",
            "(a=**{})",
            "(a>=*{})",
            "(a={}\\2)",
            "(a={}\\zz)",
            "(a={}\\+1)",
            "(a={}\0)",
            "(:={})",
            "(:dn:={})",
            "(a:dn:b:c:={})",
            "(a={}) ",
            &deep,
            &format!("({}={{}})", "a".repeat(NAME_BYTES_MAX + 1)),
            &format!("(a={})", "{}".repeat(PLACES_MAX + 1)),
            &format!("(a={{}}{})", "a".repeat(BYTES_MAX)),
        ] {
            assert!(Filter::parse(bad).is_err(), "{bad}");
        }
        let almost = format!("{}(a={{}}){}", "(!".repeat(DEPTH_MAX - 1), ")".repeat(DEPTH_MAX - 1));
        Filter::parse(&almost).unwrap();
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_a_filter_or_refused(text in r"[()&|!=*\\{}:~<>a-c0-2\x00ü;.-]{0,40}") {
            if let Ok(filter) = Filter::parse(&text) {
                let mut writer = Writer::new();
                filter.write(&mut writer, "x");
                let bytes = writer.finish().unwrap();
                let mut reader = Reader::new(&bytes);
                reader.nested(reader.peek().unwrap()).unwrap().pass_over().unwrap();
                reader.end().unwrap();
            }
        }

        #[test]
        fn every_value_stays_one(value in ".{0,200}") {
            prop_assert_eq!(compared(&written("(uid={})", &value), EQUALITY).1, value.as_bytes());
        }
    }
}
