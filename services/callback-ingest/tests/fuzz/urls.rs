//! `ResponseURL`s.

use callback_ingest::answer::AddressRules;
use contracts::StackId;
use proptest::{prelude::*, sample::select};
use url::Url;

use crate::{fuzz, mutations::edited};

/// Regions with all hosts that may be answered for them, letter for letter.
pub(crate) const REGIONS: [(&str, &str, &[&str]); 4] = [
    (
        "aws",
        "eu-central-1",
        &[
            "cloudformation-custom-resource-response-eucentral1.s3.eu-central-1.amazonaws.com",
            "cloudformation-custom-resource-response-eucentral1.s3-eu-central-1.amazonaws.com",
        ],
    ),
    (
        "aws",
        "us-east-1",
        &[
            "cloudformation-custom-resource-response-useast1.s3.us-east-1.amazonaws.com",
            "cloudformation-custom-resource-response-useast1.s3-us-east-1.amazonaws.com",
            "cloudformation-custom-resource-response-useast1.s3.amazonaws.com",
        ],
    ),
    ("aws-cn", "cn-north-1", &["cloudformation-custom-resource-response-cnnorth1.s3.cn-north-1.amazonaws.com.cn"]),
    (
        "aws-us-gov",
        "us-gov-west-1",
        &[
            "cloudformation-custom-resource-response-usgovwest1.s3.us-gov-west-1.amazonaws.com",
            "cloudformation-custom-resource-response-usgovwest1.s3-us-gov-west-1.amazonaws.com",
        ],
    ),
];

/// Hosts that nobody may be sent to, among them all that look alike.
const BAD: [&str; 30] = [
    "169.254.169.254",
    "[fd00:ec2::254]",
    "[::ffff:169.254.169.254]",
    "[::1]",
    "localhost",
    "127.0.0.1",
    "127.1",
    "0x7f.1",
    "2852039166",
    "0",
    "10.0.0.1",
    "192.168.0.1",
    "evil.example",
    "s3.eu-central-1.amazonaws.com",
    "evil.s3.eu-central-1.amazonaws.com",
    "cloudformation-custom-resource-response-eucentral1.s3.eu-central-1.amazonaws.com.evil.example",
    "cloudformation-custom-resource-response-eucentral1.s3.eu-central-1.amazonaws.com.",
    "cloudformation-custom-resource-response-eucentral1.s3.eu-central-1.amazonaws.co",
    "cloudformation-custom-resource-response-eucentral1.s3.eu-central-1.amazonaws.com.cn",
    "cloudformation-custom-resource-response-eucentral1.s3-website.eu-central-1.amazonaws.com",
    "cloudformation-custom-resource-response-eucentral1.s3-accelerate.amazonaws.com",
    "cloudformation-custom-resource-response-eucentral1.s3.amazonaws.com",
    "cloudformation-custom-resource-response-euwest1.s3.eu-west-1.amazonaws.com",
    "cloudformation-custom-resource-response-eucentral1.s3.eu-west-1.amazonaws.com",
    "cloudformation-custom-resource-response-eucentra11.s3.eu-central-1.amazonaws.com",
    "cloudformation-custom-resource-response-eucentral1xs3.eu-central-1.amazonaws.com",
    "evil-cloudformation-custom-resource-response-eucentral1.s3.eu-central-1.amazonaws.com",
    "evil.cloudformation-custom-resource-response-eucentral1.s3.eu-central-1.amazonaws.com",
    "xn--cloudformation-custom-resource-response-eucentral1.s3.eu-central-1.amazonaws.com",
    "cloudformation-custom-resource-response-eucentral1.s3.eu\u{2d}central\u{2d}1.\u{430}mazonaws.com",
];

pub(crate) fn stack(region: usize) -> StackId {
    let (partition, region, _) = REGIONS[region];
    let id = format!("arn:{partition}:cloudformation:{region}:222222222222:stack/rolebridge/0b9f3a10");
    StackId::parse(&id).expect("a stack ID")
}

/// A URL as CloudFormation signs it.
pub(crate) fn good() -> BoxedStrategy<(usize, String)> {
    let host = (0..REGIONS.len()).prop_flat_map(|region| (Just(region), select(REGIONS[region].2)));
    (host, "arn%3Aaws[a-zA-Z0-9%]{1,12}", "[a-f0-9]{0,8}")
        .prop_map(|((region, host), object, signature)| {
            (region, format!("https://{host}/{object}?X-Amz-Signature={signature}"))
        })
        .boxed()
}

