//! The catalogue of purposes: what each may do in a customer's account, what it needs there, and for how long. One file for each purpose.
//!
//! The effective rights are what both the purpose's session policy *and* the customer's role allow. A new purpose is a file here, an arm in
//! [`declared`], and a variant of `contracts::credentials::Purpose`; the tests below then hold it to the rules of all purposes. What must not
//! live here: how permissions are looked for (`look`), and who may ask (NATS, grants).

mod cost_read;

use contracts::{ExternalId, Partition, Region, RoleArn, costs::ExportLocation, credentials::Purpose};
use serde_json::{Value, json};

use crate::{sts::SessionDuration, tags};

/// Longest inline session policy, in characters ([AssumeRole](https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html)).
pub const LONGEST_POLICY: usize = 2048;

/// For sessions that shall be able to do nothing: `GetCallerIdentity` alone cannot be denied.
pub const DENY_ALL: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"*","Resource":"*"}]}"#;

/// Where the customer template puts its roles: path and beginning of the name.
const CUSTOMER_ROLES: &str = "role/rolebridge/rolebridge-*";

/// All that there is to say about a purpose.
#[derive(Debug)]
pub struct Declared {
    pub durations: Durations,
    /// JSON: what a session of this purpose is narrowed to.
    pub session_policy: fn(&Partition) -> String,
    /// What the customer's role must allow for the purpose to be usable.
    pub needs: fn(&Scope<'_>) -> Vec<Need>,
    /// A read that changes nothing and costs nothing, and shows something of the permissions where the role may not be asked about them.
    pub read: fn(&Scope<'_>) -> Read,
}

/// How long sessions of a purpose last.
#[derive(Debug, Clone, Copy)]
pub struct Durations {
    /// When the requester does not say.
    pub usual: SessionDuration,
    /// However much the requester wants.
    pub longest: SessionDuration,
}

impl Durations {
    #[must_use]
    pub fn of(self, wanted: Option<u32>) -> SessionDuration {
        wanted.map_or(self.usual, |seconds| SessionDuration::clamp(Some(seconds))).min(self.longest)
    }
}

/// What of a customer's account a purpose is for.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    pub partition: &'a Partition,
    /// The cost export that the stack names.
    pub export: Option<&'a ExportLocation>,
}

/// Actions that a role must allow on one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    pub actions: &'static [&'static str],
    /// An ARN, or `*` where the actions take no resource.
    pub resource: String,
    /// Condition keys that the real requests carry, with their values.
    pub context: Vec<(&'static str, String)>,
}

/// A harmless read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// At most one name of what lies under the prefix.
    ListObjects { bucket: String, prefix: String },
    /// The account's legacy cost reports.
    ReportDefinitions,
}

impl Read {
    /// The IAM action that it needs.
    #[must_use]
    pub const fn action(&self) -> &'static str {
        match self {
            Self::ListObjects { .. } => "s3:ListBucket",
            Self::ReportDefinitions => "cur:DescribeReportDefinitions",
        }
    }
}

/// What a purpose declares.
#[must_use]
pub const fn declared(purpose: Purpose) -> &'static Declared {
    match purpose {
        Purpose::CostRead => &cost_read::COST_READ,
    }
}

/// The session policy of a purpose in a region, as JSON.
#[must_use]
pub fn session_policy(purpose: Purpose, region: &Region) -> String {
    (declared(purpose).session_policy)(&region.partition())
}

/// The session policy of a role's look at itself: its own properties and permissions, and nothing else of the account.
#[must_use]
pub fn look_at_itself(role: &RoleArn) -> String {
    json!({ "Version": "2012-10-17", "Statement": [{
        "Effect": "Allow",
        "Action": ["iam:GetRole", "iam:SimulatePrincipalPolicy"],
        "Resource": role.as_str(),
    }]})
    .to_string()
}

/// Any role of the customer template, in whatever account.
#[must_use]
pub fn customer_roles(partition: &Partition) -> String {
    format!("arn:{partition}:iam::*:{CUSTOMER_ROLES}")
}

/// The statement that lets a session in customers' roles bear our tags, and no others, none of them transitive.
///
/// No condition on the external ID: AWS knows none for `sts:TagSession`
/// ([keys](https://docs.aws.amazon.com/service-authorization/latest/reference/list_awssecuritytokenservice.html)). It allows nothing by itself; the session
/// needs `sts:AssumeRole`, too.
#[must_use]
pub fn tag_customer_roles(partition: &Partition) -> Value {
    json!({
        "Effect": "Allow",
        "Action": "sts:TagSession",
        "Resource": customer_roles(partition),
        "Condition": {
            "ForAllValues:StringEquals": { "aws:TagKeys": tags::KEYS },
            "Null": { "sts:TransitiveTagKeys": "true" },
        },
    })
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
    json!({ "Version": "2012-10-17", "Statement": [
        {
            "Effect": "Allow",
            "Action": "sts:AssumeRole",
            "Resource": customer_roles(partition),
            "Condition": { "StringEquals": { "sts:ExternalId": ids } },
        },
        // Which tags, and of which roles, is in the role's own policy: room is dear here.
        { "Effect": "Allow", "Action": "sts:TagSession", "Resource": "*" },
    ]})
    .to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn partition(text: &str) -> Partition {
        Partition::parse(text).unwrap()
    }

    #[test]
    fn every_purpose_only_reads() {
        for purpose in Purpose::ALL {
            let policy: serde_json::Value =
                serde_json::from_str(&(declared(purpose).session_policy)(&partition("aws"))).unwrap();
            let statements = policy["Statement"].as_array().unwrap();
            for action in statements.iter().flat_map(|statement| statement["Action"].as_array().unwrap()) {
                let (_, verb) = action.as_str().unwrap().split_once(':').unwrap();
                assert!(["Get", "List", "Describe"].iter().any(|read| verb.starts_with(read)), "{verb} is no reading");
                assert!(!verb.contains('*'), "{verb} is a wildcard");
            }
        }
    }

    /// Else a purpose would be called complete that its own sessions cannot do, or the read would show another right than the purpose's.
    #[test]
    fn what_a_purpose_needs_and_reads_is_what_its_sessions_may() {
        let export = ExportLocation { bucket: "acme-costs".to_owned(), prefix: "cur".to_owned() };
        for (purpose, export) in
            Purpose::ALL.into_iter().flat_map(|purpose| [(purpose, Some(&export)), (purpose, None)])
        {
            let (declared, partition) = (declared(purpose), partition("aws"));
            let (scope, policy) = (Scope { partition: &partition, export }, (declared.session_policy)(&partition));
            let needs = (declared.needs)(&scope);
            let needed: Vec<&str> = needs.iter().flat_map(|need| need.actions).copied().collect();
            for action in &needed {
                assert!(policy.contains(&format!("\"{action}\"")), "{purpose}: {action}");
            }
            assert!(needed.contains(&(declared.read)(&scope).action()), "{purpose}");
            assert!(needs.iter().all(|need| need.actions.len() <= 100), "one page of a simulation");
            assert!(declared.durations.usual <= declared.durations.longest);
        }
    }

    #[test]
    fn a_purpose_may_be_shorter_than_what_sts_gives() {
        let short = SessionDuration::clamp(Some(1800));
        let durations = Durations { usual: SessionDuration::SHORTEST, longest: short };
        let seconds = [None, Some(0), Some(1000), Some(43_200)].map(|wanted| durations.of(wanted).seconds());
        assert_eq!(seconds, [900, 900, 1800, 1800]);
    }

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
