//! `[[publish]]`: where objects for relying parties go beside the status nodes.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use rpc::proto::status::v1::ObjectKind;
use runtime::config::{FilePath, Invalid};
use serde::Deserialize;
use url::Url;

/// `[[publish]]`: a folder or a bucket that gets every CRL and issuer certificate. Whoever can write there can withhold
/// objects and put old ones in their place until they are compared again; he can make none.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishSection {
    /// The name by which health and metrics speak of it; unique.
    pub name: String,
    /// A folder, which must exist: one that is not there (yet) is reported, not made. This or `s3`.
    #[serde(default)]
    pub folder: Option<FilePath>,
    /// A bucket of Amazon S3, or of a store that speaks its protocol and honours the conditions of a put. This or `folder`.
    #[serde(default)]
    pub s3: Option<S3Section>,
    /// What is published: `"crl"`, `"certificate"`. Default both.
    #[serde(default = "everything")]
    pub objects: BTreeSet<Publishable>,
    /// How often everything is compared with what is there, which mends what others have changed. Seconds, default 300.
    #[serde(default = "default_compare_seconds")]
    pub compare_seconds: u64,
    /// How long one request, or one access to the folder, may take, the object's way included. Seconds, default 60.
    #[serde(default = "default_timeout_seconds")]
    pub timeout_seconds: u64,
    /// The pause after a first failure; it doubles with each further one. Seconds, default 1.
    #[serde(default = "default_retry_seconds")]
    pub retry_seconds: u64,
    /// The longest pause. Seconds, default 60.
    #[serde(default = "default_retry_max_seconds")]
    pub retry_max_seconds: u64,
    /// Objects under way at once; each is in memory meanwhile, and beside it what is there. Default 4.
    #[serde(default = "default_concurrency")]
    pub concurrency: usize,
    /// The longest object that is read to be compared, octets. What is longer may be a newer one: it is left alone and
    /// reported; and nothing that is longer is published. More than the largest CRL will have. Default 268 435 456 (256 MiB).
    #[serde(default = "default_read_limit_octets")]
    pub read_limit_octets: u64,
    /// How long caches may keep a CRL (`Cache-Control`, S3 alone). Seconds, default 300.
    #[serde(default = "default_crl_cache_seconds")]
    pub crl_cache_seconds: u32,
    /// How long caches may keep a certificate (`Cache-Control`, S3 alone). Seconds, default 86 400.
    #[serde(default = "default_certificate_cache_seconds")]
    pub certificate_cache_seconds: u32,
}

/// A bucket.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3Section {
    /// Its name.
    pub bucket: String,
    /// Its region; `"auto"` for Cloudflare R2, `"us-east-1"` for most others.
    pub region: String,
    /// The store's URL without the bucket, which is the first segment of the path then. Default: Amazon's for the region.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// What the objects' keys begin with. Default: nothing.
    #[serde(default)]
    pub prefix: Option<String>,
    /// A file with the id of the access key, one line; read again whenever it is used. Default: the environment's
    /// (`AWS_ACCESS_KEY_ID`, `AWS_WEB_IDENTITY_TOKEN_FILE`, a container's), or the instance's role.
    #[serde(default)]
    pub access_key_file: Option<FilePath>,
    /// A file with the secret of the access key, one line, readable by the signer alone. Who reads it can do what the
    /// bucket's policy lets this signer do.
    #[serde(default)]
    pub secret_key_file: Option<FilePath>,
    /// Further CAs that the store's certificate may come from, PEM. Default: the system's alone.
    #[serde(default)]
    pub authority: Option<FilePath>,
    /// Take an `http://` endpoint: requests are signed, objects are public, but who is on the way can answer falsely.
    /// Default false.
    #[serde(default)]
    pub allow_http: bool,
}

/// What can be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Publishable {
    /// CRLs.
    Crl,
    /// Certificates of issuers and roots.
    Certificate,
}

impl PublishSection {
    pub(super) fn takes(&self, kind: ObjectKind) -> bool {
        match kind {
            ObjectKind::Crl => self.objects.contains(&Publishable::Crl),
            ObjectKind::Certificate => self.objects.contains(&Publishable::Certificate),
            ObjectKind::Unspecified => false,
        }
    }

