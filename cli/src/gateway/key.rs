//! `headworks gateway key`.

use headworks_gateway::auth::keys::{Generated, generate};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::output::{self, Output, talk};

/// Makes an API key: 256 random bits, kept nowhere.
///
/// Stdout has the entry for the gateway's key file (auth.key_file), which holds a hash; stderr has the key itself, this
/// once. So `headworks gateway key shop >> keys.toml` adds the one and shows the other.
#[derive(Debug, clap::Args)]
#[command(after_help = Exit::HELP)]
pub struct Args {
    /// Whom the key lets in: the principal's name, 1 to 256 bytes.
    principal: String,
    /// When the key ceases to be valid: how long from now (720h) or a time (RFC 3339). Default: never.
    #[arg(long, value_name = "TIME", value_parser = expiry)]
    expires: Option<Timestamp>,
    /// Prints key and entry as one line of JSON on stdout.
    #[arg(long)]
    json: bool,
}

fn expiry(text: &str) -> Result<Timestamp, Failure> {
    let now = Timestamp::now();
    let at = text.parse::<Timestamp>().ok().or_else(|| {
        let ahead = text.parse::<SignedDuration>().ok()?;
        now.checked_add(ahead).ok()
    });
    at.filter(|at| *at > now).ok_or_else(|| {
        Failure::usage(
            "time-invalid",
            format_args!(
                "{text:?} is not a time to come; write how long from now (720h) or a time (2027-01-31T12:00:00Z)"
            ),
        )
    })
}

#[derive(Serialize)]
struct Line<'a> {
    key: &'a str,
    id: &'a str,
    principal: &'a str,
    sha256: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
}

pub(super) fn run(args: Args) -> Result<Exit, Failure> {
    if !(1..=256).contains(&args.principal.len()) {
        return Err(Failure::usage(
            "principal-invalid",
            format_args!("the principal has {} bytes; give 1 to 256", args.principal.len()),
        ));
    }
    // Whole seconds in UTC are a moment in TOML too.
    let expires = args.expires.map(|at| format!("{at:.0}").parse()).transpose().map_err(|error| {
        Failure::usage("time-invalid", format_args!("the time of --expires cannot be written down: {error}"))
    })?;
    let made: Generated =
        generate(args.principal, expires).map_err(|error| Failure::environment(error.code(), error))?;
    let mut output = Output::stdout();
    let mut write = || {
        if args.json {
            output.json(&Line {
                key: &made.key,
                id: &made.entry.id,
                principal: &made.entry.principal,
                sha256: &made.entry.sha256,
                expires: made.entry.expires.as_ref().map(ToString::to_string),
            })?;
        } else {
            output.bytes(made.toml().as_bytes())?;
        }
        output.flush()
    };
    output::settled(write())?;
    if !args.json {
        talk(format_args!("the key, for the client alone; it is not shown again:\n{}", made.key));
        talk("clients show it as HEADWORKS_TOKEN, in x-api-key, or as a bearer");
    }
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_lies_ahead() {
        let now = Timestamp::now();
        let at = expiry("720h").unwrap();
        assert!(at > now && at.as_second() - now.as_second() >= 720 * 3_600);
        assert!(expiry("2999-01-01T00:00:00Z").is_ok());
        for bad in ["", "-1h", "0s", "soon", "2020-01-01T00:00:00Z"] {
            assert_eq!(expiry(bad).unwrap_err().code(), "time-invalid", "{bad}");
        }
    }
}
