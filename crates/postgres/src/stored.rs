//! Values between Rust and SQL. What comes out of a column was put there by this program, or is
//! [`Failure::Corrupt`].

use std::time::Duration;

use ca_store::{Digest, RowMac};
use ca_store::{Reason, Serial, Timestamp};

use crate::failure::Failure;

/// The table that values come from.
#[derive(Clone, Copy)]
pub(crate) struct Table(pub(crate) &'static str);

impl Table {
    pub(crate) const fn corrupt(self, column: &'static str) -> Failure {
        Failure::Corrupt { table: self.0, column }
    }

    pub(crate) fn unsigned(self, column: &'static str, value: i64) -> Result<u64, Failure> {
        u64::try_from(value).map_err(|_| self.corrupt(column))
    }

    pub(crate) fn small(self, column: &'static str, value: i64) -> Result<u32, Failure> {
        u32::try_from(value).map_err(|_| self.corrupt(column))
    }

    pub(crate) fn time(self, column: &'static str, value: i64) -> Result<Timestamp, Failure> {
        let seconds = self.unsigned(column, value)?;
        let time = Timestamp::from_unix(seconds);
        if time.unix() == seconds { Ok(time) } else { Err(self.corrupt(column)) }
    }

    pub(crate) fn optional_time(
        self,
        column: &'static str,
        value: Option<i64>,
    ) -> Result<Option<Timestamp>, Failure> {
        value.map(|value| self.time(column, value)).transpose()
    }

    pub(crate) fn digest(self, column: &'static str, value: Vec<u8>) -> Result<Digest, Failure> {
        value.try_into().map_err(|_| self.corrupt(column))
    }

    pub(crate) fn optional_digest(
        self,
        column: &'static str,
        value: Option<Vec<u8>>,
    ) -> Result<Option<Digest>, Failure> {
        value.map(|value| self.digest(column, value)).transpose()
    }

    pub(crate) fn serial(self, column: &'static str, value: &[u8]) -> Result<Serial, Failure> {
        Serial::from_bytes(value).map_err(|_| self.corrupt(column))
    }

    pub(crate) fn reason(self, column: &'static str, value: i64) -> Result<Reason, Failure> {
        Reason::try_from(value).map_err(|_| self.corrupt(column))
    }

    pub(crate) fn word<T>(
        self,
        column: &'static str,
        value: &str,
        from_word: impl Fn(&str) -> Option<T>,
    ) -> Result<T, Failure> {
        from_word(value).ok_or_else(|| self.corrupt(column))
    }

    pub(crate) fn mac(self, version: i64, mac: Vec<u8>) -> Result<RowMac, Failure> {
        Ok(RowMac { key_version: self.small("mac_version", version)?, mac: self.digest("mac", mac)? })
    }
}

/// A time as its column has it.
pub(crate) fn seconds(time: Timestamp) -> i64 {
    number(time.unix())
}

/// A time that may be absent.
pub(crate) fn optional_seconds(time: Option<Timestamp>) -> Option<i64> {
    time.map(seconds)
}

/// A number as its column has it. What does not fit in 63 bits counts nothing that exists.
pub(crate) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A duration in the unit of leases.
pub(crate) fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// The columns of rows, for `UNNEST`: one list a column.
macro_rules! columns {
    ($rows:expr, |$row:ident| { $($name:ident: $type:ty = $value:expr),+ $(,)? }) => {
        $(let mut $name: Vec<$type> = Vec::new();)+
        for $row in $rows {
            $($name.push($value);)+
        }
    };
}

pub(crate) use columns;
