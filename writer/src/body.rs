//! The body of a `PutRecords` request, written once into memory of its exact size.
//!
//! The SDK's own JSON encodes each blob into a string of its own and copies that into a body which grows as it
//! goes: at a megabyte per call, that costs more than the encoding itself. Everything but this body is the
//! SDK's, answers and errors included.

use aws_smithy_json::protocol::aws_json_rpc::AwsJsonRpcProtocol;
use aws_smithy_runtime_api::client::orchestrator::Metadata;
use aws_smithy_runtime_api::http::{Request, Response};
use aws_smithy_schema::protocol::{ClientProtocolInner, apply_http_endpoint};
use aws_smithy_schema::serde::{SerdeError, SerializableStruct, ShapeDeserializer, ShapeSerializer};
use aws_smithy_schema::{Schema, ShapeId};
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::ConfigBag;
use aws_smithy_types::endpoint::Endpoint;
use aws_smithy_types::error::metadata::Builder as ErrorMetadataBuilder;
use aws_smithy_types::{BigDecimal, BigInteger, Blob, DateTime, Document};
use base64_simd::STANDARD;

/// Kinesis's protocol (AWS JSON 1.1) with this crate's body for `PutRecords`.
#[derive(Debug)]
pub(crate) struct Protocol(AwsJsonRpcProtocol);

impl Protocol {
    pub(crate) fn new() -> Self {
        Self(AwsJsonRpcProtocol::aws_json_1_1().with_default_namespace("com.amazonaws.kinesis"))
    }
}

impl ClientProtocolInner for Protocol {
    type Request = Request;
    type Response = Response;

    fn protocol_id(&self) -> &ShapeId<'static> {
        self.0.protocol_id()
    }

    fn serialize_request(
        &self,
        input: &dyn SerializableStruct,
        input_schema: &Schema<'_>,
        endpoint: &str,
        cfg: &ConfigBag,
    ) -> Result<Request, SerdeError> {
        let is_put = cfg.load::<Metadata>().is_some_and(|operation| operation.name() == "PutRecords");
        // An SDK whose request has members of other types writes all of it itself.
        let Some(body) = is_put.then(|| Body::of(input, input_schema)).and_then(Result::ok) else {
            return self.0.serialize_request(input, input_schema, endpoint, cfg);
        };
        // The headers are those of any request: only the body differs, and its length.
        let mut request = self.0.serialize_request(&Empty(input), input_schema, endpoint, cfg)?;
        request.headers_mut().insert("Content-Length", body.len().to_string());
        *request.body_mut() = SdkBody::from(body);
        Ok(request)
    }

    fn deserialize_response<'a>(
        &self,
        response: &'a Response,
        output_schema: &Schema<'_>,
        cfg: &'a ConfigBag,
    ) -> Result<Box<dyn ShapeDeserializer + 'a>, SerdeError> {
        self.0.deserialize_response(response, output_schema, cfg)
    }

    fn parse_error_metadata(
        &self,
        response: &Response,
        cfg: &ConfigBag,
    ) -> Result<ErrorMetadataBuilder, SerdeError> {
        self.0.parse_error_metadata(response, cfg)
    }

    fn update_endpoint(
        &self,
        request: &mut Request,
        endpoint: &Endpoint,
        cfg: &ConfigBag,
    ) -> Result<(), SerdeError> {
        apply_http_endpoint(request, endpoint, cfg)
    }
}

/// A structure of which nothing is written.
struct Empty<'i>(&'i dyn SerializableStruct);

impl SerializableStruct for Empty<'_> {
    fn schema(&self) -> &Schema<'_> {
        self.0.schema()
    }

    fn serialize_members(&self, _: &mut dyn ShapeSerializer) -> Result<(), SerdeError> {
        Ok(())
    }
}

/// JSON as far as `PutRecords` needs it. Blobs are kept aside until its size is known.
#[derive(Default)]
struct Body {
    text: Vec<u8>,
    /// Where in the text each one belongs.
    blobs: Vec<(usize, Blob)>,
    in_list: bool,
    /// Whether something stands before in the same structure or list.
    follows: bool,
}

impl Body {
    fn of(input: &dyn SerializableStruct, schema: &Schema<'_>) -> Result<Vec<u8>, SerdeError> {
        let mut body = Self::default();
        body.write_struct(schema, input)?;
        Ok(body.finish())
    }

    fn begin(&mut self, schema: &Schema<'_>) {
        if std::mem::replace(&mut self.follows, true) {
            self.text.push(b',');
        }
        if let Some(name) = schema.member_name().filter(|_| !self.in_list) {
            self.text.push(b'"');
            self.text.extend_from_slice(name.as_bytes());
            self.text.extend_from_slice(b"\":");
        }
    }

