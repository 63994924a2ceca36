//! Frames between supervisor and worker: length, version, kind, body; little-endian, hand-encoded, bounded.
//!
//! Both ends are the same executable, so the version only guards against a program that was replaced on disk while the
//! supervisor ran. No frame carries a PIN or a private key.

mod codec;
mod fault;

use bytes::Bytes;

pub(crate) use codec::{Decoder, Encoder, Malformed};

use crate::fault::Fault;
use crate::job::{MESSAGE_MAX, Mechanism};
use crate::key::{Attributes, KeyQuery, Origin};

/// Version of everything in this file.
const VERSION: u8 = 1;

/// Octets before a frame's body: its length (of all that follows it), version and kind.
const HEADER: usize = 4 + 2;

/// The longest frame: the longest message and what goes with it.
pub(crate) const FRAME_MAX: usize = MESSAGE_MAX + 1024;

/// What the supervisor says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    /// First frame: which token, and how to get into it.
    Configure(Configure),
    /// Declares a key under a number; the worker answers with [`Report::Key`].
    Key { index: u32, id: Vec<u8>, spki: Vec<u8>, origin: Origin },
    /// A signature, please.
    Sign { id: u64, key: u32, mechanism: Mechanism, remaining_micros: u32, data: Bytes },
    /// This session made a wrong signature: replace it, and find the key again.
    Recycle { session: u16, key: u32 },
    /// Look for keys.
    Find { id: u64, query: KeyQuery },
    /// Make a key.
    Generate { id: u64, key: NewKey },
    /// Finish what is running, finalise, and exit.
    Shutdown,
}

/// How the worker gets into the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Configure {
    pub(crate) module: String,
    pub(crate) label: String,
    pub(crate) serial: Option<String>,
    pub(crate) pin_file: String,
    pub(crate) latch_file: String,
    pub(crate) sessions: u16,
}

/// The algorithms for which keys are made, with what `C_GenerateKeyPair` needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewKey {
    pub(crate) kind: NewKeyKind,
    pub(crate) label: String,
    pub(crate) id: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NewKeyKind {
    P256,
    P384,
    Ed25519,
    Rsa { bits: u16 },
}

/// What the worker says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Report {
    /// Logged in; give me work.
    Ready { serial: String, manufacturer: String, model: String, sessions: u16 },
    /// Cannot go on; the worker exits after this.
    Failed { fault: Fault },
    /// What became of a declared key.
    Key { index: u32, outcome: Result<Attributes, Fault> },
    /// A signature as X.509 carries it, not yet verified.
    Signed { id: u64, session: u16, waited_micros: u32, took_micros: u32, signature: Vec<u8> },
    /// No signature.
    Refused { id: u64, fault: Fault },
    /// Answer to [`Request::Find`], and with one key to [`Request::Generate`].
    Keys { id: u64, keys: Vec<TokenKey> },
    /// Something to count.
    Event(Event),
}

/// A private key in the token; its public key still as bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenKey {
    pub(crate) id: Vec<u8>,
    pub(crate) label: String,
    pub(crate) spki: Option<Vec<u8>>,
    pub(crate) attributes: Attributes,
}

/// What happened in the worker, for metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// A session was replaced.
    Reopened,
    /// The token had logged us out; logged in again. Handles are void.
    LoggedIn { epoch: u64 },
    /// A call failed.
    CallFailed { function: String, rv: String },
}

