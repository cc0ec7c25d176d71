//! Which `ResponseURL`s may be answered: the rules, as pure functions.
//!
//! The URL comes from whoever published to the topic. Sending an answer to it is a request that a stranger has us make, so the host must be,
//! letter for letter, the bucket that CloudFormation keeps for responses in the stack's own region, such as
//! `cloudformation-custom-resource-response-eucentral1.s3.eu-central-1.amazonaws.com`. AWS names the bucket in
//! [VPC endpoints](https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/vpc-interface-endpoints.html) (region without dashes), S3 its host
//! forms in [virtual hosting](https://docs.aws.amazon.com/AmazonS3/latest/userguide/VirtualHosting.html).

use contracts::StackId;
use secrecy::{ExposeSecret, SecretString};
use url::{Host, Url};

use crate::dns;

/// Longest URL that is looked at, in bytes. Presigned ones have some 700, and near 3,000 with a session token.
const LONGEST: usize = 8192;

/// Why a `ResponseURL` is not answered. Never holds any of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("the ResponseURL is not a URL of at most {LONGEST} bytes")]
    Malformed,
    #[error("the ResponseURL is not https")]
    NotHttps,
    #[error("the ResponseURL names a user or a password")]
    UserInfo,
    #[error("the ResponseURL names a port")]
    Port,
    #[error("the ResponseURL's host is an IP address")]
    IpAddress,
    #[error("the ResponseURL's host is not CloudFormation's response bucket of the stack's region")]
    ForeignHost,
    #[error("the ResponseURL names no object")]
    NoObject,
    #[error("the ResponseURL has a fragment")]
    Fragment,
}

/// A `ResponseURL` that may be answered. It is a signed write capability: `Debug` shows nothing.
pub struct AnswerAddress(SecretString);

impl AnswerAddress {
    /// The URL, for the one request that goes to it and for sealing.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl std::fmt::Debug for AnswerAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AnswerAddress(..)")
    }
}

/// An origin outside AWS that may be answered too: the sandbox's emulator, and only by explicit configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxOrigin {
    scheme: String,
    host: Host<String>,
    port: u16,
}

/// The text is not a bare origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an origin such as http://127.0.0.1:4566 is expected: scheme, host and port, without path or user")]
pub struct ParseOriginError;

impl std::str::FromStr for SandboxOrigin {
    type Err = ParseOriginError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url = Url::parse(text).map_err(|_| ParseOriginError)?;
        let bare = matches!(url.scheme(), "http" | "https")
            && url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
            && !has_user(&url);
        let (Some(host), Some(port), true) = (url.host(), url.port_or_known_default(), bare) else {
            return Err(ParseOriginError);
        };
        Ok(Self { scheme: url.scheme().to_owned(), host: host.to_owned(), port })
    }
}

impl SandboxOrigin {
    fn is_of(&self, url: &Url) -> bool {
        url.scheme() == self.scheme
            && url.host().map(|host| host.to_owned()).as_ref() == Some(&self.host)
            && url.port_or_known_default() == Some(self.port)
    }
}

/// What decides about a `ResponseURL`.
#[derive(Debug, Clone, Default)]
pub struct AddressRules {
    pub sandbox: Option<SandboxOrigin>,
}

impl AddressRules {
    /// # Errors
    /// The first rule that `text` breaks.
    pub fn check(&self, text: &str, stack: &StackId) -> Result<AnswerAddress, AddressError> {
        // The parser of the URL standard drops tabs and newlines and reads a backslash as a slash: what it mends is refused here.
        let strange = |b: u8| b <= b' ' || b == 0x7f || b == b'\\';
        if text.len() > LONGEST || text.bytes().any(strange) {
            return Err(AddressError::Malformed);
        }
        let url = Url::parse(text).map_err(|_| AddressError::Malformed)?;
        // `https://@host/` names no user, but nobody who means well writes it; the parser forgets it.
        let authority = authority(text, &url);
        if has_user(&url) || authority.is_some_and(|authority| authority.contains('@')) {
            return Err(AddressError::UserInfo);
        }
        if !self.sandbox.as_ref().is_some_and(|origin| origin.is_of(&url)) {
            check_aws(&url, stack)?;
        }
        // The parser reads `https:host/` and `https:///host/` as `https://host/`; other programs do not.
        if authority.is_none_or(str::is_empty) {
            return Err(AddressError::Malformed);
        }
        Ok(AnswerAddress(text.to_owned().into()))
    }
}

