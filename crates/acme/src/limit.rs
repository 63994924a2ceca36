//! Limits of a directory (RFC 8555 §6.6): how often something may happen, who counts it, and what a client is told.

use std::fmt;
use std::str::FromStr;

use pki::{Period, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::problem::{ErrorType, Problem};

/// So many in any period of so long: `"50 in 7d"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    /// How many.
    pub most: u32,
    /// In how long.
    pub period: Period,
}

impl Rate {
    const fn of(most: u32, period: Period) -> Self {
        Self { most, period }
    }
}

/// The text is no rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a limit is text such as \"50 in 7d\" (at least one in at least a minute), or \"none\"")]
pub struct BadRate;

impl FromStr for Rate {
    type Err = BadRate;
    fn from_str(text: &str) -> Result<Self, BadRate> {
        let (most, period) = text.split_once(" in ").ok_or(BadRate)?;
        let most = most.parse().ok().filter(|most| *most > 0).ok_or(BadRate)?;
        let period: Period = period.parse().map_err(|_| BadRate)?;
        if period.seconds() < 60 { Err(BadRate) } else { Ok(Self { most, period }) }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.most, self.period)
    }
}

crate::id::serde_as_text!(Rate);

/// A limit in a configuration: a rate, or `"none"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting(pub Option<Rate>);

impl FromStr for Setting {
    type Err = BadRate;
    fn from_str(text: &str) -> Result<Self, BadRate> {
        if text == "none" { Ok(Self(None)) } else { text.parse().map(|rate| Self(Some(rate))) }
    }
}

impl Serialize for Setting {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Some(rate) => serializer.collect_str(rate),
            None => serializer.serialize_str("none"),
        }
    }
}

impl<'de> Deserialize<'de> for Setting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Declares the limits once: field, documentation, and what a public directory has.
macro_rules! limits {
    ($($(#[$doc:meta])* $field:ident = $public:expr, $what:literal;)*) => {
        /// The limits that hold, each absent where there is none.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Limits { $($(#[$doc])* pub $field: Option<Rate>,)* }

        /// Limits that somebody set; those that are absent are as they were.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct LimitSettings {
            $($(#[$doc])* #[serde(default, skip_serializing_if = "Option::is_none")] pub $field: Option<Setting>,)*
        }

        /// Which limit.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[allow(non_camel_case_types, reason = "the names of the settings")]
        enum Field { $($field,)* }

        impl Limits {
            /// What a publicly trusted directory has: the table that its clients know from others.
            pub const PUBLIC: Self = Self { $($field: $public,)* };

            /// The limit of this name.
            #[must_use]
            pub const fn of(&self, name: LimitName) -> Option<Rate> {
                match name.0 { $(Field::$field => self.$field,)* }
            }

            /// With what is set in the place of what was.
            #[must_use]
            pub fn with(self, settings: &LimitSettings) -> Self {
                Self { $($field: settings.$field.map_or(self.$field, |setting| setting.0),)* }
            }
        }

        impl LimitSettings {
            /// Sets the limit of this name; with nothing it is again as it was.
            pub const fn set(&mut self, name: LimitName, setting: Option<Setting>) {
                match name.0 { $(Field::$field => self.$field = setting,)* }
            }

            /// What is set for the limit of this name.
            #[must_use]
            pub const fn of(&self, name: LimitName) -> Option<Setting> {
                match name.0 { $(Field::$field => self.$field,)* }
            }

            /// Whether nothing is set.
            #[must_use]
            pub fn is_empty(&self) -> bool {
                true $(&& self.$field.is_none())*
            }
        }

        impl LimitName {
            $(
                #[doc = concat!("`", stringify!($field), "`.")]
                pub const fn $field() -> Self { Self(Field::$field) }
            )*

            /// Every limit.
            pub const ALL: &'static [Self] = &[$(Self(Field::$field),)*];

            /// The name in configurations and messages.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self.0 { $(Field::$field => stringify!($field),)* }
            }

            /// What there were too many of.
            const fn what(self) -> &'static str {
                match self.0 { $(Field::$field => $what,)* }
            }
        }

        impl FromStr for LimitName {
            type Err = UnknownLimit;
            fn from_str(text: &str) -> Result<Self, UnknownLimit> {
                match text {
                    $(stringify!($field) => Ok(Self(Field::$field)),)*
                    _ => Err(UnknownLimit),
                }
            }
        }
    };
}

/// The name of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LimitName(Field);

/// There is no such limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no such limit; there are {}", names().join(", "))]
pub struct UnknownLimit;

fn names() -> Vec<&'static str> {
    LimitName::ALL.iter().map(|name| name.as_str()).collect()
}

