//! What happens to a record on the way to one destination.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use headworks_record::{Headers, headers};

use super::json;

/// Why a record cannot be changed as its rule says. It is then a dead letter for that destination: to pass
/// it on unchanged might show what the rule takes away.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The headers would exceed their limits.
    #[error(transparent)]
    Headers(#[from] headers::Error),
    /// The rule changes fields of the payload, and there are none.
    #[error(
        "the rule changes fields of the payload, but the payload ({bytes} bytes) is not a JSON object; let another rule match records like this"
    )]
    NotAnObject {
        /// The payload's size.
        bytes: usize,
    },
}

impl Error {
    /// The stable code of this error, as in `docs/errors/`.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Headers(error) => error.code(),
            Error::NotAnObject { .. } => "payload-not-an-object",
        }
    }

    /// Whether the same record may be accepted later: never.
    pub fn is_retryable(&self) -> bool {
        false
    }
}

/// Changes to headers and payload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transform {
    pub(super) set: Vec<(ByteString, ByteString)>,
    pub(super) remove: Vec<ByteString>,
    pub(super) rename: Vec<(ByteString, ByteString)>,
    pub(super) payload: Option<Arc<Payload>>,
}

impl Transform {
    /// Whether records stay as they are.
    pub fn is_identity(&self) -> bool {
        self.set.is_empty() && self.remove.is_empty() && self.rename.is_empty() && self.payload.is_none()
    }

    /// Changes a record's headers and payload: removes, renames (all at once, so names can be swapped),
    /// then sets. Of a header that stands several times the first one is renamed and the rest removed.
    pub fn apply(&self, headers: &mut Headers, data: &mut Bytes) -> Result<(), Error> {
        for name in &self.remove {
            headers.remove(name);
        }
        let renamed: Vec<(&ByteString, ByteString)> = self
            .rename
            .iter()
            .filter_map(|(from, to)| {
                let entry = headers.entries().iter().find(|(name, _)| name == from);
                entry.map(|(_, value)| (to, value.clone()))
            })
            .collect();
        for (from, _) in &self.rename {
            headers.remove(from);
        }
        for (name, value) in renamed {
            headers.remove(name);
            headers.set(name.clone(), value)?;
        }
        for (name, value) in &self.set {
            headers.set(name.clone(), value.clone())?;
        }
        if let Some(payload) = &self.payload {
            *data = payload.apply(data).ok_or(Error::NotAnObject { bytes: data.len() })?;
        }
        Ok(())
    }
}

/// Which fields of a JSON object are kept, dropped and renamed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Payload {
    /// As it was written down, sorted: for explanations, and to tell transforms apart.
    pub(super) keep: Vec<String>,
    pub(super) drop: Vec<String>,
    pub(super) rename: Vec<(String, String)>,
    root: Node,
}

/// What is said about a field and those below it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Node {
    keep: bool,
    drop: bool,
    /// The new name as JSON, and as it is.
    rename: Option<(Box<str>, Box<str>)>,
    children: Vec<(Box<str>, Node)>,
}

impl Node {
    fn at(&mut self, pointer: &[Box<str>]) -> &mut Node {
        let Some((first, rest)) = pointer.split_first() else { return self };
        let place = self.children.iter().position(|(name, _)| name == first).unwrap_or_else(|| {
            self.children.push((first.clone(), Node::default()));
            self.children.len() - 1
        });
        self.children[place].1.at(rest)
    }

    fn get(&self, name: &str) -> Option<&Node> {
        self.children.iter().find(|(own, _)| **own == *name).map(|(_, node)| node)
    }
}

/// A pointer as it is written, and its tokens.
type Pointer<'a> = (&'a str, Box<[Box<str>]>);

impl Payload {
    /// Compiles pointers; the error is a reason and a remedy.
    pub(super) fn compile(
        keep: &[String],
        drop: &[String],
        rename: &[(String, String)],
    ) -> Result<Self, (String, String)> {
        let refuse = |reason: String, remedy: &str| Err((reason, remedy.to_owned()));
        let parse = |text| -> Result<Pointer<'_>, (String, String)> {
            match json::pointer(text) {
                Ok(tokens) => Ok((text, tokens)),
                Err(why) => Err((
                    format!("the JSON pointer {text:?} {why}"),
                    "write it as in \"/order/total\", with ~1 for / and ~0 for ~ in a name".to_owned(),
                )),
            }
        };
        if !keep.is_empty() && !drop.is_empty() {
            return refuse("it both keeps and drops fields".into(), "use one of them: the other follows");
        }
        if keep.is_empty() && drop.is_empty() && rename.is_empty() {
            return refuse("payload is empty".into(), "give keep, drop or rename, or remove it");
        }
        let mut root = Node::default();
        let chosen = keep.iter().chain(drop).map(|text| parse(text)).collect::<Result<Vec<_>, _>>()?;
        for (i, (text, tokens)) in chosen.iter().enumerate() {
            if let Some((other, _)) = chosen[..i].iter().find(|(_, t)| within(t, tokens) || within(tokens, t))
            {
                return refuse(
                    format!("{other:?} and {text:?} name the same field, or one lies within the other"),
                    "keep the outer one alone",
                );
            }
            let node = root.at(tokens);
            (node.keep, node.drop) = (!keep.is_empty(), !drop.is_empty());
        }
        for (text, name) in rename {
            let (_, tokens) = parse(text)?;
            let gone = match keep.is_empty() {
                true => chosen.iter().any(|(_, t)| within(&tokens, t)),
                false => !chosen.iter().any(|(_, t)| within(&tokens, t) || within(t, &tokens)),
            };
            if gone {
                return refuse(
                    format!("{text:?} is renamed, but it is not kept"),
                    "keep the field, or do not rename it",
                );
            }
            let Some((last, parents)) = tokens.split_last() else { continue };
            if **last == **name {
                return refuse(format!("{text:?} is renamed to the name that it has"), "remove that");
            }
            let parent = root.at(parents);
            let taken = |(_, node): &(_, Node)| node.rename.as_ref().is_some_and(|(_, n)| **n == **name);
            if parent.children.iter().any(taken) {
                return refuse(
                    format!("two fields of one object are renamed to {name:?}"),
                    "give each a name of its own",
                );
            }
            let quoted = serde_json::Value::from(name.as_str()).to_string();
            parent.at(std::slice::from_ref(last)).rename = Some((quoted.into(), name.as_str().into()));
        }
        let mut this = Self { keep: keep.to_vec(), drop: drop.to_vec(), rename: rename.to_vec(), root };
        this.keep.sort();
        this.drop.sort();
        this.rename.sort();
        // The order in which fields are written down makes no difference between rules.
        this.root.sort();
        Ok(this)
    }

    /// The payload with its fields chosen and renamed; `None` if it is not a JSON object.
    fn apply(&self, data: &[u8]) -> Option<Bytes> {
        let text = json::valid(data).filter(|text| text.starts_with('{'))?;
        let mut out = String::with_capacity(text.len());
        self.root.write(text, !self.keep.is_empty(), &mut out);
        Some(out.into())
    }
}

