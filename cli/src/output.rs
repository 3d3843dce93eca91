//! Data on stdout, talk on stderr.

use std::fmt;
use std::io::{self, BufWriter, Stdout, Write};

use crate::exit::Failure;

/// Why nothing more can be written.
#[derive(Debug)]
pub(crate) enum Error {
    /// The reader has gone: no error, the command ends.
    Closed,
    /// Anything else, a full disk for one.
    Io(io::Error),
}

impl Error {
    /// What the command fails with; `None` where a closed pipe ends it.
    pub(crate) fn failure(self) -> Option<Failure> {
        match self {
            Error::Closed => None,
            Error::Io(error) => Some(Failure::environment(
                "output-failed",
                format_args!(
                    "stdout cannot be written to: {error}; check the disk or the program it is piped to"
                ),
            )),
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe { Error::Closed } else { Error::Io(error) }
    }
}

/// What a command fails with that could not write; a closed pipe is no failure.
pub(crate) fn settled(written: Result<(), Error>) -> Result<(), Failure> {
    written.err().and_then(Error::failure).map_or(Ok(()), Err)
}

/// Stdout, buffered: callers flush where a reader waits for what is there.
#[derive(Debug)]
pub(crate) struct Output<W: Write = Stdout> {
    out: BufWriter<W>,
}

impl Output {
    /// The process's stdout.
    pub(crate) fn stdout() -> Self {
        Self::new(io::stdout())
    }
}

impl<W: Write> Output<W> {
    pub(crate) fn new(inner: W) -> Self {
        Self { out: BufWriter::with_capacity(64 * 1024, inner) }
    }

    /// Writes bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Error> {
        Ok(self.out.write_all(bytes)?)
    }

    /// Writes a line.
    pub(crate) fn line(&mut self, text: impl fmt::Display) -> Result<(), Error> {
        Ok(writeln!(self.out, "{text}")?)
    }

    /// Writes a value as a line of JSON.
    pub(crate) fn json(&mut self, value: &impl serde::Serialize) -> Result<(), Error> {
        serde_json::to_writer(&mut self.out, value).map_err(io::Error::from)?;
        Ok(self.out.write_all(b"\n")?)
    }

    /// Hands everything to the reader.
    pub(crate) fn flush(&mut self) -> Result<(), Error> {
        Ok(self.out.flush()?)
    }
}

/// Says something on stderr. `eprintln!` panics when stderr is closed, and talk is never worth that.
pub(crate) fn talk(text: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// The last word of a command that went wrong.
pub(crate) fn talk_error(failure: &Failure) {
    talk(format_args!("error: {failure}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Broken;

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_pipe_is_told_from_other_trouble() {
        let mut output = Output::new(Broken);
        output.line("buffered").unwrap();
        assert!(matches!(output.flush(), Err(Error::Closed)));
        assert!(Error::Closed.failure().is_none());
        let full = Error::from(io::Error::from(io::ErrorKind::StorageFull)).failure().unwrap();
        assert_eq!(full.code(), "output-failed");
    }

    #[test]
    fn a_value_is_one_line() {
        let mut buffer = Vec::new();
        let mut output = Output::new(&mut buffer);
        output.json(&serde_json::json!({"a": "b\nc"})).unwrap();
        output.flush().unwrap();
        drop(output);
        assert_eq!(buffer, b"{\"a\":\"b\\nc\"}\n");
    }
}
