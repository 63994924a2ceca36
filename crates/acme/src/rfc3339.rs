//! Times as ACME objects show them: RFC 3339, whole seconds, UTC.

use pki::Timestamp;
use serde::Serializer;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The text is no RFC 3339 time that a certificate can say exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an RFC 3339 time of whole seconds since 1970")]
pub(crate) struct NotATime;

/// Reads a time; one that a certificate cannot say to the second is refused, never rounded (RFC 8555 §7.4).
pub(crate) fn parse(text: &str) -> Result<Timestamp, NotATime> {
    let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| NotATime)?;
    let timestamp = Timestamp::from(time);
    if timestamp.date_time() == time { Ok(timestamp) } else { Err(NotATime) }
}

#[expect(clippy::ref_option, reason = "the signature that serde's `with` asks for")]
pub(crate) fn serialize<S: Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => serializer.collect_str(time),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_writes_it_reads() {
        for seconds in [0, 1_700_000_000, 2_524_608_000, Timestamp::MAX.unix()] {
            let time = Timestamp::from_unix(seconds);
            assert_eq!(parse(&time.to_string()), Ok(time));
        }
        assert_eq!(Timestamp::from_unix(1_700_000_000).to_string(), "2023-11-14T22:13:20Z");
    }

    #[test]
    fn zones_are_understood_and_fractions_refused() {
        assert_eq!(parse("2023-11-14T23:13:20+01:00"), Ok(Timestamp::from_unix(1_700_000_000)));
        assert_eq!(parse("2023-11-14T22:13:20.000Z"), Ok(Timestamp::from_unix(1_700_000_000)));
        for bad in
            ["", "2023-11-14", "2023-11-14T22:13:20", "2023-11-14T22:13:20.5Z", "1969-12-31T23:59:59Z", "0"]
        {
            assert_eq!(parse(bad), Err(NotATime), "{bad}");
        }
    }
}