    pub(super) const fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds)
    }

    pub(super) const fn compare(&self) -> Duration {
        Duration::from_secs(self.compare_seconds)
    }

    /// The pause after so many failures in a row.
    pub(super) fn pause(&self, failures: u32) -> Duration {
        let doubled = 1_u64.checked_shl(failures.saturating_sub(1)).unwrap_or(u64::MAX);
        Duration::from_secs(self.retry_seconds.saturating_mul(doubled).min(self.retry_max_seconds))
    }

    fn check(&self) -> Result<(), Invalid> {
        let wrong = |key: &str, reason: &str| Err(Invalid::new(format!("publish.{key}"), reason));
        let plain = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_');
        if self.name.is_empty() || !self.name.bytes().all(plain) {
            return wrong("name", "must be letters, digits, \"-\" and \"_\"");
        }
        if self.objects.is_empty() {
            return wrong("objects", "must be \"crl\", \"certificate\" or both");
        }
        let positive = [
            ("compare_seconds", self.compare_seconds),
            ("timeout_seconds", self.timeout_seconds),
            ("retry_seconds", self.retry_seconds),
            ("retry_max_seconds", self.retry_max_seconds),
            ("read_limit_octets", self.read_limit_octets),
            ("concurrency", self.concurrency as u64),
        ];
        if let Some((key, _)) = positive.into_iter().find(|(_, value)| *value == 0) {
            return wrong(key, "must be more than zero");
        }
        if self.retry_max_seconds < self.retry_seconds {
            return wrong("retry_max_seconds", "must not be less than retry_seconds");
        }
        match (&self.folder, &self.s3) {
            (Some(_), None) => Ok(()),
            (None, Some(s3)) => s3.check(),
            _ => wrong(&self.name, "give one of \"folder\" and \"s3\""),
        }
    }

    /// Where it is, for the comparison with others.
    fn place(&self) -> String {
        match (&self.folder, &self.s3) {
            (Some(folder), _) => format!("folder {}", folder.display()),
            (None, Some(s3)) => {
                let endpoint = s3.endpoint.as_deref().unwrap_or(&s3.region).trim_end_matches('/');
                format!("bucket {} at {endpoint}, prefix {:?}", s3.bucket, s3.prefix())
            }
            (None, None) => String::new(),
        }
    }
}

impl S3Section {
    /// The prefix without slashes at its ends.
    pub(super) fn prefix(&self) -> &str {
        self.prefix.as_deref().unwrap_or_default().trim_matches('/')
    }

    fn check(&self) -> Result<(), Invalid> {
        let wrong = |key: &str, reason: String| Err(Invalid::new(format!("publish.s3.{key}"), reason));
        let plain = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_' | b'.');
        if self.bucket.is_empty() || !self.bucket.bytes().all(plain) {
            return wrong("bucket", "must be letters, digits, \".\", \"-\" and \"_\"".to_owned());
        }
        if self.region.is_empty() || !self.region.bytes().all(plain) {
            return wrong("region", "must be letters, digits and \"-\"".to_owned());
        }
        let segments = self.prefix().split('/');
        if !self.prefix().is_empty()
            && !segments
                .clone()
                .all(|one| !one.is_empty() && one.bytes().all(plain) && !one.trim_matches('.').is_empty())
        {
            return wrong("prefix", "must be segments of letters, digits, \".\", \"-\" and \"_\"".to_owned());
        }
        if let Some(endpoint) = &self.endpoint {
            self.check_endpoint(endpoint)?;
        }
        match (&self.access_key_file, &self.secret_key_file) {
            (None, None) => {}
            (Some(access), Some(secret)) => {
                if let Err(error) = super::credentials::read(access, secret) {
                    return wrong("secret_key_file", error.to_string());
                }
            }
            _ => {
                let reason = "give \"access_key_file\" and \"secret_key_file\", or neither";
                return wrong("access_key_file", reason.to_owned());
            }
        }
        match &self.authority {
            Some(file) => authorities(file).map(drop).or_else(|reason| wrong("authority", reason)),
            None => Ok(()),
        }
    }

    fn check_endpoint(&self, endpoint: &str) -> Result<(), Invalid> {
        let wrong = |reason: &str| Err(Invalid::new("publish.s3.endpoint", reason));
        let Ok(url) = Url::parse(endpoint) else { return wrong("must be a URL") };
        if !url.username().is_empty() || url.password().is_some() {
            return wrong("holds credentials: put them into files, and name those");
        }
        if url.query().is_some() || url.fragment().is_some() || !url.has_host() {
            return wrong("must be a URL of a host, without \"?\" and \"#\"");
        }
        match url.scheme() {
            "https" => Ok(()),
            "http" if self.allow_http => Ok(()),
            "http" => wrong("is http://: give allow_http = true if that is meant"),
            _ => wrong("must begin with https://"),
        }
    }
}

/// The certificates of a PEM file, as the client takes them.
pub(super) fn authorities(file: &Path) -> Result<Vec<object_store::Certificate>, String> {
    let text = std::fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    match object_store::Certificate::from_pem_bundle(&text) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(format!("{} holds no PEM certificate", file.display())),
    }
}

/// What `--check` can see of all of them.
pub(crate) fn check(sections: &[PublishSection]) -> Result<(), Invalid> {
    let (mut names, mut places) = (BTreeSet::new(), BTreeSet::new());
    for section in sections {
        section.check()?;
        if !names.insert(section.name.as_str()) {
            return Err(Invalid::new("publish.name", format!("{:?} is declared twice", section.name)));
        }
        if !places.insert(section.place()) {
            return Err(Invalid::new("publish", format!("{} is declared twice", section.place())));
        }
    }
    Ok(())
}

fn everything() -> BTreeSet<Publishable> {
    BTreeSet::from([Publishable::Crl, Publishable::Certificate])
}

fn default_compare_seconds() -> u64 {
    300
}

fn default_timeout_seconds() -> u64 {
    60
}

