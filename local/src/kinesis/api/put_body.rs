//! `PutRecords` bodies as clients commonly send them, read in one pass without anything in between.
//!
//! A body of 500 records is the only large one that there is, and it comes often. Whatever is not as expected (an escape,
//! a null, an unknown member, damage) is left to the general way, which reads it or says what is wrong with it.

use base64_simd::STANDARD;
use bytes::Bytes;
use bytestring::ByteString;

use super::super::codec::{Blob, Codec};
use super::put::{Item, PutRecordsRequest};

/// Reads a body, or leaves it.
pub(crate) fn read(codec: Codec, body: &[u8]) -> Option<PutRecordsRequest> {
    match codec {
        Codec::Json => Json { rest: body }.request(),
        Codec::Cbor => Cbor { rest: body }.request(),
    }
}

/// More than a call may have is left to the general way.
const CAPACITY: usize = 500;

/// A record as the body has it, not decoded yet.
#[derive(Default)]
struct Found<'a> {
    data: Option<&'a [u8]>,
    partition_key: Option<&'a [u8]>,
    explicit_hash_key: Option<String>,
}

/// Decodes the records into one allocation. They live together: all of them are of one stream and of one moment, so
/// what trims one trims the others too.
fn settle(
    codec: Codec,
    found: Vec<Found<'_>>,
    length: impl Fn(&[u8]) -> Option<usize>,
    append: impl Fn(&[u8], &mut Vec<u8>) -> Option<()>,
) -> Option<Vec<Item>> {
    let mut total = 0;
    for item in &found {
        total += item.data.map_or(Some(0), &length)? + item.partition_key.map_or(0, <[u8]>::len);
    }
    let mut bytes = Vec::with_capacity(total);
    for item in &found {
        if let Some(data) = item.data {
            append(data, &mut bytes)?;
        }
        if let Some(key) = item.partition_key {
            // JSON has control characters as escapes only.
            if codec == Codec::Json && key.iter().any(|byte| *byte < 0x20) {
                return None;
            }
            bytes.extend_from_slice(key);
        }
    }
    let mut rest = Bytes::from(bytes);
    let mut items = Vec::with_capacity(found.len());
    for item in found {
        let data = match item.data {
            Some(data) => Some(Blob(rest.split_to(length(data)?))),
            None => None,
        };
        let partition_key = match item.partition_key {
            Some(key) => Some(ByteString::try_from(rest.split_to(key.len())).ok()?),
            None => None,
        };
        items.push(Item { data, partition_key, explicit_hash_key: item.explicit_hash_key });
    }
    Some(items)
}

struct Json<'a> {
    rest: &'a [u8],
}

impl<'a> Json<'a> {
    fn request(mut self) -> Option<PutRecordsRequest> {
        let mut request = PutRecordsRequest::default();
        self.take(b'{')?;
        loop {
            match self.string()? {
                b"Records" if request.records.is_none() => {
                    self.take(b':')?;
                    request.records = Some(self.items()?);
                }
                b"StreamName" if request.stream_name.is_none() => request.stream_name = Some(self.text()?),
                b"StreamARN" if request.stream_arn.is_none() => request.stream_arn = Some(self.text()?),
                _ => return None,
            }
            if !self.goes_on(b'}')? {
                break;
            }
        }
        self.skip_space();
        self.rest.is_empty().then_some(request)
    }

    fn items(&mut self) -> Option<Vec<Item>> {
        let mut items = Vec::with_capacity(CAPACITY);
        self.take(b'[')?;
        loop {
            let mut item = Found::default();
            self.take(b'{')?;
            loop {
                match self.string()? {
                    b"Data" if item.data.is_none() => {
                        self.take(b':')?;
                        item.data = Some(self.string()?);
                    }
                    b"PartitionKey" if item.partition_key.is_none() => {
                        self.take(b':')?;
                        item.partition_key = Some(self.string()?);
                    }
                    b"ExplicitHashKey" if item.explicit_hash_key.is_none() => {
                        item.explicit_hash_key = Some(self.text()?);
                    }
                    _ => return None,
                }
                if !self.goes_on(b'}')? {
                    break;
                }
            }
            if items.len() == CAPACITY {
                return None;
            }
            items.push(item);
            if !self.goes_on(b']')? {
                return settle(
                    Codec::Json,
                    items,
                    |data| STANDARD.decoded_length(data).ok(),
                    |data, bytes| STANDARD.decode_append(data, bytes).ok(),
                );
            }
        }
    }