limits! {
    /// Certificates with a name at or under one registered domain (the public suffix and a label). Counted by the signers.
    certificates_per_domain = Some(Rate::of(50, Period::from_days(7))), "certificates";
    /// Certificates with exactly the same names. Counted by the signers.
    duplicate_certificates = Some(Rate::of(5, Period::from_days(7))), "certificates with exactly these names";
    /// Certificates of one account. Counted by the signers.
    certificates_per_account = None, "certificates of the account";
    /// Certificates of all accounts of one registration. Counted by the signers.
    certificates_per_registration = None, "certificates of the account's registration";
    /// Failed validations of one account for one name. Counted by the fronts.
    failed_validations = Some(Rate::of(5, Period::from_hours(1))), "failed validations";
    /// Accounts that one address (of IPv6 one /64) registers. Counted by the fronts.
    accounts_per_address = Some(Rate::of(10, Period::from_hours(3))), "new accounts";
    /// Orders, and authorizations without an order, of one account. Counted by the fronts.
    orders_per_account = Some(Rate::of(300, Period::from_hours(3))), "new orders";
    /// Failed validations in a row of one account for one name, none successful in between: its orders for the name rest for
    /// the period after the last one. Counted by the fronts.
    failures_until_paused = Some(Rate::of(100, Period::from_days(7))), "failed validations in a row";
}

/// What a client is told that ran into a limit: which, whose, and when to come again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// Which.
    pub limit: LimitName,
    /// The limit.
    pub rate: Rate,
    /// Whose: a domain, names, an address. Empty for the account itself.
    pub of: String,
    /// From when on it is free again.
    pub free_at: Timestamp,
}

impl Reached {
    /// `rateLimited`, with a text that names the limit and when it frees.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let Self { limit, rate, of, free_at } = self;
        let of = if of.is_empty() { String::new() } else { format!(" for {of}") };
        let detail = format!(
            "too many {}{of}: the limit {} is {rate}; retry after {free_at}",
            limit.what(),
            limit.as_str()
        );
        Problem::new(ErrorType::RateLimited, detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_one_spelling() {
        for good in ["50 in 7d", "1 in 1m", "300 in 3h"] {
            assert_eq!(good.parse::<Rate>().unwrap().to_string(), good);
        }
        for bad in ["", "none", "0 in 1h", "5", "5 in", "5 in 59s", "-1 in 1h", "5 per 1h", "5 in 1x"] {
            assert_eq!(bad.parse::<Rate>(), Err(BadRate), "{bad}");
        }
        assert_eq!("none".parse(), Ok(Setting(None)));
    }

    #[test]
    fn what_is_set_replaces_what_was() {
        let text = r#"{"duplicate_certificates":"none","orders_per_account":"7 in 1d"}"#;
        let settings: LimitSettings = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&settings).unwrap(), text);
        let limits = Limits::PUBLIC.with(&settings);
        assert_eq!(limits.duplicate_certificates, None);
        assert_eq!(limits.orders_per_account.unwrap().to_string(), "7 in 1d");
        assert_eq!(limits.certificates_per_domain, Limits::PUBLIC.certificates_per_domain);
        assert_eq!(Limits::default().with(&LimitSettings::default()), Limits::default());
        assert!(serde_json::from_str::<LimitSettings>(r#"{"order_per_account":"none"}"#).is_err());
        let mut settings = LimitSettings::default();
        assert!(settings.is_empty());
        for name in LimitName::ALL {
            assert_eq!(settings.of(*name), None);
            settings.set(*name, Some(Setting(None)));
            assert_eq!(settings.of(*name), Some(Setting(None)));
            assert_eq!(name.as_str().parse(), Ok(*name));
            assert_eq!(Limits::PUBLIC.with(&settings).of(*name), None);
        }
        assert_eq!(Limits::PUBLIC.with(&settings), Limits::default());
        for name in LimitName::ALL {
            settings.set(*name, None);
        }
        assert_eq!(Limits::PUBLIC.with(&settings), Limits::PUBLIC);
        let unknown = "orders".parse::<LimitName>().unwrap_err().to_string();
        assert!(
            unknown.starts_with("there is no such limit; there are certificates_per_domain, "),
            "{unknown}"
        );
    }

    #[test]
    fn the_defaults_are_the_well_known_table() {
        let text = |rate: Option<Rate>| rate.unwrap().to_string();
        let limits = Limits::PUBLIC;
        assert_eq!(text(limits.certificates_per_domain), "50 in 7d");
        assert_eq!(text(limits.duplicate_certificates), "5 in 7d");
        assert_eq!((limits.certificates_per_account, limits.certificates_per_registration), (None, None));
        assert_eq!(text(limits.failed_validations), "5 in 1h");
        assert_eq!(text(limits.accounts_per_address), "10 in 3h");
        assert_eq!(text(limits.orders_per_account), "300 in 3h");
    }

    #[test]
    fn a_client_hears_which_limit_and_until_when() {
        let reached = Reached {
            limit: LimitName::certificates_per_domain(),
            rate: "50 in 7d".parse().unwrap(),
            of: "example.org".to_owned(),
            free_at: Timestamp::from_unix(1_800_000_000),
        };
        let problem = reached.problem();
        assert_eq!((problem.kind, problem.status), (ErrorType::RateLimited, 429));
        assert_eq!(
            problem.detail,
            "too many certificates for example.org: the limit certificates_per_domain is 50 in 7d; retry after 2027-01-15T08:00:00Z"
        );
    }
}
