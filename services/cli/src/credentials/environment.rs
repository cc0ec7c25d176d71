//! What a program finds in its environment: where its SDK gets credentials, and nothing that would win over that.

use std::{collections::BTreeMap, ffi::OsString};

use contracts::{Region, credentials::SealedCredentials};

pub(super) const URI: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
pub(super) const TOKEN: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN";
pub(super) const TOKEN_FILE: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE";

const REGION: &str = "AWS_REGION";
/// What botocore and the AWS CLI read.
const DEFAULT_REGION: &str = "AWS_DEFAULT_REGION";

/// Other ways to credentials, each of which an SDK would prefer, or fall back to in silence.
const OTHER_WAYS: [&str; 24] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    // The account of keys in the environment.
    "AWS_ACCOUNT_ID",
    // Of the first SDK for Java, of boto 2 and of old tools: next to the others, and read before the endpoint.
    "AWS_ACCESS_KEY",
    "AWS_SECRET_KEY",
    "AWS_SECURITY_TOKEN",
    "AWS_DELEGATION_TOKEN",
    "AWS_CREDENTIAL_PROFILES_FILE",
    "BOTO_CONFIG",
    // Of the second SDK for JavaScript.
    "AMAZON_ACCESS_KEY_ID",
    "AMAZON_SECRET_ACCESS_KEY",
    "AMAZON_SESSION_TOKEN",
    "AWS_CREDENTIAL_EXPIRATION",
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    URI,
    TOKEN,
    TOKEN_FILE,
    "AWS_CREDENTIAL_FILE",
];
/// A [default] profile wins over the endpoint in most SDKs. As if there were no such files.
const FILES: [&str; 2] = ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"];
const NO_FILE: &str = if cfg!(windows) { "NUL" } else { "/dev/null" };
/// The role of the machine itself is no substitute for the customer's.
const NO_MACHINE: (&str, &str) = ("AWS_EC2_METADATA_DISABLED", "true");
/// Where the bus is, and the seed file of the user there.
const OURS: &str = "ROLEBRIDGE_";

/// What is changed for a program.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) set: BTreeMap<String, String>,
    pub(super) removed: Vec<OsString>,
}

/// What a program is to keep of what it would lose.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Keep {
    /// The AWS configuration files.
    pub(super) aws_config: bool,
    /// `ROLEBRIDGE_...`.
    pub(super) ours: bool,
}

/// Changes to the environment `names`, so that a program uses `way`, in `region` unless it has one.
pub(super) fn changes(
    names: impl IntoIterator<Item = (OsString, OsString)>,
    way: Vec<(&'static str, String)>,
    region: &Region,
    keep: Keep,
) -> Changes {
    let before: BTreeMap<OsString, OsString> = names.into_iter().collect();
    let mut changes = Changes::default();
    for name in before.keys() {
        let text = name.to_string_lossy();
        if OTHER_WAYS.contains(&&*text) || (text.starts_with(OURS) && !keep.ours) {
            changes.removed.push(name.clone());
        }
    }
    let of =
        |name: &str| before.get(&OsString::from(name)).and_then(|value| value.to_str()).filter(|text| !text.is_empty());
    let chosen = of(REGION).or_else(|| of(DEFAULT_REGION)).map_or_else(|| region.to_string(), ToOwned::to_owned);
    for name in [REGION, DEFAULT_REGION].into_iter().filter(|name| of(name).is_none()) {
        changes.set.insert(name.to_owned(), chosen.clone());
    }
    if !keep.aws_config {
        changes.set.extend(FILES.map(|name| (name.to_owned(), NO_FILE.to_owned())));
    }
    changes.set.insert(NO_MACHINE.0.to_owned(), NO_MACHINE.1.to_owned());
    changes.set.extend(way.into_iter().map(|(name, value)| (name.to_owned(), value)));
    changes
}

/// The credentials themselves, and the region.
pub(super) fn with_keys(credentials: &SealedCredentials, region: &Region) -> Vec<(&'static str, String)> {
    let mut all = keys(credentials);
    all.extend([(REGION, region.to_string()), (DEFAULT_REGION, region.to_string())]);
    all
}

/// The credentials themselves.
pub(super) fn keys(credentials: &SealedCredentials) -> Vec<(&'static str, String)> {
    vec![
        ("AWS_ACCESS_KEY_ID", credentials.access_key_id.clone()),
        ("AWS_SECRET_ACCESS_KEY", credentials.secret_access_key.expose().to_owned()),
        ("AWS_SESSION_TOKEN", credentials.session_token.expose().to_owned()),
        ("AWS_CREDENTIAL_EXPIRATION", credentials.expires_at.to_string()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(before: &[(&str, &str)], keep: Keep) -> Changes {
        let names = before.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        changes(names, vec![(URI, "http://127.0.0.1:1/".to_owned())], &"eu-central-1".parse().unwrap(), keep)
    }

    #[test]
    fn nothing_that_would_win_is_left_and_our_own_way_is_in() {
        let before: Vec<_> = OTHER_WAYS.iter().map(|name| (*name, "x")).chain([("PATH", "/bin")]).collect();
        let changes = of(&before, Keep::default());
        assert_eq!(changes.removed.len(), OTHER_WAYS.len());
        assert_eq!(changes.set[URI], "http://127.0.0.1:1/");
        assert_eq!(changes.set["AWS_CONFIG_FILE"], NO_FILE);
        let kept = of(&before, Keep { aws_config: true, ours: false });
        assert!(!kept.set.contains_key("AWS_CONFIG_FILE"));
    }

    #[test]
    fn our_own_settings_are_kept_only_when_asked_for() {
        let before = [("ROLEBRIDGE_NATS_SEED_FILE", "/etc/seed")];
        assert_eq!(of(&before, Keep::default()).removed, ["ROLEBRIDGE_NATS_SEED_FILE"]);
        assert!(of(&before, Keep { ours: true, aws_config: false }).removed.is_empty());
    }

    #[test]
    fn a_region_that_is_set_stays_and_stands_under_both_names() {
        let regions = |before| {
            let set = of(before, Keep::default()).set;
            (set.get(REGION).cloned(), set.get(DEFAULT_REGION).cloned())
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(regions(&[]), (some("eu-central-1"), some("eu-central-1")));
        assert_eq!(regions(&[(REGION, "us-east-1")]), (None, some("us-east-1")));
        assert_eq!(regions(&[(DEFAULT_REGION, "us-east-1")]), (some("us-east-1"), None));
        assert_eq!(regions(&[(REGION, "a-b-1"), (DEFAULT_REGION, "us-east-1")]), (None, None));
    }
}
