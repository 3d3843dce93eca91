//! Asks before something is changed that cannot be taken back.

use std::io::{self, BufRead as _, IsTerminal as _};

use crate::exit::Failure;
use crate::output::talk;

/// Whether to go on: with `yes` at once, else as the terminal says. Without a terminal nobody can be asked.
pub(crate) async fn confirmed(question: &str, yes: bool) -> Result<bool, Failure> {
    if yes {
        return Ok(true);
    }
    let missing = |why: &str| {
        Failure::usage(
            "confirmation-missing",
            format_args!("{question} Nobody can be asked: {why}; repeat the command with --yes"),
        )
    };
    if !io::stdin().is_terminal() {
        return Err(missing("stdin is no terminal"));
    }
    talk(format_args!("{question} [y/N]"));
    let read = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line).map(|_| line)
    });
    let line = match read.await {
        Ok(Ok(line)) => line,
        Ok(Err(error)) => return Err(missing(&error.to_string())),
        Err(error) => return Err(missing(&error.to_string())),
    };
    let agreed = is_yes(&line);
    if !agreed {
        talk("nothing was changed");
    }
    Ok(agreed)
}

fn is_yes(line: &str) -> bool {
    matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_yes_is_yes() {
        assert!(["y", "Y\n", " yes\r\n"].into_iter().all(is_yes));
        assert!(!["", "\n", "n", "yesterday", "no"].into_iter().any(is_yes));
    }
}
