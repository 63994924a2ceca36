//! Points in time with the resolution that X.509 has: whole seconds.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    Period,
    encode::{Encoder, tag},
};

/// Whole seconds since 1970-01-01T00:00:00Z. In text RFC 3339, in serde the number.
///
/// Not `OffsetDateTime`, because its fraction of a second would be lost in DER and two times that
/// compare as different would encode alike.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "u64", into = "u64")]
pub struct Timestamp(u64);

impl Timestamp {
    /// 9999-12-31T23:59:59Z, the last time that GeneralizedTime can say, and RFC 5280 §4.1.2.5's
    /// "no well-defined expiration date".
    pub const MAX: Self = Self(253_402_300_799);

    /// RFC 5280 §4.1.2.5: dates through 2049 are UTCTime, dates in 2050 or later GeneralizedTime.
    const FIRST_GENERALIZED: Self = Self(2_524_608_000);

    /// From seconds since the epoch; more than [`Timestamp::MAX`] becomes that.
    #[must_use]
    pub fn from_unix(seconds: u64) -> Self {
        Self(seconds).min(Self::MAX)
    }

    #[cfg(test)]
    pub(crate) const fn from_unix_const(seconds: u64) -> Self {
        Self(seconds)
    }

    /// Seconds since the epoch.
    #[must_use]
    pub const fn unix(self) -> u64 {
        self.0
    }

    /// `period` later, at most [`Timestamp::MAX`].
    #[must_use]
    pub fn plus(self, period: Period) -> Self {
        Self::from_unix(self.0.saturating_add(period.seconds()))
    }

    /// `period` earlier, not before the epoch.
    #[must_use]
    pub const fn minus(self, period: Period) -> Self {
        Self(self.0.saturating_sub(period.seconds()))
    }

    /// Seconds from `earlier` to this; zero if it is not earlier.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Period {
        Period::from_seconds(self.0.saturating_sub(earlier.0))
    }

    /// The same as a date and time in UTC.
    #[must_use]
    pub fn date_time(self) -> OffsetDateTime {
        let seconds = i64::try_from(self.0).unwrap_or(i64::MAX);
        OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }

    /// `Time` of RFC 5280 §4.1. A CRL has a million of them: no library, no allocation.
    pub(crate) fn encode(self, encoder: &mut Encoder) {
        if self < Self::FIRST_GENERALIZED {
            encoder.primitive(tag::UTC_TIME, self.text().get(2..).unwrap_or_default());
        } else {
            self.encode_generalized(encoder);
        }
    }

    /// GeneralizedTime whatever the year, as OCSP has it (RFC 6960 §4.2.1).
    pub(crate) fn encode_generalized(self, encoder: &mut Encoder) {
        encoder.primitive(tag::GENERALIZED_TIME, &self.text());
    }

    /// `YYYYMMDDhhmmssZ`.
    fn text(self) -> [u8; 15] {
        let [year, month, day] = civil(self.0 / 86_400);
        let second = self.0 % 86_400;
        let numbers = [year / 100, year % 100, month, day, second / 3600, second / 60 % 60, second % 60];
        let mut text = [b'Z'; 15];
        for (to, number) in text.chunks_exact_mut(2).zip(numbers) {
            to.copy_from_slice(&[digit(number / 10), digit(number % 10)]);
        }
        text
    }

    /// How many octets [`Timestamp::encode`] writes.
    pub(crate) fn encoded_len(self) -> usize {
        if self < Self::FIRST_GENERALIZED { 15 } else { 17 }
    }
}

fn digit(number: u64) -> u8 {
    b'0'.saturating_add(u8::try_from(number).unwrap_or(0))
}

/// Year, month and day of a day since 1970-01-01, in the proleptic Gregorian calendar. Years begin
/// in March here, so that a leap day is the last of its year; eras are of 400 years, 146 097 days.
const fn civil(days: u64) -> [u64; 3] {
    let since_year_0 = days + 719_468;
    let (era, day_of_era) = (since_year_0 / 146_097, since_year_0 % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    [year, month, day]
}

impl From<u64> for Timestamp {
    fn from(seconds: u64) -> Self {
        Self::from_unix(seconds)
    }
}

impl From<Timestamp> for u64 {
    fn from(at: Timestamp) -> Self {
        at.0
    }
}

impl From<OffsetDateTime> for Timestamp {
    /// Drops the fraction of a second; times before the epoch become the epoch.
    fn from(at: OffsetDateTime) -> Self {
        Self::from_unix(u64::try_from(at.unix_timestamp()).unwrap_or(0))
    }
}

impl From<Timestamp> for OffsetDateTime {
    fn from(at: Timestamp) -> Self {
        at.date_time()
    }
}

impl From<std::time::SystemTime> for Timestamp {
    /// Drops the fraction of a second; times before the epoch become the epoch.
    fn from(at: std::time::SystemTime) -> Self {
        Self::from_unix(at.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs()))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.date_time().format(&Rfc3339).map_err(|_| fmt::Error)?)
    }
}

/// Why text is not a point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a time is written with date, whole second and zone, after 1970: 2026-11-30T08:00:00Z")]
pub struct TimestampError;

/// RFC 3339, without a fraction of a second.
impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, TimestampError> {
        let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| TimestampError)?;
        if time.nanosecond() != 0 {
            return Err(TimestampError);
        }
        u64::try_from(time.unix_timestamp()).map(Self::from_unix).map_err(|_| TimestampError)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::encode;
    use proptest::prelude::*;

    fn der(seconds: u64) -> Vec<u8> {
        encode(|e| Timestamp::from_unix(seconds).encode(e))
    }

    #[test]
    fn utc_time_ends_with_2049() {
        assert_eq!(der(2_524_607_999), b"\x17\x0d491231235959Z");
        assert_eq!(der(2_524_608_000), b"\x18\x0f20500101000000Z");
        assert_eq!(der(0), b"\x17\x0d700101000000Z");
        assert_eq!(der(u64::MAX), b"\x18\x0f99991231235959Z");
        assert_eq!(Timestamp::MAX.to_string(), "9999-12-31T23:59:59Z");
    }

    #[test]
    fn text_reads_back_and_has_whole_seconds() {
        let at = Timestamp::from_unix(1_796_025_600);
        for text in [at.to_string().as_str(), "2026-11-30T08:00:00Z", "2026-11-30T09:00:00+01:00"] {
            assert_eq!(text.parse(), Ok(at), "{text}");
        }
        for text in
            ["", "2026-11-30", "2026-11-30T08:00:00", "2026-11-30T08:00:00.5Z", "1969-12-31T23:59:59Z"]
        {
            assert_eq!(text.parse::<Timestamp>(), Err(TimestampError), "{text}");
        }
    }

    proptest! {
        #[test]
        fn x509_cert_reads_back_the_same_second(seconds in 0..=253_402_300_799_u64) {
            use der::Decode;
            let bytes = der(seconds);
            prop_assert_eq!(bytes.len(), Timestamp::from_unix(seconds).encoded_len());
            let time = x509_cert::time::Time::from_der(&bytes).unwrap();
            prop_assert_eq!(time.to_unix_duration().as_secs(), seconds);
        }
    }
}
