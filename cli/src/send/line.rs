//! Lines of a stream, one at a time, of bounded length.

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _};

use crate::exit::Failure;

/// The longest line, and the largest input of `--format raw`, in bytes: what one request to the gateway holds.
pub(crate) const MAX_BYTES: usize = headworks_proto::MAX_MESSAGE_BYTES;

/// Reads lines and counts them.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    input: R,
    number: u64,
    limit: usize,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    pub(crate) fn new(input: R) -> Self {
        Self { input, number: 0, limit: MAX_BYTES }
    }

    #[cfg(test)]
    fn with_limit(input: R, limit: usize) -> Self {
        Self { input, number: 0, limit }
    }

    /// The number of the line that was read last, from 1.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The next line without its end (`\n` or `\r\n`); `None` at the end of the input.
    ///
    /// Not cancel safe: half a line may be lost.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let mut line = Vec::new();
        loop {
            let chunk = self.input.fill_buf().await.map_err(unreadable)?;
            if chunk.is_empty() {
                if line.is_empty() {
                    return Ok(None);
                }
                self.number += 1;
                return Ok(Some(line));
            }
            let newline = chunk.iter().position(|byte| *byte == b'\n');
            let taken = newline.unwrap_or(chunk.len());
            if line.len() + taken > self.limit {
                return Err(Failure::usage(
                    "line-too-long",
                    format_args!(
                        "line {} has more than {} bytes; split it into several records",
                        self.number + 1,
                        self.limit
                    ),
                ));
            }
            line.extend_from_slice(&chunk[..taken]);
            self.input.consume(taken + usize::from(newline.is_some()));
            if newline.is_some() {
                self.number += 1;
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                return Ok(Some(line));
            }
        }
    }

    /// Everything that is left, as it is.
    pub(crate) async fn rest(&mut self) -> Result<Vec<u8>, Failure> {
        let mut all = Vec::new();
        loop {
            let chunk = self.input.fill_buf().await.map_err(unreadable)?;
            if chunk.is_empty() {
                return Ok(all);
            }
            if all.len() + chunk.len() > self.limit {
                return Err(Failure::usage(
                    "input-too-large",
                    format_args!(
                        "the input has more than {} bytes, which is too much for one record; split it, or send lines with --format lines",
                        self.limit
                    ),
                ));
            }
            all.extend_from_slice(chunk);
            let taken = chunk.len();
            self.input.consume(taken);
        }
    }
}

fn unreadable(error: std::io::Error) -> Failure {
    Failure::environment(
        "input-unreadable",
        format_args!("the input cannot be read: {error}; check the file"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(text: &[u8], limit: usize) -> (Vec<Vec<u8>>, Option<Failure>) {
        let mut lines = Lines::with_limit(text, limit);
        let mut all = Vec::new();
        loop {
            match lines.next().await {
                Ok(Some(line)) => all.push(line),
                Ok(None) => return (all, None),
                Err(failure) => return (all, Some(failure)),
            }
        }
    }

    #[tokio::test]
    async fn lines_end_with_or_without_a_carriage_return() {
        let (all, failure) = lines(b"a\r\n\nb\rc\nlast", 10).await;
        assert_eq!(all, [&b"a"[..], b"", b"b\rc", b"last"]);
        assert_eq!(failure, None);
        assert_eq!(lines(b"", 10).await.0.len(), 0);
    }

    #[tokio::test]
    async fn a_long_line_is_refused_with_its_number_and_the_limit() {
        let (all, failure) = lines(b"ok\n12345678901\n", 10).await;
        assert_eq!(all, [b"ok"]);
        let failure = failure.unwrap();
        assert_eq!(failure.code(), "line-too-long");
        assert!(failure.to_string().starts_with("line 2 has more than 10 bytes"), "{failure}");
    }

    #[tokio::test]
    async fn the_whole_input_is_bounded_too() {
        assert_eq!(Lines::with_limit(&b"a\nb"[..], 3).rest().await.unwrap(), b"a\nb");
        let failure = Lines::with_limit(&b"abcd"[..], 3).rest().await.unwrap_err();
        assert_eq!(failure.code(), "input-too-large");
    }
}
