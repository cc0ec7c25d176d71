//! The catalogue of purposes: for each, the session policy that a customer's role is narrowed to. One file for each purpose.
//!
//! The effective rights are what both this policy *and* the customer's role allow. A new purpose is a file here, an arm below, and a variant of
//! `contracts::credentials::Purpose`.

mod cost_read;

use contracts::{ExternalId, Partition, Region, credentials::Purpose};
use serde_json::json;

/// Longest inline session policy, in characters ([AssumeRole](https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html)).
pub const LONGEST_POLICY: usize = 2048;

/// For sessions that shall be able to do nothing: `GetCallerIdentity` alone cannot be denied.
pub const DENY_ALL: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"*","Resource":"*"}]}"#;

/// Where the customer template puts its roles: path and beginning of the name.
const CUSTOMER_ROLES: &str = "role/rolebridge/rolebridge-*";

/// The session policy of a purpose in a region, as JSON.
#[must_use]
pub fn session_policy(purpose: Purpose, region: &Region) -> String {
    match purpose {
        Purpose::CostRead => cost_read::session_policy(&region.partition()),
    }
}

/// Any role of the customer template, in whatever account.
#[must_use]
pub fn customer_roles(partition: &Partition) -> String {
    format!("arn:{partition}:iam::*:{CUSTOMER_ROLES}")
}

/// The session policy of a tenant's first hop: `sts:AssumeRole` of customers' roles, and only with these external IDs.
///
/// A tenant may have more external IDs than fit ([`LONGEST_POLICY`]): they are then taken in groups, in their order, and the policy is that of the
/// group that `wanted` is in. `ids` need not be sorted, nor hold `wanted`.
#[must_use]
pub fn first_hop_policy(partition: &Partition, ids: &[ExternalId], wanted: &ExternalId) -> String {
    let mut sorted: Vec<&str> = ids.iter().map(ExternalId::as_str).chain([wanted.as_str()]).collect();
    sorted.sort_unstable();
    sorted.dedup();
    let room = LONGEST_POLICY.saturating_sub(bound_to(partition, &[]).len());
    let (mut group, mut used) = (Vec::new(), 0);
    for id in sorted {
        // Two quotes and a comma.
        let needs = id.len() + 3;
        if used + needs > room {
            if group.contains(&wanted.as_str()) {
                break;
            }
            group.clear();
            used = 0;
        }
        group.push(id);
        used += needs;
    }
    bound_to(partition, &group)
}

fn bound_to(partition: &Partition, ids: &[&str]) -> String {
    json!({ "Version": "2012-10-17", "Statement": [{
        "Effect": "Allow",
        "Action": "sts:AssumeRole",
        "Resource": customer_roles(partition),
        "Condition": { "StringEquals": { "sts:ExternalId": ids } },
    }]})
    .to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_policy_fits_in_every_partition() {
        for purpose in Purpose::ALL {
            for region in ["eu-central-1", "us-gov-west-1", "cn-northwest-1"] {
                let policy = session_policy(purpose, &Region::parse(region).unwrap());
                assert!(policy.len() <= LONGEST_POLICY, "{purpose} in {region} has {} characters", policy.len());
                assert!(serde_json::from_str::<serde_json::Value>(&policy).is_ok());
            }
        }
    }

    proptest! {
        #[test]
        fn the_first_hop_always_fits_and_always_allows_the_wanted_id(count in 0usize..200) {
            let partition = Partition::parse("aws").unwrap();
            let ids: Vec<ExternalId> = std::iter::repeat_with(ExternalId::generate).take(count).collect();
            for wanted in ids.iter().step_by(7).chain([&ExternalId::generate()]) {
                let policy = first_hop_policy(&partition, &ids, wanted);
                prop_assert!(policy.len() <= LONGEST_POLICY);
                prop_assert!(policy.contains(wanted.as_str()));
            }
        }

        #[test]
        fn the_order_of_grants_does_not_matter(mut order in Just((0..30).map(|n| format!("id-{n}")).collect::<Vec<_>>()).prop_shuffle()) {
            let partition = Partition::parse("aws").unwrap();
            let ids = |texts: &[String]| texts.iter().map(|text| ExternalId::parse(text).unwrap()).collect::<Vec<_>>();
            let wanted = ExternalId::parse("id-3").unwrap();
            let shuffled = first_hop_policy(&partition, &ids(&order), &wanted);
            order.sort_unstable();
            prop_assert_eq!(shuffled, first_hop_policy(&partition, &ids(&order), &wanted));
        }
    }
}
