//! The framing of event streams: prelude, headers, payload, each sealed with a CRC-32.

use bytes::{BufMut, Bytes, BytesMut};

/// The type of a string header.
const STRING: u8 = 7;

/// The first message of every subscription.
pub(crate) fn initial_response(content_type: &str) -> Bytes {
    let headers =
        [(":message-type", "event"), (":event-type", "initial-response"), (":content-type", content_type)];
    message(&headers, b"{}".as_slice())
}

/// A message that carries an event.
pub(crate) fn event(event_type: &str, content_type: &str, payload: &[u8]) -> Bytes {
    message(
        &[(":message-type", "event"), (":event-type", event_type), (":content-type", content_type)],
        payload,
    )
}

/// The message that ends a subscription with an error.
pub(crate) fn exception(exception_type: &str, content_type: &str, payload: &[u8]) -> Bytes {
    message(
        &[
            (":message-type", "exception"),
            (":exception-type", exception_type),
            (":content-type", content_type),
        ],
        payload,
    )
}

fn message(headers: &[(&str, &str)], payload: &[u8]) -> Bytes {
    let headers_len: usize = headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
    let total = 12 + headers_len + payload.len() + 4;
    let mut out = BytesMut::with_capacity(total);
    out.put_u32(length(total));
    out.put_u32(length(headers_len));
    let prelude = crc32fast::hash(&out);
    out.put_u32(prelude);
    for (name, value) in headers {
        // Names and values are constants of a few characters.
        out.put_u8(u8::try_from(name.len()).unwrap_or(u8::MAX));
        out.put_slice(name.as_bytes());
        out.put_u8(STRING);
        out.put_u16(u16::try_from(value.len()).unwrap_or(u16::MAX));
        out.put_slice(value.as_bytes());
    }
    out.put_slice(payload);
    let sum = crc32fast::hash(&out);
    out.put_u32(sum);
    out.freeze()
}

/// Events are bounded far below 4 GiB by the settings.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_sealed_and_measured() {
        let frame = event("SubscribeToShardEvent", "application/json", b"{\"a\":1}");
        let word = |at: usize| u32::from_be_bytes(frame[at..at + 4].try_into().unwrap());
        assert_eq!(word(0) as usize, frame.len());
        assert_eq!(word(8), crc32fast::hash(&frame[..8]));
        assert_eq!(word(frame.len() - 4), crc32fast::hash(&frame[..frame.len() - 4]));
        let headers = 12..12 + word(4) as usize;
        assert_eq!(frame[headers.start], 13);
        assert_eq!(&frame[headers.start + 1..headers.start + 14], b":message-type");
        assert_eq!(&frame[headers.end..frame.len() - 4], b"{\"a\":1}");
    }
}
