//! DynamoDB: dynoxide on a port of its own, in memory or in one SQLite file.

use std::path::Path;

use dynoxide::Database;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Opens the tables in `file`, or none in memory.
pub(crate) fn open(file: Option<&Path>) -> Result<Database, String> {
    let opened = match file {
        None => Database::memory(),
        Some(file) => match file.to_str() {
            Some(path) => Database::new(path),
            None => return Err(format!("{} is not UTF-8", file.display())),
        },
    };
    opened.map_err(|error| error.to_string())
}

/// Serves `database` until `shutdown`; requests under way may finish within the grace.
pub(crate) async fn run(database: Database, listener: TcpListener, shutdown: CancellationToken) {
    let served =
        dynoxide::server::serve_with_shutdown(listener, database, shutdown.clone().cancelled_owned());
    let overdue = async {
        shutdown.cancelled().await;
        // A client that has sent half a request would hold the end for ever.
        tokio::time::sleep(crate::http::GRACE).await;
    };
    tokio::select! {
        served = served => {
            if let Err(error) = served {
                tracing::error!(%error, "the local DynamoDB has failed");
            }
        }
        () = overdue => {}
    }
}
