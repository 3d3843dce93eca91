//! The router's tests: tables against a naive interpreter, the handler against fakes, the real binary
//! against the embedded stack.

#[cfg(test)]
mod bootstrap;
#[cfg(test)]
mod common;
#[cfg(test)]
mod enrich;
#[cfg(test)]
mod handler;
#[cfg(test)]
mod hangs;
#[cfg(test)]
mod invocations;
#[cfg(test)]
mod lanes;
#[cfg(test)]
mod large;
#[cfg(test)]
mod letters;
#[cfg(test)]
mod passthrough;
#[cfg(test)]
mod poison;
#[cfg(test)]
mod pressure;
#[cfg(test)]
mod progress;
#[cfg(test)]
mod reload;
#[cfg(test)]
mod table;
#[cfg(test)]
mod trouble;
