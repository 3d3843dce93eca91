//! What arrives at a real OTLP receiver over gRPC.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use headworks_telemetry::{
    Config, Minter, Outcome, Parent, Report, Sampler, Step, Telemetry, names, time_of,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

#[derive(Clone, Default)]
struct Receiver(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Receiver {
    async fn start() -> (Self, SocketAddr) {
        let receiver = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = TraceServiceServer::new(receiver.clone());
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        (receiver, address)
    }

    fn spans(&self) -> Vec<Span> {
        let requests = self.0.lock().unwrap();
        let scopes = requests.iter().flat_map(|r| &r.resource_spans).flat_map(|r| &r.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }

    fn resource(&self, key: &str) -> Option<String> {
        use opentelemetry_proto::tonic::common::v1::any_value::Value;
        let requests = self.0.lock().unwrap();
        let resource = requests.first()?.resource_spans.first()?.resource.clone()?;
        let pair = resource.attributes.into_iter().find(|pair| pair.key == key)?;
        match pair.value?.value? {
            Value::StringValue(text) => Some(text),
            _ => None,
        }
    }
}

fn config(address: SocketAddr) -> Config {
    let mut config = Config::new("headworks-test");
    config.otlp_endpoint = Some(format!("http://{address}"));
    config.sample_ratio = 1.0;
    // Nothing leaves on its own within the test: what arrives was flushed.
    config.export_delay = Duration::from_secs(600);
    config
}

/// The only test of this binary that installs a process-wide subscriber.
#[tokio::test]
async fn a_callers_span_and_the_records_span_arrive_in_one_trace() {
    let (receiver, address) = Receiver::start().await;
    let telemetry = Telemetry::start(config(address)).unwrap();
    telemetry.install().unwrap();
    assert_eq!(telemetry.install().unwrap_err().code(), "telemetry-already-installed");
    let (tracer, minter) = (telemetry.tracer(), telemetry.minter());

    let creation = tracing::info_span!("checkout").in_scope(|| {
        let parent = Parent::current();
        let creation = minter.mint(parent);
        let start = time_of(creation.created_ms);
        tracer.create(&creation, parent.span_id(), "inbound", start, SystemTime::now(), Vec::new);
        creation
    });
    telemetry.flush().await.unwrap();

    let spans = receiver.spans();
    let named = |name: &str| spans.iter().find(|span| span.name == name).unwrap();
    let (caller, create) = (named("checkout"), named("create inbound"));
    assert_eq!(spans.len(), 2, "{spans:?}");
    assert_eq!(create.trace_id, creation.trace_id.0);
    assert_eq!(create.span_id, creation.span_id.0);
    assert_eq!(create.parent_span_id, caller.span_id);
    assert_eq!(create.trace_id, caller.trace_id);
    assert_eq!(receiver.resource(names::SERVICE_NAME).as_deref(), Some("headworks-test"));
    assert_eq!(receiver.resource(names::SERVICE_INSTANCE_ID).unwrap().len(), 36);

    let step = Step::process("orders", SystemTime::now(), SystemTime::now());
    tracer.child(&creation, step, Vec::new, Outcome::Ok);
    let report = telemetry.shutdown().await;
    assert_eq!((report.submitted, report.exported, report.lost()), (3, 3, 0));
    assert_eq!(receiver.spans().len(), 3);

    // After the end spans are counted, not exported, and a second end changes nothing.
    let step = Step::process("orders", SystemTime::now(), SystemTime::now());
    tracer.child(&creation, step, Vec::new, Outcome::Ok);
    let report = telemetry.shutdown().await;
    assert_eq!((report.submitted, report.exported, report.dropped), (4, 3, 1));
}

#[tokio::test]
async fn a_receiver_that_is_not_there_loses_spans_but_says_so() {
    // Bound and dropped: nobody listens there.
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let telemetry = Telemetry::start(config(address)).unwrap();
    let creation = Minter::new(Sampler::always()).mint(Parent::None);
    let step = Step::process("orders", SystemTime::now(), SystemTime::now());
    telemetry.tracer().child(&creation, step, Vec::new, Outcome::Ok);
    let error = telemetry.flush().await.unwrap_err();
    assert_eq!(error.code(), "telemetry-flush-failed");
    assert!(error.is_retryable());
    let report = telemetry.shutdown().await;
    assert_eq!((report.submitted, report.failed, report.lost()), (1, 1, 1));
}

#[tokio::test]
async fn a_receiver_that_hangs_does_not_hold_the_end() {
    // Accepted by the kernel, answered by nobody.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let telemetry = Telemetry::start(config(listener.local_addr().unwrap())).unwrap();
    let creation = Minter::new(Sampler::always()).mint(Parent::None);
    let step = Step::process("orders", SystemTime::now(), SystemTime::now());
    telemetry.tracer().child(&creation, step, Vec::new, Outcome::Ok);
    let asked = Duration::from_millis(200);
    let report =
        tokio::time::timeout(Duration::from_secs(4), telemetry.shutdown_within(asked)).await.unwrap();
    assert_eq!((report.submitted, report.exported, report.lost()), (1, 0, 1));
}

#[tokio::test]
async fn an_endpoint_behind_tls_is_accepted() {
    let mut config = Config::new("headworks-test");
    config.otlp_endpoint = Some("https://127.0.0.1:4317".into());
    let telemetry = Telemetry::start(config).unwrap();
    assert!(telemetry.is_exporting());
    assert_eq!(telemetry.shutdown().await, Report::default());
}
