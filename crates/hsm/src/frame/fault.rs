//! [`Fault`] as octets.

use std::path::Path;

use super::{Decoder, Encoder, Malformed};
use crate::fault::{Fault, RvClass};

impl Fault {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Fault::Starting => out.u8(0),
            Fault::Spawn { reason } => text(out, 1, reason),
            Fault::Died { status } => text(out, 2, status),
            Fault::Hung => out.u8(3),
            Fault::Protocol { reason } => text(out, 4, reason),
            Fault::Module { path, reason } => path_and_reason(out, 5, path, reason),
            Fault::TokenNotFound { label, serial } => {
                text(out, 6, label);
                out.opt(serial.as_deref(), Encoder::str);
            }
            Fault::TokenAmbiguous { label, count } => text_and_number(out, 7, label, *count),
            Fault::PinUnreadable { path, reason } => path_and_reason(out, 8, path, reason),
            Fault::PinExposed { path } => text(out, 9, &path.to_string_lossy()),
            Fault::PinRefused { rv, latch } => path_and_reason(out, 10, latch, rv),
            Fault::PinLatched { latch } => text(out, 11, &latch.to_string_lossy()),
            Fault::PinLocked => out.u8(12),
            Fault::PinFinalTry => out.u8(13),
            Fault::Latch { path, reason } => path_and_reason(out, 14, path, reason),
            Fault::KeyNotFound { id } => text(out, 15, id),
            Fault::KeyAmbiguous { id, count } => text_and_number(out, 16, id, *count),
            Fault::KeyExists { id, label } => two_texts(out, 17, id, label),
            Fault::PublicKeyUnreadable { id, reason } => two_texts(out, 18, id, reason),
            Fault::PublicKeyMismatch { id } => text(out, 19, id),
            Fault::Attribute { id, attribute, expected, found } => {
                two_texts(out, 20, id, attribute);
                out.u8(u8::from(*expected));
                out.opt(*found, |out, found| out.u8(u8::from(found)));
            }
            Fault::KeyUndeclared { index } => {
                out.u8(21);
                out.u32(*index);
            }
            Fault::SignatureLength { expected, found } => {
                out.u8(22);
                out.u64(*expected);
                out.u64(*found);
            }
            Fault::Expired => out.u8(23),
            Fault::Call { function, rv, class } => {
                two_texts(out, 24, function, rv);
                out.u8(*class as u8);
            }
        }
    }

    pub(super) fn decode(input: &mut Decoder<'_>) -> Result<Fault, Malformed> {
        Ok(match input.u8()? {
            0 => Fault::Starting,
            1 => Fault::Spawn { reason: input.string()? },
            2 => Fault::Died { status: input.string()? },
            3 => Fault::Hung,
            4 => Fault::Protocol { reason: input.string()? },
            5 => Fault::Module { path: input.string()?.into(), reason: input.string()? },
            6 => Fault::TokenNotFound { label: input.string()?, serial: input.opt(Decoder::string)? },
            7 => Fault::TokenAmbiguous { label: input.string()?, count: input.u64()? },
            8 => Fault::PinUnreadable { path: input.string()?.into(), reason: input.string()? },
            9 => Fault::PinExposed { path: input.string()?.into() },
            10 => Fault::PinRefused { latch: input.string()?.into(), rv: input.string()? },
            11 => Fault::PinLatched { latch: input.string()?.into() },
            12 => Fault::PinLocked,
            13 => Fault::PinFinalTry,
            14 => Fault::Latch { path: input.string()?.into(), reason: input.string()? },
            15 => Fault::KeyNotFound { id: input.string()? },
            16 => Fault::KeyAmbiguous { id: input.string()?, count: input.u64()? },
            17 => Fault::KeyExists { id: input.string()?, label: input.string()? },
            18 => Fault::PublicKeyUnreadable { id: input.string()?, reason: input.string()? },
            19 => Fault::PublicKeyMismatch { id: input.string()? },
            20 => Fault::Attribute {
                id: input.string()?,
                attribute: input.string()?,
                expected: flag(input)?,
                found: input.opt(flag)?,
            },
            21 => Fault::KeyUndeclared { index: input.u32()? },
            22 => Fault::SignatureLength { expected: input.u64()?, found: input.u64()? },
            23 => Fault::Expired,
            24 => Fault::Call {
                function: input.string()?,
                rv: input.string()?,
                class: RvClass::from_u8(input.u8()?).ok_or(Malformed("class of return value"))?,
            },
            _ => return Err(Malformed("kind of fault")),
        })
    }
}

fn flag(input: &mut Decoder<'_>) -> Result<bool, Malformed> {
    match input.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed("flag")),
    }
}

fn text(out: &mut Vec<u8>, kind: u8, text: &str) {
    out.u8(kind);
    out.str(text);
}

fn two_texts(out: &mut Vec<u8>, kind: u8, first: &str, second: &str) {
    text(out, kind, first);
    out.str(second);
}

fn text_and_number(out: &mut Vec<u8>, kind: u8, first: &str, number: u64) {
    text(out, kind, first);
    out.u64(number);
}

fn path_and_reason(out: &mut Vec<u8>, kind: u8, path: &Path, reason: &str) {
    two_texts(out, kind, &path.to_string_lossy(), reason);
}