fn default_retry_seconds() -> u64 {
    1
}

fn default_retry_max_seconds() -> u64 {
    60
}

fn default_concurrency() -> usize {
    4
}

fn default_read_limit_octets() -> u64 {
    256 << 20
}

fn default_crl_cache_seconds() -> u32 {
    300
}

fn default_certificate_cache_seconds() -> u32 {
    86_400
}

#[cfg(test)]
mod tests {
    use runtime::config::Version;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Only {
        #[serde(rename = "version")]
        _version: Version,
        publish: Vec<PublishSection>,
    }

    const BUCKET: &str =
        "[[publish]]\nname = \"cdn\"\n[publish.s3]\nbucket = \"crl-example\"\nregion = \"auto\"\n";
    const FOLDER: &str = "[[publish]]\nname = \"web\"\nfolder = \"web\"\n";

    fn read(text: &str) -> Result<Vec<PublishSection>, String> {
        let text = format!("version = 1\n{text}");
        let read = runtime::config::parse::<Only>(&text, Path::new("/etc/chancery/signer.toml"));
        read.map(|only| only.publish).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_are_what_is_documented() {
        let sections = read(&format!("{FOLDER}{BUCKET}")).unwrap();
        check(&sections).unwrap();
        let web = &sections[0];
        assert_eq!(web.folder, Some(Path::new("/etc/chancery/web").into()));
        assert_eq!((web.compare(), web.timeout()), (Duration::from_secs(300), Duration::from_secs(60)));
        assert!(web.takes(ObjectKind::Crl) && web.takes(ObjectKind::Certificate));
        let pauses = [1, 2, 3, 7, 8, 200].map(|failures| web.pause(failures).as_secs());
        assert_eq!(pauses, [1, 2, 4, 60, 60, 60]);
        let s3 = sections[1].s3.as_ref().unwrap();
        assert_eq!((s3.prefix(), s3.allow_http), ("", false));
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, content).unwrap();
            format!("{path:?}")
        };
        let (open, empty) = (file("open", "secret-of-a-test"), file("empty", "\n"));
        let cases = [
            (FOLDER.replace("\"web\"\nfolder", "\"../web\"\nfolder"), "publish.name"),
            (FOLDER.replace("folder = \"web\"", ""), "publish.web: give one of"),
            (format!("{FOLDER}[publish.s3]\nbucket = \"b\"\nregion = \"r\"\n"), "publish.web: give one of"),
            (format!("{FOLDER}objects = []\n"), "publish.objects"),
            (format!("{FOLDER}timeout_seconds = 0\n"), "publish.timeout_seconds"),
            (format!("{FOLDER}concurrency = 0\n"), "publish.concurrency"),
            (format!("{FOLDER}retry_seconds = 61\n"), "publish.retry_max_seconds"),
            (
                format!("{FOLDER}{}", FOLDER.replace("folder = \"web\"", "folder = \"other\"")),
                "\"web\" is declared twice",
            ),
            (
                format!("{FOLDER}{}", FOLDER.replace("name = \"web\"", "name = \"other\"")),
                "web is declared twice",
            ),
            (format!("{BUCKET}{}", BUCKET.replace("\"cdn\"", "\"cdn-2\"")), "bucket crl-example at auto"),
            (BUCKET.replace("crl-example", "crl/example"), "publish.s3.bucket"),
            (BUCKET.replace("auto", "here there"), "publish.s3.region"),
            (format!("{BUCKET}prefix = \"a/../b\"\n"), "publish.s3.prefix"),
            (format!("{BUCKET}prefix = \"a//b\"\n"), "publish.s3.prefix"),
            (format!("{BUCKET}endpoint = \"minio:9000\"\n"), "publish.s3.endpoint"),
            (format!("{BUCKET}endpoint = \"http://minio:9000\"\n"), "allow_http = true"),
            (format!("{BUCKET}endpoint = \"https://key:secret@minio\"\n"), "holds credentials"),
            (format!("{BUCKET}endpoint = \"https://minio/?x=y\"\n"), "publish.s3.endpoint"),
            (format!("{BUCKET}access_key_file = {open}\n"), "or neither"),
            (format!("{BUCKET}access_key_file = {open}\nsecret_key_file = {open}\n"), "chmod 0600"),
            (format!("{BUCKET}access_key_file = {empty}\nsecret_key_file = {open}\n"), "chmod 0600"),
            (format!("{BUCKET}access_key_file = {open}\nsecret_key_file = \"gone\"\n"), "cannot read"),
            (format!("{BUCKET}authority = {open}\n"), "holds no PEM certificate"),
        ];
        for (text, expected) in cases {
            let error = check(&read(&text).unwrap()).unwrap_err().to_string();
            assert!(error.contains(expected), "{expected}: {error}");
            assert!(!error.contains("secret-of-a-test"), "{error}");
        }
        assert!(read(&format!("{FOLDER}objects = [\"ocsp\"]\n")).unwrap_err().contains("ocsp"));
        assert!(read(&format!("{BUCKET}secret_key = \"x\"\n")).unwrap_err().contains("secret_key"));
    }
}
