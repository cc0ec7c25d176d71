//! AWS's identities: what is taken for one keeps its text, and its parts are what stands between the colons.

use contracts::{AccountId, IamPath, Partition, Region, RoleArn, StackId, TopicArn, UserArn};
use proptest::{prelude::*, sample::select};

use crate::{fuzz, mutations::edited};

const GOOD: [&str; 14] = [
    "arn:aws:iam::222222222222:role/rolebridge/rolebridge-0242ac120002",
    "arn:aws:iam::222222222222:role/x",
    "arn:aws-us-gov:iam::000000000000:role/a/b/c/d+=,.@_-",
    "arn:aws:iam::222222222222:user/rolebridge/tenant-1",
    "arn:aws-cn:cloudformation:cn-north-1:222222222222:stack/rolebridge/0b9f3a10-6f3e-11f0-8c5d-0242ac120002",
    "arn:aws:cloudformation:eu-central-1:222222222222:stack/a/0",
    "arn:aws:sns:eu-central-1:111111111111:rolebridge-callbacks",
    "arn:aws-eusc:sns:eusc-de-east-1:111111111111:a.fifo",
    "222222222222",
    "eu-central-1",
    "us-gov-west-1",
    "aws-iso-b",
    "/rolebridge/",
    "/",
];

fn assembled() -> impl Strategy<Value = String> {
    let prefix = select(vec!["arn", "arn", "arn", "ARN", "", "urn"]);
    let partition = select(vec!["aws", "aws", "aws-cn", "aws-us-gov", "aws-iso", "aws.evil", "", "*"]);
    let service = select(vec!["iam", "cloudformation", "sns", "sts", "", "iam "]);
    let region =
        select(vec!["", "", "eu-central-1", "cn-north-1", "us-east-1", "eu-central-1.evil.example#", "mars", "*"]);
    let account = prop_oneof![3 => Just("222222222222".to_owned()), 1 => "[0-9]{11,13}", 1 => "\\PC{0,12}"];
    let resource = prop_oneof![
        2 => select(vec!["role/x", "role/a/b", "user/x", "stack/a/0b", "topic", "role//x", "role/", "root", "role/../x", "stack/a"]).prop_map(str::to_owned),
        1 => "(role|user|stack)/[a-zA-Z0-9+=,.@_/ -]{0,80}",
    ];
    (prefix, partition, service, region, account, resource)
        .prop_map(|(a, b, c, d, e, f)| format!("{a}:{b}:{c}:{d}:{e}:{f}"))
}

fn any_text() -> impl Strategy<Value = String> {
    let good = select(&GOOD[..]).prop_map(str::to_owned);
    prop_oneof![2 => good.clone(), 4 => edited(good, 3), 3 => assembled(), 1 => "\\PC{0,80}", 1 => "[ -~]{0,700}"]
}

/// Nothing that could end a log line or a header.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_graphic())
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
}

#[test]
fn whatever_is_taken_for_an_identity_is_one() {
    fuzz("ARNs", &any_text(), &["an identity", "refused"], |text, tally| {
        let parts: Vec<&str> = text.splitn(6, ':').collect();
        let part = |index: usize| parts.get(index).copied().unwrap_or_default();
        let mut taken = 0;
        for (account, partition, shown, service) in [
            RoleArn::parse(&text)
                .ok()
                .map(|arn| (arn.account().clone(), arn.partition().clone(), arn.to_string(), "iam")),
            UserArn::parse(&text)
                .ok()
                .map(|arn| (arn.account().clone(), arn.partition().clone(), arn.to_string(), "iam")),
            StackId::parse(&text)
                .ok()
                .map(|arn| (arn.account().clone(), arn.partition().clone(), arn.to_string(), "cloudformation")),
        ]
        .into_iter()
        .flatten()
        {
            taken += 1;
            prop_assert_eq!(&shown, &text);
            prop_assert_eq!((part(0), part(1), part(2)), ("arn", partition.as_str(), service));
            prop_assert_eq!(part(4), account.as_str());
            prop_assert!(is_account(account.as_str()) && is_plain(&text) && !text.contains("//"), "{}", text);
        }
        if let Ok(stack) = StackId::parse(&text) {
            prop_assert_eq!((part(3), part(5).starts_with("stack/")), (stack.region().as_str(), true));
        }
        if let Ok(role) = RoleArn::parse(&text) {
            prop_assert!(part(3).is_empty() && part(5).starts_with("role/"));
            prop_assert_eq!(Some(role.name()), part(5).rsplit('/').next());
        }
        if let Ok(topic) = TopicArn::parse(&text) {
            taken += 1;
            prop_assert_eq!((topic.as_str(), part(2), part(3)), (text.as_str(), "sns", topic.region().as_str()));
            prop_assert!(is_account(part(4)) && is_plain(&text));
        }
        for accepted in [
            AccountId::parse(&text).ok().map(|id| (id.to_string(), is_account(&text))),
            Region::parse(&text).ok().map(|id| (id.to_string(), !text.contains(['.', '/', ':', '#', '@', '%', '*']))),
            Partition::parse(&text).ok().map(|id| (id.to_string(), text.starts_with("aws"))),
            IamPath::parse(&text).ok().map(|id| (id.to_string(), text.starts_with('/') && text.ends_with('/'))),
        ]
        .into_iter()
        .flatten()
        {
            taken += 1;
            prop_assert!(accepted.0 == text && accepted.1 && is_plain(&text), "{}", text);
        }
        tally.count(if taken > 0 { "an identity" } else { "refused" });
        Ok(())
    });
}
