//! Lengths of time as people write them in policy files.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A length of time in whole seconds. In TOML a number of seconds, or text with one unit: `"90d"`,
/// `"12h"`, `"30m"`, `"45s"`. A day is 86 400 seconds (BR §6.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Period(u64);

/// Why text is not a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a period is a whole number with a unit: 90d, 12h, 30m or 45s")]
pub struct PeriodError;

const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

impl Period {
    /// From seconds.
    #[must_use]
    pub const fn from_seconds(seconds: u64) -> Self {
        Self(seconds)
    }

    /// From days of 86 400 seconds.
    #[must_use]
    pub const fn from_days(days: u32) -> Self {
        Self(days as u64 * 86_400)
    }

    /// From hours.
    #[must_use]
    pub const fn from_hours(hours: u32) -> Self {
        Self(hours as u64 * 3_600)
    }

    /// In seconds.
    #[must_use]
    pub const fn seconds(self) -> u64 {
        self.0
    }

    /// As the standard library's type.
    #[must_use]
    pub const fn duration(self) -> std::time::Duration {
        std::time::Duration::from_secs(self.0)
    }
}

impl FromStr for Period {
    type Err = PeriodError;

    fn from_str(text: &str) -> Result<Self, PeriodError> {
        let (number, unit) = UNITS
            .iter()
            .find_map(|(letter, unit)| Some((text.strip_suffix(*letter)?, *unit)))
            .ok_or(PeriodError)?;
        if number.is_empty() || !number.bytes().all(|octet| octet.is_ascii_digit()) {
            return Err(PeriodError);
        }
        let number: u64 = number.parse().map_err(|_| PeriodError)?;
        number.checked_mul(unit).map(Self).ok_or(PeriodError)
    }
}

impl fmt::Display for Period {
    /// The largest unit that says it exactly.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (letter, unit) =
            UNITS.iter().find(|(_, unit)| self.0 != 0 && self.0.is_multiple_of(*unit)).unwrap_or(&('s', 1));
        write!(f, "{}{letter}", self.0 / unit)
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Period;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("seconds, or text such as \"90d\" or \"12h\"")
            }

            fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Period, E> {
                Ok(Period(seconds))
            }

            fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Period, E> {
                u64::try_from(seconds).map(Period).map_err(|_| E::custom("a period is not negative"))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Period, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        assert_eq!("90d".parse(), Ok(Period::from_days(90)));
        assert_eq!("12h".parse(), Ok(Period::from_hours(12)));
        assert_eq!("30m".parse(), Ok(Period(1800)));
        assert_eq!("0s".parse(), Ok(Period(0)));
        for bad in
            ["", "d", "90", "-1d", "+1d", "1 d", "1.5h", "99999999999999999999d", "9999999999999999d", "1w"]
        {
            assert_eq!(bad.parse::<Period>(), Err(PeriodError), "{bad}");
        }
    }

    #[test]
    fn display_is_read_back() {
        for seconds in [0, 1, 59, 60, 3_600, 86_400, 86_401, 90 * 86_400, 7_776_000 - 1] {
            assert_eq!(Period(seconds).to_string().parse(), Ok(Period(seconds)));
        }
        assert_eq!(Period::from_days(90).to_string(), "90d");
        assert_eq!(Period(5_400).to_string(), "90m");
    }
}
