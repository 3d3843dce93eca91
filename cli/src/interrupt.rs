//! Ctrl-C and SIGTERM: the first ends a command cleanly, the second at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::exit::Failure;
use crate::output::talk;

/// The exit code of a process that a signal ended, by the shells' convention for SIGINT.
const INTERRUPTED: i32 = 130;

/// A token that Ctrl-C or SIGTERM cancels. A second one ends the process at once, for a command whose
/// clean end takes longer than its user wants to wait.
pub(crate) fn token() -> Result<CancellationToken, Failure> {
    let failed =
        |error| Failure::environment("signals-unavailable", format_args!("cannot wait for Ctrl-C: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let token = CancellationToken::new();
    let cancel = token.clone();
    tokio::spawn(async move {
        let mut signals = 0;
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            signals += 1;
            if signals > 1 {
                std::process::exit(INTERRUPTED);
            }
            talk("ending; once more to end at once");
            cancel.cancel();
        }
    });
    Ok(token)
}