impl Request {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Request::Configure(configure) => frame(out, 1, |out| {
                out.str(&configure.module);
                out.str(&configure.label);
                out.opt(configure.serial.as_deref(), Encoder::str);
                out.str(&configure.pin_file);
                out.str(&configure.latch_file);
                out.u16(configure.sessions);
            }),
            Request::Key { index, id, spki, origin } => frame(out, 2, |out| {
                out.u32(*index);
                out.bytes(id);
                out.bytes(spki);
                out.u8(match origin {
                    Origin::Generated => 0,
                    Origin::Cloned => 1,
                });
            }),
            Request::Sign { id, key, mechanism, remaining_micros, data } => frame(out, 3, |out| {
                out.u64(*id);
                out.u32(*key);
                out.u8(*mechanism as u8);
                out.u32(*remaining_micros);
                out.bytes(data);
            }),
            Request::Recycle { session, key } => frame(out, 4, |out| {
                out.u16(*session);
                out.u32(*key);
            }),
            Request::Find { id, query } => frame(out, 5, |out| {
                out.u64(*id);
                out.opt(query.id.as_deref(), Encoder::bytes);
                out.opt(query.label.as_deref(), Encoder::str);
            }),
            Request::Generate { id, key } => frame(out, 6, |out| {
                out.u64(*id);
                out.u16(match key.kind {
                    NewKeyKind::P256 => 1,
                    NewKeyKind::P384 => 2,
                    NewKeyKind::Ed25519 => 3,
                    NewKeyKind::Rsa { bits } => bits,
                });
                out.str(&key.label);
                out.bytes(&key.id);
            }),
            Request::Shutdown => frame(out, 7, |_| {}),
        }
    }

    pub(crate) fn decode(body: &[u8]) -> Result<Request, Malformed> {
        let mut input = Decoder::new(body);
        versioned(&mut input)?;
        let request = match input.u8()? {
            1 => Request::Configure(Configure {
                module: input.string()?,
                label: input.string()?,
                serial: input.opt(Decoder::string)?,
                pin_file: input.string()?,
                latch_file: input.string()?,
                sessions: input.u16()?,
            }),
            2 => Request::Key {
                index: input.u32()?,
                id: input.bytes()?.to_vec(),
                spki: input.bytes()?.to_vec(),
                origin: match input.u8()? {
                    0 => Origin::Generated,
                    1 => Origin::Cloned,
                    _ => return Err(Malformed("origin")),
                },
            },
            3 => Request::Sign {
                id: input.u64()?,
                key: input.u32()?,
                mechanism: Mechanism::from_u8(input.u8()?).ok_or(Malformed("mechanism"))?,
                remaining_micros: input.u32()?,
                data: Bytes::copy_from_slice(input.bytes()?),
            },
            4 => Request::Recycle { session: input.u16()?, key: input.u32()? },
            5 => Request::Find {
                id: input.u64()?,
                query: KeyQuery {
                    id: input.opt(|input| Ok(input.bytes()?.to_vec()))?,
                    label: input.opt(Decoder::string)?,
                },
            },
            6 => Request::Generate { id: input.u64()?, key: NewKey::decode(&mut input)? },
            7 => Request::Shutdown,
            _ => return Err(Malformed("kind of request")),
        };
        input.end()?;
        Ok(request)
    }
}

impl NewKey {
    fn decode(input: &mut Decoder<'_>) -> Result<NewKey, Malformed> {
        Ok(NewKey {
            kind: match input.u16()? {
                1 => NewKeyKind::P256,
                2 => NewKeyKind::P384,
                3 => NewKeyKind::Ed25519,
                bits @ 2048..=8192 => NewKeyKind::Rsa { bits },
                _ => return Err(Malformed("kind of key")),
            },
            label: input.string()?,
            id: input.bytes()?.to_vec(),
        })
    }
}

impl Report {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Report::Ready { serial, manufacturer, model, sessions } => frame(out, 1, |out| {
                out.str(serial);
                out.str(manufacturer);
                out.str(model);
                out.u16(*sessions);
            }),
            Report::Failed { fault } => frame(out, 2, |out| fault.encode(out)),
            Report::Key { index, outcome } => frame(out, 3, |out| {
                out.u32(*index);
                match outcome {
                    Ok(attributes) => {
                        out.u8(1);
                        attributes.encode(out);
                    }
                    Err(fault) => {
                        out.u8(0);
                        fault.encode(out);
                    }
                }
            }),
            Report::Signed { id, session, waited_micros, took_micros, signature } => frame(out, 4, |out| {
                out.u64(*id);
                out.u16(*session);
                out.u32(*waited_micros);
                out.u32(*took_micros);
                out.bytes(signature);
            }),
            Report::Refused { id, fault } => frame(out, 5, |out| {
                out.u64(*id);
                fault.encode(out);
            }),
            Report::Keys { id, keys } => frame(out, 6, |out| {
                out.u64(*id);
                out.u32(u32::try_from(keys.len()).unwrap_or(u32::MAX));
                for key in keys {
                    out.bytes(&key.id);
                    out.str(&key.label);
                    out.opt(key.spki.as_deref(), Encoder::bytes);
                    key.attributes.encode(out);
                }
            }),
            Report::Event(Event::Reopened) => frame(out, 7, |_| {}),
            Report::Event(Event::LoggedIn { epoch }) => frame(out, 8, |out| out.u64(*epoch)),
            Report::Event(Event::CallFailed { function, rv }) => frame(out, 9, |out| {
                out.str(function);
                out.str(rv);
            }),
        }
    }

    pub(crate) fn decode(body: &[u8]) -> Result<Report, Malformed> {
        let mut input = Decoder::new(body);
        versioned(&mut input)?;
        let report = match input.u8()? {
            1 => Report::Ready {
                serial: input.string()?,
                manufacturer: input.string()?,
                model: input.string()?,
                sessions: input.u16()?,
            },
            2 => Report::Failed { fault: Fault::decode(&mut input)? },
            3 => Report::Key {
                index: input.u32()?,
                outcome: match input.u8()? {
                    1 => Ok(Attributes::decode(&mut input)?),
                    _ => Err(Fault::decode(&mut input)?),
                },
            },
            4 => Report::Signed {
                id: input.u64()?,
                session: input.u16()?,
                waited_micros: input.u32()?,
                took_micros: input.u32()?,
                signature: input.bytes()?.to_vec(),
            },
            5 => Report::Refused { id: input.u64()?, fault: Fault::decode(&mut input)? },
            6 => Report::Keys { id: input.u64()?, keys: token_keys(&mut input)? },
            7 => Report::Event(Event::Reopened),
            8 => Report::Event(Event::LoggedIn { epoch: input.u64()? }),
            9 => Report::Event(Event::CallFailed { function: input.string()?, rv: input.string()? }),
            _ => return Err(Malformed("kind of report")),
        };
        input.end()?;
        Ok(report)
    }
}