/// Whether one pointer is the other or leads to something below it.
fn within(inner: &[Box<str>], outer: &[Box<str>]) -> bool {
    inner.starts_with(outer)
}

impl Node {
    fn sort(&mut self) {
        self.children.sort_by(|(a, _), (b, _)| a.cmp(b));
        self.children.iter_mut().for_each(|(_, child)| child.sort());
    }

    /// Writes a value; `keeping` means that only what is kept below is written.
    fn write(&self, value: &str, keeping: bool, out: &mut String) {
        let Some(fields) = json::fields(value) else {
            out.push_str(value);
            return;
        };
        let found: Vec<(json::Field<'_>, Option<&Node>)> = fields
            .into_iter()
            .filter_map(|field| {
                let node = self.node_of(&field);
                let stays = match node {
                    None => !keeping,
                    Some(node) if !keeping || node.keep => !node.drop,
                    // On the way to something that is kept: only an object can hold it.
                    Some(_) => field.value.starts_with('{'),
                };
                stays.then_some((field, node))
            })
            .collect();
        let new_names: Vec<&str> =
            found.iter().filter_map(|(_, node)| Some(&*node.as_ref()?.rename.as_ref()?.1)).collect();
        out.push('{');
        let mut first = true;
        for (field, node) in &found {
            let rename = node.and_then(|node| node.rename.as_ref());
            // A renamed field takes the place of one that has the name.
            if rename.is_none() && new_names.iter().any(|name| field.is_named(name)) {
                continue;
            }
            if !std::mem::take(&mut first) {
                out.push(',');
            }
            // Writing to a string cannot fail.
            let _ = write!(out, "{}:", rename.map_or(field.name, |(quoted, _)| quoted));
            match node {
                Some(node) if !node.children.is_empty() => {
                    node.write(field.value, keeping && !node.keep, out)
                }
                _ => out.push_str(field.value),
            }
        }
        out.push('}');
    }

    fn node_of(&self, field: &json::Field<'_>) -> Option<&Node> {
        if field.name.contains('\\') {
            let name: String = serde_json::from_str(field.name).ok()?;
            return self.get(&name);
        }
        self.get(field.name.get(1..field.name.len() - 1)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(keep: &[&str], drop: &[&str], rename: &[(&str, &str)], data: &str) -> String {
        let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let rename: Vec<_> = rename.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        let payload = Payload::compile(&owned(keep), &owned(drop), &rename).unwrap();
        String::from_utf8(payload.apply(data.as_bytes()).unwrap().to_vec()).unwrap()
    }

    #[test]
    fn what_stays_keeps_its_bytes() {
        let data = r#"{ "a" : 0.10000000000000000001, "b":{"c":[1, 2],"d" : "x\u00e9"}, "e":null }"#;
        assert_eq!(
            apply(&["/a", "/b/d"], &[], &[], data),
            r#"{"a":0.10000000000000000001,"b":{"d":"x\u00e9"}}"#
        );
        assert_eq!(
            apply(&[], &["/b/c", "/e"], &[], data),
            r#"{"a":0.10000000000000000001,"b":{"d" : "x\u00e9"}}"#.replace(" : ", ":")
        );
        assert_eq!(apply(&[], &["/b"], &[("/a", "e")], data), r#"{"e":0.10000000000000000001}"#);
        assert_eq!(apply(&[], &[], &[("/a", "b"), ("/b", "a")], r#"{"a":1,"b":2}"#), r#"{"b":1,"a":2}"#);
        assert_eq!(apply(&["/b/c"], &[], &[("/b", "\"q\"")], data), r#"{"\"q\"":{"c":[1, 2]}}"#);
        assert_eq!(apply(&["/a/b"], &[], &[], r#"{"a":3}"#), "{}");
    }

    #[test]
    fn names_that_are_written_otherwise_and_twice_are_found() {
        assert_eq!(
            apply(&[], &["/secret"], &[], r#"{"s\u0065cret":1,"secret":2,"x":3,"secret":4}"#),
            r#"{"x":3}"#
        );
    }
}