    /// After a colon, a string without escapes.
    fn text(&mut self) -> Option<String> {
        self.take(b':')?;
        let bytes = self.string()?;
        let is_plain = bytes.iter().all(|byte| *byte >= 0x20);
        let text = std::str::from_utf8(bytes).ok().filter(|_| is_plain)?;
        Some(text.to_owned())
    }

    fn skip_space(&mut self) {
        while let [b' ' | b'\n' | b'\r' | b'\t', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    fn take(&mut self, wanted: u8) -> Option<()> {
        self.skip_space();
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        (*first == wanted).then_some(())
    }

    /// Whether a comma follows; if not, it is `end`.
    fn goes_on(&mut self, end: u8) -> Option<bool> {
        self.skip_space();
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        match *first {
            b',' => Some(true),
            other => (other == end).then_some(false),
        }
    }

    fn string(&mut self) -> Option<&'a [u8]> {
        self.take(b'"')?;
        let end = memchr::memchr2(b'"', b'\\', self.rest)?;
        let (string, rest) = self.rest.split_at(end);
        let (quote, rest) = rest.split_first()?;
        self.rest = rest;
        (*quote == b'"').then_some(string)
    }
}

struct Cbor<'a> {
    rest: &'a [u8],
}

const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
/// Ends an array or a map of unknown length.
const BREAK: u8 = 0xff;

/// How many entries a map or an array has left.
#[derive(Clone, Copy)]
enum Left {
    Known(u64),
    UntilBreak,
}

impl<'a> Cbor<'a> {
    fn request(mut self) -> Option<PutRecordsRequest> {
        let mut request = PutRecordsRequest::default();
        let mut left = self.open(MAP)?;
        while self.has_next(&mut left)? {
            match self.string(TEXT)? {
                b"Records" if request.records.is_none() => request.records = Some(self.items()?),
                b"StreamName" if request.stream_name.is_none() => request.stream_name = Some(self.text()?),
                b"StreamARN" if request.stream_arn.is_none() => request.stream_arn = Some(self.text()?),
                _ => return None,
            }
        }
        self.rest.is_empty().then_some(request)
    }

    fn items(&mut self) -> Option<Vec<Item>> {
        let mut items = Vec::with_capacity(CAPACITY);
        let mut left = self.open(ARRAY)?;
        while self.has_next(&mut left)? {
            let mut item = Found::default();
            let mut members = self.open(MAP)?;
            while self.has_next(&mut members)? {
                match self.string(TEXT)? {
                    b"Data" if item.data.is_none() => {
                        item.data = Some(self.string(BYTES)?);
                    }
                    b"PartitionKey" if item.partition_key.is_none() => {
                        item.partition_key = Some(self.string(TEXT)?);
                    }
                    b"ExplicitHashKey" if item.explicit_hash_key.is_none() => {
                        item.explicit_hash_key = Some(self.text()?);
                    }
                    _ => return None,
                }
            }
            if items.len() == CAPACITY {
                return None;
            }
            items.push(item);
        }
        settle(
            Codec::Cbor,
            items,
            |data| Some(data.len()),
            |data, bytes| {
                bytes.extend_from_slice(data);
                Some(())
            },
        )
    }