/// A URL put together from its parts, each of which may be one that has no place there.
fn assembled() -> impl Strategy<Value = (usize, String)> {
    let hosts: Vec<&'static str> = REGIONS.iter().flat_map(|(_, _, hosts)| hosts.iter().copied()).chain(BAD).collect();
    let scheme = select(vec![
        "https",
        "https",
        "https",
        "https",
        "HTTPS",
        "hTTps",
        "http",
        "ftp",
        "file",
        "data",
        "javascript",
        "s3",
    ]);
    let slashes = select(vec!["://", "://", "://", "://", ":", ":/", ":///", ":\\\\", ":/\\", "://\t"]);
    let user = select(vec![
        "",
        "",
        "",
        "",
        "",
        "@",
        ":@",
        "a@",
        "a:b@",
        ":b@",
        "%40@",
        "a%40b@",
        "evil.example@",
        "evil.example:443@",
    ]);
    let before = select(vec![
        "",
        "",
        "",
        "",
        "",
        "",
        "evil.",
        "evil-",
        ".",
        "%2e",
        "www.",
        "evil.example#",
        "evil.example?",
        "evil.example/",
        "evil.example\\",
    ]);
    let after = select(vec![
        "",
        "",
        "",
        "",
        "",
        "",
        ".",
        "..",
        "%2e",
        "\u{3002}",
        ".evil.example",
        "@evil.example",
        "%00",
        "%2f",
        "\\",
        "\u{ad}",
        "_",
    ]);
    let port = select(vec!["", "", "", "", ":", ":443", ":0443", ":80", ":8443", ":0", ":65536", ":-1", ":4\t43"]);
    let path = select(vec![
        "/x?y=z",
        "/x?y=z",
        "/x",
        "/",
        "",
        "?x",
        "#f",
        "/x#f",
        "/../x",
        "\\x",
        "/@evil.example",
        "/x\ny",
        "//evil.example/",
    ]);
    let host = prop_oneof![3 => select(hosts.clone()).prop_map(str::to_owned), 1 => edited(select(hosts).prop_map(str::to_owned), 2)];
    (0..REGIONS.len(), (scheme, slashes, user, before), host, (after, port, path)).prop_map(
        |(region, (scheme, slashes, user, before), host, (after, port, path))| {
            (region, format!("{scheme}{slashes}{user}{before}{host}{after}{port}{path}"))
        },
    )
}

pub(crate) fn any_url() -> BoxedStrategy<(usize, String)> {
    prop_oneof![
        2 => good(),
        4 => assembled(),
        3 => (0..REGIONS.len(), edited(good().prop_map(|(_, url)| url), 3)),
        1 => (0..REGIONS.len(), "\\PC{0,120}"),
        1 => (0..REGIONS.len(), prop::collection::vec(any::<u8>(), 0..120))
            .prop_map(|(region, bytes)| (region, String::from_utf8_lossy(&bytes).into_owned())),
    ]
    .boxed()
}

/// What a request to this URL would do, by a parser of the URL standard and a list of names: nothing of the code under test is asked.
pub(crate) fn goes_to_the_bucket(region: usize, url: &str) -> Result<(), String> {
    let parsed = Url::parse(url).map_err(|error| error.to_string())?;
    let says = |what: &str| Err(format!("{what}: {parsed:?}"));
    if parsed.scheme() != "https" {
        return says("not https");
    }
    if !REGIONS[region].2.iter().any(|host| parsed.host_str() == Some(host)) {
        return says("another host");
    }
    if parsed.port_or_known_default() != Some(443) {
        return says("another port");
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return says("a user");
    }
    // As a careless reader of text would take it apart: what stands before the first slash after the scheme.
    let rest = url.get("https://".len()..).unwrap_or_default();
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains(['@', '\\', '\t', '\n', '\r', ' ']) { says("two readings") } else { Ok(()) }
}

#[test]
fn attack_10_no_address_but_the_response_bucket_is_accepted() {
    let rules = AddressRules::default();
    let stacks: Vec<StackId> = (0..REGIONS.len()).map(stack).collect();
    fuzz("ResponseURL", &any_url(), &["accepted", "refused"], |(region, url), tally| {
        match rules.check(&url, &stacks[region]) {
            Ok(address) => {
                tally.count("accepted");
                prop_assert_eq!(address.expose(), &url);
                goes_to_the_bucket(region, &url).map_err(TestCaseError::fail)?;
            }
            Err(why) => {
                tally.count("refused");
                prop_assert!(url.len() < 12 || !why.to_string().contains(&url));
            }
        }
        Ok(())
    });
}

/// All that CloudFormation itself would send is accepted: a check that refuses everything would pass the other test.
#[test]
fn what_cloudformation_signs_is_accepted() {
    let rules = AddressRules::default();
    fuzz("signed ResponseURL", &good(), &["accepted"], |(region, url), tally| {
        tally.count("accepted");
        prop_assert!(rules.check(&url, &stack(region)).is_ok(), "{}", url);
        Ok(())
    });
}

/// The judge finds what it is to find.
#[test]
fn the_judge_of_addresses_is_no_yes_man() {
    assert_eq!(goes_to_the_bucket(0, &format!("https://{}/x", REGIONS[0].2[0])), Ok(()));
    for bad in BAD {
        assert!(goes_to_the_bucket(0, &format!("https://{bad}/x")).is_err(), "{bad}");
    }
    for (before, after) in [("http://", "/x"), ("https://u@", "/x"), ("https://", ":8443/x"), ("https://@", "/x")] {
        assert!(goes_to_the_bucket(0, &format!("{before}{}{after}", REGIONS[0].2[0])).is_err());
    }
}