fn check_aws(url: &Url, stack: &StackId) -> Result<(), AddressError> {
    if url.scheme() != "https" {
        return Err(AddressError::NotHttps);
    }
    // 443 written out is dropped by the parser.
    if url.port().is_some() {
        return Err(AddressError::Port);
    }
    match url.host() {
        Some(Host::Domain(host)) if hosts(stack).iter().any(|allowed| allowed == host) => {}
        Some(Host::Ipv4(_) | Host::Ipv6(_)) => return Err(AddressError::IpAddress),
        _ => return Err(AddressError::ForeignHost),
    }
    if url.fragment().is_some() {
        return Err(AddressError::Fragment);
    }
    if url.path().len() <= 1 { Err(AddressError::NoObject) } else { Ok(()) }
}

/// What stands between `scheme://` and the path, as it is written.
fn authority<'t>(text: &'t str, url: &Url) -> Option<&'t str> {
    let rest = text.get(url.scheme().len()..)?.strip_prefix("://")?;
    rest.split(['/', '?', '#']).next()
}

fn has_user(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

/// Every host name that the response bucket of the stack's region has.
fn hosts(stack: &StackId) -> Vec<String> {
    let Some(suffix) = dns::suffix(stack.partition()) else { return Vec::new() };
    let region = stack.region().as_str();
    let bucket = format!("cloudformation-custom-resource-response-{}", region.replace('-', ""));
    let mut hosts = vec![format!("{bucket}.s3.{region}.{suffix}")];
    // The older form, which CloudFormation still signs for in the regions that had it.
    if suffix == "amazonaws.com" {
        hosts.push(format!("{bucket}.s3-{region}.{suffix}"));
    }
    // The global endpoint is us-east-1's alone; for other regions it redirects.
    if region == "us-east-1" {
        hosts.push(format!("{bucket}.s3.{suffix}"));
    }
    hosts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PATH: &str =
        "/arn%3Aaws%3Acloudformation%3Aeu-central-1%3A222222222222%3Astack/s/0b%7CC%7C1?X-Amz-Signature=0f";
    const BUCKET: &str = "cloudformation-custom-resource-response-eucentral1";

    fn stack(region: &str) -> StackId {
        let partition = contracts::Region::parse(region).unwrap().partition();
        StackId::parse(&format!("arn:{partition}:cloudformation:{region}:222222222222:stack/s/0b")).unwrap()
    }

    fn check(url: &str) -> Result<(), AddressError> {
        AddressRules::default().check(url, &stack("eu-central-1")).map(|_| ())
    }

    #[test]
    fn the_forms_that_aws_signs_for() {
        for (region, host) in [
            ("eu-central-1", format!("{BUCKET}.s3.eu-central-1.amazonaws.com")),
            ("eu-central-1", format!("{BUCKET}.s3-eu-central-1.amazonaws.com")),
            ("eu-central-1", format!("{BUCKET}.s3.eu-central-1.amazonaws.com:443")),
            ("us-east-1", "cloudformation-custom-resource-response-useast1.s3.amazonaws.com".to_owned()),
            ("us-east-1", "cloudformation-custom-resource-response-useast1.s3.us-east-1.amazonaws.com".to_owned()),
            (
                "us-gov-west-1",
                "cloudformation-custom-resource-response-usgovwest1.s3.us-gov-west-1.amazonaws.com".to_owned(),
            ),
            (
                "cn-north-1",
                "cloudformation-custom-resource-response-cnnorth1.s3.cn-north-1.amazonaws.com.cn".to_owned(),
            ),
        ] {
            let url = format!("https://{host}{PATH}");
            let checked = AddressRules::default().check(&url, &stack(region));
            assert_eq!(checked.map(|address| address.expose().to_owned()), Ok(url));
        }
    }

    #[test]
    fn attack_10_addresses_that_are_not_answered() {
        use AddressError::*;
        for (url, why) in [
            ("http://169.254.169.254/latest/meta-data/".to_owned(), NotHttps),
            ("https://169.254.169.254/latest/meta-data/".to_owned(), IpAddress),
            ("https://2852039166/latest".to_owned(), IpAddress),
            ("https://0xa9.0xfe.0xa9.0xfe/latest".to_owned(), IpAddress),
            ("https://[fd00:ec2::254]/latest".to_owned(), IpAddress),
            ("https://[::ffff:169.254.169.254]/latest".to_owned(), IpAddress),
            ("https://localhost/x".to_owned(), ForeignHost),
            ("https://127.0.0.1/x".to_owned(), IpAddress),
            ("https://10.0.0.1/x".to_owned(), IpAddress),
            ("https://192.168.1.1/x".to_owned(), IpAddress),
            (format!("https://{BUCKET}.s3.eu-central-1.amazonaws.com.evil.example{PATH}"), ForeignHost),
            (format!("https://{BUCKET}.s3.eu-central-1.amazonaws.com.{PATH}"), ForeignHost),
            (format!("https://evil.example/{BUCKET}.s3.eu-central-1.amazonaws.com{PATH}"), ForeignHost),
            (format!("https://evil-{BUCKET}.s3.eu-central-1.amazonaws.com{PATH}"), ForeignHost),
            (format!("https://evil.example#.{BUCKET}.s3.eu-central-1.amazonaws.com{PATH}"), ForeignHost),
            (format!("https://evil.example?{BUCKET}.s3.eu-central-1.amazonaws.com{PATH}"), ForeignHost),
            (format!("https://evil.example\\@{BUCKET}.s3.eu-central-1.amazonaws.com{PATH}"), Malformed),
            (format!("https://{BUCKET}.s3.eu-central-1.amazonaws.com@evil.example{PATH}"), UserInfo),
            (format!("https://@{BUCKET}.s3.eu-central-1.amazonaws.com{PATH}"), UserInfo),
            (format!("https://user@{BUCKET}.s3.eu-central-1.amazonaws.com{PATH}"), UserInfo),
            (format!("https://user:password@{BUCKET}.s3.eu-central-1.amazonaws.com{PATH}"), UserInfo),
            (format!("https://:password@{BUCKET}.s3.eu-central-1.amazonaws.com{PATH}"), UserInfo),
            (format!("https:user@{BUCKET}.s3.eu-central-1.amazonaws.com{PATH}"), UserInfo),
            (format!("https:{BUCKET}.s3.eu-central-1.amazonaws.com{PATH}"), Malformed),
            (format!("https:///{BUCKET}.s3.eu-central-1.amazonaws.com{PATH}"), Malformed),
            (format!("https:/{BUCKET}.s3.eu-central-1.amazonaws.com/x?://y"), Malformed),
            (format!("https://{BUCKET}.s3.eu-central-1.amazonaws.com:8443{PATH}"), Port),
            (format!("https://{BUCKET}.s3.eu-central-1.amazonaws.com:80{PATH}"), Port),
            (format!("http://{BUCKET}.s3.eu-central-1.amazonaws.com{PATH}"), NotHttps),
            (format!("ftp://{BUCKET}.s3.eu-central-1.amazonaws.com{PATH}"), NotHttps),
            (format!("https://{BUCKET}.s3.eu-west-1.amazonaws.com{PATH}"), ForeignHost),
            (
                format!("https://cloudformation-custom-resource-response-euwest1.s3.eu-west-1.amazonaws.com{PATH}"),
                ForeignHost,
            ),
            (format!("https://cloudformation-custom-resource-response-useast1.s3.amazonaws.com{PATH}"), ForeignHost),
            (format!("https://{BUCKET}.s3.amazonaws.com{PATH}"), ForeignHost),
            (format!("https://{BUCKET}.s3.eu-central-1.amazonaws.com.cn{PATH}"), ForeignHost),
            (format!("https://{BUCKET}x.s3.eu-central-1.amazonaws.com{PATH}"), ForeignHost),
            (format!("https://s3.eu-central-1.amazonaws.com/{BUCKET}{PATH}"), ForeignHost),
            (format!("https://attackers-bucket.s3.eu-central-1.amazonaws.com{PATH}"), ForeignHost),
            (format!("https://{BUCKET}.s3.eu-central-1.amazonaws.com"), NoObject),
            (format!("https://{BUCKET}.s3.eu-central-1.amazonaws.com{PATH}#f"), Fragment),
            (format!("https://{BUCKET}.s3.eu-central-1.amazonaws.com/{}", "a".repeat(LONGEST)), Malformed),
            (format!("https://{BUCKET}.s3.eu-central-1.\namazonaws.com{PATH}"), Malformed),
            ("not a url".to_owned(), Malformed),
            ("data:text/plain,x".to_owned(), NotHttps),
            ("file:///etc/passwd".to_owned(), NotHttps),
            (String::new(), Malformed),
        ] {
            assert_eq!(check(&url), Err(why), "{url}");
        }
    }

    #[test]
    fn the_sandbox_origin_is_matched_exactly() {
        let rules = AddressRules { sandbox: Some("http://127.0.0.1:4566".parse().unwrap()) };
        let stack = stack("us-east-1");
        assert!(rules.check("http://127.0.0.1:4566/answer?x=1", &stack).is_ok());
        for url in [
            "http://127.0.0.1:4567/answer",
            "http://127.0.0.2:4566/answer",
            "https://127.0.0.1:4566/answer",
            "http://localhost:4566/answer",
            "http://user@127.0.0.1:4566/answer",
            "http://127.0.0.1:4566@evil.example/answer",
            "http://127.0.0.1:4566.evil.example/answer",
        ] {
            assert!(rules.check(url, &stack).is_err(), "{url}");
        }
        for origin in ["127.0.0.1:4566", "http://127.0.0.1:4566/path", "http://u@127.0.0.1:4566", "ftp://127.0.0.1", ""]
        {
            assert!(origin.parse::<SandboxOrigin>().is_err(), "{origin}");
        }
    }

    #[test]
    fn an_address_does_not_print() {
        let url = format!("https://{BUCKET}.s3.eu-central-1.amazonaws.com{PATH}");
        let address = AddressRules::default().check(&url, &stack("eu-central-1")).unwrap();
        assert_eq!(format!("{address:?}"), "AnswerAddress(..)");
    }

    proptest! {
        #[test]
        fn attack_10_whatever_passes_goes_to_the_bucket_and_nowhere_else(
            scheme in "https?|ftp|HTTPS", user in "([a-z]{1,4}(:[a-z]{0,3})?@)?", prefix in "([a-z.-]{1,8})?",
            suffix in "([.:@#?/\\\\][a-z0-9.]{0,12})?", port in "(:[0-9]{1,5})?", path in "/[ -~]{0,30}",
        ) {
            let url = format!("{scheme}://{user}{prefix}{BUCKET}.s3.eu-central-1.amazonaws.com{suffix}{port}{path}");
            if let Ok(address) = AddressRules::default().check(&url, &stack("eu-central-1")) {
                let parsed = reqwest::Url::parse(address.expose()).unwrap();
                prop_assert_eq!(parsed.scheme(), "https");
                let allowed = hosts(&stack("eu-central-1"));
                prop_assert!(allowed.iter().any(|host| Some(host.as_str()) == parsed.host_str()), "{}", url);
                prop_assert_eq!(parsed.port_or_known_default(), Some(443));
                prop_assert_eq!((parsed.username(), parsed.password()), ("", None));
            }
        }

        #[test]
        fn any_text(text in "\\PC{0,200}") {
            prop_assert!(check(&text).is_err());
        }
    }
}
