//! Route tables that change while the router runs: good ones are taken, bad ones are not.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use headworks_router::Router;
use headworks_router::source::{Endpoint, File, Object, Reload, Reloader, Source};
use tokio::time::{advance, pause, resume};

use crate::common::{World, aggregate, event, invocation, record};

const EVERY: Duration = Duration::from_secs(30);

fn table(stream: &str) -> String {
    format!("[default]\nto = \"{stream}\"\n")
}

async fn goes_to(world: &World, router: &Router, stream: &str) {
    let before = world.streams.data(stream).len();
    let report =
        router.handle(&event(vec![aggregate(&[record("k", "a", "x")])]), &invocation()).await.unwrap();
    assert_eq!(report.failed, None);
    assert_eq!(world.streams.data(stream).len(), before + 1, "{stream}");
}

/// A look when it is time to. Sockets want real time, so it stands still only in between.
async fn look(reloader: &Reloader, router: &Router) -> Reload {
    assert!(matches!(reloader.check(router).await, Reload::Unchanged), "it was looked at a moment ago");
    pause();
    advance(EVERY + Duration::from_millis(1)).await;
    resume();
    reloader.check(router).await
}

/// The same for every source: `write` puts a text there.
async fn reload(source: Box<dyn Source>, write: impl AsyncFn(Option<&str>)) {
    write(Some(&table("one"))).await;
    let (reloader, first) = Reloader::start(source, EVERY, false).await.unwrap();
    let (world, router) = World::kind();
    router.replace_table(Arc::new(first));
    let before = router.stats().tables_loaded;
    goes_to(&world, &router, "one").await;
    assert!(matches!(look(&reloader, &router).await, Reload::Unchanged), "nothing is new");

    write(Some(&table("two"))).await;
    goes_to(&world, &router, "one").await;
    assert!(matches!(look(&reloader, &router).await, Reload::Replaced));
    goes_to(&world, &router, "two").await;

    for (bad, code) in [
        ("[default]\nto = \"s p\"\n", "route-table-invalid"),
        ("[default\n", "route-table-syntax"),
        ("[default]\ndead-letter = true\n", "dead-letters-not-configured"),
    ] {
        write(Some(bad)).await;
        match look(&reloader, &router).await {
            Reload::Refused(error) => assert_eq!(error.code(), code),
            other => panic!("{other:?}"),
        }
        assert!(matches!(look(&reloader, &router).await, Reload::Unchanged), "a bad table is refused once");
        goes_to(&world, &router, "two").await;
    }
    write(None).await;
    match look(&reloader, &router).await {
        Reload::Refused(error) => {
            assert_eq!((error.code(), error.is_retryable()), ("route-table-unreadable", true))
        }
        other => panic!("{other:?}"),
    }
    goes_to(&world, &router, "two").await;
    write(Some(&table("three"))).await;
    assert!(matches!(look(&reloader, &router).await, Reload::Replaced));
    goes_to(&world, &router, "three").await;
    let stats = router.stats();
    assert_eq!((stats.tables_loaded - before, stats.tables_refused), (2, 4), "it shows in the metrics");
}

#[tokio::test]
async fn from_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("routes.toml");
    reload(Box::new(File(path.clone())), async |text| match text {
        Some(text) => std::fs::write(&path, text).unwrap(),
        None => std::fs::remove_file(&path).unwrap(),
    })
    .await;
}

#[tokio::test]
async fn from_an_object_in_s3() {
    let stack = headworks_local::start().await.unwrap();
    let s3 = stack.s3();
    s3.create_bucket().bucket("tables").send().await.unwrap();
    reload(Box::new(Object::new(s3.clone(), "tables", "prod/routes.toml")), async |text| {
        let key = "prod/routes.toml";
        match text {
            Some(text) => {
                let body = text.as_bytes().to_vec().into();
                drop(s3.put_object().bucket("tables").key(key).body(body).send().await.unwrap());
            }
            None => drop(s3.delete_object().bucket("tables").key(key).send().await.unwrap()),
        }
    })
    .await;
    stack.shutdown().await.unwrap();
}

type Held = Arc<Mutex<(u64, Option<String>)>>;

/// Endpoints as those of AWS's extensions.
async fn extensions() -> (String, Held) {
    let held: Held = Arc::default();
    let configuration = async |State(held): State<Held>| {
        let (version, text) = held.lock().unwrap().clone();
        match text {
            Some(text) => Ok(([("Configuration-Version", version.to_string())], text)),
            None => Err((StatusCode::NOT_FOUND, "there is no such configuration")),
        }
    };
    type Name = std::collections::HashMap<String, String>;
    let parameter = async |State(held): State<Held>, Query(query): Query<Name>, headers: HeaderMap| {
        assert_eq!(query["name"], "/headworks/routes");
        assert_eq!(headers["X-Aws-Parameters-Secrets-Token"], "token");
        let (version, text) = held.lock().unwrap().clone();
        let text = text.ok_or((StatusCode::BAD_REQUEST, "ParameterNotFound"))?;
        Ok::<_, (StatusCode, &str)>(axum::Json(serde_json::json!({
            "Parameter": { "Name": query["name"], "Type": "String", "Value": text, "Version": version },
            "ResultMetadata": {},
        })))
    };
    let server = axum::Router::new()
        .route("/applications/a/environments/e/configurations/c", get(configuration))
        .route("/systemsmanager/parameters/get", get(parameter))
        .with_state(Arc::clone(&held));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, server).await });
    (format!("http://{address}"), held)
}

#[tokio::test]
async fn from_appconfig_and_the_parameter_store_through_their_extensions() {
    for path in [
        "/applications/a/environments/e/configurations/c",
        "/systemsmanager/parameters/get?name=%2Fheadworks%2Froutes",
    ] {
        let (url, held) = extensions().await;
        let endpoint = Endpoint::new(format!("{url}{path}"), Some("token".to_owned())).unwrap();
        reload(Box::new(endpoint), async |text| {
            let mut held = held.lock().unwrap();
            *held = (held.0 + 1, text.map(str::to_owned));
        })
        .await;
    }
}

#[tokio::test]
async fn the_first_table_must_be_good() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("routes.toml");
    for (text, code) in [
        ("[default]\nspill-after = \"5m\"\nto = \"d\"\n", "dead-letters-not-configured"),
        ("x", "route-table-syntax"),
    ] {
        std::fs::write(&path, text).unwrap();
        let error = Reloader::start(Box::new(File(path.clone())), EVERY, false).await.unwrap_err();
        assert_eq!(error.code(), code);
    }
}
