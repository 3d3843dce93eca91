//! Bodies in the two encodings of the protocol: JSON 1.1 (blobs in base64, times in seconds) and CBOR 1.1 (blobs
//! as byte strings, times as tagged milliseconds).

use std::fmt;

use base64_simd::STANDARD;
use bytes::Bytes;
use ciborium::tag::Required;
use serde::de::{self, DeserializeOwned, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::error::Error;

/// An encoding of bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    Json,
    Cbor,
}

impl Codec {
    /// The encoding that a content type names.
    pub(crate) fn of(content_type: &str) -> Option<Self> {
        match content_type.split(';').next().map(str::trim) {
            Some("application/x-amz-json-1.1" | "application/json") => Some(Self::Json),
            Some("application/x-amz-cbor-1.1") => Some(Self::Cbor),
            _ => None,
        }
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/x-amz-json-1.1",
            Self::Cbor => "application/x-amz-cbor-1.1",
        }
    }

    pub(crate) fn decode<T: DeserializeOwned>(self, body: &[u8]) -> Result<T, Error> {
        // SerializationException. Seen: kinesalite's tests of connections, without words. Words: the decoder's.
        match self {
            // A client may send nothing at all for a request without members.
            Self::Json if body.is_empty() => Self::Json.decode(b"{}"),
            Self::Json => {
                serde_json::from_slice(body).map_err(|error| Error::Serialization(error.to_string()))
            }
            // By way of a value: only that tells deserializers that the form is not for people.
            Self::Cbor => ciborium::from_reader::<ciborium::Value, _>(body)
                .map_err(|error| Error::Serialization(error.to_string()))?
                .deserialized()
                .map_err(|error| Error::Serialization(error.to_string())),
        }
    }

    pub(crate) fn encode<T: Serialize>(self, value: &T) -> Result<Bytes, Error> {
        match self {
            Self::Json => {
                serde_json::to_vec(value).map(Bytes::from).map_err(|error| Error::Internal(error.to_string()))
            }
            Self::Cbor => {
                let value =
                    ciborium::Value::serialized(value).map_err(|error| Error::Internal(error.to_string()))?;
                let mut bytes = Vec::new();
                ciborium::into_writer(&value, &mut bytes)
                    .map_err(|error| Error::Internal(error.to_string()))?;
                Ok(bytes.into())
            }
        }
    }
}

/// Bytes in a body.
#[derive(Debug, Clone, Default)]
pub(crate) struct Blob(pub(crate) Bytes);

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&STANDARD.encode_to_string(&self.0))
        } else {
            serializer.serialize_bytes(&self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BlobVisitor;

        impl Visitor<'_> for BlobVisitor {
            type Value = Blob;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a blob: base64 in JSON, a byte string in CBOR")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Blob, E> {
                STANDARD
                    .decode_to_vec(text)
                    .map(|bytes| Blob(bytes.into()))
                    .map_err(|error| E::custom(format!("a blob is not base64: {error}")))
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Blob, E> {
                Ok(Blob(Bytes::copy_from_slice(bytes)))
            }

            fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Blob, E> {
                Ok(Blob(bytes.into()))
            }
        }

        if deserializer.is_human_readable() {
            deserializer.deserialize_str(BlobVisitor)
        } else {
            deserializer.deserialize_byte_buf(BlobVisitor)
        }
    }
}

/// A point in time, in milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timestamp(pub(crate) i64);

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_f64(self.0 as f64 / 1_000.0)
        } else {
            Required::<i64, 1>(self.0).serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            // AWS's CBOR counts in milliseconds, unlike the tag's own definition.
            return ciborium::tag::Accepted::<i64, 1>::deserialize(deserializer).map(|tagged| Self(tagged.0));
        }
        let seconds = f64::deserialize(deserializer)?;
        if !seconds.is_finite() || seconds.abs() > 1e12 {
            return Err(de::Error::custom(format!("{seconds} is not a time in seconds since 1970")));
        }
        let ms = (seconds * 1_000.0).round() as i64;
        Ok(Self(ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Serialize, Deserialize)]
    struct Shape {
        blob: Blob,
        at: Timestamp,
    }

    #[test]
    fn both_encodings_round_trip() {
        let shape =
            Shape { blob: Blob(Bytes::from_static(b"\x00\xff bytes")), at: Timestamp(1_459_799_926_480) };
        for codec in [Codec::Json, Codec::Cbor] {
            let body = codec.encode(&shape).unwrap();
            let back: Shape = codec.decode(&body).unwrap();
            assert_eq!((&back.blob.0, back.at), (&shape.blob.0, shape.at), "{codec:?}");
        }
        assert_eq!(Codec::Json.encode(&shape.at).unwrap(), "1459799926.48");
        // Tag 1, then a 64-bit integer.
        assert_eq!(Codec::Cbor.encode(&shape.at).unwrap()[..2], [0xc1, 0x1b]);
        assert_eq!(Codec::Cbor.encode(&Blob(Bytes::from_static(b"ab"))).unwrap(), &b"\x42ab"[..]);
    }
}
