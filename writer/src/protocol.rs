//! Kinesis's protocol, with this crate's body for `PutRecords`.
//!
//! The service takes two encodings of the same requests: JSON, which most SDKs speak, and CBOR, which AWS's SDKs for Java
//! prefer (`AwsCborProtocolFactory`). In CBOR a blob is its bytes, so a call is a quarter shorter, and as much less is
//! hashed for its signature, copied and sent.

use aws_smithy_cbor::protocol::RpcV2CborProtocol;
use aws_smithy_json::protocol::aws_json_rpc::AwsJsonRpcProtocol;
use aws_smithy_runtime_api::client::orchestrator::Metadata;
use aws_smithy_runtime_api::http::{Request, Response};
use aws_smithy_schema::error_envelope::sanitize_error_code;
use aws_smithy_schema::protocol::{ClientProtocolInner, apply_http_endpoint};
use aws_smithy_schema::serde::{SerdeError, SerializableStruct, ShapeDeserializer, ShapeSerializer};
use aws_smithy_schema::{Schema, ShapeId};
use aws_smithy_types::config_bag::ConfigBag;
use aws_smithy_types::endpoint::Endpoint;
use aws_smithy_types::error::metadata::Builder as ErrorMetadataBuilder;

use crate::body::{Body, Encoding};
use crate::parts::DIGEST;

/// Everything but the body of `PutRecords` is the SDK's, answers and errors included.
#[derive(Debug)]
pub(crate) struct Protocol {
    /// Of the bodies of `PutRecords`; all others are JSON.
    encoding: Encoding,
    json: AwsJsonRpcProtocol,
    cbor: RpcV2CborProtocol,
}

impl Protocol {
    pub(crate) fn new(encoding: Encoding) -> Self {
        let json = AwsJsonRpcProtocol::aws_json_1_1().with_default_namespace("com.amazonaws.kinesis");
        Self { encoding, json, cbor: RpcV2CborProtocol::new() }
    }

    /// An answer says itself what it is.
    fn of(&self, response: &Response) -> &dyn ClientProtocolInner<Request = Request, Response = Response> {
        match is_cbor(response) {
            true => &self.cbor,
            false => &self.json,
        }
    }
}

/// Whether the answer is in CBOR.
pub(crate) fn is_cbor(response: &Response) -> bool {
    let content_type = response.headers().get("content-type").unwrap_or_default();
    content_type.starts_with(Encoding::Cbor.content_type())
}

impl ClientProtocolInner for Protocol {
    type Request = Request;
    type Response = Response;

    fn protocol_id(&self) -> &ShapeId<'static> {
        self.json.protocol_id()
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
        let Some(body) = is_put.then(|| Body::of(self.encoding, input, input_schema)).and_then(Result::ok)
        else {
            return self.json.serialize_request(input, input_schema, endpoint, cfg);
        };
        // The headers are those of any request: only the body differs, its kind and its length.
        let mut request = self.json.serialize_request(&Empty(input), input_schema, endpoint, cfg)?;
        let headers = request.headers_mut();
        headers.insert("Content-Type", self.encoding.content_type());
        headers.insert("Content-Length", body.len().to_string());
        if let Some(digest) = body.digest() {
            headers.insert(DIGEST, digest);
        }
        *request.body_mut() = body.into_body();
        Ok(request)
    }

    fn deserialize_response<'a>(
        &self,
        response: &'a Response,
        output_schema: &Schema<'_>,
        cfg: &'a ConfigBag,
    ) -> Result<Box<dyn ShapeDeserializer + 'a>, SerdeError> {
        self.of(response).deserialize_response(response, output_schema, cfg)
    }

    fn parse_error_metadata(
        &self,
        response: &Response,
        cfg: &ConfigBag,
    ) -> Result<ErrorMetadataBuilder, SerdeError> {
        let told = self.of(response).parse_error_metadata(response, cfg);
        // In JSON the SDK takes the header before the body's word, in CBOR it knows only the body.
        match response.headers().get("x-amzn-errortype").filter(|_| is_cbor(response)) {
            Some(kind) => Ok(told.unwrap_or_default().code(sanitize_error_code(kind))),
            None => told,
        }
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

#[cfg(test)]
mod tests {
    use aws_smithy_types::body::SdkBody;

    use super::*;

    fn code_of(kind: &str, header: Option<&'static str>, body: &'static [u8]) -> Option<String> {
        let mut response = Response::new(400.try_into().unwrap(), SdkBody::from(body));
        response.headers_mut().insert("content-type", format!("application/x-amz-{kind}-1.1"));
        if let Some(header) = header {
            response.headers_mut().insert("x-amzn-errortype", header);
        }
        let protocol = Protocol::new(Encoding::Cbor);
        let told = protocol.parse_error_metadata(&response, &ConfigBag::base()).ok()?;
        told.build().code().map(str::to_owned)
    }

    #[test]
    fn an_error_is_known_by_its_header_or_its_body() {
        let name = "LimitExceededException";
        let cbor = b"\xa1\x66__type\x76LimitExceededException";
        let json = br#"{"__type":"LimitExceededException"}"#;
        for (kind, body) in [("cbor", cbor.as_slice()), ("json", json)] {
            assert_eq!(code_of(kind, None, body).as_deref(), Some(name), "{kind}");
            assert_eq!(code_of(kind, Some("a#Other:b"), body).as_deref(), Some("Other"), "{kind}");
            assert_eq!(code_of(kind, Some(name), b"").as_deref(), Some(name), "{kind}");
            assert_eq!(code_of(kind, None, b""), None, "{kind}");
        }
        assert_eq!(code_of("cbor", Some(name), b"{").as_deref(), Some(name));
        assert_eq!(code_of("cbor", None, b"{"), None);
    }
}