fn token_keys(input: &mut Decoder<'_>) -> Result<Vec<TokenKey>, Malformed> {
    let count = input.u32()?;
    // Grown as they are read: the count alone must not make us reserve memory.
    let mut keys = Vec::new();
    for _ in 0..count {
        keys.push(TokenKey {
            id: input.bytes()?.to_vec(),
            label: input.string()?,
            spki: input.opt(|input| Ok(input.bytes()?.to_vec()))?,
            attributes: Attributes::decode(input)?,
        });
    }
    Ok(keys)
}

impl Attributes {
    fn flags(&mut self) -> [&mut Option<bool>; 16] {
        [
            &mut self.token,
            &mut self.private,
            &mut self.sensitive,
            &mut self.extractable,
            &mut self.always_sensitive,
            &mut self.never_extractable,
            &mut self.local,
            &mut self.sign,
            &mut self.sign_recover,
            &mut self.decrypt,
            &mut self.unwrap,
            &mut self.derive,
            &mut self.always_authenticate,
            &mut self.modifiable,
            &mut self.copyable,
            &mut self.destroyable,
        ]
    }

    fn encode(mut self, out: &mut Vec<u8>) {
        for flag in self.flags() {
            out.u8(flag.map_or(2, u8::from));
        }
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Attributes, Malformed> {
        let mut attributes = Attributes::default();
        for flag in attributes.flags() {
            *flag = match input.u8()? {
                0 => Some(false),
                1 => Some(true),
                2 => None,
                _ => return Err(Malformed("attribute")),
            };
        }
        Ok(attributes)
    }
}

fn versioned(input: &mut Decoder<'_>) -> Result<(), Malformed> {
    if input.u8()? == VERSION { Ok(()) } else { Err(Malformed("version")) }
}

/// Appends one frame.
fn frame(out: &mut Vec<u8>, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.u32(0);
    out.u8(VERSION);
    out.u8(kind);
    body(out);
    let length = u32::try_from(out.len() - start - 4).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(start..start + 4) {
        place.copy_from_slice(&length.to_le_bytes());
    }
}

/// Splits a stream of octets into frames.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    buffer: Vec<u8>,
    start: usize,
}

impl Splitter {
    /// Room for the next read. What was consumed before is dropped first.
    pub(crate) fn extend(&mut self, octets: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(octets);
    }

    /// The next whole frame, without its length.
    pub(crate) fn next(&mut self) -> Result<Option<&[u8]>, Malformed> {
        let Some(length) = self.buffer.get(self.start..).and_then(<[u8]>::first_chunk::<4>) else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*length) as usize;
        if !(HEADER - 4..=FRAME_MAX).contains(&length) {
            return Err(Malformed("length"));
        }
        let (from, to) = (self.start + 4, self.start + 4 + length);
        if self.buffer.len() < to {
            return Ok(None);
        }
        self.start = to;
        Ok(self.buffer.get(from..to))
    }
}

#[cfg(test)]
mod tests;