    fn nested(
        &mut self,
        schema: &Schema<'_>,
        [open, close]: [u8; 2],
        in_list: bool,
        write: &dyn Fn(&mut dyn ShapeSerializer) -> Result<(), SerdeError>,
    ) -> Result<(), SerdeError> {
        self.begin(schema);
        self.text.push(open);
        let outer = std::mem::replace(&mut self.in_list, in_list);
        self.follows = false;
        write(self)?;
        self.in_list = outer;
        self.follows = true;
        self.text.push(close);
        Ok(())
    }

    fn finish(self) -> Vec<u8> {
        let encoded = |blob: &Blob| STANDARD.encoded_length(blob.as_ref().len());
        let blobs: usize = self.blobs.iter().map(|(_, blob)| encoded(blob)).sum();
        let mut body = Vec::with_capacity(self.text.len() + blobs);
        let mut written = 0;
        for (at, blob) in &self.blobs {
            body.extend_from_slice(&self.text[written..*at]);
            STANDARD.encode_append(blob.as_ref(), &mut body);
            written = *at;
        }
        body.extend_from_slice(&self.text[written..]);
        body
    }
}

fn unsupported<T>(what: &str) -> Result<T, SerdeError> {
    Err(SerdeError::unsupported(format!("{what} in the body of PutRecords")))
}

impl ShapeSerializer for Body {
    fn write_struct(
        &mut self,
        schema: &Schema<'_>,
        value: &dyn SerializableStruct,
    ) -> Result<(), SerdeError> {
        self.nested(schema, *b"{}", false, &|body| value.serialize_members(body))
    }

    fn write_list(
        &mut self,
        schema: &Schema<'_>,
        write_elements: &dyn Fn(&mut dyn ShapeSerializer) -> Result<(), SerdeError>,
    ) -> Result<(), SerdeError> {
        self.nested(schema, *b"[]", true, write_elements)
    }

    fn write_string(&mut self, schema: &Schema<'_>, value: &str) -> Result<(), SerdeError> {
        self.begin(schema);
        serde_json::to_writer(&mut self.text, value).map_err(|error| SerdeError::custom(error.to_string()))
    }

    fn write_blob(&mut self, schema: &Schema<'_>, value: Blob) -> Result<(), SerdeError> {
        self.begin(schema);
        self.text.push(b'"');
        self.blobs.push((self.text.len(), value));
        self.text.push(b'"');
        Ok(())
    }

    fn write_boolean(&mut self, schema: &Schema<'_>, value: bool) -> Result<(), SerdeError> {
        self.begin(schema);
        self.text.extend_from_slice(if value { b"true" } else { b"false" });
        Ok(())
    }

    fn write_map(
        &mut self,
        _: &Schema<'_>,
        _: &dyn Fn(&mut dyn ShapeSerializer) -> Result<(), SerdeError>,
    ) -> Result<(), SerdeError> {
        unsupported("a map")
    }

    fn write_byte(&mut self, _: &Schema<'_>, _: i8) -> Result<(), SerdeError> {
        unsupported("a number")
    }

    fn write_short(&mut self, _: &Schema<'_>, _: i16) -> Result<(), SerdeError> {
        unsupported("a number")
    }

    fn write_integer(&mut self, _: &Schema<'_>, _: i32) -> Result<(), SerdeError> {
        unsupported("a number")
    }

    fn write_long(&mut self, _: &Schema<'_>, _: i64) -> Result<(), SerdeError> {
        unsupported("a number")
    }

    fn write_float(&mut self, _: &Schema<'_>, _: f32) -> Result<(), SerdeError> {
        unsupported("a number")
    }

    fn write_double(&mut self, _: &Schema<'_>, _: f64) -> Result<(), SerdeError> {
        unsupported("a number")
    }

    fn write_big_integer(&mut self, _: &Schema<'_>, _: &BigInteger) -> Result<(), SerdeError> {
        unsupported("a number")
    }

    fn write_big_decimal(&mut self, _: &Schema<'_>, _: &BigDecimal) -> Result<(), SerdeError> {
        unsupported("a number")
    }

    fn write_timestamp(&mut self, _: &Schema<'_>, _: &DateTime) -> Result<(), SerdeError> {
        unsupported("a time")
    }

    fn write_document(&mut self, _: &Schema<'_>, _: &Document) -> Result<(), SerdeError> {
        unsupported("a document")
    }

    fn write_null(&mut self, _: &Schema<'_>) -> Result<(), SerdeError> {
        unsupported("a null")
    }
}
