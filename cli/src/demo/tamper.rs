//! Tampers with what the consumers saw, to prove that the demo's check can fail.

use bytes::Bytes;
use headworks_consumer::Delivered;

/// The stream that is tampered with: it has many records of each key.
const STREAM: &str = "clicks";

/// What is done to one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Tamper {
    /// It is not written down.
    Drop,
    /// It is written down after the next one of its key.
    Swap,
    /// One bit of its data is flipped.
    Alter,
}

/// Does it once.
#[derive(Debug)]
pub(super) struct Tampering {
    tamper: Option<Tamper>,
    held: Option<Delivered>,
}

impl Tampering {
    /// Does nothing without a `tamper`.
    pub(super) fn new(tamper: Option<Tamper>) -> Self {
        Self { tamper, held: None }
    }

    /// What is written down instead of this record.
    pub(super) fn pass(&mut self, mut delivered: Delivered) -> Vec<Delivered> {
        if &*delivered.stream != STREAM {
            return vec![delivered];
        }
        if let Some(held) = self.held.take_if(|held| held.record.key == delivered.record.key) {
            return vec![delivered, held];
        }
        match self.tamper.take() {
            None => vec![delivered],
            Some(Tamper::Drop) => Vec::new(),
            Some(Tamper::Swap) => {
                self.held = Some(delivered);
                Vec::new()
            }
            Some(Tamper::Alter) => {
                let mut data = delivered.record.data.to_vec();
                if let Some(byte) = data.last_mut() {
                    *byte ^= 1;
                }
                delivered.record.data = Bytes::from(data);
                vec![delivered]
            }
        }
    }
}
