//! `cost-read`: read the cost export that the customer named, and what finds it.
//!
//! Which bucket is the customer's word, in the role's own policy; this one only takes away what is no reading of costs.

use contracts::Partition;
use serde_json::json;

pub(super) fn session_policy(partition: &Partition) -> String {
    json!({ "Version": "2012-10-17", "Statement": [
        {
            "Sid": "FindAndQueryCosts",
            "Effect": "Allow",
            "Action": [
                "bcm-data-exports:GetExecution",
                "bcm-data-exports:GetExport",
                "bcm-data-exports:ListExecutions",
                "bcm-data-exports:ListExports",
                "ce:GetCostAndUsage",
                "cur:DescribeReportDefinitions",
            ],
            "Resource": "*",
        },
        {
            "Sid": "ReadExports",
            "Effect": "Allow",
            "Action": ["s3:GetBucketLocation", "s3:GetObject", "s3:ListBucket"],
            "Resource": format!("arn:{partition}:s3:::*"),
        },
    ]})
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_and_nothing_else() {
        let policy: serde_json::Value =
            serde_json::from_str(&session_policy(&Partition::parse("aws").unwrap())).unwrap();
        let statements = policy["Statement"].as_array().unwrap();
        for action in statements.iter().flat_map(|statement| statement["Action"].as_array().unwrap()) {
            let (_, verb) = action.as_str().unwrap().split_once(':').unwrap();
            assert!(["Get", "List", "Describe"].iter().any(|read| verb.starts_with(read)), "{verb} is no reading");
            assert!(!verb.contains('*'), "{verb} is a wildcard");
        }
    }
}
