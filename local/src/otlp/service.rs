//! The OTLP gRPC services in front of the [`Store`].

use std::sync::Arc;

use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::MetricsService;
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::TraceService;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use tonic::{Request, Response, Status};

use super::span::Origin;
use super::store::Store;

#[derive(Debug, Clone)]
pub(super) struct Receiver(pub(super) Arc<Store>);

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut spans = Vec::new();
        let mut invalid = 0_u64;
        for resource_spans in request.into_inner().resource_spans {
            let origin = Origin::new(resource_spans.resource);
            for scope_spans in resource_spans.scope_spans {
                let scope: Arc<str> = scope_spans.scope.map(|scope| scope.name).unwrap_or_default().into();
                for span in scope_spans.spans {
                    match origin.span(&scope, span) {
                        Some(span) => spans.push(span),
                        None => invalid += 1,
                    }
                }
            }
        }
        self.0.add(spans, invalid);
        let partial_success = (invalid > 0).then(|| ExportTracePartialSuccess {
            rejected_spans: i64::try_from(invalid).unwrap_or(i64::MAX),
            error_message: "a span needs a 16-byte trace id and an 8-byte span id, neither all zeroes"
                .to_owned(),
        });
        Ok(Response::new(ExportTraceServiceResponse { partial_success }))
    }
}

#[tonic::async_trait]
impl MetricsService for Receiver {
    async fn export(
        &self,
        _request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.0.add_metrics();
        Ok(Response::new(ExportMetricsServiceResponse { partial_success: None }))
    }
}