    fn text(&mut self) -> Option<String> {
        std::str::from_utf8(self.string(TEXT)?).ok().map(str::to_owned)
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    /// The kind of what follows and its length; `None` as the length where it is not known beforehand.
    fn head(&mut self) -> Option<(u8, Option<u64>)> {
        let first = self.byte()?;
        let width = match first & 0x1f {
            small @ 0..24 => return Some((first >> 5, Some(u64::from(small)))),
            24 => 1,
            25 => 2,
            26 => 4,
            27 => 8,
            31 => return Some((first >> 5, None)),
            _ => return None,
        };
        let (number, rest) = self.rest.split_at_checked(width)?;
        self.rest = rest;
        Some((first >> 5, Some(number.iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte)))))
    }

    fn open(&mut self, kind: u8) -> Option<Left> {
        match self.head()? {
            (found, length) if found == kind => Some(length.map_or(Left::UntilBreak, Left::Known)),
            _ => None,
        }
    }

    fn has_next(&mut self, left: &mut Left) -> Option<bool> {
        match left {
            Left::Known(0) => Some(false),
            Left::Known(left) => {
                *left -= 1;
                Some(true)
            }
            Left::UntilBreak if *self.rest.first()? == BREAK => {
                self.byte()?;
                Some(false)
            }
            Left::UntilBreak => Some(true),
        }
    }

    fn string(&mut self, kind: u8) -> Option<&'a [u8]> {
        match self.head()? {
            (found, Some(length)) if found == kind => {
                let (string, rest) = self.rest.split_at_checked(usize::try_from(length).ok()?)?;
                self.rest = rest;
                Some(string)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(request: &PutRecordsRequest) -> String {
        format!("{request:?}")
    }

    /// What is read here is what the general way reads; what is left here, it decides on.
    #[test]
    fn both_ways_read_the_same() {
        let plain = [
            r#"{"Records":[{"Data":"aGVsbG8=","PartitionKey":"k"}],"StreamName":"s"}"#,
            r#" { "StreamARN" : "arn" , "Records" : [ { "PartitionKey" : "ключ" , "Data" : "" , "ExplicitHashKey" : "1" } ,
                {"Data":"AA==","PartitionKey":""} ] } "#,
            r#"{"Records":[{"Data":"aGVsbG8="}]}"#,
        ];
        for body in plain {
            let fast = read(Codec::Json, body.as_bytes()).unwrap();
            let general: PutRecordsRequest = Codec::Json.decode(body.as_bytes()).unwrap();
            assert_eq!(shown(&fast), shown(&general), "{body}");
        }
        for body in [
            "",
            "{}",
            "{\"Records\":[{\"Data\":\"aGVsbG8=\",\"PartitionKey\":\"a\nb\"}]}",
            r#"{"Records":[]}"#,
            r#"{"Records":[{}]}"#,
            r#"{"Records":[{"Data":"aGVsbG8","PartitionKey":"k"}]}"#,
            r#"{"Records":[{"Data":"aGVs\/G8=","PartitionKey":"k"}]}"#,
            r#"{"Records":[{"Data":null,"PartitionKey":"k"}]}"#,
            r#"{"Records":[{"Data":"","Data":"","PartitionKey":"k"}]}"#,
            r#"{"Records":[{"Data":"","PartitionKey":"k"}],"More":1}"#,
            r#"{"Records":[{"Data":"","PartitionKey":"k"}]} x"#,
            r#"{"Records":[{"Data":"","PartitionKey":"k"}"#,
            r#"{"Records":[{"Data":"","PartitionKey":"k"},]}"#,
        ] {
            assert!(read(Codec::Json, body.as_bytes()).is_none(), "{body}");
        }
    }

    #[test]
    fn cbor_of_known_and_unknown_lengths() {
        let long = [b"\x59\x01\x2c".as_slice(), &[7; 300]].concat();
        let known = [
            b"\xa2\x67Records\x82\xa2\x64Data".as_slice(),
            &long,
            b"\x6cPartitionKey\x61k\xa1\x64Data\x41\x00\x6aStreamName\x61s",
        ]
        .concat();
        let unknown = [
            b"\xbf\x67Records\x9f\xbf\x64Data".as_slice(),
            &long,
            b"\x6cPartitionKey\x61k\xff\xbf\x64Data\x41\x00\xff\xff\x6aStreamName\x61s\xff",
        ]
        .concat();
        for body in [&known, &unknown] {
            let fast = read(Codec::Cbor, body).unwrap();
            let general: PutRecordsRequest = Codec::Cbor.decode(body).unwrap();
            assert_eq!(shown(&fast), shown(&general));
            for cut in 0..body.len() {
                assert!(read(Codec::Cbor, &body[..cut]).is_none(), "{cut}");
            }
        }
        assert!(read(Codec::Cbor, &[known.as_slice(), b"\x00"].concat()).is_none());
    }
}
